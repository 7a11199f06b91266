"""The mixture prior over sequences of codes."""

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spectrovae.checks import check_factor, check_num_weights, check_positive_int
from spectrovae.model.distributions import stateless_seed, to_raw_scale, to_scale
from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.walks import walk_between
from spectrovae.training.metrics import LIVE_SHARE
from spectrovae.training.optimizer import ArrayAdam

TIME_CONSTANTS = (1.5, 8.0, 64.0)
"""In how many steps the summaries of the past forget, beside the last code itself."""

# Codes have about unit variance: this is nothing beside an hour of music and much beside a few windows.
_RIDGE = 10.0

# Of the summaries the one that is anchored, and by which share of what is missing each step comes nearer.
_ANCHORED = 2

_PULL = 0.1

_NUM_RESIDUALS = 10_000

_MAX_ITERATIONS = 30


@keras.saving.register_keras_serializable(package="spectrovae")
class Transitions(keras.layers.Layer):
    """The density of a code given the codes before it: gated linear Gaussians.

    The past is summarised by the last code and by running means of the last `memory` codes that forget at different
    speeds, h in all. Where the sequence as a whole belongs to component k of a prior, which moves it by `b_k`,

        p(z | past, k) = sum_j w_j N(z; A h + b_k + m_j, S_j),   w = softmax(G h + g).

    A says what all music has in common, the experts j how it goes on: held, decaying, struck. They differ in what they
    add, not in A: so no sequence of experts can make the codes grow without bound. In case training has moved A, draws
    stay within the range of the codes that the layer was started from. Jacobs et al., "Adaptive mixtures of local
    experts" (Neural Computation, 1991); Wong and Li, "On a mixture autoregressive model" (JRSS B, 2000).

    Args:
        latent_dim: Size of a code.
        num_experts: Number of Gaussians, 1 or more.
        memory: How many codes of the past are looked at.
        min_scale: Floor of the standard deviations.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> transitions = Transitions(latent_dim=2, num_experts=3, memory=4)
        >>> codes, offsets = tf.zeros((5, 4, 2)), tf.zeros((1, 2))
        >>> transitions.log_prob(codes, offsets).shape
        TensorShape([5, 1])
    """

    def __init__(
        self, latent_dim: int, num_experts: int = 8, memory: int = 32, min_scale: float = 1e-3, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.num_experts = check_positive_int("num_experts", num_experts)
        self.memory = check_positive_int("memory", memory)
        self.min_scale = min_scale
        num_summaries = (1 + len(TIME_CONSTANTS)) * latent_dim
        check_num_weights("prior", num_summaries * (latent_dim + num_experts) + num_experts * latent_dim**2)

        def weight(name: str, *shape: int, value: float = 0.0, trainable: bool = True) -> keras.Variable:
            initializer = keras.initializers.Constant(value)
            return self.add_weight(shape=shape, initializer=initializer, trainable=trainable, name=name)

        self.coefficients = weight("coefficients", num_summaries, latent_dim)
        self.gate_kernel = weight("gate_kernel", num_summaries, num_experts)
        self.gate_bias = weight("gate_bias", num_experts)
        self.means = weight("means", num_experts, latent_dim)
        self.correlations = weight("correlations", num_experts, latent_dim, latent_dim)
        raw_scale = float(to_raw_scale(1.0, min_scale))
        self.raw_scales = weight("raw_scales", num_experts, latent_dim, value=raw_scale)
        self.lowest = weight("lowest", latent_dim, value=-np.inf, trainable=False)
        self.highest = weight("highest", latent_dim, value=np.inf, trainable=False)
        self.built = True

    def log_prob(self, codes: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
        """Return the log density of all codes of a sequence but the first, for each component.

        Args:
            codes: Shape `(..., num_steps, latent_dim)`.
            offsets: `b_k`, shape `(num_components, latent_dim)`.

        Returns:
            Shape `(..., num_components)`, in nats, summed over the steps.
        """
        summaries = self.summarize(codes)[..., :-1, :]
        whitening, scales = self._whitening, self._scales
        innovations = codes[..., 1:, :] - summaries @ self.coefficients
        # One matrix product for all experts: (..., steps, J * dim).
        standardized = innovations @ tf.reshape(tf.transpose(whitening, (2, 0, 1)), (self.latent_dim, -1))
        standardized = tf.reshape(standardized, tf.concat([tf.shape(innovations)[:-1], self.means.shape], axis=0))
        standardized -= tf.linalg.matvec(whitening, self.means)
        shifts = tf.einsum("jed,kd->kje", whitening, offsets)
        # |u - c| ** 2 multiplied out: no array of steps by components by experts by dimensions.
        squares = (
            tf.reduce_sum(tf.square(standardized), -1)[..., None, :]
            - 2 * tf.einsum("...jd,kjd->...kj", standardized, shifts)
            + tf.reduce_sum(tf.square(shifts), -1)
        )
        normalizers = tf.reduce_sum(tf.math.log(scales), -1) + 0.5 * self.latent_dim * np.log(2 * np.pi)
        gates = tf.nn.log_softmax(self._gates(summaries))[..., None, :]  # (..., steps, 1, J)
        return tf.reduce_sum(tf.reduce_logsumexp(gates - normalizers - 0.5 * squares, axis=-1), axis=-2)

    def sample(
        self,
        past: tf.Tensor,
        offsets: tf.Tensor,
        seed: tf.Tensor,
        temperature: float = 1.0,
        anchors: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Draw the codes that follow.

        Args:
            past: The codes so far, shape `(num_samples, num_past_steps, latent_dim)`, at least one step.
            offsets: What moves each step that is drawn, shape `(num_samples, num_steps, latent_dim)`.
            seed: Two integers.
            temperature: Factor on the standard deviations.
            anchors: Where the mean of some steps shall lie, of the shape of `offsets`: it is pulled there gently.

        Returns:
            Shape `(num_samples, num_steps, latent_dim)`.
        """
        num_samples, num_steps, latent_dim = offsets.shape
        seeds = tf.random.split(seed)
        noise = tf.random.stateless_normal((num_steps, num_samples, latent_dim), seeds[0])
        uniform = tf.random.stateless_uniform((num_steps, num_samples, self.num_experts), seeds[1], minval=1e-7)
        roots = tf.linalg.inv(self._whitening)
        recent, drawn = past[:, -self.memory :], []
        for step in range(num_steps):
            summaries = self.summarize(recent)[:, -1]
            experts = tf.argmax(self._gates(summaries) - tf.math.log(-tf.math.log(uniform[step])), axis=-1)
            spread = tf.linalg.matvec(tf.gather(roots, experts), noise[step])
            mean = summaries @ self.coefficients + offsets[:, step] + tf.gather(self.means, experts)
            if anchors is not None:
                held = summaries[:, latent_dim * _ANCHORED : latent_dim * (_ANCHORED + 1)]
                mean += _PULL * (anchors[:, step] - held)
            drawn.append(tf.clip_by_value(mean + temperature * spread, self.lowest, self.highest))
            recent = tf.concat([recent, drawn[-1][:, None]], axis=1)[:, -self.memory :]
        return tf.stack(drawn, axis=1)

    def summarize(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the summary of the past after each step, shape `(..., num_steps, (1 + time constants) * latent_dim)`.

        Args:
            codes: Shape `(..., num_steps, latent_dim)`.
        """
        num_steps = codes.shape[-2]
        age = np.subtract.outer(np.arange(num_steps), np.arange(num_steps))
        is_past = (age >= 0) & (age < self.memory)
        decays = [np.where(is_past, np.exp(-np.maximum(age, 0) / constant), 0) for constant in TIME_CONSTANTS]
        weights = np.stack([decay / decay.sum(axis=1, keepdims=True) for decay in decays])
        means = tf.einsum("stu,...ud->...tsd", tf.constant(weights, tf.float32), codes)
        summaries = tf.concat([codes[..., None, :], means], axis=-2)
        return tf.reshape(summaries, tf.concat([tf.shape(codes)[:-1], [(1 + len(weights)) * self.latent_dim]], axis=0))

    def start_from(self, codes: np.ndarray, shares: np.ndarray, seed: int | None = None) -> np.ndarray:
        """Set the weights to the closed form of music that goes on in the same way whatever came before.

        The coefficients by ridge regression, the experts by expectation maximisation on what it leaves.

        Args:
            codes: Shape `(num_sequences, num_steps, latent_dim)`.
            shares: How much each sequence belongs to each component, `(num_sequences, num_components)`.
            seed: Integer that makes the result repeat.

        Returns:
            The offset of each component, `(num_components, latent_dim)`.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        num_steps, dim = codes.shape[1] - 1, self.latent_dim
        summaries = self.summarize(tf.constant(codes, tf.float32))[:, :-1].numpy().reshape(len(codes) * num_steps, -1)
        inputs = np.concatenate([summaries, np.repeat(shares, num_steps, axis=0)], axis=1).astype(np.float64)
        targets = codes[:, 1:].reshape(-1, dim)
        solution = np.linalg.solve(inputs.T @ inputs + _RIDGE * np.eye(inputs.shape[1]), inputs.T @ targets)
        residuals = targets - inputs @ solution
        sample = np.random.default_rng(seed).permutation(len(residuals))[:_NUM_RESIDUALS]
        num_experts = min(self.num_experts, 1 + len(sample) // (2 * dim))
        mixture = GaussianMixture(num_experts, reg_covar=self.min_scale**2, max_iter=_MAX_ITERATIONS, random_state=seed)
        with warnings.catch_warnings():  # a start need not have converged
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(residuals[sample])
        missing = (0, self.num_experts - mixture.n_components)
        # A precision's Cholesky factor is upper triangular here: its transpose whitens.
        factors = np.swapaxes(mixture.precisions_cholesky_, 1, 2)
        factors = np.concatenate([factors, np.tile(np.eye(dim), (missing[1], 1, 1))])
        scales = 1 / np.diagonal(factors, axis1=1, axis2=2)
        self.coefficients.assign(solution[: summaries.shape[1]])
        self.means.assign(np.pad(mixture.means_, (missing, (0, 0))))
        self.correlations.assign(np.tril(factors * scales[..., None], -1))
        self.raw_scales.assign(to_raw_scale(scales, self.min_scale))
        self.gate_kernel.assign(np.zeros(self.gate_kernel.shape))
        self.gate_bias.assign(np.pad(np.log(mixture.weights_), missing, constant_values=-10.0))
        self.lowest.assign(codes.min(axis=(0, 1)))
        self.highest.assign(codes.max(axis=(0, 1)))
        return solution[summaries.shape[1] :]

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        names = ("latent_dim", "num_experts", "memory", "min_scale")
        return super().get_config() | {name: getattr(self, name) for name in names}

    @property
    def _whitening(self) -> tf.Tensor:
        """Maps from innovations to standard normal numbers, lower triangular, shape `(num_experts, dim, dim)`."""
        lower = tf.linalg.band_part(tf.convert_to_tensor(self.correlations), -1, 0)
        lower = tf.linalg.set_diag(lower, tf.ones((self.num_experts, self.latent_dim)))
        return lower / self._scales[..., None]

    @property
    def _scales(self) -> tf.Tensor:
        return to_scale(tf.convert_to_tensor(self.raw_scales), self.min_scale)

    def _gates(self, summaries: tf.Tensor) -> tf.Tensor:
        return summaries @ self.gate_kernel + self.gate_bias


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
        drawn = self.continue_from(
            np.repeat(components.reshape(-1, 1), self.num_steps, axis=1), temperature, seed
        ).numpy()
        drawn = drawn.reshape(num_samples, num_waypoints, self.num_steps, -1)
        start = drawn[:, 0, :num_steps]
        num_left = num_steps - start.shape[1]
        if not num_left:
            return tf.constant(start)
        means, scales = (np.asarray(values)[components] for values in (self.means, self.scales))
        deviations = (drawn.mean(axis=2) - means) / scales
        anchors = np.stack([walk_between(*way, num_steps) for way in zip(means, scales, deviations, strict=True)])
        of_step = components[:, np.arange(num_steps) * num_waypoints // num_steps]
        following = self.continue_from(of_step[:, -num_left:], temperature, seed + 1, start, anchors[:, -num_left:])
        return tf.concat([start, following], axis=1)

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
