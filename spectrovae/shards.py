"""Data for several workers: each reads its own files, or its own part of the same batches."""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from spectrovae.workers import broadcast, num_workers, same_everywhere


class _Files(NamedTuple):
    """How a dataset is made of files."""

    num_windows: Sequence[int]
    batch_size: int
    make_part: Callable[[Sequence[int], int], tf.data.Dataset]


_files: weakref.WeakKeyDictionary[tf.data.Dataset, _Files] = weakref.WeakKeyDictionary()


def register_files(
    dataset: tf.data.Dataset,
    num_windows: Sequence[int],
    batch_size: int,
    make_part: Callable[[Sequence[int], int], tf.data.Dataset],
) -> None:
    """Tell how a dataset is made of files, so that each worker can read its own.

    Args:
        dataset: A dataset of all files.
        num_windows: Windows of each file.
        batch_size: Windows per batch.
        make_part: Makes a dataset of the files with given positions in `num_windows`, of batches of a given size.
    """
    _files[dataset] = _Files(tuple(num_windows), batch_size, make_part)


def split_evenly(sizes: Sequence[int], num_parts: int) -> list[list[int]]:
    """Divide positions into parts whose sizes add up to about the same, the same way each time.

    Example:
        >>> split_evenly([5, 1, 3, 4], num_parts=2)
        [[0, 1], [2, 3]]
    """
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    for position in sorted(range(len(sizes)), key=lambda position: -sizes[position]):
        min(parts, key=lambda part: sum(sizes[other] for other in part)).append(position)
    return [sorted(part) for part in parts]


def distribute_files(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> tf.distribute.DistributedDataset:
    """Return a dataset of which each worker reads its own files.

    Every window is read once an epoch, by one worker. All workers take equally many steps, as TensorFlow's collective
    operations need: those with fewer windows end with empty batches.

    Args:
        dataset: What `audio_dataset` returned.
        strategy: The strategy that the model was built under.

    Raises:
        ValueError: If there are fewer files than workers, the batch cannot be divided by the number of replicas, or
            the workers have not found the same files.
    """
    files, workers, replicas = _files[dataset], num_workers(strategy), strategy.num_replicas_in_sync
    if len(files.num_windows) < workers:
        raise ValueError(
            f"Data are divided by file, and there are {len(files.num_windows)} files for {workers} workers. Use fewer "
            "workers, or cut the recordings into more files."
        )
    if files.batch_size % replicas:
        raise ValueError(
            f"`batch_size` is that of all replicas together and must be a multiple of their number, {replicas}. "
            f"Received: batch_size={files.batch_size}"
        )
    if not same_everywhere(strategy, files.num_windows):
        raise ValueError(
            "The workers have found different recordings. Give each the same files, with the same settings. Received "
            f"on this worker: {len(files.num_windows)} files of {sum(files.num_windows)} windows"
        )
    batch_size = files.batch_size // replicas
    parts = split_evenly(files.num_windows, workers)
    num_local = replicas // workers
    largest = max(sum(files.num_windows[position] for position in part) for part in parts)
    num_steps = math.ceil(largest / (batch_size * num_local))

    def make(context: tf.distribute.InputContext) -> tf.data.Dataset:
        part = files.make_part(parts[context.input_pipeline_id], batch_size)
        spec = part.element_spec
        empty = tf.data.Dataset.from_tensors(tf.zeros((0, *spec.shape[1:]), spec.dtype))
        whole = part.concatenate(empty.repeat(num_steps * num_local - len(part)))
        # Keras takes the number of batches for that of steps.
        return whole if num_local == 1 else whole.filter(lambda batch: True)

    return strategy.distribute_datasets_from_function(make)


def distribute(
    strategy: tf.distribute.Strategy,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    shuffle: bool = False,
) -> Any:
    """Return data as `fit` and `evaluate` can take them on several workers, in batches of all of them together.

    Datasets of `audio_dataset` are divided by file. Arrays become datasets that all workers shuffle the same way, and
    of each batch of which every worker takes its part; so do other datasets, whose order must be the same on all.
    """
    if isinstance(x, tf.data.Dataset):
        return distribute_files(x, strategy) if x in _files else x
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
