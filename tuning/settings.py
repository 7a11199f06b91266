"""What a sweep is: all that its trials have in common."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf

from spectrovae import SpectrogramConverter
from spectrovae.dataset import audio_dataset
from spectrovae.files import replaced_when_complete
from spectrovae.tuning.hypermodel import SpectroVAEHyperModel
from spectrovae.tuning.search_space import choose_objective


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """What the trials of a sweep have in common. A sweep goes on only with the settings it began with.

    Attributes:
        recordings: Files and folders of recordings.
        converter: Arguments of the `SpectrogramConverter`.
        choices: For each argument the values to choose from, as for `search_space`.
        architecture: `"temporal"` or `"classic"`.
        tuner: A key of `ORACLES`.
        objective: As for `choose_objective`.
        epochs: Epochs of each trial; with Hyperband the most that one gets.
        batch_size: Windows in a batch.
        validation_split: Share of the windows that is put aside, in (0, 1). Whole files are.
        loop_short_files: Whether files shorter than a window are repeated instead of left out.
        max_parameters: Models with more weights fail; None for no limit.
        seed: Decides the proposals, the split and the models' weights and draws.

    Raises:
        ValueError: If a number is out of its range, or no model can be built.
    """

    recordings: tuple[str, ...]
    converter: dict[str, Any] = dataclasses.field(default_factory=dict)
    choices: dict[str, list] = dataclasses.field(default_factory=dict)
    architecture: str = "temporal"
    tuner: str = "bayesian"
    objective: str = "auto"
    epochs: int = 10
    batch_size: int = 16
    validation_split: float = 0.2
    loop_short_files: bool = False
    max_parameters: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more. Received: {name}={getattr(self, name)}")
        if not 0 < self.validation_split < 1:
            raise ValueError(
                "validation_split must be above 0 and below 1: trials are compared on held-out recordings. "
                f"Received: validation_split={self.validation_split}"
            )
        choose_objective(self.objective)
        self.hypermodel()

    def make_converter(self) -> SpectrogramConverter:
        """Return the converter that makes the windows."""
        return SpectrogramConverter(**self.converter)

    def make_objective(self) -> keras_tuner.Objective:
        """Return the measure by which trials compare."""
        return choose_objective(self.objective, self.choices)

    def hypermodel(self, linear_start_folder: Path | None = None) -> SpectroVAEHyperModel:
        """Return the hypermodel; the linear start is shared through the folder."""
        return SpectroVAEHyperModel(
            self.make_converter(),
            self.choices,
            self.architecture,
            self.max_parameters,
            linear_start_folder,
            self.make_objective().name == "val_distance",
            seed=self.seed,
        )

    def datasets(self, cache: Path) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """Return the training and the validation windows, decoded once into the cache."""
        return audio_dataset(
            self.recordings,
            self.make_converter(),
            self.batch_size,
            self.validation_split,
            seed=self.seed,
            cache=cache,
            loop_short_files=self.loop_short_files,
            verbose=0,
        )

    def save(self, file: Path) -> None:
        """Write the settings as JSON."""
        write_json(file, dataclasses.asdict(self))

    @classmethod
    def load(cls, file: Path) -> SweepSettings:
        """Read what `save` wrote."""
        values = json.loads(file.read_text())
        return cls(**values | {"recordings": tuple(values["recordings"])})

    def differences(self, other: SweepSettings) -> list[str]:
        """Return for each setting that differs a text such as `epochs: 10, not 20`."""
        mine, others = (json.loads(json.dumps(dataclasses.asdict(each))) for each in (self, other))
        return [f"{name}: {mine[name]}, not {others[name]}" for name in mine if mine[name] != others[name]]


def write_json(file: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    with replaced_when_complete(file) as part:
        part.write_text(json.dumps(value, indent=1))
