"""The variational autoencoder."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.audio.windows import iterate_batches, training_part
from spectrovae.checks import check_positive_int, check_seed, check_window_values
from spectrovae.evaluation.diagnosis import Diagnosis, diagnose
from spectrovae.model.distributions import posterior_distribution, stateless_seed
from spectrovae.model.likelihood import Likelihood, get_likelihood
from spectrovae.model.linear_start import WarmStart
from spectrovae.model.networks import Decoding, build_decoder, build_encoder, check_refine
from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.sequence_prior import SequencePrior
from spectrovae.model.texture import Texture
from spectrovae.pieces import Pieces
from spectrovae.training.callbacks import ReviveComponents
from spectrovae.training.distributed import (
    Distributed,
    draw_by_replica,
    pad_empty_batch,
    sync_nonfinite_gradients,
    global_mean,
)
from spectrovae.training.metrics import ComponentPerplexity, NumLiveComponents, RootMean
from spectrovae.training.optimizer import default_optimizer


class ComponentNames:
    """The part of `SpectroVAE` that keeps names for the components of its prior."""

    num_components: int

    @property
    def component_names(self) -> tuple[str, ...] | None:
        """Names that the user gave the prior's components, or None; saved with the model."""
        return self._component_names

    @component_names.setter
    def component_names(self, names: Sequence[str] | None) -> None:
        if names is not None:
            is_list = not isinstance(names, str) and all(isinstance(name, str) and name for name in names)
            if not is_list or not len(set(names)) == len(names) == self.num_components:
                raise ValueError(
                    f"`component_names` must be None or {self.num_components} names that differ, one for each "
                    f"component. Received: component_names={names!r}"
                )
            names = tuple(names)
        self._component_names = names

    def component_name(self, component: int) -> str:
        """Return what a component is called: the user's name for it, else `component` and its number."""
        return self.component_names[component] if self.component_names else f"component {component}"

    def component_index(self, component: int | str | None) -> int | None:
        """Return the index of a component that is given by its name; an index or None is returned as it is.

        Raises:
            ValueError: If no component has that name.
        """
        if not isinstance(component, str):
            return component
        names = list(self.component_names or ())
        if component not in names:
            raise ValueError(
                f"`component` must be an index or one of the names {names}, which are set with "
                f"model.component_names. Received: component={component!r}"
            )
        return names.index(component)


