"""A collection of recordings as codes: what is similar, and which styles there are."""

from __future__ import annotations

import csv
import dataclasses
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from spectrovae.audio.dataset import audio_dataset, dataset_report, record_of
from spectrovae.audio.recordings import WindowPosition, printable
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.audio.windows import iterate_batches
from spectrovae.checks import check_positive_int
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.storage import PathLike, replaced_when_complete


@dataclasses.dataclass(frozen=True)
class EncodedCollection:
    """The consecutive windows of some recordings as codes, with the place of each.

    Attributes:
        codes: Means of q(z|x), float32 `(num_windows, latent_dim)`, or `(num_windows, latent_steps, latent_dim)` where
            there are several codes along a window.
        positions: File and second of each window.
        scales: Standard deviations of q(z|x), their squares averaged over the windows, `(latent_dim,)`: the unit in
            which codes are compared. Of several codes along a window, that of their mean.
    """

    codes: np.ndarray
    positions: tuple[WindowPosition, ...]
    scales: np.ndarray

    @property
    def spread(self) -> float:
        """Root mean square of the distances between two windows of the collection; NaN if there is only one."""
        if len(self.codes) < 2:
            return math.nan
        return float(np.sqrt(2 * np.mean(np.var(_over_time(self.codes) / self.scales, axis=0, ddof=1))))

    def without(self, path: PathLike) -> EncodedCollection:
        """Return the collection without the windows of one file."""
        own = os.path.realpath(path)
        kept = [k for k, position in enumerate(self.positions) if os.path.realpath(position.path) != own]
        return EncodedCollection(self.codes[kept], tuple(self.positions[k] for k in kept), self.scales)

    def distances(self, codes: np.ndarray) -> np.ndarray:
        """Return how far codes are from those of the collection, `(num_codes, num_windows)`; see `find_similar`."""
        # |a - b|^2 = |a|^2 - 2 a.b + |b|^2, since all differences at once would not fit into memory.
        first, second = (_over_time(each).astype(np.float64) / self.scales for each in (codes, self.codes))
        squares = np.square(first).sum(axis=1)[:, None] - 2 * first @ second.T + np.square(second).sum(axis=1)
        return np.sqrt(np.maximum(squares, 0) / len(self.scales))


@dataclasses.dataclass(frozen=True)
class SimilarWindow:
    """A window of a collection that is like a given one.

    Attributes:
        position: Its file, and the second that it starts at.
        distance: How far its code is from that of the given window; see `find_similar`.
        index: Which of the given windows it is like, 0 being the first.
    """

    position: WindowPosition
    distance: float
    index: int


def consecutive_windows(
    recordings: PathLike | Iterable[PathLike] | tf.data.Dataset,
    converter: SpectrogramConverter,
    batch_size: int = 32,
    cache: PathLike = "disk",
    verbose: int = 0,
) -> tf.data.Dataset:
    """Return the windows of recordings one after another, so that the place of each is known.

    Args:
        recordings: Files and folders, or a dataset as `audio_dataset` returned it, shuffled or not: its files are
            then read once more.
        converter: Makes the windows.
        batch_size: Windows per batch.
        cache: Where decoded recordings are kept, as in `audio_dataset`: with the folder that a dataset has used they
            need not be decoded again.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        A dataset of batches; window `i` comes from `dataset_report(dataset).windows[i]`.

    Raises:
        FileNotFoundError: If a given path does not exist.
        ValueError: If no file can be used, or a dataset is not one of `audio_dataset`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from spectrovae import SpectrogramConverter, compose_collection, consecutive_windows, dataset_report
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=64, num_frames=100)
        >>> with TemporaryDirectory() as folder:
        ...     _ = compose_collection(folder, num_pieces=1, duration=2.0, sample_rate=8000)
        ...     windows = consecutive_windows(folder, converter)
        >>> [position.start for position in dataset_report(windows).windows]
        [0.0, 0.8]
    """
    loop_short_files, normalize = False, None
    if isinstance(recordings, tf.data.Dataset):
        report, record = dataset_report(recordings), record_of(recordings)
        if record is not None:
            loop_short_files, normalize = record.recordings.loop_short_files, record.recordings.normalize
        recordings = [recording.path for recording in report.used]
    return audio_dataset(
        recordings,
        converter,
        batch_size,
        random_offset=False,
        shuffle=False,
        cache=cache,
        loop_short_files=loop_short_files,
        normalize=normalize,
        verbose=verbose,
    )


