import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from scipy.stats import norm

from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.sequence_prior import SequencePrior

STEPS, DIM = 5, 2


def draw_codes(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.fixture
def prior() -> SequencePrior:
    """A prior of three components with weights that are all different."""
    return make_prior(STEPS, DIM)


def make_prior(num_steps: int, dim: int, **kwargs) -> SequencePrior:
    prior = SequencePrior(3, learn_weights=True, seed=0, num_experts=2, **kwargs)
    prior.build((None, num_steps, dim))
    generator = np.random.default_rng(0)
    prior.assign_mixture(generator.normal(size=(3, dim)), generator.uniform(0.5, 2, (3, dim)), [0.2, 0.3, 0.5])
    prior.offsets.assign(generator.normal(size=(3, dim)))
    prior.pulls.assign(0.2 * generator.normal(size=(3, dim)))
    prior.log_spreads.assign(0.3 * generator.normal(size=(3, dim)))
    for weight in prior.transitions.trainable_variables:
        weight.assign(0.3 * generator.normal(size=weight.shape))
    return prior


@pytest.fixture(scope="module")
def process() -> np.ndarray:
    """200 sequences of two kinds, each code 0.8 times the one before it, around another mean, and noise of 0.6."""
    generator = np.random.default_rng(0)
    centres = np.array([[2.0, -2.0], [-2.0, 2.0]])[generator.integers(2, size=200)]
    codes = [generator.normal(size=(200, DIM))]
    for _ in range(11):
        codes.append(0.8 * codes[-1] + 0.6 * generator.normal(size=(200, DIM)))
    return (np.stack(codes, axis=1) + centres[:, None]).astype(np.float32)


@pytest.fixture(scope="module")
def fitted(process) -> SequencePrior:
    prior = SequencePrior(2, seed=0, num_experts=2)
    prior.build(process.shape)
    prior.fit(process[:150], seed=0)
    return prior


def test_log_prob_is_first_code_times_transitions_summed_over_components(prior):
    codes = draw_codes(6, STEPS, DIM)
    first = norm(prior.means.numpy(), prior.scales.numpy()).logpdf(codes[:, 0, None]).sum(axis=-1)
    joint = np.log(prior.mixing_weights) + first + prior.transitions.log_prob(codes, prior.motion)
    np.testing.assert_allclose(prior.log_prob(codes), logsumexp(joint, axis=1), rtol=1e-5)
    np.testing.assert_allclose(prior(codes), prior.log_prob(codes))
    shares = prior.responsibilities(codes)
    np.testing.assert_allclose(shares, np.exp(joint - logsumexp(joint, axis=1, keepdims=True)), atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(shares, axis=1), 1, atol=1e-6)
    draws = codes.reshape(2, 3, STEPS, DIM)
    np.testing.assert_allclose(prior.log_prob(draws), prior.log_prob(codes).numpy().reshape(2, 3), rtol=1e-5)


def test_density_of_two_codes_integrates_to_one():
    prior = make_prior(2, 1)
    axis, step = np.linspace(-15, 15, 401, retstep=True)
    codes = np.stack(np.meshgrid(axis, axis), axis=-1)[..., None].astype(np.float32)
    assert np.exp(prior.log_prob(codes)).sum() * step**2 == pytest.approx(1, abs=1e-3)


def test_one_code_has_the_density_of_the_plain_mixture():
    prior, plain = make_prior(1, DIM), GaussianMixturePrior(3, learn_weights=True)
    plain.build((None, DIM))
    plain.assign_mixture(prior.means.numpy(), prior.scales.numpy(), prior.mixing_weights.numpy())
    codes = draw_codes(7, DIM)
    np.testing.assert_allclose(prior.log_prob(codes[:, None]), plain.log_prob(codes), rtol=1e-5)
    np.testing.assert_allclose(prior.responsibilities(codes[:, None]), plain.responsibilities(codes), atol=1e-5)
    assert prior.sample(4, seed=0).shape == (4, 1, DIM)


def test_samples_have_the_moments_of_a_known_process():
    # z_t = 0.9 z_{t-1} + N(0, 0.19) has variance 1 at every step, and correlations 0.9 ** lag.
    prior = SequencePrior(1, seed=0, num_experts=1)
    prior.build((None, 6, 1))
    prior.assign_mixture(np.zeros((1, 1)), np.ones((1, 1)))
    prior.transitions.coefficients.assign([[0.9], [0.0], [0.0], [0.0], [0.0]])
    prior.transitions.raw_scales.assign([[np.log(np.expm1(np.sqrt(0.19) - 1e-3))]])
    codes = prior.sample(20_000, seed=0).numpy()[..., 0]
    lags = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    np.testing.assert_allclose(np.cov(codes.T), 0.9**lags, atol=0.04)
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=0.03)
    # -E log p of own draws is the entropy: of the first code, and five times of the noise.
    entropy = 0.5 * np.log(2 * np.pi * np.e) * 6 + 2.5 * np.log(0.19)
    assert -np.mean(prior.log_prob(codes[..., None])) == pytest.approx(entropy, abs=0.05)


