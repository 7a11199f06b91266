import keras
import numpy as np
import pytest

from spectrovae.optimizer import LinearWarmup, default_optimizer


def test_rate_rises_to_its_value_and_stays():
    schedule = LinearWarmup(0.5, num_steps=5)
    np.testing.assert_allclose([schedule(step) for step in range(8)], [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5])


def test_first_steps_do_not_undo_the_linear_start(make_model, windows):
    errors = []
    for optimizer in (default_optimizer(), keras.optimizers.AdamW(5e-4)):
        model = make_model(width=256)
        model.compile(optimizer)
        model.adapt(windows, verbose=0)
        before = model.evaluate(windows, verbose=0, return_dict=True)["rmse_db"]
        model.fit(windows, batch_size=24, verbose=0)
        errors.append(model.evaluate(windows, verbose=0, return_dict=True)["rmse_db"] - before)
    assert errors[0] < 0.2 * errors[1]


def test_optimizer_survives_saving_with_the_model(make_model, tmp_path):
    model = make_model()
    model.compile(default_optimizer(1e-3))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="learning_rate=0"):
        LinearWarmup(0)
    with pytest.raises(ValueError, match="num_steps=0"):
        LinearWarmup(1e-3, 0)
