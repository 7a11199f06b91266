import inspect

import keras_tuner
import pytest

from spectrovae import SpectroVAE
from spectrovae.model.classic import check_classic_grid
from spectrovae.model.networks import check_grid
from spectrovae.tuning import choose_arguments, choose_objective
from spectrovae.tuning.oracles import ORACLES
from spectrovae.tuning.search_space import DEFAULT_CHOICES, OPTIONAL_CHOICES, TUNERS, buildable_choices


def test_arguments_are_those_of_the_model_and_start_at_its_defaults():
    arguments = choose_arguments(keras_tuner.HyperParameters())
    parameters = inspect.signature(SpectroVAE).parameters
    assert set(arguments) == set(DEFAULT_CHOICES) and set(arguments) <= set(parameters)
    for name, value in arguments.items():
        assert value == parameters[name].default or parameters[name].default not in DEFAULT_CHOICES[name]
    everything = choose_arguments(keras_tuner.HyperParameters(), choices=OPTIONAL_CHOICES)
    assert set(everything) == set(DEFAULT_CHOICES) | set(OPTIONAL_CHOICES) - {"learning_rate"}


@pytest.mark.parametrize("shape", [(512, 512, 1), (64, 48, 1), (96, 320, 1)])
@pytest.mark.parametrize("architecture", ["temporal", "classic"])
def test_every_depth_that_is_proposed_can_be_built(shape, architecture):
    choices = {"decoder_depth": range(1, 12)}
    check = {"temporal": check_grid, "classic": check_classic_grid}[architecture]
    depths = buildable_choices(shape, architecture, choices)["decoder_depth"]
    for depth in depths:
        check(shape, depth, 1)
    for depth in set(range(1, 12)) - set(depths):
        with pytest.raises(ValueError):
            check(shape, depth, 1)


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
            check_grid((512, 512, 1), depth, number)
    assert min(depths) in usable["decoder_depth"]
    assert usable["latent_steps"] == [number for number in steps if 512 // 2 ** min(depths) % number == 0]


def test_classic_models_have_one_code():
    assert buildable_choices((64, 64, 1), "classic", {"latent_steps": [1, 4]})["latent_steps"] == [1]
    with pytest.raises(ValueError, match="no value to choose for latent_steps.*one code"):
        buildable_choices((64, 64, 1), "classic", {"latent_steps": [4]})


def test_what_is_registered_before_has_precedence():
    hp = keras_tuner.HyperParameters()
    hp.Fixed("latent_dim", 77)
    assert choose_arguments(hp)["latent_dim"] == 77


def test_bad_choices_are_refused():
    hp = keras_tuner.HyperParameters()
    with pytest.raises(ValueError, match="latent_size"):
        choose_arguments(hp, choices={"latent_size": [1]})
    with pytest.raises(ValueError, match="no value to choose for decoder_depth.*multiple of 1024"):
        choose_arguments(hp, choices={"decoder_depth": [10]})


def test_objective_is_one_that_compares():
    assert choose_objective().name == "val_loss"
    assert choose_objective(choices={"likelihood": ["gaussian"]}).name == "val_loss"
    assert choose_objective(choices={"likelihood": ["gaussian", "bernoulli"]}).name == "val_rmse_db"
    assert choose_objective("val_rmse_db").direction == "min"
    with pytest.raises(ValueError, match="accuracy"):
        choose_objective("accuracy")


def test_every_tuner_has_its_oracle():
    assert set(TUNERS) == set(ORACLES)
