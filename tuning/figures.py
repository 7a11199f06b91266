"""Pictures of a sweep: figures of matplotlib that belong to no global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from spectrovae.tuning.effects import format_number, varied_arguments
from spectrovae.tuning.results import SweepResults, TrialResult

_FAILED = "0.6"
_BEST = "#c2410c"
_OTHER = "#2563a8"
_COLORS = matplotlib.colormaps["viridis"]


def plot_parallel_coordinates(results: SweepResults) -> Figure:
    """Draw each completed trial as a line through its values to its score; the best one in orange.

    Args:
        results: What `read_results` returned, with at least one completed trial.

    Returns:
        The figure: its first axes hold the lines.
    """
    trials = results.completed
    names = varied_arguments(trials)
    low, high = score_limits(trials)
    heights = np.full((len(trials), len(names) + 1), 0.5)
    labels: list[list[str]] = []
    generator = np.random.default_rng(0)
    for column, name in enumerate(names):
        values = sorted_values(trials, name)
        labels.append([str(value) for value in values])
        places = [values.index(trial.values.get(name)) / (len(values) - 1) for trial in trials]
        # Lines through the same value stay apart.
        heights[:, column] = places + generator.uniform(-0.02, 0.02, len(trials))
    shares = np.clip((_scores(trials) - low) / (high - low), 0, 1)
    heights[:, -1] = 1 - shares
    figure, axes = _figure(2.0 + 1.6 * len(names), 3.6)
    for index in reversed(range(len(trials))):
        color, width = (_BEST, 2.5) if index == 0 else (_COLORS(0.9 * shares[index]), 1.2)
        axes.plot(heights[index], color=color, linewidth=width, marker="o", markersize=3, zorder=3 - shares[index])
    for column in range(len(names) + 1):
        axes.axvline(column, color="0.3", linewidth=0.8, zorder=0)
    for column, texts in enumerate(labels):
        for row, text in enumerate(texts):
            _label(axes, column, row / (len(texts) - 1), text)
    for share in (0.0, 0.5, 1.0):
        beyond = "≥ " if share == 1 and _scores(trials).max() > high else ""
        _label(axes, len(names), 1 - share, beyond + format_number(low + share * (high - low)))
    axes.set_xticks(range(len(names) + 1), [*names, f"{results.objective}\n(best on top)"])
    axes.set_yticks([])
    axes.set_xlim(-0.3, len(names) + 0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def plot_argument(results: SweepResults, name: str) -> Figure:
    """Draw the score of each trial over its value of an argument, with the median of each value.

    Failed trials are grey crosses on top.

    Args:
        results: What `read_results` returned, with at least one completed trial.
        name: The argument.

    Returns:
        The figure; its axes hold the points.
    """
    trials = results.completed
    values = sorted_values([*trials, *results.failed], name)
    low, high = score_limits(trials)
    places = np.array([values.index(trial.values.get(name)) for trial in trials])
    scores = np.clip(_scores(trials), None, high)
    figure, axes = _figure(4.4, 3.0)
    with_score = np.unique(places)
    medians = np.clip([np.median(_scores(trials)[places == place]) for place in with_score], None, high)
    if all(isinstance(value, (int, float)) for value in values):
        axes.plot(with_score, medians, color=_OTHER, linewidth=1, alpha=0.5)
    axes.hlines(medians, with_score - 0.22, with_score + 0.22, color=_OTHER, linewidth=2)
    jitter = np.random.default_rng(0).uniform(-0.1, 0.1, len(trials))
    is_beyond = _scores(trials) > high
    for is_chosen, marker in ((~is_beyond, "o"), (is_beyond, "^")):
        axes.scatter((places + jitter)[is_chosen], scores[is_chosen], s=28, marker=marker, color=_OTHER, alpha=0.6)
    axes.scatter((places + jitter)[0], scores[0], s=70, marker="*", color=_BEST, zorder=3)
    failed = [values.index(trial.values.get(name)) for trial in results.failed]
    crosses = np.array(failed) + np.random.default_rng(1).uniform(-0.2, 0.2, len(failed))
    # On the upper edge, wherever the scores are.
    on_edge = axes.get_xaxis_transform()
    axes.scatter(crosses, np.ones(len(failed)), s=28, marker="x", color=_FAILED, transform=on_edge, clip_on=False)
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set(xlabel=name, ylabel=results.objective, ylim=(low - 0.06 * (high - low), high + 0.06 * (high - low)))
    axes.set_xlim(-0.5, len(values) - 0.5)
    _finish(axes)
    return figure


def plot_trials(results: SweepResults, quantity: str, label: str) -> Figure:
    """Draw a bar for each trial, in the order they began: failed ones grey, the best one orange.

    Args:
        results: What `read_results` returned.
        quantity: Attribute of `TrialResult`, such as `"seconds"`.
        label: What the axis says.

    Returns:
        The figure; its axes hold the bars. Trials without the quantity have none.
    """
    trials = sorted(results.trials, key=lambda trial: int(trial.trial_id))
    best = results.completed[:1]
    figure, axes = _figure(4.4, 3.0)
    for trial in trials:
        if (value := getattr(trial, quantity)) is not None:
            color = _BEST if trial in best else _OTHER if trial.status == "COMPLETED" else _FAILED
            axes.bar(int(trial.trial_id), value, width=0.75, color=color)
    axes.set(xlabel="trial", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    _finish(axes)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


def plot_course(results: SweepResults) -> Figure:
    """Draw the scores in the order of the trials, and the best one so far.

    Args:
        results: What `read_results` returned, with at least one completed trial.

    Returns:
        The figure; its axes hold the points.
    """
    trials = sorted(results.completed, key=lambda trial: int(trial.trial_id))
    numbers = [int(trial.trial_id) for trial in trials]
    low, high = score_limits(trials)
    figure, axes = _figure(4.4, 3.0)
    axes.step(numbers, np.minimum.accumulate(_scores(trials)), where="post", color=_BEST, label="best so far")
    axes.scatter(numbers, np.clip(_scores(trials), None, high), s=28, color=_OTHER, alpha=0.6, label="trial")
    axes.set(xlabel="trial", ylabel=results.objective, ylim=(low - 0.06 * (high - low), high + 0.06 * (high - low)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    _finish(axes)
    return figure


def score_limits(trials: Sequence[TrialResult]) -> tuple[float, float]:
    """Return where the axis of the scores begins and ends, so that one bad trial does not squeeze all others.

    Scores more than three times the interquartile range above the third quartile are drawn at the end.
    """
    scores = _scores(trials)
    first, third = np.quantile(scores, [0.25, 0.75])
    high = scores[scores <= third + 3 * (third - first)].max()
    return float(scores.min()), float(max(high, scores.min() + 1e-9 * max(1, abs(scores.min()))))


def sorted_values(trials: Sequence[TrialResult], name: str) -> list[Any]:
    """Return the different values of an argument: numbers in order, words as they came."""
    values = list(dict.fromkeys(trial.values.get(name) for trial in trials))
    return sorted(values) if all(isinstance(value, (int, float)) for value in values) else values


def _scores(trials: Sequence[TrialResult]) -> np.ndarray:
    return np.array([trial.score for trial in trials], float)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.subplots()


def _label(axes: Axes, x: float, y: float, text: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    axes.text(x + 0.04, y, text, va="center", fontsize=8, bbox=box, zorder=4)


def _finish(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.ticklabel_format(axis="y", useOffset=False, style="plain")
