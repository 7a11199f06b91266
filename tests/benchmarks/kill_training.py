"""Kill one training again and again with SIGKILL, and compare what it ends with to trainings that ran in peace.

    python tests/benchmarks/kill_training.py --kills 20 --seed 0

`spectrovae train` trains a small model on composed music, each time in a program that is forked from one that has
imported TensorFlow. Most kills come at a random moment of an epoch or of its saving, some at a random moment of the
start. All the while another thread reads the two model files; after each kill they are loaded. Ends with status 1 if an
epoch was done twice without need, a file could not be read, something unfinished was left, or the last validation loss
is further from those of the undisturbed trainings than they are from each other, or than a quarter of what training
gained: by so much three of them differed.
"""

import argparse
import atexit
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
import zipfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from spectrovae.commands import main as run_command
from spectrovae.synthesis import compose_collection
from spectrovae.training.resumable import CHECKPOINT_FILE, MODEL_FILE, read_history

SETTINGS = "--sample-rate 8000 --n-fft 64 --hop-length 16 --num-frames 32 --latent-dim 4 --num-components 2 "
SETTINGS += "--decoder-depth 2 --width 8 --batch-size 16 --validation-split 0.3 --num-samples 2"

PRELOADED = ["spectrovae.model.spectrovae", "spectrovae.report.folder", "spectrovae.training.resumable"]


def train(words: list[str], temporary: Path, log: Path) -> None:
    """Run the command in this process, which has just been forked."""
    tempfile.tempdir = str(temporary)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    status = run_command(words)
    atexit._run_exitfuncs()  # which forked programs do not call
    sys.exit(status)


class Training:
    """A training in a folder that is started and killed."""

    def __init__(self, music: Path, folder: Path, epochs: int, options: str) -> None:
        self.folder = folder
        self.epochs = epochs
        self.temporary = folder.with_name(f"{folder.name}_tmp")
        self.temporary.mkdir(parents=True)
        self.words = ["train", str(music), "--output", str(folder), "--epochs", str(epochs)]
        self.words += f"{SETTINGS} {options}".split()
        self.num_reads = 0
        self.errors: list[str] = []
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)

    def start(self) -> ForkServerProcess:
        """Start the program; its log goes to a file beside the folder."""
        arguments = (self.words, self.temporary, self.folder.with_suffix(".log"))
        process = self.context.Process(target=train, args=arguments)
        process.start()
        return process

    def run(self) -> None:
        """Train to the end."""
        process = self.start()
        process.join()
        if process.exitcode:
            log = self.folder.with_suffix(".log").read_text()
            raise RuntimeError(f"Training ended with status {process.exitcode}: {log[-2000:]}")

    def num_epochs(self) -> int:
        """Return how many epochs are done, by the checkpoint."""
        return len(read_history(self.folder).get("loss", []))

    def check_files(self, load: bool) -> None:
        """Read the model files as they are at this moment; note what is wrong with them."""
        for path in (self.folder / CHECKPOINT_FILE, self.folder / MODEL_FILE):
            if not path.exists():
                continue
            try:
                if load:
                    keras.saving.load_model(path)
                with zipfile.ZipFile(path) as archive:
                    if damaged := archive.testzip():
                        raise ValueError(f"{damaged} is damaged")
                self.num_reads += 1
            except Exception as error:
                self.errors.append(f"{path.name}: {error!r}")

    def kill(self, generator: np.random.Generator, in_start: bool) -> None:
        """Start the program and kill it at a random moment: of its start, or of the first epochs that follow."""
        target = self.num_epochs() + (0 if in_start else generator.integers(1, 5))
        process = self.start()
        seconds_per_epoch, last = 0.5, time.monotonic()
        while (done := self.num_epochs()) < target and process.is_alive():
            time.sleep(0.01)
            if self.num_epochs() > done:
                seconds_per_epoch, last = time.monotonic() - last, time.monotonic()
        time.sleep(generator.uniform(0, 8 if in_start else min(2, 1.5 * seconds_per_epoch)))
        process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"The training ended before it was killed: raise --epochs above {self.epochs}.")
        self.check_files(load=True)

    def leftovers(self) -> list[str]:
        """Return what is unfinished in the folder, or temporary beside it."""
        return [path.name for place in (self.folder, self.temporary) for path in place.glob("*spectrovae-*")]


def measure(
    kills: int, epochs: int, seed: int, num_references: int, place: Path, duration: float = 8.0, options: str = ""
) -> dict[str, Any]:
    """Kill a training, let others run in peace, and return what became of them."""
    music = place / "music"
    compose_collection(music, num_pieces=6, duration=duration, sample_rate=8000)
    killed = Training(music, place / "killed", epochs, options)
    generator = np.random.default_rng(seed)
    done: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            killed.check_files(load=False)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(kills):
            killed.kill(generator, in_start=number % 4 == 3)
            done.append(killed.num_epochs())
            print(f"kill {number + 1}: {done[-1]} epochs are done", file=sys.stderr, flush=True)
        killed.run()
    finally:
        stop.set()
        watcher.join()
    references = [Training(music, place / f"peace_{number}", epochs, options) for number in range(num_references)]
    for reference in references:
        reference.run()
    losses = [read_history(reference.folder)["val_loss"] for reference in references]
    history = read_history(killed.folder)
    log = killed.folder.with_suffix(".log").read_text()
    return {
        "kills": kills,
        "epochs": len(history["val_loss"]),
        "epochs done after each kill": done,
        "reads of model files": killed.num_reads,
        "errors": killed.errors,
        "leftovers": killed.leftovers(),
        "begun epochs": len(re.findall(r"^Epoch \d+/\d+", log, re.MULTILINE)),
        "val_loss": history["val_loss"][-1],
        "val_loss in peace": [values[-1] for values in losses],
        "gain in peace": losses[0][0] - losses[0][-1] if losses else None,
        "gain": history["val_loss"][0] - history["val_loss"][-1],
        "largest loss of an epoch": max(np.diff(history["val_loss"]), default=0.0),
    }


def faults(result: dict[str, Any], epochs: int) -> list[str]:
    """Return what is wrong with a result."""
    losses, done = result["val_loss in peace"], result["epochs done after each kill"]
    if losses:
        # Undisturbed trainings differ by up to a quarter of what they gain; a single one may lie on either side.
        noise = max(max(losses) - min(losses), (0.25 if len(losses) > 1 else 0.5) * result["gain in peace"])
        is_as_good = result["val_loss"] - max(losses) <= noise
    else:  # what training has gained stays gained
        is_as_good = result["gain"] > 0 and result["largest loss of an epoch"] <= 0.25 * result["gain"]
    checks = {
        "epochs are missing": result["epochs"] == epochs,
        "epochs got lost": done == sorted(done),
        "more than one epoch a kill was done again": result["begun epochs"] <= epochs + result["kills"],
        "a model file could not be read": not result["errors"],
        "unfinished files were left": not result["leftovers"],
        "the loss is worse": is_as_good,
    }
    return [fault for fault, is_fine in checks.items() if not is_fine]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--references", type=int, default=3, help="trainings in peace")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args.kills, args.epochs, args.seed, args.references, Path(folder))
    print(json.dumps(result, indent=2))
    found = faults(result, args.epochs)
    print("\n".join(found) or "nothing lost")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
