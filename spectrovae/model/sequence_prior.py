"""The mixture prior over sequences of codes."""

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from spectrovae.checks import check_factor, check_positive_int
from spectrovae.model.calibration import calibrate
from spectrovae.model.course import Course
from spectrovae.model.distributions import stateless_seed
from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.transitions import Motion, Transitions
from spectrovae.training.metrics import LIVE_SHARE
from spectrovae.training.optimizer import ArrayAdam

_BATCH_SIZE, _LEARNING_RATE, _MAX_EPOCHS, _MIN_SEQUENCES = 64, 4e-3, 6, 64
_NUM_DRAWS = 4  # of each component, where there is no music to take a course from


@keras.saving.register_keras_serializable(package="spectrovae")
class SequencePrior(GaussianMixturePrior):
    """A mixture prior over sequences of codes: what kind of sound it is, and how it goes on.

    One component is chosen for the whole sequence. It says where the first code lies and what moves all others; from
    there each code follows from those before it (`Transitions`):

        p(z_1, ..., z_T) = sum_k w_k N(z_1; mean_k, diag(scale_k ** 2)) prod_t p(z_t | z_1, ..., z_{t-1}, k).

    A sequence of one code has the density of `GaussianMixturePrior`. In draws of longer ones, what the experts add is
    scaled by a factor for each component and dimension, near 1, that `fit` finds. Like a temperature it is not part of
    the density.

    Args:
        num_components: Number of components, 1 or more.
        learn_weights: Whether the mixing weights are fitted and trained as well.
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
        learn_weights: bool = True,
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
        shape = (self.num_components, latent_dim)
        self.offsets = self.add_weight(shape=shape, initializer="zeros", name="offsets")
        self.pulls = self.add_weight(shape=shape, initializer="zeros", name="pulls")
        self.log_spreads = self.add_weight(shape=shape, initializer="zeros", name="log_spreads")
        self.log_draw_factors = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="log_draw_factors"
        )
        self.course = Course(latent_dim, name="course")
        self.transitions = Transitions(latent_dim, self.num_experts, num_steps, self.min_scale, name="transitions")

    @property
    def motion(self) -> Motion:
        """How each component moves codes by the density, shape `(num_components, latent_dim)`."""
        return Motion(*(tf.convert_to_tensor(weight) for weight in self._motion_weights))

    @property
    def draw_motion(self) -> Motion:
        """How each component moves codes in draws: by the density, but for the factors that `fit` finds."""
        motion = self.motion
        return motion._replace(log_spreads=motion.log_spreads + self.log_draw_factors)

    @property
    def _motion_weights(self) -> tuple[keras.Variable, ...]:
        return self.offsets, self.pulls, self.log_spreads

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Drop the axes of a sequence."""
        return tuple(input_shape[:-2])

    def joint_log_prob(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the log of weight times density, over `(..., num_steps, latent_dim)`, of each component."""
        self._build_for(codes)
        return super().joint_log_prob(codes[..., 0, :]) + self.transitions.log_prob(codes, self.motion)

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
        return self.compose(components[:, None], num_steps, temperature, pair)

    def compose(self, components: np.ndarray, num_steps: int, temperature: float, seed: tf.Tensor) -> tf.Tensor:
        """Draw sequences of any length, which go on as the music does that the prior was fitted to.

        What learned from windows does not know how music keeps to itself for longer: alone it wanders off, into silence
        for one. So the mean of some steps is pulled along a course (`Course`): from where the first window ends to
        where music like it went, and so on, by half a window at a time.

        Args:
            components: The components that parts of equal length shall be of, `(num_samples, num_parts)`; -1 for what
                follows by itself, but not in the first part.
            num_steps: Length of the sequences; up to that of a window they are exact draws from the prior.
            temperature: Factor on the standard deviations, 0 or more.
            seed: Two integers.

        Returns:
            A float32 tensor of shape `(num_samples, num_steps, latent_dim)`.
        """
        start = self.continue_from(components[:, :1].repeat(self.num_steps, axis=1), temperature, seed)
        num_first = self.num_steps
        if num_steps <= num_first:
            return start[:, :num_steps]
        course = self.course if self.course.is_known else self._course_of_draws(temperature, seed)
        half = max(1, self.num_steps // 2)
        of_part = np.concatenate([[0], np.arange(num_first, num_steps, half) * components.shape[1] // num_steps])
        rng = np.random.default_rng(np.asarray(seed).astype(np.uint32))
        points, owners = course.walk(start.numpy()[:, -half:].mean(axis=1), components[:, of_part], rng)
        position = np.arange(1, num_steps - num_first + 1) / half
        left = np.minimum(position.astype(int), points.shape[1] - 2)
        share = np.minimum(position - left, 1)[:, None]
        anchors = (1 - share) * points[:, left] + share * points[:, left + 1]
        of_step = owners.repeat(half, axis=1)[:, : num_steps - num_first]
        following = self.continue_from(of_step, temperature, np.asarray(seed) + 1, start, anchors)
        return tf.concat([start, following], axis=1)

    def _course_of_draws(self, temperature: float, seed: tf.Tensor) -> Course:
        """Return a course of sequences drawn from a prior that has not been fitted."""
        components = np.arange(self.num_components).repeat(_NUM_DRAWS)
        drawn = self.continue_from(components[:, None].repeat(self.num_steps, axis=1), temperature, seed)
        course = Course(self.means.shape[1])
        course.fit(drawn.numpy(), components)
        return course

    def continue_from(
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
        check_factor("temperature", temperature)
        motion = self.draw_motion.pick(components)
        if past is not None:
            return self.transitions.sample(tf.cast(past, tf.float32), motion, seed, temperature, anchors, self.limits)
        scales = temperature * tf.gather(self.scales, components[:, 0])
        noise = tf.random.stateless_normal(scales.shape, seed + tf.constant([2, 0]))
        first = self.limits(tf.gather(self.means, components[:, 0]) + scales * noise)[:, None]
        if components.shape[1] == 1:
            return first
        following = Motion(*(values[:, 1:] for values in motion))
        drawn = self.transitions.sample(first, following, seed, temperature, limits=self.limits)
        return tf.concat([first, drawn], axis=1)

    def fit(self, codes: np.ndarray, seed: int | None = None, slopes: np.ndarray | None = None) -> None:
        """Fit the prior to sequences: in closed form first, then by gradient as long as held-out ones gain.

        At last it is corrected until draws vary as the codes do (`calibrate`).

        Args:
            codes: Shape `(num_sequences, num_steps, latent_dim)`, as many as components at least.
            seed: Integer that makes the result repeat.
            slopes: By how much each number of a code raises each band of frequencies, for `LoudnessLimits`; without
                them the limits stay as they are.
        """
        if slopes is not None:
            self.limits.fit(codes, slopes)
        averages = codes.mean(axis=1)
        kinds = self._mixture_of(averages, seed)
        shares = kinds.predict_proba(averages)
        weights = shares / np.maximum(shares.sum(axis=0), 1e-6)
        means = np.einsum("nk,ntd->kd", weights, codes) / codes.shape[1]
        variances = np.einsum("nk,ntd->kd", weights, np.square(codes)) / codes.shape[1] - np.square(means)
        self.assign_mixture(means, np.sqrt(np.maximum(variances, 1e-4)), kinds.weights_)
        self.log_draw_factors.assign(np.zeros(means.shape))
        self._assign_motion(self.transitions.start_from(codes, shares, seed))
        if len(codes) >= _MIN_SEQUENCES:
            codes = codes.astype(np.float32)
            self._descend(codes, np.random.default_rng(seed))
            shares = self.responsibilities(codes).numpy()
            if codes.shape[1] > 1:
                calibrate(self, codes, shares, seed)
        self.assign_weights(shares.mean(axis=0), len(codes))
        self.course.fit(codes, np.argmax(shares, axis=1), seed)

    def revive(self, shares: np.ndarray, live_share: float = LIVE_SHARE) -> dict[int, int]:
        """Split components that have much to do, as in `GaussianMixturePrior`; they go on alike."""
        revived = super().revive(shares, live_share)
        for weight in (*self._motion_weights, self.log_draw_factors):
            values = weight.numpy()
            for component, other in revived.items():
                values[component] = values[other]
            weight.assign(values)
        return revived

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"num_experts": self.num_experts}

    def _assign_motion(self, motion: Iterable[np.ndarray]) -> None:
        for weight, values in zip(self._motion_weights, motion, strict=True):
            weight.assign(values)

    def _descend(self, codes: np.ndarray, rng: np.random.Generator) -> None:
        """Follow the gradient of the log density; keep the weights that are best for an eighth of the sequences.

        For two epochs each sequence stays with the component that is likeliest to have made it: that is a bound on the
        density, nearly tight for codes of many numbers, at the cost of one component instead of all.
        """
        codes = rng.permutation(codes)
        held_out, codes = np.split(codes, [len(codes) // 8])
        optimizer = ArrayAdam(self.trainable_variables, _LEARNING_RATE)

        @tf.function(autograph=False)
        def gradients_for(batch: tf.Tensor, components: tf.Tensor) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(self._log_prob_with(batch, components))
            gradients = tape.gradient(loss, self.trainable_variables)
            return [tf.convert_to_tensor(gradient) for gradient in gradients]  # those of gathered rows are sparse

        batch_size = min(_BATCH_SIZE, len(codes))
        best, weights = float(tf.reduce_mean(self.log_prob(held_out))), self.get_weights()
        for epoch in range(_MAX_EPOCHS):
            if epoch % 2 == 0:
                components = np.argmax(self.responsibilities(codes), axis=-1)
            order = rng.permutation(len(codes))
            # All batches of one size, so that the step is traced once.
            batches = order[: len(codes) // batch_size * batch_size].reshape(-1, batch_size)
            for step, rows in enumerate(batches):
                optimizer.learning_rate = _LEARNING_RATE * (1 - (epoch + step / len(batches)) / _MAX_EPOCHS)
                optimizer.apply(gradients_for(codes[rows], components[rows]))
            value = float(tf.reduce_mean(self.log_prob(held_out)))
            if value > best:
                best, weights = value, self.get_weights()
        self.set_weights(weights)

    def _log_prob_with(self, codes: tf.Tensor, components: tf.Tensor) -> tf.Tensor:
        """Return the log of weight times density of one given component for each sequence, shape `(num_sequences,)`."""
        means, scales = (tf.gather(values, components) for values in (tf.convert_to_tensor(self.means), self.scales))
        first = tfd.MultivariateNormalDiag(means, scales).log_prob(codes[:, 0])
        log_weights = tf.gather(tf.nn.log_softmax(tf.convert_to_tensor(self.logits)), components)
        return log_weights + first + self.transitions.log_prob_of(codes, self.motion.pick(components))
