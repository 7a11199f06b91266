"""Training on several devices and machines: what `fit` needs beyond Keras under a `tf.distribute` strategy."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from spectrovae.files import temporary_folder
from spectrovae.shards import distribute
from spectrovae.workers import is_chief, named_losses, num_workers, share_variables


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A seed generator whose draws differ from replica to replica.

    Under a strategy every replica has the same state, so that Keras' own generator would have all of them drop the same
    units and draw the same noise. With a single replica the draws are those of `keras.random.SeedGenerator`.

    Example:
        >>> ReplicaSeedGenerator(7).next().numpy().tolist()
        [7, 0]
    """

    def next(self, ordered: bool = True) -> tf.Tensor:
        """Return the next seed of this replica."""
        seed = super().next(ordered)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        return tf.random.experimental.stateless_fold_in(seed, context.replica_id_in_sync_group)


def draw_by_replica(layers: Iterable[keras.layers.Layer]) -> None:
    """Have the layers that draw numbers, such as dropout, draw others on each replica."""
    for layer in layers:
        generator = getattr(layer, "seed_generator", None)
        if type(generator) is keras.random.SeedGenerator:
            generator.__class__ = ReplicaSeedGenerator  # a new one would leave the old one's state among the variables


def filled_up(windows: tf.Tensor, sample_weight: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
    """Return a batch that is not empty, with weights, and the number of windows that it had.

    At the end of an epoch there may be no window left for some replicas, which all the same must take the step with the
    others: they get one of weight 0. With a single replica nothing is changed.

    Args:
        windows: Shape `(batch, bins, frames, 1)`.
        sample_weight: Shape `(batch,)`, or None for equal weights.

    Example:
        >>> windows, weights, num_windows = filled_up(tf.zeros((2, 32, 32, 1)), None)
        >>> windows.shape[0], weights, int(num_windows)
        (2, None, 2)
    """
    num_windows = tf.shape(windows)[0]
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return windows, sample_weight, num_windows
    num_missing = tf.maximum(1 - num_windows, 0)
    weights = tf.ones((num_windows,)) if sample_weight is None else tf.cast(sample_weight, tf.float32)
    padding = [[0, num_missing]] + (windows.shape.rank - 1) * [[0, 0]]
    return tf.pad(windows, padding), tf.pad(weights, [[0, num_missing]]), num_windows


def global_mean(losses: tf.Tensor, sample_weight: tf.Tensor | None, num_windows: tf.Tensor) -> tf.Tensor:
    """Return this replica's part of the mean of losses over the windows of all replicas.

    Keras' optimizers add up the gradients of the replicas, so the parts have to add up to the mean, whatever the
    sizes of the replicas' batches.

    Args:
        losses: Shape `(batch,)`.
        sample_weight: The same, or None for equal weights.
        num_windows: Number of windows in this replica's batch.

    Example:
        >>> float(global_mean(tf.constant([1.0, 3.0]), None, num_windows=2))
        2.0
    """
    weighted = losses if sample_weight is None else losses * sample_weight
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return tf.reduce_mean(weighted)
    total = context.all_reduce("SUM", tf.cast(num_windows, losses.dtype))
    return tf.reduce_sum(weighted) / total


def finite_together(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return gradients that are finite on all replicas or on none.

    Float16 overflows at times, and the optimizer then leaves out the step. It asks each replica for itself; were only
    some to leave it out, the others would wait for them for ever.

    Example:
        >>> finite_together([tf.constant([1.0, 2.0])])[0].numpy().tolist()
        [1.0, 2.0]
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
    num_finite = context.all_reduce("SUM", tf.cast(is_finite, tf.float32))
    all_finite = num_finite == context.num_replicas_in_sync
    return [tf.where(all_finite, gradient, float("nan")) for gradient in gradients]


class Distributed:
    """The methods of `SpectroVAE` that let Keras' `fit` and `evaluate` work on several workers.

    Stock Keras 3 fails there in two places (keras-team/keras#20585): it builds the model from a batch that it cannot
    average over workers, and averages logs over an axis that they do not have.
    """

    distribute_strategy: tf.distribute.Strategy
    variables: list[keras.Variable]
    built: bool
    optimizer: Any
    input_shape: tuple[int, ...]

    def share_variables(self) -> None:
        """Give every worker the chief's weights, seeds and state of the optimizer."""
        optimizer = getattr(self, "optimizer", None)
        share_variables(self.distribute_strategy, self.variables + (optimizer.variables if optimizer else []))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configure training, as `keras.Model.compile` does.

        Raises:
            ValueError: On several replicas, if there is `jit_compile` or more than one step per execution.
        """
        strategy = self.distribute_strategy
        if isinstance(strategy, tf.distribute.ParameterServerStrategy):
            raise ValueError("Keras 3 has no parameter servers. Use tf.distribute.MultiWorkerMirroredStrategy instead.")
        num_replicas = strategy.num_replicas_in_sync
        if num_replicas > 1 and kwargs.get("jit_compile") is True:
            raise ValueError(
                f"XLA compiles no step that goes over {num_replicas} replicas. Leave out `jit_compile`. Received: "
                "jit_compile=True"
            )
        if num_replicas > 1 and kwargs.get("steps_per_execution", 1) != 1:
            raise ValueError(
                f"TensorFlow can't loop over the batches of {num_replicas} replicas. Leave out `steps_per_execution`; "
                f"a larger `batch_size` saves as much. Received: steps_per_execution={kwargs['steps_per_execution']!r}"
            )
        if num_replicas > 1:
            kwargs["jit_compile"] = False  # "auto" would mean yes
        super().compile(*args, **kwargs)  # type: ignore[misc]

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train, as `keras.Model.fit` does."""
        strategy = self.distribute_strategy
        if num_workers(strategy) == 1:
            return super().fit(x, *args, **kwargs)  # type: ignore[misc]
        given = inspect.signature(keras.Model.fit).bind(self, x, *args, **kwargs).arguments
        del given["self"]
        if given.pop("validation_split", 0):
            raise ValueError("On several workers `validation_split` is not divided: give `validation_data` instead.")
        batch_size = given.pop("batch_size", None)
        shuffle = given.pop("shuffle", True)
        given["shuffle"] = False  # Keras' own would differ from worker to worker
        given["x"] = distribute(
            strategy, x, given.pop("y", None), given.pop("sample_weight", None), batch_size, shuffle
        )
        if given.get("validation_data") is not None:
            held_out, targets, weights = keras.utils.unpack_x_y_sample_weight(given["validation_data"])
            batch_size = given.pop("validation_batch_size", None) or batch_size
            given["validation_data"] = distribute(strategy, held_out, targets, weights, batch_size)
        given["callbacks"] = callbacks_of(given.get("callbacks"), is_chief(strategy))
        if not is_chief(strategy):
            given["verbose"] = 0
        with named_losses(strategy):
            return super().fit(**given)  # type: ignore[misc]

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Measure, as `keras.Model.evaluate` does."""
        strategy = self.distribute_strategy
        if num_workers(strategy) == 1 or kwargs.get("_use_cached_eval_dataset"):
            return super().evaluate(x, *args, **kwargs)  # type: ignore[misc]
        given = inspect.signature(keras.Model.evaluate).bind(self, x, *args, **kwargs).arguments
        del given["self"]
        given |= given.pop("kwargs", {})
        targets, weights = given.pop("y", None), given.pop("sample_weight", None)
        given["x"] = distribute(strategy, x, targets, weights, given.pop("batch_size", None))
        if not is_chief(strategy):
            given["verbose"] = 0
        with named_losses(strategy):
            return super().evaluate(**given)  # type: ignore[misc]

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # The model has all its weights. What is left are the metrics that the user has given to `compile`.
        metrics = getattr(self, "_compile_metrics", None)
        if metrics is not None and not metrics.built:
            with self.distribute_strategy.scope():
                example = tf.zeros((1, *self.input_shape))
                metrics.build(example, example)

    def _make_function(self, step_function: Callable[[Any], dict[str, tf.Tensor]]) -> Callable[[Any], Any]:
        make = super()._make_function  # type: ignore[misc]
        if num_workers(self.distribute_strategy) == 1:
            return make(step_function)
        names: list[str] = []

        def packed_step(data: Any) -> tf.Tensor:
            logs = step_function(data)
            names[:] = logs
            return tf.stack([tf.cast(value, tf.float32) for value in logs.values()])[None]  # (1, num_logs)

        function = make(packed_step)
        return lambda iterator: dict(zip(names, tf.unstack(function(iterator)), strict=True))


def callbacks_of(callbacks: Any, chief: bool) -> Any:
    """Return the callbacks of a worker, of which only the chief's leave files.

    Those whose attribute `writes_files` is true, and Keras' that write logs, are the chief's alone. A model is saved by
    all workers, since its metrics are read together: the others' goes to a temporary folder.

    Raises:
        ValueError: If there is a `BackupAndRestore`, which does not know of workers.

    Example:
        >>> callbacks_of([keras.callbacks.CSVLogger("log.csv")], chief=False)
        []
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = keras.tree.flatten(callbacks or [])
    if any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks):
        raise ValueError(
            "keras.callbacks.BackupAndRestore does not work on several workers. Use spectrovae.training.fit_resumably."
        )
    if chief:
        return callbacks
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.ModelCheckpoint):
            folder, remover = temporary_folder()
            weakref.finalize(callback, remover.close)
            callback.filepath = str(folder / Path(callback.filepath).name)
    logs = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)
    return [call for call in callbacks if not (isinstance(call, logs) or getattr(call, "writes_files", False))]
