"""Whether a trained model is healthy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from spectrovae.audio.windows import WindowSample, iterate_batches, limited_batches
from spectrovae.evaluation.sound_distance import pairwise_distance, ratio_or_nan, rmse_db
from spectrovae.model.linear_start import MAX_WINDOWS, NUM_PASSES
from spectrovae.model.pca import average_frames, random_parts, restore_windows
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.training.metrics import live_components, perplexity

_ACTIVE_SHARE = 0.01  # of its variance over the data that the posterior means of an active dimension hold

_NUM_DRAWS = 8  # from each posterior

_NUM_COMPARED = 64  # windows whose differences are measured, to bound memory

_MIN_WINDOWS_PER_COMPONENT = 10  # with fewer windows a component may have none by chance

_MAX_POOL_SIZE = 16  # frames that are averaged before PCA, which would be further from held-out music without


class TrainingReference:
    """The mean spectrum of training windows, PCA with as many numbers as a model, and what the prior makes of them.

    The principal components are scikit-learn's, of windows averaged over time; where the model has several codes along
    a window, of the parts that each stands for. As many windows are used as `SpectroVAE.adapt` uses.

    Args:
        model: The model whose size is taken.
        training: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them.
        batch_size: Number of windows at once, where `training` is an array.

    Attributes:
        num_windows: How many were used, counting repeated passes.
        spectrum: Mean level at each frequency in dB, shape `(bins,)`.
        shares: Share of the codes that each component of the prior makes, shape `(num_components,)`.

    Raises:
        ValueError: If there are fewer than two windows, they do not have the model's shape, or their values are not
            finite.
    """

    def __init__(self, model: SpectroVAE, training: Any, batch_size: int) -> None:
        from sklearn.decomposition import PCA

        self.num_windows = 0
        self.spectrum = np.zeros(model.encoder.input_shape[1])
        self.shares = np.zeros(model.prior.num_components)
        self._pool_size = math.gcd(model.encoder.input_shape[2] // model.latent_steps, _MAX_POOL_SIZE)
        batches = self._watched(model, limited_batches(training, NUM_PASSES, MAX_WINDOWS, batch_size))
        parts = random_parts(batches, model.latent_steps, seed=0)
        averaged = [average_frames(batch, self._pool_size) for batch in parts]
        if self.num_windows < 2:
            raise ValueError(f"A comparison needs at least 2 training windows. Received: {self.num_windows}")
        steps = np.concatenate(averaged)
        self._num_steps = steps.shape[-1]
        features = steps.reshape(len(steps), -1)
        self._pca = PCA(min(model.latent_dim, *features.shape), random_state=0).fit(features)
        self.spectrum, self.shares = self.spectrum / self.num_windows, self.shares / self.num_windows

    def _watched(self, model: SpectroVAE, batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        @tf.function(autograph=False, reduce_retracing=True)
        def total_shares(windows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(model.prior.responsibilities(model.posterior_of(windows).sample(seed=seed)), axis=0)

        for windows in batches:
            seed = tf.constant([self.num_windows, 1], tf.int32)
            self.shares += total_shares(tf.cast(windows, tf.float32), seed).numpy()
            self.spectrum += model.converter.to_decibels(windows).mean(axis=(2, 3)).sum(axis=0)
            self.num_windows += len(windows)
            yield windows

    def reconstruct(self, windows: np.ndarray) -> np.ndarray:
        """Return what PCA makes of windows, in [0, 1]."""
        return np.clip(restore_windows(windows, self._project, self._num_steps, self._pool_size), 0, 1)

    def _project(self, steps: np.ndarray) -> np.ndarray:
        codes = self._pca.transform(steps.reshape(len(steps), -1))
        return self._pca.inverse_transform(codes).reshape(steps.shape)


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """How healthy a model is, as `diagnose` finds; `print` says it in plain words, with advice.

    Attributes:
        kind: Windows that were measured: `"held-out"`, `"training"`, or `"given"` without training windows.
        num_windows: How many they are.
        latent_dim: Size of a code.
        num_active_dims: Latent dimensions in use: the variance of the posterior's mean over all codes (Burda et al.,
            "Importance weighted autoencoders", ICLR 2016) is more than 1 % of the variance of draws from the
            posterior. Burda et al. take 0.01 itself, for codes of variance 1; a mixture prior leaves the unit open.
        kl: KL divergence of the posterior from the prior, in nats per window.
        prior_cross_entropy: -E log p(z) of draws from the posterior, in nats per window.
        num_components: Gaussians in the prior.
        num_live_components: Those that make a tenth of an equal share or more of the training codes (of the codes of
            the measured windows where training windows were not given): components may stand for recordings that
            held-out ones do not resemble.
        component_perplexity: Perplexity of the shares, from 1 to `num_components`.
        rmse_db: Root-mean-square error of the reconstructions from mean codes, in dB. Every reconstruction, also that
            of PCA, is clipped to [0, 1] before it is measured.
        mean_spectrum_rmse_db: The same for the mean spectrum of the training windows (of the measured ones where those
            were not given) in place of each reconstruction.
        pca_rmse_db: The same for PCA of the training windows, averaged over 16 frames, with `latent_dim` numbers for
            each code; None where training windows were not given.
        num_training_windows: Training windows that were used, counting repeated passes; 0 where not given.
        silent_share: Share of the windows that never rise above the floor of the converter.
        num_generated: Windows that were generated.
        generated_pairwise_db: Mean root-mean-square difference between the means of two of them, in dB.
        real_pairwise_db: The same for the measured windows.
        latent_steps: Codes along a window.
    """

    kind: str
    num_windows: int
    latent_dim: int
    num_active_dims: int
    kl: float
    prior_cross_entropy: float
    num_components: int
    num_live_components: int
    component_perplexity: float
    rmse_db: float
    mean_spectrum_rmse_db: float
    pca_rmse_db: float | None
    num_training_windows: int
    silent_share: float
    num_generated: int
    generated_pairwise_db: float
    real_pairwise_db: float
    latent_steps: int = 1

    @property
    def diversity_ratio(self) -> float:
        """Differences between generated means over those between real windows; a collapsed model is near 0."""
        return ratio_or_nan(self.generated_pairwise_db, self.real_pairwise_db)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, each with advice; empty for a healthy model."""
        if not math.isfinite(self.rmse_db):
            return ("The reconstructions are not finite: training has diverged. Train anew at a lower learning rate.",)
        num_dead = self.num_components - self.num_live_components
        num_codes = self.num_training_windows or self.num_windows
        enough_windows = num_codes >= _MIN_WINDOWS_PER_COMPONENT * self.num_components
        findings = [
            (
                self.num_active_dims == 0,
                "The code is not used: posterior collapse. Start with `adapt` (warm_start=True), or raise the KL term "
                "slowly with KLWarmup.",
            ),
            (
                0 < self.num_active_dims < self.latent_dim / 2,
                f"Only {self.num_active_dims} of {self.latent_dim} latent dimensions are used. A smaller latent_dim "
                "would do as well; more recordings would use more.",
            ),
            (
                num_dead > 0 and enough_windows,
                f"{num_dead} of {self.num_components} components of the prior are dead. Call refit_prior on the "
                "training windows, or take fewer components.",
            ),
            (
                self.rmse_db > self.mean_spectrum_rmse_db,
                "The mean spectrum is nearer to the windows than their reconstructions. Train longer, or at a lower "
                "learning rate after a warm-up.",
            ),
            (
                self.pca_rmse_db is not None and self.rmse_db > 1.01 * self.pca_rmse_db,
                "PCA of the same size reconstructs better. Where the loss still falls, train longer; where val_loss "
                "rises, stop sooner or bring more recordings. Windows that all begin alike want a start by "
                "adapt(windows, stationary=False).",
            ),
            (self.diversity_ratio < 0.2, "Generated windows hardly differ. Call refit_prior on the training windows."),
            (
                self.silent_share > 0.5,
                "Most windows are silent, and silence is what the model learns. Cut it from the recordings.",
            ),
        ]
        return tuple(problem for is_there, problem in findings if is_there)

    def __repr__(self) -> str:
        kind = "" if self.kind == "given" else f"{self.kind} "
        steps = "" if self.latent_steps == 1 else f" in {self.latent_steps} codes along a window"
        owner = "their own" if self.pca_rmse_db is None else "the training windows'"
        pca = "" if self.pca_rmse_db is None else f"PCA with as many numbers {self.pca_rmse_db:.2f} dB, "
        verdict = ["Verdict: healthy."] if not self.problems else ["Verdict:", *(f"- {text}" for text in self.problems)]
        lines = [
            f"Reconstruction: {self.rmse_db:.2f} dB RMSE on {self.num_windows} {kind}windows; {pca}{owner} mean "
            f"spectrum {self.mean_spectrum_rmse_db:.2f} dB.",
            f"Code: {self.num_active_dims} of {self.latent_dim} dimensions active{steps}, "
            f"KL {self.kl:.1f} nats per window.",
            f"Prior: {self.num_live_components} of {self.num_components} components live, perplexity "
            f"{self.component_perplexity:.1f}, cross-entropy of the codes {self.prior_cross_entropy:.1f} nats.",
            f"Diversity: the means of {self.num_generated} generated windows differ by "
            f"{self.generated_pairwise_db:.2f} dB on average, real ones by {self.real_pairwise_db:.2f} dB: a ratio of "
            f"{self.diversity_ratio:.2f}.",
            f"Silence: {100 * self.silent_share:.0f} % of the windows.",
        ]
        return "\n".join(lines + verdict)


