import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from scipy.stats import norm

from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.sequence_prior import TIME_CONSTANTS, SequencePrior, Transitions

DIM, EXPERTS, COMPONENTS = 2, 3, 4


def draw_codes(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.fixture
def offsets() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(COMPONENTS, DIM)).astype(np.float32)


@pytest.fixture
def transitions() -> Transitions:
    """A layer that looks back over 4 codes, with weights that are all different."""
    layer = Transitions(DIM, EXPERTS, memory=4)
    generator = np.random.default_rng(0)
    for weight in layer.trainable_variables:
        weight.assign(0.3 * generator.normal(size=weight.shape))
    return layer


def summary_of(past: np.ndarray, memory: int) -> np.ndarray:
    """The last code and its running means, as the docstring tells them."""
    past = past[-memory:]
    means = []
    for constant in TIME_CONSTANTS:
        weights = np.exp(-np.arange(len(past))[::-1] / constant)
        means.append(weights @ past / weights.sum())
    return np.concatenate([past[-1], *means])


def density_of(layer: Transitions, past: np.ndarray, code: np.ndarray, offset: np.ndarray) -> float:
    """p(code | past, k) by the formula of the docstring, with covariance matrices."""
    summary = summary_of(past, layer.memory)
    gates = np.exp(summary @ layer.gate_kernel.numpy() + layer.gate_bias.numpy())
    scales = np.log1p(np.exp(layer.raw_scales.numpy())) + layer.min_scale
    total = 0.0
    for expert, gate in enumerate(gates / gates.sum()):
        whitening = (np.tril(layer.correlations.numpy()[expert], -1) + np.eye(DIM)) / scales[expert][:, None]
        covariance = np.linalg.inv(whitening.T @ whitening)
        deviation = code - summary @ layer.coefficients.numpy() - offset - layer.means.numpy()[expert]
        square = deviation @ np.linalg.solve(covariance, deviation)
        total += gate * np.exp(-square / 2) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
    return total


def test_log_prob_is_the_formula_written_out(transitions, offsets):
    codes = draw_codes(3, 7, DIM)  # longer than the memory
    expected = [
        [
            sum(np.log(density_of(transitions, sequence[:step], sequence[step], offset)) for step in range(1, 7))
            for offset in offsets
        ]
        for sequence in codes.astype(np.float64)
    ]
    log_prob = transitions.log_prob(codes, offsets)
    assert log_prob.shape == (3, COMPONENTS)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
    # Any number of axes before those of a sequence.
    np.testing.assert_allclose(transitions.log_prob(codes[None, :, None], offsets)[0, :, 0], expected, rtol=1e-4)


def test_summaries_know_the_past_only(transitions):
    codes = draw_codes(2, 6, DIM)
    summaries = transitions.summarize(codes).numpy()
    for step in range(6):
        expected = [summary_of(sequence[: step + 1], 4) for sequence in codes]
        np.testing.assert_allclose(summaries[:, step], expected, rtol=1e-5, atol=1e-6)
    later = codes.copy()
    later[:, 4:] += 10
    np.testing.assert_array_equal(transitions.summarize(later)[:, :4], summaries[:, :4])


def test_samples_have_the_moments_of_the_density(transitions):
    past = np.tile(draw_codes(1, 3, DIM), (40_000, 1, 1))
    offset = np.float32([0.5, -1.0])
    drawn = transitions.sample(past, np.tile(offset, (40_000, 1, 1)), np.array([3, 4])).numpy()[:, 0]
    axis, step = np.linspace(-12, 12, 121, retstep=True)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, DIM)
    codes = np.concatenate([np.tile(past[0], (len(grid), 1, 1)), grid[:, None]], axis=1).astype(np.float32)
    log_prob = transitions.log_prob(codes, offset[None])[:, 0] - transitions.log_prob(past[:1], offset[None])[0, 0]
    density = np.exp(log_prob)
    assert density.sum() * step**2 == pytest.approx(1, abs=1e-3)
    mean = density @ grid * step**2
    covariance = (grid - mean).T @ ((grid - mean) * density[:, None]) * step**2
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05)


def test_draws_repeat_and_go_on_from_their_own_past(transitions):
    past, moves = draw_codes(2, 5, DIM), np.zeros((2, 6, DIM), np.float32)
    drawn = transitions.sample(past, moves, np.array([1, 2])).numpy()
    np.testing.assert_array_equal(transitions.sample(past, moves, np.array([1, 2])), drawn)
    assert not np.allclose(transitions.sample(past, moves, np.array([1, 3])), drawn)
    # What lies before the memory does not count.
    np.testing.assert_array_equal(transitions.sample(past[:, 1:], moves, np.array([1, 2])), drawn)


