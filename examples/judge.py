"""Judge a model, or sounds of any origin, against recordings.

    python examples/judge.py outputs/model.keras held_out/ --training my_recordings/
    python examples/judge.py sounds_of_another_system/ held_out/ --training my_recordings/

Of a model it tells how well it restores recordings, and how its generated sound compares with them; of a folder of
sounds the latter. Without `--training` the first half of the recordings takes the place of the training set. Distances
compare only with others of the same recordings and settings, and are read beside their zero line in the column "real":
that of the training set.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras

from spectrovae import SpectrogramConverter
from spectrovae.evaluation.judging import judge, judge_recordings, training_and_held_out


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judged", type=Path, help="a .keras file, or an audio file or a folder of them")
    parser.add_argument("recordings", type=Path, help="real recordings, best such that no system was trained on")
    parser.add_argument("--training", type=Path, help="recordings that the system was trained on")
    parser.add_argument("--output", type=Path, help="text file to write the table to as well")
    model_options = parser.add_argument_group("for a model")
    model_options.add_argument("--num-windows", type=int, default=128, help="to restore and to generate (%(default)s)")
    model_options.add_argument("--texture", type=float, default=1.0, help="of generated windows (%(default)s)")
    model_options.add_argument("--seed", type=int, default=0, help="repeats the result (%(default)s)")
    window = parser.add_argument_group("for sounds: the window that is compared")
    window.add_argument("--sample-rate", type=int, default=22050, help="Hz (%(default)s)")
    window.add_argument("--n-fft", type=int, default=1024, help="samples per frame (%(default)s)")
    window.add_argument("--hop-length", type=int, default=256, help="samples between frames (%(default)s)")
    window.add_argument("--num-frames", type=int, default=512, help="frames per window (%(default)s)")
    args = parser.parse_args(argv)

    result: object
    if args.judged.suffix == ".keras":
        model = keras.saving.load_model(args.judged)
        training, held_out = training_and_held_out(args.recordings, args.training, model.converter)
        result = judge(model, held_out, training, args.num_windows, args.texture, args.seed)
    else:
        converter = SpectrogramConverter(args.sample_rate, args.n_fft, args.hop_length, args.num_frames)
        result = judge_recordings(args.judged, args.recordings, args.training, converter)
    print(result)
    if args.output is not None:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(f"{result}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
