"""The evidence lower bound, and the steps that raise it."""

import itertools
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from spectrovae.batching import iterate_batches, training_part
from spectrovae.callbacks import ReviveComponents
from spectrovae.checks import check_window_values
from spectrovae.converter import SpectrogramConverter
from spectrovae.distribution import Distributed, draw_by_replica, filled_up, finite_together, global_mean
from spectrovae.latent_space import LatentSpace
from spectrovae.metrics import ComponentPerplexity, NumLiveComponents, RootMean
from spectrovae.optimizer import default_optimizer
from spectrovae.seeds import stateless_seed
from spectrovae.warm_start import WarmStart


def with_own_callbacks(callbacks: Any, use_ema: bool) -> Any:
    """Return callbacks behind those that `fit` adds where there is none of their kind.

    One revives dead components of the prior; where the optimizer averages the weights, another has the average
    validated, since that is what the training ends with. They come first: what others save is what they leave.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = keras.tree.flatten(callbacks or [])
    own = [keras.callbacks.SwapEMAWeights, ReviveComponents] if use_ema else [ReviveComponents]
    missing = [kind() for kind in own if not any(isinstance(callback, kind) for callback in callbacks)]
    return missing + callbacks


_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Objective(LatentSpace, WarmStart, Distributed, keras.Model):
    """The part of `SpectroVAE` that trains: `compile`, `fit` and the steps that Keras calls."""

    converter: SpectrogramConverter
    warm_start: bool
    num_kl_samples: int
    kl_weight: keras.Variable

    def create_trackers(self) -> None:
        """Create the metrics that the log shows, and let draws differ between replicas."""
        draw_by_replica([self, *self.encoder.layers, *self.decoder.layers])
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction_loss")
        self.kl_tracker = keras.metrics.Mean(name="kl_loss")
        self.rmse_tracker = RootMean(name="rmse_db")
        num_components = self.prior.num_components
        self.live_tracker = NumLiveComponents(num_components, name="num_live_components")
        self.perplexity_tracker = ComponentPerplexity(num_components, name="component_perplexity")
        self.cross_entropy_tracker = keras.metrics.Mean(name="prior_cross_entropy")

    def compile(self, optimizer: Any = None, loss: None = None, jit_compile: bool = False, **kwargs: Any) -> None:
        """Configure training, as `keras.Model.compile` does.

        Args:
            optimizer: A Keras optimizer; by default that of `default_optimizer`, AdamW with a warm-up and averaged
                weights. Give one of your own a warm-up too (`LinearWarmup`).
            loss: None. The model brings its own.
            jit_compile: Whether to compile with XLA; measured to be slower on a CPU.
            **kwargs: Further arguments of `keras.Model.compile`, such as `metrics`, which compare a window with
                its reconstruction.

        Raises:
            ValueError: If there is a loss.
        """
        if loss is not None:
            raise ValueError(
                f"SpectroVAE brings its own loss, minus the evidence lower bound. Leave it out. Received: loss={loss!r}"
            )
        super().compile(optimizer=optimizer or default_optimizer(), jit_compile=jit_compile, **kwargs)
        # Slots made while the step is traced would have it traced a second time.
        self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config: dict) -> None:
        """Compile a loaded model."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, x: Any = None, *args: Any, shuffle: bool | None = None, **kwargs: Any) -> keras.callbacks.History:
        """Train, as `keras.Model.fit` does, after `adapt` where the model can be and has not been adapted.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them, with or without
                targets, which are not used. Keras takes sample weights only beside targets: give the windows twice.
            *args: Further arguments of `keras.Model.fit`.
            shuffle: Whether to shuffle an array before each epoch; by default yes. A dataset shuffles itself.
            **kwargs: Further arguments of `keras.Model.fit`.

        Returns:
            The history of losses and metrics by epoch.

        Raises:
            ValueError: If the model has not been compiled, there is no window, or they lack the model's shape and
                values in [0, 1]; of a dataset the first batch is looked at.
        """
        is_array = hasattr(x, "shape")
        self.check_data(x)
        if is_array and x.dtype not in _FLOATS:  # Keras would hand integers on as they are
            x = np.asarray(x, np.float32)
        if self.warm_start and self.can_adapt and not self.adapted and self.compiled:
            verbose = kwargs.get("verbose", "auto")
            windows = training_part(x, kwargs.get("validation_split", 0.0))
            self.adapt(windows, verbose=int(verbose in ("auto", 1)))
        if self.compiled:
            use_ema = getattr(self.optimizer, "use_ema", False)
            kwargs["callbacks"] = with_own_callbacks(kwargs.get("callbacks"), use_ema)
        return super().fit(x, *args, shuffle=is_array if shuffle is None else shuffle, **kwargs)

    def check_data(self, x: Any) -> None:
        """Raise a ValueError, before anything is trained, if windows cannot be trained on."""
        if hasattr(x, "__next__") or isinstance(x, tf.distribute.DistributedDataset):
            return  # what is taken from an iterator is gone, and a distributed batch is in several places
        batches = iterate_batches(x, batch_size=256)
        for batch in batches if hasattr(x, "shape") else itertools.islice(batches, 1):
            self.check_windows(batch)
            check_window_values(batch)

    def compute_terms(self, windows: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Return the named terms of minus the evidence lower bound for each window.

        Args:
            windows: Shape `(batch, bins, frames, 1)`.
            training: Whether the networks run in training mode.

        Returns:
            `reconstruction_loss`, `kl_loss` and `prior_cross_entropy` (-log p(z), a part of the KL term), shape
            `(batch,)`, in nats; `responsibilities` of the prior's components for a draw of each code, shape
            `(batch, num_components)`; `reconstruction`, the windows that `rmse_db` is measured on.
        """
        posterior = self.posterior_of(windows, training)
        seed = stateless_seed(None, self.seed_generator)
        codes = posterior.sample(self.num_kl_samples, seed=seed)  # (num_kl_samples, batch, latent_dim)
        parameters = self.decoder(codes[0], training=training)
        if not training:
            shown = self.decoder(posterior.mean(), training=False)
        cross_entropy = -tf.reduce_mean(self.prior.log_prob(codes), axis=0)
        return {
            "reconstruction_loss": -self.likelihood.log_prob(parameters, windows),
            "kl_loss": cross_entropy - posterior.entropy(),
            "prior_cross_entropy": cross_entropy,
            "responsibilities": self.prior.responsibilities(codes[0]),
            "reconstruction": self.mean_window(parameters if training else shown),
        }

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Take one gradient step on a batch `x`, `(x, y)` or `(x, y, sample_weight)`; targets are not used."""
        windows, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        windows, sample_weight, num_windows = filled_up(windows, sample_weight)
        with tf.GradientTape() as tape:
            terms = self.compute_terms(windows, training=True)
            losses = terms["reconstruction_loss"] + self.kl_weight * terms["kl_loss"]
            loss = global_mean(losses, sample_weight, num_windows)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = finite_together(gradients)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._update_metrics(windows, terms, losses, sample_weight, num_windows)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Measure a batch like `train_step` does, with a KL weight of 1."""
        windows, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        windows, sample_weight, num_windows = filled_up(windows, sample_weight)
        terms = self.compute_terms(windows, training=False)
        losses = terms["reconstruction_loss"] + terms["kl_loss"]
        return self._update_metrics(windows, terms, losses, sample_weight, num_windows)

    def _update_metrics(
        self,
        windows: tf.Tensor,
        terms: dict[str, tf.Tensor],
        losses: tf.Tensor,
        sample_weight: tf.Tensor | None,
        num_windows: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        self.loss_tracker.update_state(losses, sample_weight)
        self.reconstruction_tracker.update_state(terms["reconstruction_loss"], sample_weight)
        self.kl_tracker.update_state(terms["kl_loss"], sample_weight)
        self.cross_entropy_tracker.update_state(terms["prior_cross_entropy"], sample_weight)
        self.live_tracker.update_state(terms["responsibilities"], sample_weight)
        self.perplexity_tracker.update_state(terms["responsibilities"], sample_weight)
        errors = self._decibels(windows) - self._decibels(terms["reconstruction"])
        self.rmse_tracker.update_state(tf.reduce_mean(tf.square(errors), axis=(1, 2, 3)), sample_weight)
        given, reconstruction = windows[:num_windows], terms["reconstruction"][:num_windows]
        weights = None if sample_weight is None else sample_weight[:num_windows]
        return self.compute_metrics(given, given, reconstruction, weights)

    def _decibels(self, windows: tf.Tensor) -> tf.Tensor:
        if self.converter.scale == "decibel":
            return windows * self.converter.dynamic_range
        floor = 10 ** (-self.converter.dynamic_range / 20)
        return 20 / math.log(10) * tf.math.log(tf.maximum(windows, floor))
