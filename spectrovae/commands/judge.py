"""Measure how near a model, or a folder of sounds of any origin, comes to recordings.

    spectrovae judge outputs/model.keras held_out/ --training my_recordings/
    spectrovae judge sounds_of_another_system/ held_out/ --training my_recordings/

For a model the table says how well it reconstructs recordings, and how its generated sound compares with them; for a
folder of sounds it says the latter. Without `--training` the first half of the recordings serves as the training set.
Compare distances only with those of the same recordings and settings, and with their zero line in the column "real":
the distance of the training set.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from spectrovae.commands.options import add_window, count, make_converter, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sub-command."""
    parser.add_argument("judged", type=Path, help="a .keras file, an audio file, or a folder of audio files")
    parser.add_argument("recordings", type=Path, help="real recordings, preferably none of the training set")
    parser.add_argument("--training", type=Path, help="recordings that the system was trained on")
    parser.add_argument("--output", type=Path, help="text file to write the table to as well")
    model = parser.add_argument_group("for a model")
    model.add_argument("--num-windows", type=count, default=128, help="to reconstruct and to generate (%(default)s)")
    textures = ("grains", "noise", "none")
    model.add_argument("--texture", choices=textures, default="grains", help="of generated windows (%(default)s)")
    model.add_argument("--seed", type=seed, default=0, help="repeats the result (%(default)s)")
    add_window(parser, "for sounds: the window that is compared")


def run(options: argparse.Namespace) -> None:
    """Judge, print the table, and write it if asked to."""
    from spectrovae import judge, judge_recordings, load_model
    from spectrovae.evaluation.judging import training_and_held_out
    from spectrovae.storage import write_text

    result: object
    if options.judged.suffix == ".keras":
        model = load_model(options.judged)
        training, held_out = training_and_held_out(options.recordings, options.training, model.converter)
        result = judge(model, held_out, training, options.num_windows, options.texture, options.seed)
    else:
        result = judge_recordings(options.judged, options.recordings, options.training, make_converter(options))
    print(result)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(options.output, f"{result}\n")
