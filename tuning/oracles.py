"""KerasTuner's search algorithms, made to survive a kill."""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import sklearn.exceptions

from spectrovae.tuning.distributed import WorkerRegister, current_role
from spectrovae.tuning.settings import SweepSettings, write_json

FINISHED = ("COMPLETED", "FAILED")
"""The states of a trial that will not run again."""


class DurableOracle(WorkerRegister, keras_tuner.Oracle):
    """A search algorithm whose state on disk is whole at every moment."""

    trials: dict[str, Any]

    def save(self) -> None:
        """Write the state of the search."""
        write_json(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial: Any) -> None:
        write_json(Path(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())

    def reload(self) -> None:
        """Read the state of the search; trials that were cut short will run again."""
        super().reload()
        # A kill may have come between the two files that a step writes: a trial that the state does not know has
        # not begun, and one that has finished is not run again.
        self.trials = {key: trial for key, trial in self.trials.items() if key in self.start_order}
        self._retry_queue = [key for key in reversed(self.start_order) if self.trials[key].status not in FINISHED]
        for key in self.start_order:
            if self.trials[key].status in FINISHED and key not in self.end_order:
                self.end_order.append(key)
        if current_role() == "chief":
            # The workers may well be alive, each at its trial.
            saved = json.loads(Path(self._get_oracle_fname()).read_text())["ongoing_trials"]
            self.ongoing_trials = {
                worker: self.trials[key] for worker, key in saved.items() if key in self._retry_queue
            }
            self._retry_queue = [key for key in self._retry_queue if key not in saved.values()]

    def _untried(self) -> Iterator[dict[str, Any]]:
        names = [parameter.name for parameter in self.hyperparameters.space]
        for combination in itertools.product(*(parameter.values for parameter in self.hyperparameters.space)):
            values = dict(zip(names, combination, strict=True))
            if not self._duplicate(values):
                yield values

    def _random_values(self) -> dict[str, Any] | None:
        # KerasTuner gives up where most combinations have been tried.
        return super()._random_values() or next(self._untried(), None)


class DurableRandomSearch(DurableOracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search."""


class DurableBayesianOptimization(DurableOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization with a Gaussian process, which never proposes the same combination twice."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the values of a trial."""
        with warnings.catch_warnings():
            # An argument that does not matter drives its length scale to the bound.
            warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
            response = super().populate_space(trial_id)
        # A seeded trial would give the same result again.
        if response["values"] and self._duplicate(response["values"]):
            return _response(self._random_values())
        return response


class DurableHyperband(DurableOracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband: many short trials, of which the best go on."""


class DurableGridSearch(DurableOracle):
    """Every combination, one after the other. KerasTuner's own grid search forgets where it was."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the values of a trial."""
        return _response(next(self._untried(), None))


ORACLES = {
    "random": DurableRandomSearch,
    "bayesian": DurableBayesianOptimization,
    "hyperband": DurableHyperband,
    "grid": DurableGridSearch,
}
"""The search algorithm of each name that the command takes."""


def _response(values: dict[str, Any] | None) -> dict[str, Any]:
    return {"status": "STOPPED" if values is None else "RUNNING", "values": values}


def make_oracle(settings: SweepSettings, max_trials: int) -> keras_tuner.Oracle:
    """Return the search algorithm of a sweep.

    Args:
        settings: What the trials have in common.
        max_trials: How many trials to run, 1 or more.

    Raises:
        ValueError: If there is no tuner of that name, or `max_trials` is not positive.
    """
    if settings.tuner not in ORACLES:
        raise ValueError(f"tuner must be one of {sorted(ORACLES)}. Received: tuner={settings.tuner!r}")
    if max_trials < 1:
        raise ValueError(f"max_trials must be 1 or more. Received: max_trials={max_trials}")
    arguments: dict[str, Any] = {
        "objective": settings.make_objective(),
        "seed": settings.seed,
        # One failed trial tells nothing about the next: the sweep goes on.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if settings.tuner == "hyperband":
        arguments |= {"max_epochs": settings.epochs}
    if settings.tuner == "bayesian":
        num_searched = sum(len(values) > 1 for values in settings.hypermodel().usable_choices.values())
        # At least half of the trials shall profit from what is known.
        arguments |= {"num_initial_points": max(3, min(3 * num_searched, max_trials // 2))}
    oracle = ORACLES[settings.tuner](**arguments)
    # Hyperband's constructor does not take it.
    oracle.max_trials = max_trials
    return oracle
