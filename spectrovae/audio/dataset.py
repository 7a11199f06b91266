"""Folders of recordings as `tf.data.Dataset`s of spectrogram windows."""

from __future__ import annotations

import dataclasses
import math
import os
import weakref
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from spectrovae.audio.recordings import Recordings, RecordingsReport
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.checks import check_positive_int, check_seed
from spectrovae.storage import PathLike

_NUM_READERS = min(4, os.cpu_count() or 1)
"""How many batches are read at once. One reader is faster than training; each holds a batch in memory."""


@dataclasses.dataclass(frozen=True)
class DatasetRecord:
    """All that is known of a dataset that `audio_dataset` returned.

    Attributes:
        recordings: The decoded recordings, of the other side of a split as well.
        report: The files of this dataset; see `dataset_report`.
        batch_size: Windows per batch.
        is_consecutive: Whether window `i` comes from `report.windows[i]`.
        make_part: Makes a dataset like this one of some files only, given by their positions in `report.used`, in
            batches of another size.
    """

    recordings: Recordings
    report: RecordingsReport
    batch_size: int
    is_consecutive: bool
    make_part: Callable[[Sequence[int], int], tf.data.Dataset]


_records: weakref.WeakKeyDictionary[tf.data.Dataset, DatasetRecord] = weakref.WeakKeyDictionary()


def record_of(dataset: object) -> DatasetRecord | None:
    """Return what is known of a dataset that `audio_dataset` returned; None for anything else."""
    return _records.get(dataset) if isinstance(dataset, tf.data.Dataset) else None


def audio_dataset(
    path_or_paths: PathLike | Iterable[PathLike],
    converter: SpectrogramConverter | None = None,
    batch_size: int = 16,
    validation_split: float = 0.0,
    random_offset: bool = True,
    shuffle: bool = True,
    seed: int | None = None,
    cache: PathLike = "disk",
    loop_short_files: bool = False,
    verbose: int = 1,
    normalize: str | None = None,
) -> tf.data.Dataset | tuple[tf.data.Dataset, tf.data.Dataset]:
    """Make a dataset of spectrogram windows from audio files, for `model.fit`.

    Every file is decoded once, with a progress bar; windows are then streamed from the cache, so that a
    larger collection needs no more memory. Files that are unreadable, empty, silent or shorter than a window
    are left out, and one logged warning says which and why; it also names the used files that are odd: damaged, with a
    wrong header, with channels that cancel, beyond full scale, or hardly above the floor. Programs ask
    `dataset_report`.

    The channels of a file are mixed to mono by one rule, whatever its format: their mean, without channels that have no
    signal (40 dB below the loudest); where they cancel (their mean has less than half of the power of independent
    channels: for two, 6 dB below their mean power), the strongest one alone. A constant offset is removed. Files are
    read to the end of what decodes, whatever their header says. Where the format tells how many samples its encoder
    added, they are cut off (MP3 with a LAME header, Ogg, Opus; of M4A at the beginning, while its end may be 25 ms
    late); AAC, AC-3 and WMA without such a note begin up to 50 ms late or early.

    A file of `n` windows and a bit gives `n` windows an epoch. With random offsets they start anywhere, anew
    each epoch, each in its own `n`-th of the file, so that all of it is seen evenly; else they are the first
    `n` consecutive ones.

    Args:
        path_or_paths: A file, a folder (searched with its sub-folders), or any number of both. All formats of
            libsndfile (WAV, FLAC, OGG, MP3 …), and with the program `ffmpeg` also M4A, AAC, WMA …; mixed to
            mono and resampled.
        converter: The `SpectrogramConverter`; `None`: one with the default settings.
        batch_size: Windows per batch; the last batch of an epoch may be smaller.
        validation_split: Share of the windows, in [0, 1), that is put aside for validation. Whole files are
            put aside, never parts of one, and at least one on each side. Validation windows are consecutive
            and in order.
        random_offset: Whether training windows start at random offsets.
        shuffle: Whether training windows are shuffled, anew each epoch, over the whole collection.
        seed: Makes epochs and split repeat. `None`: epochs differ from run to run, but the split is that of
            seed 0, so that a later run does not train on what an earlier one validated on.
        cache: `"disk"`: a temporary folder (in `tempfile.gettempdir()`; an hour of sound takes 317 MB with
            the default converter), removed at the end of the program. `"memory"`. Or the path of a folder
            that is kept and used again by the next run.
        loop_short_files: Repeats files shorter than a window until they fill one, instead of leaving them
            out.
        verbose: 1 for the progress bar, 0 for none.
        normalize: `"file"` brings all files to one loudness, -20 dB (root mean square of the file, 0 dB being full
            scale), but none beyond a peak of full scale: for field recordings that were made too quietly, and for
            floating-point files beyond full scale. The gain of each is in `dataset_report(dataset).used`. `None`: as
            they are.

    Returns:
        Dataset of float32 batches `(batch,) + converter.window_shape` with values in [0, 1] and a known
        length; with `validation_split`, the pair (training, validation).

    Raises:
        FileNotFoundError: If a given path does not exist.
        ValueError: If no file can be used, if there are fewer than two for a split, or if an argument is
            outside its range.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from spectrovae.audio.io import write_audio
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=64, num_frames=64)
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("a.wav", "b.wav"):
        ...         write_audio(f"{folder}/{name}", 0.5 * np.sin(np.arange(20000)), sample_rate=8000)
        ...     train, validation = audio_dataset(
        ...         folder, converter, batch_size=3, validation_split=0.5, verbose=0
        ...     )
        >>> [batch.shape.as_list() for batch in train]
        [[3, 64, 64, 1], [1, 64, 64, 1]]
        >>> len(train), dataset_report(train).num_windows
        (2, 4)
    """
    check_positive_int("batch_size", batch_size)
    if not 0 <= validation_split < 1:
        raise ValueError(f"`validation_split` must be in [0, 1). Received: validation_split={validation_split}")
    check_seed("seed", seed)
    converter = SpectrogramConverter() if converter is None else converter
    recordings = Recordings(path_or_paths, converter, cache, loop_short_files, verbose, normalize)
    num_files = len(recordings.report.used)
    if not validation_split:
        return _windows(recordings, range(num_files), batch_size, random_offset, shuffle, seed)
    if num_files < 2:
        raise ValueError(
            "`validation_split` needs at least two files that can be used, since no file may be on both sides: "
            f"add files, or use validation_split=0. Received: validation_split={validation_split}. "
            f"{recordings.report}"
        )
    validation = _choose_validation_files(recordings.report, validation_split, seed or 0)
    training = [index for index in range(num_files) if index not in validation]
    return (
        _windows(recordings, training, batch_size, random_offset, shuffle, seed),
        _windows(recordings, validation, batch_size, random_offset=False, shuffle=False, seed=seed),
    )


