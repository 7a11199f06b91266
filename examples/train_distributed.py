"""Train a SpectroVAE on several machines; started again on all of them, it goes on where it stopped.

The same line runs on each machine, and the environment variable `TF_CONFIG` tells which one it is:

    export TF_CONFIG='{"task": {"type": "worker", "index": 0},
                       "cluster": {"worker": ["10.0.0.1:9000", "10.0.0.2:9000"]}}'
    python examples/train_distributed.py my_recordings/ --output my_music --epochs 100

Every machine needs the same recordings, at any path. The first one, index 0, is the chief: it alone writes
`my_music/`, with what `train.py` writes there. A machine that is lost ends the others: start all again. Without
`TF_CONFIG`, all GPUs of this machine are used.

    python examples/train_distributed.py my_recordings/ --launch 2

tries it on one machine, with two processes.
"""

import argparse
import inspect
import json
import logging
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras
import tensorflow as tf

from spectrovae import SpectrogramConverter, SpectroVAE, audio_dataset
from spectrovae.report.folder import write_results
from spectrovae.training.distributed import is_chief, num_workers
from spectrovae.training.optimizer import default_optimizer
from spectrovae.training.resumable import fit_resumably

MODEL_ARGUMENTS = ("latent_dim", "latent_steps", "num_components", "decoder_depth", "width")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the settings that the command line gives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+", help="folders or files")
    parser.add_argument("--output", type=Path, default="trained", help="folder of the chief (%(default)s)")
    parser.add_argument("--epochs", type=int, default=50, help="in all, those of earlier runs included (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="windows per step, of all together (%(default)s)")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="after 100 steps (%(default)s)")
    parser.add_argument("--validation-split", type=float, default=0.1, help="share that is held out (%(default)s)")
    parser.add_argument("--cache", default="disk", help='"disk", "memory", or a folder to use again (%(default)s)')
    parser.add_argument("--mixed-precision", action="store_true", help="compute in bfloat16")
    parser.add_argument("--num-samples", type=int, default=5, help="sounds to generate at the end (%(default)s)")
    parser.add_argument("--seed", type=int, help="decides initial weights and all draws")
    parser.add_argument("--launch", type=int, metavar="N", help="start N workers on this machine, to try it")
    model = parser.add_argument_group("model")
    model.add_argument("--latent-dim", type=int, help="size of a code (%(default)s)")
    model.add_argument("--latent-steps", type=int, help="codes along a window (%(default)s)")
    model.add_argument("--num-components", type=int, help="Gaussians in the prior (%(default)s)")
    model.add_argument("--decoder-depth", type=int, help="how often the decoder doubles its grid (%(default)s)")
    model.add_argument("--width", type=int, help="channels of the decoder (%(default)s)")
    defaults = {name: argument.default for name, argument in inspect.signature(SpectroVAE).parameters.items()}
    parser.set_defaults(**{name: defaults[name] for name in MODEL_ARGUMENTS})
    window = parser.add_argument_group("window")
    window.add_argument("--sample-rate", type=int, default=22050, help="Hz (%(default)s)")
    window.add_argument("--n-fft", type=int, default=1024, help="samples per frame (%(default)s)")
    window.add_argument("--hop-length", type=int, default=256, help="samples between frames (%(default)s)")
    window.add_argument("--num-frames", type=int, default=512, help="frames per window (%(default)s)")
    return parser.parse_args(argv)


def launch(num_processes: int, command: list[str]) -> int:
    """Run a command as so many workers on this machine; end all when one fails, and return its exit code."""
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
                end = min(end, time.monotonic() + 60)  # in which the others find out by themselves
            time.sleep(0.2)
        return next((process.returncode for process in processes if process.poll()), 0)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def make_strategy() -> tf.distribute.Strategy:
    """Return what trains on all that there is: the machines of `TF_CONFIG`, or the GPUs of this one."""
    if json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster"):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = parse_arguments(argv)
    if args.launch:
        words = [str(word) for word in (sys.argv[1:] if argv is None else argv)]
        own = argparse.ArgumentParser(add_help=False)
        own.add_argument("--launch")
        code = launch(args.launch, [sys.executable, __file__, *own.parse_known_args(words)[1]])
        if code:
            raise SystemExit(f"A worker has failed with exit code {code}. The same line goes on where it stopped.")
        return
    strategy = make_strategy()  # before anything else of TensorFlow
    chief = is_chief(strategy)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("spectrovae").setLevel(logging.INFO if chief else logging.ERROR)
    if args.mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")

    converter = SpectrogramConverter(args.sample_rate, args.n_fft, args.hop_length, args.num_frames)
    datasets = audio_dataset(
        args.audio, converter, args.batch_size, args.validation_split, seed=args.seed, cache=args.cache, verbose=chief
    )
    train, validation = datasets if args.validation_split else (datasets, None)
    with strategy.scope():
        settings = {name: getattr(args, name) for name in MODEL_ARGUMENTS}
        model = SpectroVAE(converter.window_shape, converter=converter, seed=args.seed, **settings)
        model.compile(default_optimizer(args.learning_rate))
    history = fit_resumably(model, args.output, train, validation, args.epochs)
    if chief:
        diagnosis = write_results(
            model, train, validation, history, args.output, args.num_samples, args.seed, args.cache
        )
        print(
            f"\n{args.output} holds model.keras, log.csv, sounds and pictures after {len(history['loss'])} epochs on "
            f"{num_workers(strategy)} machines with {strategy.num_replicas_in_sync} devices.\n{diagnosis}"
        )


if __name__ == "__main__":
    main()
