"""Cost of the data: decoding, reading and memory, for one file and for a whole folder.

    python tests/benchmarks/bench_dataset.py --audio FOLDER

Every row is a process of its own. Memory is the peak of the process in MB; "imports" is the peak before any file
was read, most of it TensorFlow. Compare the rows of one run: machines differ.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from spectrovae import audio_dataset, dataset_report
from spectrovae.audio.files import find_audio_files


def peak_memory() -> float:
    """Return the peak memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(paths: list[str], num_epochs: int) -> dict[str, float]:
    """Decode files into a temporary cache and walk over their windows."""
    row = {"imports MB": peak_memory()}
    start = time.perf_counter()
    dataset = audio_dataset(paths, verbose=0)
    report = dataset_report(dataset)
    row |= {"files": len(report.used), "minutes of sound": report.seconds / 60}
    row["decoding s"] = time.perf_counter() - start
    row["after decoding MB"] = peak_memory()
    start = time.perf_counter()
    num_windows = sum(batch.shape[0] for _ in range(num_epochs) for batch in dataset)
    row["windows/s"] = num_windows / (time.perf_counter() - start)
    row["after reading MB"] = peak_memory()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", required=True, help="folder of recordings")
    parser.add_argument("--epochs", type=int, default=3, help="walks over the windows")
    parser.add_argument("--first", type=int, default=0, help="use only that many files, in this process")
    arguments = parser.parse_args()
    paths = [str(path) for path in find_audio_files(arguments.audio)]
    if arguments.first:
        print(json.dumps(measure(paths[: arguments.first], arguments.epochs)))
        return
    rows = []
    for num_files in (1, len(paths)):
        command = [sys.executable, __file__, "--audio", arguments.audio, "--epochs", str(arguments.epochs)]
        output = subprocess.run([*command, "--first", str(num_files)], check=True, capture_output=True, text=True)
        rows.append(json.loads(output.stdout.splitlines()[-1]))
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{value:.0f}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
