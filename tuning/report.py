"""The report of a sweep: one HTML page, with a table and a JSON file beside it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from spectrovae.report.page import picture
from spectrovae.storage import replaced_when_complete
from spectrovae.tuning.results import (
    SweepResults,
    TrialResult,
    format_number,
    measure_effects,
    read_results,
    varied_arguments,
)

CSV, BEST, REPORT = "trials.csv", "best.json", "report.html"
"""Names of the files with the results, in the sweep's folder."""

_MEANINGS = {
    "val_loss": "negative evidence lower bound of held-out recordings, in nats per window",
    "val_rmse_db": "root-mean-square error of held-out reconstructions, in dB",
    "val_distance": "squared maximum mean discrepancy between generated and held-out sound",
}

_MAX_ROWS = 30  # of the table of trials
_BEST_COLOR, _COLOR, _FAILED_COLOR = "#c2410c", "#2563a8", "0.6"
_COLORS = matplotlib.colormaps["viridis"]


def write_report(output: str | Path) -> SweepResults:
    """Write the results of a sweep so far into its folder: `trials.csv`, `best.json` and `report.html`.

    `best.json` is written once a trial has completed.

    Args:
        output: The sweep's folder.

    Returns:
        The trials.

    Raises:
        FileNotFoundError: If there is no sweep in the folder.
    """
    output = Path(output)
    results = read_results(output)
    results.write_csv(output / CSV)
    if results.completed:
        results.write_best(output / BEST)
    with replaced_when_complete(output / REPORT) as part:
        part.write_text(make_page(results), encoding="utf-8")
    return results


def make_page(results: SweepResults) -> str:
    """Return the report as HTML, with all pictures inside.

    Args:
        results: The trials, from `read_results`.
    """
    template = Path(__file__).with_name("report_template.html").read_text(encoding="utf-8")
    parts = {
        "title": escape(f"Sweep {results.output.resolve().name}"),
        "counts": escape(_counts(results)),
        "best": _best(results),
        "effects": _effects(results),
        "parallel": _parallel(results),
        "arguments": "".join(_argument_pictures(results)),
        "costs": "".join(_cost_pictures(results)),
        "trials": _trials_table(results),
        "failed": _failed_table(results),
        "settings": _settings_table(results),
    }
    return Template(template).substitute(parts)


def _counts(results: SweepResults) -> str:
    num_running = len(results.trials) - len(results.completed) - len(results.failed)
    running = f", {num_running} not finished" if num_running else ""
    return (
        f"{len(results.completed)} of {len(results.trials)} trials completed, {len(results.failed)} failed{running}. "
        f"Written {time.strftime('%Y-%m-%d %H:%M')}."
    )


def _best(results: SweepResults) -> str:
    objective = results.objective
    meaning = escape(f"Trials are compared by {objective}: {_MEANINGS[objective]}. Less is better.")
    if not results.completed:
        return f"<p>No trial has completed. {meaning}</p>"
    best = results.completed[0]
    chosen = ", ".join(f"{name} {best.values[name]}" for name in varied_arguments(results.trials) or best.values)
    score = escape(f"{format_number(best.score or 0.0)} (trial {best.trial_id})")
    return f'<p class="best"><strong>{escape(chosen)}</strong><br>{escape(objective)} {score}</p><p>{meaning}</p>'


def _effects(results: SweepResults) -> str:
    effects = measure_effects(results)
    notes = []
    if any(effect.p_value is not None for effect in effects) and results.settings.tuner in ("bayesian", "hyperband"):
        notes.append(
            "This search tries good regions more often than others, so its trials depend on one another: the p-values "
            "are a guide, not a proof."
        )
    if results.settings.tuner == "hyperband":
        notes.append("Hyperband trains some trials longer than others, which affects these figures as well.")
    sentences = "".join(f"<li>{escape(str(effect))}</li>" for effect in effects)
    return f"<ul>{sentences}</ul>" + "".join(f"<p>{note}</p>" for note in notes)


