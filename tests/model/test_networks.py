from typing import Any

import keras
import numpy as np
import pytest

from spectrovae.model import networks
from spectrovae.model.networks import build_decoder, build_encoder, decode_in_parts
from spectrovae.model.pca import interpolate_frames

SHAPE = (32, 32, 1)


def small_encoder(input_shape: tuple[int, ...] = SHAPE, **given: Any) -> keras.Model:
    return build_encoder(input_shape, 3, "diagonal", **{"depth": 2, "latent_steps": 1, "seed": 0} | given)


def small_decoder(input_shape: tuple[int, ...] = SHAPE, num_channels: int = 2, **given: Any) -> keras.Model:
    settings = {"depth": 2, "width": 8, "latent_steps": 1, "seed": 0} | given
    return build_decoder(input_shape, 3, num_channels, **settings)


@pytest.mark.parametrize(("shape", "depth"), [((64, 64, 1), 3), ((32, 96, 1), 5), ((64, 16, 1), 1)])
def test_other_shapes_that_the_depth_divides_work(shape, depth):
    parameters = small_encoder(shape, depth=depth)(np.zeros((2, *shape), np.float32))
    assert parameters.shape == (2, 6)
    assert small_decoder(shape, depth=depth)(parameters[:, :3]).shape == (2, shape[1], 2, shape[0])


@pytest.mark.parametrize("build", [small_encoder, small_decoder])
def test_the_seed_decides_the_weights(build):
    first, same, other = (build((16, 16, 1), seed=seed).get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_encoder_is_linear_in_the_averaged_window(windows):
    encoder = small_encoder()
    steps = windows[..., 0].swapaxes(1, 2).reshape(len(windows), 8, 4, 32).mean(axis=2)
    courses, spectra, _ = encoder.get_layer("linear_mean").get_weights()
    expected = np.einsum("ntf,tk,fk->nk", steps, courses, spectra)
    np.testing.assert_allclose(encoder(windows)[:, :3], expected, atol=1e-5)
    np.testing.assert_array_equal(encoder(windows)[:, 3:], 0)


def test_each_code_is_read_off_its_own_part_of_the_window(windows):
    encoder = small_encoder(latent_steps=4)
    parameters = encoder(windows).numpy()
    assert parameters.shape == (48, 4, 6)
    # The same weights for all: a window whose parts come in another order has its codes in that order.
    parts = [windows[:, :, start : start + 8] for start in (16, 0, 24, 8)]
    np.testing.assert_allclose(encoder(np.concatenate(parts, axis=2)), parameters[:, [2, 0, 3, 1]], atol=1e-5)


def test_deep_path_of_the_decoder_starts_at_zero():
    decoder = small_decoder(num_channels=1)
    codes = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    courses, spectra, _ = decoder.get_layer("linear_window").get_weights()
    steps = np.einsum("nk,tk,kf->ntf", codes, courses, spectra)
    expected = interpolate_frames(steps.swapaxes(1, 2), 4)[..., 0].swapaxes(1, 2)
    np.testing.assert_allclose(decoder(codes)[:, :, 0], expected, atol=1e-5)


def test_decoder_of_several_codes_takes_any_number_of_them():
    decoder = small_decoder(latent_steps=4)
    assert decoder.output_shape == (None, None, 2, 32)
    courses, spectra, _ = decoder.get_layer("linear_window").get_weights()
    courses = courses.reshape(3, 2, 3)  # those of the code before, its own, those of the code after
    for num_steps in (1, 4, 9):
        codes = np.random.default_rng(0).normal(size=(5, num_steps, 3)).astype(np.float32)
        padded = np.pad(codes, ((0, 0), (1, 1), (0, 0)), "edge")
        contexts = np.stack([padded[:, index : index + num_steps] for index in range(3)])
        steps = np.einsum("jnik,jtk,kf->nitf", contexts, courses, spectra).reshape(5, 2 * num_steps, 32)
        expected = interpolate_frames(steps.swapaxes(1, 2), 4)[..., 0].swapaxes(1, 2)
        np.testing.assert_allclose(decoder(codes)[:, :, 0], expected, atol=1e-5)


def test_decoder_of_several_codes_gives_each_frame_its_own():
    decoder = small_decoder(latent_steps=4, width=2)
    # The only number of each frame, of half a code before to half a code after, and a spectrum that rises with it.
    numbers = np.arange(16) + 100.0  # so high that GELU passes it on
    decoder.get_layer("frames").bias.assign(numbers)
    decoder.get_layer("deep_window").kernel.assign(np.arange(2 * 32)[None])
    kernel = decoder.get_layer("frames").kernel
    kernel.assign(np.zeros(kernel.shape))
    windows = decoder(np.zeros((1, 6, 3), np.float32)).numpy()
    # Of each frame two codes know something, and the nearer one counts for more.
    weights = (np.arange(8) + 0.5) / 8
    first = weights[4:] * numbers[4:8] + (1 - weights[4:]) * numbers[12:]
    second = (1 - weights[:4]) * numbers[8:12] + weights[:4] * numbers[:4]
    for channel in (0, 1):
        expected = np.concatenate([first, second])[:, None] * (np.arange(32) + 32 * channel)  # (frames, bins)
        np.testing.assert_allclose(windows[0, :, channel], np.tile(expected, (6, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (32, 24, 1), "depth": 4}, "frames must be a multiple of 16.*frames=24"),
        ({"input_shape": (32, 24, 1), "depth": 4}, "Choose a smaller `decoder_depth`"),
        ({"input_shape": (32, 47, 1), "depth": 1}, "frames=47. Choose an even number of frames"),
        ({"input_shape": (32, 1, 1), "depth": 1}, "frames=1. Choose an even number of frames"),
        ({"input_shape": (32, 32)}, r"\(bins, frames, 1\).*\(32, 32\)"),
        ({"depth": 0}, "depth=0"),
        ({"latent_steps": 0}, "latent_steps=0"),
        ({"latent_steps": 3}, "divisor of 8.*latent_steps=3"),
        ({"depth": 4, "latent_steps": 4}, "divisor of 2.*latent_steps=4"),
    ],
)
@pytest.mark.parametrize("build", [small_encoder, small_decoder])
def test_what_does_not_fit_is_named(build, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


@pytest.fixture(params=[(2, 4), (1, 8), (3, 4)], ids=lambda param: "depth {}, {} codes".format(*param))
def sequence_decoder(request) -> tuple[keras.Model, int]:
    """A decoder whose deep path gives something else for each pixel, and how many frames a code stands for."""
    depth, latent_steps = request.param
    decoder = small_decoder(depth=depth, latent_steps=latent_steps)
    generator = np.random.default_rng(0)
    for weight in decoder.weights:
        if weight.ndim:
            weight.assign(generator.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1])))
    return decoder, 32 // latent_steps


