"""How a code follows from those before it."""

import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from spectrovae.checks import check_num_weights, check_positive_int
from spectrovae.model.distributions import to_raw_scale, to_scale
from spectrovae.model.limits import LoudnessLimits, limit_levels

TIME_CONSTANTS = (1.5, 8.0, 64.0)
"""In how many steps the summaries of the past forget, beside the last code itself."""

# Codes have about unit variance: this is nothing beside an hour of music and much beside a few windows.
_RIDGE = 10.0
# Of the summaries the one that is anchored, and by which share of what is missing each step comes nearer.
_ANCHORED = 2
_PULL = 0.1
# Of the summaries the one that a component pulls to its own mean: what a sequence has been like so far.
_PULLED = 3
# How near to the last code, in each dimension, an earlier one must be for what followed it to be recalled.
_BANDWIDTH = 0.3

_NUM_RESIDUALS = 10_000
_MAX_ITERATIONS = 15


class Motion(NamedTuple):
    """How components move codes: three tensors of one shape, `(..., latent_dim)`.

    Attributes:
        offsets: What is added at each step, `b_k`.
        pulls: The share of the slow running mean that is taken off at each step, `c_k`. With a fitting offset, it
            draws a sequence to the component's mean; below 0 it lets it wander.
        log_spreads: The logarithm of the factor `s_k` on what the experts add.
    """

    offsets: tf.Tensor
    pulls: tf.Tensor
    log_spreads: tf.Tensor

    @classmethod
    def plain(cls, offsets: tf.Tensor) -> "Motion":
        """Return the motion that only adds offsets."""
        offsets = tf.convert_to_tensor(offsets)
        return cls(offsets, tf.zeros_like(offsets), tf.zeros_like(offsets))

    def pick(self, components: np.ndarray) -> "Motion":
        """Return the motion of each of the given components, the axes of `components` first."""
        return Motion(*(tf.gather(each, components) for each in self))


def _any_shape(rank: int) -> tf.TensorSpec:
    return tf.TensorSpec(rank * [None], tf.float32)


_DRAW_SIGNATURE = (
    _any_shape(3),  # recent
    Motion(_any_shape(3), _any_shape(3), _any_shape(3)),
    *[_any_shape(3)] * 3,  # decays, noise, uniform
    _any_shape(0),  # temperature
    _any_shape(3),  # anchors
    _any_shape(0),  # pull
    _any_shape(2),  # directions
    _any_shape(1),  # highest
)


def _recall(last: tf.Tensor, codes: tf.Tensor, is_past: tf.Tensor) -> tf.Tensor:
    """Return what followed codes like the last ones, or the last ones where nothing has followed yet.

    Args:
        last: Shape `(..., num_queries, latent_dim)`.
        codes: All in order, shape `(..., num_steps, latent_dim)`.
        is_past: Which of them but the final one each query may recall, shape `(num_queries, num_steps - 1)`. The last
            code itself is not among them, since what follows it is not known.

    Returns:
        The shape of `last`.
    """
    past, following = codes[..., :-1, :], codes[..., 1:, :]
    products = tf.matmul(last, past, transpose_b=True)
    squares = tf.reduce_sum(tf.square(past), axis=-1)[..., None, :] - 2 * products  # but for those of the queries
    scores = tf.where(is_past, -squares / (2 * _BANDWIDTH**2 * codes.shape[-1]), -1e9)
    weights = tf.where(is_past, tf.nn.softmax(scores), 0)
    return weights @ following + (1 - tf.reduce_sum(weights, axis=-1, keepdims=True)) * last


