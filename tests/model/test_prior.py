import keras
import numpy as np
import pytest
import sklearn.mixture
import tensorflow as tf

from spectrovae.model.prior import GaussianMixturePrior


@pytest.fixture
def codes() -> np.ndarray:
    generator = np.random.default_rng(1)
    centres = np.array([[0, 3, 0], [2, -1, 1], [-2, 0, -3]])
    return (centres[generator.integers(3, size=400)] + generator.normal(size=(400, 3))).astype(np.float32)


@pytest.fixture
def fitted(codes):
    """The mixture of scikit-learn and ours with its parameters."""
    theirs = sklearn.mixture.GaussianMixture(3, covariance_type="diag", random_state=0).fit(codes)
    ours = GaussianMixturePrior(3, learn_weights=True)
    ours.build(codes.shape)
    ours.assign_mixture(theirs.means_, np.sqrt(theirs.covariances_), theirs.weights_)
    return theirs, ours


def test_log_prob_is_that_of_scikit_learn(fitted, codes):
    theirs, ours = fitted
    np.testing.assert_allclose(ours.log_prob(codes), theirs.score_samples(codes), rtol=1e-5)
    np.testing.assert_allclose(ours(codes), theirs.score_samples(codes), rtol=1e-5)


def test_responsibilities_are_those_of_scikit_learn(fitted, codes):
    theirs, ours = fitted
    np.testing.assert_allclose(ours.responsibilities(codes), theirs.predict_proba(codes), atol=1e-5)


def test_samples_have_the_moments_of_the_mixture(fitted):
    theirs, ours = fitted
    samples = ours.sample(20_000, seed=3).numpy()
    np.testing.assert_allclose(samples.mean(axis=0), theirs.weights_ @ theirs.means_, atol=0.06)
    one = ours.sample(20_000, component=1, seed=3).numpy()
    np.testing.assert_allclose(one.mean(axis=0), theirs.means_[1], atol=0.05)
    np.testing.assert_allclose(one.std(axis=0), np.sqrt(theirs.covariances_[1]), rtol=0.03)


def test_draws_of_a_fit_have_the_moments_of_the_codes():
    generator = np.random.default_rng(1)
    kinds = generator.choice(3, size=1000, p=[0.7, 0.25, 0.05])
    centres, spreads = np.array([[0, 5, 0], [6, -3, 3], [-6, 0, -6]]), np.array([1.0, 0.3, 2.0])
    codes = (centres[kinds] + spreads[kinds, None] * generator.normal(size=(1000, 3))).astype(np.float32)
    prior = GaussianMixturePrior(3, seed=0)
    prior.build(codes.shape)
    prior.fit(codes, seed=0)
    shares = prior.responsibilities(codes).numpy()
    np.testing.assert_allclose(prior.mixing_weights, shares.mean(axis=0), atol=0.02)
    for component in range(3):
        mean = np.average(codes, axis=0, weights=shares[:, component])
        scale = np.sqrt(np.average(np.square(codes - mean), axis=0, weights=shares[:, component]))
        drawn = prior.sample(20_000, component=component, seed=3).numpy()
        np.testing.assert_allclose((drawn.mean(axis=0) - mean) / scale, 0, atol=0.05)
        np.testing.assert_allclose(drawn.std(axis=0), scale, rtol=0.05)
    drawn = prior.sample(20_000, seed=3).numpy()
    np.testing.assert_allclose((drawn.mean(axis=0) - codes.mean(axis=0)) / codes.std(axis=0), 0, atol=0.05)
    np.testing.assert_allclose(drawn.std(axis=0), codes.std(axis=0), rtol=0.05)


def test_weights_are_shares_with_one_code_more_for_each_component(fitted):
    _, prior = fitted
    prior.assign_weights(np.array([0.0, 0.25, 0.75]), num_codes=97)
    np.testing.assert_allclose(prior.mixing_weights, [0.01, 0.2525, 0.7375], rtol=1e-4)
    prior.assign_weights(np.full(3, np.nan), num_codes=0.0)  # after an epoch without a finite code
    assert np.isfinite(prior.logits.numpy()).all()


def test_density_integrates_to_one():
    prior = GaussianMixturePrior(4, seed=2)
    grid = np.linspace(-8, 8, 161, dtype=np.float32)
    points = np.stack(np.meshgrid(grid, grid), axis=-1)
    total = np.exp(prior.log_prob(points)).sum() * (grid[1] - grid[0]) ** 2
    assert total == pytest.approx(1, abs=1e-3)


def test_temperature_scales_the_spread(fitted):
    _, ours = fitted
    np.testing.assert_allclose(
        ours.sample(5, component=0, seed=1, temperature=0), np.tile(ours.means[0], (5, 1)), atol=1e-6
    )
    hot, cold = (ours.sample(2000, component=0, seed=1, temperature=t).numpy().std() for t in (2.0, 0.5))
    assert hot > cold


