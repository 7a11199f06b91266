"""Training that keeps its files in a folder: called again, it continues where it stopped."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spectrovae.audio.windows import training_part
from spectrovae.storage import (
    PathLike,
    check_archive,
    check_writable,
    remove_leftovers,
    replaced_when_complete,
    system_temporary_folder,
    temporary_folder,
    used_by_one,
)
from spectrovae.training.distributed import DistributedModel, broadcast_bytes, is_chief, num_workers, run_on_chief
from spectrovae.training.optimizer import averaged_weights

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.keras"
"""The model after the last epoch, with the state of its optimizer and the history so far."""

MODEL_FILE = "model.keras"
"""The model after the epoch with the lowest validation loss, or after the last one without validation."""

LOG_FILE = "log.csv"
"""A row for each epoch, for people and spreadsheets; nothing is read back from it."""

_TRAINING_FILE = "training.json"
"""The member of a checkpoint that holds the history."""

_FREE_SETTINGS = {"seed", "warm_start", "component_names"}
"""Settings that may differ between the model that was trained and the one that continues."""

_ADVICE = (
    "Try a lower learning rate or `clipnorm` in the optimizer, or float32 instead of mixed precision, and check that "
    "all windows have values in [0, 1]."
)

History = dict[str, list[float]]
"""For each metric its values by epoch."""

Rows = list[dict[str, float]]
"""For each epoch its number and its metrics."""


def fit_resumably(
    model: DistributedModel,
    folder: PathLike,
    training: Any,
    validation: Any = None,
    epochs: int = 20,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    **kwargs: Any,
) -> History:
    """Train a model, or continue the training that a folder holds.

    Each epoch writes `checkpoint.keras` (to continue from), `model.keras` (the best epoch) and `log.csv` to the folder.
    A file is replaced only when the new one is complete, so that a training may be interrupted at any time: at most the
    epoch that was running is lost. A second call with an equal model and the same folder reads the weights and the
    optimizer's state from there and continues to count epochs; if there have been `epochs` of them, it trains no
    further. With `use_ema=True` in the optimizer, the average of the weights is what is validated and kept in
    `model.keras`. Of several workers only the chief reads and writes the folder. If the folder is removed meanwhile, it
    is made again.

    At the end the model's `finish_training` gets the training data: a `SpectroVAE` fits its prior and texture once
    more, as they are in the best epoch, unless `training` is an iterator, which is used up.

    A loss or a weight that is NaN or infinite stops the training at once: a logged error says what to try, and the
    folder and the model keep the epochs before.

    Args:
        model: A compiled model. It ends with the weights of `model.keras`.
        folder: Created if it does not exist.
        training: Windows to train on, as `SpectroVAE.fit` takes them.
        validation: Held-out windows; their `val_loss` decides which epoch is the best. Without them it is the last.
        epochs: Number of epochs in all, those of earlier calls included.
        callbacks: Further Keras callbacks. Their own state is lost in an interruption.
        verbose: As in `keras.Model.fit`.
        **kwargs: Further arguments of `SpectroVAE.fit`, such as `batch_size` and `steps_per_epoch`.

    Returns:
        For each metric its values by epoch, those of earlier calls included; `plot_history` draws them.

    Raises:
        ValueError: If the model has not been compiled, `epochs` is not positive, or the folder holds a training
            of a model with other settings or a damaged one.
        FloatingPointError: If the first epoch already ends in NaN or infinity.
        OSError: If the folder or the system's temporary folder cannot be written, the disk is full, or another training
            is using the folder (`BlockingIOError`). What was saved before is still there.
        ConnectionError: If another worker has died. What was saved before is still there.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from spectrovae import SpectroVAE
        >>> windows = np.random.default_rng(0).random((8, 32, 32, 1), np.float32)
        >>> folder = tempfile.mkdtemp()
        >>> for epochs in (1, 3):
        ...     model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        ...     model.compile()
        ...     history = fit_resumably(model, folder, windows, epochs=epochs, verbose=0)
        ...     len(history["loss"])
        1
        3
    """
    if not model.compiled:
        raise ValueError("The model must be compiled: call model.compile() first.")
    if epochs < 1:
        raise ValueError(f"`epochs` must be 1 or more. Received: epochs={epochs!r}")
    strategy = model.distribute_strategy
    with contextlib.ExitStack() as opened:
        run_on_chief(strategy, lambda: _open_folder(Path(folder), opened))
        own_folder = Path(folder)
        if not is_chief(strategy):
            # A model holds its metrics, which workers can only save and load together: the others use a temporary one.
            own_folder, remover = temporary_folder()
            opened.enter_context(remover)
        return _fit_in(own_folder, model, training, validation, epochs, callbacks, verbose, kwargs)


def read_history(folder: PathLike) -> History:
    """Return the history of the training in a folder: for each metric its values by epoch.

    Args:
        folder: A folder that `fit_resumably` wrote to. If it is missing or empty, so is the history.

    Raises:
        ValueError: If `checkpoint.keras` in the folder was not written by `fit_resumably`.

    Example:
        >>> read_history("no/such/folder")
        {}
    """
    return _columns(read_rows(Path(folder) / CHECKPOINT_FILE))


def _open_folder(folder: Path, opened: contextlib.ExitStack) -> None:
    """Make the folder if need be, and keep other trainings out of it until `opened` is closed."""
    check_writable(folder)
    system_temporary_folder()  # by way of which Keras saves
    opened.enter_context(used_by_one(folder, "training"))


def _fit_in(
    folder: Path,
    model: DistributedModel,
    training: Any,
    validation: Any,
    epochs: int,
    callbacks: Iterable[keras.callbacks.Callback],
    verbose: int | str,
    kwargs: dict[str, Any],
) -> History:
    strategy = model.distribute_strategy
    remove_leftovers(folder)
    if num_workers(strategy) > 1:
        for name in (CHECKPOINT_FILE, MODEL_FILE):
            _copy_of_chief(strategy, folder / name)
    rows = read_rows(folder / CHECKPOINT_FILE)
    read_rows(folder / MODEL_FILE)  # a file of something else is told of before the first step
    keeper = _Keeper(folder, rows)
    if rows:
        restore_checkpoint(model, folder / CHECKPOINT_FILE)
        keeper.set_model(model)
        keeper.save_best()  # in case the program was killed between the two files
        outlook = "continuing" if len(rows) < epochs else "nothing is left to train unless `epochs` is raised"
        logger.info("%d of %d epochs in %s are done: %s.", len(rows), epochs, folder, outlook)
    if len(rows) < epochs:
        fit_arguments = {"validation_data": validation, "epochs": epochs, "initial_epoch": len(rows)} | kwargs
        try:
            model.fit(training, callbacks=[*callbacks, keeper], verbose=verbose, **fit_arguments)
        except _NotFiniteError as error:
            if not rows:
                raise FloatingPointError(f"{error} {_ADVICE}") from None
            logger.error("%s %s keeps the %d epochs before. %s", error, folder, len(rows), _ADVICE)
    _load_weights(model, folder / MODEL_FILE)
    best = _read_training(folder / MODEL_FILE)
    if not best.get("is_finished") and model.finish_training(
        training_part(training, kwargs.get("validation_split", 0))
    ):
        save_checkpoint(model, folder / MODEL_FILE, best["epochs"], is_finished=True)
    return _columns(rows)


def _copy_of_chief(strategy: tf.distribute.Strategy, path: Path) -> None:
    """Give the other workers the chief's file, if it has one, under their own paths."""
    exists = run_on_chief(strategy, path.exists)
    if exists:
        content = broadcast_bytes(strategy, path.read_bytes() if is_chief(strategy) else b"")
        if not is_chief(strategy):
            path.write_bytes(content)


