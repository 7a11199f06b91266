"""Make new sounds with a trained model: a WAV file and a picture of each.

python examples/generate.py outputs/model.keras --num-samples 10 --temperature 0.8 --seed 1

The same seed gives the same sounds.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras

import spectrovae  # noqa: F401  (load_model finds the model's class by it)
from spectrovae.outputs import write_windows


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .keras file, as quickstart.py and train.py write it")
    parser.add_argument("--output", type=Path, default="generated", help="folder to write to (%(default)s)")
    parser.add_argument("--num-samples", type=int, default=5, help="number of sounds (%(default)s)")
    parser.add_argument("--component", type=int, help="draw from this Gaussian of the mixture only, 0 being the first")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 more typical, above 1 more daring (%(default)s)"
    )
    parser.add_argument("--seed", type=int, help="repeats the sounds; by default new ones each time")
    args = parser.parse_args(argv)

    model = keras.saving.load_model(args.model)
    windows = model.generate(args.num_samples, args.component, args.temperature, args.seed)
    print(f"Generated {args.num_samples} windows of {model.converter.window_duration:.1f} s; estimating phases ...")
    for path in write_windows(windows, model.converter, args.output, seed=args.seed):
        print(f"Wrote {path} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
