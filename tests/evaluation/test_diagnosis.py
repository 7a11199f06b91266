import numpy as np
import pytest
import sklearn.decomposition
import tensorflow as tf

from spectrovae import SpectroVAE
from spectrovae.evaluation.diagnosis import Diagnosis, diagnose
from spectrovae.evaluation.sound_distance import pairwise_distance

HEALTHY = {
    "kind": "held-out",
    "num_windows": 128,
    "latent_dim": 100,
    "num_active_dims": 100,
    "kl": 346.2,
    "prior_cross_entropy": 141.5,
    "num_components": 8,
    "num_live_components": 8,
    "component_perplexity": 6.9,
    "rmse_db": 5.88,
    "mean_spectrum_rmse_db": 9.66,
    "pca_rmse_db": 5.9,
    "num_training_windows": 1000,
    "silent_share": 0.02,
    "num_generated": 16,
    "generated_pairwise_db": 8.4,
    "real_pairwise_db": 14.0,
}


@pytest.fixture
def adapted(make_model, windows) -> SpectroVAE:
    model = make_model()
    model.adapt(windows[:32], verbose=0)
    return model


def test_errors_are_those_of_the_definitions(adapted, windows):
    diagnosis = diagnose(adapted, windows[32:], training=windows[:32])
    levels, known = 80 * windows[32:], 80 * windows[:32]
    errors = levels - 80 * adapted.reconstruct(windows[32:])
    assert diagnosis.rmse_db == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
    spectrum = known.mean(axis=(0, 2), keepdims=True)
    assert diagnosis.mean_spectrum_rmse_db == pytest.approx(np.sqrt(np.mean((levels - spectrum) ** 2)), rel=1e-4)
    own = diagnose(adapted, windows[32:])
    spectrum = levels.mean(axis=(0, 2), keepdims=True)
    assert own.mean_spectrum_rmse_db == pytest.approx(np.sqrt(np.mean((levels - spectrum) ** 2)), rel=1e-4)
    assert own.pca_rmse_db is None and own.rmse_db == diagnosis.rmse_db
    pairs = [(i, j) for i in range(16) for j in range(i)]
    distances = [np.sqrt(np.mean((levels[i] - levels[j]) ** 2)) for i, j in pairs]
    assert diagnosis.real_pairwise_db == pytest.approx(np.mean(distances), rel=1e-4)


def test_error_after_adapt_is_that_of_pca_where_nothing_changes_over_time(make_model, windows):
    still = np.repeat(windows[:, :, 8:9], 32, axis=2)
    model = make_model()
    model.adapt(still[:32], transposition=False, verbose=0)
    diagnosis = diagnose(model, still, training=still[:32])
    assert diagnosis.rmse_db == pytest.approx(diagnosis.pca_rmse_db, rel=0.01)
    assert diagnosis.problems == ()


def test_pca_is_that_of_scikit_learn(make_model, windows):
    # Windows that do not change over time: averaging loses nothing. The classic architecture has no linear path.
    still = np.repeat(windows[:, :, 8:9], 32, axis=2)
    model = make_model(architecture="classic", likelihood="bernoulli", warm_start=False)
    diagnosis = diagnose(model, still[32:], training=still[:32])
    known, new = still[:32, :, 0, 0], still[32:, :, 0, 0]
    pca = sklearn.decomposition.PCA(4).fit(known)
    errors = new - np.clip(pca.inverse_transform(pca.transform(new)), 0, 1)
    assert diagnosis.pca_rmse_db == pytest.approx(80 * np.sqrt(np.mean(errors**2)), rel=0.01)


def test_kl_and_cross_entropy_are_those_of_evaluate(adapted, windows):
    diagnosis = diagnose(adapted, windows)
    measured = [adapted.evaluate(windows, verbose=0, return_dict=True) for _ in range(8)]
    for name, value in (("kl_loss", diagnosis.kl), ("prior_cross_entropy", diagnosis.prior_cross_entropy)):
        draws = [logs[name] for logs in measured]
        assert value == pytest.approx(np.mean(draws), abs=4 * np.std(draws) + 1e-3)
    live = {logs["num_live_components"] for logs in measured}
    assert live == {diagnosis.num_live_components} == {2}
    shares = [logs["component_perplexity"] for logs in measured]
    assert diagnosis.component_perplexity == pytest.approx(np.mean(shares), rel=0.02)


