"""Search for the best size of a model for your recordings: the command of `spectrovae.tuning`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    """Run the command of `spectrovae.tuning`, and return its exit code."""
    try:
        from spectrovae.tuning.__main__ import main

        return main(arguments, prog="spectrovae sweep")
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"spectrovae sweep: error: the package {error.name} is missing: pip install 'spectrovae[tuning]'\n"
        )
        return 2
