"""What a sweep chooses from, how it compares its trials, and what all trials share.

KerasTuner and TensorFlow are imported by the functions that use them, so that the command shows its help at once.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import numbers
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrovae.checks import check_positive_int, check_seed, check_size
from spectrovae.storage import replaced_when_complete

if TYPE_CHECKING:
    import keras_tuner
    import tensorflow as tf

    from spectrovae.audio.spectrogram import SpectrogramConverter

DEFAULT_CHOICES: dict[str, tuple] = {
    "latent_dim": (8, 16, 32, 64),
    "num_components": (1, 2, 4, 8, 16),
    "decoder_depth": (2, 3, 4, 5, 6),
}
"""The arguments that are searched by default, and their values."""

OPTIONAL_CHOICES: dict[str, tuple] = {
    "learning_rate": (5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
    "width": (128, 256, 512, 1024),
    "likelihood": ("gaussian", "heteroscedastic_gaussian"),
    "posterior": ("diagonal", "full"),
    "latent_steps": (1, 8, 16, 32),
}
"""The arguments that are searched on request, and values worth trying."""

CHOICE_NAMES = {
    "likelihood": ("gaussian", "heteroscedastic_gaussian", "bernoulli"),
    "posterior": ("diagonal", "full"),
}
"""The possible values of arguments that are words."""

ARCHITECTURES = ("temporal", "classic")
"""The networks that a sweep can train."""

OBJECTIVES = ("val_loss", "val_rmse_db", "val_distance")
"""What a sweep can minimise; see `choose_objective`."""

TUNERS = ("bayesian", "grid", "hyperband", "random")
"""The search algorithms."""

WORKER_TIMEOUT = 30.0
"""After how many seconds of silence the chief gives a worker's trial to another worker, by default."""


def choose_arguments(
    hp: keras_tuner.HyperParameters,
    input_shape: tuple[int, int, int] = (512, 512, 1),
    architecture: str = "temporal",
    choices: Mapping[str, Iterable] | None = None,
) -> dict[str, Any]:
    """Let a tuner choose arguments of `SpectroVAE`.

    Args:
        hp: The `HyperParameters` of a trial. Values that are registered there under the same name take precedence.
        input_shape: Shape of a window, `(bins, frames, 1)`. Depths and numbers of codes that do not fit it are left
            out, and so are depths that do not fit all of the numbers of codes.
        architecture: `"temporal"` or `"classic"`.
        choices: For each argument the values to choose from, in addition to `DEFAULT_CHOICES` or instead of
            them. A single value fixes the argument. `learning_rate` is not an argument of the model: see
            `choose_learning_rate`.

    Returns:
        Arguments for `SpectroVAE(input_shape, architecture=architecture, **arguments)`.

    Raises:
        ValueError: If an argument is unknown or has no values, or if no model can be built from any of them.

    Example:
        >>> import keras_tuner
        >>> arguments = choose_arguments(keras_tuner.HyperParameters(), choices={"latent_dim": [8, 16]})
        >>> arguments["latent_dim"], sorted(arguments)
        (8, ['decoder_depth', 'latent_dim', 'num_components'])
    """
    usable = buildable_choices(input_shape, architecture, choices)
    usable.pop("learning_rate", None)
    return {name: _choose(hp, name, values) for name, values in usable.items()}


def choose_learning_rate(
    hp: keras_tuner.HyperParameters, choices: Mapping[str, Iterable] | None = None
) -> float | None:
    """Let a tuner choose the learning rate, if `choices` has values for it.

    Returns:
        The learning rate, or None for that of the model's default optimizer.

    Example:
        >>> import keras_tuner
        >>> choose_learning_rate(keras_tuner.HyperParameters(), {"learning_rate": [1e-4, 1e-3]})
        0.0001
    """
    values = list((choices or {}).get("learning_rate", ()))
    return float(_choose(hp, "learning_rate", values)) if values else None