def test_draws_repeat_with_their_seed(prior):
    np.testing.assert_array_equal(prior.sample(5, seed=7), prior.sample(5, seed=7))
    assert not np.array_equal(prior.sample(5, seed=7), prior.sample(5, seed=8))
    assert not np.array_equal(prior.sample(5), prior.sample(5))
    for num_steps in (1, 2, 50):
        assert prior.sample(2, num_steps=num_steps, seed=0).shape == (2, num_steps, DIM)


def test_component_and_temperature(prior):
    codes = prior.sample(4000, component=1, seed=0).numpy()
    np.testing.assert_allclose(codes[:, 0].mean(axis=0), prior.means[1], atol=0.1)
    np.testing.assert_allclose(codes[:, 0].std(axis=0), prior.scales[1], rtol=0.05)
    cold = prior.sample(3, component=2, temperature=0.0, seed=0).numpy()
    np.testing.assert_allclose(cold[:, 0], np.tile(prior.means[2], (3, 1)), atol=1e-6)
    # A component is drawn for the whole sequence, by the weights.
    chosen = np.argmin(np.linalg.norm(prior.sample(6000, temperature=0, seed=1)[:, 0, None] - prior.means, axis=2), 1)
    np.testing.assert_allclose(np.bincount(chosen) / 6000, prior.mixing_weights, atol=0.03)


def test_sequences_go_on_where_a_past_ends(prior):
    prior.transitions.coefficients.assign(np.eye(5 * DIM)[:, :DIM])  # as the last code
    prior.transitions.means.assign(np.zeros((2, DIM)))
    prior.offsets.assign(np.zeros((3, DIM)))
    prior.pulls.assign(np.zeros((3, DIM)))
    past = draw_codes(4, STEPS, DIM)
    following = prior.continue_from(np.zeros((4, 3), int), 0.0, np.array([0, 0]), past)
    np.testing.assert_allclose(following, np.repeat(past[:, -1:], 3, axis=1), rtol=1e-6)


def test_anchors_are_reached_and_long_sequences_keep_to_theirs(prior):
    prior.transitions.coefficients.assign(np.eye(5 * DIM)[:, :DIM])  # as the last code
    prior.transitions.means.assign(np.zeros((2, DIM)))
    prior.offsets.assign(np.zeros((3, DIM)))
    prior.pulls.assign(np.zeros((3, DIM)))
    past, anchors = draw_codes(4, STEPS, DIM), np.full((4, 100, DIM), 3.0, np.float32)
    following = prior.continue_from(np.zeros((4, 100), int), 0.0, np.array([0, 0]), past, anchors).numpy()
    np.testing.assert_allclose(following[:, -1], 3.0, atol=0.01)
    # Without noise a piece goes from the mean of one component to that of the next.
    piece = prior.compose(np.array([[1, 0]]), 200, 0.0, np.array([0, 0]))[0]
    np.testing.assert_allclose(piece[0], prior.means[1], atol=1e-6)
    np.testing.assert_allclose(piece[-1], prior.means[0], atol=0.2)


def test_sequences_up_to_a_window_are_plain_draws(prior):
    components, seed = np.array([[1], [2]]), np.array([3, 4])
    plain = prior.continue_from(np.repeat(components, STEPS, axis=1), 1.0, seed)
    np.testing.assert_array_equal(prior.compose(components, STEPS, 1.0, seed), plain)
    np.testing.assert_array_equal(prior.compose(components, 2, 1.0, seed), plain[:, :2])


