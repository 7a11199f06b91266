import keras
import numpy as np
import pytest

from spectrovae.model.networks import SeparableDense, SeparableDenseTranspose

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
