"""The results of a sweep: its trials, and the effects of the arguments on the objective."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from keras_tuner.engine.trial import Trial

from spectrovae.storage import replaced_when_complete
from spectrovae.tuning.oracles import read_trials
from spectrovae.tuning.search_space import DEFAULT_CHOICES, SweepSettings, read_json, write_json
from spectrovae.tuning.sweep import SETTINGS, TRIALS, describe_values
from spectrovae.tuning.trial_process import CHECKPOINT, OUTCOME

_MIN_DEGREES_OF_FREEDOM = 5
_SIGNIFICANCE = 0.05


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        trial_id: Number of the trial, as text.
        status: KerasTuner's status: `"COMPLETED"`, `"FAILED"`, `"RUNNING"` or `"INVALID"`.
        score: Value of the objective at the best epoch; None without a result.
        values: The chosen values, by argument.
        metrics: All losses and metrics at the best epoch.
        best_epoch: The epoch with the best value of the objective, counted from 1.
        seconds: Duration of the trial.
        num_parameters: Number of weights of the model.
        peak_memory_mb: Peak memory of the trial's process, in MB.
        reason: Why the trial failed, else None.
    """

    trial_id: str
    status: str
    score: float | None
    values: dict[str, Any]
    metrics: dict[str, float]
    best_epoch: int | None
    seconds: float | None
    num_parameters: int | None
    peak_memory_mb: float | None
    reason: str | None


@dataclasses.dataclass(frozen=True)
class SweepResults:
    """All trials of a sweep, as `read_results` returns them.

    Attributes:
        output: The sweep's folder.
        settings: What the trials had in common.
        trials: The completed trials, the best first; then the others.
    """

    output: Path
    settings: SweepSettings
    trials: tuple[TrialResult, ...]

    @property
    def completed(self) -> list[TrialResult]:
        """The completed trials, the best first."""
        return [trial for trial in self.trials if trial.status == "COMPLETED"]

    @property
    def failed(self) -> list[TrialResult]:
        """The trials that failed."""
        return [trial for trial in self.trials if trial.status == "FAILED"]

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return self.settings.make_objective().name

    def __repr__(self) -> str:
        lines = [
            f"{len(self.completed)} of {len(self.trials)} trials completed, {len(self.failed)} failed. "
            f"Best by {self.objective}, less is better:"
        ]
        for trial in self.completed[:5]:
            lines.append(
                f"  trial {trial.trial_id}  {trial.score:>12.6g}  {_duration(trial.seconds):>8}  "
                f"{trial.num_parameters or 0:>11,} weights  {describe_values(trial.values)}"
            )
        lines += [f"  trial {trial.trial_id} failed: {trial.reason}" for trial in self.failed]
        return "\n".join(lines)

    def write_csv(self, file: Path) -> None:
        """Write a CSV file with one row for each trial."""
        facts = ["trial_id", "status", "score", "best_epoch", "seconds", "num_parameters", "peak_memory_mb"]
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.values))
        metrics = list(dict.fromkeys(name for trial in self.trials for name in trial.metrics))
        with replaced_when_complete(file) as part, part.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, [*facts, *names, *metrics, "reason"], restval="")
            writer.writeheader()
            for trial in self.trials:
                row = {name: getattr(trial, name) for name in [*facts, "reason"]}
                writer.writerow(row | trial.values | trial.metrics)

    def write_best(self, file: Path) -> None:
        """Write a JSON file with the best trial: its values, its result, and the file of its weights.

        Its `arguments` build the model: `SpectroVAE(input_shape, converter=SpectrogramConverter(**converter), ...)`.
        """
        best = self.completed[0]
        folder = Path(TRIALS, f"trial_{best.trial_id}")
        arguments = {"architecture": self.settings.architecture, "seed": self.settings.seed} | best.values
        learning_rate = arguments.pop("learning_rate", None)
        write_json(
            file,
            dataclasses.asdict(best)
            | {
                "objective": self.objective,
                "converter": self.settings.make_converter().get_config(),
                "arguments": arguments,
                "learning_rate": learning_rate,
                "weights": str(folder / CHECKPOINT),
            },
        )


