"""The start in closed form: what `adapt` reads off the data before the first gradient step."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from spectrovae.audio.windows import limited_batches
from spectrovae.model.distributions import raw_posterior_scales
from spectrovae.model.likelihood import GaussianLikelihood, Likelihood
from spectrovae.model.pca import PARTS_PER_WINDOW, LinearOptimum, fit_linear_optimum, random_parts
from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.texture import Texture
from spectrovae.training.callbacks import reset_slots
from spectrovae.training.distributed import computed_once

NUM_PASSES = 8
"""How often `adapt` walks over a dataset at most: small ones cut their windows anew each time."""

MAX_WINDOWS = 1536
"""How many windows `adapt` uses at most by default: twice as many hardly lower the held-out error further."""

_PRIOR_PASSES = 3  # over the data, to tell how codes follow one another


class WarmStart:
    """The method of `SpectroVAE` that sets its weights to the linear optimum of a data set."""

    encoder: keras.Model
    decoder: keras.Model
    prior: GaussianMixturePrior
    likelihood: Likelihood
    texture: Texture
    architecture: str
    posterior: str
    latent_dim: int
    latent_steps: int
    seed: int | None
    num_adapted_windows: keras.Variable
    trainable_variables: list[keras.Variable]

    check_windows: Callable
    posterior_of: Callable

    @property
    def adapted(self) -> bool:
        """Whether `adapt` has been called on this model, in this process or before it was saved."""
        return int(self.num_adapted_windows.numpy()) > 0

    @property
    def can_adapt(self) -> bool:
        """Whether the model has a linear optimum: a linear path and a Gaussian likelihood."""
        has_linear_path = any(layer.name == "linear_mean" for layer in self.encoder.layers)
        return has_linear_path and isinstance(self.likelihood, GaussianLikelihood)

    @computed_once
    def adapt(
        self,
        x: Any,
        num_passes: int = NUM_PASSES,
        max_windows: int = MAX_WINDOWS,
        stationary: bool = True,
        transposition: bool = True,
        batch_size: int = 32,
        verbose: int = 1,
    ) -> None:
        """Start from the linear optimum of a data set.

        One fit of probabilistic PCA to windows averaged over time sets the linear paths of encoder and decoder,
        the posterior's scale and the likelihood's scale; the mixture prior is then fitted to the codes. The deep
        paths are left as they are: they start at zero, so an untrained model becomes exactly that PCA. Its components
        are spectra that come and go in a few courses over time (`separable_components`): what a few hours of music can
        tell, and held-out music is nearer to them than to the components of whole windows.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            num_passes: How often to walk over a dataset at most, which may cut its windows anew each time; an array is
                walked over once.
            max_windows: Bound on the number of windows that are used; with windows of 512 by 512 and the default depth
                each takes 0.13 MB of memory.
            stationary: Whether windows are taken to be cut at random, so that nothing depends on when they begin. Give
                False for windows that all begin alike, such as drum hits.
            transposition: Whether windows are taken to be as likely some semitones higher or lower.
            batch_size: Number of windows at once, where `x` is an array.
            verbose: 1 to show a progress bar, 0 for silence.

        Raises:
            ValueError: If the architecture has no linear path, the likelihood is not Gaussian, the data can be
                walked over only once, or there are fewer than two windows.
        """
        if not self.can_adapt:
            raise ValueError(
                "Only the temporal architecture with a Gaussian likelihood has a linear optimum. "
                f"Received: likelihood={type(self.likelihood).__name__}, encoder layers="
                f"{[layer.name for layer in self.encoder.layers]}"
            )
        if hasattr(x, "__next__"):
            raise ValueError(
                "`adapt` walks over its windows more than once, which an iterator does not allow. Give it a dataset "
                f"or an array, or build the model with warm_start=False. Received: x={x!r}"
            )
        batches = self._limited(x, num_passes, max_windows, batch_size, verbose)
        pool_size = self.encoder.get_layer("linear_pooling").pool_size[0]
        parts = random_parts(batches, self.latent_steps, self.seed)
        num_residual = 128 * min(self.latent_steps, PARTS_PER_WINDOW)
        optimum = fit_linear_optimum(
            parts, self.latent_dim, pool_size, stationary, transposition, num_residual, self.seed
        )
        self.start_from(optimum, x, batch_size=batch_size)

    @computed_once
    def start_from(self, optimum: LinearOptimum, x: Any, max_windows: int = 4096, batch_size: int = 32) -> None:
        """Start from a linear optimum that is known already; `adapt` is this after computing it.

        Args:
            optimum: The linear optimum, of as many dimensions as the model.
            x: Windows or a dataset, as for `adapt`, to whose codes the prior is fitted.
            max_windows: Bound on the number of windows that are used for that.
            batch_size: Number of windows at once, where `x` is an array.
        """
        with reset_slots(getattr(self, "optimizer", None), self.trainable_variables):
            self._assign_linear_optimum(optimum)
        self.refit_prior(x, max_windows, batch_size)
        if self.likelihood.per_pixel:
            self.refit_texture(x, batch_size=batch_size)
        num_parts = min(self.latent_steps, PARTS_PER_WINDOW)
        self.num_adapted_windows.assign(optimum.num_windows // num_parts)

    def _limited(
        self, x: Any, num_passes: int, max_windows: int, batch_size: int, verbose: int
    ) -> Iterator[np.ndarray]:
        progress = keras.utils.Progbar(max_windows, verbose=verbose, unit_name="window")
        num_windows = 0
        for batch in limited_batches(x, num_passes, max_windows, batch_size):
            self.check_windows(batch)
            num_windows += len(batch)
            progress.update(num_windows)
            yield batch
        if num_windows < max_windows:
            progress.target = num_windows
            progress.update(num_windows, finalize=True)

    def _assign_linear_optimum(self, optimum: LinearOptimum) -> None:
        is_dense = self.architecture == "dense_temporal"
        self.encoder.get_layer("linear_mean").set_weights(optimum.encoder_weights(is_dense))
        self.decoder.get_layer("linear_window").set_weights(optimum.decoder_weights(is_dense))
        raw_scales = raw_posterior_scales(optimum.posterior_scales, self.posterior)
        self.encoder.get_layer("raw_scales").bias.assign(raw_scales)
        raw_scale = self.likelihood.to_raw_scale(np.sqrt(optimum.noise_variance))
        self.likelihood.raw_scale.assign(raw_scale)
        if self.likelihood.per_pixel:
            deviations = self.likelihood.to_raw_scale(optimum.residual_scales) - raw_scale
            bias = self.decoder.get_layer("deep_window").bias  # of one step or of several, one after the other
            of_step = np.concatenate([np.zeros_like(deviations), deviations])
            bias.assign(np.resize(of_step, bias.shape))

    @computed_once
    def refit_prior(self, x: Any, max_windows: int = 4096, batch_size: int = 32) -> None:
        """Fit the prior anew to the codes of windows, by maximum likelihood.

        `adapt` does it at the start. After training it fits the mixture to where the codes are now: to draws from the
        aggregated posterior, the mean of q(z|x) over the windows. All else stays as it is.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            max_windows: Bound on the number of windows that are used. Where there are several codes along a window, a
                dataset is walked over several times: how they follow one another takes more to tell.
            batch_size: Number of windows at once, where `x` is an array.

        Raises:
            ValueError: If there are no windows, or they do not have the model's shape.
        """
        means, scales = [], []
        num_passes = 1 if self.latent_steps == 1 else _PRIOR_PASSES
        for batch in self._limited(x, num_passes, max_windows, batch_size, verbose=0):
            posterior = self.posterior_of(batch)
            means.append(posterior.mean())
            scales.append(posterior.stddev())
        mean, scale = np.concatenate(means), np.concatenate(scales)
        # Several draws of each code where there are few: every component needs some.
        num_draws = int(np.ceil(20 * self.prior.num_components / len(mean)))
        noise = np.random.default_rng(self.seed).standard_normal((num_draws, *mean.shape))
        codes = (mean + scale * noise).reshape(-1, *mean.shape[1:])
        with reset_slots(getattr(self, "optimizer", None), self.prior.trainable_variables):
            self.prior.fit(codes, self.seed)

    @computed_once
    def refit_texture(self, x: Any, max_windows: int = 128, batch_size: int = 32) -> None:
        """Fit the texture anew to the residuals of windows.

        `adapt` does it at the start, and training changes it little.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            max_windows: Bound on the number of windows that are used.
            batch_size: Number of windows at once, where `x` is an array.

        Raises:
            ValueError: If the likelihood has no scale for each pixel, there are no windows, or they do not have the
                model's shape.
        """
        if not self.likelihood.per_pixel:
            raise ValueError(
                "Texture needs a likelihood with a scale for each pixel, such as 'heteroscedastic_gaussian'. "
                f"Received: likelihood={type(self.likelihood).__name__}"
            )
        self.texture.fit(self._residuals(x, max_windows, batch_size))

    def _residuals(self, x: Any, max_windows: int, batch_size: int) -> Iterator[np.ndarray]:
        for batch in self._limited(x, 1, max_windows, batch_size, verbose=0):
            parameters = self.decoder(self.posterior_of(batch).mean(), training=False)
            residual = (batch - self.likelihood.mean(parameters)) / self.likelihood.scale(parameters)
            yield residual.numpy()[..., 0]
