"""The arguments of `compile`, `fit` and `evaluate`, in the forms and the order that Keras users know."""

import inspect
from collections.abc import Callable, Generator, Iterator
from typing import Any

import keras
import numpy as np

from spectrovae.checks import check_positive_int
from spectrovae.training.optimizer import default_optimizer

_FLOATS = ("float16", "bfloat16", "float32", "float64")

_FORMS = (
    "Pass one array of shape (num_windows, bins, frames, 1), a dataset of batches of windows, or a generator of them"
)


def compile_arguments(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return the arguments of `keras.Model.compile` for a model with a loss of its own.

    Raises:
        ValueError: If there is a loss, or `steps_per_execution` is not a positive integer.

    Example:
        >>> compile_arguments("sgd", metrics=["mae"])["metrics"]
        ['mae']
    """
    given = _bind(keras.Model.compile, {"optimizer": None, "jit_compile": False}, args, kwargs)
    for name in ("loss", "loss_weights"):
        if given[name] is not None:
            raise ValueError(
                "SpectroVAE brings its own loss, minus the evidence lower bound, whose KL term KLWarmup can weigh. "
                f"Leave it out. Received: {name}={given[name]!r}"
            )
    check_positive_int("steps_per_execution", given["steps_per_execution"])
    return given | {"optimizer": given["optimizer"] or default_optimizer()}


def fit_arguments(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return the arguments of `keras.Model.fit`, with windows as an array of floats, a dataset or a generator.

    Raises:
        ValueError: If there is `class_weight`, or data that `unpack_inputs` refuses.

    Example:
        >>> given = fit_arguments((np.zeros((2, 8, 8, 1), np.uint8), None), None, 8)
        >>> given["x"].dtype, given["batch_size"], given["shuffle"]
        (dtype('float32'), 8, True)
    """
    given = _bind(keras.Model.fit, {"shuffle": None}, args, kwargs)
    if given["class_weight"] is not None:
        raise ValueError(
            "There are no classes to weigh. Use `sample_weight`, a weight for each window. Received: "
            f"class_weight={given['class_weight']!r}"
        )
    if isinstance(given["validation_data"], (tuple, list, dict)):
        given["validation_data"] = keras.utils.pack_x_y_sample_weight(*unpack_inputs(given["validation_data"]))
    x, given["y"], given["sample_weight"] = unpack_inputs(given["x"], given["y"], given["sample_weight"])
    is_array = hasattr(x, "shape")
    if is_array and x.dtype not in _FLOATS and np.asarray(x).dtype.kind in "biu":  # Keras hands integers on as they are
        x = np.asarray(x, np.float32)
    return given | {"x": x, "shuffle": is_array if given["shuffle"] is None else given["shuffle"]}


def evaluate_arguments(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return the arguments of `keras.Model.evaluate`, with windows as `fit_arguments` gives them.

    Example:
        >>> evaluate_arguments({"windows": np.zeros((2, 8, 8, 1))}, verbose=0)["x"].shape
        (2, 8, 8, 1)
    """
    given = _bind(keras.Model.evaluate, {}, args, kwargs)
    given |= given.pop("kwargs", {})
    given["x"], given["y"], given["sample_weight"] = unpack_inputs(given["x"], given["y"], given["sample_weight"])
    return given


def _bind(method: Callable, defaults: dict[str, Any], args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return all arguments of a method by name."""
    bound = inspect.signature(method).bind(None, *args, **kwargs)
    given = defaults | bound.arguments
    bound.apply_defaults()
    return {name: value for name, value in (bound.arguments | given).items() if name != "self"}


def unpack_inputs(x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any, Any]:
    """Return windows, targets and sample weights, where they come in one argument or without what Keras needs.

    Args:
        x: Windows; a tuple `(windows, targets)` or `(windows, targets, sample_weight)`; a list of single windows; a
            dictionary or list of one array. Datasets and generators are returned as they are.
        y: Targets, or None. The model does not use them.
        sample_weight: Shape `(num_windows,)`, or None for equal weights. Keras takes weights only beside targets: where
            there are none, zeros are returned for them.

    Raises:
        ValueError: If it is not clear which of several arrays holds the windows, or if weights are negative, not
            finite, or all zero.

    Example:
        >>> windows, targets, weights = unpack_inputs(np.zeros((2, 8, 8, 1)), sample_weight=[1, 3])
        >>> targets, weights
        (array([0., 0.], dtype=float32), array([1., 3.], dtype=float32))
    """
    if x is None:
        raise ValueError(f"There are no windows. {_FORMS}. Received: x=None")
    if isinstance(x, dict):
        if len(x) != 1:
            raise ValueError(f"The model has one input, the windows. {_FORMS}. Received: a dict of {list(x)}")
        (x,) = x.values()
    if isinstance(x, (tuple, list)):
        x, y, sample_weight = _unpack_sequence(x, y, sample_weight)
    if sample_weight is not None:
        sample_weight = _check_weights(sample_weight)
        y = np.zeros(len(sample_weight), np.float32) if y is None else y
    return x, y, sample_weight


def _unpack_sequence(x: tuple | list, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    num_dims = [np.ndim(part) for part in x]
    if num_dims and set(num_dims) == {3} and len({np.shape(part) for part in x}) == 1:  # single windows
        return np.stack(x), y, sample_weight
    if num_dims == [4]:
        return x[0], y, sample_weight
    is_pair = len(x) in (2, 3) and num_dims[0] == 4 and y is None and sample_weight is None
    if is_pair and isinstance(x, tuple):
        return x[0], x[1], x[2] if len(x) == 3 else None
    shapes = ", ".join(str(np.shape(part)) for part in x[:3]) + (", ..." if len(x) > 3 else "")
    raise ValueError(
        f"{_FORMS}. Lists of batches become one array with np.concatenate, lists of windows with np.stack. Received: a "
        f"{type(x).__name__} of {len(x)} with the shapes {shapes}"
    )


def _check_weights(sample_weight: Any) -> np.ndarray:
    weights = np.asarray(sample_weight, np.float32)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError(
            "`sample_weight` must be finite, 0 or more, and not 0 for all windows. Received: weights from "
            f"{weights.min(initial=np.inf):g} to {weights.max(initial=-np.inf):g}"
        )
    return weights


def read_ahead(batches: Iterator[Any], num_windows: int) -> tuple[list[Any], Generator[tuple, None, None]]:
    """Read the first batches of a generator.

    Args:
        batches: Yields windows, or tuples that begin with them.
        num_windows: How many windows to read at least, if there are so many.

    Returns:
        The first batches of windows, and a generator of all batches, these included, as tuples, as Keras needs them.

    Example:
        >>> windows, generator = read_ahead((np.zeros((2, 8, 8, 1)) for _ in range(5)), num_windows=3)
        >>> len(windows), len(list(generator))
        (2, 5)
    """
    first: list[tuple] = []
    num_read = 0
    for batch in batches:
        first.append(batch if isinstance(batch, tuple) else (batch,))
        num_read += len(first[-1][0])
        if num_read >= num_windows:
            break
    windows = [batch[0] for batch in first]

    def all_batches() -> Generator[tuple, None, None]:
        while first:
            yield first.pop(0)  # memory is free again
        for batch in batches:
            yield batch if isinstance(batch, tuple) else (batch,)

    return windows, all_batches()
