"""Go on where a recording ends, with a trained model that has several codes along a window.

    python examples/train.py my_recordings/ --latent-dim 32 --latent-steps 32
    python examples/continue.py trained/model.keras tune.wav --at 60 --duration 30

The result is the recording, at the model's sample rate, and what the model thinks may follow. It fades into the
continuation; from where on all is the model's own is told at the end. Recordings end in silence: `--at` goes on sooner.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras
import numpy as np

from spectrovae import SpectrogramConverter  # load_model finds the model's class by this package
from spectrovae.audio.io import read_audio, write_audio
from spectrovae.report.plotting import plot_spectrograms


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .keras file, as quickstart.py and train.py write it")
    parser.add_argument("recording", type=Path, help="an audio file")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds to go on for (%(default)s)")
    parser.add_argument("--at", type=float, help="second of the recording to leave it at; by default its end")
    parser.add_argument("--past", type=float, help="seconds of it to keep before that; by default all")
    parser.add_argument("--overlap", type=float, help="seconds of the fade; by default 0.5, and at most a window")
    parser.add_argument("--component", help="continue as this one of the mixture: a number from 0 on, or its name")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 more typical, above 1 more daring (%(default)s)"
    )
    parser.add_argument("--output", type=Path, default="continued.wav", help="file to write (%(default)s)")
    parser.add_argument("--seed", type=int, help="repeats the sound; by default it differs each time")
    args = parser.parse_args(argv)

    model = keras.saving.load_model(args.model)
    converter = model.converter
    if model.latent_steps == 1:
        parser.error(
            f"{args.model} has one code for a window and does not know what follows what. "
            "Train a model with --latent-steps, such as: train.py FOLDER --latent-dim 32 --latent-steps 32"
        )
    is_number = args.component is not None and args.component.isdecimal()
    recording = read_audio(args.recording, converter.sample_rate)
    if args.at is not None:
        recording = recording[: max(0, round(args.at * converter.sample_rate))]
    if not len(recording):
        parser.error(f"{args.recording} holds no sound, or none before --at")
    length = len(recording) / converter.sample_rate
    past = length if args.past is None else min(args.past, length)
    overlap = min(0.5, converter.window_duration, past) if args.overlap is None else args.overlap
    if not overlap <= past:
        parser.error(f"--overlap is longer than what is kept of the recording, {past:.2f} s: {overlap}")
    following = model.continue_audio(
        last_window(recording, converter)[None],
        args.duration,
        int(args.component) if is_number else args.component,
        args.temperature,
        args.seed,
        overlap=overlap,
    )
    num_kept = round(past * converter.sample_rate)
    audio = join(recording[len(recording) - num_kept :], following, round(overlap * converter.sample_rate))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_audio(args.output, audio / max(1.0, np.abs(audio).max()), converter.sample_rate)
    picture = args.output.with_suffix(".png")
    # The last window of the recording, and all that follows.
    seen = converter.to_spectrogram(audio[-len(following) - converter.window_length :])
    plot_spectrograms(seen, converter, [f"{args.recording.stem}, continued"]).savefig(picture)
    length = len(audio) / converter.sample_rate
    print(f"Wrote {args.output} ({length:.1f} s, from {past:.1f} s on the model's own) and {picture}")


def last_window(recording: np.ndarray, converter: SpectrogramConverter) -> np.ndarray:
    """Return the spectrogram of the end of a recording, `converter.window_shape`.

    One that is shorter than a window is heard as its own repetition. Frames look a little beyond their time: there the
    end is mirrored, since silence would sound like the end of the music.
    """
    num_beyond = -(-converter.n_fft // (2 * converter.hop_length))  # frames
    length = converter.window_length + num_beyond * converter.hop_length
    end = np.pad(recording, (max(0, length - len(recording)), 0), mode="wrap")[-length:]
    end = np.pad(end, (0, num_beyond * converter.hop_length), mode="reflect")
    return converter.to_spectrogram(end)[:, num_beyond:-num_beyond]


def join(first: np.ndarray, second: np.ndarray, num_faded: int) -> np.ndarray:
    """Fade from the end of one sound into the start of another.

    Their phases have nothing to do with each other, so that powers add up: their weights do, to 1.
    """
    angle = 0.5 * np.pi * (np.arange(num_faded) + 0.5) / max(1, num_faded)
    faded = np.cos(angle) * first[len(first) - num_faded :] + np.sin(angle) * second[:num_faded]
    return np.concatenate([first[: len(first) - num_faded], faded, second[num_faded:]]).astype(np.float32)


if __name__ == "__main__":
    main()
