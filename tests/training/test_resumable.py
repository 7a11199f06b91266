import csv
import logging

import keras
import numpy as np
import pytest

from spectrovae.training.resumable import fit_resumably, read_history


class Interruption(keras.callbacks.Callback):
    """Stops the program in the middle of an epoch, as a power cut does."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self._running = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._running = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self._running == self.epoch:
            raise KeyboardInterrupt


class Damage(keras.callbacks.Callback):
    """Spoils the weights at the start of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            for variable in self.model.trainable_variables:
                variable.assign(10 * variable)


@pytest.fixture
def train(make_model, windows):
    """A function that trains a fresh model in a folder; other arguments go to `fit_resumably`."""

    def run(folder, epochs, optimizer=None, **kwargs):
        model = make_model()
        if optimizer is not None:
            model.compile(optimizer)
        arguments = {"batch_size": 16, "shuffle": False, "verbose": 0} | kwargs
        return model, fit_resumably(model, folder, windows[:32], windows[32:], epochs, **arguments)

    return run


@pytest.mark.parametrize("use_ema", [False, True])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(train, tmp_path, use_ema):
    def optimizer():
        return keras.optimizers.Adam(1e-3, use_ema=use_ema, ema_momentum=0.9)

    whole, expected = train(tmp_path / "whole", 4, optimizer())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", 4, optimizer(), callbacks=[Interruption(epoch=2)])
    assert len(read_history(tmp_path / "parts")["loss"]) == 2
    resumed, history = train(tmp_path / "parts", 4, optimizer())
    assert history.keys() == expected.keys() and {len(values) for values in history.values()} == {4}
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)
    for ours, theirs in zip(resumed.trainable_variables, whole.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_prior_of_several_codes_is_fitted_to_those_of_the_best_epoch(make_model, windows, tmp_path):
    model = make_model(latent_steps=4, decoder_depth=2)
    model.compile(keras.optimizers.Adam(0.01))
    arguments = {"validation_split": 0.5, "batch_size": 8, "verbose": 0}
    fit_resumably(model, tmp_path, windows[:32], epochs=2, **arguments)
    fitted = model.prior.get_weights()
    saved, last = (keras.saving.load_model(tmp_path / name) for name in ("model.keras", "checkpoint.keras"))
    assert (
        max(np.abs(ours - theirs).max() for ours, theirs in zip(fitted, last.prior.get_weights(), strict=True)) > 0.01
    )
    model.refit_prior(windows[:16])
    for again, ours, loaded in zip(model.prior.get_weights(), fitted, saved.prior.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, ours)
        np.testing.assert_allclose(again, ours, atol=1e-5)
    assert len(fit_resumably(model, tmp_path, windows[:32], epochs=3, **arguments)["loss"]) == 3


def test_a_finished_training_is_left_alone_and_can_be_prolonged(train, tmp_path, caplog):
    caplog.set_level(logging.INFO, "spectrovae")
    model, history = train(tmp_path, 2)
    content = (tmp_path / "checkpoint.keras").read_bytes()
    again, same = train(tmp_path, 2)
    assert same == history == read_history(tmp_path)
    assert (tmp_path / "checkpoint.keras").read_bytes() == content
    assert "nothing is left to train" in caplog.text
    np.testing.assert_array_equal(again.generate(2, seed=1), model.generate(2, seed=1))
    _, longer = train(tmp_path, 3)
    assert longer["loss"][:2] == history["loss"] and len(longer["loss"]) == 3


def test_log_has_a_row_for_each_epoch(train, tmp_path):
    train(tmp_path, 1)
    _, history = train(tmp_path, 3)
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for name, values in history.items():
        assert [float(row[name]) for row in rows] == values


def test_model_file_is_the_best_epoch_with_the_averaged_weights(train, tmp_path, windows):
    optimizer = keras.optimizers.Adam(1e-3, use_ema=True, ema_momentum=0.5)
    model, history = train(tmp_path, 3, optimizer, callbacks=[Damage()])
    best = int(np.argmin(history["val_loss"]))
    assert best < 2
    saved = keras.saving.load_model(tmp_path / "model.keras")
    rmse = saved.evaluate(windows[32:], batch_size=16, verbose=0, return_dict=True)["rmse_db"]
    assert float(rmse) == pytest.approx(history["val_rmse_db"][best], rel=1e-4)
    np.testing.assert_array_equal(saved.reconstruct(windows[:3]), model.reconstruct(windows[:3]))
    last = keras.saving.load_model(tmp_path / "checkpoint.keras")
    assert int(last.optimizer.iterations) == 6 and int(saved.optimizer.iterations) == 2 * (best + 1)


def test_without_validation_the_last_epoch_counts(make_model, windows, tmp_path):
    model = make_model()
    history = fit_resumably(model, tmp_path, windows, epochs=2, verbose=0)
    assert "val_loss" not in history
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert int(saved.optimizer.iterations) == int(model.optimizer.iterations) == 2 * 2


def test_learning_rate_may_change_and_other_settings_may_not(make_model, train, windows, tmp_path):
    train(tmp_path, 1, keras.optimizers.Adam(1e-3))
    model, _ = train(tmp_path, 2, keras.optimizers.Adam(1e-4))
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)
    assert int(model.optimizer.iterations) == 4
    other = make_model(latent_dim=5)
    with pytest.raises(ValueError, match="latent_dim=5, not 4"):
        fit_resumably(other, tmp_path, windows, verbose=0)


