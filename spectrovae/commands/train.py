"""Train a model on a folder of recordings; run again, continue where the training stopped.

    spectrovae train my_recordings/ --output my_music --epochs 100

After each epoch the output folder holds `checkpoint.keras` (to continue from), `model.keras` (the best epoch, for
`spectrovae generate`) and `log.csv`. At the end it also gets sounds, pictures, `index.html` to listen on, and
`summary.txt`, which says whether the model is healthy and what became of each file. With `--pages 10` a page is
written every ten epochs. With `--tensorboard` the command `tensorboard --logdir my_music` shows curves and sounds.

With `--from other.keras` training begins with a model of other recordings, of whose sizes and windows it then is: the
linear start, the prior and the texture are made anew from these recordings, and what its convolutions learned is kept.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from spectrovae.commands.options import add_cache, add_window, count, make_converter, seed

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from spectrovae import SpectroVAE

MODEL_ARGUMENTS = ("latent_dim", "num_components", "decoder_depth", "width", "likelihood", "posterior", "latent_steps")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sub-command."""
    parser.add_argument("audio", type=Path, nargs="+", help="folders or files")
    parser.add_argument(
        "--output", type=Path, default=Path("trained"), help="folder to write to and to continue from (%(default)s)"
    )
    parser.add_argument(
        "--from", type=Path, dest="saved", metavar="MODEL", help="model of other recordings to begin with"
    )
    parser.add_argument("--epochs", type=count, default=50, help="in all, earlier runs included (%(default)s)")
    parser.add_argument("--batch-size", type=count, default=16, help="windows per gradient step (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="after 100 steps of warm-up (%(default)s)")
    parser.add_argument(
        "--validation-split", type=float, default=0.1, help="share to hold out; 0 for none (%(default)s)"
    )
    add_cache(parser)
    parser.add_argument("--loop-short-files", action="store_true", help="repeat files that are shorter than a window")
    parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
    parser.add_argument("--num-samples", type=count, default=5, help="sounds to generate at the end (%(default)s)")
    parser.add_argument("--pages", type=count, help="epochs between pages to listen on while training")
    parser.add_argument("--tensorboard", action="store_true", help="log curves, sounds and pictures for TensorBoard")
    parser.add_argument("--seed", type=seed, help="decides the split, initial weights and all random draws")
    # The defaults are those of SpectroVAE. A test compares them, since importing the model here would take seconds.
    model = parser.add_argument_group("model")
    model.add_argument("--latent-dim", type=count, default=32, help="size of a code (%(default)s)")
    model.add_argument(
        "--latent-steps", type=count, help="codes along a window; 1 for one that stands for it (one for 16 frames)"
    )
    model.add_argument("--num-components", type=count, default=8, help="Gaussians in the prior (%(default)s)")
    model.add_argument(
        "--decoder-depth", type=count, default=2, help="how often the decoder doubles its resolution (%(default)s)"
    )
    model.add_argument("--width", type=count, default=256, help="channels of the decoder (%(default)s)")
    model.add_argument(
        "--likelihood", default="heteroscedastic_gaussian", help='or "gaussian", "bernoulli" (%(default)s)'
    )
    model.add_argument("--posterior", default="diagonal", help='or "full" (%(default)s)')
    add_window(parser)


def run(options: argparse.Namespace) -> None:
    """Train, or continue a training, and write what shows the model."""
    import keras

    from spectrovae import SpectroVAE, audio_dataset, default_optimizer, fit_resumably, write_results

    logging.basicConfig(format="%(message)s")
    logging.getLogger("spectrovae").setLevel(logging.INFO)  # what became of the files, and the epochs already trained
    if options.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")

    if options.saved is None:
        converter = make_converter(options)
        settings = {name: getattr(options, name) for name in (*MODEL_ARGUMENTS, "seed")}
        model = SpectroVAE(converter.window_shape, converter=converter, **settings)
    else:
        model = _begin_with(options)
        converter = model.converter
    model.compile(default_optimizer(options.learning_rate))

    datasets = audio_dataset(
        options.audio,
        converter,
        options.batch_size,
        options.validation_split,
        seed=options.seed,
        cache=options.cache,
        loop_short_files=options.loop_short_files,
    )
    train, validation = datasets if options.validation_split else (datasets, None)
    callbacks = _make_callbacks(options, train, validation)
    history = fit_resumably(model, options.output, train, validation, options.epochs, callbacks)
    diagnosis = write_results(
        model, train, validation, history, options.output, options.num_samples, options.seed, options.cache
    )
    print(f"\n{options.output} holds model.keras, log.csv, sounds and pictures. Epochs so far: {len(history['loss'])}.")
    print(diagnosis)


def _begin_with(options: argparse.Namespace) -> SpectroVAE:
    """Load the model to begin with, to be adapted when training begins."""
    from spectrovae import load_model

    saved = load_model(options.saved)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    for name in (*MODEL_ARGUMENTS, "sample_rate", "n_fft", "hop_length", "num_frames"):
        value, own = getattr(options, name), getattr(saved, name, getattr(saved.converter, name, None))
        if value not in (parser.get_default(name), own):
            option = name.replace("_", "-")
            raise ValueError(f"{options.saved} has {name}={own!r}. Leave out --{option}. Received: {name}={value!r}")
    config = {name: value for name, value in saved.get_config().items() if name != "dtype"}  # of this run
    config |= {"component_names": None, "seed": saved.seed if options.seed is None else options.seed}
    model = type(saved).from_config(config)
    model.set_weights(saved.get_weights())
    model.num_adapted_windows.assign(0)  # the first `fit` adapts it to the new recordings
    return model


def _make_callbacks(
    options: argparse.Namespace, train: tf.data.Dataset, validation: tf.data.Dataset | None
) -> list[keras.callbacks.Callback]:
    """Return the callbacks that write pages and logs while training."""
    import keras

    from spectrovae import ListeningPages, dataset_report
    from spectrovae.report.callbacks import TensorBoardSounds

    held_out = train if validation is None else validation
    callbacks: list[keras.callbacks.Callback] = []
    if options.pages:
        originals = dataset_report(held_out).windows[:1]
        callbacks.append(
            ListeningPages(options.output, options.pages, options.num_samples, originals, train, cache=options.cache)
        )
    if options.tensorboard:
        logs = options.output / "logs"
        callbacks += [keras.callbacks.TensorBoard(logs, write_graph=False), TensorBoardSounds(logs, held_out)]
    return callbacks