def test_a_zeroed_encoder_is_reported_as_collapsed(adapted, windows):
    layer = adapted.encoder.get_layer("linear_mean")
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    diagnosis = diagnose(adapted, windows, training=windows)
    assert diagnosis.num_active_dims == 0
    assert any("posterior collapse" in problem for problem in diagnosis.problems)
    assert any("PCA" in problem for problem in diagnosis.problems)


def test_dimensions_count_whatever_their_unit(adapted, windows):
    layer = adapted.encoder.get_layer("linear_mean")
    courses, spectra, bias = layer.get_weights()
    layer.set_weights([courses, 1e-2 * spectra * [1, 1, 1, 0], bias])
    scales = adapted.encoder.get_layer("raw_scales")
    scales.bias.assign(scales.bias - 5)
    assert diagnose(adapted, windows).num_active_dims == 3


def test_a_dead_component_is_reported(adapted, windows):
    adapted.prior.means[1].assign(adapted.prior.means[1] + 1000)
    diagnosis = diagnose(adapted, windows)
    assert diagnosis.num_live_components == 1 and diagnosis.component_perplexity == pytest.approx(1)
    assert any(problem.startswith("1 of 2 components") for problem in diagnosis.problems)
    # Too few windows to tell.
    assert diagnose(adapted, windows[:8]).problems == ()


def test_training_codes_decide_which_components_are_live(adapted, windows):
    of_one = windows[np.argmax(adapted.prior.responsibilities(adapted.encode(windows)), axis=1) == 0]
    assert diagnose(adapted, of_one).num_live_components == 1
    diagnosis = diagnose(adapted, of_one, training=windows)
    assert diagnosis.num_live_components == 2
    shares = np.mean(adapted.prior.responsibilities(adapted.encode(windows)), axis=0)
    perplexity = np.exp(-np.sum(shares * np.log(shares)))
    assert diagnosis.component_perplexity == pytest.approx(perplexity, rel=0.02)


def test_silence_is_counted(adapted, windows):
    data = windows.copy()
    data[:12] = 0
    assert diagnose(adapted, data).silent_share == pytest.approx(0.25)
    data[:36] = 0
    assert any("silent" in problem for problem in diagnose(adapted, data).problems)


def test_weights_that_are_not_finite_are_told_of(adapted, windows):
    adapted.decoder.get_layer("linear_window").bias.assign(np.full(32, np.nan))
    (problem,) = diagnose(adapted, windows).problems
    assert "diverged" in problem


@pytest.mark.parametrize(
    ("architecture", "likelihood"),
    [
        ("temporal", "gaussian"),
        ("temporal", "heteroscedastic_gaussian"),
        ("classic", "bernoulli"),
    ],
)
def test_every_model_is_diagnosed_from_arrays_and_datasets_alike(make_model, windows, architecture, likelihood):
    model = make_model(architecture=architecture, likelihood=likelihood, posterior="full", warm_start=False)
    dataset = tf.data.Dataset.from_tensor_slices(windows).batch(32)
    diagnosis = diagnose(model, windows, training=windows, num_generated=4)
    assert diagnosis.kind == "training"
    assert diagnosis == diagnose(model, windows, training=windows, num_generated=4)
    again = diagnose(model, dataset, training=dataset, num_generated=4)
    for name, value in vars(diagnosis).items():
        assert value == (pytest.approx(getattr(again, name), rel=0.03) if isinstance(value, float) else value), name