def encode_collection(model: SpectroVAE, recordings: Any, batch_size: int = 32) -> EncodedCollection:
    """Return the codes of recordings, and where each is from.

    Args:
        model: A trained model.
        recordings: What `consecutive_windows` returned, or what it takes.
        batch_size: Windows at once.

    Raises:
        FileNotFoundError: If a given path does not exist.
        ValueError: If no file can be used, or a dataset is not one of `audio_dataset`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from spectrovae import SpectroVAE, SpectrogramConverter, compose_collection, encode_collection
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
        >>> model = SpectroVAE((32, 32, 1), 2, 2, decoder_depth=2, width=8, converter=converter, seed=0)
        >>> with TemporaryDirectory() as folder:
        ...     _ = compose_collection(folder, num_pieces=1, duration=0.256, sample_rate=8000)
        ...     collection = encode_collection(model, folder)
        >>> collection.codes.shape
        (4, 2)
    """
    record = record_of(recordings)
    if record is None or not record.is_consecutive:
        recordings = consecutive_windows(recordings, model.converter, batch_size)
    codes, variances = [], []
    for windows in iterate_batches(recordings, batch_size):
        posterior = model.posterior_of(windows)
        codes.append(posterior.mean().numpy())
        variances.append(posterior.variance().numpy())
    # The codes along a window are independent given the window.
    scales = np.sqrt(_over_time(np.concatenate(variances)).mean(axis=0) / model.latent_steps)
    return EncodedCollection(np.concatenate(codes), tuple(dataset_report(recordings).windows), scales)


def find_similar(model: SpectroVAE, x: Any, collection: EncodedCollection, num: int = 5) -> list[SimilarWindow]:
    """Return the windows of a collection that are most like given ones, such as those of a recording.

    The distance is the root mean square, over the latent dimensions, of the difference between two codes in standard
    deviations of the posterior. What the model finds hard to tell counts little, so that near codes decode to near
    spectrograms. 0 is the same code; below 1.4, the difference between two draws from one posterior, the model takes
    the two for the same sound; `collection.spread` is how far apart any two of the collection are.

    Of several codes along a window their mean is compared: a note that falls a little later in one window than in the
    other makes hardly a difference, and neither does the order of notes.

    Args:
        model: The model that encoded the collection.
        x: Windows of shape `(num_windows, bins, frames, 1)`, a dataset of batches of them, or codes of the shape
            that `model.encode` returns.
        collection: What `encode_collection` returned.
        num: How many to return; fewer where the collection has fewer.

    Returns:
        The nearest first, each compared with that of the given windows that it is nearest to.

    Raises:
        ValueError: If `x` is neither windows nor codes, or `num` is not positive.

    Example:
        >>> import numpy as np
        >>> from spectrovae import SpectroVAE, find_similar
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> windows = np.random.default_rng(0).random((3, 32, 32, 1), np.float32)
        >>> positions = tuple(WindowPosition(Path("song.wav"), start) for start in (0.0, 0.7, 1.4))
        >>> collection = EncodedCollection(model.encode(windows), positions, scales=np.ones(2))
        >>> (nearest,) = find_similar(model, windows[1:2], collection, num=1)
        >>> nearest.position.start
        0.7
    """
    check_positive_int("num", num)
    is_code = getattr(x, "shape", ())[1:] == model.code_shape
    distances = collection.distances(x if is_code else model.encode(x))  # (num_given, num_windows)
    indices, nearest = distances.argmin(axis=0), distances.min(axis=0)
    order = np.argsort(nearest, kind="stable")[:num]
    return [SimilarWindow(collection.positions[k], float(nearest[k]), int(indices[k])) for k in order]


def _over_time(codes: np.ndarray) -> np.ndarray:
    """Return the mean of the codes along each window, `(num_windows, latent_dim)`."""
    codes = np.asarray(codes)
    return codes if codes.ndim == 2 else codes.mean(axis=1)


