"""KerasTuner's oracles, on one machine and over several."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import keras_tuner
import sklearn.exceptions
from keras_tuner.src import protos
from keras_tuner.src.distribute import utils as distribute_utils
from keras_tuner.src.distribute.oracle_chief import OracleServicer

from spectrovae.tuning.sweep import SweepSettings, write_json

WORKER_TIMEOUT = 30.0
"""After how many seconds of silence the chief gives a worker's trial to another, where nothing else is said."""

_RECONNECT_SECONDS = 3600.0

_ENVIRONMENT = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


def set_role(role: str, chief: str | None, worker_id: str | None) -> None:
    """Tell KerasTuner what this process is, by the environment variables that it reads.

    Args:
        role: `"single"`, `"chief"` or `"worker"`. With `"single"`, variables that are set already decide.
        chief: Address of the chief, `HOST:PORT`.
        worker_id: Name of a worker, different for each.

    Raises:
        ValueError: If an argument is missing or can't be used.

    Example:
        >>> set_role("worker", "127.0.0.1", "first")
        Traceback (most recent call last):
        ValueError: The chief's address must be HOST:PORT. Received: chief='127.0.0.1'
    """
    if role == "single":
        return
    host, colon, port = (chief or "").rpartition(":")
    if not (host and colon and port.isdigit()):
        raise ValueError(f"The chief's address must be HOST:PORT. Received: chief={chief!r}")
    if role == "worker" and (not worker_id or "chief" in worker_id):
        raise ValueError(
            f"A worker needs a name of its own, without the word chief in it. Received: worker_id={worker_id!r}"
        )
    os.environ.update(zip(_ENVIRONMENT, ("chief" if role == "chief" else str(worker_id), host, port), strict=True))


def current_role() -> str:
    """Return `"chief"`, `"worker"` or `"single"`, as KerasTuner's environment variables say."""
    if not distribute_utils.has_chief_oracle():
        return "single"
    return "chief" if distribute_utils.is_chief_oracle() else "worker"


def serve(oracle: Any, report: Callable[[], Any] | None = None) -> None:
    """Be the chief: hand out trials until all have ended and every worker knows.

    Args:
        oracle: The search algorithm, with a `WorkerRegister`.
        report: Called soon after a trial has ended.

    Raises:
        OSError: If the address can't be used.
    """
    address = ":".join(os.environ[name] for name in _ENVIRONMENT[1:])
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    servicer = OracleServicer(oracle)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError:
        bound = 0
    if not bound:
        raise OSError(f"The chief can't listen at {address}: is another one running, or is the host not this one?")
    server.start()
    try:
        stopped_at = None
        num_ended = len(oracle.end_order)
        while True:
            time.sleep(0.2)
            if report is not None and len(oracle.end_order) > num_ended:
                num_ended = len(oracle.end_order)
                report()
            if servicer.stop_triggered and not oracle.ongoing_trials:
                stopped_at = stopped_at or time.monotonic()
                # Idle workers ask every second; those that do not are gone.
                if not oracle.tuner_ids or time.monotonic() - stopped_at > oracle.worker_timeout:
                    return
    finally:
        server.stop(grace=1).wait()


@contextlib.contextmanager
def heartbeat(oracle: Any, trial_id: str) -> Iterator[None]:
    """Tell the chief within the block that a trial is alive.

    Args:
        oracle: The worker's client.
        trial_id: The trial that it runs.
    """
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(grpc.RpcError):
                oracle.get_trial(trial_id)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def make_patient(client: Any) -> None:
    """Let a worker's client wait for a chief that is being started again.

    Args:
        client: KerasTuner's `OracleClient`.
    """
    for name in ("create_trial", "update_trial", "end_trial", "get_space", "update_space", "get_trial"):
        setattr(client, name, _retry_until_chief_answers(getattr(client, name)))


def _retry_until_chief_answers(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def call_until_answered(*args: Any, **kwargs: Any) -> Any:
        end = time.monotonic() + _RECONNECT_SECONDS
        while True:
            try:
                return call(*args, **kwargs)
            except grpc.RpcError as error:
                # The chief was killed while it answered.
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                    raise
                time.sleep(1)

    return call_until_answered


FINISHED = ("COMPLETED", "FAILED")
"""The states of a trial that will not run again."""


class WorkerRegister:
    """What the chief's search algorithm knows of its workers: a mixin for a `keras_tuner.Oracle`.

    A worker asks for its trial every few seconds. Where that stops, the trial goes to the next worker that is free,
    and nobody is sent home before every trial has ended.
    """

    worker_timeout = WORKER_TIMEOUT

    ongoing_trials: dict[str, Any]
    tuner_ids: set[str]
    _retry_queue: list[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._last_heard: dict[str, float] = {}

    def get_trial(self, trial_id: str) -> Any:
        """Return a trial; the question shows that its worker is alive."""
        self._last_heard[trial_id] = time.monotonic()
        return super().get_trial(trial_id)  # type: ignore[misc]

    @keras_tuner.synchronized
    def create_trial(self, tuner_id: str) -> Any:
        """Return the next trial of a worker, an idle one if it may have to take over another's."""
        self.release_lost_trials()
        # A worker that was started again under its name gets the trial that it had.
        trial = super().create_trial(tuner_id)  # type: ignore[misc]
        self._last_heard[trial.trial_id] = time.monotonic()
        if trial.status == "STOPPED" and self.ongoing_trials:
            self.tuner_ids.add(tuner_id)
            trial.status = "IDLE"
        return trial

    def release_lost_trials(self) -> None:
        """Queue the trials whose workers have been silent for too long."""
        now = time.monotonic()
        for tuner_id, trial in list(self.ongoing_trials.items()):
            if now - self._last_heard.setdefault(trial.trial_id, now) > self.worker_timeout:
                del self.ongoing_trials[tuner_id]
                self.tuner_ids.discard(tuner_id)
                self._retry_queue.append(trial.trial_id)


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


HEARTBEAT_SECONDS = 2.0
"""How often a worker tells the chief that its trial is alive."""
