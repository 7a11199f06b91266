"""Batches of windows from arrays and datasets, and random samples of them."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from spectrovae.checks import check_positive_int, check_window_values


def iterate_batches(inputs: Any, batch_size: int = 32) -> Iterator[tf.Tensor]:
    """Yield float32 batches from an array or a dataset.

    Args:
        inputs: An array or tensor with the batch on its first axis, or an iterable of batches such as a
            `tf.data.Dataset`; of a batch that is a tuple `(x, y, ...)` the first element is used.
        batch_size: Size of the batches cut from an array; a dataset keeps its own.

    Yields:
        Tensors of shape `(batch, ...)`.

    Raises:
        ValueError: If `inputs` is empty or does not hold numbers, or `batch_size` is not positive.

    Example:
        >>> [batch.shape[0] for batch in iterate_batches(np.zeros((5, 2)), batch_size=2)]
        [2, 2, 1]
    """
    check_positive_int("batch_size", batch_size)
    num_batches = 0
    for batch in _batches_of(inputs, batch_size):
        windows = batch[0] if isinstance(batch, (tuple, list)) else batch
        if isinstance(windows, dict):
            raise ValueError(
                "Batches must be arrays, or tuples that begin with one. Received: a dict with the keys "
                f"{list(windows)}; of a dataset take one with dataset.map(lambda batch: batch[key])"
            )
        num_batches += 1
        tensor = tf.convert_to_tensor(windows)
        if not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
            raise ValueError(f"Windows and codes must be numbers. Received: dtype={tensor.dtype.name}")
        yield tf.cast(tensor, tf.float32)
    if not num_batches:
        raise ValueError(f"`inputs` is empty: expected at least one window. Received: inputs={inputs!r}")


def limited_batches(inputs: Any, num_passes: int, max_windows: int, batch_size: int = 32) -> Iterator[np.ndarray]:
    """Yield batches like `iterate_batches`, from several passes over a dataset, up to a number of windows.

    Args:
        inputs: As for `iterate_batches`.
        num_passes: How often to read a dataset, whose windows may differ each time; an array is read once.
        max_windows: Number of windows after which to stop, in the middle of a batch if need be.
        batch_size: Size of the batches cut from an array.

    Example:
        >>> [len(batch) for batch in limited_batches([np.zeros((3, 2))], num_passes=3, max_windows=7)]
        [3, 3, 1]
    """
    num_windows = 0
    for _ in range(1 if hasattr(inputs, "shape") else num_passes):
        for batch in iterate_batches(inputs, batch_size):
            yield np.asarray(batch)[: max_windows - num_windows]  # a view: slices of tensors are copies
            num_windows += len(batch)
            if num_windows >= max_windows:
                return


def training_part(inputs: Any, validation_split: float) -> Any:
    """Return the part of an array that Keras trains on when `fit` gets this `validation_split`.

    Example:
        >>> training_part(np.arange(10), validation_split=0.25)
        array([0, 1, 2, 3, 4, 5, 6, 7])
    """
    if not validation_split or not hasattr(inputs, "shape"):
        return inputs
    return inputs[: math.ceil(len(inputs) * (1 - validation_split))]


def _batches_of(inputs: Any, batch_size: int) -> Iterator[Any]:
    if hasattr(inputs, "shape"):
        return (inputs[start : start + batch_size] for start in range(0, inputs.shape[0], batch_size))
    if hasattr(inputs, "num_batches"):  # a keras.utils.PyDataset: iterating over it would not end
        return (inputs[index] for index in range(inputs.num_batches))
    return iter([inputs] if isinstance(inputs, dict) else inputs)


class WindowSample:
    """A random sample of windows that pass by in batches.

    Every window has the same chance to be in it (reservoir sampling: Vitter, "Random sampling with a reservoir", ACM
    TOMS 1985).

    Args:
        size: Number of windows to keep.
        seed: Integer that makes the choice repeat.

    Attributes:
        windows: The sample, each window of shape `(bins, frames, 1)`.
        num_seen: Number of windows that have passed.

    Example:
        >>> sample = WindowSample(size=2, seed=0)
        >>> batches = list(sample.collect([np.zeros((3, 4, 4, 1)), np.ones((3, 4, 4, 1))]))
        >>> len(batches), len(sample.windows), sample.num_seen
        (2, 2, 6)
    """

    def __init__(self, size: int, seed: int | None = None) -> None:
        self.size = size
        self.windows: list[np.ndarray] = []
        self.num_seen = 0
        self._generator = np.random.default_rng(seed)

    def collect(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the batches unchanged, and keep some of their windows."""
        for batch in batches:
            for window in batch:
                self.num_seen += 1
                # Copies, since a view would keep its whole batch in memory.
                if len(self.windows) < self.size:
                    self.windows.append(np.array(window))
                elif (place := self._generator.integers(self.num_seen)) < self.size:
                    self.windows[place] = np.array(window)
            yield batch


def check_windows(windows: Any, input_shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless this is a batch of windows of that shape.

    Example:
        >>> check_windows(np.zeros((5, 32, 32, 1)), (32, 32, 1))
    """
    if len(windows.shape) != 4 or tuple(windows.shape[1:]) != input_shape:
        shape = tuple(windows.shape)
        advice = ""
        if shape == input_shape:
            advice = ". A single window needs a first axis of 1: window[None]. A dataset of them needs .batch(16)."
        elif shape[1:] == input_shape[:-1]:
            advice = ". The last axis is missing: windows[..., None]."
        raise ValueError(
            f"The model takes windows of shape (num_windows, {', '.join(map(str, input_shape))}). "
            f"Received: shape {shape}{advice}"
        )


def check_codes(codes: Any, code_shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless this is a batch of codes; of several codes along a window there may be any number.

    Example:
        >>> check_codes(np.zeros((5, 48, 3)), code_shape=(32, 3))
    """
    if codes.shape[-1] != code_shape[-1] or len(codes.shape) != 1 + len(code_shape):
        expected = ", ".join(map(str, ("num_windows", *code_shape)))
        raise ValueError(f"Codes must have the shape ({expected}). Received: {tuple(codes.shape)}")


def check_dataset(inputs: Any, input_shape: tuple[int, ...]) -> None:
    """Raise a ValueError, before anything is trained, if windows cannot be trained on.

    Of a dataset the first batch is looked at, and of an iterator nothing.

    Example:
        >>> check_dataset(np.zeros((5, 32, 32, 1)), (32, 32, 1))
    """
    if hasattr(inputs, "__next__") or isinstance(inputs, tf.distribute.DistributedDataset):
        return  # what is taken from an iterator is gone, and a distributed batch is in several places
    batches = iterate_batches(inputs, batch_size=256)
    for batch in batches if hasattr(inputs, "shape") else itertools.islice(batches, 1):
        check_windows(batch, input_shape)
        check_window_values(batch)