class _Keeper(keras.callbacks.Callback):
    """Write the files of a folder after each epoch, and add the epoch's row to `rows`."""

    saves_training = True

    def __init__(self, folder: Path, rows: Rows) -> None:
        super().__init__()
        self.folder = folder
        self.rows = rows

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._check({"loss": (logs or {}).get("loss", 0)}, len(self.rows) + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()}
        # The last step of an epoch may leave NaN in weights that no loss was computed with yet.
        self._check({name: row.get(name, 0) for name in ("loss", "val_loss")}, epoch + 1)
        self._check({weight.path: weight for weight in self.model.trainable_variables}, epoch + 1)
        self.rows.append(row)
        try:
            self._write_files()
        except FileNotFoundError:
            logger.warning("%s was removed: making it again.", self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_files()

    def _write_files(self) -> None:
        save_checkpoint(self.model, self.folder / CHECKPOINT_FILE, self.rows)
        self.save_best()
        log = self.folder / LOG_FILE
        with replaced_when_complete(log) as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["epoch", *_columns(self.rows)])
            writer.writeheader()
            writer.writerows(self.rows)

    def save_best(self) -> None:
        """Write the model file, unless it already holds this epoch or a better one."""
        best = self.folder / MODEL_FILE
        kept = read_rows(best)
        if kept == self.rows:
            return
        kept_loss = kept[-1].get("val_loss", np.inf) if kept else np.inf
        # Without validation each epoch is the best; where it is rarer than epochs, those without it never are.
        loss = self.rows[-1].get("val_loss", np.inf)
        if loss <= kept_loss:
            with averaged_weights(self.model):
                save_checkpoint(self.model, best, self.rows)

    def _check(self, numbers: Mapping[str, Any], epoch: int) -> None:
        for name, value in numbers.items():
            if not np.isfinite(np.asarray(value, np.float32)).all():
                raise _NotFiniteError(f"{name} became NaN or infinite in epoch {epoch}.")


