"""What the processes of a multi-worker strategy agree on: who is the chief, what it found, and that one is gone."""

from __future__ import annotations

import contextlib
import functools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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
    """Return the chief's values on every worker; all must call it, with arrays of the same shapes and types.

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
    words = np.frombuffer(content.ljust(-(-length // 8) * 8, b"\0"), np.int64)  # what adds up quickly
    return broadcast(strategy, [words])[0].tobytes()[:length]


def same_everywhere(strategy: tf.distribute.Strategy, value: Any) -> bool:
    """Return, on all workers alike, whether all have a value, anything with a `repr`, that looks the same.

    Example:
        >>> same_everywhere(tf.distribute.get_strategy(), [1, 2])
        True
    """
    own = np.int64(zlib.crc32(repr(value).encode()))
    (of_chief,) = broadcast(strategy, [own])
    if num_workers(strategy) == 1:
        return True
    (num_different,) = _add_up(strategy, [np.int64(own != of_chief)])
    return num_different == 0


def _add_up(strategy: tf.distribute.Strategy, values: Sequence[Any]) -> list[np.ndarray]:
    num_local = strategy.num_replicas_in_sync // num_workers(strategy)

    def total(*arrays: tf.Tensor) -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        counts = context.replica_id_in_sync_group % num_local == 0  # one replica speaks for its worker
        return [context.all_reduce("SUM", tf.where(counts, array, tf.zeros_like(array))) for array in arrays]

    with named_losses(strategy):
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
        except Exception as error:  # the others wait for an answer, whatever it is
            failure = error
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
    told = json.loads(broadcast_bytes(strategy, answer))
    if failure is not None:
        raise failure
    if "error" in told:
        raise RuntimeError(f"The chief, worker 0, has failed and tells why: {told['error']}")
    return told["result"]


def computed_once(method: Callable[..., None]) -> Callable[..., None]:
    """Make a model's method that sets weights run on the chief only; the other workers get its weights."""

    @functools.wraps(method)
    def compute(self: Any, *args: Any, **kwargs: Any) -> None:
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
        self.share_variables()

    return compute


@contextlib.contextmanager
def named_losses(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turn the errors that TensorFlow raises when a worker has died into one that says what to do."""
    try:
        yield
    except _LOST_WORKER_ERRORS as error:
        if num_workers(strategy) == 1:
            raise
        raise ConnectionError(
            "Another worker has died or can't be reached, and without it this one can't go on. See the others' logs, "
            "then start all workers again: `fit_resumably` goes on after the last epoch that was saved. "
            f"TensorFlow says: {error.message}"
        ) from error


def share_variables(strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]) -> None:
    """Give every worker the chief's values of variables; those of metrics, which differ between workers, are left.

    Example:
        >>> share_variables(tf.distribute.get_strategy(), [keras.Variable(1.0)])
    """
    if num_workers(strategy) > 1:
        equal = [variable for variable in variables if variable.synchronization != "on_read"]
        for variable, value in zip(equal, broadcast(strategy, [each.numpy() for each in equal]), strict=True):
            variable.assign(value)
