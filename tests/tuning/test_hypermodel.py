import functools

import keras_tuner
import numpy as np
import pytest
from sweeps import CHOICES, IGNORED_WARNINGS

from spectrovae import SpectroVAE
from spectrovae.evaluation.sound_distance import SoundDistance
from spectrovae.tuning import SpectroVAEHyperModel
from spectrovae.tuning.hypermodel import GenerationDistance, SharedLinearStart

pytestmark = IGNORED_WARNINGS


@pytest.fixture
def make_hypermodel(small_converter):
    def make(choices=None, **kwargs):
        return SpectroVAEHyperModel(small_converter, CHOICES | (choices or {}), seed=0, **kwargs)

    return make


def random_hyperparameters(hypermodel, seed):
    declared = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(declared)
    for parameter in declared.space:
        declared.values[parameter.name] = parameter.random_sample(seed)
    return declared


def test_model_is_built_as_chosen(make_hypermodel):
    choices = {"learning_rate": [1e-4, 3e-4], "posterior": ["diagonal", "full"], "latent_steps": [1, 4]}
    hypermodel = make_hypermodel(choices)
    for seed in range(3):
        hp = random_hyperparameters(hypermodel, seed)
        model = hypermodel.build(hp)
        for name in ("latent_dim", "num_components", "decoder_depth", "width", "posterior", "latent_steps"):
            assert getattr(model, name) == hp.get(name)
        assert model.optimizer.get_config()["learning_rate"]["config"]["learning_rate"] == hp.get("learning_rate")
        assert model.seed == 0


def test_models_that_cannot_be_built_fail_with_the_reason(make_hypermodel):
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="num_kl_samples"):
        make_hypermodel(num_kl_samples=0).build(keras_tuner.HyperParameters())
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="the limit is 100"):
        make_hypermodel(max_parameters=100).build(keras_tuner.HyperParameters())


@pytest.mark.parametrize(
    ("tuner", "arguments"),
    [
        ("RandomSearch", {"max_trials": 2}),
        ("GridSearch", {"max_trials": 2}),
        pytest.param("BayesianOptimization", {"max_trials": 2}, marks=pytest.mark.slow),
        pytest.param("Hyperband", {"max_epochs": 2, "factor": 2}, marks=pytest.mark.slow),
    ],
)
def test_any_tuner_takes_the_hypermodel(tuner, arguments, make_hypermodel, windows, tmp_path, monkeypatch):
    # For so few steps compiling takes longer.
    monkeypatch.setattr(SpectroVAE, "compile", functools.partialmethod(SpectroVAE.compile, run_eagerly=True))
    hypermodel = make_hypermodel({"decoder_depth": [2]}, measure_distance=True)
    search = getattr(keras_tuner, tuner)(hypermodel, objective="val_loss", directory=tmp_path, seed=0, **arguments)
    search.search(windows[:32], validation_data=windows[32:], epochs=1, verbose=0)
    trials = list(search.oracle.trials.values())
    assert len(trials) >= 2
    assert [trial.status for trial in trials] == ["COMPLETED"] * len(trials)
    assert all(np.isfinite(trial.metrics.get_last_value("val_distance")) for trial in trials)
    assert hypermodel.linear_start.num_computed == 1
    best = search.get_best_models()[0]
    score = best.evaluate(windows[32:], verbose=0, return_dict=True)["loss"]
    assert score == pytest.approx(search.oracle.get_best_trials()[0].score, rel=0.02)


# The shared linear start


def test_shared_start_is_that_of_the_model(make_model, windows):
    start = SharedLinearStart([2, 3, 4], seed=0)
    for latent_dim in (2, 4):
        shared, own = make_model(latent_dim=latent_dim), make_model(latent_dim=latent_dim)
        start.adapt(shared, windows)
        own.adapt(windows, verbose=0)
        losses = [model.evaluate(windows, verbose=0, return_dict=True)["loss"] for model in (shared, own)]
        assert losses[0] == pytest.approx(losses[1], rel=0.01)
        np.testing.assert_allclose(shared.reconstruct(windows), own.reconstruct(windows), atol=0.01)
        assert shared.adapted
    assert start.num_computed == 1


def test_shared_start_of_several_codes_is_that_of_the_model(make_model, windows, tmp_path):
    start, again = (SharedLinearStart([2, 4], tmp_path, seed=0) for _ in range(2))
    for latent_steps, latent_dim in ((1, 4), (4, 2), (4, 4)):
        shared, own = (make_model(latent_dim=latent_dim, latent_steps=latent_steps) for _ in range(2))
        start.adapt(shared, windows)
        own.adapt(windows, verbose=0)
        np.testing.assert_allclose(shared.reconstruct(windows), own.reconstruct(windows), atol=0.01)
        assert int(shared.num_adapted_windows) == len(windows)
    again.adapt(own, windows)
    np.testing.assert_array_equal(own.reconstruct(windows), shared.reconstruct(windows))
    assert (start.num_computed, again.num_computed) == (2, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"pool_4.npz", "pool_4_steps_4.npz"}


def test_shared_start_serves_other_processes(make_model, windows, tmp_path):
    first, second = (SharedLinearStart([2, 4], tmp_path / "start", seed=0) for _ in range(2))
    models = [make_model(), make_model()]
    for start, model in zip((first, second), models, strict=True):
        start.adapt(model, windows)
    assert (first.num_computed, second.num_computed) == (1, 0)
    np.testing.assert_array_equal(models[0].reconstruct(windows), models[1].reconstruct(windows))


def test_start_of_other_data_is_computed_anew(make_model, windows):
    start = SharedLinearStart([4])
    for data in (windows, windows[:24]):
        start.adapt(make_model(), data)
    assert start.num_computed == 2


# The distance


def test_distance_is_that_of_generated_and_held_out_windows(make_model, windows):
    model = make_model()
    callback = GenerationDistance(windows[:32], [windows[32:40], windows[40:]], num_samples=16, seed=3)
    history = model.fit(windows[:32], epochs=2, callbacks=[callback], verbose=0)
    distance = SoundDistance(windows[:32], model.converter)
    expected = distance.maximum_mean_discrepancy(model.generate(16, seed=3), windows[32:])
    assert history.history["val_distance"][-1] == pytest.approx(expected)
    with pytest.raises(ValueError, match="num_samples=1"):
        GenerationDistance(windows, windows, num_samples=1)


def test_model_that_is_not_finite_is_nan_away(make_model, windows):
    model = make_model()
    model.fit(windows, verbose=0)
    callback = GenerationDistance(windows[:32], windows[32:], num_samples=4)
    callback.set_model(model)
    callback.on_train_begin()
    model.prior.means.assign(np.full_like(model.prior.means, np.nan))
    logs = {}
    callback.on_epoch_end(0, logs)
    assert np.isnan(logs["val_distance"])


def test_distance_needs_held_out_windows(make_hypermodel, windows):
    hypermodel, hp = make_hypermodel(measure_distance=True), keras_tuner.HyperParameters()
    with pytest.raises(ValueError, match="validation_data=None"):
        hypermodel.fit(hp, hypermodel.build(hp), windows, verbose=0)
