import numpy as np
import pytest

from spectrovae.model.calibration import calibrate, moments_of
from spectrovae.model.sequence_prior import SequencePrior

STEPS, DIM = 16, 3


def draw_process(num_sequences: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of three kinds, of which each keeps to its own mean and forgets at its own rate, and their kinds."""
    generator = np.random.default_rng(seed)
    kinds = generator.choice(3, size=num_sequences, p=[0.6, 0.3, 0.1])
    kept = np.array([[0.6, 0.8, 0.5], [0.8, 0.7, 0.6], [0.7, 0.7, 0.4]])[kinds]
    scales = np.array([[1.0, 0.5, 2.0], [0.4, 1.0, 1.0], [1.0, 2.0, 0.3]])[kinds]
    centres = np.array([[3.0, 0.0, 0.0], [-3.0, 1.0, 0.0], [0.0, -2.0, 4.0]])[kinds]
    codes = [generator.normal(size=(num_sequences, DIM))]
    for _ in range(STEPS - 1):
        codes.append(kept * codes[-1] + np.sqrt(1 - kept**2) * generator.normal(size=(num_sequences, DIM)))
    return (centres[:, None] + scales[:, None] * np.stack(codes, axis=1)).astype(np.float32), kinds


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return draw_process(900, seed=0)[0]


@pytest.fixture(scope="module")
def fitted(codes) -> SequencePrior:
    prior = SequencePrior(3, seed=0, num_experts=3)
    prior.build(codes.shape)
    prior.fit(codes, seed=0)
    return prior


def deviations_of(prior: SequencePrior, codes: np.ndarray, shares: np.ndarray, component: int | None) -> np.ndarray:
    """What is off of the mean, in standard deviations, and of the slow and the fast deviation, as a share of them."""
    weights = np.ones(len(codes)) if component is None else shares[:, component]
    mean, slow, fast = moments_of(codes, weights)
    drawn_mean, drawn_slow, drawn_fast = moments_of(prior.sample(4000, component=component, seed=99).numpy())
    ratios = np.sqrt(np.mean([drawn_slow / slow, drawn_fast / fast], axis=1)) - 1
    return np.abs([np.sqrt(np.mean(np.square(drawn_mean - mean) / (slow + fast))), *ratios])


def test_draws_have_mean_slow_and_fast_variance_of_the_codes(fitted, codes):
    shares = fitted.responsibilities(codes).numpy()
    np.testing.assert_allclose(fitted.mixing_weights, shares.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.sort(fitted.mixing_weights), [0.1, 0.3, 0.6], atol=0.05)
    for component in (0, 1, 2, None):
        assert (deviations_of(fitted, codes, shares, component) < 0.05).all()


def test_what_was_disturbed_is_corrected_and_the_density_hardly_changes(fitted, codes):
    held_out, _ = draw_process(300, seed=1)
    shares, before = fitted.responsibilities(codes).numpy(), np.mean(fitted.log_prob(held_out))
    weights = fitted.get_weights()
    fitted.log_draw_factors.assign(np.full((3, DIM), 0.3))
    fitted.pulls.assign(fitted.pulls - 0.03)
    assert max(deviations_of(fitted, codes, shares, component).max() for component in range(3)) > 0.15
    calibrate(fitted, codes, shares, seed=0)
    for component in range(3):
        assert (deviations_of(fitted, codes, shares, component) < 0.05).all()
    assert np.mean(fitted.log_prob(held_out)) == pytest.approx(before, abs=0.02 * STEPS)
    fitted.set_weights(weights)


def test_components_without_codes_are_left_as_they_are(fitted, codes):
    weights = fitted.get_weights()
    shares = np.tile([0.999, 0.001, 0.0], (len(codes), 1))
    calibrate(fitted, codes, shares, seed=0)
    for weight, old in zip(fitted.weights, weights, strict=True):
        if weight.shape[:1] == (3,) and "transitions" not in weight.path:
            np.testing.assert_allclose(weight.numpy()[1:], old[1:], rtol=1e-5)
    fitted.set_weights(weights)
    calibrate(fitted, codes[:2], shares[:2], seed=0)
    for weight, old in zip(fitted.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_moments_are_those_of_weighted_sequences():
    codes = np.random.default_rng(0).normal(size=(5, STEPS, DIM))
    twice = moments_of(codes, np.array([2, 1, 1, 0, 0]))
    np.testing.assert_allclose(twice, moments_of(codes[[0, 0, 1, 2]]))
    np.testing.assert_allclose(moments_of(codes)[1:].sum(axis=0), codes.var(axis=(0, 1)))
