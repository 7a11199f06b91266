"""The systems that `bench_training.py` compares.

Each has `train(dataset, seconds, measure)`, which calls `measure(seconds, num_windows)` after each round with the time
and the windows of training so far (the time that `measure` takes is not counted), `reconstruct(windows)` and
`generate(num_samples)`.
"""

import time
from collections.abc import Callable

import keras
import numpy as np
import sklearn.decomposition
import sklearn.mixture
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from spectrovae import SpectroVAE
from spectrovae.training.resumable import averaged_weights

SHAPE = (512, 512, 1)

Measure = Callable[[float, int], None]


class PrincipalComponents:
    """Principal components of whole windows with a Gaussian mixture over the codes, from scikit-learn."""

    def __init__(self, latent_dim: int, seed: int) -> None:
        self.pca = sklearn.decomposition.PCA(latent_dim, svd_solver="randomized", random_state=seed)
        self.mixture = sklearn.mixture.GaussianMixture(8, covariance_type="diag", random_state=seed)

    def train(self, dataset: tf.data.Dataset, seconds: float, measure: Measure) -> None:
        start = time.perf_counter()
        windows = np.concatenate([batch.numpy() for batch in dataset])
        self.mixture.fit(self.pca.fit_transform(windows.reshape(len(windows), -1)))
        measure(time.perf_counter() - start, len(windows))

    def reconstruct(self, windows: np.ndarray) -> np.ndarray:
        return self._decode(self.pca.transform(windows.reshape(len(windows), -1)))

    def generate(self, num_samples: int) -> np.ndarray:
        return self._decode(self.mixture.sample(num_samples)[0])

    def _decode(self, codes: np.ndarray) -> np.ndarray:
        return np.clip(self.pca.inverse_transform(codes), 0, 1).reshape(-1, *SHAPE).astype(np.float32)


class Clock(keras.callbacks.Callback):
    """Measures after each epoch and stops when the time is over."""

    def __init__(self, seconds: float, measure: Measure, trained: float) -> None:
        super().__init__()
        self.seconds, self.measure, self.trained = seconds, measure, trained
        self.num_windows = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.num_windows += 16

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.trained += time.perf_counter() - self.start
        with averaged_weights(self.model):
            self.measure(self.trained, self.num_windows)
        self.model.stop_training = self.trained > self.seconds


class Ours:
    """`SpectroVAE` as it comes; each epoch is measured with the average of its weights."""

    def __init__(self, latent_dim: int, seed: int, **settings: int) -> None:
        self.model = SpectroVAE(latent_dim=latent_dim, seed=seed, **settings)
        self.model.compile()

    def train(self, dataset: tf.data.Dataset, seconds: float, measure: Measure) -> None:
        start = time.perf_counter()
        self.model.adapt(dataset, verbose=0)
        trained = time.perf_counter() - start
        measure(trained, 0)
        self.model.fit(dataset, epochs=10_000, callbacks=[Clock(seconds, measure, trained)], verbose=0)

    def reconstruct(self, windows: np.ndarray) -> np.ndarray:
        return self.model.reconstruct(windows, batch_size=16)

    def generate(self, num_samples: int) -> np.ndarray:
        return self.model.generate(num_samples, seed=0)


class OursAlongTime(Ours):
    """`SpectroVAE` with 32 codes of 32 numbers along a window, whatever the size that is asked for."""

    def __init__(self, latent_dim: int, seed: int) -> None:
        super().__init__(32, seed, latent_steps=32)


class Classic:
    """The reference model, built with the legacy Keras and the layers of TensorFlow Probability as it was."""

    def __init__(self, latent_dim: int, seed: int) -> None:
        tf_keras.utils.set_random_seed(seed)
        tfd, tfpl, layers = tfp.distributions, tfp.layers, tf_keras.layers
        means = tf.Variable(tf.random.normal((2, latent_dim)))
        scales = tfp.util.TransformedVariable(tf.ones((2, latent_dim)), tfp.bijectors.Softplus())
        self.prior = tfd.MixtureSameFamily(
            tfd.Categorical(logits=[0.0, 0.0]), tfd.MultivariateNormalDiag(means, scales)
        )
        self.prior_variables = [means, *scales.trainable_variables]

        encoder = [tf_keras.Input(SHAPE)]
        for level, filters in enumerate((32, 64, 128, 256, 256)):
            encoder += [layers.Conv2D(filters, 4, 2, "same", activation="relu"), layers.BatchNormalization()]
            encoder += [layers.MaxPooling2D(2)] if level == 1 else []
        encoder += [
            layers.Flatten(),
            layers.Dense(tfpl.MultivariateNormalTriL.params_size(latent_dim)),
            tfpl.MultivariateNormalTriL(latent_dim),
        ]
        self.encoder = tf_keras.Sequential(encoder)
        decoder = [tf_keras.Input((latent_dim,)), layers.Dense(16384, "relu"), layers.Reshape((8, 8, 256))]
        for level, filters in enumerate((128, 64, 32, 128, 64, 32)):
            decoder += [layers.UpSampling2D(2), layers.Conv2D(filters, 3, padding="same", activation="relu")]
            decoder += [layers.BatchNormalization()] if level < 2 else []
        self.decoder = tf_keras.Sequential([*decoder, layers.Conv2D(1, 3, padding="same")])
        self.optimizer = tf_keras.optimizers.Adam(5e-4)

    @tf.function
    def _step(self, windows: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            posterior = self.encoder(windows, training=True)
            codes = posterior.sample(3)
            kl = tf.reduce_mean(posterior.log_prob(codes) - self.prior.log_prob(codes), axis=0)
            logits = self.decoder(codes[0], training=True)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=windows, logits=logits)
            loss = tf.reduce_mean(tf.reduce_sum(losses, axis=(1, 2, 3)) + kl)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables + self.prior_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def train(self, dataset: tf.data.Dataset, seconds: float, measure: Measure) -> None:
        trained, num_windows = 0.0, 0
        while trained < seconds:
            start = time.perf_counter()
            for windows in dataset.unbatch().batch(8):
                self._step(windows)
                num_windows += windows.shape[0]
                if trained + time.perf_counter() - start > seconds:
                    break
            trained += time.perf_counter() - start
            measure(trained, num_windows)

    def reconstruct(self, windows: np.ndarray) -> np.ndarray:
        batches = np.array_split(windows, max(1, len(windows) // 8))
        return np.concatenate([self._decode(self.encoder(batch, training=False).mean()) for batch in batches])

    def generate(self, num_samples: int) -> np.ndarray:
        return np.concatenate([self._decode(self.prior.sample(1)) for _ in range(num_samples)])

    def _decode(self, codes: tf.Tensor) -> np.ndarray:
        return tf.sigmoid(self.decoder(codes, training=False)).numpy()


CONTENDERS = {"classic": Classic, "pca": PrincipalComponents, "ours": Ours, "ours along time": OursAlongTime}
