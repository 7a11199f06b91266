"""Seeds for draws that repeat."""

import keras
import tensorflow as tf

from spectrovae.checks import check_seed


def stateless_seed(seed: int | None, generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Return the two-integer seed with which TensorFlow Probability draws the same numbers every time.

    Args:
        seed: An integer for a draw that repeats, or None for the next draw of `generator`.
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
        return tf.cast(generator.next(), tf.int32)
    check_seed("seed", seed)
    return tf.constant([seed & 0x7FFFFFFF, seed >> 31 & 0x7FFFFFFF], tf.int32)
