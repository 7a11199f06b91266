"""Where music goes in some seconds, as the recordings show it."""

from typing import Any

import keras
import numpy as np

from spectrovae.checks import check_positive_int

_SIZE = 1024  # pairs of half windows: 260 kB with codes of 32 numbers
_NUM_NEIGHBOURS = 4
_STAY = 0.9  # probability of a step to keep to its component: by nearness alone every other step would change it


@keras.saving.register_keras_serializable(package="spectrovae")
class Course(keras.layers.Layer):
    """How the mean of codes moves from one half of a window to the next, remembered as pairs.

    A walk goes from where it is to the second half of a window whose first half is near: one of the four nearest, drawn
    at random, so that it follows no recording for long. Assayag and Dubnov, "Using factor oracles for machine
    improvisation" (Soft Computing, 2004), do so with symbols.

    Args:
        latent_dim: Size of a code.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If `latent_dim` is no positive integer.

    Example:
        >>> course = Course(latent_dim=1)
        >>> course.fit(codes=np.array([[[0.0], [1.0]], [[1.0], [2.0]]]), components=np.array([0, 1]))
        >>> points, components = course.walk(np.array([[0.25]]), np.array([[0, 0, 1]]), np.random.default_rng(0))
        >>> points.ravel().tolist(), components.tolist()
        ([0.25, 1.0, 2.0], [[0, 1]])
    """

    def __init__(self, latent_dim: int, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False} | kwargs)
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.pairs = self.add_weight(shape=(_SIZE, 2, latent_dim), initializer="zeros", name="pairs")
        nothing = keras.initializers.Constant(-1)
        self.components = self.add_weight(shape=(_SIZE,), initializer=nothing, dtype="int32", name="components")
        self.built = True

    @property
    def is_known(self) -> bool:
        """Whether `fit` has been called, in this process or before the layer was saved."""
        return int(self.components[0]) >= 0

    def fit(self, codes: np.ndarray, components: np.ndarray, seed: int | None = None) -> None:
        """Remember the halves of windows, of 1,024 at most.

        Args:
            codes: Shape `(num_windows, num_steps, latent_dim)`.
            components: The component that each window belongs to, shape `(num_windows,)`.
            seed: Integer that makes the choice of windows repeat.
        """
        order = np.random.default_rng(seed).permutation(len(codes))[:_SIZE]
        half, num_missing = max(1, codes.shape[1] // 2), _SIZE - len(order)
        halves = codes[order, :half].mean(axis=1), codes[order, -half:].mean(axis=1)
        self.pairs.assign(np.pad(np.stack(halves, axis=1), ((0, num_missing), (0, 0), (0, 0))))
        self.components.assign(np.pad(components[order], (0, num_missing), constant_values=-1))

    def walk(
        self, starts: np.ndarray, components: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Walk on from given means.

        Args:
            starts: Shape `(num_walks, latent_dim)`.
            components: The component of the start and those that the steps shall be in, `(num_walks, 1 + num_steps)`;
                -1 for a step that may go anywhere, which one in ten does.
            rng: Draws the steps.

        Returns:
            The points, the start among them, `(num_walks, 1 + num_steps, latent_dim)`, and the component of each step,
            `(num_walks, num_steps)`. A component that no window belongs to is left out: then any will do.
        """
        is_known = self.components.numpy() >= 0
        pairs, owners = self.pairs.numpy()[is_known], self.components.numpy()[is_known]
        points, chosen = [np.asarray(starts, np.float32)], [components[:, 0]]
        for wanted in components.T[1:]:
            stays = (wanted < 0) & (rng.random(len(wanted)) < _STAY)
            wanted = np.where(stays, chosen[-1], wanted)
            fits = (owners == wanted[:, None]) | (wanted[:, None] < 0)  # (num_walks, num_pairs)
            fits |= ~fits.any(axis=1, keepdims=True)
            squares = np.square(points[-1][:, None] - pairs[:, 0]).sum(axis=-1)
            order = np.argsort(np.where(fits, squares, np.inf), axis=1)
            num_near = np.minimum(fits.sum(axis=1), _NUM_NEIGHBOURS)
            nearest = order[np.arange(len(order)), rng.integers(num_near)]
            points.append(pairs[nearest, 1])
            chosen.append(np.where(wanted < 0, owners[nearest], wanted))
        return np.stack(points, axis=1), np.stack(chosen[1:], axis=1)

    def get_config(self) -> dict:
        """Return the arguments of the layer."""
        return super().get_config() | {"latent_dim": self.latent_dim}
