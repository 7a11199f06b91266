"""What 44.1 kHz costs beside 22.05: time, memory and error, below 11 kHz and above.

python tests/benchmarks/bench_rates.py FOLDER 44100 --steps 60
"""

import argparse
import os
import resource
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from spectrovae import SpectrogramConverter, SpectroVAE, audio_dataset
from spectrovae.audio.files import find_audio_files

CONVERTERS = {22050: SpectrogramConverter, 44100: SpectrogramConverter.full_band}


def errors(windows: np.ndarray, others: np.ndarray, converter: SpectrogramConverter) -> str:
    """Return the RMSE in dB of all bins, and of those below and from 11,025 Hz on."""
    squares = np.square(converter.dynamic_range * (windows - others))
    is_low = converter.frequencies < 11025
    parts = [squares, squares[:, is_low]] + ([] if is_low.all() else [squares[:, ~is_low]])
    return ", ".join(f"{np.sqrt(part.mean()):.2f} dB" for part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, help="folder of recordings")
    parser.add_argument("rate", type=int, choices=CONVERTERS)
    parser.add_argument("--steps", type=int, default=60, help="of `fit`, with 16 windows each")
    parser.add_argument("--cache", default="disk", help="folder for decoded audio")
    arguments = parser.parse_args()

    converter = CONVERTERS[arguments.rate]()
    files = find_audio_files(arguments.audio)
    held_out_files = files[2::5]
    options = {"batch_size": 16, "cache": arguments.cache, "seed": 0, "verbose": 0}
    training = audio_dataset([file for file in files if file not in held_out_files][::2], converter, **options)
    held_out = audio_dataset(held_out_files[:4], converter, **options | {"random_offset": False, "shuffle": True})
    windows = np.concatenate(list(held_out.take(3)))
    model = SpectroVAE(converter.window_shape, converter=converter, seed=0)
    model.compile()
    print("weights", model.encoder.count_params() + model.decoder.count_params())
    mean = np.concatenate(list(training.take(8))).mean(axis=(0, 2), keepdims=True)
    print("mean spectrum", errors(windows, mean, converter))

    begin = time.process_time()
    model.adapt(training, verbose=0)
    print(f"adapt {time.process_time() - begin:.0f} s", errors(windows, model.reconstruct(windows), converter))
    batches = iter(training.repeat())
    model.fit(batches, steps_per_epoch=1, verbose=0)  # compiles
    begin = time.process_time()
    model.fit(batches, steps_per_epoch=arguments.steps, verbose=0)
    seconds = (time.process_time() - begin) / arguments.steps
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"step {seconds:.1f} s, {memory:.1f} GB", errors(windows, model.reconstruct(windows), converter))
    sound = converter.to_audio(windows[:8], seed=0)
    print("phases alone", errors(windows[:8], converter.to_spectrogram(sound), converter))


if __name__ == "__main__":
    main()
