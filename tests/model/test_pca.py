import itertools

import numpy as np
import pytest
import sklearn.decomposition
from keras import layers

import spectrovae.model.pca
from spectrovae import SpectrogramConverter
from spectrovae.model.layers import SeparableDense, SeparableDenseTranspose
from spectrovae.model.pca import (
    SEMITONES,
    TRANSPOSED_SHARE,
    average_frames,
    fit_courses,
    fit_linear_optimum,
    interpolate_frames,
    separable_components,
    transpose_windows,
)


def test_averaging_is_that_of_keras(windows):
    sequence = windows[..., 0].swapaxes(1, 2)
    averaged = average_frames(windows, 4).swapaxes(1, 2)
    np.testing.assert_allclose(averaged, layers.AveragePooling1D(4)(sequence), rtol=1e-5, atol=1e-6)


def test_interpolation_is_that_of_keras(windows):
    steps = average_frames(windows, 4)
    theirs = layers.UpSampling2D((1, 4), interpolation="bilinear")(steps[..., None])
    np.testing.assert_allclose(interpolate_frames(steps, 4), theirs, atol=1e-5)


def test_interpolation_undoes_averaging_of_what_is_linear_in_time():
    ramp = np.broadcast_to(np.linspace(0, 1, 32), (1, 3, 32))[..., None]
    restored = interpolate_frames(average_frames(ramp, 4), 4)
    np.testing.assert_allclose(restored[:, :, 2:-2], ramp[:, :, 2:-2], atol=1e-6)


BINS, NUM_STEPS = 12, 8


def spectra_and_courses(num_sequences=300):
    """Sequences of two strong components, their parts and some noise."""
    rng = np.random.default_rng(0)
    spectra = np.linalg.qr(rng.standard_normal((BINS, 2)))[0].T
    courses = np.sqrt(2 / NUM_STEPS) * np.cos(np.pi * np.outer([1, 3], np.arange(NUM_STEPS) + 0.5) / NUM_STEPS)
    strengths = rng.standard_normal((num_sequences, 2)) * [5, 3]
    noise = 0.1 * rng.standard_normal((num_sequences, BINS, NUM_STEPS))
    sequences = 2 + np.einsum("nk,kf,kt->nft", strengths, spectra, courses) + noise
    return spectra, courses, strengths, sequences.astype(np.float32)


@pytest.mark.parametrize("stationary", [False, True])
@pytest.mark.parametrize("num_at_once", [7, 128])
def test_components_are_found_with_their_variances(stationary, num_at_once, monkeypatch):
    monkeypatch.setattr(spectrovae.model.pca, "_NUM_AT_ONCE", num_at_once)
    monkeypatch.setattr(spectrovae.model.pca, "_COURSES_AT_ONCE", 3)
    spectra, courses, strengths, sequences = spectra_and_courses()
    batches = [sequences[:100].astype(np.float16), sequences[100:].astype(np.float16)]
    found = separable_components(batches, 3, stationary, transposition=False)
    np.testing.assert_allclose(found.mean, sequences.mean(axis=(0, 2)), atol=1e-3)
    np.testing.assert_allclose(np.abs(np.sum(found.spectra[:2] * spectra, axis=1)), 1, atol=0.02)
    # Statistics that do not depend on when a sequence begins blur where a course of a single process lies.
    np.testing.assert_allclose(
        np.abs(np.sum(found.courses[:2] * courses, axis=1)), 1, atol=0.12 if stationary else 0.01
    )
    np.testing.assert_allclose(found.variances[:2], strengths.var(axis=0), rtol=0.3 if stationary else 0.02)
    assert found.variances[2] < (3 if stationary else 0.05)


def test_components_are_orthonormal_and_sorted():
    rng = np.random.default_rng(0)
    sequences = rng.standard_normal((40, BINS, NUM_STEPS)).cumsum(axis=2)
    found = separable_components([sequences], 20)
    vectors = np.einsum("kf,kt->kft", found.spectra, found.courses).reshape(20, -1)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(20), atol=1e-4)
    assert (np.diff(found.variances) <= 0).all()
    few = separable_components([sequences], 5)
    np.testing.assert_allclose(few.variances, found.variances[:5], rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(few.spectra * found.spectra[:5], axis=1)), 1, atol=1e-4)


