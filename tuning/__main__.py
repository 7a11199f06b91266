"""The command: `python -m spectrovae.tuning FOLDER --max-trials 20 --output sweeps/mine`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrovae import SpectrogramConverter
from spectrovae.tuning.oracles import ORACLES, WORKER_TIMEOUT, current_role, set_role
from spectrovae.tuning.report import BEST, CSV, REPORT, write_report
from spectrovae.tuning.search_space import DEFAULT_CHOICES, OBJECTIVES, OPTIONAL_CHOICES
from spectrovae.tuning.sweep import Sweep, SweepSettings

_CONVERTER = ("sample_rate", "n_fft", "hop_length", "num_frames")


def make_parser(prog: str = "python -m spectrovae.tuning") -> argparse.ArgumentParser:
    """Return the command's parser; `prog` is what the user has typed to start it.

    Example:
        >>> make_parser().parse_args(["music", "--output", "sweeps/mine"]).max_trials
        20
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Search for the best model of your recordings. Started again with the same arguments, a sweep "
        "goes on where it was. Results: report.html, trials.csv and best.json in the output folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("recordings", nargs="+", metavar="FOLDER", help="folders and files of recordings")
    parser.add_argument("--output", required=True, type=Path, help="folder of the sweep")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, without the trials so far")
    parser.add_argument("--verbose", type=int, choices=(0, 1, 2), default=1, help="0: only the summary")

    search = parser.add_argument_group("search")
    search.add_argument("--tuner", choices=sorted(ORACLES), default="bayesian", help="how to search")
    search.add_argument("--max-trials", type=_positive, default=20, help="number of trials; may be raised later")
    search.add_argument("--epochs", type=_positive, default=10, help="epochs of a trial (hyperband: at most)")
    search.add_argument(
        "--objective",
        choices=("auto", *OBJECTIVES),
        default="auto",
        help="what to minimise: val_loss (negative evidence lower bound) where all trials have the same likelihood, "
        "else val_rmse_db; auto chooses so. val_distance, of generated from held-out sound, compares all",
    )
    search.add_argument("--max-parameters", type=_positive, help="fail models with more weights than this")
    search.add_argument("--seed", type=int, default=0, help="repeats the search")

    machines = parser.add_argument_group(
        "many machines",
        "The same command on each machine, first the chief, with the output folder and the recordings shared under the "
        "same paths. Results are written by the chief, which ends when all trials have.",
    )
    machines.add_argument("--role", choices=("single", "chief", "worker"), default="single", help="of this process")
    machines.add_argument("--chief", metavar="HOST:PORT", help="where the chief listens")
    machines.add_argument("--worker-id", metavar="NAME", help="name of this worker, different for each")
    machines.add_argument(
        "--worker-timeout",
        type=float,
        default=WORKER_TIMEOUT,
        metavar="SECONDS",
        help="the chief gives the trial of a worker that is silent for so long to another",
    )

    space = parser.add_argument_group("choices", "Values to choose from; one value fixes an argument.")
    for name, values in (DEFAULT_CHOICES | OPTIONAL_CHOICES).items():
        searched = name in DEFAULT_CHOICES
        space.add_argument(
            _option(name),
            nargs="+",
            type=type(values[0]),
            default=list(values) if searched else None,
            metavar="VALUE",
            help="values" if searched else f"not searched unless given, such as {' '.join(map(str, values))};",
        )
    space.add_argument("--architecture", choices=("temporal", "classic"), default="temporal", help="networks")

    data = parser.add_argument_group("recordings")
    converter = SpectrogramConverter().get_config()
    for name in _CONVERTER:
        data.add_argument(_option(name), type=_positive, default=converter[name], help="of the converter")
    data.add_argument("--batch-size", type=_positive, default=16, help="windows in a batch")
    data.add_argument("--validation-split", type=float, default=0.2, help="share of the windows that is held out")
    data.add_argument("--loop-short-files", action="store_true", help="repeat files shorter than a window")
    data.add_argument("--cache", type=Path, help="folder of decoded recordings, to share between sweeps")
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m spectrovae.tuning") -> int:
    """Run the command.

    Args:
        arguments: Command line without the program; None for the real one.
        prog: What the user has typed to start it, for messages.

    Returns:
        Exit code: 0, 1 if no trial completed, 2 for arguments that can't be used, 130 after an interruption.
    """
    logging.basicConfig(format="%(message)s")
    options = make_parser(prog).parse_args(arguments)
    try:
        set_role(options.role, options.chief, options.worker_id)
        if options.overwrite and current_role() == "worker":
            raise ValueError("Only the chief can begin anew: leave out --overwrite")
        settings = _settings(options)
        _tell_left_out(settings)
        sweep = Sweep(
            settings,
            options.output,
            options.max_trials,
            options.cache,
            options.overwrite,
            options.verbose,
            options.worker_timeout,
            write_report,
        )
    except (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    try:
        sweep.search()
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. The same command goes on from here.\n")
        return 130
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0 if current_role() == "worker" else _conclude(options.output)


def _conclude(output: Path) -> int:
    results = write_report(output)
    print(f"\n{results}")
    if not results.completed:
        sys.stderr.write(f"error: no trial completed; see {output / REPORT} for the reasons\n")
        return 1
    print(f"Results: {output / REPORT}, {output / CSV}, {output / BEST}")
    return 0


def _settings(options: argparse.Namespace) -> SweepSettings:
    choices: dict[str, list[Any]] = {}
    for name in DEFAULT_CHOICES | OPTIONAL_CHOICES:
        if (values := getattr(options, name)) is not None and values != list(DEFAULT_CHOICES.get(name, ())):
            choices[name] = values
    return SweepSettings(
        recordings=tuple(str(Path(path).resolve()) for path in options.recordings),
        converter={name: getattr(options, name) for name in _CONVERTER},
        choices=choices,
        architecture=options.architecture,
        tuner=options.tuner,
        objective=options.objective,
        epochs=options.epochs,
        batch_size=options.batch_size,
        validation_split=options.validation_split,
        loop_short_files=options.loop_short_files,
        max_parameters=options.max_parameters,
        seed=options.seed,
    )


def _tell_left_out(settings: SweepSettings) -> None:
    usable = settings.hypermodel().usable_choices
    codes = f", for up to {max(usable['latent_steps'])} codes" if "latent_steps" in usable else ""
    for name, values in settings.choices.items():
        if left_out := [value for value in values if value not in usable[name]]:
            bins, frames, _ = settings.make_converter().window_shape
            print(f"{name} {', '.join(map(str, left_out))} left out: windows are {bins} by {frames}{codes}.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
