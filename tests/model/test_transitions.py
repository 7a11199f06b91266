import numpy as np
import pytest

from spectrovae.model.transitions import TIME_CONSTANTS, Motion, Transitions

DIM, EXPERTS, COMPONENTS = 2, 3, 4


@pytest.fixture
def motion() -> Motion:
    generator = np.random.default_rng(5)
    sizes = (1.0, 0.2, 0.3)
    return Motion(*(size * generator.normal(size=(COMPONENTS, DIM)).astype(np.float32) for size in sizes))


def of_steps(motion: Motion, *shape: int) -> Motion:
    """The motion of the first component for sequences and steps."""
    return Motion(*(np.broadcast_to(values[0], (*shape, DIM)) for values in motion))


@pytest.fixture
def transitions() -> Transitions:
    """A layer that looks back over 4 codes, with weights that are all different."""
    layer = Transitions(DIM, EXPERTS, memory=4)
    generator = np.random.default_rng(0)
    for weight in layer.trainable_variables:
        weight.assign(0.3 * generator.normal(size=weight.shape))
    return layer


def draw_codes(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*shape, DIM)).astype(np.float32)


def summary_of(past: np.ndarray, memory: int) -> np.ndarray:
    """The last code, its running means, and what followed codes like it, as the docstring tells them."""
    past = past[-memory:]
    means = []
    for constant in TIME_CONSTANTS:
        weights = np.exp(-np.arange(len(past))[::-1] / constant)
        means.append(weights @ past / weights.sum())
    if len(past) == 1:
        return np.concatenate([past[-1], *means, past[-1]])
    likeness = np.exp(-np.square(past[:-1] - past[-1]).mean(axis=1) / (2 * 0.3**2))
    return np.concatenate([past[-1], *means, likeness @ past[1:] / likeness.sum()])


def density_of(layer: Transitions, past: np.ndarray, code: np.ndarray, motion: Motion) -> float:
    """p(code | past, k) by the formula of the docstring, with covariance matrices."""
    summary = summary_of(past, layer.memory)
    gates = np.exp(summary @ layer.gate_kernel.numpy() + layer.gate_bias.numpy())
    scales = np.log1p(np.exp(layer.raw_scales.numpy())) + layer.min_scale
    total = 0.0
    for expert, gate in enumerate(gates / gates.sum()):
        whitening = (np.tril(layer.correlations.numpy()[expert], -1) + np.eye(DIM)) / scales[expert][:, None]
        covariance = np.linalg.inv(whitening.T @ whitening)
        # s u has s times the mean of u and S times s on both sides.
        spread = np.exp(motion.log_spreads)
        covariance = spread[:, None] * covariance * spread
        expected = summary @ layer.coefficients.numpy() - motion.pulls * summary[3 * DIM : 4 * DIM] + motion.offsets
        deviation = code - expected - spread * layer.means.numpy()[expert]
        square = deviation @ np.linalg.solve(covariance, deviation)
        total += gate * np.exp(-square / 2) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
    return total


def test_log_prob_is_the_formula_written_out(transitions, motion):
    codes = draw_codes(3, 7)  # longer than the memory
    expected = [
        [
            sum(np.log(density_of(transitions, sequence[:step], sequence[step], Motion(*each))) for step in range(1, 7))
            for each in zip(*motion, strict=True)
        ]
        for sequence in codes.astype(np.float64)
    ]
    log_prob = transitions.log_prob(codes, motion)
    assert log_prob.shape == (3, COMPONENTS)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4)
    # Any number of axes before those of a sequence.
    np.testing.assert_allclose(transitions.log_prob(codes[None, :, None], motion)[0, :, 0], expected, rtol=1e-4)
    # Where the component of each sequence is known, only its density is computed.
    components = np.array([2, 0, 3])
    known = transitions.log_prob_of(codes, motion.pick(components))
    np.testing.assert_allclose(known, log_prob.numpy()[np.arange(3), components], rtol=1e-5)


def test_summaries_know_the_past_only(transitions):
    codes = draw_codes(2, 6)
    summaries = transitions.summarize(codes).numpy()
    for step in range(6):
        expected = [summary_of(sequence[: step + 1], 4) for sequence in codes]
        np.testing.assert_allclose(summaries[:, step], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        transitions.summarize(codes, last_only=True)[:, 0], summaries[:, -1], rtol=1e-5, atol=1e-6
    )
    later = codes.copy()
    later[:, 4:] += 10
    np.testing.assert_array_equal(transitions.summarize(later)[:, :4], summaries[:, :4])