@keras.saving.register_keras_serializable(package="spectrovae")
class Transitions(keras.layers.Layer):
    """The density of a code given the codes before it: gated linear Gaussians.

    The summary h of the past has the last code, running means of the last `memory` codes that forget at different
    speeds, the slowest of them r, and a mean of what followed codes like the last one, with Gaussian weights. Music
    repeats itself, and analogues foretell what comes (Lorenz, "Atmospheric predictability as revealed by naturally
    occurring analogues", Journal of the Atmospheric Sciences, 1969). Where the sequence as a whole belongs to component
    k of a prior, which moves it as its `Motion` says (by an offset b, a pull c and a spread s),

        z = A h - c_k r + b_k + s_k u,   p(u | past) = sum_j w_j N(u; m_j, S_j),   w = softmax(G h + g).

    A says what all music has in common, the experts j how it goes on: held, decaying, struck. They differ in what they
    add, not in A: so no sequence of experts can make the codes grow without bound. In case training has moved A, draws
    stay within the range of the codes that the layer was started from; those that are cut off there are no exact draws
    from the density. Jacobs et al., "Adaptive mixtures of local experts" (Neural
    Computation, 1991); Wong and Li, "On a mixture autoregressive model" (JRSS B, 2000).

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
        >>> codes, motion = tf.zeros((5, 4, 2)), Motion.plain(tf.zeros((1, 2)))
        >>> transitions.log_prob(codes, motion).shape
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
        num_summaries = (2 + len(TIME_CONSTANTS)) * latent_dim
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

    def log_prob(self, codes: tf.Tensor, motion: Motion) -> tf.Tensor:
        """Return the log density of all codes of a sequence but the first, for each component.

        Args:
            codes: Shape `(..., num_steps, latent_dim)`.
            motion: Of each component.

        Returns:
            Shape `(..., num_components)`, in nats, summed over the steps.
        """
        summaries = self.summarize(codes)[..., :-1, :]
        # One component after the other: no array of steps by components by experts by dimensions.
        each = zip(*(tf.unstack(values) for values in motion), strict=True)
        return tf.stack([self._steps_log_prob(codes, summaries, Motion(*values)) for values in each], axis=-1)

    def log_prob_of(self, codes: tf.Tensor, motion: Motion) -> tf.Tensor:
        """Return the log density of all codes but the first, of sequences whose component is known.

        Args:
            codes: Shape `(num_sequences, num_steps, latent_dim)`.
            motion: Of each sequence.

        Returns:
            Shape `(num_sequences,)`, in nats, summed over the steps.
        """
        of_step = Motion(*(values[:, None] for values in motion))
        return self._steps_log_prob(codes, self.summarize(codes)[..., :-1, :], of_step)

    def sample(
        self,
        past: tf.Tensor,
        motion: Motion,
        seed: tf.Tensor,
        temperature: float = 1.0,
        anchors: tf.Tensor | None = None,
        limits: LoudnessLimits | None = None,
    ) -> tf.Tensor:
        """Draw the codes that follow.

        Args:
            past: The codes so far, shape `(num_samples, num_past_steps, latent_dim)`, at least one step.
            motion: What moves each step that is drawn, `num_samples` and `num_steps` first.
            seed: Two integers.
            temperature: Factor on the standard deviations.
            anchors: Where the mean of some steps shall lie, of the shape of the result: it is pulled there gently.
            limits: What moves each code that was drawn, where it is too loud, before the next is.

        Returns:
            Shape `(num_samples, num_steps, latent_dim)`.
        """
        num_samples, num_steps, latent_dim = motion.offsets.shape
        seeds = tf.random.split(seed)
        noise = tf.random.stateless_normal((num_steps, num_samples, latent_dim), seeds[0])
        uniform = tf.random.stateless_uniform((num_steps, num_samples, self.num_experts), seeds[1], minval=1e-7)
        recent = past[:, -self.memory :]
        num_known = recent.shape[1]
        recent = tf.pad(recent, ((0, 0), (self.memory - num_known, 0), (0, 0)))
        # The codes that are known stand last, those that are missing have no weight.
        after = np.minimum(num_known + np.arange(num_steps), self.memory)
        rows = self._decays(self.memory)
        of_step = [np.roll(rows[:, known - 1], self.memory - known, axis=1) for known in after]
        decays = tf.constant(np.stack(of_step), tf.float32)
        pull = tf.constant(0.0 if anchors is None else _PULL)
        anchors = tf.zeros_like(motion.offsets) if anchors is None else tf.cast(anchors, tf.float32)
        temperature = tf.cast(temperature, tf.float32)
        bounds = (tf.zeros((latent_dim, 1)), tf.constant([np.inf], tf.float32)) if limits is None else limits.bounds
        codes = self._draw(recent, motion, decays, noise, uniform, temperature, anchors, pull, *bounds)
        return tf.ensure_shape(codes, motion.offsets.shape)

    # Whatever the shapes, one graph: two might differ in the last digit.
    @tf.function(autograph=False, input_signature=_DRAW_SIGNATURE)
    def _draw(
        self,
        recent: tf.Tensor,
        motion: Motion,
        decays: tf.Tensor,
        noise: tf.Tensor,
        uniform: tf.Tensor,
        temperature: tf.Tensor,
        anchors: tf.Tensor,
        pull: tf.Tensor,
        directions: tf.Tensor,
        highest: tf.Tensor,
    ) -> tf.Tensor:
        """Draw codes step by step, as one graph: a step has sixty small operations."""
        num_samples, dim = tf.shape(recent)[0], self.latent_dim
        recent = tf.ensure_shape(recent, (None, self.memory, dim))
        # One matrix product for all experts, of which one is taken: gathered matrices would be a hundred times larger.
        roots = tf.reshape(tf.transpose(tf.linalg.inv(self._whitening), (2, 0, 1)), (dim, -1))
        spreads = tf.exp(motion.log_spreads)

        def advance(step: tf.Tensor, recent: tf.Tensor, drawn: tf.TensorArray) -> tuple:
            means = tf.einsum("sm,nmd->nsd", decays[step], recent)
            recalled = _recall(recent[:, -1:], recent, decays[step, -1:, :-1] > 0)
            summaries = tf.concat([recent[:, -1:], means, recalled], axis=1)
            summaries = tf.reshape(summaries, (num_samples, (2 + len(TIME_CONSTANTS)) * dim))
            experts = tf.argmax(self._gates(summaries) - tf.math.log(-tf.math.log(uniform[step])), axis=-1)
            spread = tf.reshape(noise[step] @ roots, (num_samples, self.num_experts, dim))
            added = tf.gather(self.means, experts) + temperature * tf.gather(spread, experts, batch_dims=1)
            code = self._expected(summaries, motion.offsets[:, step], motion.pulls[:, step]) + spreads[:, step] * added
            code += pull * (anchors[:, step] - self._summary(summaries, _ANCHORED))
            code = limit_levels(tf.clip_by_value(code, self.lowest, self.highest), directions, highest)
            code = tf.ensure_shape(code, (None, dim))
            return step + 1, tf.concat([recent[:, 1:], code[:, None]], axis=1), drawn.write(step, code)

        num_steps = tf.shape(noise)[0]
        start = (0, recent, tf.TensorArray(tf.float32, num_steps, element_shape=(None, dim)))
        *_, drawn = tf.while_loop(lambda step, *_: step < num_steps, advance, start)
        return tf.transpose(drawn.stack(), (1, 0, 2))

    def summarize(self, codes: tf.Tensor, last_only: bool = False) -> tf.Tensor:
        """Return the summary of the past after each step, shape `(..., num_steps, (2 + time constants) * latent_dim)`.

        Args:
            codes: Shape `(..., num_steps, latent_dim)`.
            last_only: Whether to return that after the last step only, as a sequence of one step.
        """
        weights = self._decays(codes.shape[-2])
        if last_only:
            weights = weights[:, -1:]
        means = tf.einsum("stu,...ud->...tsd", tf.constant(weights, tf.float32), codes)
        last = codes[..., -weights.shape[1] :, :]
        is_past = np.tri(codes.shape[-2], codes.shape[-2] - 1, -1, dtype=bool)[-weights.shape[1] :]
        recalled = _recall(last, codes, tf.constant(is_past & (weights[-1, :, :-1] > 0)))
        summaries = tf.concat([last[..., None, :], means, recalled[..., None, :]], axis=-2)
        return tf.reshape(summaries, tf.concat([tf.shape(last)[:-1], [(2 + len(weights)) * self.latent_dim]], axis=0))

    def _decays(self, num_steps: int) -> np.ndarray:
        """Return the weights of the running means after each step, `(time constants, num_steps, num_steps)`."""
        age = np.subtract.outer(np.arange(num_steps), np.arange(num_steps))
        is_past = (age >= 0) & (age < self.memory)
        decays = [np.where(is_past, np.exp(-np.maximum(age, 0) / constant), 0) for constant in TIME_CONSTANTS]
        return np.stack([decay / decay.sum(axis=1, keepdims=True) for decay in decays])

    def expected(self, codes: tf.Tensor, offsets: tf.Tensor, pulls: tf.Tensor) -> tf.Tensor:
        """Return what the code after those given would be without what the experts add, `(..., latent_dim)`."""
        return self._expected(self.summarize(codes, last_only=True)[..., -1, :], offsets, pulls)

    def start_from(self, codes: np.ndarray, shares: np.ndarray, seed: int | None = None) -> Motion:
        """Set the weights to the closed form of music that goes on in the same way whatever came before.

        The coefficients and offsets by ridge regression, spreads by how much each component's codes differ from that,
        the experts by expectation maximisation on what is left.

        Args:
            codes: Shape `(num_sequences, num_steps, latent_dim)`.
            shares: How much each sequence belongs to each component, `(num_sequences, num_components)`.
            seed: Integer that makes the result repeat.

        Returns:
            The motion of each component, `(num_components, latent_dim)`.
        """
        num_steps, dim = codes.shape[1] - 1, self.latent_dim
        summaries = self.summarize(tf.constant(codes, tf.float32))[:, :-1].numpy().reshape(len(codes) * num_steps, -1)
        shares = np.repeat(shares, num_steps, axis=0)
        inputs = np.concatenate([summaries, shares], axis=1).astype(np.float64)
        targets = codes[:, 1:].reshape(-1, dim)
        solution = np.linalg.solve(inputs.T @ inputs + _RIDGE * np.eye(inputs.shape[1]), inputs.T @ targets)
        residuals = targets - inputs @ solution
        # Weighted means of squares, drawn to those of all by a few: a component may have hardly any codes.
        squares = np.square(residuals)
        variances = (shares.T @ squares + _RIDGE * squares.mean(axis=0)) / (shares.sum(axis=0)[:, None] + _RIDGE)
        log_spreads = 0.5 * np.log(np.maximum(variances, 1e-12) / np.maximum(squares.mean(axis=0), 1e-12))
        sample = np.random.default_rng(seed).permutation(len(residuals))[:_NUM_RESIDUALS]
        self._assign_experts(residuals[sample] / np.exp(shares[sample] @ log_spreads), seed)
        self.coefficients.assign(solution[: summaries.shape[1]])
        self.lowest.assign(codes.min(axis=(0, 1)))
        self.highest.assign(codes.max(axis=(0, 1)))
        offsets = solution[summaries.shape[1] :]
        return Motion(offsets, np.zeros_like(offsets), log_spreads)

    def _assign_experts(self, innovations: np.ndarray, seed: int | None) -> None:
        """Set the experts by expectation maximisation on what the regression leaves."""
        import threadpoolctl  # here, with scikit-learn, since few programs need it
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        dim = self.latent_dim
        num_experts = min(self.num_experts, 1 + len(innovations) // (2 * dim))
        mixture = GaussianMixture(num_experts, reg_covar=self.min_scale**2, max_iter=_MAX_ITERATIONS, random_state=seed)
        with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1):  # these products are too small to share out
            warnings.simplefilter("ignore", ConvergenceWarning)  # a start need not have converged
            mixture.fit(innovations)
        missing = (0, self.num_experts - mixture.n_components)
        # A precision's Cholesky factor is upper triangular here: its transpose whitens.
        factors = np.swapaxes(mixture.precisions_cholesky_, 1, 2)
        factors = np.concatenate([factors, np.tile(np.eye(dim), (missing[1], 1, 1))])
        scales = 1 / np.diagonal(factors, axis1=1, axis2=2)
        self.means.assign(np.pad(mixture.means_, (missing, (0, 0))))
        self.correlations.assign(np.tril(factors * scales[..., None], -1))
        self.raw_scales.assign(to_raw_scale(scales, self.min_scale))
        self.gate_kernel.assign(np.zeros(self.gate_kernel.shape))
        self.gate_bias.assign(np.pad(np.log(mixture.weights_), missing, constant_values=-10.0))

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

    def _summary(self, summaries: tf.Tensor, index: int) -> tf.Tensor:
        """Return one of the summaries: 0 the last code, then the running means, then what is recalled."""
        return summaries[..., self.latent_dim * index : self.latent_dim * (index + 1)]

    def _expected(self, summaries: tf.Tensor, offsets: tf.Tensor, pulls: tf.Tensor) -> tf.Tensor:
        """Return what the next code would be without what the experts add."""
        return summaries @ self.coefficients - pulls * self._summary(summaries, _PULLED) + offsets

    def _steps_log_prob(self, codes: tf.Tensor, summaries: tf.Tensor, motion: Motion) -> tf.Tensor:
        """Return the log density of all codes but the first, summed, where one motion moves each sequence."""
        whitening = self._whitening
        innovations = codes[..., 1:, :] - self._expected(summaries, motion.offsets, motion.pulls)
        innovations *= tf.exp(-motion.log_spreads)
        # One matrix product for all experts: (..., steps, J * dim).
        standardized = innovations @ tf.reshape(tf.transpose(whitening, (2, 0, 1)), (self.latent_dim, -1))
        standardized = tf.reshape(standardized, tf.concat([tf.shape(innovations)[:-1], self.means.shape], axis=0))
        squares = tf.reduce_sum(tf.square(standardized - tf.linalg.matvec(whitening, self.means)), axis=-1)
        normalizers = tf.reduce_sum(tf.math.log(self._scales), -1) + 0.5 * self.latent_dim * np.log(2 * np.pi)
        gates = tf.nn.log_softmax(self._gates(summaries))
        densities = tf.reduce_logsumexp(gates - normalizers - 0.5 * squares, axis=-1)
        return tf.reduce_sum(densities - tf.reduce_sum(motion.log_spreads, axis=-1), axis=-1)