def test_wrong_arguments_are_refused(make_model, windows, tmp_path):
    model = make_model()
    with pytest.raises(ValueError, match="epochs=0"):
        fit_resumably(model, tmp_path, windows, epochs=0)
    model.save(tmp_path / "checkpoint.keras")
    with pytest.raises(ValueError, match="not a checkpoint of fit_resumably"):
        fit_resumably(model, tmp_path, windows)
    uncompiled = type(model).from_config(model.get_config())
    with pytest.raises(ValueError, match="compile"):
        fit_resumably(uncompiled, tmp_path, windows)


class Poison(keras.callbacks.Callback):
    """Puts NaN into a weight, or into the very last step of an epoch."""

    def __init__(self, epoch: int, at_end: bool = False) -> None:
        super().__init__()
        self.epoch, self.at_end = epoch, at_end

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch and not self.at_end:
            self.poison()

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch and self.at_end:
            self.poison()

    def poison(self):
        weight = self.model.trainable_variables[-1]
        weight.assign(np.full(weight.shape, np.nan))


@pytest.mark.parametrize(("at_end", "use_ema"), [(False, False), (True, True)])
def test_nan_stops_the_training_and_keeps_the_epochs_before(train, tmp_path, windows, caplog, at_end, use_ema):
    optimizer = keras.optimizers.Adam(1e-3, use_ema=use_ema)
    model, history = train(tmp_path, 5, optimizer, callbacks=[Poison(2, at_end)])
    assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()
    assert "in epoch 3" in caplog.text and "lower learning rate" in caplog.text
    assert np.isfinite(model.reconstruct(windows[:4])).all()
    for name in ("checkpoint.keras", "model.keras"):
        assert all(np.isfinite(weight).all() for weight in keras.saving.load_model(tmp_path / name).get_weights())
    _, longer = train(tmp_path, 4, keras.optimizers.Adam(1e-3, use_ema=use_ema))
    assert len(longer["loss"]) == 4 and longer["loss"][:2] == history["loss"]


def test_nan_in_the_first_epoch_is_an_error(train, tmp_path):
    with pytest.raises(FloatingPointError, match=r"epoch 1.*lower learning rate"):
        train(tmp_path, 3, callbacks=[Poison(0)])
    assert not (tmp_path / "checkpoint.keras").exists()


def test_infinite_held_out_loss_stops_the_training(make_model, windows, tmp_path):
    spoiled = windows[32:].copy()
    spoiled[3, 5, 5] = np.nan
    with pytest.raises(FloatingPointError, match=r"val_loss became NaN or infinite in epoch 1"):
        fit_resumably(make_model(), tmp_path, windows[:32], spoiled, epochs=2, verbose=0)


def test_best_model_is_written_after_a_kill_between_the_two_files(train, tmp_path, windows):
    train(tmp_path, 1, keras.optimizers.Adam(1e-3))
    old = (tmp_path / "model.keras").read_bytes()
    model, history = train(tmp_path, 2, keras.optimizers.Adam(1e-3))
    assert history["val_loss"][1] < history["val_loss"][0]
    (tmp_path / "model.keras").write_bytes(old)
    again, _ = train(tmp_path, 2, keras.optimizers.Adam(1e-3))
    np.testing.assert_array_equal(again.reconstruct(windows[:3]), model.reconstruct(windows[:3]))
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert int(saved.optimizer.iterations) == 4


def test_damaged_checkpoint_is_told(train, tmp_path):
    train(tmp_path, 1)
    content = (tmp_path / "checkpoint.keras").read_bytes()
    (tmp_path / "checkpoint.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"checkpoint\.keras is damaged"):
        train(tmp_path, 2)
