"""The mixture prior over sequences of codes."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spectrovae.checks import check_positive_int
from spectrovae.metrics import LIVE_SHARE
from spectrovae.optimizer import ArrayAdam
from spectrovae.prior import GaussianMixturePrior
from spectrovae.seeds import stateless_seed
from spectrovae.transitions import Transitions
from spectrovae.walks import walk_between

_BATCH_SIZE, _LEARNING_RATE, _MAX_EPOCHS, _MIN_SEQUENCES = 64, 2e-3, 12, 64
_WINDOWS_PER_WAYPOINT = 2


@keras.saving.register_keras_serializable(package="spectrovae")
class SequencePrior(GaussianMixturePrior):
    """A mixture prior over sequences of codes: what kind of sound it is, and how it goes on.

    One component is chosen for the whole sequence. It says where the first code lies and what moves all others; from
    there each code follows from those before it (`Transitions`):

        p(z_1, ..., z_T) = sum_k w_k N(z_1; mean_k, diag(scale_k ** 2)) prod_t p(z_t | z_1, ..., z_{t-1}, k).

    A sequence of one code has the density of `GaussianMixturePrior`.

    Args:
        num_components: Number of components, 1 or more.
        learn_weights: Whether the mixing weights are trained as well.
        min_scale: Floor of the standard deviations, in units of the code.
        seed: Integer that makes the initial means and the draws of `sample` repeat.
        num_experts: Number of Gaussians for the step from the past to the next code.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Input shape:
        `(..., num_steps, latent_dim)`.

    Output shape:
        `(...)`: log densities in nats.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> prior = SequencePrior(num_components=3, seed=0)
        >>> prior.build((None, 4, 2))
        >>> codes = prior.sample(5, num_steps=9, seed=1)
        >>> codes.shape, prior(codes).shape, prior.responsibilities(codes).shape
        (TensorShape([5, 9, 2]), TensorShape([5]), TensorShape([5, 3]))
    """

    def __init__(
        self,
        num_components: int,
        learn_weights: bool = False,
        min_scale: float = 1e-3,
        seed: int | None = None,
        num_experts: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_components, learn_weights, min_scale, seed, **kwargs)
        self.num_experts = check_positive_int("num_experts", num_experts)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for codes of shape `(..., num_steps, latent_dim)`."""
        num_steps, latent_dim = input_shape[-2:] if len(input_shape) > 1 else (None, None)
        if num_steps is None or latent_dim is None:
            raise ValueError(f"Sequences of codes are (..., num_steps, latent_dim). Received: shape {input_shape}")
        super().build(input_shape)
        self.num_steps = num_steps
        self.offsets = self.add_weight(shape=(self.num_components, latent_dim), initializer="zeros", name="offsets")
        self.transitions = Transitions(latent_dim, self.num_experts, num_steps, self.min_scale, name="transitions")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Drop the axes of a sequence."""
        return tuple(input_shape[:-2])

    def log_prob(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the log density of sequences of shape `(..., num_steps, latent_dim)` in nats, shape `(...)`."""
        return tf.reduce_logsumexp(self._joint_log_prob(codes), axis=-1)

    def responsibilities(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the probability that each component made each sequence, shape `(..., num_components)`."""
        return tf.nn.softmax(self._joint_log_prob(codes))

    def sample(
        self,
        num_samples: int,
        component: int | None = None,
        seed: int | None = None,
        temperature: float = 1.0,
        num_steps: int | None = None,
    ) -> tf.Tensor:
        """Draw sequences of codes.

        Args:
            num_samples: Number of sequences.
            component: Index of the one component to draw from, or None to draw one for each sequence.
            seed: Integer for a draw that repeats, or None for a new draw each time.
            temperature: Factor on the standard deviations, 0 or more.
            num_steps: Length of the sequences, by default that of the codes the prior was built for.

        Returns:
            A float32 tensor of shape `(num_samples, num_steps, latent_dim)`.

        Raises:
            ValueError: If an argument is out of its range, or the layer has not seen codes yet.
        """
        self._check_draw(num_samples, component, temperature)
        num_steps = self.num_steps if num_steps is None else check_positive_int("num_steps", num_steps)
        pair = stateless_seed(seed, self.seed_generator)
        if component is None:
            logits = tf.convert_to_tensor(self.logits)[None]
            components = tf.random.stateless_categorical(logits, num_samples, pair + tf.constant([1, 0]))[0].numpy()
        else:
            components = np.full(num_samples, component)
        num_waypoints = 1 + round(num_steps / (_WINDOWS_PER_WAYPOINT * self.num_steps))
        return self.compose(components[:, None].repeat(num_waypoints, axis=1), num_steps, temperature, pair)

    def compose(self, components: np.ndarray, num_steps: int, temperature: float, seed: tf.Tensor) -> tf.Tensor:
        """Draw sequences of any length that go from one kind of sound to the next.

        What learned from windows does not know how music keeps to itself for longer: alone it wanders off, into silence
        for one. So windows are drawn first as way points. The sequence begins as the first of them, and its mean is
        pulled gently along a smooth walk through theirs.

        Args:
            components: The component of each way point, evenly spaced in time, `(num_samples, num_waypoints)`.
            num_steps: Length of the sequences; up to that of a window they are exact draws from the prior.
            temperature: Factor on the standard deviations, 0 or more.
            seed: Two integers.

        Returns:
            A float32 tensor of shape `(num_samples, num_steps, latent_dim)`.
        """
        num_samples, num_waypoints = components.shape
        drawn = self.go_on(np.repeat(components.reshape(-1, 1), self.num_steps, axis=1), temperature, seed).numpy()
        drawn = drawn.reshape(num_samples, num_waypoints, self.num_steps, -1)
        start = drawn[:, 0, :num_steps]
        num_left = num_steps - start.shape[1]
        if not num_left:
            return tf.constant(start)
        means, scales = (np.asarray(values)[components] for values in (self.means, self.scales))
        deviations = (drawn.mean(axis=2) - means) / scales
        anchors = np.stack([walk_between(*way, num_steps) for way in zip(means, scales, deviations, strict=True)])
        of_step = components[:, np.arange(num_steps) * num_waypoints // num_steps]
        following = self.go_on(of_step[:, -num_left:], temperature, seed + 1, start, anchors[:, -num_left:])
        return tf.concat([start, following], axis=1)

    def go_on(
        self,
        components: np.ndarray,
        temperature: float,
        seed: tf.Tensor,
        past: np.ndarray | None = None,
        anchors: np.ndarray | None = None,
    ) -> tf.Tensor:
        """Draw the sequences that follow a past, or new ones.

        Args:
            components: The component at each step that is drawn, shape `(num_samples, num_steps)`.
            temperature: Factor on the standard deviations, 0 or more.
            seed: Two integers.
            past: The codes so far, shape `(num_samples, num_past_steps, latent_dim)`, or None to begin with a code of
                the first component.
            anchors: Where the mean of some steps shall lie, `(num_samples, num_steps, latent_dim)`, after a past.

        Returns:
            A float32 tensor of shape `(num_samples, num_steps, latent_dim)`.
        """
        offsets = tf.gather(self.offsets, components)
        if past is not None:
            return self.transitions.sample(tf.cast(past, tf.float32), offsets, seed, temperature, anchors)
        scales = temperature * tf.gather(self.scales, components[:, 0])
        noise = tf.random.stateless_normal(scales.shape, seed + tf.constant([2, 0]))
        first = (tf.gather(self.means, components[:, 0]) + scales * noise)[:, None]
        if components.shape[1] == 1:
            return first
        return tf.concat([first, self.transitions.sample(first, offsets[:, 1:], seed, temperature)], axis=1)

    def fit(self, codes: np.ndarray, seed: int | None = None) -> None:
        """Fit the prior to sequences: in closed form first, then by gradient as long as held-out ones gain.

        Args:
            codes: Shape `(num_sequences, num_steps, latent_dim)`, as many as components at least.
            seed: Integer that makes the result repeat.
        """
        averages = codes.mean(axis=1)
        kinds = self._mixture_of(averages, seed)
        shares = kinds.predict_proba(averages)
        weights = shares / np.maximum(shares.sum(axis=0), 1e-6)
        means = np.einsum("nk,ntd->kd", weights, codes) / codes.shape[1]
        variances = np.einsum("nk,ntd->kd", weights, np.square(codes)) / codes.shape[1] - np.square(means)
        self.assign_mixture(means, np.sqrt(np.maximum(variances, 1e-4)), kinds.weights_)
        self.offsets.assign(self.transitions.start_from(codes, shares, seed))
        if len(codes) >= _MIN_SEQUENCES:
            self._descend(codes.astype(np.float32), np.random.default_rng(seed))

    def revive(self, shares: np.ndarray, live_share: float = LIVE_SHARE) -> dict[int, int]:
        """Split components that have much to do, as in `GaussianMixturePrior`; they go on alike."""
        revived = super().revive(shares, live_share)
        offsets = self.offsets.numpy()
        for component, other in revived.items():
            offsets[component] = offsets[other]
        self.offsets.assign(offsets)
        return revived

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"num_experts": self.num_experts}

    def _joint_log_prob(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the log of weight times density of each component, shape `(..., num_components)`."""
        self._build_for(codes)
        first = self.distribution().components_distribution.log_prob(codes[..., 0, None, :])
        log_weights = tf.nn.log_softmax(tf.convert_to_tensor(self.logits))
        return log_weights + first + self.transitions.log_prob(codes, tf.convert_to_tensor(self.offsets))

    def _descend(self, codes: np.ndarray, rng: np.random.Generator) -> None:
        """Follow the gradient of the log density; keep the weights that are best for an eighth of the sequences."""
        codes = rng.permutation(codes)
        held_out, codes = np.split(codes, [len(codes) // 8])
        optimizer = ArrayAdam(self.trainable_variables, _LEARNING_RATE)

        @tf.function(autograph=False)
        def gradients_for(batch: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(self.log_prob(batch))
            return tape.gradient(loss, self.trainable_variables)

        batch_size = min(_BATCH_SIZE, len(codes))
        best, weights = float(tf.reduce_mean(self.log_prob(held_out))), self.get_weights()
        for _ in range(_MAX_EPOCHS):
            order = rng.permutation(len(codes))
            # All batches of one size, so that the step is traced once.
            for rows in order[: len(codes) // batch_size * batch_size].reshape(-1, batch_size):
                optimizer.apply(gradients_for(codes[rows]))
            value = float(tf.reduce_mean(self.log_prob(held_out)))
            if value > best:
                best, weights = value, self.get_weights()
        self.set_weights(weights)
