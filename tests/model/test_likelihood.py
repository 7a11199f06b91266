import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
import tensorflow_probability as tfp

from spectrovae.model.likelihood import (
    LIKELIHOODS,
    BernoulliLikelihood,
    GaussianLikelihood,
    get_likelihood,
)

tfd = tfp.distributions

GENERATOR = np.random.default_rng(0)

WINDOWS = GENERATOR.uniform(size=(3, 4, 5, 1)).astype(np.float32)

PARAMETERS = GENERATOR.normal(size=(3, 4, 5, 1)).astype(np.float32)


def grid(*channels: np.ndarray) -> np.ndarray:
    """What the decoder would emit: `(batch, frames, num_channels, bins)` for windows of numbers."""
    return np.concatenate(channels, axis=-1).astype(np.float32).transpose(0, 2, 3, 1)


def test_gaussian_is_that_of_scipy():
    likelihood = GaussianLikelihood(initial_scale=0.2)
    expected = scipy.stats.norm(PARAMETERS, 0.2).logpdf(WINDOWS).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(likelihood.log_prob(grid(PARAMETERS), WINDOWS), expected, rtol=1e-4)
    np.testing.assert_allclose(likelihood(grid(PARAMETERS)), PARAMETERS)


def test_a_scale_for_each_pixel_is_used_there():
    likelihood = GaussianLikelihood(per_pixel=True, min_scale=0.01, initial_scale=0.1)
    raw = GENERATOR.normal(size=WINDOWS.shape)
    scales = 0.01 + np.logaddexp(0, raw)
    channels = grid(PARAMETERS, raw - likelihood.raw_scale.numpy())
    np.testing.assert_allclose(likelihood.scale(channels), scales, rtol=1e-4)
    expected = scipy.stats.norm(PARAMETERS, scales).logpdf(WINDOWS).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(likelihood.log_prob(channels, WINDOWS), expected, rtol=1e-4)
    np.testing.assert_allclose(likelihood.mean(channels), PARAMETERS)


def test_bernoulli_is_that_of_tfp():
    likelihood = BernoulliLikelihood()
    theirs = tfd.Independent(tfd.Bernoulli(logits=PARAMETERS), 3)
    np.testing.assert_allclose(
        likelihood.log_prob(grid(PARAMETERS), np.round(WINDOWS)), theirs.log_prob(np.round(WINDOWS)), rtol=1e-5
    )
    np.testing.assert_allclose(likelihood.mean(grid(PARAMETERS)), theirs.mean(), rtol=1e-5)


def test_bernoulli_is_bounded_by_the_entropy_of_the_grey_values():
    logits = np.log(WINDOWS / (1 - WINDOWS))
    best = BernoulliLikelihood().log_prob(grid(logits), WINDOWS)
    entropy = scipy.stats.bernoulli(WINDOWS.astype(np.float64)).entropy().sum(axis=(1, 2, 3))
    np.testing.assert_allclose(best, -entropy, rtol=1e-4)
    assert np.less(BernoulliLikelihood().log_prob(grid(PARAMETERS), WINDOWS), best).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_is_finite_with_finite_gradients_at_the_ends(name):
    likelihood = get_likelihood(name)
    for pixel in (0.0, 1.0):
        for parameter in (-1e3, 0.0, 1e3):
            parameters = tf.Variable(tf.fill((1, 1, likelihood.num_channels, 1), parameter))
            with tf.GradientTape() as tape:
                log_prob = likelihood.log_prob(parameters, tf.fill((1, 1, 1, 1), pixel))
            assert np.isfinite(log_prob).all()
            assert np.isfinite(tape.gradient(log_prob, parameters)).all()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_log_prob_sums_over_the_window(name):
    likelihood = get_likelihood(name)
    parameters = grid(*likelihood.num_channels * [PARAMETERS])
    pixels = likelihood.pixel_log_prob(parameters, WINDOWS)
    assert pixels.shape == WINDOWS.shape
    np.testing.assert_allclose(likelihood.log_prob(parameters, WINDOWS), np.sum(pixels, axis=(1, 2, 3)), rtol=1e-5)


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="likelihood='poisson'"):
        get_likelihood("poisson")
    with pytest.raises(ValueError, match="min_scale=0.5"):
        GaussianLikelihood(min_scale=0.5, initial_scale=0.1)


def test_a_layer_is_taken_as_it_is():
    layer = GaussianLikelihood()
    assert get_likelihood(layer) is layer


def test_mean_is_learned_where_the_scale_is_large_too():
    likelihood = GaussianLikelihood(per_pixel=True, min_scale=0.01, initial_scale=0.1)
    windows = tf.constant([[[[0.5]], [[0.5]]]])
    scales = np.float32([0.05, 0.2])
    raw = likelihood.to_raw_scale(scales) - likelihood.to_raw_scale(0.1)
    parameters = tf.constant(np.stack([[0.4, 0.4], raw]).astype(np.float32).reshape(1, 1, 2, 2))
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        log_prob = likelihood.log_prob(parameters, windows)
    expected = scipy.stats.norm.logpdf(0.1, scale=scales).sum()
    assert float(log_prob[0]) == pytest.approx(expected, rel=1e-4)
    gradient = tape.gradient(log_prob, parameters).numpy()[0, 0].T
    # Of the mean, what maximum likelihood gives times the scale over the shared one; of the scale, as it gives.
    np.testing.assert_allclose(gradient[:, 0], 0.1 / scales**2 * scales / 0.1, rtol=1e-4)
    slopes = -np.expm1(-(scales - 0.01))  # of softplus
    np.testing.assert_allclose(gradient[:, 1], (0.1**2 / scales**3 - 1 / scales) * slopes, rtol=1e-3)