def diagnose(
    model: SpectroVAE, x: Any, training: Any = None, num_generated: int = 16, batch_size: int = 32
) -> Diagnosis:
    """Tell whether a model is healthy: reconstruction, use of code and prior, diversity, silence.

    The result repeats, and memory is bounded whatever the number of windows.

    Args:
        model: The model.
        x: Windows of shape `(num_windows, bins, frames, 1)` or a dataset of batches of them: held-out ones, or the
            training windows themselves. At least 2; they are read once.
        training: Windows that the model was trained on, or a dataset of them. With them the reconstructions are
            compared with the mean spectrum of these and with PCA of `latent_dim` numbers, fitted to as many of them as
            `adapt` uses; without them with the mean spectrum of `x` only.
        num_generated: Number of windows to generate, at least 2.
        batch_size: Number of windows at once, where windows are in an array.

    Returns:
        The figures; `print` shows them in plain words, with advice.

    Raises:
        ValueError: If there are fewer than two windows, or they do not have the model's shape.

    Example:
        >>> import numpy as np
        >>> from spectrovae import SpectroVAE, diagnose
        >>> windows = np.random.default_rng(0).random((8, 32, 32, 1), np.float32)
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> model.adapt(windows, verbose=0)
        >>> diagnose(model, windows, training=windows).num_active_dims
        2
    """
    reference = None if training is None else TrainingReference(model, training, batch_size)
    sample = WindowSample(_NUM_COMPARED, seed=0)
    num_windows, totals = 0, dict[str, Any]()
    for windows in sample.collect(np.asarray(batch) for batch in iterate_batches(x, batch_size)):
        seed = tf.constant([num_windows, 0], tf.int32)
        for name, values in _measure(model, windows, reference, seed).items():
            totals[name] = totals.get(name, 0.0) + values.sum(axis=0, dtype=np.float64)
        num_windows += len(windows)
    if num_windows < 2:
        raise ValueError(f"A diagnosis needs at least 2 windows. Received: {num_windows}")
    means = {name: total / num_windows for name, total in totals.items()}
    signal = means["squared code"] - means["code"] ** 2
    shares = means["responsibilities"] if reference is None else reference.shares
    spectrum = means["level"] if reference is None else reference.spectrum
    squares = means["squared level"] - 2 * spectrum * means["level"] + spectrum**2  # of level - spectrum
    # Their means: the residual that texture adds would differ even if all codes were the same.
    codes = iterate_batches(model.prior.sample(num_generated, seed=0), batch_size)
    generated = np.concatenate([_mean_windows(model, batch) for batch in codes])
    is_finite = np.isfinite(generated).all()
    return Diagnosis(
        kind="given" if training is None else "training" if training is x else "held-out",
        num_windows=num_windows,
        latent_dim=model.latent_dim,
        num_active_dims=int(np.sum(signal > _ACTIVE_SHARE * (signal + means["code variance"]))),
        kl=float(means["kl"]),
        prior_cross_entropy=float(means["cross-entropy"]),
        num_components=model.prior.num_components,
        num_live_components=int(np.sum(live_components(np.minimum(shares, model.prior.mixing_weights)))),
        component_perplexity=float(perplexity(shares)),
        rmse_db=float(np.sqrt(means["squared error"])),
        mean_spectrum_rmse_db=float(np.sqrt(np.mean(squares))),
        pca_rmse_db=None if reference is None else float(np.sqrt(means["squared error of PCA"])),
        num_training_windows=0 if reference is None else reference.num_windows,
        silent_share=float(means["silent"]),
        num_generated=num_generated,
        generated_pairwise_db=pairwise_distance(generated, model.converter) if is_finite else math.nan,
        real_pairwise_db=pairwise_distance(np.stack(sample.windows), model.converter),
        latent_steps=model.latent_steps,
    )


