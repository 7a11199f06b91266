"""What TensorBoard shows of a trial: its curves, and its row in the HParams view."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import keras
import keras_tuner
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.hparams import api_pb2, summary

LOGS = "logs"
"""Name of the folder, in a trial's folder, that TensorBoard reads."""

_METRICS = ("loss", "rmse_db", "kl_loss", "distance")


@contextlib.contextmanager
def tensorboard_logs(
    folder: str | Path, trial_id: str, hp: keras_tuner.HyperParameters
) -> Iterator[keras.callbacks.TensorBoard]:
    """Log a trial for TensorBoard, which is then started on any folder above: `tensorboard --logdir sweeps/mine`.

    KerasTuner does this only for tuners that train in its own process. What an earlier run of the trial left in
    the folder is deleted.

    Args:
        folder: Where the event files go.
        trial_id: Name of the trial in the HParams view.
        hp: What is searched, and what the trial chose. What KerasTuner keeps for itself is left out.

    Yields:
        The callback that logs losses and metrics. A trial that raises an error within the block is shown as failed.

    Example:
        >>> import tempfile
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
