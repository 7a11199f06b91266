"""The variational autoencoder, on one page."""

import random
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.utils import unpack_x_y_sample_weight
from tensorflow_probability import distributions as tfd

from spectrovae.audio.spectrogram import SpectrogramConverter, fitting_converter
from spectrovae.audio.windows import check_codes, check_dataset, check_windows, iterate_batches, training_part
from spectrovae.checks import check_finite, check_index, check_names, check_seed, check_size
from spectrovae.model import linear_start, networks
from spectrovae.model.classic import CLASSIC_SETTINGS, build_classic_decoder, build_classic_encoder
from spectrovae.model.distributions import numpy_generator, posterior_distribution, stateless_seed
from spectrovae.model.dynamics import Dynamics
from spectrovae.model.exporting import export_saved_model
from spectrovae.model.likelihood import GaussianLikelihood, Likelihood, get_likelihood
from spectrovae.model.loading import check_config
from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.sequence_prior import SequencePrior
from spectrovae.model.texture import Texture, check_texture
from spectrovae.training import distributed
from spectrovae.training.arguments import compile_arguments, evaluate_arguments, fit_arguments, read_ahead
from spectrovae.training.callbacks import own_callbacks
from spectrovae.training.memory import keep_freed_memory
from spectrovae.training.metrics import bound_trackers, squared_error_db, update_trackers

FORMAT_VERSION = 1
"""Version of the saved models that this library writes, and the newest that it reads."""

_BUILDERS = {
    "temporal": (networks.build_encoder, networks.build_decoder),
    "classic": (build_classic_encoder, build_classic_decoder),
}
_NESTED = ("likelihood", "converter")  # arguments that are objects


