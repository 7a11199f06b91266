"""What a sweep chooses from."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras_tuner

from spectrovae import SpectroVAE
from spectrovae.model.networks import check_network

DEFAULT_CHOICES: dict[str, tuple] = {
    "latent_dim": (25, 50, 100, 200, 400),
    "num_components": (1, 2, 4, 8, 16),
    "decoder_depth": (2, 3, 4, 5, 6),
}
"""What is searched where nothing else is said."""

OPTIONAL_CHOICES: dict[str, tuple] = {
    "learning_rate": (5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
    "width": (128, 256, 512, 1024),
    "likelihood": ("gaussian", "heteroscedastic_gaussian"),
    "posterior": ("diagonal", "full"),
    "latent_steps": (1, 8, 16, 32),
}
"""What can be searched as well, with the values that are worth a try."""

OBJECTIVES = ("val_loss", "val_rmse_db", "val_distance")
"""What can be minimised, see `choose_objective`."""


def search_space(
    hp: keras_tuner.HyperParameters,
    input_shape: tuple[int, int, int] = (512, 512, 1),
    architecture: str = "temporal",
    choices: Mapping[str, Iterable] | None = None,
) -> dict[str, Any]:
    """Let a tuner choose arguments of `SpectroVAE`.

    Args:
        hp: The `HyperParameters` of a trial. What is registered there under the same name has precedence.
        input_shape: Shape of a window, `(bins, frames, 1)`. Depths and numbers of codes that do not fit it are not
            proposed, and neither are depths that do not fit all of the numbers of codes.
        architecture: `"temporal"` or `"classic"`.
        choices: For each argument the values to choose from, in addition to `DEFAULT_CHOICES` or instead of
            them. One value fixes the argument. `learning_rate` is no argument of the model: see
            `choose_learning_rate`.

    Returns:
        Arguments for `SpectroVAE(input_shape, architecture=architecture, **arguments)`.

    Raises:
        ValueError: If an argument is not known, has no values, or no value can be built.

    Example:
        >>> arguments = search_space(keras_tuner.HyperParameters(), choices={"latent_dim": [8, 16]})
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
        The learning rate, or None: that of the model's own optimizer.

    Example:
        >>> choose_learning_rate(keras_tuner.HyperParameters(), {"learning_rate": [1e-4, 1e-3]})
        0.0001
    """
    values = list((choices or {}).get("learning_rate", ()))
    return float(_choose(hp, "learning_rate", values)) if values else None


def buildable_choices(
    input_shape: tuple[int, int, int], architecture: str, choices: Mapping[str, Iterable] | None = None
) -> dict[str, list]:
    """Return the values of each argument of which a model can be built.

    Args:
        input_shape: Shape of a window, `(bins, frames, 1)`.
        architecture: `"temporal"` or `"classic"`.
        choices: As for `search_space`.

    Raises:
        ValueError: If an argument is not known, has no values, or no value can be built.

    Example:
        >>> buildable_choices((64, 48, 1), "temporal")["decoder_depth"]
        [3, 4]
    """
    choices = dict(choices or {})
    known = DEFAULT_CHOICES | OPTIONAL_CHOICES
    if unknown := set(choices) - set(known):
        raise ValueError(f"`choices` must be values of {sorted(known)}. Received: {sorted(unknown)}")
    usable = {name: list(dict.fromkeys(values)) for name, values in (DEFAULT_CHOICES | choices).items()}
    reasons: dict[tuple, str] = {}

    def fits(depth: int, latent_steps: int) -> bool:
        try:
            check_network(input_shape, architecture, depth, latent_steps)
        except ValueError as error:
            reasons[depth, latent_steps] = str(error)
            return False
        return True

    depths = [depth for depth in usable["decoder_depth"] if fits(depth, 1)]
    if "latent_steps" in usable and depths:
        steps = [number for number in usable["latent_steps"] if any([fits(depth, number) for depth in depths])]
        usable["latent_steps"] = steps
        # The least depth fits whatever any fits. The others must fit all, since a tuner combines them freely.
        depths = [depth for depth in depths if all(fits(depth, number) for number in steps)]
    usable["decoder_depth"] = depths
    for name, values in usable.items():
        if not values:
            raise ValueError(
                f"There is no value to choose for {name}. {' '.join(dict.fromkeys(reasons.values()))} "
                f"Received: choices={choices}"
            )
    return usable


def choose_objective(name: str = "auto", choices: Mapping[str, Iterable] | None = None) -> keras_tuner.Objective:
    """Return the measure by which trials compare fairly.

    All are measured on held-out recordings, and less is better.

    * `val_loss`: minus the evidence lower bound at a KL weight of 1, in nats per window. It weighs code length and
      error as probability theory does, and compares all latent sizes, mixtures and depths. Densities of
      different likelihoods do not compare: use it where the likelihood is the same in all trials.
    * `val_rmse_db`: error of the reconstruction, in dB. Compares likelihoods too, but knows nothing of the prior: it
      always prefers the larger code.
    * `val_distance`: squared maximum mean discrepancy of generated and held-out windows (`GenerationDistance`).
      Judges what the model makes of its own, prior included, and compares likelihoods too. It is an estimate from
      some hundred windows and costs some seconds per epoch. Take it where new sounds are what the model is for.

    Args:
        name: One of these, or `"auto"`: `val_loss`, or `val_rmse_db` if likelihoods are among the choices.
        choices: As for `search_space`.

    Raises:
        ValueError: If the name is not known.

    Example:
        >>> choose_objective(choices={"likelihood": ["gaussian", "bernoulli"]}).name
        'val_rmse_db'
    """
    if name not in ("auto", *OBJECTIVES):
        raise ValueError(f'`name` must be "auto" or one of {OBJECTIVES}. Received: name={name!r}')
    if name == "auto":
        name = "val_rmse_db" if len(set((choices or {}).get("likelihood", ()))) > 1 else "val_loss"
    return keras_tuner.Objective(name, "min")


def _choose(hp: keras_tuner.HyperParameters, name: str, values: list) -> Any:
    if len(values) == 1:
        return hp.Fixed(name, values[0])
    parameter = inspect.signature(SpectroVAE).parameters.get(name)
    usual = parameter.default if parameter is not None and parameter.default in values else values[0]
    return hp.Choice(name, values, default=usual)