def test_stationary_components_do_not_depend_on_the_direction_of_time():
    sequences = np.random.default_rng(0).standard_normal((40, BINS, NUM_STEPS)).cumsum(axis=2)
    forwards, backwards = (separable_components([each], 6) for each in (sequences, sequences[..., ::-1]))
    np.testing.assert_allclose(forwards.variances, backwards.variances, rtol=1e-3)
    overlaps = np.abs(np.sum(forwards.courses * backwards.courses, axis=1))
    np.testing.assert_allclose(overlaps, 1, atol=1e-3)
    mirrored = np.abs(np.sum(forwards.courses * forwards.courses[:, ::-1], axis=1))
    np.testing.assert_allclose(mirrored, 1, atol=1e-3)


def test_all_courses_together_are_principal_components_of_spectra():
    # One step: what is left is plain PCA of spectra.
    spectra = np.random.default_rng(0).standard_normal((60, BINS, 1)) * np.arange(1, BINS + 1)[:, None]
    found = separable_components([spectra], 4, transposition=False)
    pca = sklearn.decomposition.PCA(4).fit(spectra[..., 0])
    np.testing.assert_allclose(found.variances, pca.explained_variance_, rtol=1e-3)
    np.testing.assert_allclose(np.abs(found.spectra @ pca.components_.T), np.eye(4), atol=1e-2)


def test_transposition_is_that_of_transposed_spectra():
    rng = np.random.default_rng(0)
    spectra = rng.standard_normal((50, 64, 1)).cumsum(axis=1)
    spectra -= spectra.mean(axis=0)
    found = separable_components([spectra], 5)
    covariance = (1 - TRANSPOSED_SHARE) * np.cov(spectra[..., 0].T)
    bins = np.arange(64)
    for semitones in SEMITONES:
        moved = [np.interp(bins / 2 ** (semitones / 12), bins, row, right=0.0) for row in spectra[..., 0]]
        covariance += TRANSPOSED_SHARE / len(SEMITONES) * np.cov(np.transpose(moved))
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(found.variances, values[:-6:-1], rtol=1e-3)
    np.testing.assert_allclose(np.abs(found.spectra @ vectors[:, :-6:-1]), np.eye(5), atol=1e-2)


def test_what_does_not_vary_has_no_components():
    found = separable_components([np.ones((5, BINS, NUM_STEPS), np.float32)], 3)
    np.testing.assert_allclose(found.mean, 1, rtol=1e-6)
    assert found.spectra.shape == (0, BINS) and found.courses.shape == (0, NUM_STEPS) and found.variances.shape == (0,)


PLAIN = {"stationary": False, "transposition": False}


@pytest.fixture
def uncorrelated(windows) -> np.ndarray:
    """Windows of 8 bins and 4 frames whose cosines over time are uncorrelated: every cosine, with either sign."""
    cosines = np.cos(np.pi * np.outer(np.arange(4), np.arange(4) + 0.5) / 4)
    strengths = windows[:, :8, [0, 9, 18, 27], 0] - windows[:, :8, [0, 9, 18, 27], 0].mean(axis=0)
    signs = np.array(list(itertools.product([-1, 1], repeat=4)))
    values = np.einsum("nfk,sk,kt->nsft", strengths * [4, 3, 2, 1] / 10, signs, cosines)
    return (0.5 + values.reshape(-1, 8, 4, 1)).astype(np.float32)


def flatten(windows):
    return windows[..., 0].reshape(len(windows), -1)


def components(optimum):
    return np.einsum("kf,kt->kft", optimum.spectra, optimum.courses).reshape(len(optimum.spectra), -1)


def test_optimum_is_that_of_scikit_learn(uncorrelated):
    batches = [uncorrelated[:20], uncorrelated[20:]]
    optimum = fit_linear_optimum(batches, 4, pool_size=1, **PLAIN, num_residual_windows=2000, seed=0)
    features = flatten(uncorrelated)
    pca = sklearn.decomposition.PCA(4).fit(features)
    np.testing.assert_allclose(optimum.variances, pca.explained_variance_, rtol=0.01)
    np.testing.assert_allclose(np.abs(components(optimum) @ pca.components_.T), np.eye(4), atol=0.01)
    residual = np.square(features - pca.inverse_transform(pca.transform(features))).mean() / (1 - 4 / 32)
    assert optimum.noise_variance == pytest.approx(residual, rel=0.01)
    assert optimum.noise_variance == pytest.approx(pca.noise_variance_, rel=0.01)
    assert optimum.num_windows == len(uncorrelated)


def test_codes_have_the_moments_of_the_standard_normal(uncorrelated):
    optimum = fit_linear_optimum([uncorrelated], 4, pool_size=1, **PLAIN, num_residual_windows=2000, seed=0)
    courses, spectra, bias = optimum.encoder_weights()
    codes = np.einsum("nft,tk,fk->nk", uncorrelated[..., 0], courses, spectra) + bias
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(codes.var(axis=0, ddof=1) + optimum.posterior_scales**2, 1, rtol=0.02)


