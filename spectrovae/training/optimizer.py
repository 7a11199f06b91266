"""The default optimizer, one for what is fitted beside a training, and averages of weights."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from spectrovae.checks import check_positive_int


@keras.saving.register_keras_serializable(package="spectrovae")
class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises in equal steps and then stays.

    The first steps of Adam move every weight by the whole learning rate, whatever its gradient. In a layer that
    starts at zero these moves add up: without a warm-up the first step took the reconstruction after `adapt` from
    4.5 to 9.5 dB on a short recording.

    Args:
        learning_rate: What it rises to, above 0.
        num_steps: Gradient steps until it is there.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> schedule = LinearWarmup(1e-3, num_steps=4)
        >>> [round(float(schedule(step)), 5) for step in (0, 1, 3, 100)]
        [0.00025, 0.0005, 0.001, 0.001]
    """

    def __init__(self, learning_rate: float, num_steps: int = 100) -> None:
        super().__init__()
        if not learning_rate > 0:
            raise ValueError(f"`learning_rate` must be above 0. Received: learning_rate={learning_rate!r}")
        self.learning_rate = learning_rate
        self.num_steps = check_positive_int("num_steps", num_steps)

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Return the learning rate of a step, the first being 0."""
        progress = (tf.cast(step, tf.float32) + 1) / self.num_steps
        return self.learning_rate * tf.minimum(progress, 1.0)

    def get_config(self) -> dict:
        """Return the arguments of the schedule."""
        return {"learning_rate": self.learning_rate, "num_steps": self.num_steps}


def default_optimizer(learning_rate: float = 5e-4) -> keras.optimizers.Optimizer:
    """Return the optimizer that `SpectroVAE.compile` takes where none is given.

    AdamW with a warm-up of 100 steps, and an average of about the last 100 steps' weights, with which validation is
    measured and training ends.

    Args:
        learning_rate: What it rises to.

    Example:
        >>> default_optimizer(1e-4).use_ema
        True
    """
    return keras.optimizers.AdamW(LinearWarmup(learning_rate), use_ema=True, ema_momentum=0.99)


class ArrayAdam:
    """Adam whose moments are arrays, for weights that are fitted beside a training.

    Kingma and Ba, "Adam: a method for stochastic optimization" (ICLR 2015). The optimizers of Keras change the weights
    of a `tf.distribute` strategy within its replicas only.

    Args:
        variables: What to change.
        learning_rate: Size of a step.
        clipnorm: Gradients of a variable that are longer are shortened to this norm.

    Example:
        >>> weight = keras.Variable(3.0)
        >>> optimizer = ArrayAdam([weight], learning_rate=0.1)
        >>> optimizer.apply([2.0])
        >>> round(float(weight), 3)
        2.9
    """

    def __init__(self, variables: Sequence[keras.Variable], learning_rate: float, clipnorm: float = 5.0) -> None:
        self.variables = variables
        self.learning_rate = learning_rate
        self.clipnorm = clipnorm
        self._num_steps = 0
        self._moments = [(np.zeros(variable.shape), np.zeros(variable.shape)) for variable in variables]

    def apply(self, gradients: Iterable[tf.Tensor]) -> None:
        """Take a step."""
        self._num_steps += 1
        rate = self.learning_rate * np.sqrt(1 - 0.999**self._num_steps) / (1 - 0.9**self._num_steps)
        for index, (variable, gradient) in enumerate(zip(self.variables, map(np.asarray, gradients), strict=True)):
            gradient = gradient * min(1.0, self.clipnorm / max(float(np.linalg.norm(gradient)), 1e-12))
            mean, square = self._moments[index]
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * np.square(gradient)
            self._moments[index] = mean, square
            variable.assign(variable.numpy() - rate * mean / (np.sqrt(square) + 1e-7))


def keeps_average(optimizer: keras.optimizers.Optimizer | None) -> bool:
    """Return whether an optimizer keeps an average of the weights.

    Example:
        >>> keeps_average(default_optimizer())
        True
    """
    return getattr(getattr(optimizer, "inner_optimizer", optimizer), "use_ema", False)  # inner: with loss scaling


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give a model the optimizer's average of its weights in the `with` block, if there is one.

    What the block itself assigns to trainable weights stays.
    """
    if not keeps_average(model.optimizer) or model.optimizer.iterations.numpy() == 0:
        yield
        return
    weights = model.trainable_variables
    trained = [weight.numpy() for weight in weights]
    model.optimizer.finalize_variable_values(weights)
    average = [weight.numpy() for weight in weights]
    try:
        with reset_slots(model.optimizer, weights):
            yield
    finally:
        for weight, old, given in zip(weights, trained, average, strict=True):
            value = weight.numpy()
            weight.assign(np.where(value == given, old, value))


@contextlib.contextmanager
def reset_slots(optimizer: keras.optimizers.Optimizer | None, weights: Iterable[keras.Variable]) -> Iterator[None]:
    """Have an optimizer follow what the `with` block assigns to weights.

    Where a number was changed, its momentum becomes 0, and the optimizer's average of past weights, with which a
    training may end, becomes the new number: else both would drag it back.

    Args:
        optimizer: The optimizer, or None where there is none yet.
        weights: Weights that it trains.
    """
    before = [(weight, weight.numpy()) for weight in weights]
    yield
    slots = {slot.path.rpartition("/")[2]: slot for slot in optimizer.variables} if optimizer else {}
    for weight, old in before:
        new = weight.numpy()
        for kind, value in (("average", new), ("momentum", 0)):
            slot = slots.get(f"{weight.path.replace('/', '_')}_{kind}")
            if slot is not None and (new != old).any():
                slot.assign(np.where(new != old, value, slot.numpy()))
