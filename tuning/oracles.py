"""The search algorithms: KerasTuner's oracles, made to survive kills and to outlive their workers."""

from __future__ import annotations

import itertools
import math
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import sklearn.exceptions
from keras_tuner.engine.trial import Trial

from spectrovae.checks import check_positive_int
from spectrovae.tuning.chief import current_role
from spectrovae.tuning.search_space import WORKER_TIMEOUT, SweepSettings, read_json, write_json

_FINISHED = ("COMPLETED", "FAILED")  # trials that will not run again
_STATUSES = (*_FINISHED, "RUNNING", "INVALID", "IDLE", "STOPPED")
_DAMAGES = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # of files that something else has written


class DurableOracle(keras_tuner.Oracle):
    """A search algorithm whose state on disk is whole at every moment, and which replaces lost workers.

    A worker asks for its trial every few seconds. If it stops asking, the trial goes to the next free worker. No worker
    is sent home before every trial has ended.

    Attributes:
        settings: The settings of the sweep.
        worker_timeout: After how many seconds of silence a worker counts as lost.
    """

    settings: SweepSettings

    trials: dict[str, Any]
    worker_timeout = WORKER_TIMEOUT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._last_heard: dict[str, float] = {}

    def get_trial(self, trial_id: str) -> Any:
        """Return a trial; the question shows that its worker is alive."""
        self._last_heard[trial_id] = time.monotonic()
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Any:
        """Return the next trial of a worker; an idle one if it may have to take over another worker's trial."""
        self._release_lost_trials()
        # A worker that was started again under its old name gets its old trial.
        trial = super().create_trial(tuner_id)
        self._last_heard[trial.trial_id] = time.monotonic()
        if trial.status == "STOPPED" and self.ongoing_trials:
            self.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        return trial

    def _release_lost_trials(self) -> None:
        """Queue the trials of lost workers."""
        now = time.monotonic()
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if now - self._last_heard.setdefault(trial.trial_id, now) > self.worker_timeout:
                del self.ongoing_trials[tuner_id]
                self.tuner_ids.discard(tuner_id)
                self._retry_queue.append(trial.trial_id)

    def save(self) -> None:
        """Write the state of the search."""
        write_json(Path(self._get_oracle_fname()), self.get_state())

    def _save_trial(self, trial: Any) -> None:
        write_json(Path(self._get_trial_dir(trial.trial_id), "trial.json"), trial.get_state())

    def reload(self) -> None:
        """Read the state of the search; trials that were cut short will run again.

        Raises:
            ValueError: If a file is damaged or not of this sweep.
        """
        file = Path(self._get_oracle_fname())
        state = read_json(file)
        self.trials = {trial.trial_id: trial for trial in read_trials(file.parent, self.settings)}
        try:
            # What a file says of the search space is not used.
            self.set_state(state | {"hyperparameters": _declared(self.settings).get_config()})
            self._continue_trials(state["ongoing_trials"])
        except _DAMAGES as error:
            raise ValueError(f"{file} is damaged: {type(error).__name__} {error}. Start over with overwrite") from error

    def _continue_trials(self, ongoing_trials: dict[str, str]) -> None:
        """Decide which trials run again, and which are still running."""
        self.ongoing_trials = {}
        # A kill may have come between the two files that a step writes: a trial that the state does not know has
        # not begun, and one that has finished is not run again.
        self.trials = {key: trial for key, trial in self.trials.items() if key in self.start_order}
        self._retry_queue = [key for key in reversed(self.start_order) if self.trials[key].status not in _FINISHED]
        for key in self.start_order:
            if self.trials[key].status in _FINISHED and key not in self.end_order:
                self.end_order.append(key)
        if current_role() == "chief":
            # The workers may still be alive, each running its trial.
            self.ongoing_trials = {
                worker: self.trials[key] for worker, key in ongoing_trials.items() if key in self._retry_queue
            }
            self._retry_queue = [key for key in self._retry_queue if key not in ongoing_trials.values()]

    def _untried(self) -> Iterator[dict[str, Any]]:
        names = [parameter.name for parameter in self.hyperparameters.space]
        for combination in itertools.product(*(parameter.values for parameter in self.hyperparameters.space)):
            values = dict(zip(names, combination, strict=True))
            if not self._duplicate(values):
                yield values

    def _random_values(self) -> dict[str, Any] | None:
        # KerasTuner gives up when most combinations have been tried.
        return super()._random_values() or next(self._untried(), None)