def buildable_choices(
    input_shape: tuple[int, int, int], architecture: str, choices: Mapping[str, Iterable] | None = None
) -> dict[str, list]:
    """Return for each argument the values from which a model can be built.

    Args:
        input_shape: Shape of a window, `(bins, frames, 1)`.
        architecture: `"temporal"` or `"classic"`.
        choices: As for `choose_arguments`.

    Raises:
        ValueError: If an argument is unknown or has no values, or if no model can be built from any of them.

    Example:
        >>> buildable_choices((64, 48, 1), "temporal")["decoder_depth"]
        [2, 3, 4]
    """
    from spectrovae.model.classic import check_classic_grid
    from spectrovae.model.networks import check_grid

    if architecture not in ARCHITECTURES:
        raise ValueError(f"`architecture` must be one of {ARCHITECTURES}. Received: architecture={architecture!r}")
    choices = dict(choices or {})
    known = DEFAULT_CHOICES | OPTIONAL_CHOICES
    if unknown := set(choices) - set(known):
        raise ValueError(f"`choices` must be values of {sorted(known)}. Received: {sorted(unknown)}")
    usable = {name: list(dict.fromkeys(values)) for name, values in (DEFAULT_CHOICES | choices).items()}
    for name, values in usable.items():
        for value in values:
            _check_choice(name, value)
    check = check_classic_grid if architecture == "classic" else check_grid
    reasons: dict[tuple, str] = {}

    def fits(depth: int, latent_steps: int) -> bool:
        try:
            check(input_shape, depth, latent_steps)
        except ValueError as error:
            reasons[depth, latent_steps] = str(error)
            return False
        return True

    depths = [depth for depth in usable["decoder_depth"] if fits(depth, 1)]
    if "latent_steps" in usable and depths:
        steps = [number for number in usable["latent_steps"] if any([fits(depth, number) for depth in depths])]
        usable["latent_steps"] = steps
        # The smallest depth fits every number of codes that any depth fits. The others must fit all of them, since a
        # tuner combines the two freely.
        depths = [depth for depth in depths if all(fits(depth, number) for number in steps)]
    usable["decoder_depth"] = depths
    for name, values in usable.items():
        if not values:
            raise ValueError(
                f"There is no value to choose for {name}. {' '.join(dict.fromkeys(reasons.values()))} "
                f"Received: choices={choices}"
            )
    return usable


