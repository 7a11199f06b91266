"""What makes sequences that a prior draws vary as the codes do that it was fitted to."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_MIN_CODES = 8  # of a component, for their moments to be known
_NUM_DRAWS, _NUM_ROUNDS = 192, 12
_MIN_VARIANCE = 1e-4
# By how much a round changes the pulls and the logarithm of the factors where the logarithm of a variance is 1 off.
_PULL_RATE, _FACTOR_RATE = 0.04, 0.3
_MAX_PULL, _MAX_LOG_FACTOR = 0.4, 1.0


def moments_of(codes: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the mean of sequences, the slow variance (of their means) and the fast one (around them).

    Args:
        codes: Shape `(num_sequences, num_steps, latent_dim)`.
        weights: How much each sequence counts, shape `(num_sequences,)`; by default all do alike.

    Returns:
        Shape `(3, latent_dim)`; the variances sum to that of all codes.

    Example:
        >>> moments_of(np.array([[[0.0], [2.0]], [[4.0], [6.0]]])).ravel().tolist()
        [3.0, 4.0, 1.0]
    """
    means = codes.mean(axis=1)
    mean = np.average(means, axis=0, weights=weights)
    slow = np.average(np.square(means - mean), axis=0, weights=weights)
    fast = np.average(np.square(codes - means[:, None]).mean(axis=1), axis=0, weights=weights)
    return np.stack([mean, slow, fast])


def calibrate(prior: Any, codes: np.ndarray, shares: np.ndarray, seed: int | None = None) -> None:
    """Have the sequences that each component draws vary as its codes do.

    A density that fits step by step may wander too far in a sequence drawn from it. So sequences are drawn, round by
    round, until they have the moments of the component's codes. The first code gets those of all codes; offsets correct
    the mean of the sequences, pulls to it the ratio of slow to fast variance, and factors on what is added at each step
    the fast variance. All but the factors are part of the density. Correcting its spreads as well would cost six times
    as much likelihood as all else, and have sequences change their component.

    Args:
        prior: A fitted `SequencePrior`. Components that make fewer than 8 of the sequences are left as they are.
        codes: Shape `(num_sequences, num_steps, latent_dim)`, 2 steps or more.
        shares: How much each sequence belongs to each component, `(num_sequences, num_components)`.
        seed: Integer that makes the result repeat.
    """
    live = np.flatnonzero(shares.sum(axis=0) >= _MIN_CODES)
    if not len(live):
        return
    mean, slow, fast = np.stack([moments_of(codes, shares[:, component]) for component in live], axis=1)
    slow, fast = np.maximum(slow, _MIN_VARIANCE), np.maximum(fast, _MIN_VARIANCE)
    means, scales = prior.means.numpy(), prior.scales.numpy()
    means[live], scales[live] = mean, np.sqrt(slow + fast)
    prior.assign_mixture(means, scales)
    inverse = np.linalg.inv(_responses_to_offsets(prior))[live]
    weights = (prior.offsets, prior.pulls, prior.log_draw_factors)
    history = []
    for number in range(_NUM_ROUNDS):
        draws = _draw_each(prior, live, number if seed is None else seed + number)
        drawn_mean, drawn_slow, drawn_fast = np.stack([moments_of(each) for each in draws], axis=1)
        drawn_slow, drawn_fast = np.maximum(drawn_slow, _MIN_VARIANCE), np.maximum(drawn_fast, _MIN_VARIANCE)
        offsets, pulls, factors = (weight.numpy() for weight in weights)
        change = _PULL_RATE * np.log(drawn_slow / drawn_fast * fast / slow)
        change = np.clip(pulls[live] + change, -_MAX_PULL, _MAX_PULL) - pulls[live]
        pulls[live] += change
        offsets[live] += change * mean + np.einsum("kd,kde->ke", mean - drawn_mean, inverse)
        factors[live] = np.clip(
            factors[live] + _FACTOR_RATE * np.log(fast / drawn_fast), -_MAX_LOG_FACTOR, _MAX_LOG_FACTOR
        )
        history.append((offsets, pulls, factors))
        _assign(weights, history[-1])
    # The moments of one round's draws are known to some percent only, those of the last half of them better.
    _assign(weights, [np.mean(values, axis=0) for values in zip(*history[_NUM_ROUNDS // 2 :], strict=True)])


def _assign(weights: tuple, values: tuple | list) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.assign(value)


def _draw_each(prior: Any, components: np.ndarray, seed: int) -> np.ndarray:
    """Draw sequences of each of the components, shape `(num_components, num_draws, num_steps, latent_dim)`."""
    of_step = np.tile(np.repeat(components, _NUM_DRAWS)[:, None], (1, prior.num_steps))
    draws = prior.continue_from(of_step, 1.0, tf.constant([seed & 0x7FFFFFFF, 5])).numpy()
    return draws.reshape(len(components), _NUM_DRAWS, prior.num_steps, -1)


def _responses_to_offsets(prior: Any) -> np.ndarray:
    """Return how far an offset of 1 in each dimension moves the mean of sequences, `(num_components, dim, dim)`."""
    dim = prior.means.shape[1]
    offsets = tf.tile(tf.eye(dim), (prior.num_components, 1))
    pulls = tf.repeat(prior.motion.pulls, dim, axis=0)
    codes = tf.zeros((len(offsets), 1, dim))
    for _ in range(prior.num_steps - 1):
        following = prior.transitions.expected(codes, offsets, pulls)
        codes = tf.concat([codes, following[:, None]], axis=1)
    return tf.reshape(tf.reduce_mean(codes, axis=1), (prior.num_components, dim, dim)).numpy()
