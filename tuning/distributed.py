"""Many machines: KerasTuner's chief and workers, made to survive the loss of a worker."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.distribute import utils as distribute_utils
from keras_tuner.src.distribute.oracle_chief import OracleServicer

HEARTBEAT_SECONDS = 2.0
"""How often a worker tells the chief that its trial is alive."""

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
        setattr(client, name, _patient(getattr(client, name)))


def _patient(call: Callable[..., Any]) -> Callable[..., Any]:
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
