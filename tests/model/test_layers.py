import keras
import numpy as np
import pytest

from spectrovae.model.layers import LinearUpsampling1D, OverlapAdd, SeparableDense, SeparableDenseTranspose

RNG = np.random.default_rng(0)
COURSES, SPECTRA = RNG.standard_normal((5, 3)).astype(np.float32), RNG.standard_normal((4, 3)).astype(np.float32)
KERNEL = np.einsum("tk,fk->tfk", COURSES, SPECTRA).reshape(20, 3)


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


@pytest.mark.parametrize("outer_shape", [(7,), (2, 6)])
def test_separable_layers_are_dense_ones_of_rank_one(outer_shape):
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


def test_separable_layers_of_any_length_are_saved_and_loaded(tmp_path):
    inputs = keras.Input((None, 5, 4))
    outputs = SeparableDenseTranspose(5, 4, seed=1)(SeparableDense(3, seed=0)(inputs))
    model = keras.Model(inputs, outputs)
    assert model.output_shape == (None, None, 5, 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    sequences = RNG.standard_normal((2, 6, 5, 4)).astype(np.float32)
    np.testing.assert_array_equal(loaded(sequences), model(sequences))


def test_the_seed_decides_the_separable_kernels_and_they_differ():
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
    with pytest.raises(ValueError, match="num_neighbours=-1"):
        SeparableDenseTranspose(steps=2, bins=2, num_neighbours=-1)


def test_overlapping_steps_that_agree_stay_as_they_are():
    frames = RNG.standard_normal((2, 5 * 4, 3)).astype(np.float32)  # of 5 steps of 4 frames
    around = np.pad(frames, ((0, 0), (2, 2), (0, 0)))
    steps = np.stack([around[:, 4 * step : 4 * step + 8].reshape(2, -1) for step in range(5)], axis=1)
    layer = OverlapAdd(frames=4)
    inner = slice(2, -2)  # beyond the ends the outermost steps are repeated
    np.testing.assert_allclose(layer(steps)[:, inner], frames[:, inner], atol=1e-6)
    assert layer.compute_output_shape((None, None, 24)) == (None, None, 3)
    assert layer.compute_output_shape(steps.shape) == frames.shape
    with pytest.raises(ValueError, match="frames=3"):
        OverlapAdd(3)
