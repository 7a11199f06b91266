"""Callbacks that let a training be heard and seen while it runs: pages to listen on, and logs for TensorBoard."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spectrovae.audio.recordings import WindowPosition
from spectrovae.audio.windows import limited_batches
from spectrovae.checks import check_positive_int
from spectrovae.evaluation.collection import consecutive_windows, encode_collection
from spectrovae.report.page import reconstruction_clips, to_audio, write_page
from spectrovae.storage import PathLike

_MAX_WINDOWS = 256


class ListeningPages(keras.callbacks.Callback):
    """Write a page to listen on every few epochs: `epoch_0005.html`, `epoch_0010.html`, ...

    The same codes are decoded each time, so that the pages show how a sound changes while the model trains.

    Args:
        folder: Where the pages go; made if need be.
        every: Epochs from one page to the next.
        num_samples: Sounds to generate.
        originals: Recordings whose reconstruction is shown beside them: files, for their first window, or positions.
        training: The training dataset that `audio_dataset` returned, or files and folders: each sound is compared with
            them. They are read once more, and encoded anew for each page.
        seed: Integer that decides the codes and the phases.
        cache: Where decoded training recordings are kept, as in `audio_dataset`.

    Raises:
        ValueError: If `every` or `num_samples` is not positive.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from spectrovae import ListeningPages, SpectroVAE
        >>> folder = tempfile.mkdtemp()
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> model.compile()
        >>> pages = ListeningPages(folder, every=2, num_samples=1)
        >>> history = model.fit(np.zeros((4, 32, 32, 1)), epochs=2, callbacks=[pages], verbose=0)
        >>> [path.name for path in Path(folder).iterdir()]
        ['epoch_0002.html']
    """

    writes_files = True  # of several workers only the chief calls it

    def __init__(
        self,
        folder: PathLike,
        every: int = 5,
        num_samples: int = 4,
        originals: Sequence[WindowPosition | PathLike] = (),
        training: Any = None,
        seed: int = 0,
        cache: PathLike = "disk",
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.every = check_positive_int("every", every)
        self.num_samples = check_positive_int("num_samples", num_samples)
        self.originals = originals
        self.training = training
        self.seed = seed
        self.cache = cache
        self._recordings: Any = None
        self._history: dict[str, list[float]] = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Read the training recordings."""
        self._history = {}
        if self.training is not None:
            self._recordings = consecutive_windows(self.training, self.model.converter, cache=self.cache)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the page, if it is time."""
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(float(value))
        if (epoch + 1) % self.every:
            return
        model = self.model
        codes = model.prior.sample(self.num_samples, seed=self.seed).numpy()
        write_page(
            self.folder / f"epoch_{epoch + 1:04d}.html",
            model,
            model.decode(codes, texture="grains", seed=self.seed),
            codes=codes,
            collection=None if self._recordings is None else encode_collection(model, self._recordings),
            reconstructions=reconstruction_clips(model, self.originals, self.seed),
            history=self._history,
            text=f"After epoch {epoch + 1}.",
            seed=self.seed,
        )


class TensorBoardSounds(keras.callbacks.Callback):
    """Log what a model sounds like for TensorBoard, every few epochs.

    It stands beside `keras.callbacks.TensorBoard`, which logs losses and metrics; both may write to the same folder.
    Logged are `generated/sound` and `generated/spectrogram` (low frequencies at the bottom) and, with windows,
    `reconstruction/spectrogram` (originals above their reconstructions), `latent/mean` and
    `latent/standard_deviation` (histograms of the parameters of q(z|x) over all dimensions), `latent/information` (of
    how many nats each dimension tells of a window: near 0 are those not in use), and `components/...`, the share of
    each of the prior's components in the codes.

    Args:
        log_dir: Where the event files go: `tensorboard --logdir` shows them.
        windows: Windows or a dataset of them, such as the validation dataset; the first 256 are used.
        every: Epochs from one log to the next.
        num_samples: Sounds to generate.
        seed: Integer that decides the codes and the phases, the same each time.

    Raises:
        ImportError: If TensorBoard is not installed.
        ValueError: If `every` or `num_samples` is not positive.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from spectrovae import SpectroVAE
        >>> windows = np.zeros((4, 32, 32, 1))
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> model.compile()
        >>> callback = TensorBoardSounds(tempfile.mkdtemp(), windows, num_samples=1)
        >>> history = model.fit(windows, callbacks=[callback], verbose=0)
    """

    writes_files = True

    def __init__(
        self, log_dir: PathLike, windows: Any = None, every: int = 1, num_samples: int = 4, seed: int = 0
    ) -> None:
        super().__init__()
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("TensorBoardSounds needs the package tensorboard: pip install tensorboard")
        self.log_dir = log_dir
        self.windows = windows
        self.every = check_positive_int("every", every)
        self.num_samples = check_positive_int("num_samples", num_samples)
        self.seed = seed
        self._writer: Any = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Open the event file."""
        self._writer = tf.summary.create_file_writer(str(self.log_dir))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Close the event file."""
        self._writer.close()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Log, if it is time. Steps are epochs, counted from 0 as those of `keras.callbacks.TensorBoard`."""
        if (epoch + 1) % self.every:
            return
        with self._writer.as_default(step=epoch):
            self._log_generated()
            if self.windows is not None:
                batches = list(limited_batches(self.windows, num_passes=1, max_windows=_MAX_WINDOWS))
                self._log_latent_space(batches)
                self._log_reconstructions(batches[0])
        self._writer.flush()

    def _log_generated(self) -> None:
        windows = self.model.generate(self.num_samples, seed=self.seed)
        converter = self.model.converter
        sounds = to_audio(converter, windows, self.seed)[..., None]  # (num_samples, samples, 1 channel)
        tf.summary.audio("generated/sound", sounds, converter.sample_rate, max_outputs=self.num_samples, encoding="wav")
        tf.summary.image("generated/spectrogram", _pictures(windows), max_outputs=self.num_samples)

    def _log_reconstructions(self, windows: np.ndarray) -> None:
        originals = windows[: self.num_samples]
        pairs = np.concatenate([_pictures(originals), _pictures(self.model.reconstruct(originals))], axis=1)
        tf.summary.image("reconstruction/spectrogram", pairs, max_outputs=self.num_samples)

    def _log_latent_space(self, batches: list[np.ndarray]) -> None:
        posteriors = [self.model.posterior_of(windows) for windows in batches]
        means = np.concatenate([posterior.mean() for posterior in posteriors])
        shares = np.mean(self.model.prior.responsibilities(means), axis=0)
        means = means.reshape(-1, self.model.latent_dim)  # of all codes along all windows
        deviations = np.concatenate([posterior.stddev() for posterior in posteriors]).reshape(means.shape)
        tf.summary.histogram("latent/mean", means)
        tf.summary.histogram("latent/standard_deviation", deviations)
        aggregate = means.var(axis=0) + np.square(deviations).mean(axis=0)
        # By dimension: the mean KL divergence of q(z|x) from the Gaussian with the moments of all of them together.
        tf.summary.histogram("latent/information", 0.5 * np.log(aggregate) - np.log(deviations).mean(axis=0))
        for component, share in enumerate(shares):
            tf.summary.scalar(f"components/{self.model.component_name(component)}", share)


def _pictures(windows: np.ndarray) -> np.ndarray:
    """Return windows as pictures, uint8 `(num_windows, bins, frames, 3)`, low frequencies at the bottom."""
    from matplotlib import colormaps

    return colormaps["magma"](windows[:, ::-1, :, 0], bytes=True)[..., :3]
