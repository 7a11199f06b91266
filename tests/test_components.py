import numpy as np
import pytest
import sklearn.decomposition

import spectrovae.model.pca
from spectrovae.model.pca import SEMITONES, TRANSPOSED_SHARE, separable_components

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