def dataset_report(dataset: tf.data.Dataset) -> RecordingsReport:
    """Return what became of the files of a dataset, for programs.

    `used` are the files of this dataset (the training or the validation files, if they were split),
    `left_out` all that were left out. Window `i` of a validation dataset comes from `report.windows[i]`.

    Args:
        dataset: A dataset as `audio_dataset` returned it, before `take`, `map` and the like.

    Raises:
        ValueError: If `audio_dataset` did not return it.

    Example:
        >>> dataset_report(tf.data.Dataset.range(3))
        Traceback (most recent call last):
        ...
        ValueError: `dataset` must be one that audio_dataset returned, before take, map and the like. ...
    """
    record = record_of(dataset)
    if record is None:
        raise ValueError(
            "`dataset` must be one that audio_dataset returned, before take, map and the like. "
            f"Received: dataset={dataset}"
        )
    return record.report


def _choose_validation_files(report: RecordingsReport, validation_split: float, seed: int) -> list[int]:
    """Random files with about the wanted share of the windows; at least one, and not all."""
    num_windows = np.array([recording.num_windows for recording in report.used])
    wanted = validation_split * num_windows.sum()
    generator = np.random.default_rng(seed)
    best: list[int] = []
    best_total = 0
    # A collection of few files needs more than one try to come near the share.
    for _ in range(16):
        chosen, total = [], 0
        for index in generator.permutation(len(num_windows))[:-1].tolist():
            if abs(total + num_windows[index] - wanted) < abs(total - wanted):
                chosen.append(index)
                total += num_windows[index]
        if abs(total - wanted) < abs(best_total - wanted):
            best, best_total = chosen, total
    # Every file may be too long for a small share: then the shortest comes nearest.
    return sorted(best) or [int(num_windows.argmin())]


def _windows(
    recordings: Recordings,
    files: Iterable[int],
    batch_size: int,
    random_offset: bool,
    shuffle: bool,
    seed: int | None,
) -> tf.data.Dataset:
    """Dataset of the windows of some of the files."""
    converter, report = recordings.converter, recordings.report
    used = [(index, report.used[index]) for index in files]
    file_of_window = np.repeat([index for index, _ in used], [recording.num_windows for _, recording in used])
    rank_in_file = np.concatenate([np.arange(recording.num_windows) for _, recording in used])

    def read(windows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        batch = np.empty((len(windows), *converter.window_shape), np.float32)
        for spectrogram, window, draw in zip(batch, windows, draws, strict=True):
            index, start = file_of_window[window], rank_in_file[window] * converter.num_frames
            if random_offset:
                recording = report.used[index]
                num_starts = recording.num_frames - converter.num_frames + 1
                start = math.floor((rank_in_file[window] + draw / 2**32) * num_starts / recording.num_windows)
            # The cache has time first. Converting in its order, not the window's, is faster.
            np.copyto(spectrogram[..., 0].T, recordings.frames(index, start, converter.num_frames))
        return batch

    def read_batch(windows: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        batch = tf.numpy_function(read, (windows, draws), tf.float32)
        batch.set_shape((None, *converter.window_shape))
        return batch

    windows = tf.data.Dataset.range(len(file_of_window))
    if shuffle:
        windows = windows.shuffle(len(file_of_window), seed=seed, reshuffle_each_iteration=True)
    # Integers that are uniform below 2 ** 32, new ones each epoch.
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    dataset = tf.data.Dataset.zip(windows, draws).batch(batch_size)
    dataset = dataset.map(read_batch, num_parallel_calls=_NUM_READERS, deterministic=True).prefetch(2)
    # With the autotuner an epoch may wait up to two seconds for the end of the one before.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)

    def make_part(positions: Sequence[int], batch_size: int) -> tf.data.Dataset:
        chosen = [used[position][0] for position in positions]
        return _windows(recordings, chosen, batch_size, random_offset, shuffle, seed)

    own_report = dataclasses.replace(report, used=tuple(recording for _, recording in used))
    _records[dataset] = DatasetRecord(
        recordings, own_report, batch_size, is_consecutive=not (random_offset or shuffle), make_part=make_part
    )
    return dataset
