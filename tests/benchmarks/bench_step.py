"""How far a training step of the default model is from what the machine can do.

    python tests/benchmarks/bench_step.py
    python tests/benchmarks/bench_step.py --give-back

Prints the median time of a step on 16 windows; that of its matrix products alone (forward, and both products of their
gradients) at the speed that TensorFlow reaches on plain products of the same sizes; and that of moving what the
likelihood must read and write at least once (mean, scale and window, and the gradients of the first two) at the speed
of a copy. With `--give-back` memory is given back after each operation, as the C library does by itself.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from spectrovae import SpectroVAE
from spectrovae.model.layers import SeparableDense, SeparableDenseTranspose
from spectrovae.training.memory import keep_freed_memory

BATCH_SIZE = 16


def median_time(function: Callable[[], object], num_runs: int = 12) -> float:
    """Return the median seconds of a call, after two to warm up."""
    times = []
    for _ in range(num_runs + 2):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def matrix_products(network: keras.Model, inputs: tf.Tensor) -> Iterator[tuple[int, int, int]]:
    """Yield rows, inner size and columns of each product of a network."""
    layers = [layer for layer in network.layers if layer.weights]
    shapes = keras.Model(network.input, [(layer.input, layer.output) for layer in layers])(inputs)
    for layer, (given, result) in zip(layers, shapes, strict=True):
        if isinstance(layer, SeparableDense):
            yield int(np.prod(given.shape[:-1])), *layer.spectral_kernel.shape
        elif isinstance(layer, SeparableDenseTranspose):
            yield int(np.prod(result.shape[:-1])), *layer.spectral_kernel.shape
        elif hasattr(layer, "kernel"):
            kernel = layer.kernel.shape
            yield int(np.prod(result.shape[:-1])), int(np.prod(kernel[:-1])), kernel[-1]


def time_of_products(products: list[tuple[int, int, int]]) -> float:
    """Return the seconds that products and the two of each one's gradient take, in one graph."""
    operands = [
        (tf.random.normal((rows, inner)), tf.random.normal((inner, columns)), tf.random.normal((rows, columns)))
        for rows, inner, columns in products
    ]

    @tf.function
    def multiply() -> list[tf.Tensor]:
        return [
            product
            for inputs, kernel, upstream in operands
            for product in (
                inputs @ kernel,
                tf.matmul(inputs, upstream, transpose_a=True),
                tf.matmul(upstream, kernel, transpose_b=True),
            )
        ]

    return median_time(multiply)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--give-back", action="store_true", help="give memory back after each operation")
    options = parser.parse_args()
    if not options.give_back:
        keep_freed_memory()
    keras.utils.set_random_seed(0)
    model = SpectroVAE(seed=0)
    model.compile()
    windows = tf.random.uniform((BATCH_SIZE, *model.input_shape))
    step = tf.function(model.train_step)
    of_step = median_time(lambda: step(windows))
    codes = tf.zeros((BATCH_SIZE, *model.code_shape))
    products = [*matrix_products(model.encoder, windows), *matrix_products(model.decoder, codes)]
    of_products = time_of_products(products)
    operations = 3 * sum(2 * rows * inner * columns for rows, inner, columns in products)
    pixels = np.zeros(BATCH_SIZE * int(np.prod(model.input_shape)), np.float32)
    target = np.empty_like(pixels)
    of_copy = median_time(lambda: np.copyto(target, pixels))
    num_bytes = 5 * pixels.nbytes
    bandwidth = 2 * pixels.nbytes / of_copy
    print("| | time | |\n|---|---|---|")
    print(f"| a step | {1000 * of_step:.0f} ms | {BATCH_SIZE / of_step:.0f} windows/s |")
    print(
        f"| its matrix products | {1000 * of_products:.0f} ms | {operations / 1e9:.1f} billion operations at "
        f"{operations / of_products / 1e9:.0f} GFLOP/s |"
    )
    print(
        f"| the likelihood's memory | {1000 * num_bytes / bandwidth:.0f} ms | {num_bytes / 1e6:.0f} MB at "
        f"{bandwidth / 1e9:.1f} GB/s |"
    )
    print(f"| the step over both | {of_step / (of_products + num_bytes / bandwidth):.1f} times | |")
    print(f"| over the products | {of_step / of_products:.1f} times | |")


if __name__ == "__main__":
    main()
