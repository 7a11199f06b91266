"""What came out of a sweep, for people and programs."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import keras_tuner

from spectrovae.files import replaced_when_complete
from spectrovae.tuning.settings import SweepSettings, write_json
from spectrovae.tuning.sweep import SETTINGS, TRIALS, describe_values
from spectrovae.tuning.trial_process import CHECKPOINT, OUTCOME


@dataclasses.dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        trial_id: Its name, a number.
        status: KerasTuner's: `"COMPLETED"`, `"FAILED"`, `"RUNNING"` or `"INVALID"`.
        score: Value of the objective at the best epoch; None without a result.
        values: What was chosen.
        metrics: All losses and metrics at the best epoch.
        best_epoch: The epoch they were measured at, from 1.
        seconds: How long it took.
        num_parameters: Number of the model's weights.
        peak_memory_mb: Greatest memory of its process, in MB.
        reason: Why it failed, else None.
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
        trials: Completed trials first, the best at the top; then the others.
    """

    output: Path
    settings: SweepSettings
    trials: tuple[TrialResult, ...]

    @property
    def completed(self) -> list[TrialResult]:
        """The trials with a result, the best first."""
        return [trial for trial in self.trials if trial.status == "COMPLETED"]

    @property
    def failed(self) -> list[TrialResult]:
        """The trials that failed."""
        return [trial for trial in self.trials if trial.status == "FAILED"]

    @property
    def objective(self) -> str:
        """Name of what was minimised."""
        return self.settings.make_objective().name

    def __str__(self) -> str:
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
        """Write one row for each trial."""
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
        """Write the best trial: what was chosen, what it reached, and where its weights are.

        `arguments` build the model: `SpectroVAE(input_shape, converter=SpectrogramConverter(**converter), ...)`.
        """
        best = self.completed[0]
        folder = Path(TRIALS, f"trial_{best.trial_id}")
        outcome = json.loads((self.output / folder / OUTCOME).read_text())
        arguments = {"architecture": self.settings.architecture, "seed": self.settings.seed}
        learning_rate = outcome["arguments"].pop("learning_rate", None)
        write_json(
            file,
            dataclasses.asdict(best)
            | {
                "objective": self.objective,
                "converter": self.settings.make_converter().get_config(),
                "arguments": arguments | outcome["arguments"],
                "learning_rate": learning_rate,
                "weights": str(folder / CHECKPOINT),
            },
        )


def read_results(output: str | Path) -> SweepResults:
    """Read the trials of a sweep, running or finished, from its folder.

    Args:
        output: The folder.

    Raises:
        FileNotFoundError: If there is no sweep in it.
    """
    output = Path(output)
    settings = SweepSettings.load(output / SETTINGS)
    trials = [_read_trial(file) for file in sorted((output / TRIALS).glob("trial_*/trial.json"))]
    trials.sort(key=lambda trial: (trial.status != "COMPLETED", trial.score or 0.0))
    return SweepResults(output, settings, tuple(trials))


def _read_trial(file: Path) -> TrialResult:
    trial = keras_tuner.engine.trial.Trial.load(str(file))
    outcome_file = file.with_name(OUTCOME)
    outcome = json.loads(outcome_file.read_text()) if outcome_file.exists() else {}
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
        reason=(trial.message or outcome.get("reason", "unknown")) if failed else None,
    )


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
