"""What holds for whatever hypothesis thinks of: shapes, ranges, normalisation, seeds."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spectrovae import GaussianMixturePrior, SpectrogramConverter
from spectrovae.model.distributions import MIN_SCALE, num_posterior_parameters, posterior_distribution
from spectrovae.model.likelihood import BernoulliLikelihood, GaussianLikelihood
from spectrovae.model.pca import cut_windows
from spectrovae.model.sequence_prior import SequencePrior

FEW = settings(
    max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
FEWER = settings(FEW, max_examples=8)  # where each example takes long
SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def converters(draw) -> SpectrogramConverter:
    n_fft = 4 * draw(st.integers(2, 64))
    return SpectrogramConverter(
        sample_rate=draw(st.integers(1000, 96000)),
        n_fft=n_fft,
        hop_length=draw(st.integers(1, n_fft)),
        num_frames=draw(st.integers(1, 40)),
        scale=draw(st.sampled_from(["decibel", "linear"])),
        dynamic_range=draw(st.floats(1, 200)),
        num_iterations=draw(st.integers(1, 3)),
    )


def waveform_of(converter: SpectrogramConverter, seed: int, level: float) -> np.ndarray:
    generator = np.random.default_rng(seed)
    num_samples = converter.n_fft + int(generator.integers(0, 40 * converter.hop_length))
    return (level * generator.uniform(-1, 1, num_samples)).astype(np.float32)


@FEW
@given(converters(), SEEDS, st.sampled_from([0, 1e-6, 0.01, 1, 900]))
def test_spectrograms_have_their_shape_and_range(converter, seed, level):
    waveform = waveform_of(converter, seed, level)
    spectrogram = converter.to_spectrogram(waveform)
    assert spectrogram.dtype == np.float32
    assert spectrogram.shape == (converter.num_bins, len(waveform) // converter.hop_length, 1)
    assert np.isfinite(spectrogram).all() and spectrogram.min() >= 0 and spectrogram.max() <= 1
    assert level or not spectrogram.any()
    decibels = converter.to_decibels(spectrogram)
    assert decibels.min() >= -converter.dynamic_range * (1 + 1e-6) and decibels.max() <= 0


@FEW
@given(converters(), SEEDS, st.lists(st.integers(0, 300), max_size=6))
def test_blocks_of_any_length_give_the_same_frames(converter, seed, cuts):
    waveform = waveform_of(converter, seed, 0.5)
    blocks = np.split(waveform, sorted(min(cut, len(waveform)) for cut in cuts))
    frames = np.concatenate(list(converter.stream(blocks)))
    # Near the floor the logarithm enlarges the rounding of the transform.
    expected = converter.to_spectrogram(waveform)[..., 0].T
    np.testing.assert_allclose(frames, expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore:There were peaks")
@FEW
@given(converters(), SEEDS)
def test_sound_has_its_length_and_repeats_with_its_seed(converter, seed):
    spectrogram = 0.5 * np.random.default_rng(seed).random(converter.window_shape, np.float32)
    audio = converter.to_audio(spectrogram, seed=seed)
    assert audio.shape == (converter.window_length,) and audio.dtype == np.float32
    assert np.isfinite(audio).all() and np.abs(audio).max() <= 1
    np.testing.assert_array_equal(audio, converter.to_audio(spectrogram, seed=seed))


@st.composite
def priors(draw, latent_dim: int) -> GaussianMixturePrior:
    prior = GaussianMixturePrior(draw(st.integers(1, 4)), learn_weights=True, seed=draw(SEEDS))
    prior.build((None, latent_dim))
    generator = np.random.default_rng(prior.seed)
    shape = (prior.num_components, latent_dim)
    scales = np.exp(generator.uniform(np.log(0.2), np.log(3), shape))
    prior.assign_mixture(generator.uniform(-4, 4, shape), scales, generator.uniform(0.01, 1, prior.num_components))
    return prior


def grid(latent_dim: int, reach: float, num_points: int) -> tuple[np.ndarray, float]:
    """Points of a square grid and the volume that each stands for."""
    axis, step = np.linspace(-reach, reach, num_points, retstep=True)
    points = np.stack(np.meshgrid(*latent_dim * [axis]), axis=-1).reshape(-1, latent_dim)
    return points.astype(np.float32), step**latent_dim


@pytest.mark.parametrize("latent_dim", [1, 2])
@given(data=st.data())
@FEW
def test_mixtures_integrate_to_one(latent_dim, data):
    prior = data.draw(priors(latent_dim))
    points, volume = grid(latent_dim, 25, 601)
    assert np.exp(prior.log_prob(points)).sum() * volume == pytest.approx(1, abs=1e-3)


@FEWER
@given(priors(3), SEEDS, st.integers(1, 50))
def test_samples_of_mixtures(prior, seed, num_samples):
    samples = prior.sample(num_samples, seed=seed)
    assert samples.shape == (num_samples, 3) and np.isfinite(samples).all()
    np.testing.assert_array_equal(samples, prior.sample(num_samples, seed=seed))
    shares = prior.responsibilities(samples)
    assert shares.shape == (num_samples, prior.num_components)
    np.testing.assert_allclose(tf.reduce_sum(shares, axis=-1), 1, atol=1e-5)
    assert prior.log_prob(tf.reshape(samples, (1, num_samples, 3))).shape == (1, num_samples)


@st.composite
def sequence_priors(draw, num_steps: int, latent_dim: int) -> SequencePrior:
    prior = SequencePrior(
        draw(st.integers(1, 4)), learn_weights=True, seed=draw(SEEDS), num_experts=draw(st.integers(1, 3))
    )
    prior.build((None, num_steps, latent_dim))
    generator = np.random.default_rng(prior.seed)
    shape = (prior.num_components, latent_dim)
    scales = np.exp(generator.uniform(np.log(0.2), np.log(3), shape))
    prior.assign_mixture(generator.uniform(-4, 4, shape), scales, generator.uniform(0.01, 1, prior.num_components))
    prior.offsets.assign(generator.uniform(-2, 2, shape))
    for weight in prior.transitions.trainable_variables:
        weight.assign(generator.uniform(-1, 1, weight.shape))
    prior.transitions.coefficients.assign(generator.uniform(-0.1, 0.1, prior.transitions.coefficients.shape))
    return prior


@FEWER
@given(sequence_priors(2, 1))
def test_mixtures_of_sequences_integrate_to_one(prior):
    points, volume = grid(2, 25, 401)
    assert np.exp(prior.log_prob(points[..., None])).sum() * volume == pytest.approx(1, abs=1e-3)


@FEWER
@given(sequence_priors(5, 3), SEEDS, st.integers(1, 20), st.integers(1, 12))
def test_samples_of_sequences(prior, seed, num_samples, num_steps):
    samples = prior.sample(num_samples, seed=seed, num_steps=num_steps)
    assert samples.shape == (num_samples, num_steps, 3) and np.isfinite(samples).all()
    np.testing.assert_array_equal(samples, prior.sample(num_samples, seed=seed, num_steps=num_steps))
    shares = prior.responsibilities(samples)
    assert shares.shape == (num_samples, prior.num_components)
    np.testing.assert_allclose(tf.reduce_sum(shares, axis=-1), 1, atol=1e-5)
    assert np.isfinite(prior.log_prob(samples[None])).all() and prior.log_prob(samples[None]).shape == (1, num_samples)
    first = prior.sample(num_samples, component=0, temperature=0, seed=seed, num_steps=1)
    np.testing.assert_allclose(first[:, 0], np.tile(prior.means[0], (num_samples, 1)), atol=1e-5)


@FEW
@given(st.integers(1, 4), st.integers(1, 9), SEEDS)
def test_cut_windows_are_whole(num_parts, frames_per_part, seed):
    windows = np.random.default_rng(seed).random((3, 2, num_parts * frames_per_part, 1), np.float32)
    parts = cut_windows(windows, num_parts).reshape(3, num_parts, 2, frames_per_part, 1)
    np.testing.assert_array_equal(np.concatenate(np.moveaxis(parts, 1, 0), axis=2), windows)


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@given(latent_dim=st.integers(1, 5), seed=SEEDS, spread=st.sampled_from([0.1, 1, 30]))
@FEWER
def test_any_numbers_make_a_posterior(posterior, latent_dim, seed, spread):
    num_parameters = num_posterior_parameters(posterior, latent_dim)
    parameters = spread * np.random.default_rng(seed).standard_normal((7, num_parameters)).astype(np.float32)
    distribution = posterior_distribution(tf.constant(parameters), posterior, latent_dim)
    samples = distribution.sample(3, seed=tf.constant([seed, 1]))
    assert samples.shape == (3, 7, latent_dim) and np.isfinite(samples).all()
    np.testing.assert_array_equal(samples, distribution.sample(3, seed=tf.constant([seed, 1])))
    np.testing.assert_array_equal(distribution.mean(), parameters[:, :latent_dim])
    assert np.isfinite(distribution.entropy()).all() and np.isfinite(distribution.log_prob(samples)).all()
    assert tf.reduce_min(distribution.stddev()) >= MIN_SCALE * (1 - 1e-6)


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("posterior", ["diagonal", "full"])
@given(seed=SEEDS)
@FEWER
def test_posteriors_integrate_to_one(posterior, latent_dim, seed):
    parameters = np.random.default_rng(seed).uniform(-1, 1, num_posterior_parameters(posterior, latent_dim))
    distribution = posterior_distribution(tf.constant(parameters, tf.float32), posterior, latent_dim)
    points, volume = grid(latent_dim, 12, 801)
    assert np.exp(distribution.log_prob(points)).sum() * volume == pytest.approx(1, abs=1e-3)


def pixels(values: np.ndarray) -> np.ndarray:
    """The same parameters for each of many windows of one pixel, `(num_windows, 1, 1, channels)`."""
    return np.asarray(values, np.float32).reshape(-1, 1, 1, 1)


@FEW
@given(st.booleans(), st.floats(-1, 2), st.floats(-5, 2))
def test_gaussian_pixels_integrate_to_one(per_pixel, mean, raw_scale):
    likelihood = GaussianLikelihood(per_pixel=per_pixel)
    parameters = np.array([mean, raw_scale][: likelihood.num_channels], np.float32).reshape(1, 1, -1, 1)
    scale = float(tf.reduce_max(likelihood.scale(parameters)))
    assert scale >= likelihood.min_scale
    values, step = np.linspace(mean - 10 * scale, mean + 10 * scale, 4001, retstep=True)
    density = np.exp(likelihood.log_prob(parameters, pixels(values)))
    assert density.shape == (4001,) and density.sum() * step == pytest.approx(1, abs=1e-3)
    assert (density * values).sum() * step == pytest.approx(float(likelihood.mean(parameters)[0, 0, 0, 0]), abs=1e-2)


@FEW
@given(st.floats(-80, 80))
def test_bernoulli_pixels_sum_to_one(logit):
    likelihood = BernoulliLikelihood()
    probabilities = np.exp(likelihood.log_prob(pixels([logit, logit]), pixels([0, 1])))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities[1] == pytest.approx(float(likelihood.mean(pixels([logit]))[0, 0, 0, 0]), abs=1e-5)


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), GaussianLikelihood(True), BernoulliLikelihood()])
@given(seed=SEEDS, shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)))
@FEW
def test_windows_add_up_from_their_pixels(likelihood, seed, shape):
    generator = np.random.default_rng(seed)
    windows = generator.random((*shape, 1), np.float32)
    size = (shape[0], shape[2], likelihood.num_channels, shape[1])
    parameters = 3 * generator.standard_normal(size).astype(np.float32)
    each = likelihood.pixel_log_prob(parameters, windows)
    assert each.shape == windows.shape and likelihood.mean(parameters).shape == windows.shape
    total = likelihood.log_prob(parameters, windows)
    assert total.shape == shape[:1] and np.isfinite(total).all()
    np.testing.assert_allclose(total, tf.reduce_sum(each, axis=(1, 2, 3)), rtol=1e-5)
