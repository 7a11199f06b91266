"""The command: `python -m spectrovae.tuning FOLDER --max-trials 20 --output sweeps/mine`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrovae.parser import Parser
from spectrovae.storage import exit_on_sigterm
from spectrovae.tuning.search_space import (
    ARCHITECTURES,
    CHOICE_NAMES,
    DEFAULT_CHOICES,
    OBJECTIVES,
    OPTIONAL_CHOICES,
    TUNERS,
    WORKER_TIMEOUT,
    SweepSettings,
)

if TYPE_CHECKING:
    from spectrovae.tuning.sweep import Sweep

# The defaults of `SpectrogramConverter`, whose module would have to be imported to show the help.
_CONVERTER = {"sample_rate": 22050, "n_fft": 1024, "hop_length": 256, "num_frames": 512}


def make_parser(prog: str = "python -m spectrovae.tuning") -> argparse.ArgumentParser:
    """Return the command's parser; `prog` is what the user has typed to start it.

    Example:
        >>> make_parser().parse_args(["music", "--output", "sweeps/mine"]).max_trials
        20
    """
    parser = Parser(
        prog=prog,
        description="Search for the best model of your recordings. Started again with the same arguments, a sweep "
        "continues where it stopped. Results: report.html, trials.csv and best.json in the output folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("recordings", nargs="+", metavar="FOLDER", help="folders and files of recordings")
    parser.add_argument("--output", required=True, type=Path, help="folder of the sweep")
    parser.add_argument("--overwrite", action="store_true", help="start over, without the trials so far")
    parser.add_argument("--verbose", type=int, choices=(0, 1, 2), default=1, help="0: only the summary")
    _add_search(parser.add_argument_group("search"))
    _add_machines(
        parser.add_argument_group(
            "many machines",
            "Run the same command on each machine, the chief first. The output folder and the recordings must be "
            "shared under the same paths. The chief writes the results and ends when all trials have. Chief and "
            "workers need the same SPECTROVAE_SWEEP_TOKEN in their environment.",
        )
    )
    _add_choices(parser.add_argument_group("choices", "Values to choose from; a single value fixes an argument."))
    _add_recordings(parser.add_argument_group("recordings"))
    return parser


def _add_search(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--tuner", choices=TUNERS, default="bayesian", help="search algorithm")
    group.add_argument("--max-trials", type=_positive, default=20, help="number of trials; may be raised later")
    group.add_argument("--epochs", type=_positive, default=10, help="epochs of a trial (hyperband: at most)")
    group.add_argument(
        "--objective",
        choices=("auto", *OBJECTIVES),
        default="auto",
        help="what to minimise: val_loss (negative evidence lower bound) if all trials have the same likelihood, "
        "else val_rmse_db; auto chooses between them. val_distance, between generated and held-out sound, compares all",
    )
    group.add_argument("--max-parameters", type=_positive, help="fail models with more weights than this")
    group.add_argument("--seed", type=int, default=0, help="makes the search repeatable")


def _add_machines(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--role", choices=("single", "chief", "worker"), default="single", help="of this process")
    group.add_argument(
        "--chief", metavar="HOST:PORT", help="address at which the chief listens; HOST is 127.0.0.1 if left out"
    )
    group.add_argument("--worker-id", metavar="NAME", help="name of this worker, different for each")
    group.add_argument(
        "--worker-timeout",
        type=float,
        default=WORKER_TIMEOUT,
        metavar="SECONDS",
        help="after so many seconds of silence the chief gives a worker's trial to another",
    )


def _add_choices(group: argparse._ArgumentGroup) -> None:
    for name, values in (DEFAULT_CHOICES | OPTIONAL_CHOICES).items():
        searched = name in DEFAULT_CHOICES
        group.add_argument(
            _option(name),
            nargs="+",
            type=type(values[0]),
            default=list(values) if searched else None,
            choices=CHOICE_NAMES.get(name),
            metavar="VALUE",
            help="values" if searched else f"not searched unless given, such as {' '.join(map(str, values))};",
        )
    group.add_argument("--architecture", choices=ARCHITECTURES, default="temporal", help="networks")


def _add_recordings(group: argparse._ArgumentGroup) -> None:
    for name, default in _CONVERTER.items():
        group.add_argument(_option(name), type=_positive, default=default, help="of the converter")
    group.add_argument("--batch-size", type=_positive, default=16, help="windows in a batch")
    group.add_argument("--validation-split", type=float, default=0.2, help="share of the windows to hold out")
    group.add_argument("--loop-short-files", action="store_true", help="repeat files shorter than a window")
    group.add_argument("--cache", type=Path, help="folder of decoded recordings, to share between sweeps")


def main(arguments: Sequence[str] | None = None, prog: str = "python -m spectrovae.tuning") -> int:
    """Run the command.

    Args:
        arguments: Command line without the program; None for the real one.
        prog: What the user has typed to start it, for messages.

    Returns:
        Exit code: 0, 1 if no trial completed, 2 for arguments or files that cannot be used, 130 after Ctrl-C. SIGTERM
        raises `SystemExit` with 143.
    """
    logging.basicConfig(format="%(message)s")
    options = make_parser(prog).parse_args(arguments)
    exit_on_sigterm()
    try:
        _make_sweep(options).search()
        return _conclude(options.output)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. The same command continues from here.\n")
        return 130
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: the package {error.name} is missing: pip install 'spectrovae[tuning]'\n")
        return 2


def _make_sweep(options: argparse.Namespace) -> Sweep:
    from spectrovae.tuning.chief import current_role, set_role
    from spectrovae.tuning.report import write_report
    from spectrovae.tuning.sweep import Sweep

    set_role(options.role, options.chief, options.worker_id)
    if options.overwrite and current_role() == "worker":
        raise ValueError("Only the chief can start over: leave out --overwrite")
    settings = _settings(options)
    _print_unusable(settings)
    return Sweep(
        settings,
        options.output,
        options.max_trials,
        options.cache,
        options.overwrite,
        options.verbose,
        options.worker_timeout,
        write_report,
    )


def _conclude(output: Path) -> int:
    from spectrovae.tuning.chief import current_role
    from spectrovae.tuning.report import BEST, CSV, REPORT, write_report

    if current_role() == "worker":
        return 0
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


def _print_unusable(settings: SweepSettings) -> None:
    usable = settings.usable_choices
    codes = f", for up to {max(usable['latent_steps'])} codes" if "latent_steps" in usable else ""
    for name, values in settings.choices.items():
        if left_out := [value for value in values if value not in usable[name]]:
            bins, frames, _ = settings.make_converter().window_shape
            print(f"{name} {', '.join(map(str, left_out))} left out: windows are {bins} by {frames}{codes}.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, not {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