class LatentSpace(Decoding, ComponentNames):
    """The methods of `SpectroVAE` that use its parts and train nothing.

    They take arrays or datasets, work in batches so that memory stays bounded by the result, repeat with a
    seed, and return numpy arrays.
    """

    prior: GaussianMixturePrior
    texture: Texture
    seed_generator: keras.random.SeedGenerator
    posterior: str

    def encode(self, x: Any, sample: bool = False, seed: int | None = None, batch_size: int = 32) -> np.ndarray:
        """Return the codes of windows.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            sample: Whether to draw from the posterior q(z|x) instead of taking its mean.
            seed: Integer for a draw that repeats.
            batch_size: Number of windows at once, where `x` is an array.

        Returns:
            A float32 array of shape `(num_windows, latent_dim)`, or `(num_windows, latent_steps, latent_dim)` where
            there are several codes along a window.

        Raises:
            ValueError: If the windows do not have the model's `input_shape`, or there are none.
        """
        pair = stateless_seed(seed, self.seed_generator) if sample else None
        codes = []
        for index, windows in enumerate(iterate_batches(x, batch_size)):
            posterior = self.posterior_of(windows)
            codes.append(posterior.mean() if pair is None else posterior.sample(seed=pair + tf.constant([index, 0])))
        return np.concatenate([np.asarray(batch) for batch in codes])

    def decode(self, z: Any, batch_size: int = 32, texture: float = 0.0, seed: int | None = None) -> np.ndarray:
        """Return the windows that codes stand for: their means, and texture where it is asked for.

        Args:
            z: Codes of shape `(num_windows, latent_dim)` or a dataset of batches of them. Where there are several
                codes along a window, `(num_windows, num_steps, latent_dim)` with any number of steps.
            batch_size: Number of codes at once, where `z` is an array.
            texture: How much of the residual that the likelihood says is there to draw (see `Texture`): 0 gives the
                means, which have the least error, 1 sounds most like music. Only a likelihood with a scale for each
                pixel knows where the residual is; with others, and before `adapt`, the means are returned.
            seed: Integer for a texture that repeats.

        Returns:
            A float32 array of shape `(num_windows, bins, frames, 1)` with values in [0, 1], with as many frames as the
            codes stand for.

        Raises:
            ValueError: If the codes do not have the size `latent_dim`, there are none, or `texture` is negative.
        """
        if not texture >= 0:
            raise ValueError(f"`texture` must be 0 or more. Received: texture={texture!r}")
        rng = self._random_generator(seed) if texture else None
        windows = []
        for codes in iterate_batches(z, batch_size):
            if codes.shape[-1] != self.latent_dim or len(codes.shape) != 1 + len(self.code_shape):
                expected = ", ".join(map(str, ("num_windows", *self.code_shape)))
                raise ValueError(f"Codes must have the shape ({expected}). Received: {tuple(codes.shape)}")
            windows.append(self._windows_of(codes, texture, rng))
        return np.concatenate(windows)

    def _random_generator(self, seed: int | None) -> np.random.Generator:
        return np.random.default_rng(stateless_seed(seed, self.seed_generator).numpy())

    def _windows_of(self, codes: tf.Tensor, texture: float, rng: np.random.Generator | None) -> np.ndarray:
        windows, scales = self.decoded(codes, with_scales=rng is not None)
        if rng is not None and self.likelihood.per_pixel:
            windows += texture * scales * self.texture.sample(len(windows), rng, windows.shape[2])
        return np.clip(windows, 0.0, 1.0)

    def reconstruct(self, x: Any, batch_size: int = 32, texture: float = 0.0, seed: int | None = None) -> np.ndarray:
        """Return what the mean codes of windows decode to.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            batch_size: Number of windows at once, where `x` is an array.
            texture: How much residual to draw, as in `decode`.
            seed: Integer for a texture that repeats.

        Returns:
            A float32 array of the shape of all windows, with values in [0, 1].

        Raises:
            ValueError: If the windows do not have the model's `input_shape`, or there are none.
        """
        return self.decode(self.encode(x, batch_size=batch_size), batch_size, texture, seed)

    def generate(
        self,
        num_samples: int,
        component: int | str | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
        batch_size: int = 32,
        texture: float = 1.0,
        duration: float | None = None,
    ) -> np.ndarray:
        """Draw codes from the prior and decode them.

        Args:
            num_samples: Number of windows.
            component: Index or name of the mixture component to draw from, or None for the whole mixture.
            temperature: Factor on the prior's standard deviations: below 1 more typical, above 1 more daring.
            seed: Integer for draws that repeat.
            batch_size: Number of windows at once.
            texture: How much residual to draw, as in `decode`.
            duration: Length of each in seconds, where the model has several codes along a window; by default that of a
                window. With one code, `generate_audio` makes longer pieces.

        Returns:
            A float32 array of shape `(num_samples, bins, frames, 1)` with values in [0, 1].

        Raises:
            ValueError: If an argument is out of its range.
        """
        options: dict[str, Any] = {"component": self.component_index(component), "temperature": temperature}
        num_frames = self.converter.num_frames
        if duration is not None:
            num_frames = self.num_frames_of(duration)
            options["num_steps"] = self.num_steps_for(num_frames)
        codes = self.prior.sample(num_samples, seed=seed, **options)
        return self.decode(codes, batch_size, texture, seed)[:, :, :num_frames]

    def interpolate(
        self, start: Any, end: Any, num_steps: int = 8, texture: float = 1.0, seed: int | None = None
    ) -> np.ndarray:
        """Return windows on the straight way from one code to another.

        Args:
            start: A window of shape `(bins, frames, 1)` or a code of shape `code_shape`.
            end: The same for the other end.
            num_steps: Number of windows, both ends included, 2 or more.
            texture: How much residual to draw, as in `decode`.
            seed: Integer for a texture that repeats.

        Returns:
            A float32 array of shape `(num_steps, bins, frames, 1)` with values in [0, 1].

        Raises:
            ValueError: If an end is neither a window nor a code, or there are fewer than 2 steps.
        """
        if num_steps < 2:
            raise ValueError(f"`num_steps` must be 2 or more. Received: num_steps={num_steps!r}")
        codes = np.linspace(self._as_code(start), self._as_code(end), num_steps)
        return self.decode(codes, texture=texture, seed=seed)

    def posterior_of(self, windows: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """Return q(z|x) for one batch of windows as a TensorFlow Probability distribution."""
        self.check_windows(windows)
        parameters = self.encoder(windows, training=training)
        posterior = posterior_distribution(parameters, self.posterior, self.latent_dim)
        return posterior if self.latent_steps == 1 else tfd.Independent(posterior, 1)

    def check_windows(self, windows: Any) -> None:
        """Raise a ValueError unless this is a batch of windows of the model's shape."""
        expected = self.encoder.input_shape[1:]
        if len(windows.shape) != 4 or tuple(windows.shape[1:]) != expected:
            raise ValueError(
                f"The model takes windows of shape (num_windows, {', '.join(map(str, expected))}). "
                f"Received: shape {tuple(windows.shape)}. A single window needs a first axis of 1."
            )

    def mean_window(self, parameters: tf.Tensor) -> tf.Tensor:
        """Return the mean of p(x|z), clipped to the range of windows."""
        return tf.clip_by_value(self.likelihood.mean(parameters), 0.0, 1.0)

    def _as_code(self, end: Any) -> np.ndarray:
        array = np.asarray(end, np.float32)
        if array.shape == self.code_shape:
            return array
        if array.shape == self.encoder.input_shape[1:]:
            return self.encode(array[None])[0]
        raise ValueError(
            f"An end must be a window of shape {self.encoder.input_shape[1:]} or a code of shape "
            f"{self.code_shape}. Received: shape {array.shape}"
        )


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
        windows, sample_weight, num_windows = pad_empty_batch(windows, sample_weight)
        with tf.GradientTape() as tape:
            terms = self.compute_terms(windows, training=True)
            losses = terms["reconstruction_loss"] + self.kl_weight * terms["kl_loss"]
            loss = global_mean(losses, sample_weight, num_windows)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = sync_nonfinite_gradients(gradients)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._update_metrics(windows, terms, losses, sample_weight, num_windows)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Measure a batch like `train_step` does, with a KL weight of 1."""
        windows, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        windows, sample_weight, num_windows = pad_empty_batch(windows, sample_weight)
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


FORMAT_VERSION = 4
"""Version of the saved models that this library writes, and the newest that it reads."""


@keras.saving.register_keras_serializable(package="spectrovae")
class SpectroVAE(Objective, Pieces):
    """A variational autoencoder over spectrogram windows with a Gaussian-mixture prior.

    Kingma and Welling, "Auto-encoding variational Bayes" (ICLR 2014), with the trainable mixture prior of
    Jiang et al., "Variational deep embedding" (IJCAI 2017). Training minimises minus the evidence lower bound,

        loss = -log p(x|z) + kl_weight * KL(q(z|x) || p(z)),

    summed over pixels and latent dimensions, averaged over windows: nats per window. The entropy of q is exact;
    the expectation of log p(z) is a mean over `num_kl_samples` draws.

    `fit`, `evaluate`, `predict` (reconstructions), callbacks, `save` and `load_model` are Keras' own. The log
    shows `loss`, `reconstruction_loss` and `kl_loss` in nats per window, and `rmse_db`, the error of the
    reconstruction in dB: of the posterior mean in `val_rmse_db`, of a draw from the posterior in training.
    `val_loss` always has a KL weight of 1. Of the prior it shows `num_live_components` (those that make a tenth of an
    equal share of the codes or more), `component_perplexity` (how many components of equal share would be as
    varied) and `prior_cross_entropy`, -E log p(z) in nats. `fit` revives dead components (`ReviveComponents`).

    Args:
        input_shape: Shape of a window, `(bins, frames, 1)`.
        latent_dim: Size of the code.
        num_components: Number of Gaussians in the prior.
        decoder_depth: How often the decoder doubles its grid of frames, and the temporal encoder halves it.
        architecture: `"temporal"` (convolutions over time, frequencies as channels), `"dense_temporal"` (that of models
            saved in format 3 or before, with a linear weight for every pixel of averaged windows) or `"classic"`.
        posterior: `"diagonal"` or `"full"` covariance of q(z|x).
        likelihood: `"gaussian"`, `"heteroscedastic_gaussian"`, `"bernoulli"`, `"continuous_bernoulli"` or a
            `Likelihood` layer.
        converter: The `SpectrogramConverter` that made the windows; saved with the model. By default a new one
            of standard settings, with as many bins and frames as the windows have.
        width: Channels of the temporal decoder.
        num_kl_samples: Draws from the posterior for the KL term.
        learn_weights: Whether the prior's mixing weights are trained.
        latent_steps: Number of codes along a window, each of `latent_dim` numbers: 1, or a divisor of the steps that
            `decoder_depth` leaves, in the temporal architecture. With several the prior is a `SequencePrior`, which
            knows how sounds follow one another, and what is generated may have any length.
        refine: What the convolutions of the temporal decoder look at: `"steps"`, what the linear path has made of the
            code, or `"codes"`, the codes themselves. By default codes where there are several, of 32 frames or fewer.
        warm_start: Whether the first `fit` begins with `adapt`, the linear optimum of its data, where there is one:
            with a Gaussian likelihood, and not in `"classic"`. Where steps are refined, the linear paths are then not
            trained further: the optimizer would only shake them.
        seed: Integer that decides the initial weights and all draws that have no seed of their own.
        component_names: Names of the prior's components for `generate`, as `["strings", "drums"]`; can be set later.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError: If an argument is out of its range, or the converter's windows have another shape.

    Example:
        >>> model = SpectroVAE((64, 64, 1), latent_dim=4, num_components=2, decoder_depth=3, width=16, seed=0)
        >>> model.generate(5, seed=1).shape
        (5, 64, 64, 1)
    """

    def __init__(
        self,
        input_shape: tuple[int, ...] = (512, 512, 1),
        latent_dim: int = 100,
        num_components: int = 8,
        decoder_depth: int = 2,
        architecture: str = "temporal",
        posterior: str = "diagonal",
        likelihood: str | Likelihood = "heteroscedastic_gaussian",
        converter: SpectrogramConverter | None = None,
        *,
        width: int = 512,
        num_kl_samples: int = 1,
        learn_weights: bool = False,
        latent_steps: int = 1,
        refine: str | None = None,
        warm_start: bool = True,
        seed: int | None = None,
        component_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.latent_dim = check_positive_int("latent_dim", latent_dim)
        self.latent_steps = check_positive_int("latent_steps", latent_steps)
        self.num_components = num_components
        self.component_names = component_names
        self.decoder_depth = decoder_depth
        self.architecture = architecture
        self.posterior = posterior
        self.width = check_positive_int("width", width)
        self.num_kl_samples = check_positive_int("num_kl_samples", num_kl_samples)
        self.learn_weights = learn_weights
        self.warm_start = warm_start
        self.seed = check_seed("seed", seed)
        self.input_shape = tuple(input_shape)

        # Python's generator, since keras.utils.set_random_seed seeds it.
        network_seed = random.randrange(2**30) if seed is None else seed
        self.likelihood = get_likelihood(likelihood)
        self.encoder = build_encoder(
            self.input_shape, latent_dim, architecture, posterior, decoder_depth, network_seed, latent_steps
        )
        self.refine = check_refine(refine, self.latent_steps, self.input_shape[1])
        channels, decoder_seed = self.likelihood.num_channels, network_seed + 1000
        sizes = (decoder_depth, width, decoder_seed, latent_steps, self.refine)
        self.decoder = build_decoder(self.input_shape, latent_dim, channels, architecture, *sizes)
        self.converter = _fitting_converter(converter, self.input_shape)
        if self.can_adapt:
            for layer in (self.encoder.get_layer("linear_mean"), self.decoder.get_layer("linear_window")):
                layer.trainable = self.refine == "codes" or not warm_start
        prior = GaussianMixturePrior if latent_steps == 1 else SequencePrior
        self.prior = prior(num_components, learn_weights, seed=seed, name="prior")
        self.prior.build((None, *self.code_shape))
        window = self.converter
        self.texture = Texture(window.n_fft, window.hop_length, window.num_frames, window.scale, name="texture")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.kl_weight = self.add_weight(shape=(), initializer="ones", trainable=False, name="kl_weight")
        self.num_adapted_windows = self.add_weight(
            shape=(), initializer="zeros", trainable=False, dtype="int32", name="num_adapted_windows"
        )
        self.create_trackers()
        # Every weight exists by now: without this Keras would save and reload the model as an unbuilt one.
        self.built = True

    @classmethod
    def classic(cls, **kwargs: Any) -> "SpectroVAE":
        """Build the reference model that this library began as.

        Two-dimensional convolutions, 100 latent dimensions with full covariance, 2 mixture components of
        fixed weight, Bernoulli pixels, 3 draws for the KL term. Train it with Adam at 5e-4, as its author did.

        Args:
            **kwargs: Arguments of `SpectroVAE` that shall differ.
        """
        settings: dict[str, Any] = {
            "latent_dim": 100,
            "num_components": 2,
            "decoder_depth": 6,
            "architecture": "classic",
            "posterior": "full",
            "likelihood": "bernoulli",
            "num_kl_samples": 3,
            "warm_start": False,
        }
        if "input_shape" not in kwargs:
            settings["converter"] = SpectrogramConverter.classic()
        return cls(**settings | kwargs)

    def call(self, windows: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the reconstruction of windows from their mean codes, in [0, 1]."""
        codes = self.posterior_of(windows, training).mean()
        return self.mean_window(self.decoder(codes, training=training))

    def diagnose(self, x: Any, training: Any = None, num_generated: int = 16, batch_size: int = 32) -> Diagnosis:
        """Tell whether the model is healthy: reconstruction, use of code and prior, diversity, silence.

        The result repeats, and memory is bounded whatever the number of windows.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them: held-out ones, or
                the training windows themselves. At least 2; they are walked over once.
            training: Windows that the model was trained on, or a dataset of them. With them the reconstructions are
                compared with the mean spectrum of these and with PCA of `latent_dim` numbers, fitted to as many of them
                as `adapt` uses; without them with the mean spectrum of `x` only.
            num_generated: Number of windows to generate, at least 2.
            batch_size: Number of windows at once, where windows are in an array.

        Returns:
            The figures; `print` shows them in plain words, with advice.

        Raises:
            ValueError: If there are fewer than two windows, or they do not have the model's shape.

        Example:
            >>> windows = np.random.default_rng(0).random((8, 32, 32, 1), np.float32)
            >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
            >>> model.adapt(windows, verbose=0)
            >>> model.diagnose(windows, training=windows).num_active_dims
            2
        """
        return diagnose(self, x, training, num_generated, batch_size)

    def get_config(self) -> dict:
        """Return the arguments of the model."""
        return super().get_config() | {
            "format_version": FORMAT_VERSION,
            "input_shape": self.input_shape,
            "latent_dim": self.latent_dim,
            "num_components": self.num_components,
            "decoder_depth": self.decoder_depth,
            "architecture": self.architecture,
            "posterior": self.posterior,
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "converter": keras.saving.serialize_keras_object(self.converter),
            "width": self.width,
            "num_kl_samples": self.num_kl_samples,
            "learn_weights": self.learn_weights,
            "latent_steps": self.latent_steps,
            "refine": self.refine,
            "warm_start": self.warm_start,
            "seed": self.seed,
            "component_names": None if self.component_names is None else list(self.component_names),
        }

    @classmethod
    def from_config(cls, config: dict) -> "SpectroVAE":
        """Build a model from what `get_config` returned; of a newer version a ValueError says so."""
        config = dict(config)
        version = config.pop("format_version", 1)
        if version > FORMAT_VERSION:
            raise ValueError(
                f"The model was saved by a newer spectrovae, in format {version}; this one reads formats up to "
                f"{FORMAT_VERSION}. Upgrade it: pip install --upgrade spectrovae"
            )
        config |= {"refine": "steps"} if version < 3 else {}
        config |= {"architecture": "dense_temporal"} if version < 4 and config["architecture"] == "temporal" else {}
        nested = ("likelihood", "converter")
        return cls(**config | {key: keras.saving.deserialize_keras_object(config[key]) for key in nested})


def _fitting_converter(converter: SpectrogramConverter | None, input_shape: tuple[int, ...]) -> SpectrogramConverter:
    if converter is None:
        bins, frames, _ = input_shape
        return SpectrogramConverter(n_fft=2 * bins, hop_length=max(1, bins // 2), num_frames=frames)
    if converter.window_shape != input_shape:
        raise ValueError(
            f"The converter makes windows of shape {converter.window_shape}, the model takes {input_shape}. Give "
            f"the model input_shape=converter.window_shape. Received: converter={converter!r}"
        )
    return converter
