import keras
import numpy as np
import pytest

from spectrovae.model import networks as decoding
from spectrovae.model.networks import (
    ARCHITECTURES,
    LinearUpsampling1D,
    SeparableDense,
    SeparableDenseTranspose,
    build_decoder,
    build_encoder,
)
from spectrovae.model.pca import interpolate_frames


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
    courses, spectra, _ = encoder.get_layer("linear_mean").get_weights()
    expected = np.einsum("ntf,tk,fk->nk", steps, courses, spectra)
    np.testing.assert_allclose(encoder(windows)[:, :3], expected, atol=1e-5)
    np.testing.assert_array_equal(encoder(windows)[:, 3:], 0)


@pytest.mark.parametrize("num_steps", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 2, 8])
def test_upsampling_is_linear_interpolation_between_the_middles(size, num_steps):
    sequence = np.random.default_rng(0).normal(size=(2, num_steps, 3)).astype(np.float32)
    middles = (np.arange(num_steps) + 0.5) * size - 0.5
    upsampled = LinearUpsampling1D(size)(sequence)
    assert upsampled.shape == (2, size * num_steps, 3)
    for rows, result in zip(sequence, upsampled.numpy(), strict=True):
        for channel in range(3):
            expected = np.interp(np.arange(size * num_steps), middles, rows[:, channel])
            np.testing.assert_allclose(result[:, channel], expected, atol=1e-5)


def test_upsampling_takes_sequences_of_any_length():
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, LinearUpsampling1D(4)(inputs))
    assert model.output_shape == (None, None, 3)
    for num_steps in (1, 5):
        assert model(np.zeros((2, num_steps, 3), np.float32)).shape == (2, 4 * num_steps, 3)
    with pytest.raises(ValueError, match="size=0"):
        LinearUpsampling1D(0)


def test_each_code_is_read_off_its_own_part_of_the_window(windows):
    encoder = build_encoder((32, 32, 1), 3, depth=2, latent_steps=4)
    parameters = encoder(windows).numpy()
    assert parameters.shape == (48, 4, 6)
    # The same weights for all: a window whose parts come in another order has its codes in that order.
    parts = [windows[:, :, start : start + 8] for start in (16, 0, 24, 8)]
    np.testing.assert_allclose(encoder(np.concatenate(parts, axis=2)), parameters[:, [2, 0, 3, 1]], atol=1e-5)


@pytest.mark.parametrize("refine", ["steps", "codes"])
def test_decoder_of_several_codes_takes_any_number_of_them(refine):
    decoder = build_decoder((32, 32, 1), 3, 2, depth=2, width=8, latent_steps=4, refine=refine)
    assert decoder.output_shape == (None, 32, None, 2)
    courses, spectra, _ = decoder.get_layer("linear_window").get_weights()
    for num_steps in (1, 4, 9):
        codes = np.random.default_rng(0).normal(size=(5, num_steps, 3)).astype(np.float32)
        steps = np.einsum("nik,tk,kf->nitf", codes, courses, spectra).reshape(5, 2 * num_steps, 32)
        np.testing.assert_allclose(decoder(codes)[..., :1], interpolate_frames(steps.swapaxes(1, 2), 4), atol=1e-5)


def test_deep_path_of_the_decoder_starts_at_zero():
    decoder = build_decoder((32, 32, 1), 3, depth=2, width=8)
    codes = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    courses, spectra, _ = decoder.get_layer("linear_window").get_weights()
    steps = np.einsum("nk,tk,kf->ntf", codes, courses, spectra)
    np.testing.assert_allclose(decoder(codes), interpolate_frames(steps.swapaxes(1, 2), 4), atol=1e-5)


def test_decoder_that_refines_codes_gives_each_frame_its_own():
    decoder = build_decoder((32, 32, 1), 3, 2, depth=2, width=8, latent_steps=4)
    assert decoder.get_layer("deep_window").units == 8 * 2 * 32
    decoder_of_long_codes = build_decoder((32, 128, 1), 3, 2, depth=2, width=8, latent_steps=2)
    assert decoder_of_long_codes.get_layer("deep_window").units == 2 * 32
    decoder.get_layer("deep_window").bias.assign(np.arange(8 * 2 * 32))
    windows = decoder(np.zeros((1, 6, 3), np.float32)).numpy()
    for channel in (0, 1):
        expected = np.arange(8)[None, :] * 64 + np.arange(32)[:, None] + 32 * channel  # (bins, frames)
        np.testing.assert_array_equal(windows[0, :, :, channel], np.tile(expected, 6))


