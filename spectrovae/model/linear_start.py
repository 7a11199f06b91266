"""The start in closed form: what a model reads off its data before the first gradient step."""

import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from spectrovae.audio.windows import check_windows, limited_batches
from spectrovae.model.distributions import raw_posterior_scales
from spectrovae.model.layers import with_neighbours
from spectrovae.model.level_curves import fit_level_curves
from spectrovae.model.limits import level_slopes
from spectrovae.model.pca import (
    PARTS_PER_WINDOW,
    LinearOptimum,
    average_frames,
    fit_courses,
    fit_linear_optimum,
    random_parts,
    transpose_windows,
)
from spectrovae.training.callbacks import reset_slots
from spectrovae.training.distributed import computed_once

NUM_PASSES = 8
"""How often `adapt` reads a dataset at most: small ones cut their windows anew each time."""

MAX_WINDOWS = 1536
"""How many windows `adapt` uses at most by default: twice as many hardly lower the held-out error further."""

MAX_ITERATOR_WINDOWS = 512
"""How many windows of a generator `fit` keeps in memory to adapt to them."""

_PRIOR_PASSES = 3  # over the data, to learn how codes follow one another
_PRIOR_SEMITONES = (1, -1, 0)  # by which one batch after another is transposed to learn the same; 0 adds nothing
_RESIDUAL_WINDOWS = 128
_DECODED_WINDOWS = 256
_LEAST_SCALE = 1.02  # over the likelihood's floor, where scales could not be learned
_MIN_DECODED, _MAX_DECODED = 48, 256  # windows, to see how levels depend on codes
_MATCHED_WINDOWS, _MATCHED_DRAWS = 256, 32  # to see how loud music and draws are
_CHECKED_WINDOWS = 24  # beside those of which the texture keeps a half


@computed_once
def adapt(
    model: keras.Model,
    x: Any,
    num_passes: int = NUM_PASSES,
    max_windows: int = MAX_WINDOWS,
    stationary: bool = True,
    transposition: bool = True,
    batch_size: int = 32,
    verbose: int = 1,
) -> None:
    """Start a model from the linear optimum of a dataset.

    One fit of probabilistic PCA to windows averaged over time sets the linear paths of encoder and decoder and the
    posterior's scale. Its components are spectra that come and go in a few courses over time (`separable_components`):
    that is what a few hours of music can tell, and held-out music is nearer to them than to the components of whole
    windows. How far music is from the levels that this says is measured at each level and frequency (`LevelCurves`);
    convolutions start at zero. The mixture prior is then fitted to the codes.

    Args:
        model: A `SpectroVAE` of the temporal architecture with a Gaussian likelihood.
        x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
        num_passes: How often to read a dataset at most, which may cut its windows anew each time; an array is read
            once.
        max_windows: Bound on the number of windows that are used; with windows of 512 by 512 and the default depth
            each takes 0.13 MB of memory.
        stationary: Whether windows are cut at random, so that nothing depends on when they begin. Pass False for
            aligned windows, such as drum hits.
        transposition: Whether music some semitones higher or lower is as likely.
        batch_size: Number of windows at once, where `x` is an array.
        verbose: 1 to show a progress bar, 0 for silence.

    Raises:
        ValueError: If the model has no linear optimum, the data can be read only once, or there are fewer than two
            windows.
    """
    if not model.can_adapt:
        raise ValueError(
            "Only the temporal architecture with a Gaussian likelihood has a linear optimum. Received: "
            f"architecture={model.architecture!r}, likelihood={type(model.likelihood).__name__}"
        )
    if hasattr(x, "__next__"):
        raise ValueError(
            "`adapt` reads its windows more than once, which an iterator does not allow. Pass a dataset or an array, "
            f"or build the model with warm_start=False. Received: x={x!r}"
        )
    batches = _limited(model, x, num_passes, max_windows, batch_size, verbose)
    optimum = fit_linear_optimum(
        random_parts(batches, model.latent_steps, _seed_of(model)),
        model.latent_dim,
        model.encoder.get_layer("linear_pooling").pool_size[0],
        stationary,
        transposition,
        _RESIDUAL_WINDOWS * min(model.latent_steps, PARTS_PER_WINDOW),
        _seed_of(model),
    )
    start_from(model, optimum, x, batch_size=batch_size, transposition=transposition)


