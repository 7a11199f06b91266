import itertools

import keras
import numpy as np
import pytest
import sklearn.decomposition
import tensorflow as tf

from spectrovae import SpectroVAE
from spectrovae.evaluation.diagnosis import diagnose
from spectrovae.model.pca import interpolate_frames


def flatten(windows: np.ndarray) -> np.ndarray:
    return windows[..., 0].swapaxes(1, 2).reshape(len(windows), -1)


@pytest.fixture
def short_windows(windows) -> np.ndarray:
    """Windows that a depth of 1 averages and interpolates without loss: they do not change over time."""
    return np.repeat(windows[:, :, 8:9], 4, axis=2)


@pytest.fixture
def make_short_model(make_model):
    return lambda **kwargs: make_model(input_shape=(32, 4, 1), decoder_depth=1, converter=None, **kwargs)


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_adapted_model_is_probabilistic_pca(make_short_model, short_windows, posterior):
    model = make_short_model(posterior=posterior)
    model.adapt(short_windows, stationary=False, transposition=False, verbose=0)
    pca = sklearn.decomposition.PCA(4).fit(flatten(short_windows))
    projection = pca.inverse_transform(pca.transform(flatten(short_windows)))
    errors = [
        np.sqrt(np.square(flatten(short_windows) - other).mean())
        for other in (projection, flatten(model.reconstruct(short_windows)))
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


@pytest.mark.parametrize("posterior", ["diagonal", "full"])
def test_adapted_model_of_several_codes_is_pca_of_the_parts(make_model, windows, posterior):
    # Parts of 4 frames that do not change over time: averaging them loses nothing.
    still = np.repeat(windows[:, :, [2, 10, 18, 26]], 4, axis=2)
    model = make_model(
        input_shape=(32, 16, 1), decoder_depth=2, converter=None, latent_dim=3, latent_steps=4, posterior=posterior
    )
    model.adapt(still, stationary=False, transposition=False, verbose=0)
    assert int(model.num_adapted_windows) == len(still)
    parts = still[:, :, ::4, 0].swapaxes(1, 2).reshape(-1, 32)
    pca = sklearn.decomposition.PCA(3).fit(parts)
    projection = pca.inverse_transform(pca.transform(parts)).reshape(-1, 4, 32)
    # The decoder goes straight from the middle of each part to that of the next.
    errors = [
        np.sqrt(np.square(still - other).mean())
        for other in (interpolate_frames(projection.swapaxes(1, 2), 4), model.reconstruct(still))
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)
    codes = model.encode(still).reshape(-1, 3)
    np.testing.assert_allclose(np.abs(np.corrcoef(codes.T, pca.transform(parts).T)[:3, 3:]), np.eye(3), atol=0.01)


def test_neighbouring_codes_tell_how_music_goes_on_from_code_to_code(make_model, shifted_windows):
    model = make_model(latent_dim=3, latent_steps=8, decoder_depth=1)
    model.adapt(shifted_windows, verbose=0)
    linear = model.decoder.get_layer("linear_window")
    codes = model.encode(shifted_windows)
    errors, jumps = [], []
    for is_alone in (False, True):
        if is_alone:
            steps = linear.steps
            courses = linear.temporal_kernel.numpy()
            own = model.encoder.get_layer("linear_mean").temporal_kernel.numpy()
            linear.temporal_kernel.assign(np.concatenate([0 * courses[:steps], own, 0 * courses[:steps]]))
        path = keras.Model(model.decoder.input, model.decoder.get_layer("levels").output)
        levels = path(codes).numpy().swapaxes(1, 2)
        errors.append(np.square(interpolate_frames(levels, 2) - shifted_windows).mean())
        changes = np.abs(np.diff(levels)).mean(axis=(0, 1))
        jumps.append(changes[linear.steps - 1 :: linear.steps].mean() / changes.mean())
    assert errors[0] < errors[1]
    assert jumps[0] < jumps[1]


@pytest.mark.parametrize("latent_steps", [1, 4])
def test_spread_starts_as_the_residual_at_each_level(make_model, windows, latent_steps):
    model = make_model(latent_steps=latent_steps, num_components=1)
    faded = windows * np.linspace(0.0, 1.0, len(windows), dtype=np.float32)[:, None, None, None]
    model.adapt(faded, stationary=False, transposition=False, verbose=0)
    means, scales = model.decode_moments(tf.constant(model.encode(faded)))
    standardized = (faded - means) / scales
    for lowest, highest in itertools.pairwise((-np.inf, 0.1, 0.3, np.inf)):
        is_inside = (means > lowest) & (means < highest)
        assert is_inside.mean() > 0.1
        assert np.sqrt(np.square(standardized[is_inside]).mean()) == pytest.approx(1, abs=0.3)
    assert scales.max() > 3 * scales.min()


@pytest.mark.parametrize("latent_steps", [1, 4])
def test_linear_paths_are_trained_where_there_are_several_codes(make_model, windows, latent_steps):
    model = make_model(latent_steps=latent_steps)
    model.adapt(windows, verbose=0)
    kernels = [
        kernel
        for layer in (model.encoder.get_layer("linear_mean"), model.decoder.get_layer("linear_window"))
        for kernel in (layer.temporal_kernel, layer.spectral_kernel)
    ]
    before = [kernel.numpy() for kernel in kernels]
    model.compile(run_eagerly=True)
    model.fit(windows, verbose=0)
    moved = [not np.array_equal(kernel, old) for kernel, old in zip(kernels, before, strict=True)]
    assert moved == [latent_steps > 1] * 4


def test_evidence_lower_bound_is_the_log_likelihood_of_scikit_learn(make_model, windows):
    # Fewer pixels than windows, else scikit-learn measures the noise on too few directions; and noise that is not
    # averaged away, so white noise around one pattern that does not change.
    noise = 0.05 * np.random.default_rng(0).normal(size=(400, 8, 4, 1))
    tiny = (np.resize(windows[:, :8, 8:9], (400, 8, 1, 1)) + noise).astype(np.float32)
    model = make_model(
        input_shape=(8, 4, 1), decoder_depth=2, converter=None, latent_dim=2, num_components=1, num_kl_samples=64
    )
    model.adapt(tiny, stationary=False, transposition=False, verbose=0)
    # With one standard normal component the bound of the linear optimum is tight.
    model.prior.assign_mixture(np.zeros((1, 2)), np.ones((1, 2)))
    log_likelihood = sklearn.decomposition.PCA(2).fit(flatten(tiny)).score(flatten(tiny))
    bounds = [-model.evaluate(tiny, batch_size=400, verbose=0, return_dict=True)["loss"] for _ in range(10)]
    assert np.mean(bounds) == pytest.approx(log_likelihood, rel=0.01)


@pytest.mark.parametrize("likelihood", ["gaussian", "heteroscedastic_gaussian"])
def test_noise_level_is_that_of_the_residual(make_model, windows, likelihood):
    model = make_model(likelihood=likelihood)
    model.adapt(windows, verbose=0)
    parameters = model.decoder(model.encode(windows))
    residual = windows - np.asarray(model.likelihood.mean(parameters))
    scales = np.asarray(model.likelihood.scale(parameters))
    assert np.sqrt(np.mean(scales**2)) == pytest.approx(np.sqrt(np.mean(residual**2)), rel=0.05)


def test_all_dimensions_are_active_and_all_components_live(make_model, windows):
    model = make_model()
    model.adapt(windows, verbose=0)
    codes = model.encode(windows)
    assert (codes.var(axis=0) > 0.5).all()
    shares = np.mean(model.prior.responsibilities(codes), axis=0)
    assert (shares > 0.1).all()


def test_mixture_beats_a_single_gaussian_on_codes_in_clusters(make_model, windows):
    densities = {}
    for num_components in (1, 2):
        model = make_model(num_components=num_components)
        model.adapt(windows, verbose=0)
        densities[num_components] = np.mean(model.prior.log_prob(model.encode(windows)))
    assert densities[2] > densities[1]


def test_prior_is_refitted_to_the_codes_and_training_does_not_undo_it(make_model, windows):
    model = make_model()
    model.fit(windows, epochs=2, verbose=0)
    # As after a long training whose mixture has lost its codes.
    model.prior.assign_mixture(np.full((2, 4), 30.0), np.ones((2, 4)))
    for slot in model.optimizer.variables:
        if "means_average" in slot.path:
            slot.assign(model.prior.means)
    before = [weight.numpy() for weight in model.encoder.weights + model.decoder.weights]
    model.refit_prior(windows)
    cross_entropy = diagnose(model, windows).prior_cross_entropy
    fresh = make_model()
    fresh.adapt(windows, verbose=0)
    assert cross_entropy == pytest.approx(diagnose(fresh, windows).prior_cross_entropy, rel=0.1)
    for weight, old in zip(model.encoder.weights + model.decoder.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    # The optimizer's average of the weights, with which training ends, has followed.
    model.fit(windows, verbose=0)
    assert diagnose(model, windows).prior_cross_entropy == pytest.approx(cross_entropy, rel=0.02)


def test_fit_adapts_once_and_a_loaded_model_never_again(make_model, windows, tmp_path):
    model = make_model()
    model.compile(run_eagerly=True)
    assert not model.adapted
    model.fit(windows, verbose=0)
    assert model.adapted
    mean = model.decoder.get_layer("linear_window").bias.numpy().copy()
    model.fit(1 - windows, verbose=0)
    assert np.abs(model.decoder.get_layer("linear_window").bias.numpy() - mean).max() < 0.01
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").adapted


def test_fit_can_be_told_not_to_adapt(make_model, windows):
    model = make_model(warm_start=False)
    model.compile(run_eagerly=True)
    model.fit(windows, verbose=0)
    assert not model.adapted


def test_validation_windows_are_not_adapted_to(make_model, windows):
    model = make_model()
    model.compile(run_eagerly=True)
    model.fit(windows, validation_split=0.25, verbose=0)
    assert int(model.num_adapted_windows) == 36


def test_datasets_are_walked_over_up_to_the_bound(make_model, windows):
    dataset = tf.data.Dataset.from_tensor_slices(windows).batch(10)
    model = make_model()
    model.adapt(dataset, num_passes=3, verbose=0)
    assert int(model.num_adapted_windows) == 3 * len(windows)
    model.adapt(dataset, num_passes=3, max_windows=55, verbose=0)
    assert int(model.num_adapted_windows) == 55


def test_progress_is_shown(make_model, windows, capsys):
    make_model().adapt(windows, verbose=1)
    assert "48/48" in capsys.readouterr().out


def test_models_without_a_linear_path_are_refused(make_model, windows):
    with pytest.raises(ValueError, match="linear optimum"):
        make_model(architecture="classic").adapt(windows)
    with pytest.raises(ValueError, match="likelihood=BernoulliLikelihood"):
        make_model(likelihood="bernoulli").adapt(windows)
    with pytest.raises(ValueError, match=r"\(num_windows, 32, 32, 1\)"):
        make_model().adapt(windows[:, :16])


def test_data_that_can_be_walked_over_once_are_refused(make_model, windows):
    with pytest.raises(ValueError, match="warm_start=False"):
        make_model().adapt(iter([windows]), verbose=0)


@pytest.mark.parametrize("kind", ["silence", "one window repeated", "two flat windows"])
@pytest.mark.filterwarnings("ignore:Number of distinct clusters:sklearn.exceptions.ConvergenceWarning")
def test_extreme_data_trains_without_nan(make_model, windows, kind):
    data = {
        "silence": np.zeros((6, *windows.shape[1:]), np.float32),
        "one window repeated": np.repeat(windows[:1], 6, axis=0),
        "two flat windows": np.stack([np.zeros(windows.shape[1:]), np.ones(windows.shape[1:])]).astype(np.float32),
    }[kind]
    model = make_model()
    model.compile(run_eagerly=True)
    assert np.isfinite(model.fit(data, epochs=2, verbose=0).history["loss"]).all()
    assert np.isfinite(model.generate(3, seed=0)).all()


def test_a_model_built_within_a_strategy_is_adapted_alike(small_converter, shifted_windows):
    settings = {"latent_dim": 3, "num_components": 2, "decoder_depth": 2, "width": 8, "latent_steps": 4, "seed": 0}
    alone = SpectroVAE((32, 32, 1), converter=small_converter, **settings)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        spread = SpectroVAE((32, 32, 1), converter=small_converter, **settings)
    for model in (alone, spread):
        model.adapt(shifted_windows, verbose=0)
    for one, other in zip(alone.weights, spread.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)
