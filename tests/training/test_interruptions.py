import contextlib
import signal
import sys
import threading

import keras
import numpy as np
import pytest

from spectrovae.training.interruptions import kept_interruptions
from spectrovae.training.optimizer import default_optimizer


class Swallow(keras.callbacks.Callback):
    """Send a signal at a batch and lose what its handler raises, as Keras does while it reads the logs of a batch."""

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches == 2:
            with contextlib.suppress(KeyboardInterrupt, SystemExit):
                signal.raise_signal(self.number)


def test_keras_loses_an_interruption():
    class Value:
        def __float__(self):
            raise KeyboardInterrupt

    callbacks = keras.callbacks.CallbackList()
    callbacks.on_train_batch_end(0, {"loss": Value()})  # the reason for all of this


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["ctrl-c", "sigterm"]
)
def test_a_lost_interruption_ends_training_at_the_next_batch(number, error, make_model, windows):
    before = [signal.signal(signal.SIGINT, signal.default_int_handler)]
    before.append(signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number)))
    handlers = [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM)]
    try:
        swallow = Swallow(number)
        with pytest.raises(error):
            make_model().fit(windows, batch_size=4, epochs=5, callbacks=[swallow], verbose=0)
        assert swallow.batches == 2
        assert [signal.getsignal(other) for other in (signal.SIGINT, signal.SIGTERM)] == handlers
    finally:
        for other, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(other, handler)


def test_other_threads_and_other_handlers_are_left_alone():
    def train():
        with kept_interruptions(None) as callbacks:
            kept.append(callbacks)

    kept = []
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert kept == [None]
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with kept_interruptions([]):
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_interrupted_validation_leaves_the_trained_weights(make_model, windows):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.trained = self.model.get_weights()

        def on_test_begin(self, logs=None):
            self.validated = self.model.get_weights()
            raise KeyboardInterrupt

    model = make_model()
    model.compile(default_optimizer())
    interrupt = Interrupt()
    with pytest.raises(KeyboardInterrupt):
        model.fit(windows, validation_data=windows, callbacks=[interrupt], verbose=0)
    pairs = zip(interrupt.trained, interrupt.validated, strict=True)
    assert any(not np.array_equal(*pair) for pair in pairs)  # the average is not what was trained
    for trained, left in zip(interrupt.trained, model.get_weights(), strict=True):
        np.testing.assert_array_equal(trained, left)
