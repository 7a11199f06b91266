"""What a model that was trained on one collection saves on another: three ways to train, step by step, side by side.

    python tests/benchmarks/bench_continuing.py MODEL.keras FOLDER --seeds 0 1

`fresh` is a new model after `adapt`; `adapted` is the trained one after `adapt` to the new recordings, which keeps only
the convolutions; `kept` is the trained one as it is, with its prior fitted to the new recordings. Every fifth file is
held out. All ways take as many steps, since a step takes the same time in each.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from spectrovae import SpectroVAE, audio_dataset, default_optimizer
from spectrovae.audio.files import find_audio_files

WAYS = ("fresh", "adapted", "kept")
PARTS = 4  # points at which held-out windows are measured


def prepare(way: str, saved: Path, training: tf.data.Dataset, seed: int) -> SpectroVAE:
    """Return a compiled model that is ready to train."""
    model = keras.saving.load_model(saved, compile=False)
    if way == "fresh":
        model = SpectroVAE.from_config(model.get_config() | {"seed": seed})
    model.compile(default_optimizer())
    if way == "kept":
        model.refit_prior(training)
    else:
        model.adapt(training, verbose=0)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="trained on another collection")
    parser.add_argument("audio", type=Path, help="folder of recordings")
    parser.add_argument("--steps", type=int, default=132, help="of `fit`; so many take a minute on two cores")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--num-windows", type=int, default=64, help="held-out windows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--cache", default="disk", help="folder for decoded audio")
    arguments = parser.parse_args()

    converter = keras.saving.load_model(arguments.model, compile=False).converter
    files = find_audio_files(arguments.audio)
    held_out_files = files[2::5]
    train_files = [file for file in files if file not in held_out_files]
    points = " | ".join(f"after {part}/{PARTS}" for part in range(PARTS + 1))
    print(f"| way | seed | processor time before `fit` | {points} |")
    for seed in arguments.seeds:
        for way in arguments.ways:
            options = {"batch_size": arguments.batch_size, "cache": arguments.cache, "seed": seed, "verbose": 0}
            training = audio_dataset(train_files, converter, **options)
            options |= {"random_offset": False, "shuffle": True, "seed": 0}
            held_out = audio_dataset(held_out_files, converter, **options)
            batches = list(held_out.take(arguments.num_windows // arguments.batch_size))
            held_out = tf.data.Dataset.from_tensor_slices(tf.concat(batches, 0)).batch(arguments.batch_size)
            begin = time.process_time()
            model = prepare(way, arguments.model, training, seed)
            seconds = time.process_time() - begin
            windows = iter(training.repeat())
            scores = [model.evaluate(held_out, verbose=0, return_dict=True)]
            for _ in range(PARTS):
                model.fit(windows, steps_per_epoch=arguments.steps // PARTS, epochs=1, verbose=0)
                scores.append(model.evaluate(held_out, verbose=0, return_dict=True))
            cells = [f"{score['rmse_db']:.3f} dB ({score['loss'] / 2**18:.4f})" for score in scores]
            print(f"| {way} | {seed} | {seconds:.0f} s | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
