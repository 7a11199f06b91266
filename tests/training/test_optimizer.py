import keras
import numpy as np
import pytest
import tensorflow as tf

from spectrovae.training.optimizer import ArrayAdam, LinearWarmup, default_optimizer


def test_rate_rises_to_its_value_and_stays():
    schedule = LinearWarmup(0.5, num_steps=5)
    np.testing.assert_allclose([schedule(step) for step in range(8)], [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5])


def test_first_step_hardly_moves_what_starts_at_zero(make_model, windows):
    moves = []
    for optimizer in (default_optimizer(5e-4), keras.optimizers.AdamW(5e-4)):
        model = make_model()
        model.compile(optimizer, run_eagerly=True)
        model.fit(windows, batch_size=len(windows), verbose=0)
        moves.append(np.abs(model.decoder.get_layer("deep_window").kernel).max())
    np.testing.assert_allclose(moves, [5e-6, 5e-4], rtol=0.01)


def test_optimizer_survives_saving_with_the_model(make_model, tmp_path):
    model = make_model()
    model.compile(default_optimizer(1e-3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()


def test_adam_on_arrays_is_that_of_keras():
    generator = np.random.default_rng(0)
    starts, gradients = generator.normal(size=(2, 3)), generator.normal(size=(20, 2, 3)) * [0.1, 1, 100]
    ours, theirs = ([keras.Variable(start) for start in starts] for _ in range(2))
    plain, optimizer = ArrayAdam(ours, 0.01, clipnorm=5.0), keras.optimizers.Adam(0.01, clipnorm=5.0)
    for pair in gradients:
        plain.apply(pair)
        optimizer.apply([tf.constant(gradient, tf.float32) for gradient in pair], theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4)


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="learning_rate=0"):
        LinearWarmup(0)
    with pytest.raises(ValueError, match="num_steps=0"):
        LinearWarmup(1e-3, 0)
