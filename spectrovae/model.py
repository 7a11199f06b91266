"""The variational autoencoder itself."""

import random
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from spectrovae.checks import check_positive_int, check_seed
from spectrovae.converter import SpectrogramConverter
from spectrovae.decoder import build_decoder, check_refine
from spectrovae.diagnosis import Diagnosis, diagnose
from spectrovae.encoder import build_encoder
from spectrovae.likelihood import Likelihood, get_likelihood
from spectrovae.objective import Objective
from spectrovae.pieces import Pieces
from spectrovae.prior import GaussianMixturePrior
from spectrovae.sequence_prior import SequencePrior
from spectrovae.texture import Texture

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
