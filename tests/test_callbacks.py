import keras
import numpy as np
import pytest

from spectrovae.callbacks import KLWarmup


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
    with pytest.raises(ValueError, match="initial_weight=2"):
        KLWarmup(1, initial_weight=2)
    other = keras.Sequential([keras.layers.Dense(1)])
    other.compile(loss="mse")
    with pytest.raises(ValueError, match="needs a SpectroVAE"):
        other.fit(np.zeros((2, 1)), np.zeros((2, 1)), callbacks=[KLWarmup(1)], verbose=0)
