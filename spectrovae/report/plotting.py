"""Pictures of spectrograms and of the course of training.

Each function returns a `matplotlib.figure.Figure` that belongs to no global state: it needs no closing, and works
without a display and in threads. A notebook shows it; save it with `figure.savefig("picture.png")`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import ArrayLike

from spectrovae.audio.recordings import printable
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.storage import replaced_when_complete

if TYPE_CHECKING:  # matplotlib is imported when something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {
    "loss": ("Loss", "nats per window"),
    "reconstruction_loss": ("Reconstruction loss", "nats per window"),
    "kl_loss": ("KL divergence", "nats per window"),
    "rmse_db": ("Reconstruction error", "dB"),
    "num_live_components": ("Live components of the prior", "number"),
    "component_perplexity": ("Variety of the components", "perplexity"),
    "prior_cross_entropy": ("Cross-entropy of the prior", "nats per window"),
}

_MAX_COLUMNS = 512


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a picture, in the format that the path's ending names: the file is complete or as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_figure(plot_history({"loss": [2.0, 1.0]}), Path(folder, "curves.png"))
        ...     [path.name for path in Path(folder).iterdir()]
        ['curves.png']
    """
    with replaced_when_complete(path) as part, warnings.catch_warnings():
        # Names of files may have characters that the font lacks: it draws a box for them.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(part)


