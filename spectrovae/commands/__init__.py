"""The console command `spectrovae`: train, generate and compare without writing Python.

Each sub-command is a module with `add_arguments(parser)` and `run(arguments)`. Only `run` imports TensorFlow, so that
`spectrovae --help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence

from spectrovae.commands import continuation, generate, judge, quickstart, similar, styles, sweep, train, vary
from spectrovae.parser import Parser
from spectrovae.storage import exit_on_sigterm
from spectrovae.training.memory import keep_freed_memory

_COMMANDS = {
    "quickstart": quickstart,
    "train": train,
    "generate": generate,
    "continue": continuation,
    "vary": vary,
    "similar": similar,
    "styles": styles,
    "judge": judge,
}
_SWEEP_HELP = "Search for the best size of a model for your recordings."


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all sub-commands but `sweep`, which has its own.

    Example:
        >>> make_parser().parse_args(["train", "my_recordings", "--epochs", "3"]).epochs
        3
    """
    parser = Parser(prog="spectrovae", description="Train a generative model on your own recordings.")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, module in _COMMANDS.items():
        description = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=description.partition("\n")[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.add_argument("--traceback", action="store_true", help="show where in the code an error occurred")
        command.set_defaults(run=module.run)
    commands.add_parser("sweep", help=_SWEEP_HELP, add_help=False)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The words after `spectrovae`; None for those of the command line.

    Returns:
        Exit code: 0, 2 for arguments or files that cannot be used, 130 after an interruption.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no messages about missing GPUs
    if arguments is None:
        exit_on_sigterm()
        keep_freed_memory()
        warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"  # without a line of the source
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["sweep"]:
        return sweep.run(words[1:])
    parser = make_parser()
    options = parser.parse_args(words)
    if options.version:
        from spectrovae import __version__

        print(f"spectrovae {__version__}")
        return 0
    if options.command is None:
        parser.print_help()
        return 2
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    """Run a sub-command; tell in one line what is wrong with its arguments or files."""
    try:
        options.run(options)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        return 130
    except (ValueError, OSError, ImportError) as error:
        if options.traceback:
            raise
        sys.stderr.write(f"spectrovae {options.command}: error: {' '.join(str(error).split())}\n")
        return 2
    return 0
