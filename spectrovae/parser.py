"""Command lines whose mistakes are told in one line."""

import argparse
import difflib
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that takes no shortened options, and reports a mistake in one line, with exit code 2.

    Args:
        **kwargs: Arguments of `argparse.ArgumentParser`.

    Example:
        >>> parser = Parser(prog="play")
        >>> option = parser.add_argument("--tempo", type=int)
        >>> parser.parse_args(["--tempo", "120"]).tempo
        120
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | kwargs)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse what is not known here, where the options of a sub-command can be named."""
        options, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            word = unknown[0].partition("=")[0]
            similar = difflib.get_close_matches(word, self._option_string_actions, 1)
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + "".join(f"; is it {name}?" for name in similar))
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with one line."""
        self.exit(2, f"{self.prog}: error: {message} ({self.prog} --help shows all options)\n")
