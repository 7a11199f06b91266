"""What training on several workers costs: bytes exchanged and time per step on loopback, and what follows for networks.

    python tests/benchmarks/bench_distributed.py --workers 1 2 4

Each worker is a process on this machine, and all share its cores, so that nothing is gained here; the batch of all
together stays the same, so that what a step takes longer than with one worker is the price of the exchange. Bytes are
those that the loopback device has carried, of other programs too. The second table is a calculation, not a measurement:
with N workers a step computes for `compute / N` and then adds up the gradients in a ring, in which every worker sends
2 (N - 1) / N times their bytes; the two do not overlap.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from spectrovae import SpectroVAE

WARM_UP = 2
NETWORKS = {"1 Gbit/s": 1e9, "10 Gbit/s": 1e10, "100 Gbit/s": 1e11}
LATENCY = 1e-4
"""Seconds for each of the 2 (N - 1) rounds of a ring."""


def step_seconds(compute: float, num_bytes: float, num_workers: int, bits_per_second: float) -> float:
    """Return the calculated seconds of a step whose batch takes one worker `compute` seconds."""
    rounds = 2 * (num_workers - 1)
    return compute / num_workers + rounds / num_workers * num_bytes * 8 / bits_per_second + rounds * LATENCY


def loopback_bytes() -> int:
    """Return how many bytes the loopback device has carried."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == "lo:")


class Meter(keras.callbacks.Callback):
    """Notes time and traffic after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[float, int]] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.notes.append((time.perf_counter(), loopback_bytes()))


def run_worker(size: int, width: int, batch_size: int, num_steps: int) -> dict[str, float]:
    """Train one of the workers, and return what a step cost."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = SpectroVAE((size, size, 1), latent_dim=100, width=width, seed=0)
        model.compile()
    model.num_adapted_windows.assign(1)  # the linear start is computed by one worker: no exchange to measure
    windows = np.random.default_rng(0).random((batch_size, size, size, 1), np.float32)
    dataset = tf.data.Dataset.from_tensors(windows).repeat(num_steps + WARM_UP + 1).unbatch().batch(batch_size)
    meter = Meter()
    model.fit(dataset, callbacks=[meter], verbose=0)
    times, traffic = np.array(meter.notes[WARM_UP:]).T
    num_bytes = sum(4 * int(np.prod(weight.shape)) for weight in model.trainable_variables)
    return {
        "gradient": num_bytes,
        "traffic": float(traffic[-1] - traffic[0]) / (len(traffic) - 1),
        "seconds": statistics.median(np.diff(times)),
    }


def measure(num_workers: int, arguments: list[str]) -> dict[str, float]:
    """Run so many workers, and return what the chief measured."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(num_workers)]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    command = [sys.executable, __file__, "--child", *arguments]
    processes = []
    try:
        for index in range(num_workers):
            config = json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
            environment = os.environ | {"TF_CONFIG": config}
            processes.append(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
        output, errors = processes[0].communicate(timeout=1800)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    rows = [line for line in output.splitlines() if line.startswith("{")]
    if not rows:
        raise RuntimeError(errors[-2000:])
    return json.loads(rows[0])


def print_table(rows: list[dict[str, object]]) -> None:
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers to try (%(default)s)")
    parser.add_argument("--size", type=int, default=512, help="bins and frames of a window (%(default)s)")
    parser.add_argument("--width", type=int, default=512, help="channels of the decoder (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, help="windows per step, of all together (%(default)s)")
    parser.add_argument("--num-steps", type=int, default=8, help="steps to measure (%(default)s)")
    parser.add_argument("--compute", type=float, nargs="+", help="seconds per step of one machine, to calculate with")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(run_worker(args.size, args.width, args.batch_size, args.num_steps)))
        return
    names = ("size", "width", "batch_size", "num_steps")
    arguments = [f"--{name.replace('_', '-')}={getattr(args, name)}" for name in names]
    results = {number: measure(number, arguments) for number in args.workers}
    gradient = next(iter(results.values()))["gradient"]
    print_table(
        [
            {
                "workers": number,
                "gradient": f"{gradient / 1e6:.1f} MB",
                "sent per worker and step": f"{result['traffic'] / number / 1e6:.1f} MB",
                "a ring sends": f"{2 * (number - 1) / number * gradient / 1e6:.1f} MB",
                "time per step": f"{result['seconds']:.2f} s",
            }
            for number, result in results.items()
        ]
    )
    print_table(
        [
            {"one machine's step": f"{compute:.2g} s", "network": network}
            | {
                f"{number} workers": f"{compute / step_seconds(compute, gradient, number, bits):.1f} times as fast"
                for number in (2, 4, 8)
            }
            for compute in args.compute or [next(iter(results.values()))["seconds"], 0.05]
            for network, bits in NETWORKS.items()
        ]
    )


if __name__ == "__main__":
    main()
