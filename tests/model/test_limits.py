import numpy as np
import pytest
import tensorflow as tf

from spectrovae.model.limits import NUM_BANDS, LoudnessLimits, level_slopes
from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.sequence_prior import SequencePrior


@pytest.fixture
def limits() -> tuple[LoudnessLimits, np.ndarray, np.ndarray]:
    """Limits that are fitted to codes, these codes and the slopes."""
    rng = np.random.default_rng(0)
    codes, slopes = rng.normal(size=(500, 6)), rng.normal(size=(6, 3)).repeat([1, 1, NUM_BANDS - 2], axis=1)
    layer = LoudnessLimits(6)
    layer.fit(codes, slopes)
    return layer, codes, slopes


def test_codes_stay_as_they_are_before_fit():
    codes = np.random.default_rng(0).normal(size=(4, 3, 2)).astype(np.float32)
    np.testing.assert_array_equal(LoudnessLimits(2)(codes), codes)


def test_codes_that_are_too_loud_are_projected(limits):
    layer, codes, slopes = limits
    highest = np.percentile(codes @ slopes, 99, axis=0)
    loud = (4 * codes).astype(np.float32)
    kept = layer(loud).numpy()
    assert ((kept @ slopes - highest) / np.linalg.norm(slopes, axis=0)).max() < 0.05
    excess = np.maximum(loud @ slopes - highest, 0)
    is_within = (excess == 0).all(axis=1)
    assert 0 < is_within.sum() < len(loud)
    np.testing.assert_array_equal(kept[is_within], loud[is_within])
    # Where one band alone is too loud, the nearest code lies straight below.
    only_first = (excess[:, 0] > 0) & (excess[:, 1:] == 0).all(axis=1)
    nearest = loud[only_first] - excess[only_first, :1] * slopes[:, 0] / np.square(slopes[:, 0]).sum()
    is_done = (nearest @ slopes <= highest + 1e-6).all(axis=1)
    assert is_done.any()
    np.testing.assert_allclose(kept[only_first][is_done], nearest[is_done], atol=1e-4)


def test_codes_may_have_any_number_of_axes(limits):
    layer, codes, _ = limits
    loud = tf.constant(3 * codes.reshape(50, 2, 5, 6), tf.float32)
    np.testing.assert_allclose(layer(loud)[7, 1], layer(loud[7, 1]), rtol=1e-5)


def test_slopes_are_those_of_a_linear_decoder():
    rng = np.random.default_rng(0)
    codes, loadings = rng.normal(size=(40, 4, 3)), rng.normal(size=(3, 64))
    windows = np.einsum("ntd,db->nbt", codes, loadings).repeat(2, axis=2) + rng.normal(size=64)[:, None]
    slopes = level_slopes(codes, windows)
    assert slopes.shape == (3, NUM_BANDS)
    np.testing.assert_allclose(slopes[:, 0], loadings[:, 0], rtol=0.02, atol=0.02)
    np.testing.assert_allclose(slopes[:, -1], loadings[:, 55:63].mean(axis=1), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("num_steps", [0, 6])
def test_draws_are_no_louder_than_codes(num_steps):
    # As music: never above 0, and often far below.
    rng = np.random.default_rng(0)
    num_codes = 60 if num_steps else 400  # so few sequences are fitted in closed form
    levels = -np.abs(rng.normal(size=(num_codes, num_steps or 1, 1)))
    codes = np.concatenate([levels, rng.normal(size=levels.shape)], axis=-1).astype(np.float32)
    codes = codes if num_steps else codes[:, 0]
    slopes = np.array([[1.0], [0.0]]) * np.ones(NUM_BANDS)
    drawn = []
    for given in (None, slopes):
        prior = SequencePrior(2, seed=0) if num_steps else GaussianMixturePrior(2, seed=0)
        prior.build((None, *codes.shape[1:]))
        prior.fit(codes, seed=0, slopes=given)
        drawn.append(prior.sample(500, seed=0).numpy()[..., 0].max())
    assert drawn[0] > 0.3 and drawn[1] < 0.01