def test_fit_finds_the_process_and_beats_the_plain_mixture(process, fitted):
    held_out = process[150:]
    # Of the true process, given the kind: unit variance first, then noise of 0.6.
    best = -0.5 * DIM * (12 * np.log(2 * np.pi * np.e) + 11 * np.log(0.36))
    plain = GaussianMixturePrior(2, seed=0)
    plain.build((None, DIM))
    plain.fit(process[:150].reshape(-1, DIM), seed=0)
    steps = tf.reduce_sum(plain.log_prob(held_out), axis=1)
    gain = np.mean(fitted.log_prob(held_out)) - np.mean(steps)
    assert gain > 5
    assert np.mean(fitted.log_prob(held_out)) == pytest.approx(best, abs=2.5)
    kinds = np.argmax(fitted.responsibilities(held_out), axis=1)
    agreement = np.mean(kinds == (held_out.mean(axis=1)[:, 0] > 0))
    assert max(agreement, 1 - agreement) > 0.95
    # Around the mean of its kind a code is 0.8 times the one before it.
    drawn = fitted.sample(500, component=0, seed=0, num_steps=60).numpy()[:, 20:]
    centred = drawn - drawn.mean(axis=(0, 1))
    coefficient = np.sum(centred[:, 1:] * centred[:, :-1]) / np.sum(np.square(centred[:, :-1]))
    assert coefficient == pytest.approx(0.8, abs=0.08)


def test_long_samples_stay_where_the_codes_were(process, fitted):
    codes = fitted.sample(4, num_steps=600, seed=0).numpy()
    assert (codes.min(axis=(0, 1)) >= process.min(axis=(0, 1)) - 1e-3).all()
    assert (codes.max(axis=(0, 1)) <= process.max(axis=(0, 1)) + 1e-3).all()
    first, last = codes[:, :300], codes[:, 300:]
    np.testing.assert_allclose(first.std(axis=(0, 1)), last.std(axis=(0, 1)), rtol=0.3)
    # An unstable chain ends at the bounds instead of growing without one.
    fitted.transitions.coefficients.assign(fitted.transitions.coefficients + 0.5)
    wild = fitted.sample(2, num_steps=200, seed=0).numpy()
    assert np.isfinite(wild).all() and np.abs(wild).max() <= np.abs(process).max() + 1e-3


def test_gradients_reach_what_is_trained(prior):
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(prior(draw_codes(20, STEPS, DIM)))
    gradients = tape.gradient(loss, prior.trainable_variables)
    assert len(gradients) == 3 + 3 + 6
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_revived_components_go_on_alike(prior):
    prior.log_draw_factors.assign(draw_codes(3, DIM))
    before = [values.numpy() for values in (*prior.motion, prior.log_draw_factors)]
    assert prior.revive(np.array([0.3, 0.7, 0.0])) == {2: 1}
    for now, old in zip((*prior.motion, prior.log_draw_factors), before, strict=True):
        np.testing.assert_array_equal(now, old[[0, 1, 1]])
    shares = np.mean(prior.responsibilities(prior.sample(300, component=1, seed=0)), axis=0)
    assert shares[2] > 0.1


def test_factors_change_draws_but_not_the_density(prior):
    codes = draw_codes(4, STEPS, DIM)
    density, drawn = prior.log_prob(codes).numpy(), prior.sample(2000, seed=0).numpy()
    prior.log_draw_factors.assign(np.full((3, DIM), -20.0))
    np.testing.assert_array_equal(prior.log_prob(codes), density)
    calm = prior.sample(2000, seed=0).numpy()
    np.testing.assert_array_equal(calm[:, 0], drawn[:, 0])
    assert calm[:, 1].std() < drawn[:, 1].std()


def test_prior_survives_saving(prior, tmp_path):
    prior.log_draw_factors.assign(draw_codes(3, DIM))
    inputs = keras.Input((STEPS, DIM))
    keras.Model(inputs, prior(inputs)).save(tmp_path / "prior.keras")
    loaded = keras.saving.load_model(tmp_path / "prior.keras").layers[-1]
    codes = draw_codes(3, STEPS, DIM)
    np.testing.assert_array_equal(loaded.log_prob(codes), prior.log_prob(codes))
    np.testing.assert_array_equal(loaded.sample(2, seed=0, num_steps=9), prior.sample(2, seed=0, num_steps=9))
    assert loaded.num_experts == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"component": 3}, "from 0 to 2.*component=3"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_draws_are_named(prior, arguments, message):
    with pytest.raises(ValueError, match=message):
        prior.sample(**{"num_samples": 1} | arguments)


def test_what_is_no_sequence_is_refused():
    with pytest.raises(ValueError, match="num_experts=0"):
        SequencePrior(2, num_experts=0)
    for shape in ((4,), (None, 4)):
        with pytest.raises(ValueError, match=r"\(\.\.\., num_steps, latent_dim\)"):
            SequencePrior(2).build(shape)
    with pytest.raises(ValueError, match="latent_dim"):
        SequencePrior(2).sample(1)