def _parallel(results: SweepResults) -> str:
    if not results.completed or not varied_arguments(results.completed):
        return "<p>Nothing to draw: two completed trials that differ are needed.</p>"
    best = results.completed[0]
    path = ", ".join(f"{name} {best.values[name]}" for name in varied_arguments(results.completed))
    text = f"Each completed trial is a line through its values to its {results.objective}. The best: {path}."
    return _scrollable(picture(plot_parallel_coordinates(results), text, "svg", "wide"), "Parallel coordinates")


def _argument_pictures(results: SweepResults) -> Iterable[str]:
    medians = {effect.name: effect.medians for effect in measure_effects(results)}
    for name in varied_arguments([*results.completed, *results.failed]) if results.completed else ():
        values = ", ".join(f"{format_number(median)} at {value}" for value, (median, _) in medians[name].items())
        text = f"{results.objective} by {name}. Medians: {values}."
        yield picture(plot_argument(results, name), text, "svg", "small")


def _cost_pictures(results: SweepResults) -> Iterable[str]:
    if results.completed:
        text = f"{results.objective} in the order of the trials, and the best so far."
        yield picture(plot_course(results), text, "svg", "small")
    for quantity, label in (
        ("seconds", "time (s)"),
        ("num_parameters", "weights"),
        ("peak_memory_mb", "peak memory (MB)"),
    ):
        values = [getattr(trial, quantity) for trial in results.trials if getattr(trial, quantity) is not None]
        if values:
            text = f"{label} of each trial: from {format_number(min(values))} to {format_number(max(values))}."
            yield picture(plot_trials(results, quantity, label), text, "svg", "small")


def _trials_table(results: SweepResults) -> str:
    trials = results.completed[:_MAX_ROWS]
    if not trials:
        return "<p>None yet.</p>"
    columns = [("trial", [trial.trial_id for trial in trials])]
    columns += [(results.objective, [format_number(trial.score or 0.0) for trial in trials])]
    for name in varied_arguments(results.trials):
        columns.append((name, [str(trial.values.get(name, "")) for trial in trials]))
    for name in _MEANINGS:
        if name != results.objective and all(name in trial.metrics for trial in trials):
            columns.append((name, [format_number(trial.metrics[name]) for trial in trials]))
    columns += [
        ("best epoch", [str(trial.best_epoch) for trial in trials]),
        ("minutes", [f"{(trial.seconds or 0) / 60:.1f}" for trial in trials]),
        ("weights", [f"{trial.num_parameters or 0:,}" for trial in trials]),
        ("memory (MB)", [f"{trial.peak_memory_mb or 0:,.0f}" for trial in trials]),
    ]
    titles, cells = zip(*columns, strict=True)
    num_left = len(results.completed) - len(trials)
    more = f"<p>{num_left} more in {CSV}.</p>" if num_left else ""
    return _table("Best trials", titles, list(zip(*cells, strict=True))) + more


def _failed_table(results: SweepResults) -> str:
    if not results.failed:
        return "<p>None.</p>"
    names = varied_arguments(results.trials)
    rows = [[trial.trial_id, trial.reason, *(trial.values.get(name, "") for name in names)] for trial in results.failed]
    return _table("Failed trials", ["trial", "reason", *names], rows)


def _settings_table(results: SweepResults) -> str:
    settings = results.settings
    searched = settings.usable_choices.items()
    rows: list[Sequence[Any]] = [[name, ", ".join(map(str, values))] for name, values in searched]
    rows += [["recordings", ", ".join(settings.recordings)]]
    for name in ("architecture", "tuner", "epochs", "batch_size", "validation_split", "max_parameters", "seed"):
        rows.append([name, getattr(settings, name)])
    rows += [[name, value] for name, value in settings.make_converter().get_config().items()]
    return _table("Settings", ["setting", "value"], rows)


