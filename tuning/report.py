"""What a sweep leaves for people: `report.html`, one file that opens without a network."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from spectrovae.files import replaced_when_complete
from spectrovae.page import picture
from spectrovae.tuning.effects import format_number, measure_effects, varied_arguments
from spectrovae.tuning.figures import plot_argument, plot_course, plot_parallel_coordinates, plot_trials
from spectrovae.tuning.results import SweepResults, read_results

CSV, BEST, REPORT = "trials.csv", "best.json", "report.html"
"""Names of the files with the results, in the sweep's folder."""

_MAX_ROWS = 30

_MEANINGS = {
    "val_loss": "negative evidence lower bound of held-out recordings, in nats per window",
    "val_rmse_db": "root-mean-square error of held-out reconstructions, in dB",
    "val_distance": "squared maximum mean discrepancy of generated from held-out sound",
}


def write_report(output: str | Path) -> SweepResults:
    """Write what has come out of a sweep so far into its folder: `trials.csv`, `best.json` and `report.html`.

    `best.json` waits for the first trial that completes.

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
        results: What `read_results` returned.
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
            "This search tries good regions more often than others, so its trials are not independent: take the "
            "p-values as a guide, not as proof."
        )
    if results.settings.tuner == "hyperband":
        notes.append("Hyperband trains some trials longer than others, which shows in these figures as well.")
    sentences = "".join(f"<li>{escape(str(effect))}</li>" for effect in effects)
    return f"<ul>{sentences}</ul>" + "".join(f"<p>{note}</p>" for note in notes)


def _parallel(results: SweepResults) -> str:
    if not results.completed or not varied_arguments(results.completed):
        return "<p>Nothing to draw: it takes two completed trials that differ.</p>"
    best = results.completed[0]
    path = ", ".join(f"{name} {best.values[name]}" for name in varied_arguments(results.completed))
    text = f"Each completed trial as a line through its values to its {results.objective}. The best: {path}."
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
    searched = settings.hypermodel().usable_choices.items()
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