@computed_once
def start_from(
    model: keras.Model,
    optimum: LinearOptimum,
    x: Any,
    max_windows: int = 4096,
    batch_size: int = 32,
    transposition: bool = True,
) -> None:
    """Start a model from a linear optimum that is known already. `SpectroVAE.adapt` is this after computing it.

    Args:
        model: A `SpectroVAE` that can be adapted.
        optimum: The linear optimum, of as many dimensions as the model.
        x: Windows or a dataset, as for `adapt`, to whose codes the prior is fitted.
        max_windows: Bound on the number of windows that are used for that.
        batch_size: Number of windows at once, where `x` is an array.
        transposition: Whether music a semitone higher or lower is as likely, as for `refit_prior`.
    """
    with reset_slots(getattr(model, "optimizer", None), model.trainable_variables):
        _assign(model, optimum)
        _fit_decoder(model, _limited(model, x, 1, _DECODED_WINDOWS, batch_size))
    refit_prior(model, x, max_windows, batch_size, transposition)
    if model.likelihood.per_pixel:
        refit_texture(model, x, batch_size=batch_size)
    model.num_adapted_windows.assign(optimum.num_windows // min(model.latent_steps, PARTS_PER_WINDOW))


def _seed_of(model: keras.Model) -> int:
    """Return the model's seed, or else a number from Python's generator, which `keras.utils.set_random_seed` seeds."""
    return random.randrange(2**30) if model.seed is None else model.seed


def _assign(model: keras.Model, optimum: LinearOptimum) -> None:
    """Set the linear paths, the posterior's scale and the likelihood's shared scale to those of a linear optimum."""
    model.encoder.get_layer("linear_mean").set_weights(optimum.encoder_weights())
    courses, *others = optimum.decoder_weights()
    linear = model.decoder.get_layer("linear_window")
    around = linear.num_neighbours * len(courses)  # neighbours say nothing as yet
    linear.set_weights([np.pad(courses, ((around, around), (0, 0))), *others])
    model.encoder.get_layer("raw_scales").bias.assign(raw_posterior_scales(optimum.posterior_scales, model.posterior))
    model.likelihood.raw_scale.assign(model.likelihood.to_raw_scale(np.sqrt(optimum.noise_variance)))


def _fit_decoder(model: keras.Model, batches: Iterator[np.ndarray]) -> None:
    """Set what the decoder makes of neighbouring codes, and its level curves, to what windows are given their codes."""
    rng = np.random.default_rng(_seed_of(model))
    linear = model.decoder.get_layer("linear_window")
    pool_size = model.encoder.get_layer("linear_pooling").pool_size[0]
    codes, averages, spectra = [], [], []
    for batch in batches:
        posterior = model.posterior_of(batch)
        codes.append(posterior.mean() + posterior.stddev() * rng.standard_normal(posterior.mean().shape, np.float32))
        if linear.num_neighbours:
            averages.append(average_frames(batch, pool_size).swapaxes(1, 2))
        spectra.append(np.asarray(batch)[:, :, pool_size // 2 :: pool_size, 0].swapaxes(1, 2))
    if linear.num_neighbours:
        contexts = np.concatenate([np.stack(with_neighbours(each, linear.num_neighbours), axis=-2) for each in codes])
        steps = np.concatenate(averages).reshape(*contexts.shape[:2], linear.steps, -1)
        linear.temporal_kernel.assign(fit_courses(contexts, steps, *map(np.asarray, linear.weights[1:])))
    linear_path = keras.Model(model.decoder.input, model.decoder.get_layer("levels").output)
    levels = np.concatenate([linear_path(each, training=False).numpy().reshape(-1, linear.bins) for each in codes])
    _assign_curves(model, levels, np.concatenate(spectra).reshape(levels.shape))


def _assign_curves(model: keras.Model, levels: np.ndarray, spectra: np.ndarray) -> None:
    """Set the decoder's level curves to what spectra are where the linear path says some levels."""
    means, deviations = fit_level_curves(levels, spectra)
    curves = [means]
    if model.likelihood.per_pixel:
        least = _LEAST_SCALE * model.likelihood.min_scale
        curves.append(model.likelihood.to_raw_scale(np.maximum(deviations, least)) - model.likelihood.raw_scale.numpy())
    model.decoder.get_layer("level_curves").curves.assign(np.stack(curves))
    bias = model.decoder.get_layer("deep_window").bias
    bias.assign(np.zeros(bias.shape))  # of a model that was trained before: the curves say it all


@computed_once
def refit_prior(
    model: keras.Model, x: Any, max_windows: int = 4096, batch_size: int = 32, transposition: bool = True
) -> None:
    """Fit a model's prior to draws of the codes of windows, the mean of q(z|x) over them. All else stays as it is.

    Args:
        model: A `SpectroVAE`.
        x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them. Where there are several
            codes along a window, a dataset is read several times: how codes follow one another takes more to learn.
        max_windows: Bound on the number of windows that are used, without those that are transposed.
        batch_size: Number of windows at once, where `x` is an array.
        transposition: Whether music a semitone higher or lower is as likely: where there are several codes along a
            window, two windows of three are then used transposed as well.
    """
    means, scales = [], []
    is_sequence = model.latent_steps > 1
    for index, batch in enumerate(_limited(model, x, _PRIOR_PASSES if is_sequence else 1, max_windows, batch_size)):
        semitones = _PRIOR_SEMITONES[index % len(_PRIOR_SEMITONES)] if is_sequence and transposition else 0
        for windows in [batch, transpose_windows(np.asarray(batch), semitones)] if semitones else [batch]:
            posterior = model.posterior_of(windows)
            means.append(posterior.mean())
            scales.append(posterior.stddev())
    mean, scale = np.concatenate(means), np.concatenate(scales)
    # Several draws of each code where there are few: every component needs some.
    num_draws = int(np.ceil(20 * model.num_components / len(mean)))
    noise = np.random.default_rng(_seed_of(model)).standard_normal((num_draws, *mean.shape))
    codes = (mean + scale * noise).reshape(-1, *mean.shape[1:])
    num_decoded = min(max(_MIN_DECODED, 2 * model.latent_dim // model.latent_steps), _MAX_DECODED, len(codes))
    some = codes[np.linspace(0, len(codes) - 1, num_decoded).astype(int)]
    slopes = level_slopes(some.reshape(len(some), model.latent_steps, -1), _decoded_means(model, some))
    with reset_slots(getattr(model, "optimizer", None), model.prior.trainable_variables):
        model.prior.fit(codes, _seed_of(model), slopes)


def _decoded_means(model: keras.Model, codes: np.ndarray) -> np.ndarray:
    """Return the means that codes decode to, `(num_windows, bins, frames)`."""
    parts = [codes[start : start + 16] for start in range(0, len(codes), 16)]
    return np.concatenate([model.decode_moments(part, with_scales=False)[0][..., 0] for part in parts])


@computed_once
def refit_texture(model: keras.Model, x: Any, max_windows: int | None = None, batch_size: int = 32) -> None:
    """Fit a model's texture to the residuals of windows, and then the dynamics of what is drawn with that texture.

    Args:
        model: A `SpectroVAE`.
        x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
        max_windows: Bound on the number of windows that are used; by default twice those that the texture keeps.
        batch_size: Number of windows at once, where `x` is an array.

    Raises:
        ValueError: If the likelihood has no scale for each pixel.
    """
    if not model.likelihood.per_pixel:
        raise ValueError(
            "Texture needs a likelihood with a scale for each pixel, such as 'heteroscedastic_gaussian'. "
            f"Received: likelihood={type(model.likelihood).__name__}"
        )
    max_windows = max_windows or 2 * model.bank_size + _CHECKED_WINDOWS
    model.texture.fit(_moments(model, _limited(model, x, 1, max_windows, batch_size)), _seed_of(model))
    codes = model.prior.sample(_MATCHED_DRAWS, seed=_seed_of(model))
    drawn = model.decode(codes, batch_size, texture="grains", seed=_seed_of(model))
    music = _limited(model, x, 1, _MATCHED_WINDOWS, batch_size)
    model.dynamics.fit(_magnitudes(model, music), _magnitudes(model, [drawn]))


def _magnitudes(model: keras.Model, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the magnitudes of each window, `(bins, frames)`."""
    for window in itertools.chain.from_iterable(batches):
        yield 10 ** (model.converter.to_decibels(window[..., 0]) / 20)


def finish(model: keras.Model, x: Any) -> bool:
    """Fit prior and texture of an adapted model to windows that can be read again; return whether that was done."""
    if not model.adapted or hasattr(x, "__next__"):
        return False
    refit_prior(model, x)
    if model.likelihood.per_pixel:
        refit_texture(model, x)
    return True


def _moments(model: keras.Model, batches: Iterator[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield means, scales and windows of batches, each `(num_windows, bins, frames)`."""
    for batch in batches:
        moments = model.decode_moments(model.posterior_of(batch).mean())
        yield tuple(np.asarray(each)[..., 0] for each in (*moments, batch))


def _limited(
    model: keras.Model, x: Any, num_passes: int, max_windows: int, batch_size: int, verbose: int = 0
) -> Iterator[np.ndarray]:
    """Yield batches up to a number of windows, with a progress bar where it is asked for."""
    progress = keras.utils.Progbar(max_windows, verbose=verbose, unit_name="window")
    num_windows = 0
    for batch in limited_batches(x, num_passes, max_windows, batch_size):
        check_windows(batch, model.input_shape)
        num_windows += len(batch)
        progress.update(num_windows)
        yield batch
    if num_windows < max_windows:
        progress.target = num_windows
        progress.update(num_windows, finalize=True)