def plot_spectrograms(
    spectrograms: ArrayLike,
    converter: SpectrogramConverter,
    titles: Sequence[str] | None = None,
    num_columns: int = 3,
    frequency_scale: str = "log",
) -> Figure:
    """Draw one or many spectrograms: time in s, frequency in Hz, level in dB.

    All panels share one colour scale, from the converter's floor to 0 dB, so that loudness can be compared between
    panels and between figures.

    Args:
        spectrograms: Values in [0, 1], `(bins, frames, 1)` or `(num_windows, bins, frames, 1)`.
        converter: The `SpectrogramConverter` that made them.
        titles: One for each spectrogram; they may hold anything, such as names of files.
        num_columns: Panels side by side, at most.
        frequency_scale: `"log"` gives each octave the same height, as the ear does (linear below 65 Hz); `"linear"`
            gives each bin the same height and shows the evenly spaced harmonics.

    Returns:
        The figure: its axes are the panels, then the colour bar.

    Raises:
        ValueError: If the spectrograms do not fit the converter or the titles.

    Example:
        >>> import numpy as np
        >>> from spectrovae import SpectrogramConverter, plot_spectrograms
        >>> figure = plot_spectrograms(np.zeros((2, 512, 64, 1)), SpectrogramConverter(), ["one", "two"])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['one', 'two']
    """
    import librosa.display
    from matplotlib.ticker import MaxNLocator

    windows = np.asarray(spectrograms)
    windows = windows[None] if windows.ndim == 3 else windows
    if windows.ndim != 4 or 0 in windows.shape or windows.shape[1::2] != (converter.num_bins, 1):
        raise ValueError(
            f"`spectrograms` must have the shape ({converter.num_bins}, frames, 1) or (num_windows, "
            f"{converter.num_bins}, frames, 1). Received: spectrograms.shape={np.shape(spectrograms)}"
        )
    if titles is not None and (isinstance(titles, str) or len(titles) != len(windows)):
        raise ValueError(f"`titles` must be a list of {len(windows)} titles. Received: titles={titles!r}")
    if num_columns < 1:
        raise ValueError(f"`num_columns` must be at least 1. Received: num_columns={num_columns}")
    if frequency_scale not in ("log", "linear"):
        raise ValueError(f"`frequency_scale` must be 'log' or 'linear'. Received: frequency_scale={frequency_scale!r}")
    figure, panels = _panels(len(windows), num_columns, width=4.2, height=3.0, gap=0.6)
    # Of a long piece as many frames are averaged as share a point of the picture.
    num_averaged = max(1, windows.shape[2] // _MAX_COLUMNS)
    starts = np.arange(0, windows.shape[2], num_averaged)
    times = starts * converter.hop_length / converter.sample_rate
    for index, axes in enumerate(panels):
        levels = converter.to_decibels(windows[index, ..., 0])
        image = librosa.display.specshow(
            np.add.reduceat(levels, starts, axis=1) / np.diff(starts, append=windows.shape[2]),
            x_coords=times,
            y_coords=converter.frequencies,
            x_axis="s",
            y_axis=frequency_scale,
            cmap="magma",
            vmin=-converter.dynamic_range,
            vmax=0,
            ax=axes,
        )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        axes.set_title("" if titles is None else printable(titles[index]), parse_math=False)
        # Labels on the left of each row and below each column's last panel: no more than needed.
        axes.set(xlabel="Time (s)" if index + num_columns >= len(windows) else "")
        axes.set(ylabel="Frequency (Hz)" if index % num_columns == 0 else "")
    box = panels[0].get_position()
    right, bottom = panels[min(num_columns, len(panels)) - 1].get_position().x1, panels[-1].get_position().y0
    inch = 1 / figure.get_figwidth()
    bar = figure.add_axes((right + 0.12 * inch, bottom, 0.14 * inch, box.y1 - bottom))
    figure.colorbar(image, cax=bar, label="Level (dB)")
    return figure


def plot_comparison(
    recorded: ArrayLike,
    generated: ArrayLike,
    converter: SpectrogramConverter,
    titles: tuple[str, str] = ("Recorded", "Generated"),
) -> Figure:
    """Draw recorded windows on the left and generated ones on the right, all on one scale.

    Args:
        recorded: Values in [0, 1], `(num_windows, bins, frames, 1)`.
        generated: The same; of the longer of the two the first ones are drawn.
        converter: The `SpectrogramConverter` that made them.
        titles: Of the columns.

    Returns:
        The figure: its axes are the panels, row by row, then the colour bar.

    Raises:
        ValueError: If the windows do not fit the converter.

    Example:
        >>> import numpy as np
        >>> from spectrovae import SpectrogramConverter
        >>> figure = plot_comparison(np.zeros((1, 512, 64, 1)), np.zeros((3, 512, 64, 1)), SpectrogramConverter())
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['Recorded', 'Generated']
    """
    pairs = list(zip(np.asarray(recorded), np.asarray(generated), strict=False))
    windows = np.stack([window for pair in pairs for window in pair])
    return plot_spectrograms(windows, converter, [*titles, *[""] * (len(windows) - 2)], num_columns=2)


def plot_history(history: keras.callbacks.History | Mapping[str, Sequence[float]]) -> Figure:
    """Draw the course of training: one panel for each metric, with its validation twin.

    Args:
        history: What `fit` returns, or its `history` dictionary: for each metric, a value per epoch. Those of
            `SpectroVAE` come first, with their units; others follow under their own name.

    Returns:
        The figure; its axes are the panels.

    Raises:
        ValueError: If no epoch was recorded.

    Example:
        >>> from spectrovae import plot_history
        >>> figure = plot_history({"loss": [3.0, 2.0], "val_loss": [3.1, 2.4], "rmse_db": [8.0, 6.5]})
        >>> [(axes.get_title(), axes.get_ylabel()) for axes in figure.axes]
        [('Loss', 'nats per window'), ('Reconstruction error', 'dB')]
    """
    from matplotlib.ticker import MaxNLocator

    curves: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    if not isinstance(curves, Mapping) or not any(len(np.atleast_1d(curve)) for curve in curves.values()):
        raise ValueError(
            "`history` must be what `fit` returned, with at least one epoch, or a dictionary of metrics. "
            f"Received: history={history!r}"
        )
    metrics = list(dict.fromkeys(name.removeprefix("val_") for name in curves))
    metrics.sort(key=lambda name: list(_TITLES).index(name) if name in _TITLES else len(_TITLES))
    num_epochs = max(len(curve) for curve in curves.values())
    # `fit` with `initial_epoch` counts on from an earlier run.
    first_epoch = 1 + min(getattr(history, "epoch", None) or [0])
    figure, panels = _panels(len(metrics), num_columns=2, width=4.6, height=2.8, gap=0.9)
    for axes, name in zip(panels, metrics, strict=True):
        for key, label, color in ((name, "training", "C0"), (f"val_{name}", "validation", "C1")):
            if len(curve := curves.get(key, ())):
                # Validation may be rarer than training (`validation_freq`): at the end of every few epochs.
                every = num_epochs // len(curve)
                epochs = first_epoch - 1 + every * np.arange(1, len(curve) + 1)
                axes.plot(epochs, curve, label=label, color=color, marker="o", markersize=3.5)
        title, unit = _TITLES.get(name, (name.replace("_", " "), ""))
        axes.set_title(title, parse_math=False)
        axes.set(xlabel="Epoch", ylabel=unit)
        axes.set_xlim(first_epoch - 0.5, first_epoch + num_epochs - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.ticklabel_format(axis="y", useOffset=False, useMathText=True, scilimits=(-3, 4))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def _panels(num_panels: int, num_columns: int, width: float, height: float, gap: float) -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of panels, each of `width` x `height` inches; the last row may be shorter.

    Margins are fixed: measuring each label (`layout="constrained"`) takes longer than drawing a spectrogram.
    """
    from spectrovae.report.figure import Picture

    num_columns = min(num_columns, num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    left, right, bottom, top, between = 0.8, 0.9, 0.5, 0.35, 0.75  # inches
    size = (width * num_columns + 0.8, height * num_rows)
    across = (size[0] - left - right - (num_columns - 1) * gap) / num_columns
    along = (size[1] - bottom - top - (num_rows - 1) * between) / num_rows
    figure = Picture(figsize=size, dpi=120)
    figure.subplots_adjust(
        left=left / size[0],
        right=1 - right / size[0],
        bottom=bottom / size[1],
        top=1 - top / size[1],
        wspace=gap / across,
        hspace=between / along,
    )
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes in grid[num_panels:]:
        axes.remove()
    return figure, list(grid[:num_panels])
