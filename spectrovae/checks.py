"""What arguments must be."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

SAMPLE_RATES = range(100, 10_000_001)
"""Sample rates in Hz that waveforms may have."""


def check_positive_int(name: str, value: int) -> int:
    """Return `value` as an int.

    Args:
        name: Name of the argument, for the message.
        value: The argument.

    Raises:
        ValueError: If `value` is not an integer of 1 or more.

    Example:
        >>> check_positive_int("n_fft", np.int64(1024))
        1024
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be an integer of 1 or more. Received: {name}={value!r}")
    return int(value)


def check_count(name: str, value: int) -> int:
    """Return `value`, or raise a ValueError if it is not an integer of 0 or more.

    Example:
        >>> check_count("bank_size", 0)
        0
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"`{name}` must be an integer, 0 or more. Received: {name}={value!r}")
    return value


_MAX_NUM_WEIGHTS = 2**28

_LARGEST = {
    "latent_dim": 16_384,
    "latent_steps": 16_384,
    "num_components": 16_384,
    "width": 16_384,
    "decoder_depth": 24,
    "num_kl_samples": 1_024,
    "n_fft": 2**18,
    "hop_length": 2**18,
    "num_frames": 2**18,
    "num_iterations": 10_000,
}


def check_size(name: str, value: int) -> int:
    """Return a size of a model or a converter as an int; a ValueError says so if it is not from 1 to a sensible limit.

    A model that was saved by somebody else may claim any size: this is asked before any weight is made.

    Example:
        >>> check_size("latent_dim", 100)
        100
    """
    if check_positive_int(name, value) > _LARGEST[name]:
        raise ValueError(f"`{name}` must be at most {_LARGEST[name]:,}. Received: {name}={value!r}")
    return int(value)


def check_num_weights(part: str, num_weights: int) -> None:
    """Raise a ValueError if a part of a model would have more weights than 2 ** 28, which take 1 GB.

    Example:
        >>> check_num_weights("decoder", 12_000_000)
    """
    if num_weights > _MAX_NUM_WEIGHTS:
        raise ValueError(
            f"The {part} would have {num_weights:,} weights, and the limit is {_MAX_NUM_WEIGHTS:,}. Choose smaller "
            "sizes, such as latent_dim=100, num_components=8 and width=512."
        )


def check_sample_rate(name: str, value: int) -> int:
    """Return `value` as an int; a ValueError says so if it is not among `SAMPLE_RATES`."""
    if check_positive_int(name, value) not in SAMPLE_RATES:
        raise ValueError(
            f"`{name}` must be in Hz, from {SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]}. Received: {name}={value!r}"
        )
    return int(value)


def check_seed(name: str, value: int | None, num_bits: int = 62) -> int | None:
    """Return a seed as an int or None; a ValueError says so if it is negative, or has more bits than are used.

    Draws use 62 bits. Models use 32, as scikit-learn's generators do.

    Example:
        >>> check_seed("seed", 7), check_seed("seed", None)
        (7, None)
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0 or value >> num_bits:
        raise ValueError(
            f"`{name}` must be None or an integer from 0 to 2 ** {num_bits} - 1. Received: {name}={value!r}"
        )
    return int(value)