def _check_choice(name: str, value: Any) -> None:
    """Raise a ValueError unless an argument may have this value."""
    if name in CHOICE_NAMES:
        if value not in CHOICE_NAMES[name]:
            raise ValueError(f"`{name}` must be one of {CHOICE_NAMES[name]}. Received: {name}={value!r}")
    elif name == "learning_rate":
        if not (_is_number(value) and value > 0):
            raise ValueError(f"`{name}` must be a number above 0. Received: {name}={value!r}")
    else:
        check_size(name, value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def choose_objective(name: str = "auto", choices: Mapping[str, Iterable] | None = None) -> keras_tuner.Objective:
    """Return the objective by which trials compare fairly.

    All objectives are measured on held-out recordings, and less is better.

    * `val_loss`: the negative evidence lower bound at a KL weight of 1, in nats per window. It weighs the length of
      the code against the error, and compares all latent sizes, mixtures and depths. Densities of different
      likelihoods do not compare: use it if all trials have the same likelihood.
    * `val_rmse_db`: the error of the reconstruction, in dB. It compares likelihoods too, but ignores the prior, so it
      always prefers the larger code.
    * `val_distance`: the squared maximum mean discrepancy between generated and held-out windows
      (`GenerationDistance`). It judges what the model generates, including the prior, and compares likelihoods too.
      It is an estimate from some hundred windows and takes some seconds per epoch. Use it if new sounds are the goal.

    Args:
        name: One of these, or `"auto"`: `val_loss`, or `val_rmse_db` if there are several likelihoods to choose from.
        choices: As for `choose_arguments`.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> choose_objective(choices={"likelihood": ["gaussian", "heteroscedastic_gaussian"]}).name
        'val_rmse_db'
    """
    import keras_tuner

    if name not in ("auto", *OBJECTIVES):
        raise ValueError(f'`name` must be "auto" or one of {OBJECTIVES}. Received: name={name!r}')
    if name == "auto":
        name = "val_rmse_db" if len(set((choices or {}).get("likelihood", ()))) > 1 else "val_loss"
    return keras_tuner.Objective(name, "min")


def _choose(hp: keras_tuner.HyperParameters, name: str, values: list) -> Any:
    from spectrovae.model.spectrovae import SpectroVAE

    if len(values) == 1:
        return hp.Fixed(name, values[0])
    parameter = inspect.signature(SpectroVAE).parameters.get(name)
    usual = parameter.default if parameter is not None and parameter.default in values else values[0]
    return hp.Choice(name, values, default=usual)


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """The settings that all trials of a sweep share. A sweep only continues with the settings it began with.

    Attributes:
        recordings: Files and folders of recordings.
        converter: Arguments of the `SpectrogramConverter`.
        choices: For each argument the values to choose from, as for `choose_arguments`.
        architecture: `"temporal"` or `"classic"`.
        tuner: One of `TUNERS`.
        objective: As for `choose_objective`.
        epochs: Epochs of each trial; with Hyperband the most that a trial gets.
        batch_size: Number of windows in a batch.
        validation_split: Share of the windows to hold out, in (0, 1). Whole files are held out.
        loop_short_files: Whether to repeat files that are shorter than a window instead of leaving them out.
        max_parameters: Models with more weights fail; None for no limit.
        seed: Integer that decides the proposed values, the split, and the models' weights and draws.

    Raises:
        ValueError: If a number is out of its range, or no model can be built.

    Example:
        >>> settings = SweepSettings(("music/",), choices={"latent_dim": [50, 100]}, epochs=4)
        >>> settings.make_objective().name, settings.usable_choices["latent_dim"]
        ('val_loss', [50, 100])
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
            check_positive_int(name, getattr(self, name))
        if self.max_parameters is not None:
            check_positive_int("max_parameters", self.max_parameters)
        if self.seed is None:
            raise ValueError("`seed` must be an integer of 0 or more. Received: seed=None")
        check_seed("seed", self.seed, num_bits=32)
        if not (_is_number(self.validation_split) and 0 < self.validation_split < 1):
            raise ValueError(
                "validation_split must be above 0 and below 1: trials are compared on held-out recordings. "
                f"Received: validation_split={self.validation_split!r}"
            )
        if self.tuner not in TUNERS:
            raise ValueError(f"tuner must be one of {', '.join(TUNERS)}. Received: tuner={self.tuner!r}")
        choose_objective(self.objective)
        _ = self.usable_choices  # raises a ValueError if there are none

    @property
    def usable_choices(self) -> dict[str, list]:
        """The values that are searched, without those from which no model can be built."""
        return buildable_choices(self.make_converter().window_shape, self.architecture, self.choices)

    def make_converter(self) -> SpectrogramConverter:
        """Return the converter that makes the windows."""
        from spectrovae.audio.spectrogram import SpectrogramConverter

        known = inspect.signature(SpectrogramConverter).parameters
        if unknown := set(self.converter) - set(known):
            raise ValueError(f"`converter` must be arguments of {sorted(known)}. Received: {sorted(unknown)}")
        return SpectrogramConverter(**self.converter)

    def make_objective(self) -> keras_tuner.Objective:
        """Return the objective by which trials are compared."""
        return choose_objective(self.objective, self.choices)

    def declare(self, hp: keras_tuner.HyperParameters) -> None:
        """Register the arguments that are searched."""
        choose_arguments(hp, self.make_converter().window_shape, self.architecture, self.choices)
        choose_learning_rate(hp, self.choices)

    def datasets(self, cache: str | Path) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """Return the training and the validation windows; the recordings are decoded once into the cache."""
        from spectrovae.audio.dataset import audio_dataset

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
        """Read settings that `save` wrote.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If it does not hold settings of a sweep.
        """
        values = read_json(file)
        known = {field.name for field in dataclasses.fields(cls)}
        recordings = values.get("recordings")
        if not set(values) <= known or not isinstance(recordings, list):
            raise ValueError(f"{file} does not hold the settings of a sweep of this version")
        try:
            return cls(**values | {"recordings": tuple(map(str, recordings))})
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{file} does not hold the settings of a sweep of this version: {error}") from error

    def differences(self, other: SweepSettings) -> list[str]:
        """Return for each setting that differs a text such as `epochs: 10, not 20`."""
        mine, others = (json.loads(json.dumps(dataclasses.asdict(each))) for each in (self, other))
        return [f"{name}: {mine[name]}, not {others[name]}" for name in mine if mine[name] != others[name]]


def write_json(file: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    with replaced_when_complete(file) as part:
        part.write_text(json.dumps(value, indent=1))


def read_json(file: Path) -> dict[str, Any]:
    """Return what a JSON file holds; a ValueError says so if that is not an object with names."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} is damaged: it holds no JSON object")
    return values