def test_diagnosis_in_words():
    assert str(Diagnosis(**HEALTHY)) == (
        "Reconstruction: 5.88 dB RMSE on 128 held-out windows; PCA with as many numbers 5.90 dB, the training windows' "
        "mean spectrum 9.66 dB.\n"
        "Code: 100 of 100 dimensions active, KL 346.2 nats per window.\n"
        "Prior: 8 of 8 components live, perplexity 6.9, cross-entropy of the codes 141.5 nats.\n"
        "Diversity: the means of 16 generated windows differ by 8.40 dB on average, real ones by 14.00 dB: a ratio of "
        "0.60.\n"
        "Silence: 2 % of the windows.\n"
        "Verdict: healthy."
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rmse_db": 10.0}, "mean spectrum"),
        ({"rmse_db": 6.0}, "PCA"),
        ({"num_active_dims": 0}, "collapse"),
        ({"num_active_dims": 30}, "Only 30 of 100"),
        ({"num_live_components": 5}, "3 of 8 components"),
        ({"silent_share": 0.6}, "silent"),
        ({"generated_pairwise_db": 1.0}, "hardly differ"),
        ({"rmse_db": np.nan}, "diverged"),
    ],
)
def test_each_problem_has_its_advice(changes, word):
    diagnosis = Diagnosis(**HEALTHY | changes)
    assert any(word in problem for problem in diagnosis.problems)
    assert str(diagnosis).endswith("Verdict:\n" + "\n".join(f"- {problem}" for problem in diagnosis.problems))
    assert len(diagnosis.problems) == (2 if changes.get("rmse_db") == 10 else 1)


def test_errors_say_what_came(adapted, windows):
    with pytest.raises(ValueError, match="at least 2 windows.*1"):
        diagnose(adapted, windows[:1])
    with pytest.raises(ValueError, match=r"\(num_windows, 32, 32, 1\)"):
        diagnose(adapted, windows[:, :16])
    with pytest.raises(ValueError, match=r"\(num_windows, 32, 32, 1\)"):
        diagnose(adapted, windows, training=windows[:, :16])
    with pytest.raises(ValueError, match="at least 2 training windows.*1"):
        diagnose(adapted, windows, training=windows[:1])
    with pytest.raises(ValueError, match="NaN"):
        diagnose(adapted, windows, training=np.full_like(windows, np.nan))


def test_diagnosis_counts_dimensions_of_all_codes_and_compares_with_pca_of_the_parts(make_model, shifted_windows):
    model = make_model(latent_dim=3, latent_steps=4)
    model.adapt(shifted_windows[:120], verbose=0)
    diagnosis = diagnose(model, shifted_windows[120:], training=shifted_windows[:120])
    # A little nearer than principal components of the parts, since neighbouring codes have a say.
    assert 0.96 * diagnosis.pca_rmse_db < diagnosis.rmse_db < diagnosis.pca_rmse_db
    assert (diagnosis.latent_dim, diagnosis.latent_steps, diagnosis.num_active_dims) == (3, 4, 3)
    assert "3 of 3 dimensions active in 4 codes along a window, KL" in str(diagnosis)
    measured = [model.evaluate(shifted_windows[120:], verbose=0, return_dict=True)["kl_loss"] for _ in range(4)]
    assert diagnosis.kl == pytest.approx(np.mean(measured), abs=4 * np.std(measured) + 1e-3)
    generated = model.decode(model.prior.sample(16, seed=0))
    assert diagnosis.generated_pairwise_db == pytest.approx(pairwise_distance(generated, model.converter), rel=1e-4)
    # A dimension that only differs along the window is in use; one that never differs is not.
    layer = model.encoder.get_layer("linear_mean")
    courses, spectra, bias = layer.get_weights()
    layer.set_weights([courses, spectra * [1, 1, 0], bias])
    along = np.concatenate([shifted_windows[:1, :, ::-1], shifted_windows[:1, :, ::-1]])
    assert diagnose(model, along).num_active_dims == 2
    assert diagnose(model, shifted_windows).num_active_dims == 2


def test_diagnosis_of_models_without_a_linear_optimum(make_model, shifted_windows):
    model = make_model(latent_steps=4, likelihood="bernoulli")
    assert diagnose(model, shifted_windows[:40], training=shifted_windows[40:80]).pca_rmse_db > 0
