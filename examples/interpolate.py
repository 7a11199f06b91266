"""Go from one recording to another through the codes of a trained model.

    python examples/interpolate.py outputs/model.keras first.wav second.wav --duration 60
    python examples/interpolate.py outputs/model.keras first.wav second.wav --num-steps 6

The sound begins with the model's reconstruction of the first recording and ends with that of the second. With
`--duration` the one turns into the other without seams. Otherwise the steps follow one another, each as long as the
model's window, so that they can be compared.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no messages about missing GPUs

import numpy as np

from spectrovae import SpectroVAE, interpolate, load_model, morph, plot_spectrograms, read_audio, write_audio


def read_first_window(path: Path, start: float, model: SpectroVAE) -> np.ndarray:
    """Return the window of a recording that begins at a second, filled with silence if the recording ends early."""
    converter = model.converter
    audio = read_audio(path, converter.sample_rate)[round(start * converter.sample_rate) :]
    audio = audio[: converter.window_length]
    return converter.to_spectrogram(np.pad(audio, (0, converter.window_length - len(audio))))


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .keras file of a trained SpectroVAE")
    parser.add_argument("first", type=Path, help="an audio file")
    parser.add_argument("second", type=Path, help="another one")
    parser.add_argument("--first-start", type=float, default=0.0, help="second to start from in it (%(default)s)")
    parser.add_argument("--second-start", type=float, default=0.0, help="the same for the other (%(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--duration", type=float, help="seconds of a sound without seams, more than a window")
    length.add_argument("--num-steps", type=int, default=6, help="windows, both ends included (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("walk.wav"), help="file to write (%(default)s)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same sound")
    args = parser.parse_args(argv)

    model = load_model(args.model)
    converter = model.converter
    first = read_first_window(args.first, args.first_start, model)
    second = read_first_window(args.second, args.second_start, model)
    if args.duration is None:
        windows = interpolate(model, first, second, num_steps=args.num_steps, seed=args.seed)
        titles = [f"Step {number} of {args.num_steps}" for number in range(1, args.num_steps + 1)]
        audio = converter.to_audio(np.concatenate(windows, axis=1), seed=args.seed)  # one long window: one sound
    else:
        audio = morph(model, first, second, duration=args.duration, seed=args.seed)
        windows, titles = converter.to_spectrogram(audio), [f"{args.first.stem} to {args.second.stem}"]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_audio(args.output, audio, converter.sample_rate)
    picture = args.output.with_suffix(".png")
    plot_spectrograms(windows, converter, titles).savefig(picture)
    print(f"Wrote {args.output} ({len(audio) / converter.sample_rate:.1f} s) and {picture}.")


if __name__ == "__main__":
    main()
