"""A training in a folder: it can be interrupted, killed and continued, and keeps the best epoch."""

import csv
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.training.resumable import fit_resumably, read_history

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from kill_training import faults, measure


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


class OnEpoch(keras.callbacks.Callback):
    """Calls a function at the start of an epoch."""

    def __init__(self, epoch: int, function: Callable[[], object]) -> None:
        super().__init__()
        self.epoch, self.function = epoch, function

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.function()


class Damage(keras.callbacks.Callback):
    """Spoils the weights at the start of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            for variable in self.model.trainable_variables:
                variable.assign(10 * variable)


def new_model(use_ema: bool) -> SpectroVAE:
    converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
    model = SpectroVAE(
        (32, 32, 1), latent_dim=4, num_components=2, decoder_depth=2, width=8, converter=converter, seed=0
    )
    model.compile(keras.optimizers.Adam(1e-3, use_ema=use_ema, ema_momentum=0.5))
    return model


@pytest.fixture(scope="module")
def renewed():
    """A function that returns a model as if newly built; the tests share its steps, which take seconds to trace."""
    models = {}

    def renew(use_ema=False):
        if use_ema not in models:
            model = new_model(use_ema)
            variables = model.variables + model.optimizer.variables
            models[use_ema] = model, [(variable, variable.numpy()) for variable in variables]
        model, initial = models[use_ema]
        for variable, value in initial:
            variable.assign(value)
        return model

    return renew


def fit(model, folder, epochs, windows, **kwargs):
    arguments = {"batch_size": 16, "shuffle": False, "verbose": 0} | kwargs
    return fit_resumably(model, folder, windows[:32], windows[32:], epochs, **arguments)


@pytest.fixture
def train(renewed, windows):
    """A function that trains a new model in a folder; other arguments go to `fit_resumably`."""

    def run(folder, epochs, use_ema=False, **kwargs):
        model = renewed(use_ema)
        return model, fit(model, folder, epochs, windows, **kwargs)

    return run


@pytest.fixture(scope="module")
def two_epochs(renewed, windows, tmp_path_factory):
    """A folder of two epochs and their history."""
    folder = tmp_path_factory.mktemp("two_epochs")
    return folder, fit(renewed(), folder, 2, windows)


@pytest.fixture
def trained(two_epochs, tmp_path):
    """A copy of that folder, and the history."""
    folder, history = two_epochs
    return shutil.copytree(folder, tmp_path / "trained"), history


@pytest.mark.parametrize("use_ema", [False, True])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(train, tmp_path, windows, use_ema):
    whole, expected = train(tmp_path / "whole", 4, use_ema)
    weights = [variable.numpy() for variable in whole.trainable_variables]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", 4, use_ema, callbacks=[Interruption(epoch=2)])
    assert len(read_history(tmp_path / "parts")["loss"]) == 2
    resumed = new_model(use_ema)
    history = fit(resumed, tmp_path / "parts", 4, windows)
    assert history.keys() == expected.keys() and {len(values) for values in history.values()} == {4}
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)
    for ours, theirs in zip(resumed.trainable_variables, weights, strict=True):
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


def test_a_finished_training_is_left_alone_and_can_be_prolonged(trained, train, caplog):
    caplog.set_level(logging.INFO, "spectrovae")
    folder, history = trained
    files = ("checkpoint.keras", "model.keras", "log.csv")
    content = [(folder / name).read_bytes() for name in files]
    model, same = train(folder, 2)
    assert same == history == read_history(folder)
    assert [(folder / name).read_bytes() for name in files] == content
    assert "nothing is left to train" in caplog.text
    saved = keras.saving.load_model(folder / "model.keras")
    np.testing.assert_array_equal(model.generate(2, seed=1), saved.generate(2, seed=1))
    _, longer = train(folder, 3)
    assert longer["loss"][:2] == history["loss"] and len(longer["loss"]) == 3
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for name, values in longer.items():
        assert [float(row[name]) for row in rows] == values


def test_model_file_is_the_best_epoch_with_the_averaged_weights(train, tmp_path, windows):
    model, history = train(tmp_path, 3, use_ema=True, callbacks=[Damage()])
    best = int(np.argmin(history["val_loss"]))
    assert best < 2
    saved = keras.saving.load_model(tmp_path / "model.keras")
    rmse = saved.evaluate(windows[32:], batch_size=16, verbose=0, return_dict=True)["rmse_db"]
    assert float(rmse) == pytest.approx(history["val_rmse_db"][best], rel=1e-4)
    np.testing.assert_array_equal(saved.reconstruct(windows[:3]), model.reconstruct(windows[:3]))
    last = keras.saving.load_model(tmp_path / "checkpoint.keras")
    assert int(last.optimizer.iterations) == 6 and int(saved.optimizer.iterations) == 2 * (best + 1)


def test_without_validation_the_last_epoch_counts(renewed, windows, tmp_path):
    model = renewed()
    history = fit_resumably(model, tmp_path, windows, epochs=2, verbose=0)
    assert "val_loss" not in history
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert int(saved.optimizer.iterations) == int(model.optimizer.iterations) == 2 * 2


def test_learning_rate_may_change_and_other_settings_may_not(trained, renewed, make_model, windows):
    folder, _ = trained
    model = renewed()
    model.optimizer.learning_rate = 1e-4
    fit(model, folder, 3, windows)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)
    last = keras.saving.load_model(folder / "checkpoint.keras")
    assert int(last.optimizer.iterations) == 6
    assert float(last.optimizer.learning_rate) == pytest.approx(1e-4)
    with pytest.raises(ValueError, match="latent_dim=5, not 4"):
        fit_resumably(make_model(latent_dim=5), folder, windows, verbose=0)


def test_wrong_arguments_are_refused(renewed, windows, tmp_path):
    model = renewed()
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
        weight = self.model.trainable_variables[0]  # mixing weights, the last, are set anew after each epoch
        weight.assign(np.full(weight.shape, np.nan))


@pytest.mark.parametrize(("at_end", "use_ema"), [(False, False), (True, True)])
def test_nan_stops_the_training_and_keeps_the_epochs_before(train, tmp_path, windows, caplog, at_end, use_ema):
    model, history = train(tmp_path, 5, use_ema, callbacks=[Poison(2, at_end)])
    assert len(history["loss"]) == 2 and np.isfinite(history["loss"]).all()
    assert "in epoch 3" in caplog.text and "lower learning rate" in caplog.text
    assert np.isfinite(model.reconstruct(windows[:4])).all()
    for name in ("checkpoint.keras", "model.keras"):
        assert all(np.isfinite(weight).all() for weight in keras.saving.load_model(tmp_path / name).get_weights())
    _, longer = train(tmp_path, 4, use_ema)
    assert len(longer["loss"]) == 4 and longer["loss"][:2] == history["loss"]


def test_nan_in_the_first_epoch_is_an_error(train, tmp_path):
    with pytest.raises(FloatingPointError, match=r"epoch 1.*lower learning rate"):
        train(tmp_path, 3, callbacks=[Poison(0)])
    assert not (tmp_path / "checkpoint.keras").exists()


def test_infinite_held_out_loss_stops_the_training(renewed, windows, tmp_path):
    spoiled = windows[32:].copy()
    spoiled[3, 5, 5] = np.nan
    with pytest.raises(FloatingPointError, match=r"val_loss became NaN or infinite in epoch 1"):
        fit_resumably(renewed(), tmp_path, windows[:32], spoiled, epochs=2, verbose=0)


def test_best_model_is_written_after_a_kill_between_the_two_files(trained, train, windows):
    folder, _ = trained
    old = (folder / "model.keras").read_bytes()
    model, history = train(folder, 3)
    assert np.argmin(history["val_loss"]) == 2
    reconstruction = model.reconstruct(windows[:3])
    (folder / "model.keras").write_bytes(old)
    again, _ = train(folder, 3)
    np.testing.assert_array_equal(again.reconstruct(windows[:3]), reconstruction)
    saved = keras.saving.load_model(folder / "model.keras")
    assert int(saved.optimizer.iterations) == 6


def test_a_folder_that_is_removed_is_made_again(trained, train, caplog):
    folder, history = trained
    _, longer = train(folder, 4, callbacks=[OnEpoch(2, lambda: shutil.rmtree(folder))])
    assert "was removed: making it again" in caplog.text
    assert {path.name for path in folder.iterdir()} == {"checkpoint.keras", "model.keras", "log.csv"}
    assert longer == read_history(folder) and len(longer["loss"]) == 4 and longer["loss"][:2] == history["loss"]
    saved = keras.saving.load_model(folder / "model.keras")
    best = 2 + int(np.argmin(longer["val_loss"][2:]))  # of those since
    assert int(saved.optimizer.iterations) == 2 * (best + 1)


def test_a_folder_takes_one_training(trained, train, make_model, windows):
    folder, _ = trained
    other = make_model()

    def train_too():
        with pytest.raises(BlockingIOError, match="Another training is using .*choose another folder"):
            fit_resumably(other, folder, windows, epochs=9, verbose=0)

    _, longer = train(folder, 3, callbacks=[OnEpoch(2, train_too)])
    assert not other.adapted and int(other.optimizer.iterations) == 0
    assert longer == read_history(folder) and len(longer["loss"]) == 3
    _, same = train(folder, 3)
    assert same == longer


def test_a_model_file_of_something_else_is_told_before_the_first_step(make_model, windows, tmp_path):
    model = make_model()
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"model\.keras is not a checkpoint of fit_resumably"):
        fit_resumably(model, tmp_path, windows, epochs=1, verbose=0)
    assert not model.adapted and int(model.optimizer.iterations) == 0


def test_without_a_temporary_folder_no_step_is_done(make_model, windows, tmp_path, monkeypatch):
    """Keras would tell after the first epoch."""
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "nowhere")])
    model = make_model()
    with pytest.raises(FileNotFoundError, match=r"No usable temporary directory.*TMPDIR"):
        fit_resumably(model, tmp_path / "out", windows, epochs=1, verbose=0)
    assert not model.adapted and int(model.optimizer.iterations) == 0


def test_validation_that_is_rarer_than_epochs_decides(train, tmp_path):
    model, history = train(tmp_path, 3, validation_freq=2)
    assert len(history["val_loss"]) == 1
    saved = keras.saving.load_model(tmp_path / "model.keras")
    assert int(saved.optimizer.iterations) == int(model.optimizer.iterations) == 2 * 2


def test_damaged_checkpoint_is_told(trained, train):
    folder, _ = trained
    content = (folder / "checkpoint.keras").read_bytes()
    (folder / "checkpoint.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"checkpoint\.keras is damaged"):
        train(folder, 3)


@pytest.mark.slow
def test_killed_training_loses_nothing(tmp_path):
    """What `benchmarks/kill_training.py` does with 20 kills, with three, and without other trainings beside it."""
    # Without a start in closed form, so that there is something to gain, and to lose.
    options = "--latent-steps 1 --batch-size 64 --likelihood bernoulli --learning-rate 5e-3"
    result = measure(3, epochs=16, seed=1, num_references=0, place=tmp_path, duration=4.0, options=options)
    assert faults(result, epochs=16) == [], result
    assert result["reads of model files"] > 20
