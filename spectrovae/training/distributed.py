"""Training on several devices and machines.

A worker is a process, the chief the one of them that writes files, a replica a device on which a step runs.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import math
import random
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spectrovae.audio.dataset import DatasetRecord, record_of
from spectrovae.storage import temporary_folder

_LOST_WORKER_ERRORS = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


def num_workers(strategy: tf.distribute.Strategy) -> int:
    """Return how many processes a strategy trains in.

    Example:
        >>> num_workers(tf.distribute.get_strategy())
        1
    """
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec().as_dict() if resolver is not None else {}
    return max(1, len(cluster.get("chief", [])) + len(cluster.get("worker", [])))


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process is the one that writes files.

    Example:
        >>> is_chief(tf.distribute.get_strategy())
        True
    """
    if num_workers(strategy) == 1:
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)


def broadcast(strategy: tf.distribute.Strategy, values: Sequence[Any]) -> list[np.ndarray]:
    """Return the chief's values on every worker.

    All workers must call this at the same time, with arrays of the same shapes and types.

    Raises:
        ConnectionError: If another worker has died.

    Example:
        >>> broadcast(tf.distribute.get_strategy(), [np.arange(3)])
        [array([0, 1, 2])]
    """
    if num_workers(strategy) == 1 or not values:
        return list(values)
    return _add_up(strategy, values if is_chief(strategy) else [np.zeros_like(value) for value in values])


