"""What a window costs as the data, the code and the window grow, and what `fit` adds to the bare gradient step.

    python tests/benchmarks/bench_scaling.py

Every row is a process of its own on windows of noise, which cost what music costs. `adapt` uses at most 1,536
windows. Memory is the peak of the process; "imports" is the peak before the model was built. The last
line times epochs of `fit` and of a plain loop over the compiled step in turns, in one process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
from bench_dataset import peak_memory

from spectrovae import SpectroVAE

BINS, BATCH_SIZE = 512, 16
BASE = {"num_windows": 128, "num_frames": 512, "latent_steps": 32, "latent_dim": 32}
OTHERS = (
    {"num_windows": 512},
    {"num_windows": 2048},
    {"num_frames": 1024},
    {"num_frames": 2048},
    {"latent_steps": 8},
    {"latent_steps": 64},
    {"latent_dim": 128},
    {"latent_steps": 1, "latent_dim": 100},
    {"latent_steps": 1, "latent_dim": 1024},
    {"latent_steps": 1, "latent_dim": 4096},
)


def noise_dataset(num_windows: int, num_frames: int) -> tf.data.Dataset:
    """Return batches cut from a short field of noise, so that memory is the model's."""
    field = tf.constant(np.random.default_rng(0).random((BINS, 2 * num_frames, 1), np.float32))

    def window(index: tf.Tensor) -> tf.Tensor:
        start = tf.cast(index * 37 % num_frames, tf.int32)
        return tf.ensure_shape(field[:, start : start + num_frames], (BINS, num_frames, 1))

    return tf.data.Dataset.range(num_windows).map(window).batch(BATCH_SIZE, drop_remainder=True)


def build(num_frames: int, latent_steps: int, latent_dim: int) -> SpectroVAE:
    model = SpectroVAE((BINS, num_frames, 1), latent_dim=latent_dim, latent_steps=latent_steps, seed=0)
    model.compile()
    return model


def measure(num_windows: int, **sizes: int) -> dict[str, float]:
    """Return the costs of one setting."""
    row = {"windows": num_windows, **sizes, "imports MB": peak_memory()}
    dataset = noise_dataset(num_windows, sizes["num_frames"])
    model = build(**sizes)
    start = time.perf_counter()
    model.adapt(dataset, verbose=0)
    row["adapt s"] = time.perf_counter() - start
    row["after adapt MB"] = peak_memory()
    model.fit(dataset.take(2), verbose=0)  # traces the step
    start = time.perf_counter()
    model.fit(dataset, verbose=0)
    row["fit ms per window"] = 1000 * (time.perf_counter() - start) / num_windows
    start = time.perf_counter()
    model.encode(dataset)
    row["encode ms per window"] = 1000 * (time.perf_counter() - start) / num_windows
    start = time.perf_counter()
    model.generate(32, seed=0)
    row["generate ms per window"] = 1000 * (time.perf_counter() - start) / 32
    return row | {"peak MB": peak_memory()}


def measure_overhead(num_rounds: int, num_steps: int = 16) -> float:
    """Return the time of an epoch of `fit` over that of the bare compiled step, the median of rounds taken in turns."""
    dataset = noise_dataset(num_steps * BATCH_SIZE, BASE["num_frames"]).cache()
    model = build(**{name: size for name, size in BASE.items() if name != "num_windows"})
    model.fit(dataset, verbose=0)
    step = tf.function(model.train_step)
    step(next(iter(dataset)))
    ratios = []
    for _ in range(num_rounds):
        start = time.perf_counter()
        for batch in dataset:
            step(batch)
        middle = time.perf_counter()
        model.fit(dataset, verbose=0)
        ratios.append((time.perf_counter() - middle) / (middle - start))
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each kind for the comparison of steps")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(**json.loads(arguments.row))))
        return
    for number, setting in enumerate([BASE, *(BASE | other for other in OTHERS)]):
        command = [sys.executable, __file__, "--row", json.dumps(setting)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(output.stdout.splitlines()[-1])
        if not number:
            print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
        print("| " + " | ".join(f"{value:.4g}" for value in row.values()) + " |", flush=True)
    print(f"An epoch of fit takes {measure_overhead(arguments.rounds):.3f} of the time of the bare steps.")


if __name__ == "__main__":
    main()