def read_results(output: str | Path) -> SweepResults:
    """Read the trials of a sweep, running or finished.

    Args:
        output: The sweep's folder.

    Raises:
        FileNotFoundError: If there is no sweep in it.
        ValueError: If a file in it is damaged or not of this sweep.
    """
    output = Path(output)
    settings = SweepSettings.load(output / SETTINGS)
    trials = [_result_of(trial, output / TRIALS) for trial in read_trials(output / TRIALS, settings)]
    trials.sort(key=lambda trial: (trial.status != "COMPLETED", trial.score or 0.0))
    return SweepResults(output, settings, tuple(trials))


def _result_of(trial: Trial, folder: Path) -> TrialResult:
    file = folder / f"trial_{trial.trial_id}" / OUTCOME
    outcome = read_json(file) if file.exists() else {}
    for name in ("seconds", "num_parameters", "peak_memory_mb"):
        if not isinstance(outcome.get(name), int | float | None):
            raise ValueError(f"{file} is damaged: {name} is {outcome[name]!r}. Remove its folder")
    completed, failed = trial.status == "COMPLETED", trial.status == "FAILED"
    metrics = trial.metrics.metrics if completed else {}
    return TrialResult(
        trial_id=trial.trial_id,
        status=trial.status,
        score=trial.score if completed else None,
        values={k: v for k, v in trial.hyperparameters.values.items() if not k.startswith("tuner/")},
        metrics={name: metric.get_last_value() for name, metric in metrics.items()},
        best_epoch=trial.best_step + trial.hyperparameters.values.get("tuner/initial_epoch", 0) + 1
        if completed
        else None,
        seconds=outcome.get("seconds"),
        num_parameters=outcome.get("num_parameters"),
        peak_memory_mb=outcome.get("peak_memory_mb"),
        reason=str(trial.message or outcome.get("reason", "unknown")) if failed else None,
    )


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


@dataclasses.dataclass(frozen=True)
class Effect:
    """The effect of an argument on the objective; `str` says it in a sentence.

    Attributes:
        name: The argument.
        objective: Name of the objective.
        num_trials: Number of completed trials.
        medians: For each value of the argument the median of the objective and the number of trials.
        correlation: Rank correlation of argument and objective, in [-1, 1], with the other numeric arguments held
            fixed (partial Spearman correlation). None for text, and if there are too few trials.
        p_value: Probability of so strong a relation without any effect; None if there are too few trials.
        min_trials: Number of completed trials that the measurement needs.

    Example:
        >>> from spectrovae.tuning.results import Effect
        >>> print(Effect("width", "val_loss", 2, {8: (1.5, 1), 16: (1.25, 1)}, None, None, 7))
        width: too few trials to tell its effect: 2 completed, at least 7 are needed.
    """

    name: str
    objective: str
    num_trials: int
    medians: dict[Any, tuple[float, int]]
    correlation: float | None
    p_value: float | None
    min_trials: int

    def __repr__(self) -> str:
        if not self.num_trials:
            return f"{self.name}: no trial completed."
        if len(self.medians) == 1:
            (value,) = self.medians
            return f"{self.name}: its effect was not measured: it was {value} in all trials that completed."
        if self.num_trials < self.min_trials:
            return (
                f"{self.name}: too few trials to tell its effect: {self.num_trials} completed, at least "
                f"{self.min_trials} are needed."
            )
        ranked = sorted(self.medians.items(), key=lambda item: item[1][0])
        best, worst = (
            f"{format_number(median)} at {value} ({count_trials(num_trials)})"
            for value, (median, num_trials) in (ranked[0], ranked[-1])
        )
        return f"{self.name}: {self._judgement()} The median of {self.objective} goes from {best} to {worst}."

    def _judgement(self) -> str:
        if self.p_value is None:
            return "it changed only together with others, so its effect cannot be told from theirs."
        probability = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.2g}"
        is_clear = self.p_value < _SIGNIFICANCE
        if self.correlation is None:
            verdict = "its values differ clearly" if is_clear else "no clear difference between its values"
            return f"{verdict} in {self.num_trials} trials (Kruskal-Wallis test, {probability})."
        figures = f"(rank correlation {self.correlation:+.2f}, {probability}, {self.num_trials} trials)"
        if not is_clear:
            return f"no clear rise or fall of {self.objective} with it {figures}."
        return f"{'larger' if self.correlation < 0 else 'smaller'} values do better {figures}."


