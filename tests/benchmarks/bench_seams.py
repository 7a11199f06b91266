"""Whether the joins between the windows of generated pieces can be told from what is around them.

    python tests/benchmarks/bench_seams.py MODEL.keras --num-pieces 6 --duration 60

Pieces are turned into sound and analysed again. "Seams" are the frames around the middle of each fade between two
windows (an eighth of a window), "elsewhere" are those that one window makes alone. Flux is the root-mean-square change
of the levels from frame to frame.
"""

import argparse
import time
import warnings

import keras
import numpy as np

from spectrovae import SpectroVAE, generate_audio
from spectrovae.model.walks import window_starts


def frame_values(model: SpectroVAE, audio: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is measured of each frame, in dB."""
    spectrogram = model.converter.to_spectrogram(audio)[..., 0]
    levels, magnitudes = model.converter.to_decibels(spectrogram), model.converter.to_magnitudes(spectrogram)
    return {
        "energy": 10 * np.log10(np.square(magnitudes).sum(axis=0) + 1e-12),
        "mean level": levels.mean(axis=0),
        "flux": np.sqrt(np.square(np.diff(levels, prepend=levels[:, :1])).mean(axis=0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .keras file")
    parser.add_argument("--num-pieces", type=int, default=6)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of each")
    arguments = parser.parse_args()
    model = keras.saving.load_model(arguments.model)
    num_frames = model.converter.num_frames
    seams: dict[str, list[np.ndarray]] = {}
    elsewhere: dict[str, list[np.ndarray]] = {}
    start = time.perf_counter()
    for seed in range(arguments.num_pieces):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There were peaks")
            audio = generate_audio(model, arguments.duration, seed=seed)
        starts = window_starts(-(-len(audio) // model.converter.hop_length), num_frames, -(-num_frames // 4))
        middles = (starts[1:] + starts[:-1] + num_frames) // 2
        for name, values in frame_values(model, audio).items():
            distances = np.abs(np.arange(len(values))[:, None] - middles).min(axis=1)
            seams.setdefault(name, []).append(values[distances <= num_frames // 16])
            elsewhere.setdefault(name, []).append(values[distances >= num_frames // 5])
    print(f"{arguments.num_pieces} pieces took {time.perf_counter() - start:.1f} s")
    print(
        "| dB | seams | elsewhere | spread elsewhere | 99th percentile: seams | elsewhere |\n|---|---|---|---|---|---|"
    )
    for name in seams:
        near, far = np.concatenate(seams[name]), np.concatenate(elsewhere[name])
        row = near.mean(), far.mean(), far.std(), np.percentile(near, 99), np.percentile(far, 99)
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |")


if __name__ == "__main__":
    main()