def broadcast_bytes(strategy: tf.distribute.Strategy, content: bytes) -> bytes:
    """Return the chief's bytes on every worker.

    Example:
        >>> broadcast_bytes(tf.distribute.get_strategy(), b"music")
        b'music'
    """
    (length,) = broadcast(strategy, [np.int64(len(content))])
    words = np.frombuffer(content.ljust(-(-length // 8) * 8, b"\0"), np.int64)  # integers are added up faster
    return broadcast(strategy, [words])[0].tobytes()[:length]


def _add_up(strategy: tf.distribute.Strategy, values: Sequence[Any]) -> list[np.ndarray]:
    """Return the sums of the workers' values on every worker."""
    num_local = strategy.num_replicas_in_sync // num_workers(strategy)

    def total(*arrays: tf.Tensor) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        counts = context.replica_id_in_sync_group % num_local == 0  # one replica speaks for its worker
        return [context.all_reduce("SUM", tf.where(counts, array, tf.zeros_like(array))) for array in arrays]

    with explain_lost_workers(strategy):
        arrays = tuple(map(tf.convert_to_tensor, values))
        # Concrete, since TensorFlow warns of functions that are traced often.
        add_up = tf.function(lambda *arrays: strategy.run(total, args=arrays)).get_concrete_function(*arrays)
        sums = add_up(*arrays)
        return [strategy.experimental_local_results(value)[0].numpy() for value in sums]


def run_on_chief(strategy: tf.distribute.Strategy, function: Callable[[], Any]) -> Any:
    """Call a function on the chief only, and return its result, of JSON's types, on every worker.

    Raises:
        RuntimeError: On the other workers, if the function raises an error on the chief.

    Example:
        >>> run_on_chief(tf.distribute.get_strategy(), lambda: {"epochs": 3})
        {'epochs': 3}
    """
    if num_workers(strategy) == 1:
        return function()
    answer, failure = b"", None
    if is_chief(strategy):
        try:
            answer = json.dumps({"result": function()}).encode()
        except Exception as error:  # the others wait for an answer in any case
            failure = error
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
    told = json.loads(broadcast_bytes(strategy, answer))
    if failure is not None:
        raise failure
    if "error" in told:
        raise RuntimeError(f"The chief, worker 0, has failed: {told['error']}")
    return told["result"]


def computed_once(method: Callable[..., None]) -> Callable[..., None]:
    """Decorate a method that sets weights: only the chief runs it, and the other workers get its weights."""

    @functools.wraps(method)
    def compute(self: DistributedModel, *args: Any, **kwargs: Any) -> None:
        strategy = self.distribute_strategy
        if num_workers(strategy) == 1 or getattr(self, "_computes_alone", False):
            method(self, *args, **kwargs)
            return

        def compute_alone() -> None:
            self._computes_alone = True
            try:
                method(self, *args, **kwargs)
            finally:
                self._computes_alone = False

        run_on_chief(strategy, compute_alone)
        self._share_variables()

    return compute


@contextlib.contextmanager
def explain_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turn TensorFlow's errors about a worker that has died into a ConnectionError that says what to do."""
    try:
        yield
    except _LOST_WORKER_ERRORS as error:
        if num_workers(strategy) == 1:
            raise
        raise ConnectionError(
            "Another worker has died or can't be reached, and without it this one can't continue. See the others' "
            "logs, then start all workers again: `fit_resumably` continues after the last epoch that was saved. "
            f"TensorFlow says: {error.message}"
        ) from error


def share_variables(strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]) -> None:
    """Give every worker the chief's values of variables, except those of metrics, which differ between workers.

    Example:
        >>> share_variables(tf.distribute.get_strategy(), [keras.Variable(1.0)])
    """
    if num_workers(strategy) > 1:
        equal = [variable for variable in variables if variable.synchronization != "on_read"]
        for variable, value in zip(equal, broadcast(strategy, [each.numpy() for each in equal]), strict=True):
            variable.assign(value)


def split_evenly(sizes: Sequence[int], num_parts: int) -> list[list[int]]:
    """Divide positions into parts of about the same total size.

    Example:
        >>> split_evenly([5, 1, 3, 4], num_parts=2)
        [[0, 1], [2, 3]]
    """
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    for position in sorted(range(len(sizes)), key=lambda position: -sizes[position]):
        min(parts, key=lambda part: sum(sizes[other] for other in part)).append(position)
    return [sorted(part) for part in parts]


def _distribute_files(record: DatasetRecord, strategy: tf.distribute.Strategy) -> tf.distribute.DistributedDataset:
    """Return a dataset of which each worker reads its own files.

    Every window is read once an epoch, by one worker. All workers must take the same number of steps: those with fewer
    windows end with empty batches.
    """
    workers, replicas = num_workers(strategy), strategy.num_replicas_in_sync
    num_windows = [recording.num_windows for recording in record.report.used]
    if len(num_windows) < workers:
        raise ValueError(
            f"Each worker needs a file of its own, and there are {len(num_windows)} files for {workers} workers. Use "
            "fewer workers, or cut the recordings into more files."
        )
    if record.batch_size % replicas:
        raise ValueError(
            f"`batch_size` is that of all replicas together and must be a multiple of their number, {replicas}. "
            f"Received: batch_size={record.batch_size}"
        )
    own = np.int64(zlib.crc32(repr(num_windows).encode()))
    (of_chief,) = broadcast(strategy, [own])
    (num_different,) = _add_up(strategy, [np.int64(own != of_chief)])
    if num_different:
        raise ValueError(
            "The workers have found different recordings. Give each the same files, with the same settings. Received "
            f"on this worker: {len(num_windows)} files of {sum(num_windows)} windows"
        )
    batch_size = record.batch_size // replicas
    parts = split_evenly(num_windows, workers)
    num_local = replicas // workers
    largest = max(sum(num_windows[position] for position in part) for part in parts)
    num_steps = math.ceil(largest / (batch_size * num_local))

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        part = record.make_part(parts[context.input_pipeline_id], batch_size)
        spec = part.element_spec
        empty = tf.data.Dataset.from_tensors(tf.zeros((0, *spec.shape[1:]), spec.dtype))
        whole = part.concatenate(empty.repeat(num_steps * num_local - len(part)))
        # Without a known length, since Keras would take the number of batches for that of steps.
        return whole if num_local == 1 else whole.filter(lambda batch: True)

    return strategy.distribute_datasets_from_function(make)


def _distribute(
    strategy: tf.distribute.Strategy,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    shuffle: bool = False,
) -> Any:
    """Return data that `fit` and `evaluate` can take on several workers, in batches for all of them together.

    Datasets of `audio_dataset` are divided by file. Arrays become datasets that all workers shuffle in the same way;
    every worker takes its part of each batch. This is also so for other datasets, which must have the same order on all
    workers.
    """
    if isinstance(x, tf.data.Dataset):
        record = record_of(x)
        return x if record is None else _distribute_files(record, strategy)
    if not hasattr(x, "shape"):
        return x
    arrays = tuple(array for array in (x, y, sample_weight) if array is not None)
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    if shuffle:
        (seed,) = broadcast(strategy, [np.int64(random.randrange(2**31))])
        dataset = dataset.shuffle(len(x), seed=int(seed))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.batch(batch_size or 32).with_options(options)


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A seed generator whose draws differ from replica to replica.

    Under a strategy every replica has the same state: with Keras' own generator all of them would drop the same units
    and draw the same noise. With a single replica the draws are those of `keras.random.SeedGenerator`.

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
    """Make the layers that draw random numbers, such as dropout, draw others on each replica."""
    for layer in layers:
        generator = getattr(layer, "seed_generator", None)
        if type(generator) is keras.random.SeedGenerator:
            generator.__class__ = ReplicaSeedGenerator  # a new one would leave the old one's state among the variables


def pad_empty_batch(
    windows: tf.Tensor, sample_weight: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor | None, tf.Tensor]:
    """Return a batch that is not empty, its weights, and the number of windows that it had.

    At the end of an epoch there may be no window left for some replicas, but they must take the step with the others:
    they get one window of weight 0. With a single replica nothing is changed.

    Args:
        windows: Shape `(batch, bins, frames, 1)`.
        sample_weight: Shape `(batch,)`, or None for equal weights.

    Example:
        >>> windows, weights, num_windows = pad_empty_batch(tf.zeros((2, 32, 32, 1)), None)
        >>> windows.shape[0], weights, int(num_windows)
        (2, None, 2)
    """
    num_windows = tf.shape(windows)[0]
    sample_weight = None if sample_weight is None else tf.cast(sample_weight, tf.float32)
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return windows, sample_weight, num_windows
    num_missing = tf.maximum(1 - num_windows, 0)
    weights = tf.ones((num_windows,)) if sample_weight is None else sample_weight
    padding = [[0, num_missing]] + (windows.shape.rank - 1) * [[0, 0]]
    return tf.pad(windows, padding), tf.pad(weights, [[0, num_missing]]), num_windows


def global_mean(losses: tf.Tensor, sample_weight: tf.Tensor | None, num_windows: tf.Tensor) -> tf.Tensor:
    """Return this replica's part of the mean of losses over the windows of all replicas.

    Keras' optimizers add up the gradients of the replicas, so that the parts must add up to the mean.

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


def sync_nonfinite_gradients(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return gradients that are finite on all replicas or on none.

    Where float16 overflows, the optimizer leaves out the step. It decides so on each replica by itself: if only some
    left it out, the others would wait for them for ever.

    Example:
        >>> sync_nonfinite_gradients([tf.constant([1.0, 2.0])])[0].numpy().tolist()
        [1.0, 2.0]
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
    num_finite = context.all_reduce("SUM", tf.cast(is_finite, tf.float32))
    all_finite = num_finite == context.num_replicas_in_sync
    return [tf.where(all_finite, gradient, float("nan")) for gradient in gradients]


def _callbacks_of(callbacks: Any, chief: bool) -> Any:
    """Return the callbacks of a worker: only the chief's leave files.

    The others drop Keras' callbacks that write logs and those whose attribute `writes_files` is true. All workers save
    the model, since they must read its metrics together: the others save it in a temporary folder.
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


class DistributedModel(keras.Model):
    """A Keras model whose `fit` and `evaluate` also work on several workers.

    Stock Keras 3 fails there in two places (keras-team/keras#20585): it builds the model from a batch that it cannot
    average over workers, and averages logs over an axis that they do not have. A subclass creates all of its weights in
    `__init__`, sets `built`, and has an `input_shape`, that of one example without the batch.
    """

    input_shape: tuple[int, ...]

    def finish_training(self, x: Any) -> bool:
        """Do what is left to do after the last epoch; `fit_resumably` calls this with the weights it will keep.

        Args:
            x: The training data. It may be an iterator, of which nothing is left.

        Returns:
            Whether weights have changed, so that the model has to be saved once more.
        """
        return False

    def _share_variables(self) -> None:
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
        super().compile(*args, **kwargs)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train, as `keras.Model.fit` does."""
        strategy = self.distribute_strategy
        if num_workers(strategy) == 1:
            return super().fit(x, *args, **kwargs)
        given = inspect.signature(keras.Model.fit).bind(self, x, *args, **kwargs).arguments
        del given["self"]
        if given.pop("validation_split", 0):
            raise ValueError("On several workers `validation_split` is not divided: give `validation_data` instead.")
        batch_size = given.pop("batch_size", None)
        shuffle = given.pop("shuffle", True)
        given["shuffle"] = False  # Keras' own would differ from worker to worker
        given["x"] = _distribute(
            strategy, x, given.pop("y", None), given.pop("sample_weight", None), batch_size, shuffle
        )
        if given.get("validation_data") is not None:
            held_out, targets, weights = keras.utils.unpack_x_y_sample_weight(given["validation_data"])
            batch_size = given.pop("validation_batch_size", None) or batch_size
            given["validation_data"] = _distribute(strategy, held_out, targets, weights, batch_size)
        given["callbacks"] = _callbacks_of(given.get("callbacks"), is_chief(strategy))
        if not is_chief(strategy):
            given["verbose"] = 0
        with explain_lost_workers(strategy):
            return super().fit(**given)

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Measure, as `keras.Model.evaluate` does."""
        strategy = self.distribute_strategy
        if num_workers(strategy) == 1 or kwargs.get("_use_cached_eval_dataset"):
            return super().evaluate(x, *args, **kwargs)
        given = inspect.signature(keras.Model.evaluate).bind(self, x, *args, **kwargs).arguments
        del given["self"]
        given |= given.pop("kwargs", {})
        targets, weights = given.pop("y", None), given.pop("sample_weight", None)
        given["x"] = _distribute(strategy, x, targets, weights, given.pop("batch_size", None))
        if not is_chief(strategy):
            given["verbose"] = 0
        with explain_lost_workers(strategy):
            return super().evaluate(**given)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        # The model has all its weights; only the metrics that the user gave to `compile` are left to build.
        metrics = getattr(self, "_compile_metrics", None)
        if metrics is not None and not metrics.built:
            with self.distribute_strategy.scope():
                example = tf.zeros((1, *self.input_shape))
                metrics.build(example, example)

    def _make_function(self, step_function: Callable[[Any], dict[str, tf.Tensor]]) -> Callable[[Any], Any]:
        make = super()._make_function
        if num_workers(self.distribute_strategy) == 1:
            return make(step_function)
        names: list[str] = []

        def packed_step(data: Any) -> tf.Tensor:
            logs = step_function(data)
            names[:] = logs
            return tf.stack([tf.cast(value, tf.float32) for value in logs.values()])[None]  # (1, num_logs)

        function = make(packed_step)
        return lambda iterator: dict(zip(names, tf.unstack(function(iterator)), strict=True))