def measure_effects(results: SweepResults) -> list[Effect]:
    """Return the effects of `latent_dim`, `num_components` and `decoder_depth`, then of the other searched arguments.

    The trials of a search that learns depend on one another, so the p-values are a guide, not a proof.

    Args:
        results: What `read_results` returned.
    """
    trials = results.completed
    searched = varied_arguments(results.trials)
    numeric = {name: ranks(trials, name) for name in varied_arguments(trials) if is_numeric(trials, name)}
    names = dict.fromkeys([*DEFAULT_CHOICES, *searched])
    return [_measure(name, trials, results.objective, numeric) for name in names]


def varied_arguments(trials: Sequence[TrialResult]) -> list[str]:
    """Return the arguments whose values differ between trials."""
    names = dict.fromkeys(name for trial in trials for name in trial.values)
    return [name for name in names if len({trial.values.get(name) for trial in trials}) > 1]


def is_numeric(trials: Sequence[TrialResult], name: str) -> bool:
    """Return whether an argument is a number in all trials."""
    return all(isinstance(trial.values.get(name), (int, float)) for trial in trials)


def ranks(trials: Sequence[TrialResult], name: str) -> np.ndarray:
    """Return the ranks of a numeric argument, `(num_trials,)`."""
    return scipy.stats.rankdata([trial.values[name] for trial in trials])


def format_number(number: float) -> str:
    """Return a number as people read it.

    Example:
        >>> format_number(-372150.25), format_number(0.0123456), format_number(5.0)
        ('-372,150', '0.01235', '5')
    """
    return f"{number:,.0f}" if abs(number) >= 1e4 else f"{number:,.4g}" if abs(number) < 1e3 else f"{number:,.1f}"


def count_trials(number: int) -> str:
    """Return `1 trial`, `2 trials` and so on."""
    return f"{number} trial" if number == 1 else f"{number} trials"


def _measure(name: str, trials: Sequence[TrialResult], objective: str, numeric: dict[str, np.ndarray]) -> Effect:
    groups: dict[Any, list[float]] = {}
    for trial in trials:
        groups.setdefault(trial.values.get(name), []).append(trial.score if trial.score is not None else np.nan)
    medians = {value: (float(np.median(scores)), len(scores)) for value, scores in groups.items()}
    controls = [own for other, own in numeric.items() if other != name]
    min_trials = _MIN_DEGREES_OF_FREEDOM + 2 + (len(controls) if name in numeric else 0)
    correlation = p_value = None
    if len(groups) > 1 and len(trials) >= min_trials:
        scores = [trial.score for trial in trials]
        if name in numeric:
            correlation, p_value = partial_correlation(numeric[name], scipy.stats.rankdata(scores), controls)
        elif len(set(scores)) > 1:
            p_value = float(scipy.stats.kruskal(*groups.values()).pvalue)
    return Effect(name, objective, len(trials), medians, correlation, p_value, min_trials)


def partial_correlation(
    first: np.ndarray, second: np.ndarray, controls: Sequence[np.ndarray]
) -> tuple[float, float] | tuple[None, None]:
    """Return the correlation of two variables with others held fixed, and its two-sided p-value.

    What is linear in the others is first removed from both. For ranks this is the partial Spearman correlation.

    Args:
        first: `(num_trials,)`.
        second: `(num_trials,)`.
        controls: The other variables, each `(num_trials,)`.

    Returns:
        The correlation and its p-value; both None if nothing is left of one of the two variables.

    Example:
        >>> import numpy as np
        >>> first, other = np.random.default_rng(0).normal(size=(2, 50))
        >>> correlation, p_value = partial_correlation(first, first + 10 * other, [other])
        >>> round(correlation, 3), p_value < 0.001
        (1.0, True)
    """
    design = np.stack([np.ones(len(first)), *controls], axis=1)
    residuals = []
    for variable in (first, second):
        solution = np.linalg.lstsq(design, variable, rcond=None)[0]
        residual = variable - design @ solution
        if np.linalg.norm(residual) < 1e-6 * np.linalg.norm(variable):
            return None, None
        residuals.append(residual / np.linalg.norm(residual))
    correlation = float(np.clip(residuals[0] @ residuals[1], -1, 1))
    degrees_of_freedom = len(first) - 1 - np.linalg.matrix_rank(design)
    if abs(correlation) > 1 - 1e-12:
        return correlation, 0.0
    statistic = abs(correlation) * np.sqrt(degrees_of_freedom / (1 - correlation**2))
    return correlation, float(2 * scipy.stats.t.sf(statistic, degrees_of_freedom))
