import numpy as np
import pytest

from spectrovae.decoder import build_decoder
from spectrovae.encoder import ARCHITECTURES, build_encoder
from spectrovae.linear import interpolate_frames


def test_classic_networks_have_the_parameters_of_the_reference_model():
    assert build_encoder((512, 512, 1), 100, "classic", "full").count_params() == 86_123_646
    assert build_decoder((512, 512, 1), 100, architecture="classic").count_params() == 2_172_385


def test_classic_layers_are_those_of_the_reference_model():
    encoder = build_encoder((512, 512, 1), 100, "classic", "full")
    shapes = [layer.output.shape[1:] for layer in encoder.layers if "conv" in layer.name or "pool" in layer.name]
    assert shapes == [
        (256, 256, 32), (128, 128, 64), (64, 64, 64), (32, 32, 128), (16, 16, 256), (8, 8, 256)
    ]  # fmt: skip
    decoder = build_decoder((512, 512, 1), 100, architecture="classic")
    filters = [layer.filters for layer in decoder.layers if "conv" in layer.name]
    assert filters == [128, 64, 32, 128, 64, 32]
    assert sum("normalization" in layer.name for layer in decoder.layers) == 2
    assert decoder.output_shape == (None, 512, 512, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("shape", "depth"), [((64, 64, 1), 3), ((32, 96, 1), 5), ((64, 16, 1), 1)])
def test_other_shapes_that_the_depth_divides_work(architecture, shape, depth):
    windows = np.zeros((2, *shape), np.float32)
    encoder = build_encoder(shape, 3, architecture, "diagonal", depth)
    decoder = build_decoder(shape, 3, 2, architecture, depth, width=8)
    parameters = encoder(windows)
    assert parameters.shape == (2, 6)
    assert decoder(parameters[:, :3]).shape == (2, *shape[:2], 2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_seed_decides_the_weights(architecture):
    networks = [build_decoder((16, 16, 1), 2, 1, architecture, 2, 4, seed) for seed in (0, 0, 1)]
    first, same, other = ([np.asarray(weight) for weight in network.weights] for network in networks)
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_temporal_encoder_is_linear_in_the_averaged_window(windows):
    encoder = build_encoder((32, 32, 1), 3, depth=2)
    steps = windows[..., 0].swapaxes(1, 2).reshape(len(windows), 8, 4, 32).mean(axis=2)
    expected = steps.reshape(len(windows), -1) @ encoder.get_layer("linear_mean").kernel.numpy()
    np.testing.assert_allclose(encoder(windows)[:, :3], expected, atol=1e-5)
    np.testing.assert_array_equal(encoder(windows)[:, 3:], 0)


def test_deep_path_of_the_decoder_starts_at_zero():
    decoder = build_decoder((32, 32, 1), 3, depth=2, width=8)
    codes = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    steps = (codes @ decoder.get_layer("linear_window").kernel.numpy()).reshape(5, 8, 32)
    np.testing.assert_allclose(decoder(codes), interpolate_frames(steps, 4), atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (32, 32, 1), "architecture": "modern"}, "architecture='modern'"),
        ({"input_shape": (32, 24, 1), "depth": 4}, r"frames must be a multiple of 16.*\(32, 24, 1\)"),
        (
            {"input_shape": (24, 32, 1), "depth": 4, "architecture": "classic"},
            "bins must be a multiple of 16",
        ),
        ({"input_shape": (32, 32), "depth": 2}, r"\(bins, frames, 1\).*\(32, 32\)"),
        ({"input_shape": (32, 32, 1), "depth": 0}, "depth=0"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    for build in (build_encoder, build_decoder):
        with pytest.raises(ValueError, match=message):
            build(latent_dim=2, **arguments)
