"""Training that lives in a folder: started again, it goes on where it stopped."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras

from spectrovae.audio import PathLike
from spectrovae.model import SpectroVAE

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.keras"
"""The model after the last epoch, with the state of its optimizer and the history so far."""

MODEL_FILE = "model.keras"
"""The model after the epoch with the lowest validation loss, or after the last one where nothing is held out."""

LOG_FILE = "log.csv"
"""A row for each epoch, for people and spreadsheets; nothing is read back from it."""

_TRAINING_FILE = "training.json"
# What may differ between the model that trained and the one that goes on.
_FREE_SETTINGS = {"seed", "warm_start"}

History = dict[str, list[float]]


def fit_resumably(
    model: SpectroVAE,
    folder: PathLike,
    training: Any,
    validation: Any = None,
    epochs: int = 20,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    **kwargs: Any,
) -> History:
    """Train a model, or go on with the training that a folder holds.

    After each epoch the folder gets `checkpoint.keras` (to go on from), `model.keras` (the best epoch) and
    `log.csv`. Each file is replaced when the new one is complete, so that a training may be interrupted at any
    time: at most the epoch that was running is lost. Called again with an equal model and the same folder, the
    weights and the optimizer's state are read from there, and epochs count on; a training that has had its
    `epochs` is not trained further. An optimizer with `use_ema=True` is validated and saved with its average.

    Args:
        model: A compiled model. It ends with the weights of the best epoch, those of `model.keras`.
        folder: Made if need be.
        training: Windows to train on, as `SpectroVAE.fit` takes them.
        validation: Held-out windows; their `val_loss` decides which epoch is the best. Without them it is the last.
        epochs: Number of epochs in all, those of earlier calls included.
        callbacks: Further Keras callbacks. What they remember does not outlive an interruption.
        verbose: As in `keras.Model.fit`.
        **kwargs: Further arguments of `SpectroVAE.fit`, such as `batch_size` and `steps_per_epoch`.

    Returns:
        For each metric its values by epoch, those of earlier calls included: `plot_history` draws them.

    Raises:
        ValueError: If the model has not been compiled, `epochs` is not positive, or the folder holds a training
            of a model with other settings.

    Example:
        >>> import tempfile
        >>> import numpy as np
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
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = _read_rows(folder / CHECKPOINT_FILE)
    if rows:
        _restore(model, folder / CHECKPOINT_FILE)
        outlook = "going on" if len(rows) < epochs else "nothing is left to train unless `epochs` is raised"
        logger.info("%d of %d epochs in %s are done: %s.", len(rows), epochs, folder, outlook)
    if len(rows) < epochs:
        model.fit(
            training,
            validation_data=validation,
            epochs=epochs,
            initial_epoch=len(rows),
            callbacks=[*callbacks, _Keeper(folder, rows)],
            verbose=verbose,
            **kwargs,
        )
    model.load_weights(folder / MODEL_FILE)
    return _columns(rows)


def read_history(folder: PathLike) -> History:
    """Return the history of the training in a folder: for each metric its values by epoch.

    Args:
        folder: A folder that `fit_resumably` wrote to. Of a missing or an empty one the history is empty.

    Raises:
        ValueError: If `checkpoint.keras` in the folder was not written by `fit_resumably`.

    Example:
        >>> read_history("no/such/folder")
        {}
    """
    return _columns(_read_rows(Path(folder) / CHECKPOINT_FILE))


class _Keeper(keras.callbacks.Callback):
    """Writes the files of a folder after each epoch, and adds a row for the epoch to `rows`."""

    def __init__(self, folder: Path, rows: list[dict[str, float]]) -> None:
        super().__init__()
        self.folder = folder
        self.rows = rows

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.rows.append({"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()})
        _save(self.model, self.folder / CHECKPOINT_FILE, self.rows)
        best = self.folder / MODEL_FILE
        losses = [row["val_loss"] for row in self.rows if "val_loss" in row]
        if not losses or losses[-1] <= min(losses) or not best.exists():
            with _averaged_weights(self.model):
                _save(self.model, best, self.rows)
        part = self.folder / f".{LOG_FILE}"
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["epoch", *_columns(self.rows)])
            writer.writeheader()
            writer.writerows(self.rows)
        part.replace(self.folder / LOG_FILE)


def _columns(rows: list[dict[str, float]]) -> History:
    names = dict.fromkeys(name for row in rows for name in row if name != "epoch")
    return {name: [row[name] for row in rows if name in row] for name in names}


def _read_rows(checkpoint: Path) -> list[dict[str, float]]:
    return json.loads(_read_member(checkpoint, _TRAINING_FILE))["epochs"] if checkpoint.exists() else []


def _save(model: SpectroVAE, path: Path, rows: list[dict[str, float]]) -> None:
    # The history travels inside the file, so that the two can't disagree; Keras passes over what it does not know.
    # Nor does Keras save the state of seed generators.
    part = path.with_name(f".{path.name}")
    model.save(part)
    with zipfile.ZipFile(part, "a") as archive:
        seed_states = [state.numpy().tolist() for state in _seed_states(model)]
        archive.writestr(_TRAINING_FILE, json.dumps({"epochs": rows, "seed_states": seed_states}))
    part.replace(path)


def _seed_states(model: SpectroVAE) -> list[keras.Variable]:
    """Return the states of all seed generators, those of dropout and the like included."""
    return [variable for variable in model.variables if variable.path.endswith("seed_generator_state")]


def _read_member(path: Path, name: str) -> str:
    with zipfile.ZipFile(path) as archive:
        if name not in archive.namelist():
            raise ValueError(f"{path} is not a checkpoint of fit_resumably. Use another folder.")
        return archive.read(name).decode()


def _restore(model: SpectroVAE, checkpoint: Path) -> None:
    """Load weights and the optimizer's state; the learning rate stays that of the model."""
    saved = _flatten(json.loads(_read_member(checkpoint, "config.json"))["config"])
    given = _flatten(json.loads(json.dumps(keras.saving.serialize_keras_object(model)))["config"])
    different = [name for name in saved | given if saved.get(name) != given.get(name) and name not in _FREE_SETTINGS]
    if different:
        details = ", ".join(f"{name}={given.get(name)!r}, not {saved.get(name)!r}" for name in different)
        raise ValueError(
            f"The training in {checkpoint.parent} is of a model with other settings. Give the same ones, or use "
            f"another folder. Received: {details}"
        )
    learning_rate = model.optimizer.get_config()["learning_rate"]
    model.load_weights(checkpoint)
    saved_states = json.loads(_read_member(checkpoint, _TRAINING_FILE))["seed_states"]
    for state, value in zip(_seed_states(model), saved_states, strict=True):
        state.assign(value)
    if isinstance(learning_rate, float):  # not a schedule
        model.optimizer.learning_rate = learning_rate


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names, without the names that Keras numbers for each new layer."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, prefix if name == "config" else f"{prefix}{name}.")
        elif not (name == "name" and "trainable" in config):
            flat[prefix + name] = value
    return flat


@contextlib.contextmanager
def _averaged_weights(model: SpectroVAE) -> Iterator[None]:
    """Give the model the optimizer's average of its weights, if it keeps one, for the `with` block."""
    weights = model.get_weights() if getattr(model.optimizer, "use_ema", False) else None
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        if weights is not None:
            model.set_weights(weights)
