"""Find the best size of a model for your recordings, then train that model for longer.

    python examples/sweep.py                            # composes its own music
    python examples/sweep.py --audio my_recordings/ --max-trials 20 --trial-epochs 10 --epochs 100

Run again with the same arguments, it continues where it stopped. Look at `sweep/report.html` in the output folder.
`spectrovae sweep --help` shows what else can be searched, and how on many machines.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no messages about missing GPUs

from spectrovae import SpectrogramConverter, SpectroVAE, compose_collection, fit_resumably, write_results
from spectrovae.tuning import Sweep, SweepSettings, write_report

CHOICES = {"latent_dim": [8, 16, 32, 64], "num_components": [1, 4, 16], "decoder_depth": [2, 3, 4], "width": [512]}
CONVERTER = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "num_frames": 512}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the settings that the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, help="folder of recordings; by default music is composed")
    parser.add_argument("--output", type=Path, default=Path("best_model"), help="folder to write to (%(default)s)")
    parser.add_argument("--max-trials", type=int, default=9, help="models to try (%(default)s)")
    parser.add_argument("--trial-epochs", type=int, default=3, help="passes over the music in each (%(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="passes over the music for the best (%(default)s)")
    parser.add_argument("--objective", default="auto", help="val_loss, val_rmse_db or val_distance (%(default)s)")
    parser.add_argument("--num-pieces", type=int, default=24, help="pieces of 20 s to compose (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides music, search and training (%(default)s)")
    for name, values in CHOICES.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, nargs="+", default=values, help="values to choose from (%(default)s)")
    for name, value in CONVERTER.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help="of a window (%(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_arguments(argv)
    if args.audio is None:
        args.audio = args.output / "music"
        print(f"Composing {args.num_pieces} pieces of 20 s into {args.audio} ...")
        compose_collection(args.audio, args.num_pieces, seed=args.seed)

    settings = SweepSettings(
        recordings=(str(args.audio.resolve()),),
        converter={name: getattr(args, name) for name in CONVERTER},
        choices={name: getattr(args, name) for name in CHOICES},
        objective=args.objective,
        epochs=args.trial_epochs,
        seed=args.seed,
    )
    sweep = Sweep(settings, args.output / "sweep", args.max_trials, report=write_report)
    sweep.search()
    results = write_report(sweep.output)
    print(f"\n{results}")
    if not results.completed:
        raise SystemExit(f"No trial completed: {sweep.output / 'report.html'} has the reasons.")

    best = json.loads((sweep.output / "best.json").read_text())
    print(f"\nTraining the model of trial {best['trial_id']} for {args.epochs} epochs ...")
    converter = SpectrogramConverter(**best["converter"])
    model = SpectroVAE(converter.window_shape, converter=converter, **best["arguments"])
    model.compile()
    train, validation = settings.datasets(sweep.cache)
    folder = args.output / f"trial_{best['trial_id']}"  # more trials may find another winner
    history = fit_resumably(model, folder, train, validation, args.epochs)
    diagnosis = write_results(model, train, validation, history, folder, seed=args.seed)
    print(
        f"\nThe report is {sweep.output / 'report.html'}; {folder} holds model.keras, sounds and pictures.\n{diagnosis}"
    )


if __name__ == "__main__":
    main()
