from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from spectrovae.model.distributions import (
    POSTERIORS,
    num_posterior_parameters,
    posterior_distribution,
    raw_posterior_scales,
    stateless_seed,
)

LATENT_DIM = 3


@pytest.fixture(params=POSTERIORS)
def posterior(request):
    parameters = np.random.default_rng(0).normal(size=(5, num_posterior_parameters(request.param, LATENT_DIM)))
    return posterior_distribution(tf.constant(parameters, tf.float32), request.param, LATENT_DIM)


@pytest.mark.parametrize(("name", "expected"), [("diagonal", 200), ("full", 5150)])
def test_number_of_parameters(name, expected):
    assert num_posterior_parameters(name, 100) == expected


def test_density_and_entropy_are_those_of_scipy(posterior):
    codes = np.random.default_rng(1).normal(size=(5, LATENT_DIM))
    for index in range(5):
        theirs = scipy.stats.multivariate_normal(posterior.mean()[index], posterior.covariance()[index])
        np.testing.assert_allclose(posterior.log_prob(codes)[index], theirs.logpdf(codes[index]), rtol=1e-4)
        np.testing.assert_allclose(posterior.entropy()[index], theirs.entropy(), rtol=1e-4)


def test_samples_have_the_covariance(posterior):
    samples = posterior.sample(50_000, seed=(0, 1)).numpy()
    np.testing.assert_allclose(np.cov(samples[:, 0].T), posterior.covariance()[0], atol=0.05)


def test_only_the_full_posterior_correlates_dimensions():
    for name, correlated in {"diagonal": False, "full": True}.items():
        ones = tf.ones((1, num_posterior_parameters(name, LATENT_DIM)))
        covariance = posterior_distribution(ones, name, LATENT_DIM).covariance()[0].numpy()
        assert (np.abs(covariance - np.diag(np.diag(covariance))).max() > 0) == correlated


@pytest.mark.parametrize("name", POSTERIORS)
def test_raw_scales_give_the_scales(name):
    scales = np.array([0.01, 0.5, 3.0])
    assert np.isfinite(raw_posterior_scales(np.array([0.0, 1e-6, 1.0]), name)).all()
    parameters = np.concatenate([np.zeros(3), raw_posterior_scales(scales, name)])
    posterior = posterior_distribution(tf.constant(parameters[None], tf.float32), name, LATENT_DIM)
    np.testing.assert_allclose(posterior.stddev()[0], scales, rtol=1e-4)
    np.testing.assert_allclose(posterior.covariance()[0], np.diag(scales**2), atol=1e-5)


@pytest.mark.parametrize("size", [-60.0, 60.0])
@pytest.mark.parametrize("name", POSTERIORS)
def test_any_parameters_are_valid(name, size):
    parameters = tf.fill((1, num_posterior_parameters(name, LATENT_DIM)), size)
    posterior = posterior_distribution(parameters, name, LATENT_DIM)
    assert np.isfinite(posterior.log_prob(posterior.mean())).all()
    assert np.isfinite(posterior.entropy()).all()


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="posterior='triangular'"):
        num_posterior_parameters("triangular", 3)
    with pytest.raises(ValueError, match=r"needs 6 parameters.*\(2, 5\)"):
        posterior_distribution(tf.zeros((2, 5)), "diagonal", LATENT_DIM)


def test_a_seed_repeats_whatever_the_generator():
    generators = [keras.random.SeedGenerator(number) for number in (0, 1)]
    for seed in (0, 7, 2**31, 2**40):
        first, second = (stateless_seed(seed, generator).numpy() for generator in generators)
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.int32 and first.shape == (2,) and (first >= 0).all()
    pairs = {tuple(stateless_seed(seed, generators[0]).numpy()) for seed in (0, 1, 2**31, 2**31 + 1)}
    assert len(pairs) == 4


def test_without_a_seed_the_generator_goes_on():
    generators = [keras.random.SeedGenerator(0) for _ in range(2)]
    first, same = ([tuple(stateless_seed(None, each).numpy()) for _ in range(3)] for each in generators)
    assert first == same and len(set(first)) == 3


def test_no_two_threads_get_the_same_draw():
    generator = keras.random.SeedGenerator(0)
    with ThreadPoolExecutor(8) as threads:
        draws = list(threads.map(lambda _: tuple(stateless_seed(None, generator).numpy()), range(400)))
    assert len(set(draws)) == 400


@pytest.mark.parametrize("seed", [-1, 0.5, "a"])
def test_other_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed="):
        stateless_seed(seed, keras.random.SeedGenerator(0))
