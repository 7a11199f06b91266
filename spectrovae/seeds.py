"""Seeds for draws that repeat."""

import threading

import keras
import tensorflow as tf

from spectrovae.checks import check_seed

# Keras' generator reads its state and then counts on: between the two, another thread would get the same seed.
_DRAW = threading.Lock()


def stateless_seed(seed: int | None, generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Return the two-integer seed with which TensorFlow Probability draws the same numbers every time.

    Args:
        seed: An integer for a draw that repeats, or None for the next draw of `generator`, of which no two threads get
            the same.
        generator: The `keras.random.SeedGenerator` that is asked when there is no seed.

    Returns:
        An int32 tensor of shape `(2,)`.

    Raises:
        ValueError: If `seed` is a negative number or no integer.

    Example:
        >>> stateless_seed(3, keras.random.SeedGenerator(0)).numpy().tolist()
        [3, 0]
    """
    if seed is None:
        with _DRAW:
            return tf.cast(generator.next(), tf.int32)
    check_seed("seed", seed)
    return tf.constant([seed & 0x7FFFFFFF, seed >> 31 & 0x7FFFFFFF], tf.int32)
