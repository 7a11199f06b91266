"""Pictures: spectrograms, the course of training, and the latent space.

Each function returns a `matplotlib.figure.Figure` that belongs to no global state: it needs no closing, and
works without a display and in threads. Save it with `figure.savefig("picture.png")`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import librosa.display
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA

from spectrovae.audio.spectrogram import SpectrogramConverter

_TITLES = {
    "loss": ("Loss", "nats per window"),
    "reconstruction_loss": ("Reconstruction loss", "nats per window"),
    "kl_loss": ("KL divergence", "nats per window"),
    "rmse_db": ("Reconstruction error", "dB"),
    "num_live_components": ("Live components of the prior", "number"),
    "component_perplexity": ("Variety of the components", "perplexity"),
    "prior_cross_entropy": ("Cross-entropy of the prior", "nats per window"),
}


def _panels(num_panels: int, num_columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of panels, each `width` x `height` inches; the last row may be shorter."""
    num_columns = min(num_columns, num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    figure = Figure(figsize=(width * num_columns + 0.8, height * num_rows), dpi=120, layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
    for axes in grid[num_panels:]:
        axes.remove()
    return figure, list(grid[:num_panels])


def plot_spectrograms(
    spectrograms: ArrayLike,
    converter: SpectrogramConverter,
    titles: Sequence[str] | None = None,
    num_columns: int = 3,
    frequency_scale: str = "log",
) -> Figure:
    """Draw one or many spectrograms: time in s, frequency in Hz, level in dB.

    All panels share one colour scale, from the converter's floor to 0 dB, so that loudness can be compared
    between panels and between figures.

    Args:
        spectrograms: values in [0, 1], `(bins, frames, 1)` or `(num_windows, bins, frames, 1)`.
        converter: the `SpectrogramConverter` that made them.
        titles: one for each spectrogram.
        num_columns: panels side by side, at most.
        frequency_scale: "log" gives each octave the same height, as the ear does (linear below 65 Hz);
            "linear" gives each bin the same height and shows the evenly spaced harmonics.

    Returns:
        The figure: its axes are the panels, then the colour bar.

    Raises:
        ValueError: if the spectrograms do not fit the converter or the titles.

    Example:
        >>> figure = plot_spectrograms(np.zeros((2, 512, 64, 1)), SpectrogramConverter(), ["one", "two"])
        >>> [axes.get_title() for axes in figure.axes[:2]]
        ['one', 'two']
    """
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
    figure, panels = _panels(len(windows), num_columns, width=4.2, height=3.0)
    times = np.arange(windows.shape[2]) * converter.hop_length / converter.sample_rate
    for index, axes in enumerate(panels):
        image = librosa.display.specshow(
            converter.to_decibels(windows[index, ..., 0]),
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
        axes.set(title="" if titles is None else titles[index])
        # Labels on the left of each row and below each column's last panel: no more than needed.
        axes.set(xlabel="Time (s)" if index + num_columns >= len(windows) else "")
        axes.set(ylabel="Frequency (Hz)" if index % num_columns == 0 else "")
    figure.colorbar(image, ax=panels, label="Level (dB)", fraction=0.05, pad=0.02)
    return figure


def plot_history(history: keras.callbacks.History | Mapping[str, Sequence[float]]) -> Figure:
    """Draw the course of training: one panel for each metric, with its validation twin.

    Args:
        history: what `fit` returns, or its `history` dictionary: for each metric, a value per epoch. Those of
            `SpectroVAE` come first, with their units; others follow under their own name.

    Returns:
        The figure; its axes are the panels.

    Raises:
        ValueError: if no epoch was recorded.

    Example:
        >>> figure = plot_history({"loss": [3.0, 2.0], "val_loss": [3.1, 2.4], "rmse_db": [8.0, 6.5]})
        >>> [(axes.get_title(), axes.get_ylabel()) for axes in figure.axes]
        [('Loss', 'nats per window'), ('Reconstruction error', 'dB')]
    """
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
    figure, panels = _panels(len(metrics), num_columns=2, width=4.6, height=2.8)
    for axes, name in zip(panels, metrics, strict=True):
        for key, label, color in ((name, "training", "C0"), (f"val_{name}", "validation", "C1")):
            if len(curve := curves.get(key, ())):
                # Validation may be rarer than training (`validation_freq`): at the end of every few epochs.
                every = num_epochs // len(curve)
                epochs = first_epoch - 1 + every * np.arange(1, len(curve) + 1)
                axes.plot(epochs, curve, label=label, color=color, marker="o", markersize=3.5)
        title, unit = _TITLES.get(name, (name.replace("_", " "), ""))
        axes.set(title=title, xlabel="Epoch", ylabel=unit)
        axes.set_xlim(first_epoch - 0.5, first_epoch + num_epochs - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.ticklabel_format(axis="y", useOffset=False, useMathText=True, scilimits=(-3, 4))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return figure


def plot_latent(
    codes: ArrayLike, labels: ArrayLike | None = None, num_components: int | None = None, title: str = ""
) -> Figure:
    """Draw a map of the latent space: the two directions in which the codes vary most.

    Args:
        codes: `(num_windows, latent_dim)`, as `SpectroVAE.encode` returns them; further axes are flattened.
        labels: the mixture component of each code, `(num_windows,)` integers, such as
            `model.prior.responsibilities(codes)` through `argmax(axis=-1)`. They give the colours and a
            legend with each component's share.
        num_components: lists components without any code, too, with 0 %.
        title: written above the map.

    Returns:
        The figure; its axes are labelled with the share of the variance that they show.

    Raises:
        ValueError: if there are fewer than 2 codes, or the labels do not fit them.

    Example:
        >>> codes = np.random.default_rng(0).normal(size=(50, 8))
        >>> figure = plot_latent(codes, labels=np.arange(50) % 2)
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['0 (50 %)', '1 (50 %)']
    """
    codes = np.asarray(codes, np.float64)
    if codes.ndim < 2 or len(codes) < 2 or not codes.size or not np.all(np.isfinite(codes)):
        raise ValueError(
            "`codes` must have the shape (num_windows, latent_dim) with at least 2 windows, all finite. "
            f"Received: codes.shape={codes.shape}"
        )
    counts = None if labels is None else _count_components(labels, len(codes), num_components)
    num_legend_columns = math.ceil(len(counts or ()) / 20)
    figure, (axes,) = _panels(1, num_columns=1, width=5.0 + 1.3 * num_legend_columns, height=5.0)
    points, shares = _principal_plane(codes.reshape(len(codes), -1))
    style: dict[str, Any] = {"s": np.clip(12000 / len(points), 10, 40), "alpha": 0.75, "linewidths": 0}
    if counts is None:
        axes.scatter(*points.T, **style)
    else:
        palette = _palette(max(counts) + 1)
        for component, count in counts.items():
            label = f"{component} ({100 * count / len(codes):.0f} %)"
            chosen = points[np.asarray(labels) == component]
            axes.scatter(*chosen.T, color=palette[component], label=label, **style)
        axes.legend(
            title="Component (share)",
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0,
            ncols=num_legend_columns,
            markerscale=1.5,
            frameon=False,
        )
    axes.set(title=title, xlabel=f"First principal component ({100 * shares[0]:.0f} % of the variance)")
    axes.set(ylabel=f"Second principal component ({100 * shares[1]:.0f} % of the variance)")
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def _principal_plane(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project on two principal components: points `(num_windows, 2)` and their shares of the variance."""
    points, shares = np.zeros((len(codes), 2)), np.zeros(2)
    if np.ptp(codes, axis=0).any():  # else all codes are one point, and no direction is principal
        pca = PCA(n_components=min(2, *codes.shape), random_state=0)
        points[:, : pca.n_components] = pca.fit_transform(codes)
        shares[: pca.n_components] = pca.explained_variance_ratio_
    return points, shares


def _count_components(labels: ArrayLike, num_codes: int, num_components: int | None) -> dict[int, int]:
    """Return the number of codes of each component; with `num_components`, of those without any, too."""
    values = np.asarray(labels)
    if values.shape != (num_codes,) or not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
        raise ValueError(
            f"`labels` must be {num_codes} integers from 0 on, one for each code. "
            f"Received: labels of shape {values.shape} and type {values.dtype}"
        )
    if num_components is not None and values.max() >= num_components:
        raise ValueError(f"`labels` must be below num_components={num_components}. Received: a label of {values.max()}")
    counts = np.bincount(values, minlength=num_components or 0)
    return {component: int(count) for component, count in enumerate(counts) if count or num_components}


def _palette(num_colors: int) -> np.ndarray:
    """Return colours (red, green, blue, alpha): distinct ones up to ten, beyond that those of a rainbow."""
    if num_colors <= 10:
        return matplotlib.colormaps["tab10"](np.arange(num_colors))
    return matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, num_colors))
