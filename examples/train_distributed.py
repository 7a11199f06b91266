"""Train a model on several machines; run again on all of them, continue where the training stopped.

    export TF_CONFIG='{"task": {"type": "worker", "index": 0},
                       "cluster": {"worker": ["10.0.0.1:9000", "10.0.0.2:9000"]}}'
    python examples/train_distributed.py my_recordings/ --output my_music --epochs 100

Run the same command on each machine, with its own `index`. Every machine needs the same recordings, at any path. Index
0 is the chief: it alone writes `my_music/`, with the same content as `spectrovae train`. If a machine is lost, the
others stop: start all again. Without `TF_CONFIG`, all GPUs of this machine are used.

    python examples/train_distributed.py my_recordings/ --launch 2

tries it on one machine, with two processes.
"""

import argparse
import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no messages about missing GPUs

import tensorflow as tf

from spectrovae import (
    SpectrogramConverter,
    SpectroVAE,
    audio_dataset,
    default_optimizer,
    fit_resumably,
    write_results,
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the settings that the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+", help="folders or files")
    parser.add_argument("--output", type=Path, default=Path("trained"), help="folder of the chief (%(default)s)")
    parser.add_argument("--epochs", type=int, default=50, help="in all, earlier runs included (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="windows per step, of all together (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="after 100 steps (%(default)s)")
    parser.add_argument("--validation-split", type=float, default=0.1, help="share that is held out (%(default)s)")
    parser.add_argument("--cache", default="disk", help='"disk", "memory", or a folder to use again (%(default)s)')
    parser.add_argument("--num-samples", type=int, default=5, help="sounds to generate at the end (%(default)s)")
    parser.add_argument("--seed", type=int, help="decides initial weights and all draws")
    parser.add_argument("--launch", type=int, metavar="N", help="start N workers on this machine, to try it")
    parser.add_argument("--latent-dim", type=int, default=32, help="size of a code (%(default)s)")
    parser.add_argument("--latent-steps", type=int, help="codes along a window (one for 16 frames)")
    parser.add_argument("--num-components", type=int, default=8, help="Gaussians in the prior (%(default)s)")
    parser.add_argument("--decoder-depth", type=int, default=2, help="how often the decoder doubles (%(default)s)")
    parser.add_argument("--width", type=int, default=512, help="channels of the decoder (%(default)s)")
    parser.add_argument("--sample-rate", type=int, default=22050, help="Hz (%(default)s)")
    parser.add_argument("--n-fft", type=int, default=1024, help="samples per frame (%(default)s)")
    parser.add_argument("--hop-length", type=int, default=256, help="samples between frames (%(default)s)")
    parser.add_argument("--num-frames", type=int, default=512, help="frames per window (%(default)s)")
    return parser.parse_args(argv)


def launch(num_processes: int, command: list[str]) -> int:
    """Run a command as so many workers on this machine; stop all when one fails, and return its exit code."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(num_processes)]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    processes = []
    try:
        for index in range(num_processes):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            processes.append(subprocess.Popen(command, env=os.environ | {"TF_CONFIG": json.dumps(config)}))
        end = math.inf
        while any(process.poll() is None for process in processes) and time.monotonic() < end:
            if any(process.poll() for process in processes):
                end = min(end, time.monotonic() + 60)  # time for the others to notice
            time.sleep(0.2)
        return next((process.returncode for process in processes if process.poll()), 0)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def make_strategy() -> tuple[tf.distribute.Strategy, bool]:
    """Return what trains on the machines of `TF_CONFIG` or the GPUs of this one, and whether this is the chief."""
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    if config.get("cluster"):
        return tf.distribute.MultiWorkerMirroredStrategy(), config["task"]["index"] == 0
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy(), True
    return tf.distribute.get_strategy(), True


def train(args: argparse.Namespace) -> None:
    """Train as one of the workers."""
    strategy, is_chief = make_strategy()  # before anything else of TensorFlow
    logging.basicConfig(format="%(message)s")
    logging.getLogger("spectrovae").setLevel(logging.INFO if is_chief else logging.ERROR)

    converter = SpectrogramConverter(args.sample_rate, args.n_fft, args.hop_length, args.num_frames)
    training, validation = audio_dataset(
        args.audio,
        converter,
        args.batch_size,
        args.validation_split,
        seed=args.seed,
        cache=args.cache,
        verbose=is_chief,
    )
    with strategy.scope():
        model = SpectroVAE(
            converter.window_shape,
            args.latent_dim,
            args.num_components,
            latent_steps=args.latent_steps,
            decoder_depth=args.decoder_depth,
            width=args.width,
            converter=converter,
            seed=args.seed,
        )
        model.compile(default_optimizer(args.learning_rate))
    history = fit_resumably(model, args.output, training, validation, args.epochs)
    if is_chief:
        diagnosis = write_results(
            model, training, validation, history, args.output, args.num_samples, args.seed, args.cache
        )
        print(
            f"\n{args.output} holds model.keras, log.csv, sounds and pictures after {len(history['loss'])} epochs on "
            f"{strategy.num_replicas_in_sync} devices.\n{diagnosis}"
        )


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    args = parse_arguments(argv)
    if not args.launch:
        train(args)
        return
    words = [str(word) for word in (sys.argv[1:] if argv is None else argv)]
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--launch")
    code = launch(args.launch, [sys.executable, __file__, *own.parse_known_args(words)[1]])
    if code:
        raise SystemExit(f"A worker has failed with exit code {code}. The same command continues where it stopped.")


if __name__ == "__main__":
    main()