class _NotFiniteError(Exception):
    """The message says what became NaN or infinite, and when."""


def save_checkpoint(model: keras.Model, path: Path, rows: Rows, is_finished: bool = False) -> None:
    """Write a compiled model and its history; the old file stays until the new one is complete.

    The file is one that `keras.saving.load_model` loads as well.
    """
    # The history is kept inside the file, so that the two can't disagree; Keras ignores members that it does not know.
    # So are the states of seed generators, which Keras does not save.
    with replaced_when_complete(path) as part:
        model.save(part)
        with zipfile.ZipFile(part, "a") as archive:
            seed_states = [state.numpy().tolist() for state in _seed_states(model)]
            training = {"epochs": rows, "seed_states": seed_states, "is_finished": is_finished}
            archive.writestr(_TRAINING_FILE, json.dumps(training))


def read_rows(path: Path) -> Rows:
    """Return the history in a checkpoint; if there is no such file, an empty one.

    Raises:
        ValueError: If the file is damaged, or `save_checkpoint` did not write it.

    Example:
        >>> read_rows(Path("no/such/file.keras"))
        []
    """
    return _read_training(path)["epochs"] if path.exists() else []


def restore_checkpoint(model: keras.Model, checkpoint: Path) -> None:
    """Load weights, seeds and the optimizer's state into an equal model, which keeps its own learning rate."""
    saved = _flatten(json.loads(_read_member(checkpoint, "config.json"))["config"])
    given = _flatten(json.loads(json.dumps(keras.saving.serialize_keras_object(model)))["config"])
    different = [name for name in saved | given if saved.get(name) != given.get(name) and name not in _FREE_SETTINGS]
    if different:
        details = ", ".join(f"{name}={given.get(name)!r}, not {saved.get(name)!r}" for name in different)
        raise ValueError(
            f"The training in {checkpoint.parent} is of a model with other settings. Give the same ones, or use "
            f"another folder. Received: {details}"
        )
    _load_weights(model, checkpoint)
    saved_states = _read_training(checkpoint)["seed_states"]
    for state, value in zip(_seed_states(model), saved_states, strict=True):
        state.assign(value)


def _load_weights(model: keras.Model, path: Path) -> None:
    """Load weights and the optimizer's state, except for the learning rate."""
    learning_rate = model.optimizer.get_config()["learning_rate"]
    check_archive(path)
    model.load_weights(path)
    if isinstance(learning_rate, float):  # not a schedule
        model.optimizer.learning_rate = learning_rate


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names, without layer names, in which Keras counts."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, prefix if name == "config" else f"{prefix}{name}.")
        elif not (name == "name" and "trainable" in config):
            flat[prefix + name] = value
    return flat


def _seed_states(model: keras.Model) -> list[keras.Variable]:
    """Return the states of all seed generators, those of dropout and the like included."""
    return [variable for variable in model.variables if variable.path.endswith("seed_generator_state")]


def _read_training(path: Path) -> dict[str, Any]:
    return json.loads(_read_member(path, _TRAINING_FILE))


def _read_member(path: Path, name: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            if name not in archive.namelist():
                raise ValueError(f"{path} is not a checkpoint of fit_resumably. Use another folder.")
            return archive.read(name).decode()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged ({error}). Remove it to begin anew, or use another folder.") from error


def _columns(rows: Rows) -> History:
    names = dict.fromkeys(name for row in rows for name in row if name != "epoch")
    return {name: [row[name] for row in rows if name in row] for name in names}