def test_draws_repeat_with_their_seed(fitted):
    _, prior = fitted
    np.testing.assert_array_equal(prior.sample(5, seed=7), prior.sample(5, seed=7))
    assert not np.array_equal(prior.sample(5, seed=7), prior.sample(5, seed=8))
    assert not np.array_equal(prior.sample(5), prior.sample(5))


@pytest.mark.parametrize("learn_weights", [False, True])
def test_gradients_reach_what_is_trained(codes, learn_weights):
    prior = GaussianMixturePrior(3, learn_weights=learn_weights, seed=0)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(prior(codes))
    gradients = tape.gradient(loss, prior.trainable_variables)
    assert len(gradients) == 2 + learn_weights
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)


def test_training_finds_the_mixture(codes, fitted):
    theirs, _ = fitted
    prior = GaussianMixturePrior(3, learn_weights=True, seed=0)
    prior.build(codes.shape)
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build(prior.trainable_variables)
    before = float(tf.reduce_mean(prior(codes)))

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(prior.log_prob(codes))
        optimizer.apply(tape.gradient(loss, prior.trainable_variables), prior.trainable_variables)

    for _ in range(150):
        step()
    after = float(tf.reduce_mean(prior(codes)))
    assert after > before + 0.3
    assert after > theirs.score(codes) - 0.3


def test_scales_stay_above_their_floor():
    prior = GaussianMixturePrior(2, min_scale=0.1)
    prior.build((None, 2))
    prior.assign_mixture(np.zeros((2, 2)), np.array([[1e-9, 0.5], [0.1, 2.0]]))
    np.testing.assert_allclose(prior.scales, [[0.1, 0.5], [0.1, 2.0]], atol=1e-5)


@pytest.mark.parametrize("latent_dim", [2, 100])
@pytest.mark.parametrize("learn_weights", [False, True])
def test_revived_components_are_live_at_once(latent_dim, learn_weights):
    generator = np.random.default_rng(0)
    codes = generator.normal(size=(500, latent_dim)).astype(np.float32)
    prior = GaussianMixturePrior(4, learn_weights=learn_weights, seed=0)
    prior.build(codes.shape)
    means = np.zeros((4, latent_dim))
    means[1:] += 1000 * np.arange(1, 4)[:, None]
    prior.assign_mixture(means, np.ones_like(means), [0.97, 0.01, 0.01, 0.01])
    before = float(tf.reduce_mean(prior.log_prob(codes)))
    revived = prior.revive(np.mean(prior.responsibilities(codes), axis=0))
    assert set(revived) == {1, 2, 3} and set(revived.values()) <= {0, 1, 2}
    assert (np.mean(prior.responsibilities(codes), axis=0) > 0.1 / 4).all()
    # Where the weight is divided, the density of the codes hardly changes.
    assert float(tf.reduce_mean(prior.log_prob(codes))) > before - 0.5


def test_nothing_is_revived_where_all_live_or_nothing_is_known(fitted):
    _, prior = fitted
    means = prior.means.numpy()
    for shares in ([0.1, 0.5, 0.4], [0.0, 0.0, 0.0], [np.nan, np.nan, np.nan]):
        assert prior.revive(np.array(shares)) == {}
    np.testing.assert_array_equal(prior.means, means)


def test_fixed_weights_stay_uniform():
    prior = GaussianMixturePrior(2, learn_weights=False)
    prior.build((None, 2))
    prior.assign_mixture(np.zeros((2, 2)), np.ones((2, 2)), np.array([0.9, 0.1]))
    prior.assign_weights(np.array([0.9, 0.1]), num_codes=100)
    np.testing.assert_allclose(prior.mixing_weights, [0.5, 0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_components": 0}, "num_components=0"),
        ({"num_components": 2.5}, "num_components=2.5"),
        ({"num_components": 2, "min_scale": 0.0}, "min_scale=0.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixturePrior(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_samples": 1, "component": 3}, "from 0 to 2.*component=3"),
        ({"num_samples": 1, "component": -1}, "component=-1"),
        ({"num_samples": 1, "temperature": -1.0}, "temperature=-1.0"),
        ({"num_samples": 1, "seed": -1}, "seed=-1"),
        ({"num_samples": 1, "seed": 0.5}, "seed=0.5"),
    ],
)
def test_bad_draws_are_named(fitted, arguments, message):
    with pytest.raises(ValueError, match=message):
        fitted[1].sample(**arguments)


def test_sampling_before_building_says_what_to_do():
    with pytest.raises(ValueError, match="latent_dim"):
        GaussianMixturePrior(2).sample(1)
