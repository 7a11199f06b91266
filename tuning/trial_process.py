"""A trial of a sweep, trained in a child process and logged for TensorBoard."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.hparams import api_pb2, summary

from spectrovae.storage import check_archive, remove_leftovers, temporary_folder
from spectrovae.tuning.hypermodel import make_hypermodel
from spectrovae.tuning.search_space import SweepSettings, write_json

OUTCOME = "outcome.json"
"""Name of the file, in a trial's folder, with its outcome."""

CHECKPOINT = "checkpoint.weights.h5"
"""Name of the file with the weights of a trial's best epoch."""

LOGS = "logs"
"""Name of the folder, in a trial's folder, that TensorBoard reads."""

_SOCKET_LENGTH = len("/pymp-01234567/listener-01234567")
_MAX_SOCKET_PATH = 104  # bytes on macOS and the BSDs; Linux has 108

_METRICS = ("loss", "rmse_db", "kl_loss", "distance")  # in the HParams view


@dataclasses.dataclass(frozen=True)
class TrialTask:
    """Everything a process needs to run a trial.

    Attributes:
        settings: What all trials have in common.
        hyperparameters: Configuration of the trial's `HyperParameters`.
        folder: Where the outcome and the weights go.
        cache: Folder of the decoded recordings.
        linear_start: Folder of the shared linear start.
        initial_weights: File of weights to continue from, of an earlier trial; None for a new model.
        verbose: As for `keras.Model.fit`.
    """

    settings: SweepSettings
    hyperparameters: dict
    folder: Path
    cache: Path
    linear_start: Path
    initial_weights: Path | None = None
    verbose: int = 2


def run_in_child(task: TrialTask) -> dict[str, Any]:
    """Run a trial in a child process and wait for its end.

    The memory of a training returns to the system with the process, and a trial that the system kills does no harm
    to the sweep.

    Returns:
        The outcome: `history` (losses and metrics by epoch) or `reason` (why it failed), `num_parameters`,
        `seconds`, `peak_memory_mb`, `arguments` (the chosen values).
    """
    outcome_file = task.folder / OUTCOME
    outcome_file.unlink(missing_ok=True)
    start = time.monotonic()
    # TensorFlow's temporary files would outlive a process that ends without clearing up, as all child processes do.
    temporary, remover = temporary_folder()
    with remover:
        process = _context().Process(target=_run_trial, args=(task, temporary), name="trial")
        process.start()
        try:
            process.join()
        except BaseException:  # an interruption
            process.kill()
            process.join()
            for folder in (task.folder, task.linear_start):
                remove_leftovers(folder)
            raise
    if not outcome_file.exists():
        write_json(outcome_file, {"reason": _explain_exit(process.exitcode)})
    outcome = json.loads(outcome_file.read_text()) | {"seconds": time.monotonic() - start}
    write_json(outcome_file, outcome)
    return outcome


def _context() -> multiprocessing.context.SpawnContext | multiprocessing.context.ForkServerContext:
    # A process that is forked from a server with TensorFlow imported, but not yet used, starts at once. The server's
    # socket lies in the folder of temporary files; systems allow it a path of about 104 bytes.
    has_room = len(os.fsencode(tempfile.gettempdir())) + _SOCKET_LENGTH < _MAX_SOCKET_PATH
    if "forkserver" not in multiprocessing.get_all_start_methods() or not has_room:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _run_trial(task: TrialTask, temporary: Path) -> None:
    tempfile.tempdir = str(temporary)
    # Ctrl-C reaches this process as well: the sweep ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    outcome: dict[str, Any] = {}
    try:
        _train(task, outcome)
    except Exception as error:
        outcome["reason"] = str(error) or type(error).__name__
        if not isinstance(error, keras_tuner.errors.FailedTrialError):
            outcome["reason"] = f"{type(error).__name__}: {outcome['reason']}"
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    outcome["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    write_json(task.folder / OUTCOME, outcome)


def _train(task: TrialTask, outcome: dict[str, Any]) -> None:
    hp = keras_tuner.HyperParameters.from_config(task.hyperparameters)
    hypermodel = make_hypermodel(task.settings, task.linear_start)
    model = hypermodel.build(hp)
    outcome["num_parameters"] = model.count_params()
    outcome["arguments"] = hypermodel.declare_hyperparameters(hp)
    if task.initial_weights is not None:
        check_archive(task.initial_weights)
        model.load_weights(task.initial_weights)
    train, validation = task.settings.datasets(task.cache)
    checkpoint = keras.callbacks.ModelCheckpoint(
        task.folder / CHECKPOINT,
        monitor=task.settings.make_objective().name,
        mode="min",
        save_best_only=True,
        save_weights_only=True,
    )
    with tensorboard_logs(task.folder / LOGS, task.folder.name, hp) as tensorboard:
        history = hypermodel.fit(
            hp,
            model,
            train,
            validation_data=validation,
            # Hyperband's own numbers of epochs have precedence.
            epochs=hp.values.get("tuner/epochs", task.settings.epochs),
            initial_epoch=hp.values.get("tuner/initial_epoch", 0),
            callbacks=[checkpoint, tensorboard],
            verbose=task.verbose,
        )
    outcome["history"] = {name: [float(value) for value in values] for name, values in history.history.items()}


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _explain_exit(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"The process of the trial ended with exit code {exit_code} and left no result."
    name = signal.Signals(-exit_code).name
    hint = " Most likely the system was out of memory." if name == "SIGKILL" else ""
    return f"The process of the trial was killed by {name}.{hint}"


@contextlib.contextmanager
def tensorboard_logs(
    folder: str | Path, trial_id: str, hp: keras_tuner.HyperParameters
) -> Iterator[keras.callbacks.TensorBoard]:
    """Log a trial for TensorBoard, which is started on a folder above: `tensorboard --logdir sweeps/mine`.

    KerasTuner does this only for tuners that train in its own process. The logs of an earlier run of the trial are
    deleted.

    Args:
        folder: Where the event files go.
        trial_id: Name of the trial in the HParams view.
        hp: What is searched, and the values of the trial. KerasTuner's internal values are left out.

    Yields:
        The callback that logs losses and metrics. If the block raises an error, the trial is shown as failed.

    Example:
        >>> import tempfile
        >>> import keras_tuner
        >>> with tensorboard_logs(tempfile.mkdtemp(), "0", keras_tuner.HyperParameters()) as callback:
        ...     type(callback).__name__
        'TensorBoard'
    """
    shutil.rmtree(folder, ignore_errors=True)
    values = {name: value for name, value in hp.values.items() if not name.startswith("tuner/")}
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        hparams_api.hparams_config(
            [hparams_api.HParam(parameter.name, _domain(parameter)) for parameter in hp.space],
            [hparams_api.Metric(f"epoch_{name}", "validation", f"val_{name}") for name in _METRICS],
        )
        hparams_api.hparams(values, trial_id)
    status = api_pb2.STATUS_FAILURE
    try:
        yield keras.callbacks.TensorBoard(folder, write_graph=False)
        status = api_pb2.STATUS_SUCCESS
    finally:
        with writer.as_default():
            end = summary.session_end_pb(status).SerializeToString()
            tf.summary.experimental.write_raw_pb(end, step=0)
        writer.close()


def _domain(parameter: keras_tuner.engine.hyperparameters.HyperParameter) -> hparams_api.Discrete:
    return hparams_api.Discrete(list(parameter.values))
