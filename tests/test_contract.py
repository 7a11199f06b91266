"""Every public class through the same checks."""

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest

import spectrovae
from spectrovae import (
    GaussianLikelihood,
    GaussianMixturePrior,
    KLWarmup,
    LinearWarmup,
    ReviveComponents,
    SequencePrior,
    SpectrogramConverter,
    SpectroVAE,
)
from spectrovae.model.course import Course
from spectrovae.model.dynamics import Dynamics
from spectrovae.model.layers import LinearUpsampling1D, OverlapAdd, SeparableDense, SeparableDenseTranspose
from spectrovae.model.level_curves import LevelCurves
from spectrovae.model.likelihood import BernoulliLikelihood
from spectrovae.model.limits import LoudnessLimits
from spectrovae.model.sequence_prior import Transitions
from spectrovae.model.texture import Texture
from spectrovae.training.metrics import ComponentPerplexity, NumLiveComponents, RootMean

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
TABLE = {
    SpectrogramConverter: {"sample_rate": 8000, "n_fft": 64, "hop_length": 16, "num_frames": 32},
    GaussianMixturePrior: {"num_components": 3, "learn_weights": True, "min_scale": 0.01, "seed": 1},
    SequencePrior: {"num_components": 3, "learn_weights": True, "min_scale": 0.01, "seed": 1, "num_experts": 2},
    Course: {"latent_dim": 3},
    LoudnessLimits: {"latent_dim": 1},
    Transitions: {"latent_dim": 3, "num_experts": 2, "memory": 5, "min_scale": 0.01},
    LevelCurves: {"num_channels": 2},
    LinearUpsampling1D: {"size": 4},
    SeparableDense: {"units": 3, "seed": 1},
    OverlapAdd: {"frames": 2},
    SeparableDenseTranspose: {"steps": 5, "bins": 4, "num_neighbours": 1, "seed": 1},
    GaussianLikelihood: {"per_pixel": True, "min_scale": 0.02, "initial_scale": 0.2},
    BernoulliLikelihood: {},
    Dynamics: {"converter": CONVERTER},
    Texture: {"converter": CONVERTER, "bank_size": 2, "grain_length": 8},
    LinearWarmup: {"learning_rate": 1e-3, "num_steps": 7},
    KLWarmup: {"num_epochs": 3, "initial_weight": 0.1},
    ReviveComponents: {"live_share": 0.2},
    RootMean: {},
    NumLiveComponents: {"num_components": 3},
    ComponentPerplexity: {"num_components": 3},
    SpectroVAE: {
        "input_shape": (32, 32, 1),
        "latent_dim": 3,
        "num_components": 2,
        "decoder_depth": 2,
        "width": 4,
        "latent_steps": 4,
        "component_names": ("strings", "drums"),
    },
}
CASES = pytest.mark.parametrize(("cls", "arguments"), TABLE.items(), ids=lambda value: getattr(value, "__name__", ""))
LAYERS = pytest.mark.parametrize(
    ("cls", "arguments"),
    [(cls, arguments) for cls, arguments in TABLE.items() if issubclass(cls, keras.layers.Layer)],
    ids=lambda value: getattr(value, "__name__", ""),
)


def classes() -> set[type]:
    """The classes of all modules of the library."""
    names = [module.name for module in pkgutil.walk_packages(spectrovae.__path__, "spectrovae.")]
    modules = [importlib.import_module(name) for name in names if not name.endswith("__main__")]
    found = {item for module in modules for item in vars(module).values() if inspect.isclass(item)}
    return {item for item in found if item.__module__.startswith("spectrovae.")}


def test_table_is_complete():
    registered = {cls for cls in classes() if keras.saving.get_registered_name(cls).startswith("spectrovae>")}
    with_settings = {cls for cls in classes() if "get_config" in vars(cls) and not cls.__subclasses__()}
    assert (registered | with_settings) - set(TABLE) == set()


@CASES
def test_config_round_trip(cls, arguments):
    config = cls(**arguments).get_config()
    again = cls.from_config(config) if hasattr(cls, "from_config") else cls(**config)
    assert again.get_config() == config
    for name, value in arguments.items():
        assert config[name] == (keras.saving.serialize_keras_object(value) if value is CONVERTER else value)


@CASES
def test_every_argument_is_an_attribute_and_documented(cls, arguments):
    instance = cls(**arguments)
    for name in inspect.signature(cls.__init__).parameters.keys() - {"self", "kwargs", "name", "dtype"}:
        assert hasattr(instance, name), f"{cls.__name__} does not keep its argument {name}"
        assert f"\n    {name}: " in inspect.getdoc(cls), f"{cls.__name__} does not document {name}"


@CASES
def test_class_is_registered_with_keras(cls, arguments):
    assert keras.saving.get_registered_name(cls) == f"spectrovae>{cls.__name__}"


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [case for case in LAYERS.args[1] if case[0].call is not keras.layers.Layer.call],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_weights_survive_saving(cls, arguments, tmp_path):
    layer = cls(**arguments)
    example = np.random.default_rng(0).uniform(size=(2, 32, 32, 1)).astype(np.float32)
    example = {GaussianMixturePrior: example[:, 0, :3, 0]}.get(cls, example)
    example = example[..., 0] if cls in (SequencePrior, LevelCurves, LinearUpsampling1D, OverlapAdd) else example
    inputs = keras.Input(example.shape[1:])
    model = layer if isinstance(layer, keras.Model) else keras.Model(inputs, layer(inputs))
    expected = model(example)
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    np.testing.assert_array_equal(loaded(example), expected)
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@LAYERS
def test_weights_have_the_same_types_under_a_mixed_policy(cls, arguments):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = cls(**arguments)
    finally:
        keras.config.set_dtype_policy("float32")
    assert [weight.dtype for weight in layer.weights] == [weight.dtype for weight in cls(**arguments).weights]
