"""Train a SpectroVAE on a folder of recordings; started again, it goes on where it stopped.

    python examples/train.py my_recordings/ --output my_music --epochs 100

After each epoch `my_music/` gets `checkpoint.keras` (to go on from), `model.keras` (the best epoch, for generate.py)
and `log.csv`; at the end also sounds, pictures, `summary.txt`, which tells whether the model is healthy and accounts
for every file, and `index.html`, a page to listen on. With `--pages 10` such a page comes every ten epochs, and with
`--tensorboard` what `tensorboard --logdir my_music` shows.
"""

import argparse
import inspect
import logging
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras
import tensorflow as tf

from spectrovae import SpectrogramConverter, SpectroVAE, audio_dataset, dataset_report
from spectrovae.report.callbacks import ListeningPages, TensorBoardSounds
from spectrovae.report.folder import write_results
from spectrovae.training.optimizer import default_optimizer
from spectrovae.training.resumable import fit_resumably

MODEL_ARGUMENTS = ("latent_dim", "num_components", "decoder_depth", "width", "likelihood", "posterior", "latent_steps")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the settings that the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("audio", type=Path, nargs="+", help="folders or files")
    parser.add_argument("--output", type=Path, default="trained", help="folder to write to and to go on from")
    parser.add_argument("--epochs", type=int, default=50, help="in all, those of earlier runs included")
    parser.add_argument("--batch-size", type=int, default=16, help="windows per gradient step")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="after a warm-up of 100 steps")
    parser.add_argument("--validation-split", type=float, default=0.1, help="share that is held out; 0: nothing")
    parser.add_argument("--cache", default="disk", help='"disk", "memory", or a folder that the next run uses again')
    parser.add_argument("--loop-short-files", action="store_true", help="repeat files that are shorter than a window")
    parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
    parser.add_argument("--num-samples", type=int, default=5, help="sounds to generate at the end")
    parser.add_argument("--pages", type=int, help="epochs from one page to the next while training")
    parser.add_argument("--tensorboard", action="store_true", help="log curves, sounds and pictures for TensorBoard")
    parser.add_argument("--seed", type=int, default=None, help="decides the split, initial weights and all draws")
    model = parser.add_argument_group("model")
    model.add_argument("--latent-dim", type=int, help="size of a code")
    model.add_argument("--latent-steps", type=int, help="codes along a window; 32 want --latent-dim 32")
    model.add_argument("--num-components", type=int, help="Gaussians in the prior")
    model.add_argument("--decoder-depth", type=int, help="how often the decoder doubles its grid")
    model.add_argument("--width", type=int, help="channels of the decoder")
    model.add_argument("--likelihood", help='or "gaussian", "bernoulli", "continuous_bernoulli"')
    model.add_argument("--posterior", help='or "full"')
    defaults = {name: argument.default for name, argument in inspect.signature(SpectroVAE).parameters.items()}
    parser.set_defaults(**{name: defaults[name] for name in MODEL_ARGUMENTS})
    window = parser.add_argument_group("window")
    window.add_argument("--sample-rate", type=int, default=22050, help="Hz; half of it is the highest frequency")
    window.add_argument("--n-fft", type=int, default=1024, help="samples per frame")
    window.add_argument("--hop-length", type=int, default=256, help="samples between frames")
    window.add_argument("--num-frames", type=int, default=512, help="frames per window")
    return parser.parse_args(argv)


def make_callbacks(
    args: argparse.Namespace, train: tf.data.Dataset, validation: tf.data.Dataset | None
) -> list[keras.callbacks.Callback]:
    """Return what the command line asks to be shown while training."""
    held_out = train if validation is None else validation
    callbacks: list[keras.callbacks.Callback] = []
    if args.pages:
        originals = dataset_report(held_out).windows[:1]
        callbacks.append(ListeningPages(args.output, args.pages, args.num_samples, originals, train, cache=args.cache))
    if args.tensorboard:
        logs = args.output / "logs"
        callbacks += [keras.callbacks.TensorBoard(logs, write_graph=False), TensorBoardSounds(logs, held_out)]
    return callbacks


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the text above as it stands, and each option's default."""


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parse_arguments(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("spectrovae").setLevel(logging.INFO)  # what became of the files, and how far training is
    if args.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")

    converter = SpectrogramConverter(args.sample_rate, args.n_fft, args.hop_length, args.num_frames)
    datasets = audio_dataset(
        args.audio,
        converter,
        args.batch_size,
        args.validation_split,
        seed=args.seed,
        cache=args.cache,
        loop_short_files=args.loop_short_files,
    )
    train, validation = datasets if args.validation_split else (datasets, None)
    settings = {name: getattr(args, name) for name in (*MODEL_ARGUMENTS, "seed")}
    model = SpectroVAE(converter.window_shape, converter=converter, **settings)
    model.compile(default_optimizer(args.learning_rate))

    history = fit_resumably(model, args.output, train, validation, args.epochs, make_callbacks(args, train, validation))
    diagnosis = write_results(model, train, validation, history, args.output, args.num_samples, args.seed, args.cache)
    print(f"\n{args.output} holds model.keras, log.csv, sounds and pictures after {len(history['loss'])} epochs.")
    print(diagnosis)


if __name__ == "__main__":
    main()
