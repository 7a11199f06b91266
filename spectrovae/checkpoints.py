"""A training in one `.keras` file: model, optimizer, history and the states of all seeds."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from spectrovae.files import replaced_when_complete

_TRAINING_FILE = "training.json"
# What may differ between the model that trained and the one that goes on.
_FREE_SETTINGS = {"seed", "warm_start", "component_names"}

Rows = list[dict[str, float]]
"""For each epoch its number and its metrics."""


def save_checkpoint(model: keras.Model, path: Path, rows: Rows) -> None:
    """Write a compiled model and its history; the old file stays until the new one is complete.

    The file is one that `keras.saving.load_model` loads as well.
    """
    # The history travels inside the file, so that the two can't disagree; Keras passes over what it does not know.
    # Nor does Keras save the state of seed generators.
    with replaced_when_complete(path) as part:
        model.save(part)
        with zipfile.ZipFile(part, "a") as archive:
            seed_states = [state.numpy().tolist() for state in _seed_states(model)]
            archive.writestr(_TRAINING_FILE, json.dumps({"epochs": rows, "seed_states": seed_states}))


def read_rows(path: Path) -> Rows:
    """Return the history in a checkpoint; of a missing one it is empty.

    Raises:
        ValueError: If the file is damaged, or `save_checkpoint` did not write it.

    Example:
        >>> read_rows(Path("no/such/file.keras"))
        []
    """
    return json.loads(_read_member(path, _TRAINING_FILE))["epochs"] if path.exists() else []


def restore_checkpoint(model: keras.Model, checkpoint: Path) -> None:
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


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give the model the optimizer's average of its weights, if it keeps one, for the `with` block."""
    weights = model.get_weights() if getattr(model.optimizer, "use_ema", False) else None
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        if weights is not None:
            model.set_weights(weights)


def _flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names, without the names that Keras numbers for each new layer."""
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


def _read_member(path: Path, name: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            if name not in archive.namelist():
                raise ValueError(f"{path} is not a checkpoint of fit_resumably. Use another folder.")
            return archive.read(name).decode()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged ({error}). Remove it to begin anew, or use another folder.") from error