def _table(name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return _scrollable(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", name)


def _scrollable(content: str, name: str) -> str:
    # With a tab stop, what is wider than the window can be scrolled by keyboard.
    return f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{content}</div>'


def plot_parallel_coordinates(results: SweepResults) -> Figure:
    """Draw each completed trial as a line through its values to its score, the best one in orange.

    Args:
        results: The trials, from `read_results`, at least one of them completed.

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
        color, width = (_BEST_COLOR, 2.5) if index == 0 else (_COLORS(0.9 * shares[index]), 1.2)
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
    """Draw the score of each trial over its value of an argument, with the median for each value.

    Failed trials are grey crosses at the top.

    Args:
        results: The trials, from `read_results`, at least one of them completed.
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
        axes.plot(with_score, medians, color=_COLOR, linewidth=1, alpha=0.5)
    axes.hlines(medians, with_score - 0.22, with_score + 0.22, color=_COLOR, linewidth=2)
    jitter = np.random.default_rng(0).uniform(-0.1, 0.1, len(trials))
    is_beyond = _scores(trials) > high
    for is_chosen, marker in ((~is_beyond, "o"), (is_beyond, "^")):
        axes.scatter((places + jitter)[is_chosen], scores[is_chosen], s=28, marker=marker, color=_COLOR, alpha=0.6)
    axes.scatter((places + jitter)[0], scores[0], s=70, marker="*", color=_BEST_COLOR, zorder=3)
    failed = [values.index(trial.values.get(name)) for trial in results.failed]
    crosses = np.array(failed) + np.random.default_rng(1).uniform(-0.2, 0.2, len(failed))
    # On the upper edge, wherever the scores are.
    on_edge = axes.get_xaxis_transform()
    axes.scatter(crosses, np.ones(len(failed)), s=28, marker="x", color=_FAILED_COLOR, transform=on_edge, clip_on=False)
    axes.set_xticks(range(len(values)), [str(value) for value in values])
    axes.set(xlabel=name, ylabel=results.objective, ylim=(low - 0.06 * (high - low), high + 0.06 * (high - low)))
    axes.set_xlim(-0.5, len(values) - 0.5)
    _finish(axes)
    return figure


def plot_trials(results: SweepResults, quantity: str, label: str) -> Figure:
    """Draw a bar for each trial, in the order in which they began: failed ones grey, the best one orange.

    Args:
        results: The trials, from `read_results`.
        quantity: Attribute of `TrialResult`, such as `"seconds"`.
        label: Label of the axis.

    Returns:
        The figure; its axes hold the bars. Trials without the quantity have none.
    """
    trials = sorted(results.trials, key=lambda trial: int(trial.trial_id))
    best = results.completed[:1]
    figure, axes = _figure(4.4, 3.0)
    for trial in trials:
        if (value := getattr(trial, quantity)) is not None:
            color = _BEST_COLOR if trial in best else _COLOR if trial.status == "COMPLETED" else _FAILED_COLOR
            axes.bar(int(trial.trial_id), value, width=0.75, color=color)
    axes.set(xlabel="trial", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    _finish(axes)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    return figure


def plot_course(results: SweepResults) -> Figure:
    """Draw the scores in the order of the trials, and the best one so far.

    Args:
        results: The trials, from `read_results`, at least one of them completed.

    Returns:
        The figure; its axes hold the points.
    """
    trials = sorted(results.completed, key=lambda trial: int(trial.trial_id))
    numbers = [int(trial.trial_id) for trial in trials]
    low, high = score_limits(trials)
    figure, axes = _figure(4.4, 3.0)
    axes.step(numbers, np.minimum.accumulate(_scores(trials)), where="post", color=_BEST_COLOR, label="best so far")
    axes.scatter(numbers, np.clip(_scores(trials), None, high), s=28, color=_COLOR, alpha=0.6, label="trial")
    axes.set(xlabel="trial", ylabel=results.objective, ylim=(low - 0.06 * (high - low), high + 0.06 * (high - low)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    _finish(axes)
    return figure


def score_limits(trials: Sequence[TrialResult]) -> tuple[float, float]:
    """Return the limits of the axis of scores, so that one bad trial does not squeeze all others.

    Scores more than three interquartile ranges above the third quartile are drawn at the upper limit.
    """
    scores = _scores(trials)
    first, third = np.quantile(scores, [0.25, 0.75])
    high = scores[scores <= third + 3 * (third - first)].max()
    return float(scores.min()), float(max(high, scores.min() + 1e-9 * max(1, abs(scores.min()))))


def sorted_values(trials: Sequence[TrialResult], name: str) -> list[Any]:
    """Return the different values of an argument: numbers in ascending order, text in order of appearance."""
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
