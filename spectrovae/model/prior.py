"""The trainable Gaussian-mixture prior over codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from spectrovae.checks import check_factor, check_index, check_num_weights, check_positive_int, check_seed
from spectrovae.model.distributions import stateless_seed, to_raw_scale, to_scale
from spectrovae.model.limits import LoudnessLimits
from spectrovae.training.metrics import LIVE_SHARE, live_components

if TYPE_CHECKING:  # scikit-learn is imported when a mixture is fitted
    from sklearn.mixture import GaussianMixture


@keras.saving.register_keras_serializable(package="spectrovae")
class GaussianMixturePrior(keras.layers.Layer):
    """A mixture of diagonal Gaussians with trainable means and scales.

    The density of a code is `sum_k w_k N(z; mean_k, diag(scale_k ** 2))`: one component is chosen for the
    whole code, never one for each dimension. Calling the layer gives the log density. The layer computes in
    float32 whatever the global dtype policy, since log densities need it. Draws that would be louder than the codes
    that the prior was fitted to are moved (`LoudnessLimits`, where `fit` got the slopes for them): like a temperature
    this is not part of the density.

    Args:
        num_components: Number of Gaussians, 1 or more.
        learn_weights: Whether the mixing weights are fitted and trained as well, so that components are drawn as often
            as they are in the data. They are uniform and fixed otherwise, as in the classic model.
        min_scale: Floor of the standard deviations, in units of the code. It keeps a component from
            collapsing onto one code, where its density would grow without bound. A ceiling is not needed: the
            density that a component gives its codes grows as a scale shrinks towards their spread, so the gradient
            lowers any scale beyond it.
        seed: Integer that makes the initial means and the draws of `sample` repeat.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(..., latent_dim)`.

    Output shape:
        `(...)`: log densities in nats.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> prior = GaussianMixturePrior(num_components=3, seed=0)
        >>> codes = prior.sample(4, seed=1) if prior.built else keras.ops.zeros((4, 2))
        >>> prior(codes).shape
        TensorShape([4])
        >>> prior.responsibilities(codes).shape
        TensorShape([4, 3])
    """

    built: bool

    def __init__(
        self,
        num_components: int,
        learn_weights: bool = True,
        min_scale: float = 1e-3,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32"} | kwargs)
        if not min_scale > 0:
            raise ValueError(f"`min_scale` must be above 0. Received: min_scale={min_scale!r}")
        self.num_components = check_positive_int("num_components", num_components)
        self.learn_weights = learn_weights
        self.min_scale = min_scale
        self.seed = check_seed("seed", seed, num_bits=32)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for codes of shape `(..., latent_dim)`."""
        latent_dim = input_shape[-1]
        if latent_dim is None:
            raise ValueError(f"The last axis of codes must be known. Received: input_shape={input_shape}")
        shape = (self.num_components, latent_dim)
        check_num_weights("prior", 2 * self.num_components * latent_dim)
        self.means = self.add_weight(
            shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0, seed=self.seed), name="means"
        )
        self.raw_scales = self.add_weight(
            shape=shape, initializer=keras.initializers.Constant(to_raw_scale(1.0, self.min_scale)), name="raw_scales"
        )
        self.logits = self.add_weight(
            shape=(self.num_components,), initializer="zeros", trainable=self.learn_weights, name="logits"
        )
        self.limits = LoudnessLimits(latent_dim, name="limits")

    def call(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the log density of `codes`, in nats."""
        return self.log_prob(codes)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Drop the latent axis."""
        return tuple(input_shape[:-1])

    @property
    def scales(self) -> tf.Tensor:
        """Standard deviations, shape `(num_components, latent_dim)`, at least `min_scale`."""
        return to_scale(tf.convert_to_tensor(self.raw_scales), self.min_scale)

    @property
    def mixing_weights(self) -> tf.Tensor:
        """Probabilities of the components, shape `(num_components,)`."""
        return tf.nn.softmax(tf.convert_to_tensor(self.logits))

    def distribution(self, temperature: float = 1.0) -> tfd.MixtureSameFamily:
        """Return the mixture as a fresh distribution, so that gradients reach the weights of today.

        Args:
            temperature: Factor on the standard deviations: below 1 nearer to the means, 0 the means.
        """
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=tf.convert_to_tensor(self.logits)),
            tfd.MultivariateNormalDiag(tf.convert_to_tensor(self.means), self.scales * temperature),
        )

    def log_prob(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the log density of codes of shape `(..., latent_dim)` in nats, shape `(...)`."""
        return tf.reduce_logsumexp(self.joint_log_prob(codes), axis=-1)

    def responsibilities(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the probability that each component made each code, shape `(..., num_components)`."""
        return tf.nn.softmax(self.joint_log_prob(codes))

    def joint_log_prob(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the log of weight times density of each component, shape `(..., num_components)`."""
        self._build_for(codes)
        components = self.distribution().components_distribution
        log_weights = tf.nn.log_softmax(tf.convert_to_tensor(self.logits))
        return log_weights + components.log_prob(tf.convert_to_tensor(codes)[..., None, :])

    def sample(
        self,
        num_samples: int,
        component: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
    ) -> tf.Tensor:
        """Draw codes.

        Args:
            num_samples: Number of codes.
            component: Index of the one component to draw from, or None to draw from the mixture.
            seed: Integer for a draw that repeats, or None for a new draw each time.
            temperature: Factor on the standard deviations, 0 or more.

        Returns:
            A float32 tensor of shape `(num_samples, latent_dim)`.

        Raises:
            ValueError: If an argument is out of its range, or the layer has not seen a code yet.
        """
        self._check_draw(num_samples, component, temperature)
        pair = stateless_seed(seed, self.seed_generator)
        if component is None:
            return self.limits(self.distribution(temperature).sample(num_samples, seed=pair))
        scales = self.scales[component] * temperature
        return self.limits(tfd.MultivariateNormalDiag(self.means[component], scales).sample(num_samples, seed=pair))

    def fit(self, codes: np.ndarray, seed: int | None = None, slopes: np.ndarray | None = None) -> None:
        """Fit the mixture to codes by expectation maximisation.

        Args:
            codes: Shape `(num_codes, latent_dim)`, as many as components at least.
            seed: Integer that makes the result repeat.
            slopes: By how much each number of a code raises each band of frequencies, for `LoudnessLimits`; without
                them the limits stay as they are.
        """
        if slopes is not None:
            self.limits.fit(codes, slopes)
        mixture = self._mixture_of(codes, seed)
        self.assign_mixture(mixture.means_, np.sqrt(mixture.covariances_))
        self.assign_weights(mixture.weights_, len(codes))

    def assign_mixture(self, means: np.ndarray, scales: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Set the mixture to one that was fitted elsewhere.

        Args:
            means: Shape `(num_components, latent_dim)`.
            scales: Standard deviations of the same shape; those under the floor are raised to it.
            weights: Shape `(num_components,)`, positive. Used where the weights are learned; the mixture
                stays uniform where they are fixed.
        """
        self.means.assign(means)
        self.raw_scales.assign(to_raw_scale(scales, self.min_scale))
        if weights is not None and self.learn_weights:
            self.logits.assign(np.log(np.maximum(weights, 1e-6)))

    def assign_weights(self, shares: np.ndarray, num_codes: float) -> None:
        """Set the mixing weights, where they are learned, to how much of the codes each component makes.

        Each component counts as having made one code more, so that none is given up for good (a Dirichlet prior).

        Args:
            shares: Mean responsibility of each component for the codes, shape `(num_components,)`.
            num_codes: How many codes there are.

        Example:
            >>> prior = GaussianMixturePrior(2)
            >>> prior.build((None, 3))
            >>> prior.assign_weights(np.array([0.75, 0.25]), num_codes=8)
            >>> prior.mixing_weights.numpy().round(3)
            array([0.7, 0.3], dtype=float32)
        """
        counts = 1 + num_codes * np.asarray(shares, np.float64)
        if self.learn_weights and np.isfinite(counts).all():
            self.logits.assign(np.log(counts / counts.sum()))

    def revive(self, shares: np.ndarray, live_share: float = LIVE_SHARE) -> dict[int, int]:
        """Split components that have much to do, so that dead ones help them.

        A dead component gets the scales of the component with the greatest share, and its mean one standard deviation
        from that one's in a random direction. They divide the share, and the mixing weight where weights are learned.
        Nothing else changes. A component put on a random code instead would stay dead in 100 dimensions, since all
        other codes are nearer to the middle of a cluster than to any one of its codes.

        Args:
            shares: Mean responsibility of each component for the codes, shape `(num_components,)`.
            live_share: Dead is what has less than this part of an equal share.

        Returns:
            For each revived component the one it was put beside.

        Example:
            >>> prior = GaussianMixturePrior(3, seed=0)
            >>> prior.build((None, 2))
            >>> prior.revive(np.array([0.3, 0.7, 0.0]))
            {2: 1}
        """
        shares = np.array(shares, np.float64)
        dead = np.flatnonzero(~live_components(shares, live_share).numpy())
        if not (len(dead) and shares.max() > 0):  # or NaN
            return {}
        means, raw_scales, logits = (weight.numpy() for weight in (self.means, self.raw_scales, self.logits))
        scales = self.scales.numpy()
        revived = {}
        for component in map(int, dead):
            other = int(np.argmax(shares))
            seed = stateless_seed(None, self.seed_generator)
            direction = tf.random.stateless_normal(means[other].shape, seed).numpy()
            means[component] = means[other] + scales[other] * direction / np.linalg.norm(direction)
            scales[component], raw_scales[component] = scales[other], raw_scales[other]
            if self.learn_weights:
                logits[[component, other]] = logits[other] - np.log(2)
            shares[[component, other]] = shares[other] / 2
            revived[component] = other
        self.means.assign(means)
        self.raw_scales.assign(raw_scales)
        self.logits.assign(logits)
        return revived

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {
            "num_components": self.num_components,
            "learn_weights": self.learn_weights,
            "min_scale": self.min_scale,
            "seed": self.seed,
        }

    def _mixture_of(self, codes: np.ndarray, seed: int | None) -> GaussianMixture:
        from sklearn.mixture import GaussianMixture

        options = {"covariance_type": "diag", "reg_covar": 1e-4, "random_state": seed}
        return GaussianMixture(self.num_components, **options).fit(codes)

    def _check_draw(self, num_samples: int, component: int | None, temperature: float) -> None:
        if not self.built:
            raise ValueError("The prior does not know its `latent_dim` yet. Call it on codes, or build it, first.")
        check_positive_int("num_samples", num_samples)
        check_factor("temperature", temperature)
        check_index("component", component, self.num_components)

    def _build_for(self, codes: tf.Tensor) -> None:
        if not self.built:
            self.build(tuple(codes.shape))
            self.built = True