def test_what_cannot_be_refined_is_named():
    for arguments in ({"refine": "codes"}, {"refine": "windows", "latent_steps": 4}):
        with pytest.raises(ValueError, match=f"refine={arguments['refine']!r}"):
            build_decoder((32, 32, 1), 3, depth=2, **arguments)


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
        ({"input_shape": (32, 32, 1), "depth": 2, "latent_steps": 0}, "latent_steps=0"),
        ({"input_shape": (32, 32, 1), "depth": 2, "latent_steps": 3}, "divisor of 8.*latent_steps=3"),
        ({"input_shape": (32, 32, 1), "depth": 4, "latent_steps": 4}, "divisor of 2.*latent_steps=4"),
        (
            {"input_shape": (32, 32, 1), "depth": 2, "latent_steps": 2, "architecture": "classic"},
            "one code.*latent_steps=2",
        ),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    for build in (build_encoder, build_decoder):
        with pytest.raises(ValueError, match=message):
            build(latent_dim=2, **arguments)


RNG = np.random.default_rng(0)

COURSES, SPECTRA = RNG.standard_normal((5, 3)).astype(np.float32), RNG.standard_normal((4, 3)).astype(np.float32)

KERNEL = np.einsum("tk,fk->tfk", COURSES, SPECTRA).reshape(20, 3)


@pytest.mark.parametrize("outer_shape", [(7,), (2, 6)])
def test_layers_are_dense_ones_of_rank_one(outer_shape):
    bias, mean = np.float32([1, 2, 3]), np.float32([1, 2, 3, 4])
    sequences = RNG.standard_normal((*outer_shape, 5, 4)).astype(np.float32)
    layer = SeparableDense(3)
    layer.build(sequences.shape)
    layer.set_weights([COURSES, SPECTRA, bias])
    expected = sequences.reshape(*outer_shape, 20) @ KERNEL + bias
    np.testing.assert_allclose(layer(sequences), expected, atol=1e-4)
    assert layer.compute_output_shape(sequences.shape) == expected.shape
    codes = RNG.standard_normal((*outer_shape, 3)).astype(np.float32)
    layer = SeparableDenseTranspose(steps=5, bins=4)
    layer.build(codes.shape)
    layer.set_weights([COURSES, SPECTRA.T, mean])
    expected = (codes @ KERNEL.T).reshape(*outer_shape, 5, 4) + mean
    np.testing.assert_allclose(layer(codes), expected, atol=1e-4)
    assert layer.compute_output_shape(codes.shape) == expected.shape


def test_layers_of_any_length_are_saved_and_loaded(tmp_path):
    inputs = keras.Input((None, 5, 4))
    outputs = SeparableDenseTranspose(5, 4, seed=1)(SeparableDense(3, seed=0)(inputs))
    model = keras.Model(inputs, outputs)
    assert model.output_shape == (None, None, 5, 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    sequences = RNG.standard_normal((2, 6, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(loaded(sequences), model(sequences))


def test_the_seed_decides_the_kernels_and_they_differ():
    layers = [SeparableDense(3, seed=seed) for seed in (0, 0, 2)]
    for layer in layers:
        layer.build((None, 4, 4))
    (first, spectra, _), (same, *_), (other, *_) = (layer.get_weights() for layer in layers)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other) and not np.array_equal(first, spectra)


def test_sizes_must_be_positive():
    with pytest.raises(ValueError, match="units=0"):
        SeparableDense(0)
    with pytest.raises(ValueError, match="steps=0"):
        SeparableDenseTranspose(steps=0, bins=4)
    with pytest.raises(ValueError, match="bins=-1"):
        SeparableDenseTranspose(steps=2, bins=-1)


CASES = [(2, 4, "steps"), (1, 8, "steps"), (3, 4, "steps"), (2, 4, "codes"), (1, 8, "codes")]


@pytest.fixture(params=CASES, ids=lambda param: "depth {}, {} codes, refines {}".format(*param))
def model(make_model, request):
    """A model of several codes whose deep path does something, and something else for every step and pixel."""
    depth, latent_steps, refine = request.param
    model = make_model(decoder_depth=depth, latent_steps=latent_steps, refine=refine, latent_dim=3)
    generator = np.random.default_rng(0)
    for weight in model.decoder.weights:
        if weight.ndim:
            weight.assign(generator.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1])))
    return model