def test_one_expert_at_temperature_zero_is_a_linear_recurrence():
    layer = Transitions(DIM, num_experts=1, memory=8)
    coefficients = np.zeros((4 * DIM, DIM))
    coefficients[:DIM] = [[0.5, 0.2], [-0.1, 0.8]]
    layer.coefficients.assign(coefficients)
    layer.means.assign([[0.1, -0.2]])
    moves = draw_codes(1, 5, DIM)
    expected = [np.array([1.0, -1.0])]
    for move in moves[0]:
        expected.append(expected[-1] @ coefficients[:DIM] + move + [0.1, -0.2])
    drawn = layer.sample(np.array([[[1.0, -1.0]]], np.float32), moves, np.array([0, 0]), temperature=0.0)
    np.testing.assert_allclose(drawn[0], expected[1:], rtol=1e-5)


def test_start_finds_an_autoregressive_process():
    generator = np.random.default_rng(0)
    coefficient, moves = np.array([[0.7, 0.2], [-0.3, 0.5]]), np.array([[1.0, 0.0], [-1.0, 0.5]])
    kinds = generator.integers(2, size=300)
    steps = [generator.normal(size=(300, DIM))]
    for _ in range(11):
        steps.append(steps[-1] @ coefficient + moves[kinds] + 0.3 * generator.normal(size=(300, DIM)))
    codes = np.stack(steps, axis=1)
    layer = Transitions(DIM, num_experts=2, memory=12)
    offsets = layer.start_from(codes, np.eye(2)[kinds], seed=0)
    np.testing.assert_allclose(offsets, moves, atol=0.1)
    # All that the past tells is found: the noise is left.
    predicted = layer.summarize(codes.astype(np.float32)).numpy()[:, :-1] @ layer.coefficients.numpy()
    assert np.std(codes[:, 1:] - predicted - offsets[kinds][:, None]) == pytest.approx(0.3, rel=0.03)
    # The running means know the last code too, so that only what they do together is decided.
    together = layer.coefficients.numpy().reshape(-1, DIM, DIM).sum(axis=0)
    np.testing.assert_allclose(together, coefficient, atol=0.1)
    np.testing.assert_allclose(layer.lowest, codes.min(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(layer.highest, codes.max(axis=(0, 1)), rtol=1e-5)


def test_start_with_few_codes_leaves_experts_that_hardly_count():
    layer = Transitions(DIM, num_experts=8, memory=3)
    codes = draw_codes(3, 3, DIM)
    layer.start_from(codes, np.ones((3, 1)), seed=0)
    gates = np.exp(layer.gate_bias) / np.exp(layer.gate_bias).sum()
    assert (gates[2:] < 1e-3).all() and gates[:2].sum() == pytest.approx(1, abs=1e-2)
    assert np.isfinite(layer.log_prob(codes, np.zeros((1, DIM), np.float32))).all()


@pytest.mark.parametrize("name", ["latent_dim", "num_experts", "memory"])
def test_bad_arguments_are_named(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        Transitions(**{"latent_dim": 2} | {name: 0})


STEPS, DIM = 5, 2


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
    joint = np.log(prior.mixing_weights) + first + prior.transitions.log_prob(codes, prior.offsets.numpy())
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
    prior.transitions.coefficients.assign([[0.9], [0.0], [0.0], [0.0]])
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
    prior.transitions.coefficients.assign(np.eye(4 * DIM)[:, :DIM])  # as the last code
    prior.transitions.means.assign(np.zeros((2, DIM)))
    prior.offsets.assign(np.zeros((3, DIM)))
    past = draw_codes(4, STEPS, DIM)
    following = prior.continue_from(np.zeros((4, 3), int), 0.0, np.array([0, 0]), past)
    np.testing.assert_allclose(following, np.repeat(past[:, -1:], 3, axis=1), rtol=1e-6)


def test_anchors_are_reached_and_long_sequences_keep_to_theirs(prior):
    prior.transitions.coefficients.assign(np.eye(4 * DIM)[:, :DIM])  # as the last code
    prior.transitions.means.assign(np.zeros((2, DIM)))
    prior.offsets.assign(np.zeros((3, DIM)))
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
    assert len(gradients) == 3 + 1 + 6
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_revived_components_go_on_alike(prior):
    offsets = prior.offsets.numpy()
    assert prior.revive(np.array([0.3, 0.7, 0.0])) == {2: 1}
    np.testing.assert_array_equal(prior.offsets, offsets[[0, 1, 1]])
    shares = np.mean(prior.responsibilities(prior.sample(300, component=1, seed=0)), axis=0)
    assert shares[2] > 0.1


def test_prior_survives_saving(prior, tmp_path):
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