def check_index(name: str, value: int | str | None, size: int, names: Sequence[str] | None = None) -> int | None:
    """Return an index, or that of a name, as an int; a ValueError says so if there is none such. None stays None.

    Example:
        >>> check_index("component", np.int64(1), 2), check_index("component", "drums", 2, ("strings", "drums"))
        (1, 1)
    """
    if value is None:
        return None
    if isinstance(value, str):
        known = list(names or ())
        if value not in known:
            choices = f"or one of the names {known}" if known else f"from 0 to {size - 1}; there are no names"
            raise ValueError(f"`{name}` must be an index {choices}. Received: {name}={value!r}")
        return known.index(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= value < size:
        raise ValueError(f"`{name}` must be None or an integer from 0 to {size - 1}. Received: {name}={value!r}")
    return int(value)


def check_factor(name: str, value: float) -> None:
    """Raise a ValueError unless this is a finite number of 0 or more.

    Example:
        >>> check_factor("temperature", 0.8)
    """
    if not (isinstance(value, numbers.Real) and 0 <= value < np.inf):
        raise ValueError(f"`{name}` must be a finite number of 0 or more. Received: {name}={value!r}")


def check_finite(results: ArrayLike, name: str = "", inputs: ArrayLike = 0.0) -> None:
    """Raise a ValueError if results are not finite, and say whether the inputs or the model's weights are to blame.

    Args:
        results: What a model has made of the inputs.
        name: What the inputs are, for the message.
        inputs: The inputs; they are looked at only if a result is not finite.

    Example:
        >>> check_finite([0.5, 1.0], "windows", [[0.0, 0.1], [0.3, 0.2]])
    """
    if np.isfinite(results).all():
        return
    if not np.isfinite(inputs).all():
        raise ValueError(f"The {name} hold NaN or infinite values. Leave them out, or replace them by finite ones.")
    raise ValueError(
        "The model's result is not finite, since its weights hold NaN or infinite values, as after a training that "
        "diverged. Load an earlier checkpoint, or train it anew with a lower learning rate."
    )


def check_waveform(name: str, value: ArrayLike, batch: bool = False) -> np.ndarray:
    """Return a waveform as finite float32 with full scale at 1.

    Args:
        name: Name of the argument, for the message.
        value: Shape `(samples,)`; floats with full scale at 1, or integer PCM of 8 to 32 bits, which is
            divided by its full scale (unsigned PCM has its zero in the middle).
        batch: Whether `(batch, samples)` is fine as well.

    Raises:
        ValueError: If `value` is empty, not finite, not audio or has another shape.

    Example:
        >>> check_waveform("waveform", np.array([0, 16384, -32768], np.int16))
        array([ 0. ,  0.5, -1. ], dtype=float32)
    """
    audio = np.asarray(value)
    if audio.ndim != 1 and not (batch and audio.ndim == 2):
        shapes = "(samples,) or (batch, samples)" if batch else "(samples,)"
        raise ValueError(f"`{name}` must have the shape {shapes}. Received: {name}.shape={audio.shape}")
    if audio.size == 0:
        raise ValueError(f"`{name}` is empty. Received: {name}.shape={audio.shape}")
    if np.issubdtype(audio.dtype, np.integer) and audio.dtype.itemsize <= 4:
        full_scale = 2.0 ** (8 * audio.dtype.itemsize - 1)
        offset = full_scale if audio.dtype.kind == "u" else 0.0
        return ((audio - offset) / full_scale).astype(np.float32)
    if not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(
            f"`{name}` must be floats with full scale at 1, or integer PCM of 8 to 32 bits. "
            f"Received: {name}.dtype={audio.dtype}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        audio = audio.astype(np.float32, copy=False)
    if not np.isfinite(audio).all():
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinite samples")
    return audio


def check_window_values(windows: ArrayLike) -> None:
    """Raise a ValueError unless these are numbers from 0 to 1, as converters make them.

    Example:
        >>> check_window_values(np.zeros((2, 4, 4, 1)))
    """
    values = np.asarray(windows)
    if not values.size:
        raise ValueError(f"`windows` is empty: expected at least one window. Received: windows.shape={values.shape}")
    least, largest = float(values.min()), float(values.max())
    if not np.isfinite((least, largest)).all():
        raise ValueError(
            "Windows hold NaN or infinite values. Replace them, or leave these windows out. Received: values from "
            f"{least:g} to {largest:g}"
        )
    if not (least > -1e-4 and largest < 1 + 1e-4):
        raise ValueError(
            "Windows must have values from 0 to 1, as SpectrogramConverter.to_spectrogram makes them: scale "
            f"others to that range. Received: values from {least:g} to {largest:g}"
        )


def check_names(name: str, value: Sequence[str], count: int) -> tuple[str, ...]:
    """Return so many names that differ, as a tuple, or raise a ValueError.

    Example:
        >>> check_names("component_names", ["strings", "drums"], count=2)
        ('strings', 'drums')
    """
    is_list = not isinstance(value, str) and all(isinstance(each, str) and each for each in value)
    if not is_list or not len(set(value)) == len(value) == count:
        raise ValueError(f"`{name}` must be None or {count} names that differ. Received: {name}={value!r}")
    return tuple(value)