@pytest.fixture
def codes() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 37, 3)).astype(np.float32)


def test_a_long_sequence_in_stretches_is_the_whole(model, codes, monkeypatch):
    whole = model.decode_moments(codes)
    assert [part.shape for part in whole] == [(2, 32, 37 * 32 // model.latent_steps, 1)] * 2
    calls = []
    decoder = model.decoder
    monkeypatch.setattr(decoding, "STEPS_AT_ONCE", 8)
    monkeypatch.setattr(type(decoder), "__call__", _counting(type(decoder).__call__, calls))
    for part, expected in zip(model.decode_moments(codes), whole, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-5)
    assert len(calls) > 2 and max(calls) < 37


def _counting(call, calls):
    def counted(self, inputs, *args, **kwargs):
        calls.append(inputs.shape[1])
        return call(self, inputs, *args, **kwargs)

    return counted


def test_a_margin_that_is_too_small_would_be_noticed(model, codes, monkeypatch):
    whole = model.decode_moments(codes)[0]
    monkeypatch.setattr(decoding, "STEPS_AT_ONCE", 8)
    monkeypatch.setattr(decoding, "DECODER_CONTEXT", 0)
    assert np.abs(model.decode_moments(codes)[0] - whole).max() > 1e-3


def test_the_decoder_sees_no_further_than_it_says(model, codes):
    margin = decoding.DECODER_CONTEXT  # codes
    if model.refine == "steps":
        margin = -(-margin * 2**model.decoder_depth * model.latent_steps // 32)
    others = codes.copy()
    others[:, : 18 - margin] += 1
    others[:, 19 + margin :] -= 1
    frames = slice(18 * 32 // model.latent_steps, 19 * 32 // model.latent_steps)
    for part, same in zip(model.decode_moments(codes), model.decode_moments(others), strict=True):
        np.testing.assert_allclose(part[:, :, frames], same[:, :, frames], atol=1e-5)
    # A code right beside is seen.
    others = codes.copy()
    others[:, 17] += 1
    assert np.abs(model.decode_moments(codes)[0] - model.decode_moments(others)[0])[:, :, frames].max() > 1e-3


def test_a_window_is_decoded_as_it_was(make_model, windows):
    for latent_steps in (1, 4):
        model = make_model(latent_steps=latent_steps)
        codes = model.encode(windows[:3])
        assert codes.shape[1:] == model.code_shape == ((4,) if latent_steps == 1 else (4, 4))
        expected = np.asarray(model.likelihood.mean(model.decoder(codes)))
        np.testing.assert_allclose(model.decode_moments(codes)[0], expected, atol=1e-6)
        np.testing.assert_allclose(model.decode(codes), np.clip(expected, 0, 1), atol=1e-6)


def test_seconds_to_frames_and_codes(make_model):
    model = make_model(latent_steps=4)  # 8000 Hz, 16 samples per frame, 8 frames per code
    assert [model.converter.num_samples_of(duration) for duration in (1e-9, 0.002, 1.0)] == [1, 16, 8000]
    assert [model.converter.num_frames_of(duration) for duration in (1e-9, 0.002, 0.0021, 1.0)] == [1, 1, 2, 500]
    assert [model.num_codes_for(num_frames) for num_frames in (1, 8, 9, 500)] == [1, 1, 2, 63]
    for duration in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="duration="):
            model.converter.num_samples_of(duration)
    with pytest.raises(ValueError, match="latent_steps=1"):
        make_model().num_codes_for(3)
