"""Kill decoding, and the writing of a page, again and again with SIGKILL at random moments, and see what is left.

    python tests/benchmarks/kill_files.py --kills 10 --seed 0

Recordings are decoded into a kept cache and into a temporary one; sounds, pictures and a page are written to a folder.
All the while another thread reads the files that can be seen. After each kill the next run has to complete. Ends with
status 1 if a file was ever seen half-written or wrong, a run failed, or something unfinished was left. Programs are
forked from one that has imported TensorFlow, so that the moments fall into the work.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import soundfile

from spectrovae import SpectrogramConverter, SpectroVAE, compose_collection, load_model
from spectrovae.audio.recordings import Recordings
from spectrovae.report.folder import write_windows
from spectrovae.report.page import PAGE, write_page

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32, num_iterations=2)
NUM_RECORDINGS = 8
NUM_SAMPLES = 3


def decode(place: Path) -> None:
    """Decode recordings into a kept cache and a temporary one."""
    (place / "begun").touch()
    for cache in (place / "cache", "disk"):
        Recordings(place / "music", CONVERTER, cache, verbose=0)


def write(place: Path) -> None:
    """Write the sounds and pictures of windows, and a page with all of them."""
    model = load_model(place / "model.keras")
    windows = np.random.default_rng(0).uniform(0, 0.7, (NUM_SAMPLES, 32, 32, 1))
    waveforms = 0.1 * np.random.default_rng(0).uniform(-1, 1, (NUM_SAMPLES, CONVERTER.window_length))
    codes = np.zeros((NUM_SAMPLES, 2), np.float32)
    (place / "begun").touch()
    write_windows(windows, CONVERTER, place / "output", waveforms=waveforms)
    history = {"loss": [2.0, 1.0]}
    write_page(place / "output" / PAGE, model, windows, list(waveforms), codes, history=history)


JOBS: dict[str, Callable[[Path], None]] = {"decode": decode, "write": write}


def run(job: Callable[[Path], None], place: Path) -> None:
    """Run a job in a forked program, which keeps its temporary files in a folder of its own."""
    tempfile.tempdir = str(place / "temporary")
    job(place)


def is_whole(path: Path) -> bool:
    """Return whether a file that can be seen is what it has to be."""
    content = path.read_bytes()
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False).shape[1] == CONVERTER.num_bins and len(content) > 100_000
    if path.suffix == ".json":
        return json.loads(content).keys() == {"notes", "floor", "gain"}
    if path.suffix == ".wav":
        return len(soundfile.read(path)[0]) == CONVERTER.window_length
    if path.suffix == ".png":
        return content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")
    return content.rstrip().endswith(b"</html>")


class Watched:
    """The folders of a job, which a thread looks at all the time."""

    def __init__(self, job: Callable[[Path], None], place: Path, context: ForkServerContext) -> None:
        self.job = job
        self.place = place
        self.context = context
        self.folder = place / ("cache" if job is decode else "output")
        self.num_reads = 0
        self.problems: list[str] = []
        self.lock = threading.Lock()  # held while files are looked at, or removed by this script itself

    def look(self) -> None:
        """Read all files that can be seen; a hidden one is in the making."""
        with self.lock:
            for path in sorted(self.folder.glob("[!.]*")):
                try:
                    if not is_whole(path):
                        self.problems.append(f"{path.name} is not whole")
                except Exception as error:
                    self.problems.append(f"{path.name}: {error!r}")
                self.num_reads += 1

    def look_on(self, stop: threading.Event) -> None:
        """Look again and again."""
        while not stop.wait(0.05):
            self.look()

    def start(self) -> multiprocessing.context.ForkServerProcess:
        """Start the job, and return when it has come to its work."""
        (self.place / "begun").unlink(missing_ok=True)
        process = self.context.Process(target=run, args=(self.job, self.place))
        process.start()
        while not (self.place / "begun").exists() and process.is_alive():
            time.sleep(0.002)
        return process

    def complete(self) -> float:
        """Run the job to its end, check what is there, and return the seconds of its work."""
        process, start = self.start(), time.monotonic()
        process.join()
        seconds = time.monotonic() - start
        if process.exitcode:
            self.problems.append(f"a run ended with status {process.exitcode}")
        names = [path.name for path in self.folder.iterdir()]
        expected = 2 * NUM_RECORDINGS if self.job is decode else 2 * NUM_SAMPLES + 1
        left = [name for name in names if name.startswith(".")]
        left += [path.name for path in (self.place / "temporary").iterdir() if not path.name.startswith("pymp-")]
        if len(names) != expected or left:
            self.problems.append(f"{len(names)} files, not {expected}; left behind: {left}")
        return seconds


def measure(job: Callable[[Path], None], kills: int, seed: int, place: Path) -> Watched:
    """Kill a job so often, each time followed by a run to its end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spectrovae.report.folder", "spectrovae.model.files", "spectrovae.synthesis"])
    watched, generator, stop = Watched(job, place, context), np.random.default_rng(seed), threading.Event()
    watcher = threading.Thread(target=watched.look_on, args=(stop,))
    watcher.start()
    try:
        seconds = watched.complete()
        for number in range(kills):
            with watched.lock:
                for path in sorted(watched.folder.iterdir()):
                    if job is decode or generator.random() < 0.5:  # else the earlier file is to be replaced
                        path.unlink()
            process = watched.start()
            time.sleep(generator.uniform(0, seconds))
            process.kill()
            process.join()
            num_seen, num_hidden = len(list(watched.folder.glob("[!.]*"))), len(list(watched.folder.glob(".*")))
            status = "killed" if process.exitcode == -signal.SIGKILL else "had ended"
            watched.look()
            watched.complete()
            seen = f"{num_seen} files could be seen, {num_hidden} were unfinished"
            print(f"{job.__name__} {number + 1}: {status}; {seen}; {len(watched.problems)} problems so far", flush=True)
    finally:
        stop.set()
        watcher.join()
    return watched


def prepare(place: Path) -> None:
    """Make music, a model and folders."""
    compose_collection(place / "music", num_pieces=NUM_RECORDINGS, duration=60.0, sample_rate=8000)
    SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, converter=CONVERTER, seed=0).save(
        place / "model.keras"
    )
    for name in ("temporary", "cache", "output"):
        (place / name).mkdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each job")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="what to kill (all)")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    arguments = parser.parse_args()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for job in (JOBS[name] for name in arguments.jobs):
            watched = measure(job, arguments.kills, arguments.seed, Path(folder))
            problems += watched.problems
            print(f"{job.__name__}: {arguments.kills} kills, {watched.num_reads} reads of files that can be seen")
    print("\n".join(problems[:20]) or "nothing was lost")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