@keras.saving.register_keras_serializable(package="spectrovae")
class SpectroVAE(distributed.DistributedModel):
    """A variational autoencoder over spectrogram windows with a Gaussian-mixture prior.

    Kingma and Welling, "Auto-encoding variational Bayes" (ICLR 2014), with the trainable mixture prior of
    Jiang et al., "Variational deep embedding" (IJCAI 2017). Training minimises minus the evidence lower bound,

        loss = -log p(x|z) + kl_weight * KL(q(z|x) || p(z)),

    summed over pixels and latent dimensions, averaged over windows: nats per window. The entropy of q is exact;
    the expectation of log p(z) is a mean over `num_kl_samples` draws. `val_loss` always has a KL weight of 1.

    The log shows the two terms as `reconstruction_loss` and `kl_loss`; `rmse_db`, the error of the reconstruction in dB
    (of the posterior mean in `val_rmse_db`, of a draw in training); and of the prior `num_live_components`,
    `component_perplexity` and `prior_cross_entropy`, -E log p(z) in nats.

    Methods that take windows or codes accept arrays or datasets, work in batches, and return NumPy arrays. They raise a
    ValueError if there is nothing in what they get, it has another shape, or an argument is out of its range.

    Args:
        input_shape: Shape of a window, `(bins, frames, 1)`.
        latent_dim: Size of a code.
        num_components: Number of Gaussians in the prior.
        decoder_depth: How often the decoder doubles its grid of frames, and the temporal encoder halves it.
        architecture: `"temporal"` (convolutions over time, frequencies as channels) or `"classic"`.
        posterior: `"diagonal"` or `"full"` covariance of q(z|x).
        likelihood: `"gaussian"`, `"heteroscedastic_gaussian"`, `"bernoulli"` or a `Likelihood` layer.
        converter: The `SpectrogramConverter` that made the windows; saved with the model. By default a new one
            of standard settings, with as many bins and frames as the windows have.
        width: Channels of the temporal decoder.
        num_kl_samples: Draws from the posterior for the KL term.
        learn_weights: Whether components are drawn as often as they are in the data; otherwise all are drawn alike.
        latent_steps: Number of codes along a window: a divisor of the steps that `decoder_depth` leaves, or 1 for one
            code that stands for the whole window. By default one for 16 frames (`default_latent_steps`). With several
            codes the prior is a `SequencePrior`, which knows how sounds follow one another.
        warm_start: Whether the first `fit` begins with `adapt` where the model has a linear optimum. With one code
            the linear paths are then not trained further: the optimizer would only shake them.
        bank_size: Number of windows whose residuals are kept, and saved, for the texture of what is generated
            (`Texture`): 17 MB for 128 windows of 512 by 512; 0 for texture of noise only.
        seed: Integer that decides the initial weights and all draws that have no seed of their own.
        component_names: Names of the prior's components, such as `["strings", "drums"]`; can be set later.
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
        latent_dim: int = 32,
        num_components: int = 8,
        decoder_depth: int = 2,
        architecture: str = "temporal",
        posterior: str = "diagonal",
        likelihood: str | Likelihood = "heteroscedastic_gaussian",
        converter: SpectrogramConverter | None = None,
        *,
        width: int = 256,
        num_kl_samples: int = 1,
        learn_weights: bool = True,
        latent_steps: int | None = None,
        warm_start: bool = True,
        bank_size: int = 128,
        seed: int | None = None,
        component_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if architecture not in _BUILDERS:
            raise ValueError(f"`architecture` must be one of {(*_BUILDERS,)}. Received: architecture={architecture!r}")
        self.input_shape = tuple(input_shape)
        networks.check_window_shape(self.input_shape)
        self.decoder_depth = check_size("decoder_depth", decoder_depth)
        if latent_steps is None:
            num_frames = self.input_shape[1] if architecture == "temporal" else 0
            latent_steps = networks.default_latent_steps(num_frames, decoder_depth)
        self.latent_dim = check_size("latent_dim", latent_dim)
        self.latent_steps = check_size("latent_steps", latent_steps)
        self.num_components = check_size("num_components", num_components)
        self.component_names = component_names
        self.architecture, self.posterior, self.width = architecture, posterior, check_size("width", width)
        self.num_kl_samples = check_size("num_kl_samples", num_kl_samples)
        self.learn_weights, self.warm_start, self.bank_size = learn_weights, warm_start, bank_size
        self.seed = check_seed("seed", seed, num_bits=32)

        # Python's generator, since keras.utils.set_random_seed seeds it.
        network_seed = random.randrange(2**30) if seed is None else seed
        grid = {"depth": decoder_depth, "latent_steps": latent_steps}
        encoder, decoder = _BUILDERS[architecture]
        self.likelihood = get_likelihood(likelihood)
        self.encoder = encoder(self.input_shape, latent_dim, posterior, seed=network_seed, **grid)
        grid |= {"width": width, "seed": network_seed + 1000}
        self.decoder = decoder(self.input_shape, latent_dim, self.likelihood.num_channels, **grid)
        if self.can_adapt and warm_start and latent_steps == 1:
            self.encoder.get_layer("linear_mean").trainable = False
            self.decoder.get_layer("linear_window").trainable = False
        self.converter = fitting_converter(converter, self.input_shape)
        prior = GaussianMixturePrior if latent_steps == 1 else SequencePrior
        self.prior = prior(num_components, learn_weights, seed=seed, name="prior")
        self.prior.build((None, *self.code_shape))
        self.dynamics = Dynamics(self.converter, name="dynamics")
        self.texture = Texture(self.converter, bank_size if self.likelihood.per_pixel else 0, name="texture")
        self.seed_generator = keras.random.SeedGenerator(seed)
        distributed.draw_by_replica([self, *self.encoder.layers, *self.decoder.layers])
        self.kl_weight = self.add_weight((), "ones", trainable=False, name="kl_weight")
        self.num_adapted_windows = self.add_weight((), "zeros", "int32", trainable=False, name="num_adapted_windows")
        self.trackers = bound_trackers(num_components)
        # Every weight exists by now: without this Keras would save and reload the model as an unbuilt one.
        self.built = True

    @classmethod
    def classic(cls, **kwargs: Any) -> "SpectroVAE":
        """Build the reference model that this library began as (`spectrovae/model/classic.py`).

        Args:
            **kwargs: Arguments of `SpectroVAE` that shall differ.
        """
        converter = {} if "input_shape" in kwargs else {"converter": SpectrogramConverter.classic()}
        return cls(**CLASSIC_SETTINGS | converter | kwargs)

    # What the model computes, and how it is trained

    def call(self, windows: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the reconstruction of windows from their mean codes, in [0, 1]."""
        codes = self.posterior_of(windows, training).distribution.loc  # converters do not know what mean() computes
        return self._mean_window(self.decoder(codes, training=training))

    def posterior_of(self, windows: tf.Tensor, training: bool = False) -> tfd.Distribution:
        """Return q(z|x) for one batch of windows as a TensorFlow Probability distribution."""
        check_windows(windows, self.input_shape)
        parameters = self.encoder(windows, training=training)
        posterior = posterior_distribution(parameters, self.posterior, self.latent_dim)
        return tfd.Independent(posterior, len(self.code_shape) - 1)

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
        codes = posterior.sample(self.num_kl_samples, seed=seed)  # (num_kl_samples, batch, *code_shape)
        parameters = self.decoder(codes[0], training=training)
        shown = parameters if training else self.decoder(posterior.mean(), training=False)
        joint = self.prior.joint_log_prob(codes)  # (num_kl_samples, batch, num_components)
        cross_entropy = -tf.reduce_mean(tf.reduce_logsumexp(joint, axis=-1), axis=0)
        return {
            "reconstruction_loss": -self.likelihood.log_prob(parameters, windows),
            "kl_loss": cross_entropy - posterior.entropy(),
            "prior_cross_entropy": cross_entropy,
            "responsibilities": tf.nn.softmax(joint[0]),
            "reconstruction": self._mean_window(shown),
        }

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Take one gradient step on a batch `x`, `(x, y)` or `(x, y, sample_weight)`; targets are not used."""
        windows, sample_weight, num_windows = distributed.pad_empty_batch(*unpack_x_y_sample_weight(data)[::2])
        with tf.GradientTape() as tape:
            terms = self.compute_terms(windows, training=True)
            losses = terms["reconstruction_loss"] + self.kl_weight * terms["kl_loss"]
            loss = distributed.global_mean(losses, sample_weight, num_windows)
            scaled_loss = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled_loss, self.trainable_variables)
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = distributed.sync_nonfinite_gradients(gradients)
        self.optimizer.apply(gradients, self.trainable_variables)
        return self._update_metrics(windows, terms, losses, sample_weight, num_windows)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Measure a batch as `train_step` does, with a KL weight of 1."""
        windows, sample_weight, num_windows = distributed.pad_empty_batch(*unpack_x_y_sample_weight(data)[::2])
        terms = self.compute_terms(windows, training=False)
        losses = terms["reconstruction_loss"] + terms["kl_loss"]
        return self._update_metrics(windows, terms, losses, sample_weight, num_windows)

    def _update_metrics(
        self, windows: tf.Tensor, terms: dict, losses: tf.Tensor, sample_weight: tf.Tensor | None, num: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        reconstruction = terms["reconstruction"]
        error = squared_error_db(windows, reconstruction, self.converter.scale, self.converter.dynamic_range)
        update_trackers(self.trackers, terms | {"loss": losses, "squared_error_db": error}, sample_weight)
        weights = None if sample_weight is None else sample_weight[:num]
        return self.compute_metrics(windows[:num], windows[:num], reconstruction[:num], weights)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configure training, as `keras.Model.compile` does, with the same arguments in the same order.

        Args:
            *args: A Keras optimizer, best with a warm-up (`LinearWarmup`); by default `default_optimizer()`. `loss` and
                `loss_weights` must be None: the model brings its own loss.
            **kwargs: Further arguments, such as `metrics`, which compare a window with its reconstruction.
                `jit_compile` (XLA) is False by default; it was measured to be slower on a CPU.
        """
        super().compile(**compile_arguments(*args, **kwargs))
        # Slots made while the step is traced would have it traced a second time.
        self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config: dict) -> None:
        """Compile a loaded model."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train, as `keras.Model.fit` does, after `adapt` where the model can be adapted and has not been.

        Args:
            *args: Windows of shape `(num_windows, bins, frames, 1)` with values in [0, 1], or a dataset or generator of
                batches of them, with or without targets, which are not used. Of a generator `adapt` reads only the
                first windows, with which training then begins.
            **kwargs: Further arguments of `keras.Model.fit`, in its order. An array is shuffled unless `shuffle=False`.
        """
        keep_freed_memory()
        given = fit_arguments(*args, **kwargs)
        adapts = self.compiled and self.warm_start and self.can_adapt and not self.adapted
        windows = given["x"]
        if hasattr(windows, "__next__"):
            windows, given["x"] = read_ahead(windows, linear_start.MAX_ITERATOR_WINDOWS if adapts else 1)
        check_dataset(windows, self.input_shape)
        if adapts:
            windows = training_part(windows, given["validation_split"])
            self.adapt(windows, verbose=int(given["verbose"] in ("auto", 1)))
        with own_callbacks(given["callbacks"], self) as given["callbacks"]:
            return super().fit(**given)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Measure, as `keras.Model.evaluate` does, with windows in the forms that `fit` takes."""
        return super().evaluate(**evaluate_arguments(*args, **kwargs))

    # What is fitted in closed form

    @property
    def can_adapt(self) -> bool:
        """Whether the model has a linear optimum: a linear path and a Gaussian likelihood."""
        return self.architecture == "temporal" and isinstance(self.likelihood, GaussianLikelihood)

    @property
    def adapted(self) -> bool:
        """Whether `adapt` has been called on this model, in this process or before it was saved."""
        return int(self.num_adapted_windows.numpy()) > 0

    def adapt(self, x: Any, **options: Any) -> None:
        """Start from the linear optimum of a dataset, in closed form, as the first `fit` does by itself.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            **options: Arguments of `spectrovae.model.linear_start.adapt`: `num_passes`, `max_windows`, `stationary`
                (False for aligned windows, such as drum hits), `transposition`, `batch_size` and `verbose`.
        """
        linear_start.adapt(self, x, **options)

    def refit_prior(self, x: Any, **options: Any) -> None:
        """Fit the prior anew to the codes of windows, by maximum likelihood: after training to where they are now.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them, which is read several
                times where there are several codes along a window.
            **options: Arguments of `spectrovae.model.linear_start.refit_prior`: `max_windows`, `batch_size` and
                `transposition`.
        """
        linear_start.refit_prior(self, x, **options)

    def refit_texture(self, x: Any, **options: Any) -> None:
        """Fit the texture anew to the residuals of windows; the likelihood must have a scale for each pixel.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            **options: Arguments of `spectrovae.model.linear_start.refit_texture`: `max_windows` and `batch_size`.
        """
        linear_start.refit_texture(self, x, **options)

    def finish_training(self, x: Any) -> bool:
        """Fit prior and texture to where codes and residuals are after training: while they move, both lag behind."""
        return linear_start.finish(self, x)

    # What a trained model is used for

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of the code of a window: `(latent_dim,)`, or `(latent_steps, latent_dim)` where there are several."""
        return (self.latent_dim,) if self.latent_steps == 1 else (self.latent_steps, self.latent_dim)

    def encode(self, x: Any, sample: bool = False, seed: int | None = None, batch_size: int = 32) -> np.ndarray:
        """Return the codes of windows.

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            sample: Whether to draw from the posterior q(z|x) instead of taking its mean.
            seed: Integer for a draw that repeats.
            batch_size: Number of windows at once, where `x` is an array.

        Returns:
            A float32 array of shape `(num_windows, latent_dim)`, or `(num_windows, latent_steps, latent_dim)` where
            there are several codes along a window; their mean, `codes.mean(axis=1)`, is one vector for each window.
        """
        pair = stateless_seed(seed, self.seed_generator) if sample else None
        codes = []
        for index, windows in enumerate(iterate_batches(x, batch_size)):
            posterior = self.posterior_of(windows)
            batch = posterior.mean() if pair is None else posterior.sample(seed=pair + tf.constant([index, 0]))
            check_finite(batch, "windows", windows)
            codes.append(batch.numpy())
        return np.concatenate(codes)

    def decode(
        self, z: Any, batch_size: int = 32, texture: str = "none", seed: int | None = None, drawn: bool = False
    ) -> np.ndarray:
        """Return the windows that codes stand for: their means, and texture where it is asked for.

        Args:
            z: Codes of shape `(num_windows, *code_shape)` or a dataset of batches of them. Where there are several
                codes along a window, any number of them.
            batch_size: Number of codes at once, where `z` is an array.
            texture: What is put on the means (see `Texture`): `"none"` has the least error, `"grains"` of the training
                music's residual sound most like music, `"noise"` does without any of it. Only a likelihood with a scale
                for each pixel knows where the residual is; with others the means are returned.
            seed: Integer for a texture that repeats.
            drawn: Whether the codes were drawn from the prior: with texture they are as loud as music (`Dynamics`).

        Returns:
            Windows `(num_windows, bins, frames, 1)` in [0, 1], with as many frames as the codes stand for.
        """
        is_textured = check_texture(texture) != "none" and self.likelihood.per_pixel
        rng = numpy_generator(seed, self.seed_generator) if is_textured else None
        windows = []
        for codes in iterate_batches(z, batch_size):
            check_codes(codes, self.code_shape)
            for mean, scale in zip(*(each[..., 0] for each in self.decode_moments(codes, is_textured)), strict=True):
                if rng is None:
                    windows.append(np.clip(mean, 0.0, 1.0))
                else:
                    windows.append(self.texture.windows(mean, scale, rng, texture, self.dynamics if drawn else None))
        return np.stack(windows)[..., None]

    def decode_moments(self, codes: tf.Tensor, with_scales: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each pixel, not clipped; where pixels share one deviation, zeros.

        Args:
            codes: One batch of codes, as for `decode`. The memory that a long sequence takes is that of the result.
            with_scales: Whether the deviations are needed; else they are zeros, which takes less time.

        Returns:
            Two arrays `(num_windows, bins, frames, 1)`.
        """
        means, scales = [], []
        for parameters in networks.decode_in_parts(self.decoder, codes, self.input_shape[1] // self.latent_steps):
            means.append(self.likelihood.mean(parameters).numpy())
            is_known = with_scales and self.likelihood.per_pixel
            scales.append(self.likelihood.scale(parameters).numpy() if is_known else np.zeros_like(means[-1]))
            check_finite(means[-1], "codes", codes)
        return np.concatenate(means, axis=2), np.concatenate(scales, axis=2)

    def reconstruct(self, x: Any, batch_size: int = 32, texture: str = "none", seed: int | None = None) -> np.ndarray:
        """Return what the mean codes of windows decode to, of the shape of all windows, with values in [0, 1].

        Args:
            x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
            batch_size: Number of windows at once, where `x` is an array.
            texture: What is put on the means, as in `decode`.
            seed: Integer for a texture that repeats.
        """
        return self.decode(self.encode(x, batch_size=batch_size), batch_size, texture, seed)

    def generate(
        self,
        num_samples: int,
        component: int | str | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
        batch_size: int = 32,
        texture: str = "grains",
        duration: float | None = None,
    ) -> np.ndarray:
        """Draw codes from the prior and decode them.

        Args:
            num_samples: Number of windows.
            component: Index or name of the mixture component to draw from, or None for the whole mixture.
            temperature: Factor on the prior's standard deviations: below 1 more typical, above 1 more daring.
            seed: Integer for draws that repeat.
            batch_size: Number of windows at once.
            texture: What is put on the means, as in `decode`.
            duration: Length of each in seconds, where the model has several codes along a window; by default that of a
                window. With one code, `generate_audio` makes longer pieces.

        Returns:
            A float32 array of shape `(num_samples, bins, frames, 1)` with values in [0, 1].
        """
        options: dict[str, Any] = {"component": self.component_index(component), "temperature": temperature}
        num_frames = self.converter.num_frames
        if duration is not None:
            num_frames = self.converter.num_frames_of(duration)
            options["num_steps"] = self.num_codes_for(num_frames)
        codes = self.prior.sample(num_samples, seed=seed, **options)
        check_finite(codes)
        return self.decode(codes, batch_size, texture, seed, drawn=True)[:, :, :num_frames]

    def num_codes_for(self, num_frames: int) -> int:
        """Return how many codes stand for so many frames; a ValueError tells that one code stands for a window."""
        if self.latent_steps == 1:
            raise ValueError(
                "A model with one code for a window generates windows; `generate_audio` makes pieces of any length of "
                f"them. Build the model with latent_steps above 1. Received: latent_steps={self.latent_steps}"
            )
        return -(-num_frames * self.latent_steps // self.input_shape[1])

    def _mean_window(self, parameters: tf.Tensor) -> tf.Tensor:
        """Return the mean of p(x|z), clipped to the range of windows."""
        return tf.clip_by_value(self.likelihood.mean(parameters), 0.0, 1.0)

    @property
    def component_names(self) -> tuple[str, ...] | None:
        """Names that the user gave the prior's components, or None; saved with the model."""
        return self._component_names

    @component_names.setter
    def component_names(self, names: Sequence[str] | None) -> None:
        self._component_names = None if names is None else check_names("component_names", names, self.num_components)

    def component_name(self, component: int) -> str:
        """Return what a component is called: the user's name for it, else `component` and its number."""
        return self.component_names[component] if self.component_names else f"component {component}"

    def component_index(self, component: int | str | None) -> int | None:
        """Return the index of a component that is given by its name or index; None is returned as it is."""
        return check_index("component", component, self.num_components, self.component_names)

    def export(self, filepath: Any, format: str = "tf_saved_model", **kwargs: Any) -> None:
        """Export, as `keras.Model.export` does; a SavedModel also gets endpoints (see `export_saved_model`)."""
        if format == "tf_saved_model":
            return export_saved_model(self, filepath)
        signature = [keras.InputSpec(shape=(None, *self.input_shape), dtype="float32")]
        return super().export(filepath, format, **{"input_signature": signature} | kwargs)

    def get_config(self) -> dict:
        """Return the arguments of the model."""
        names = "input_shape latent_dim num_components decoder_depth architecture posterior width num_kl_samples"
        names += " learn_weights latent_steps warm_start bank_size seed component_names"
        nested = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in _NESTED}
        arguments = {name: getattr(self, name) for name in names.split()}
        return super().get_config() | {"format_version": FORMAT_VERSION} | arguments | nested

    @classmethod
    def from_config(cls, config: dict) -> "SpectroVAE":
        """Build a model from what `get_config` returned; of a newer version a ValueError says so."""
        config = check_config(config, FORMAT_VERSION, converter=SpectrogramConverter, likelihood=Likelihood)
        return cls(**config | {name: keras.saving.deserialize_keras_object(config[name]) for name in _NESTED})
