"""Long loads: thousands of files, a day of sound, hundreds of epochs. Memory and open files have to stay flat.

    python tests/benchmarks/bench_load.py files epochs hours

`files` decodes 5,000 short files and walks over them; `hours` decodes 24 copies of an hour of noise, which takes 8 GB
of disk, and walks over their windows; `epochs` trains a tiny model for 200 epochs and saves each. Each load is its own
process. Growth is that of the resident memory from the second tenth of a phase, when all is imported and traced, to
the last one. Ends with status 1 if it is over 5 %, or if files stay open.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import soundfile

from spectrovae import SpectrogramConverter, SpectroVAE, audio_dataset, dataset_report
from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import Recordings
from spectrovae.training.resumable import fit_resumably

SMALL = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)


def resident_memory() -> float:
    """Return the resident memory of this process in MB; files that are mapped do not count."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


def num_open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


Measure = Callable[[str], None]


def load_files(folder: Path, count: int, measure: Measure) -> None:
    """Decode many short files, group by group, then walk over all of them."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{index:05d}.wav" for index in range(count)]
    for path in paths:
        write_audio(path, generator.uniform(-0.5, 0.5, generator.integers(1000, 12000)), 8000)
    size = max(1, count // 20)
    for start in range(0, count, size):
        Recordings(paths[start : start + size], SMALL, folder / "cache", verbose=0)
        measure("decode")
    dataset = audio_dataset(paths, SMALL, 64, cache=folder / "cache", verbose=0)
    if len(dataset_report(dataset).used) != count:
        raise RuntimeError(f"Not all files are used: {dataset_report(dataset)}")
    for _ in range(20):
        for _ in dataset:
            pass
        measure("walk over")


def load_hours(folder: Path, count: int, measure: Measure) -> None:
    """Decode hours of sound with the default converter, one by one, then walk over all their windows."""
    generator = np.random.default_rng(0)
    paths = [folder / f"{index:02d}.flac" for index in range(count)]
    with soundfile.SoundFile(paths[0], "w", 22050, 1) as file:
        minute = generator.uniform(-0.1, 0.1, 60 * 22050)
        for _ in range(60):
            file.write(np.roll(minute, generator.integers(len(minute))))
    for path in paths[1:]:
        shutil.copyfile(paths[0], path)
    for path in paths:
        Recordings(path, SpectrogramConverter(), folder / "cache", verbose=0)
        measure("decode")
    dataset = audio_dataset(paths, batch_size=16, cache=folder / "cache", verbose=0)
    for number, _ in enumerate(dataset):
        if number % 20 == 19:
            measure("walk over")


def load_epochs(folder: Path, count: int, measure: Measure) -> None:
    """Train a tiny model for many epochs as `fit_resumably` does, with validation and saving."""
    windows = np.random.default_rng(0).random((96, 32, 32, 1), np.float32)
    model = SpectroVAE((32, 32, 1), latent_dim=4, num_components=2, decoder_depth=2, width=8, seed=0)
    model.compile()
    watcher = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: measure("train"))
    fit_resumably(model, folder, windows[:64], windows[64:], count, [watcher], verbose=0, batch_size=16)


LOADS = {"files": (load_files, 5000), "hours": (load_hours, 24), "epochs": (load_epochs, 200)}


def run(name: str, count: int) -> None:
    """Run one load in this process and print its figures."""
    logging.disable()
    begin = time.perf_counter()
    phases: dict[str, list[tuple[float, int]]] = {}

    def measure(phase: str) -> None:
        phases.setdefault(phase, []).append((resident_memory(), num_open_files()))

    with tempfile.TemporaryDirectory() as folder:
        LOADS[name][0](Path(folder), count, measure)
    for phase, rows in phases.items():
        memory, files = np.array(rows).T
        tenth = max(1, len(rows) // 10)
        # The median of some: single values differ by what the allocator holds at the moment.
        first, last = np.median(memory[tenth : 2 * tenth]), np.median(memory[-tenth:])
        row = {"load": f"{count} {name}", "phase": phase, "MB at first": round(first), "MB at last": round(last)}
        row |= {"growth %": round(100 * (last / first - 1), 1), "open files more": int(files[-1] - files[tenth])}
        print(json.dumps(row | {"s in all": round(time.perf_counter() - begin)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("loads", nargs="*", choices=[*LOADS, []], help="by default files and epochs")
    parser.add_argument("--count", type=int, help="files, hours or epochs, instead of 5000, 24 and 200")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    loads = args.loads or ["files", "epochs"]
    if args.child:
        run(loads[0], args.count)
        return
    rows = []
    for name in loads:
        command = [sys.executable, __file__, name, "--child", "--count", str(args.count or LOADS[name][1])]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows += [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")
    sys.exit(any(row["growth %"] > 5 or row["open files more"] > 0 for row in rows))


if __name__ == "__main__":
    main()
