"""What a trained model is used for: from windows to codes and back, and new windows."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from spectrovae.batching import iterate_batches
from spectrovae.component_names import ComponentNames
from spectrovae.decoding import Decoding
from spectrovae.posterior import posterior_distribution
from spectrovae.prior import GaussianMixturePrior
from spectrovae.seeds import stateless_seed
from spectrovae.texture import Texture


class LatentSpace(Decoding, ComponentNames):
    """The methods of `SpectroVAE` that use its parts and train nothing.

    They take arrays or datasets, work in batches so that memory stays bounded by the result, repeat with a
    seed, and return numpy arrays.
    """

    prior: GaussianMixturePrior
    texture: Texture
    seed_generator: keras.random.SeedGenerator
    posterior: str

    def encode(self, x: Any, sample: bool = False, seed: int | None = None, batch_size: int = 32) -> np.ndarray:
        """Return the codes of windows.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            sample: Whether to draw from the posterior q(z|x) instead of taking its mean.
            seed: Integer for a draw that repeats.
            batch_size: Number of windows at once, where `x` is an array.

        Returns:
            A float32 array of shape `(num_windows, latent_dim)`, or `(num_windows, latent_steps, latent_dim)` where
            there are several codes along a window.

        Raises:
            ValueError: If the windows do not have the model's `input_shape`, or there are none.
        """
        pair = stateless_seed(seed, self.seed_generator) if sample else None
        codes = []
        for index, windows in enumerate(iterate_batches(x, batch_size)):
            posterior = self.posterior_of(windows)
            codes.append(posterior.mean() if pair is None else posterior.sample(seed=pair + tf.constant([index, 0])))
        return np.concatenate([np.asarray(batch) for batch in codes])

    def decode(self, z: Any, batch_size: int = 32, texture: float = 0.0, seed: int | None = None) -> np.ndarray:
        """Return the windows that codes stand for: their means, and texture where it is asked for.

        Args:
            z: Codes of shape `(num_windows, latent_dim)` or a dataset of batches of them. Where there are several
                codes along a window, `(num_windows, num_steps, latent_dim)` with any number of steps.
            batch_size: Number of codes at once, where `z` is an array.
            texture: How much of the residual that the likelihood says is there to draw (see `Texture`): 0 gives the
                means, which have the least error, 1 sounds most like music. Only a likelihood with a scale for each
                pixel knows where the residual is; with others, and before `adapt`, the means are returned.
            seed: Integer for a texture that repeats.

        Returns:
            A float32 array of shape `(num_windows, bins, frames, 1)` with values in [0, 1], with as many frames as the
            codes stand for.

        Raises:
            ValueError: If the codes do not have the size `latent_dim`, there are none, or `texture` is negative.
        """
        if not texture >= 0:
            raise ValueError(f"`texture` must be 0 or more. Received: texture={texture!r}")
        rng = self._random_generator(seed) if texture else None
        windows = []
        for codes in iterate_batches(z, batch_size):
            if codes.shape[-1] != self.latent_dim or len(codes.shape) != 1 + len(self.code_shape):
                expected = ", ".join(map(str, ("num_windows", *self.code_shape)))
                raise ValueError(f"Codes must have the shape ({expected}). Received: {tuple(codes.shape)}")
            windows.append(self._windows_of(codes, texture, rng))
        return np.concatenate(windows)

    def _random_generator(self, seed: int | None) -> np.random.Generator:
        return np.random.default_rng(stateless_seed(seed, self.seed_generator).numpy())

    def _windows_of(self, codes: tf.Tensor, texture: float, rng: np.random.Generator | None) -> np.ndarray:
        windows, scales = self.decoded(codes, with_scales=rng is not None)
        if rng is not None and self.likelihood.per_pixel:
            windows += texture * scales * self.texture.sample(len(windows), rng, windows.shape[2])
        return np.clip(windows, 0.0, 1.0)

    def reconstruct(self, x: Any, batch_size: int = 32, texture: float = 0.0, seed: int | None = None) -> np.ndarray:
        """Return what the mean codes of windows decode to.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            batch_size: Number of windows at once, where `x` is an array.
            texture: How much residual to draw, as in `decode`.
            seed: Integer for a texture that repeats.

        Returns:
            A float32 array of the shape of all windows, with values in [0, 1].

        Raises:
            ValueError: If the windows do not have the model's `input_shape`, or there are none.
        """
        return self.decode(self.encode(x, batch_size=batch_size), batch_size, texture, seed)

    def generate(
        self,
        num_samples: int,
        component: int | str | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
        batch_size: int = 32,
        texture: float = 1.0,
        duration: float | None = None,
    ) -> np.ndarray:
        """Draw codes from the prior and decode them.

        Args:
            num_samples: Number of windows.
            component: Index or name of the mixture component to draw from, or None for the whole mixture.
            temperature: Factor on the prior's standard deviations: below 1 more typical, above 1 more daring.
            seed: Integer for draws that repeat.
            batch_size: Number of windows at once.
            texture: How much residual to draw, as in `decode`.
            duration: Length of each in seconds, where the model has several codes along a window; by default that of a
                window. With one code, `generate_audio` makes longer pieces.

        Returns:
            A float32 array of shape `(num_samples, bins, frames, 1)` with values in [0, 1].

        Raises:
            ValueError: If an argument is out of its range.
        """
        options: dict[str, Any] = {"component": self.component_index(component), "temperature": temperature}
        num_frames = self.converter.num_frames
        if duration is not None:
            num_frames = self.num_frames_of(duration)
            options["num_steps"] = self.num_steps_for(num_frames)
        codes = self.prior.sample(num_samples, seed=seed, **options)
        return self.decode(codes, batch_size, texture, seed)[:, :, :num_frames]

    def interpolate(
        self, start: Any, end: Any, num_steps: int = 8, texture: float = 1.0, seed: int | None = None
    ) -> np.ndarray:
        """Return windows on the straight way from one code to another.

        Args:
            start: A window of shape `(bins, frames, 1)` or a code of shape `code_shape`.
            end: The same for the other end.
            num_steps: Number of windows, both ends included, 2 or more.
            texture: How much residual to draw, as in `decode`.
            seed: Integer for a texture that repeats.

        Returns:
            A float32 array of shape `(num_steps, bins, frames, 1)` with values in [0, 1].

        Raises:
            ValueError: If an end is neither a window nor a code, or there are fewer than 2 steps.
        """
        if num_steps < 2:
            raise ValueError(f"`num_steps` must be 2 or more. Received: num_steps={num_steps!r}")
        codes = np.linspace(self._as_code(start), self._as_code(end), num_steps)
        return self.decode(codes, texture=texture, seed=seed)

    def posterior_of(self, windows: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """Return q(z|x) for one batch of windows as a TensorFlow Probability distribution."""
        self.check_windows(windows)
        parameters = self.encoder(windows, training=training)
        posterior = posterior_distribution(parameters, self.posterior, self.latent_dim)
        return posterior if self.latent_steps == 1 else tfd.Independent(posterior, 1)

    def check_windows(self, windows: Any) -> None:
        """Raise a ValueError unless this is a batch of windows of the model's shape."""
        expected = self.encoder.input_shape[1:]
        if len(windows.shape) != 4 or tuple(windows.shape[1:]) != expected:
            raise ValueError(
                f"The model takes windows of shape (num_windows, {', '.join(map(str, expected))}). "
                f"Received: shape {tuple(windows.shape)}. A single window needs a first axis of 1."
            )

    def mean_window(self, parameters: tf.Tensor) -> tf.Tensor:
        """Return the mean of p(x|z), clipped to the range of windows."""
        return tf.clip_by_value(self.likelihood.mean(parameters), 0.0, 1.0)

    def _as_code(self, end: Any) -> np.ndarray:
        array = np.asarray(end, np.float32)
        if array.shape == self.code_shape:
            return array
        if array.shape == self.encoder.input_shape[1:]:
            return self.encode(array[None])[0]
        raise ValueError(
            f"An end must be a window of shape {self.encoder.input_shape[1:]} or a code of shape "
            f"{self.code_shape}. Received: shape {array.shape}"
        )