def test_samples_have_the_moments_of_the_density(transitions, motion):
    past = np.tile(draw_codes(1, 3), (40_000, 1, 1))
    drawn = transitions.sample(past, of_steps(motion, 40_000, 1), np.array([3, 4])).numpy()[:, 0]
    axis, step = np.linspace(-12, 12, 121, retstep=True)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, DIM)
    codes = np.concatenate([np.tile(past[0], (len(grid), 1, 1)), grid[:, None]], axis=1).astype(np.float32)
    log_prob = transitions.log_prob(codes, motion)[:, 0] - transitions.log_prob(past[:1], motion)[0, 0]
    density = np.exp(log_prob)
    assert density.sum() * step**2 == pytest.approx(1, abs=1e-3)
    mean = density @ grid * step**2
    covariance = (grid - mean).T @ ((grid - mean) * density[:, None]) * step**2
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05)


def test_draws_repeat_and_go_on_from_their_own_past(transitions):
    past, moves = draw_codes(2, 5), Motion.plain(np.zeros((2, 6, DIM), np.float32))
    drawn = transitions.sample(past, moves, np.array([1, 2])).numpy()
    np.testing.assert_array_equal(transitions.sample(past, moves, np.array([1, 2])), drawn)
    assert not np.allclose(transitions.sample(past, moves, np.array([1, 3])), drawn)
    # What lies before the memory does not count.
    np.testing.assert_array_equal(transitions.sample(past[:, 1:], moves, np.array([1, 2])), drawn)


def test_one_expert_at_temperature_zero_is_a_linear_recurrence():
    layer = Transitions(DIM, num_experts=1, memory=8)
    coefficients = np.zeros((5 * DIM, DIM))
    coefficients[:DIM] = [[0.5, 0.2], [-0.1, 0.8]]
    layer.coefficients.assign(coefficients)
    layer.means.assign([[0.1, -0.2]])
    moves = draw_codes(1, 5)
    expected = [np.array([1.0, -1.0])]
    for move in moves[0]:
        expected.append(expected[-1] @ coefficients[:DIM] + move + [0.1, -0.2])
    drawn = layer.sample(np.array([[[1.0, -1.0]]], np.float32), Motion.plain(moves), np.array([0, 0]), temperature=0.0)
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
    offsets, pulls, log_spreads = layer.start_from(codes, np.eye(2)[kinds], seed=0)
    np.testing.assert_array_equal(pulls, 0)
    np.testing.assert_allclose(log_spreads, 0, atol=0.05)
    np.testing.assert_allclose(offsets, moves, atol=0.1)
    # All that the past tells is found: the noise is left.
    predicted = layer.summarize(codes.astype(np.float32)).numpy()[:, :-1] @ layer.coefficients.numpy()
    assert np.std(codes[:, 1:] - predicted - offsets[kinds][:, None]) == pytest.approx(0.3, rel=0.03)
    # The running means know the last code too, so that only what they do together is decided.
    together = layer.coefficients.numpy().reshape(-1, DIM, DIM).sum(axis=0)
    np.testing.assert_allclose(together, coefficient, atol=0.1)
    np.testing.assert_allclose(layer.lowest, codes.min(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(layer.highest, codes.max(axis=(0, 1)), rtol=1e-5)


def test_start_finds_how_much_each_component_varies():
    generator = np.random.default_rng(0)
    kinds = np.arange(300) % 2
    scales = np.array([[0.2, 1.0], [0.6, 1.0]])
    codes = scales[kinds][:, None] * generator.normal(size=(300, 12, DIM))
    _, _, log_spreads = Transitions(DIM, num_experts=1).start_from(codes, np.eye(2)[kinds], seed=0)
    np.testing.assert_allclose(log_spreads[1] - log_spreads[0], np.log([3.0, 1.0]), atol=0.1)


def test_start_with_few_codes_leaves_experts_that_hardly_count():
    layer = Transitions(DIM, num_experts=8, memory=3)
    codes = draw_codes(3, 3)
    layer.start_from(codes, np.ones((3, 1)), seed=0)
    gates = np.exp(layer.gate_bias) / np.exp(layer.gate_bias).sum()
    assert (gates[2:] < 1e-3).all() and gates[:2].sum() == pytest.approx(1, abs=1e-2)
    assert np.isfinite(layer.log_prob(codes, Motion.plain(np.zeros((1, DIM), np.float32)))).all()


@pytest.mark.parametrize("name", ["latent_dim", "num_experts", "memory"])
def test_bad_arguments_are_named(name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        Transitions(**{"latent_dim": 2} | {name: 0})
