import logging

import keras
import numpy as np
import pytest

from spectrovae import SpectroVAE
from spectrovae.evaluation.diagnosis import diagnose
from spectrovae.training.callbacks import KLWarmup, ReviveComponents, with_own_callbacks
from spectrovae.training.optimizer import averaged_weights, default_optimizer, keeps_average


def test_weight_rises_batch_by_batch_and_validation_does_not_see_it(make_model, windows):
    model = make_model()
    weights = []

    class Record(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append(float(self.model.kl_weight))

    history = model.fit(
        windows,
        batch_size=12,
        epochs=3,
        validation_data=windows,
        callbacks=[KLWarmup(2), Record()],
        verbose=0,
    ).history
    np.testing.assert_allclose(weights, [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1, 1, 1])
    assert float(model.kl_weight) == 1
    np.testing.assert_allclose(
        history["val_loss"], np.add(history["val_reconstruction_loss"], history["val_kl_loss"]), rtol=1e-5
    )
    # In the first epoch the KL term counts for less than a half.
    assert history["loss"][0] < history["reconstruction_loss"][0] + history["kl_loss"][0]
    model.fit(windows, batch_size=12, epochs=1, callbacks=[KLWarmup(4, initial_weight=0.2)], verbose=0)
    assert float(model.kl_weight) == pytest.approx(0.4)  # where the training stopped


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="num_epochs=0"):
        KLWarmup(0)
    with pytest.raises(ValueError, match="live_share=1.5"):
        ReviveComponents(live_share=1.5)
    with pytest.raises(ValueError, match="initial_weight=2"):
        KLWarmup(1, initial_weight=2)
    other = keras.Sequential([keras.layers.Dense(1)])
    other.compile(loss="mse")
    with pytest.raises(ValueError, match="needs a SpectroVAE"):
        other.fit(np.zeros((2, 1)), np.zeros((2, 1)), callbacks=[KLWarmup(1)], verbose=0)


def kill(model, component=1):
    """Put a component of the prior far away, and give the optimizer the memories of a long training there."""
    means = model.prior.means.numpy()
    means[component] += 1000
    model.prior.means.assign(means)
    for slot in model.optimizer.variables:
        if "means_average" in slot.path:
            slot.assign(means)
        elif "means_momentum" in slot.path:
            momentum = slot.numpy()
            momentum[component] = 100
            slot.assign(momentum)
    model.optimizer.iterations.assign(1000)


@pytest.mark.parametrize(("use_ema", "learn_weights"), [(False, True), (True, False)])
def test_a_dead_component_is_revived_after_one_epoch_and_stays_alive(
    make_model, windows, caplog, use_ema, learn_weights
):
    caplog.set_level(logging.INFO, "spectrovae")
    model = make_model(num_components=3, learn_weights=learn_weights)
    model.adapt(windows, verbose=0)
    model.compile(keras.optimizers.Adam(1e-3, use_ema=use_ema, ema_momentum=0.99))
    kill(model)
    history = model.fit(windows, validation_data=windows[:24], epochs=3, batch_size=16, verbose=0).history
    assert history["num_live_components"] == [2, 3, 3]
    assert history["val_num_live_components"][1:] == [3, 3]
    assert "Epoch 1: 1 of 3 components" in caplog.text and "1 beside" in caplog.text
    assert len(caplog.records) == 1
    assert diagnose(model, windows).num_live_components == 3


def test_only_the_dead_component_is_changed_unless_revival_is_declined(make_model, windows):
    model = make_model(num_components=3, learn_weights=True)
    model.adapt(windows, verbose=0)
    kill(model)
    model.compile(keras.optimizers.SGD(0.0))

    def changes(**kwargs):
        """Where `fit` changes which weights."""
        before = [weight.numpy() for weight in model.weights]
        model.fit(windows, verbose=0, **kwargs)
        return {
            weight.path: np.unique(np.nonzero(old != weight.numpy())[0]).tolist()
            for weight, old in zip(model.weights, before, strict=True)
            if weight.dtype == "float32" and (old != weight.numpy()).any()
        }

    # The weights of all become their shares of the codes, declined or not.
    assert changes(callbacks=[ReviveComponents(live_share=0)]) == {"prior/logits": [0, 1, 2]}
    changed = changes()
    means, scales = model.prior.means.numpy(), model.prior.scales.numpy()
    other = next(k for k in (0, 2) if np.allclose(scales[1], scales[k]))
    assert {name: changed[name] for name in ("prior/means", "prior/raw_scales")} == {
        "prior/means": [1],
        "prior/raw_scales": [1],
    }
    assert set(changed) <= {"prior/means", "prior/raw_scales", "prior/logits"}
    np.testing.assert_allclose(scales[1], scales[other], rtol=1e-6)
    assert np.linalg.norm((means[1] - means[other]) / scales[other]) == pytest.approx(1, rel=1e-4)
    weights = model.prior.mixing_weights.numpy()
    assert weights[1] == pytest.approx(weights[other], rel=1e-6)


