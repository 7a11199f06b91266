"""Ctrl-C and SIGTERM, which Keras loses now and then."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras


class _RaiseAgain(keras.callbacks.Callback):
    """Raise what a signal handler has raised, if training still goes on."""

    async_safe = True  # Keras need not wait for it.

    def __init__(self, raised: list[BaseException]) -> None:
        super().__init__()
        self.raised = raised

    def on_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self.raised:
            raise self.raised[0]

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.on_batch_end(batch)


@contextlib.contextmanager
def kept_interruptions(callbacks: Any) -> Iterator[Any]:
    """Have a Ctrl-C, or a SIGTERM whose handler raises, end a training wherever it comes.

    Keras 3 makes the logs of each batch numbers under an `except:` that names no class, `pythonify_logs`. What a
    signal handler raises in there is lost: of Ctrl-C at random moments of a training in small steps, one in a hundred.

    Args:
        callbacks: What `fit` was given as `callbacks`.

    Yields:
        The callbacks to train with.

    Raises:
        BaseException: What the handler of the signal raised, such as KeyboardInterrupt.

    Example:
        >>> import signal
        >>> try:
        ...     with kept_interruptions([]), contextlib.suppress(KeyboardInterrupt):
        ...         signal.raise_signal(signal.SIGINT)
        ... except KeyboardInterrupt:
        ...     print("Interrupted.")
        Interrupted.
    """
    if threading.current_thread() is not threading.main_thread():  # No handler runs here.
        yield callbacks
        return
    raised: list[BaseException] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    keepers = {number: _keeper(handler, raised) for number, handler in handlers.items() if callable(handler)}
    for number, keeper in keepers.items():
        signal.signal(number, keeper)
    watch = _RaiseAgain(raised)
    try:
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(watch)
            yield callbacks
        else:
            yield [*keras.tree.flatten(callbacks or []), watch]
    finally:
        for number, keeper in keepers.items():
            if signal.getsignal(number) is keeper:
                signal.signal(number, handlers[number])
    if raised:
        raise raised[0]


def _keeper(
    handler: Callable[[int, FrameType | None], Any], raised: list[BaseException]
) -> Callable[[int, FrameType | None], Any]:
    """Return a handler that also keeps what the given one raises."""

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException as error:
            raised.append(error)
            raise

    return handle
