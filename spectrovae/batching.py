"""One way to walk over windows, whatever holds them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from spectrovae.checks import check_positive_int


def iterate_batches(inputs: Any, batch_size: int = 32) -> Iterator[tf.Tensor]:
    """Yield float32 batches from an array or a dataset.

    Args:
        inputs: An array or tensor with the batch on its first axis, or an iterable of batches such as a
            `tf.data.Dataset`; of a batch that is a tuple `(x, y, ...)` the first part is used.
        batch_size: Size of the batches cut from an array; a dataset keeps its own.

    Yields:
        Tensors of shape `(batch, ...)`.

    Raises:
        ValueError: If there is nothing in `inputs`, or `batch_size` is not positive.

    Example:
        >>> [batch.shape[0] for batch in iterate_batches(np.zeros((5, 2)), batch_size=2)]
        [2, 2, 1]
    """
    check_positive_int("batch_size", batch_size)
    num_batches = 0
    for batch in _slices(inputs, batch_size) if hasattr(inputs, "shape") else inputs:
        windows = batch[0] if isinstance(batch, (tuple, list)) else batch
        num_batches += 1
        yield tf.cast(tf.convert_to_tensor(windows), tf.float32)
    if not num_batches:
        raise ValueError(f"There is no window in what was given. Received: inputs={inputs!r}")


def _slices(array: Any, batch_size: int) -> Iterator[np.ndarray]:
    for start in range(0, array.shape[0], batch_size):
        yield array[start : start + batch_size]