def test_training_shares_decide_not_those_of_validation(make_model, windows):
    model = make_model(num_components=2)
    model.adapt(windows, verbose=0)
    shares = np.mean(model.prior.responsibilities(model.encode(windows)), axis=0)
    assert (shares > 0.2).all()
    means = model.prior.means.numpy()
    # All of the validation windows are of one component.
    of_one = windows[np.argmax(model.prior.responsibilities(model.encode(windows)), axis=1) == 0]
    model.compile(keras.optimizers.SGD(0.0))
    history = model.fit(windows, validation_data=of_one, epochs=2, verbose=0).history
    assert history["num_live_components"] == [2, 2] and history["val_num_live_components"] == [1, 1]
    np.testing.assert_array_equal(model.prior.means, means)


class EndOfEpoch(keras.callbacks.Callback):
    """Notes the error on held-out windows at the end of each epoch, then calls a function."""

    def __init__(self, held_out, change=None):
        super().__init__()
        self.held_out, self.change, self.errors = held_out, change, []

    def on_epoch_end(self, epoch, logs=None):
        self.errors.append(rmse_db(self.model, self.held_out))
        if self.change:
            self.change(self.model)


def rmse_db(model, held_out):
    return float(model.evaluate(held_out, verbose=0, return_dict=True)["rmse_db"])


@pytest.fixture(scope="module")
def averaging(windows):
    """A model with the default optimizer at a rate at which its average is far from the last weights."""
    model = SpectroVAE((32, 32, 1), latent_dim=4, num_components=3, decoder_depth=2, width=8, seed=0)
    model.compile(default_optimizer(0.02))
    model.fit(windows[:32], batch_size=8, epochs=5, verbose=0)
    return model


@pytest.mark.parametrize(("patience", "given"), [(0, "before"), (100, "between"), (0, "after")])
def test_what_is_kept_is_what_was_validated(averaging, windows, tmp_path, patience, given):
    model, held_out = averaging, windows[32:]
    own = [ReviveComponents(), keras.callbacks.SwapEMAWeights()]
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)
    stopping = keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True, start_from_epoch=1)
    end = EndOfEpoch(held_out)
    callbacks = {
        "before": [*own, checkpoint, stopping, end],
        "between": [checkpoint, *own, stopping, end],
        "after": [checkpoint, stopping, end, *own],
    }[given]
    history = model.fit(
        windows[:32], batch_size=8, epochs=6, validation_data=held_out, callbacks=callbacks, verbose=0
    ).history
    np.testing.assert_allclose(end.errors, history["val_rmse_db"], rtol=1e-5)
    restored = history["val_rmse_db"][1 + int(np.argmin(history["val_loss"][1:]))]
    assert rmse_db(model, held_out) == pytest.approx(restored, rel=1e-5)
    saved = history["val_rmse_db"][int(np.argmin(history["val_loss"]))]
    assert rmse_db(keras.saving.load_model(tmp_path / "best.keras"), held_out) == pytest.approx(saved, rel=1e-5)
    slots = [slot.numpy() for slot in model.optimizer.variables if slot.path.endswith("_average")]
    for weight, average in zip(model.trainable_variables, slots, strict=True):
        np.testing.assert_array_equal(weight, average)  # a further `fit` begins with what was restored


def test_weights_that_a_callback_sets_stay(averaging, windows):
    def set_first(model):
        model.prior.means.assign(np.concatenate([np.full((1, 4), 3.0), model.prior.means.numpy()[1:]]))

    averaging.optimizer.learning_rate.learning_rate = 0.0
    averaging.fit(windows, epochs=1, callbacks=[EndOfEpoch(windows, set_first)], verbose=0)
    np.testing.assert_array_equal(averaging.prior.means.numpy()[0], np.full(4, 3.0))


def test_resuming_with_backup_and_restore_goes_on_with_the_trained_weights(averaging, windows, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
    assert with_own_callbacks([backup, EndOfEpoch(windows)], averaging.optimizer)[-1] is backup


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_averages_are_given_and_taken_back(policy, make_model):
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy("float32")
    assert keeps_average(model.optimizer)
    trained = [weight.numpy() for weight in model.trainable_variables]
    averages = [slot for slot in model.optimizer.variables if slot.path.endswith("_average")]
    for average, old in zip(averages, trained, strict=True):
        average.assign(old + 1)
    with averaged_weights(model):  # there has been no step yet, and so there is nothing to average
        np.testing.assert_array_equal(model.trainable_variables[0], trained[0])
    model.optimizer.iterations.assign(1)
    with averaged_weights(model):
        for weight, old in zip(model.trainable_variables, trained, strict=True):
            np.testing.assert_allclose(weight, old + 1, rtol=1e-6)
        model.prior.means.assign(model.prior.means + 5)
    for weight, old in zip(model.trainable_variables, trained, strict=True):
        expected = old + 6 if weight is model.prior.means else old
        np.testing.assert_allclose(weight, expected, rtol=1e-6)
    assert not keeps_average(keras.optimizers.Adam()) and not keeps_average(None)