def test_encoder_and_decoder_shrink_the_projection(windows):
    optimum = fit_linear_optimum([windows], latent_dim=4, pool_size=4, seed=0)
    encoder, decoder = SeparableDense(4), SeparableDenseTranspose(steps=8, bins=32)
    encoder.build((None, 8, 32))
    decoder.build((None, 4))
    encoder.set_weights(optimum.encoder_weights())
    decoder.set_weights(optimum.decoder_weights())
    steps = np.einsum("kf,kt->ktf", optimum.spectra, optimum.courses).astype(np.float32) + optimum.mean
    restored = np.asarray(decoder(encoder(steps))) - optimum.mean
    gains = np.einsum("ktf,kf,kt->k", restored, optimum.spectra, optimum.courses)
    np.testing.assert_allclose(gains, 1 - optimum.noise_variance / optimum.variances, rtol=1e-3)


def test_components_without_data_are_left_to_the_prior(windows):
    still = np.repeat(np.round(64 * windows[:3, :, :1]) / 64, 32, axis=2)  # exact in half precision
    optimum = fit_linear_optimum([still], latent_dim=6, pool_size=4, transposition=False, seed=0)
    assert optimum.spectra.shape == (6, 32) and optimum.courses.shape == (6, 8)
    np.testing.assert_allclose(optimum.encoder_weights()[1][:, 2:], 0, atol=1e-3)
    np.testing.assert_allclose(optimum.posterior_scales[2:], 1, rtol=1e-3)


def test_the_same_seed_gives_the_same_optimum(windows):
    first, second = (fit_linear_optimum([windows], 4, 4, num_residual_windows=8, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first.spectra, second.spectra)
    assert first.noise_variance == second.noise_variance


def test_truncated_optimum_is_that_of_fewer_dimensions(windows):
    largest, smaller = (fit_linear_optimum([windows], latent_dim, pool_size=4, seed=0) for latent_dim in (4, 2))
    truncated = largest.truncated(2, windows)
    np.testing.assert_allclose(truncated.variances, smaller.variances, rtol=0.01)
    np.testing.assert_allclose(np.abs(components(truncated) @ components(smaller).T), np.eye(2), atol=0.01)
    assert truncated.noise_variance == pytest.approx(smaller.noise_variance, rel=0.01)
    same = largest.truncated(4, windows)
    assert same.noise_variance == pytest.approx(largest.noise_variance, rel=1e-6)


@pytest.mark.parametrize("latent_dim", [0, 5])
def test_optimum_cannot_be_truncated_to_what_it_has_not(latent_dim, windows):
    optimum = fit_linear_optimum([windows], latent_dim=4, pool_size=4, seed=0)
    with pytest.raises(ValueError, match=f"from 1 to 4.*Received: latent_dim={latent_dim}"):
        optimum.truncated(latent_dim, windows)


def test_one_window_is_too_few(windows):
    with pytest.raises(ValueError, match="at least 2 windows.*warm_start=False.*Received: 1"):
        fit_linear_optimum([windows[:1]], latent_dim=2, pool_size=4)


def test_courses_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    contexts, spectra, mean = rng.normal(size=(30, 8, 3, 2)), rng.normal(size=(2, 5)), rng.normal(size=5)
    steps = rng.normal(size=(30, 8, 4, 5))
    courses = fit_courses(contexts, steps, spectra, mean).reshape(3, 4, 2)
    # Step by step: what each neighbour's number adds to the spectrum, as one regression.
    columns = np.einsum("ntjd,df->ntfjd", contexts, spectra).reshape(-1, 6)
    for step in range(4):
        expected = np.linalg.lstsq(columns, (steps[:, :, step] - mean).reshape(-1), rcond=None)[0]
        np.testing.assert_allclose(courses[:, step].ravel(), expected, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("semitones", [-3, -1, 2])
def test_transposed_windows_sound_higher_or_lower(semitones):
    converter = SpectrogramConverter(sample_rate=22050, n_fft=1024, hop_length=256, num_frames=32)
    time = np.arange(converter.window_length) / converter.sample_rate
    frequencies = 3000.0, 3000.0 * 2 ** (semitones / 12)
    played, wanted = (converter.to_spectrogram(np.sin(2 * np.pi * each * time)[None]) for each in frequencies)
    moved = transpose_windows(played, semitones)
    assert moved.shape == played.shape and moved.dtype == np.float32
    peaks = [np.argmax(each[0, :, 16, 0]) for each in (moved, wanted)]
    assert abs(peaks[0] - peaks[1]) <= 1