def _measure(
    model: SpectroVAE, windows: np.ndarray, reference: TrainingReference | None, seed: tf.Tensor
) -> dict[str, np.ndarray]:
    """Return what is measured of each window; the first axis is that of the windows."""
    posterior = model.posterior_of(windows)

    def by_dimension(values: tf.Tensor) -> np.ndarray:
        return np.asarray(values, np.float64).reshape(len(windows), -1, model.latent_dim).mean(axis=1)

    codes, draws = posterior.mean(), posterior.sample(_NUM_DRAWS, seed=seed)
    joint = model.prior.joint_log_prob(draws)  # (num_draws, num_windows, num_components)
    cross_entropy = -tf.reduce_mean(tf.reduce_logsumexp(joint, axis=-1), axis=0)
    levels = model.converter.to_decibels(windows)
    reconstruction = _mean_windows(model, codes)
    measured = {
        "code": by_dimension(codes),
        "squared code": by_dimension(np.square(codes, dtype=np.float64)),
        "code variance": by_dimension(posterior.variance()),
        "kl": cross_entropy - posterior.entropy(),
        "cross-entropy": cross_entropy,
        "responsibilities": tf.reduce_mean(tf.nn.softmax(joint), axis=0),
        "level": levels.mean(axis=(2, 3)),
        "squared level": np.square(levels, dtype=np.float64).mean(axis=(2, 3)),
        "squared error": np.square(rmse_db(windows, reconstruction, model.converter)),
        "silent": levels.max(axis=(1, 2, 3)) <= -model.converter.dynamic_range,
    }
    if reference is not None:
        measured["squared error of PCA"] = np.square(rmse_db(windows, reference.reconstruct(windows), model.converter))
    return {name: np.asarray(values) for name, values in measured.items()}


def _mean_windows(model: SpectroVAE, codes: tf.Tensor) -> np.ndarray:
    """Return the means of p(x|z) in [0, 1]; NaN where training has diverged, which `decode` refuses."""
    return np.clip(model.likelihood.mean(model.decoder(codes, training=False)).numpy(), 0, 1)
