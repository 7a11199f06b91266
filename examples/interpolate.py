"""Walk from one recording to another through the latent space of a trained model.

    python examples/interpolate.py outputs/model.keras first.wav second.wav --duration 60
    python examples/interpolate.py outputs/model.keras first.wav second.wav --num-steps 6

The walk begins with the model's reconstruction of the first recording and ends with that of the second. With
`--duration` one turns into the other without seams; else the steps stand side by side to compare them, each as long as
the model's window.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras
import numpy as np

import spectrovae  # noqa: F401  (load_model finds the model's class by it)
from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import read_window
from spectrovae.report.plotting import plot_spectrograms


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .keras file, as quickstart.py and train.py write it")
    parser.add_argument("first", type=Path, help="an audio file")
    parser.add_argument("second", type=Path, help="another one")
    parser.add_argument("--first-start", type=float, default=0.0, help="second to start from in it (%(default)s)")
    parser.add_argument("--second-start", type=float, default=0.0, help="the same for the other (%(default)s)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--duration", type=float, help="seconds of a walk without seams, more than a window has")
    length.add_argument("--num-steps", type=int, default=6, help="windows, both ends included (%(default)s)")
    parser.add_argument("--output", type=Path, default="walk.wav", help="file to write (%(default)s)")
    parser.add_argument("--seed", type=int, help="repeats the sound; by default it differs each time")
    args = parser.parse_args(argv)

    model = keras.saving.load_model(args.model)
    converter = model.converter
    ends = [
        converter.to_spectrogram(read_window(path, converter, start))
        for path, start in ((args.first, args.first_start), (args.second, args.second_start))
    ]
    if args.duration is None:
        windows = model.interpolate(*ends, num_steps=args.num_steps, seed=args.seed)
        titles = [f"Step {number} of {args.num_steps}" for number in range(1, args.num_steps + 1)]
        walk = np.concatenate(windows, axis=1)  # (bins, num_steps * frames, 1): one sound
        audio = converter.to_audio(walk, seed=args.seed)
    else:
        audio = model.morph(*ends, duration=args.duration, seed=args.seed)
        windows, titles = converter.to_spectrogram(audio), [f"{args.first.stem} to {args.second.stem}"]
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_audio(args.output, audio, converter.sample_rate)
    picture = args.output.with_suffix(".png")
    plot_spectrograms(windows, converter, titles).savefig(picture)
    print(f"Wrote {args.output} ({len(audio) / converter.sample_rate:.1f} s) and {picture}")


if __name__ == "__main__":
    main()
