"""Speed and accuracy of our fast Griffin-Lim, a batch at once, against `librosa.griffinlim`, clip by clip.

    python tests/benchmarks/bench_inversion.py --audio FOLDER

Both get the same magnitudes, those of windows of recordings (of composed music without `--audio`), and the same number
of iterations with the same momentum. "Smoothed" magnitudes are means over 16 frames in dB with straight lines between
them, about as a decoder gives them. Convergence is the norm of the difference between the magnitudes of the sound and
the given ones, over the norm of these, in dB: lower is better. Compare the rows of one run: machines differ.
"""

import argparse
import tempfile
import time
from collections.abc import Callable

import librosa
import numpy as np

from spectrovae import SpectrogramConverter, audio_dataset
from spectrovae.audio.phase import griffin_lim
from spectrovae.audio.spectrogram import stream_magnitudes
from spectrovae.model.pca import average_frames, interpolate_frames
from spectrovae.synthesis import compose_collection

NUM_SMOOTHED_FRAMES = 16


def load_windows(folder: str, converter: SpectrogramConverter, num_windows: int) -> np.ndarray:
    """Return windows from all over a folder, (num_windows, bins, frames, 1)."""
    dataset = audio_dataset(folder, converter, batch_size=num_windows, seed=0, verbose=0)
    windows = next(iter(dataset)).numpy()
    if len(windows) < num_windows:
        raise SystemExit(f"{folder} has only {len(windows)} of {num_windows} windows: set --num-windows")
    return windows


def convergence(waveforms: np.ndarray, magnitudes: np.ndarray, converter: SpectrogramConverter) -> float:
    """Return the mean spectral convergence of the clips in dB."""
    ratios = []
    for waveform, target in zip(waveforms, magnitudes, strict=True):
        result = np.concatenate(list(stream_magnitudes([waveform], converter.n_fft, converter.hop_length))).T
        ratios.append(np.linalg.norm(result - target) / np.linalg.norm(target))
    return float(20 * np.log10(ratios).mean())


def librosa_clip_by_clip(magnitudes: np.ndarray, converter: SpectrogramConverter, num_iterations: int) -> np.ndarray:
    """Return the waveforms that librosa finds."""
    scaled = magnitudes * np.float32(converter.n_fft / 4)
    return np.stack(
        [
            librosa.griffinlim(
                np.pad(np.pad(clip, ((0, 0), (0, 1)), mode="edge"), ((0, 1), (0, 0))),
                n_iter=num_iterations,
                hop_length=converter.hop_length,
                n_fft=converter.n_fft,
                length=converter.window_length,
                momentum=0.99,
            )
            for clip in scaled
        ]
    )


def timed(function: Callable[[], np.ndarray], num_repeats: int) -> tuple[np.ndarray, float]:
    """Return what a function returns, and the least time of several calls, in seconds."""
    seconds = []
    for _ in range(num_repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", help="folder of recordings; by default music is composed")
    parser.add_argument("--num-windows", type=int, default=16, help="clips in the batch")
    parser.add_argument("--num-iterations", type=int, default=64)
    parser.add_argument("--num-repeats", type=int, default=3, help="the least time counts")
    arguments = parser.parse_args()
    converter = SpectrogramConverter()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.audio is None:
            compose_collection(folder, num_pieces=arguments.num_windows, duration=6.5)
        windows = load_windows(arguments.audio or folder, converter, arguments.num_windows)
    smoothed = interpolate_frames(average_frames(windows, NUM_SMOOTHED_FRAMES), NUM_SMOOTHED_FRAMES)
    sound = len(windows) * converter.window_duration
    librosa_clip_by_clip(converter.to_magnitudes(windows[:1, ..., 0]), converter, 1)  # compiles what it needs
    print("| magnitudes | system | time | times real time | ratio | convergence |\n|---|---|---|---|---|---|")
    for kind, batch in {"true": windows, "smoothed": smoothed}.items():
        magnitudes = converter.to_magnitudes(np.clip(batch[..., 0], 0, 1))
        systems = {
            "librosa, clip by clip": lambda m=magnitudes: librosa_clip_by_clip(m, converter, arguments.num_iterations),
            "ours, a batch": lambda m=magnitudes: griffin_lim(
                m, converter.n_fft, converter.hop_length, arguments.num_iterations, seed=0
            ),
        }
        reference = None
        for name, system in systems.items():
            waveforms, seconds = timed(system, arguments.num_repeats)
            reference = reference or seconds
            print(
                f"| {kind} | {name} | {seconds:.2f} s | {sound / seconds:.1f} | {reference / seconds:.2f} | "
                f"{convergence(waveforms, magnitudes, converter):.2f} dB |"
            )


if __name__ == "__main__":
    main()
