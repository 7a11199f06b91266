import inspect

import keras_tuner
import numpy as np
import pytest
from sweeps import CHOICES, IGNORED_WARNINGS

from spectrovae import SpectroVAE
from spectrovae.model.networks import check_network
from spectrovae.tuning import SpectroVAEHyperModel, choose_objective, search_space
from spectrovae.tuning.hypermodel import SharedLinearStart
from spectrovae.tuning.search_space import DEFAULT_CHOICES, OPTIONAL_CHOICES, buildable_choices

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


# What is searched


def test_arguments_are_those_of_the_model_and_start_at_its_defaults():
    arguments = search_space(keras_tuner.HyperParameters())
    parameters = inspect.signature(SpectroVAE).parameters
    assert set(arguments) == set(DEFAULT_CHOICES) and set(arguments) <= set(parameters)
    for name, value in arguments.items():
        assert value == parameters[name].default or parameters[name].default not in DEFAULT_CHOICES[name]
    everything = search_space(keras_tuner.HyperParameters(), choices=OPTIONAL_CHOICES)
    assert set(everything) == set(DEFAULT_CHOICES) | set(OPTIONAL_CHOICES) - {"learning_rate"}


@pytest.mark.parametrize("shape", [(512, 512, 1), (64, 48, 1), (96, 320, 1)])
@pytest.mark.parametrize("architecture", ["temporal", "classic"])
def test_every_depth_that_is_proposed_can_be_built(shape, architecture):
    choices = {"decoder_depth": range(1, 12)}
    depths = buildable_choices(shape, architecture, choices)["decoder_depth"]
    for depth in depths:
        check_network(shape, architecture, depth)
    for depth in set(range(1, 12)) - set(depths):
        with pytest.raises(ValueError):
            check_network(shape, architecture, depth)


@pytest.mark.parametrize("depths", [(2, 3, 4, 5, 6), (6, 2), (6,), (1, 8)])
@pytest.mark.parametrize("steps", [(1, 8, 32), (64, 1), (1,), (32, 100)])
def test_every_combination_of_depth_and_codes_that_is_proposed_can_be_built(depths, steps):
    choices = {"decoder_depth": depths, "latent_steps": steps}
    try:
        usable = buildable_choices((512, 512, 1), "temporal", choices)
    except ValueError:
        assert all(512 // 2**depth % number for depth in depths for number in steps)
        return
    for depth in usable["decoder_depth"]:
        for number in usable["latent_steps"]:
            check_network((512, 512, 1), "temporal", depth, number)
    assert min(depths) in usable["decoder_depth"]
    assert usable["latent_steps"] == [number for number in steps if 512 // 2 ** min(depths) % number == 0]


def test_classic_models_have_one_code():
    assert buildable_choices((64, 64, 1), "classic", {"latent_steps": [1, 4]})["latent_steps"] == [1]
    with pytest.raises(ValueError, match="no value to choose for latent_steps.*one code"):
        buildable_choices((64, 64, 1), "classic", {"latent_steps": [4]})


def test_what_is_registered_before_has_precedence():
    hp = keras_tuner.HyperParameters()
    hp.Fixed("latent_dim", 77)
    assert search_space(hp)["latent_dim"] == 77


def test_bad_choices_are_refused():
    hp = keras_tuner.HyperParameters()
    with pytest.raises(ValueError, match="latent_size"):
        search_space(hp, choices={"latent_size": [1]})
    with pytest.raises(ValueError, match="no value to choose for decoder_depth.*multiple of 1024"):
        search_space(hp, choices={"decoder_depth": [10]})


def test_objective_is_one_that_compares():
    assert choose_objective().name == "val_loss"
    assert choose_objective(choices={"likelihood": ["gaussian"]}).name == "val_loss"
    assert choose_objective(choices={"likelihood": ["gaussian", "bernoulli"]}).name == "val_rmse_db"
    assert choose_objective("val_rmse_db").direction == "min"
    with pytest.raises(ValueError, match="accuracy"):
        choose_objective("accuracy")


# The hypermodel


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
    hp = keras_tuner.HyperParameters()
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="latent_dim"):
        make_hypermodel({"latent_dim": [-1]}).build(hp)
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="the limit is 100"):
        make_hypermodel(max_parameters=100).build(keras_tuner.HyperParameters())


@pytest.mark.parametrize(
    ("tuner", "arguments"),
    [
        ("RandomSearch", {"max_trials": 2}),
        pytest.param("BayesianOptimization", {"max_trials": 2}, marks=pytest.mark.slow),
        pytest.param("GridSearch", {"max_trials": 2}, marks=pytest.mark.slow),
        pytest.param("Hyperband", {"max_epochs": 2, "factor": 2}, marks=pytest.mark.slow),
    ],
)
def test_any_tuner_takes_the_hypermodel(tuner, arguments, make_hypermodel, windows, tmp_path):
    hypermodel = make_hypermodel({"decoder_depth": [2]})
    search = getattr(keras_tuner, tuner)(hypermodel, objective="val_loss", directory=tmp_path, seed=0, **arguments)
    search.search(windows[:32], validation_data=windows[32:], epochs=1, verbose=0)
    trials = list(search.oracle.trials.values())
    assert len(trials) >= 2
    assert [trial.status for trial in trials] == ["COMPLETED"] * len(trials)
    assert hypermodel.linear_start.num_computed == 1
    best = search.get_best_models()[0]
    score = best.evaluate(windows[32:], verbose=0, return_dict=True)["loss"]
    assert score == pytest.approx(search.oracle.get_best_trials()[0].score, rel=0.02)


@pytest.mark.slow
def test_trial_that_ends_in_nan_fails_with_its_reason(make_hypermodel, windows, tmp_path):
    hypermodel = make_hypermodel({name: [1] for name in ("latent_dim", "num_components", "decoder_depth")})
    hypermodel.choices["learning_rate"] = [1e30, 1e-4]
    search = keras_tuner.GridSearch(hypermodel, objective="val_loss", directory=tmp_path, max_trials=2)
    search.search(windows, validation_data=windows, epochs=2, verbose=0)
    failed, completed = search.oracle.trials.values()
    assert (failed.status, completed.status) == ("FAILED", "COMPLETED")
    assert "became" in failed.message and "epoch 1" in failed.message


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
