"""Feed the reader mutated audio files, and see that each ends as used or with a reason.

    python tests/benchmarks/fuzz_audio.py --num-files 10000 --seed 0

File `i` depends on the seed and `i` only. A child process reads the files; if it crashes, hangs or raises, the parent
keeps the file in `--keep`, names it, and goes on with the next one. Ends with status 1 if anything went wrong.
"""

import argparse
import collections
import logging
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from hostile_audio import CONVERTER, encode, music, mutate, seed_contents

SECONDS_PER_FILE = 20


def make_file(folder: Path, seed: int, index: int) -> Path:
    """Write the mutated file of that number."""
    generator = np.random.default_rng([seed, index])
    contents = seed_contents()
    name = list(contents)[generator.integers(len(contents))]
    path = folder / f"{index} {name}"
    path.write_bytes(mutate(contents[name], generator))
    return path


def read_files(folder: Path, seed: int, first: int, last: int) -> None:
    """Read files one by one beside a good one; a line for each says what became of it."""
    from spectrovae.audio.recordings import Recordings

    logging.disable()
    good = folder / "good.wav"
    good.write_bytes(encode(music()))
    for index in range(first, last):
        print(f"{index}", end=" ", flush=True)
        path = make_file(folder, seed, index)
        signal.alarm(SECONDS_PER_FILE)  # ends the process, even inside a library
        recordings = Recordings([good, path], CONVERTER, "memory", verbose=0)
        signal.alarm(0)
        report = recordings.report
        used, left_out = [file.path for file in report.used], [file.path for file in report.left_out]
        if sorted([*used, *left_out]) != sorted([good, path]) or good not in used:
            raise RuntimeError(f"Not accounted for: {report}")
        for position, recording in enumerate(report.used):
            frames = recordings.frames(position, 0, recording.num_frames)
            if not (np.isfinite(frames).all() and frames.min() >= 0 and frames.max() <= 1):
                raise RuntimeError(f"Frames outside [0, 1]: {path}")
        path.unlink()
        outcome = "used" if path in used else report.left_out[0].reason.split(":")[0]
        print(f"{outcome}|{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for files that went wrong; by default a temporary one")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    last = args.first + args.num_files
    if args.child:
        read_files(args.child, args.seed, args.first, last)
        return
    keep = args.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    outcomes: collections.Counter[str] = collections.Counter()
    memory: list[int] = []
    failures = 0
    index = args.first
    while index < last:
        command = [sys.executable, __file__, "--first", str(index), "--num-files", str(last - index)]
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as messages:
            command += ["--seed", str(args.seed), "--child", folder]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True) as process:
                for line in process.stdout:
                    number, _, rest = line.strip().partition(" ")
                    index = int(number) + bool(rest)
                    if rest:
                        outcome, _, peak = rest.partition("|")
                        outcomes[outcome] += 1
                        memory.append(int(peak))
                        if not index % 1000:
                            print(f"{index} files, {failures} went wrong, peak memory {peak} MB", flush=True)
            if process.returncode:
                failures += 1
                messages.seek(0)
                last_line = messages.read().decode(errors="replace").strip().rpartition("\n")[2]
                path = make_file(keep, args.seed, index)
                status = process.returncode
                cause = signal.Signals(-status).name if status < 0 else last_line
                print(f"{path}: {'hang' if status == -signal.SIGALRM else cause}", flush=True)
                index += 1
    print("| " + " | ".join(["files", *outcomes, "crash, hang or error", "peak memory MB, first to last"]) + " |")
    print("|" + "---|" * (len(outcomes) + 3))
    figures = [args.num_files, *outcomes.values(), failures, f"{memory[0]} to {memory[-1]}" if memory else "-"]
    print("| " + " | ".join(map(str, figures)) + " |")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
