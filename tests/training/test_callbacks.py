import logging

import keras
import numpy as np
import pytest

from spectrovae.training.callbacks import KLWarmup, ReviveComponents


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


def test_weight_stays_where_the_training_stopped(make_model, windows):
    model = make_model()
    model.fit(windows, epochs=1, callbacks=[KLWarmup(4, initial_weight=0.2)], verbose=0)
    assert float(model.kl_weight) == pytest.approx(0.4)


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


@pytest.mark.parametrize("learn_weights", [False, True])
@pytest.mark.parametrize("use_ema", [False, True])
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
    assert model.diagnose(windows).num_live_components == 3


def test_only_the_dead_component_is_changed(make_model, windows):
    model = make_model(num_components=3, learn_weights=True)
    model.adapt(windows, verbose=0)
    kill(model)
    model.compile(keras.optimizers.SGD(0.0))
    before = [weight.numpy() for weight in model.weights]
    model.fit(windows, verbose=0)
    means, scales = model.prior.means.numpy(), model.prior.scales.numpy()
    changed = {
        weight.path: np.unique(np.nonzero(old != weight.numpy())[0]).tolist()
        for weight, old in zip(model.weights, before, strict=True)
        if weight.dtype == "float32" and (old != weight.numpy()).any()
    }
    other = next(k for k in (0, 2) if k in changed["prior/logits"])
    expected = {"prior/means": [1], "prior/raw_scales": [1], "prior/logits": sorted([1, other])}
    assert changed == expected
    np.testing.assert_allclose(scales[1], scales[other])
    assert np.linalg.norm((means[1] - means[other]) / scales[other]) == pytest.approx(1, rel=1e-4)
    assert model.prior.mixing_weights[1] == model.prior.mixing_weights[other]


def test_revival_can_be_declined(make_model, windows):
    model = make_model(num_components=3)
    model.adapt(windows, verbose=0)
    kill(model)
    model.compile(keras.optimizers.Adam(1e-4))
    history = model.fit(windows, epochs=2, callbacks=[ReviveComponents(live_share=0)], verbose=0).history
    assert history["num_live_components"] == [2, 2]


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