class DurableRandomSearch(DurableOracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search."""


class DurableBayesianOptimization(DurableOracle, keras_tuner.oracles.BayesianOptimizationOracle):
    """Bayesian optimization with a Gaussian process, which never proposes a combination twice."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the values of a trial."""
        with warnings.catch_warnings():
            # An argument without effect drives its length scale to the bound.
            warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
            response = super().populate_space(trial_id)
        # Trials are seeded: the same values would give the same result.
        if response["values"] and self._duplicate(response["values"]):
            return _response(self._random_values())
        return response


class DurableHyperband(DurableOracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband: many short trials, the best of which continue."""


class DurableGridSearch(DurableOracle):
    """Every combination, one after the other. KerasTuner's own grid search forgets its position when restarted."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Propose the values of a trial."""
        return _response(next(self._untried(), None))


def _response(values: dict[str, Any] | None) -> dict[str, Any]:
    return {"status": "STOPPED" if values is None else "RUNNING", "values": values}


ORACLES = {
    "bayesian": DurableBayesianOptimization,
    "grid": DurableGridSearch,
    "hyperband": DurableHyperband,
    "random": DurableRandomSearch,
}
"""The search algorithm of each of the `TUNERS`."""


def make_oracle(settings: SweepSettings, max_trials: int) -> DurableOracle:
    """Return the search algorithm of a sweep.

    Args:
        settings: What the trials have in common.
        max_trials: Number of trials to run, 1 or more.

    Raises:
        ValueError: If `max_trials` is not positive.
    """
    check_positive_int("max_trials", max_trials)
    arguments: dict[str, Any] = {
        "objective": settings.make_objective(),
        "seed": settings.seed,
        # One failed trial tells nothing about the next: the sweep continues.
        "max_consecutive_failed_trials": sys.maxsize,
    }
    if settings.tuner == "hyperband":
        arguments |= {"max_epochs": settings.epochs}
    if settings.tuner == "bayesian":
        num_searched = sum(len(values) > 1 for values in settings.usable_choices.values())
        # At least half of the trials benefit from the results of others.
        arguments |= {"num_initial_points": max(3, min(3 * num_searched, max_trials // 2))}
    oracle = ORACLES[settings.tuner](**arguments)
    oracle.settings = settings
    # The constructor of Hyperband does not take it.
    oracle.max_trials = max_trials
    return oracle


def read_trials(folder: Path, settings: SweepSettings) -> list[Trial]:
    """Return the trials in a folder, in the order of their numbers.

    Args:
        folder: KerasTuner's project in the folder of a sweep.
        settings: The settings of the sweep. Values that they do not allow are refused.

    Raises:
        ValueError: If a file is damaged or not of this sweep.
    """
    declared, usable = _declared(settings), settings.usable_choices
    trials = []
    for file in sorted(folder.glob("trial_*/trial.json")):
        try:
            trials.append(_read_trial(file, declared, usable))
        except _DAMAGES as error:
            raise ValueError(
                f"{file} is damaged or of another sweep: {error}. Remove its folder, or start over with overwrite"
            ) from error
    return trials


def is_trial_id(value: Any) -> bool:
    """Return whether this is the number of a trial, of which the name of its folder is made."""
    return isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) is not None


def _declared(settings: SweepSettings) -> keras_tuner.HyperParameters:
    hp = keras_tuner.HyperParameters()
    settings.declare(hp)
    return hp


def _read_trial(file: Path, declared: keras_tuner.HyperParameters, usable: dict[str, list]) -> Trial:
    state = read_json(file)
    if not is_trial_id(state["trial_id"]) or file.parent.name != f"trial_{state['trial_id']}":
        raise ValueError(f"trial_id is {state['trial_id']!r}")
    if file.parent.is_symlink():
        raise ValueError("its folder is a link")
    if state["status"] not in _STATUSES:
        raise ValueError(f"status is {state['status']!r}")
    if state["status"] == "COMPLETED" and not _is_finite(state["score"]):
        raise ValueError(f"score is {state['score']!r}")
    if not isinstance(state["best_step"], int) or not isinstance(state["message"], str | None):
        raise ValueError(f"best_step is {state['best_step']!r}, message is {state['message']!r}")
    values = state["hyperparameters"]["values"].items()
    values = {name: _checked_value(name, value, usable.get(name, [])) for name, value in values}
    if missing := {parameter.name for parameter in declared.space} - set(values):
        raise ValueError(f"there is no {', '.join(sorted(missing))}")
    # What the file says of the search space is not used.
    trial = Trial.from_state(state | {"hyperparameters": declared.get_config() | {"values": values}})
    for name, metric in trial.metrics.metrics.items():
        if not isinstance(metric.get_last_value(), int | float):
            raise ValueError(f"{name} is {metric.get_last_value()!r}")
    return trial


def _checked_value(name: str, value: Any, choices: list) -> Any:
    """Return the value of an argument, which has passed through single precision if a worker sent it."""
    if name == "tuner/trial_id" and is_trial_id(value):
        return value
    if name.startswith("tuner/") and name != "tuner/trial_id" and isinstance(value, int) and 0 <= value <= 10**6:
        return value
    for choice in choices:
        if choice == value or (_is_finite(value) and _is_finite(choice) and math.isclose(choice, value, rel_tol=1e-6)):
            return choice
    raise ValueError(f"{name} is {value!r}")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