@dataclasses.dataclass(frozen=True)
class Styles:
    """The components of a model's prior, as a collection of recordings shows them; `str` gives a table for people.

    Attributes:
        names: What the components are called, `num_components` of them.
        paths: The files, in order.
        num_windows: Windows of each file.
        shares: Share of each component in the windows of each file, `(num_files, num_components)`: the mean of their
            responsibilities. Each row sums to 1.
        typical: For each component the window of the collection whose code is densest under it, among those that are
            more its own than any other component's; None for a component that has none.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    num_windows: np.ndarray
    shares: np.ndarray
    typical: tuple[WindowPosition | None, ...]

    @property
    def total_shares(self) -> np.ndarray:
        """Share of each component in all windows, `(num_components,)`."""
        return self.num_windows @ self.shares / self.num_windows.sum()

    def write_csv(self, path: PathLike) -> None:
        """Write the table for spreadsheets and programs: a row for each file, a column for each component.

        Args:
            path: The file; its folder must exist.

        Raises:
            OSError: If it cannot be written.
        """
        header = ["file", "windows", *self.names]
        # Names of files may be bytes that are no text.
        with (
            replaced_when_complete(Path(path)) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(header)
            for name, number, shares in zip(self.paths, self.num_windows, self.shares, strict=True):
                writer.writerow([name, number, *(f"{share:.4f}" for share in shares)])

    def __repr__(self) -> str:
        rows = [*zip(map(printable, self.paths), self.num_windows, self.shares, strict=True)]
        rows.append(("all", self.num_windows.sum(), self.total_shares))
        widths = [max(7, len(name)) for name in self.names]
        columns = "  ".join(f"{printable(name):>{width}}" for name, width in zip(self.names, widths, strict=True))
        lines = [f"windows  {columns}  file"]
        for path, number, shares in rows:
            percents = (f"{100 * share:.0f} %".rjust(width) for share, width in zip(shares, widths, strict=True))
            lines.append(f"{number:7d}  {'  '.join(percents)}  {path}")
        return "\n".join(lines)


def find_styles(model: SpectroVAE, collection: EncodedCollection) -> Styles:
    """Tell which recordings belong to which component of the prior.

    Args:
        model: A trained model; `model.component_names` names the components.
        collection: What `encode_collection` returned for it. The responsibilities are those of the mean codes.

    Example:
        >>> model = SpectroVAE((32, 32, 1), 2, 2, decoder_depth=2, width=8, component_names=["low", "high"], seed=0)
        >>> model.prior.assign_mixture(np.array([[-3, 0], [3, 0]]), np.ones((2, 2)))
        >>> positions = [WindowPosition(Path(name), 0.0) for name in ("a.wav", "a.wav", "b.wav", "b.wav")]
        >>> codes = np.array([[-3, 0], [-2, 0], [-4, 0], [3, 1]], np.float32)
        >>> print(find_styles(model, EncodedCollection(codes, tuple(positions), np.ones(2))))
        windows      low     high  file
              2    100 %      0 %  a.wav
              2     50 %     50 %  b.wav
              4     75 %     25 %  all
    """
    shares = np.asarray(model.prior.responsibilities(collection.codes), np.float64)  # (num_windows, num_components)
    log_probs = np.asarray(model.prior.log_prob(collection.codes))
    indices: dict[Path, int] = {}
    files = np.array([indices.setdefault(position.path, len(indices)) for position in collection.positions])
    paths = tuple(indices)
    num_windows = np.bincount(files)
    sums = np.stack([np.bincount(files, weights) for weights in shares.T], axis=1)
    owner = shares.argmax(axis=1)
    typical: list[WindowPosition | None] = []
    for component in range(model.num_components):
        own = np.flatnonzero(owner == component)
        # By the rule of Bayes this is the density under the component, but for what is the same for all windows.
        densities = np.log(shares[own, component]) + log_probs[own]
        best = own[densities.argmax()] if len(own) else None
        typical.append(None if best is None else collection.positions[best])
    names = tuple(model.component_name(component) for component in range(model.num_components))
    return Styles(names, paths, num_windows, sums / num_windows[:, None], tuple(typical))


def typical_windows(model: SpectroVAE) -> np.ndarray:
    """Return the window in the middle of each component, without texture, `(num_components, bins, frames, 1)`.

    It is `model.generate(1, component, temperature=0, texture=0)` for each of them; where there are several codes along
    a window, the mean code of the component, held.

    Args:
        model: A trained model.

    Example:
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=3, decoder_depth=2, width=8, seed=0)
        >>> typical_windows(model).shape
        (3, 32, 32, 1)
    """
    means = model.prior.means.numpy()
    return model.decode(means if model.latent_steps == 1 else means[:, None].repeat(model.latent_steps, axis=1))
