"""Options that several sub-commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spectrovae import SpectrogramConverter


def count(text: str) -> int:
    """Return a whole number of 1 or more.

    Example:
        >>> count("12")
        12
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, received {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Return a whole number from 0 to 2 ** 32 - 1.

    Example:
        >>> seed("7")
        7
    """
    if not text.isdecimal() or int(text) >> 32:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2 ** 32 - 1, received {text!r}")
    return int(text)


def component(text: str) -> int | str:
    """Return what names a mixture component: its number from 0 on, or its name.

    Example:
        >>> component("3"), component("slow strings")
        (3, 'slow strings')
    """
    return int(text) if text.isdecimal() else text


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the file of a trained model."""
    parser.add_argument("model", type=Path, help="a .keras file that quickstart or train has written")


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add the place of decoded recordings."""
    parser.add_argument(
        "--cache", default="disk", help='decoded recordings: "disk", "memory", or a folder to use again (%(default)s)'
    )


def add_draws(parser: argparse.ArgumentParser) -> None:
    """Add what decides how codes are drawn, and from which component."""
    parser.add_argument("--component", type=component, help="draw from one mixture component: its number or name")
    add_chance(parser)


def add_chance(parser: argparse.ArgumentParser) -> None:
    """Add what decides how codes are drawn where the component is known."""
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 more typical, above 1 more varied (%(default)s)"
    )
    parser.add_argument("--seed", type=seed, help="the same seed gives the same sound; by default each run differs")


def add_window(parser: argparse.ArgumentParser, title: str = "window") -> None:
    """Add the settings of a converter."""
    text = "All that is heard: --sample-rate 44100 --n-fft 2048 --hop-length 512, at twice the cost."
    window = parser.add_argument_group(title, text)
    window.add_argument("--sample-rate", type=count, default=22050, help="Hz; keeps frequencies to half (%(default)s)")
    window.add_argument("--n-fft", type=count, default=1024, help="samples per frame (%(default)s)")
    window.add_argument("--hop-length", type=count, default=256, help="samples between frames (%(default)s)")
    window.add_argument("--num-frames", type=count, default=512, help="frames per window (%(default)s)")


def make_converter(options: argparse.Namespace) -> SpectrogramConverter:
    """Return the converter that `add_window` describes."""
    from spectrovae import SpectrogramConverter

    return SpectrogramConverter(options.sample_rate, options.n_fft, options.hop_length, options.num_frames)
