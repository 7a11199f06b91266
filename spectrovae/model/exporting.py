"""A model as a TensorFlow SavedModel, which runs without this library."""

import os
from typing import Any

import keras
import tensorflow as tf

from spectrovae.audio.windows import check_codes


def export_saved_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write a SavedModel with the endpoints `serve`, `encode`, `decode` and `generate`.

    `serve` reconstructs windows, `encode` returns their mean codes, `decode` the windows of codes, and `generate` takes
    `num_samples`, `seed` and `temperature` (two integers and a float) and draws windows from the prior. Windows have
    the shape `(num_windows, bins, frames, 1)` and values in [0, 1]. There is no texture, and windows are not turned
    into sound: that takes the model's converter.

    Args:
        model: A `SpectroVAE`.
        path: The folder to write.

    Example:
        >>> import tempfile
        >>> from spectrovae import SpectroVAE
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> folder = tempfile.mkdtemp()
        >>> export_saved_model(model, folder)
        >>> loaded = tf.saved_model.load(folder)
        >>> loaded.generate(tf.constant(3), tf.constant(7), tf.constant(1.0)).shape
        TensorShape([3, 32, 32, 1])
    """

    def decode(codes: tf.Tensor) -> tf.Tensor:
        check_codes(codes, model.code_shape)
        return tf.clip_by_value(model.likelihood.mean(model.decoder(codes, training=False)), 0.0, 1.0)

    def generate(num_samples: tf.Tensor, seed: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
        return decode(_draw_codes(model, num_samples, seed, temperature))

    windows = tf.TensorSpec((None, *model.input_shape), tf.float32, "windows")
    draws: list[Any] = [tf.TensorSpec((), tf.int32, name) for name in ("num_samples", "seed")]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", lambda windows: model(windows, training=False), [windows])
    archive.add_endpoint("encode", lambda windows: model.posterior_of(windows).mean(), [windows])
    archive.add_endpoint("decode", decode, [tf.TensorSpec((None, *model.code_shape), tf.float32, "codes")])
    archive.add_endpoint("generate", generate, [*draws, tf.TensorSpec((), tf.float32, "temperature")])
    archive.write_out(path, verbose=False)


def _draw_codes(model: keras.Model, num_samples: tf.Tensor, seed: tf.Tensor, temperature: tf.Tensor) -> tf.Tensor:
    """Draw codes as `prior.sample` does, with TensorFlow's operations only."""
    prior = model.prior
    components = tf.random.stateless_categorical(prior.logits[None], num_samples, tf.stack([seed, 0]), tf.int32)[0]

    def draw(component_and_number: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        component, number = component_and_number
        pair = tf.stack([seed, number])
        noise = tf.random.stateless_normal((model.latent_dim,), pair + tf.constant([1, 0]))
        first = prior.means[component] + temperature * prior.scales[component] * noise
        if model.latent_steps == 1:
            return first
        motion = prior.draw_motion.pick(tf.fill((1, model.latent_steps - 1), component))
        following = prior.transitions.sample(first[None, None], motion, pair, temperature)[0]
        return tf.concat([first[None], following], axis=0)

    numbers = tf.range(1, num_samples + 1)
    spec = tf.TensorSpec(model.code_shape, tf.float32)
    return tf.map_fn(draw, (components, numbers), fn_output_signature=spec)