@pytest.fixture
def codes() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 37, 3)).astype(np.float32)


def test_a_long_sequence_in_parts_is_the_whole(sequence_decoder, codes, monkeypatch):
    decoder, frames_per_code = sequence_decoder
    whole = decoder(codes)
    monkeypatch.setattr(networks, "FRAMES_AT_ONCE", 3 * frames_per_code)
    parts = list(decode_in_parts(decoder, codes, frames_per_code))
    assert [part.shape[1] for part in parts] == 12 * [3 * frames_per_code] + [frames_per_code]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)


def test_too_few_codes_around_a_part_would_be_noticed(sequence_decoder, codes, monkeypatch):
    decoder, frames_per_code = sequence_decoder
    monkeypatch.setattr(networks, "FRAMES_AT_ONCE", 3 * frames_per_code)
    monkeypatch.setattr(networks, "_CONTEXT", 0)
    parts = list(decode_in_parts(decoder, codes, frames_per_code))
    assert np.abs(np.concatenate(parts, axis=1) - decoder(codes)).max() > 1e-3


def test_the_decoder_sees_the_codes_around_and_none_beyond(sequence_decoder, codes):
    decoder, frames_per_code = sequence_decoder
    frames = slice(18 * frames_per_code, 19 * frames_per_code)
    own = decoder(codes).numpy()[:, frames]
    others = codes.copy()
    others[:, : 18 - networks._CONTEXT] += 1
    others[:, 19 + networks._CONTEXT :] -= 1
    np.testing.assert_allclose(decoder(others).numpy()[:, frames], own, atol=1e-5)
    # A code right beside is seen.
    others = codes.copy()
    others[:, 17] += 1
    assert np.abs(decoder(others).numpy()[:, frames] - own).max() > 1e-3
