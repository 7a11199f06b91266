"""Cost of a sweep: its memory over many trials, and what a second worker brings.

    python tests/benchmarks/bench_sweep.py memory                     # on composed music
    python tests/benchmarks/bench_sweep.py workers --audio FOLDER --max-trials 8 --epochs 3

`memory` runs a sweep in this process. It prints the memory of this process after each trial and its report, in MB, and
the peak memory of the trials' processes. `workers` runs the same grid of trials with a chief and one worker, then with
two workers, all on this machine, each worker on a processor core of its own. It compares the times from the start of
the first trial to the end of the last. Linux only.
"""

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from spectrovae.synthesis import compose_collection
from spectrovae.tuning import Sweep, SweepSettings, read_results, write_report
from spectrovae.tuning.chief import TOKEN_VARIABLE


def sweep_settings(arguments: argparse.Namespace) -> SweepSettings:
    """Return a grid of small and large codes over the recordings, long enough for all trials."""
    sizes = [8 * number for number in range(1, (arguments.max_trials + 1) // 2 + 1)]
    return SweepSettings(
        (str(Path(arguments.audio).resolve()),),
        choices={"latent_dim": sizes, "num_components": [1, 8], "decoder_depth": [4], "width": [arguments.width]},
        tuner="grid",
        epochs=arguments.epochs,
    )


def resident_memory() -> float:
    """Return the memory of this process, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def measure_memory(arguments: argparse.Namespace) -> None:
    """Run a sweep in this process and print its memory after each trial."""
    memory: list[float] = []

    def report(output: Path) -> None:
        write_report(output)
        memory.append(resident_memory())
        print(f"after trial {len(memory)}: {memory[-1]:.0f} MB", flush=True)

    with tempfile.TemporaryDirectory() as output:
        Sweep(sweep_settings(arguments), output, arguments.max_trials, verbose=0, report=report).search()
        trials = sorted(read_results(output).trials, key=lambda trial: int(trial.trial_id))
    peaks = [trial.peak_memory_mb for trial in trials]
    print(f"{sum(trial.status == 'COMPLETED' for trial in trials)} of {len(trials)} trials completed")
    print(f"the sweep's process: trial {len(memory)} over trial 3: {memory[-1] / memory[2]:.3f}")
    print(f"the trials' processes, peaks: {min(peaks):.0f} to {max(peaks):.0f} MB, the last {peaks[-1]:.0f} MB")


def time_workers(arguments: argparse.Namespace, num_workers: int, cache: Path) -> float:
    """Return the seconds that a chief and some workers take, each worker on one core."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ[TOKEN_VARIABLE] = secrets.token_hex()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as output, contextlib.ExitStack() as stack:
        settings = sweep_settings(arguments)
        command = [sys.executable, "-m", "spectrovae.tuning", *settings.recordings, "--output", output]
        command += ["--cache", str(cache), "--tuner", "grid", "--epochs", str(settings.epochs), "--verbose", "0"]
        command += ["--max-trials", str(arguments.max_trials), "--chief", port]
        for name, values in settings.choices.items():
            command += [f"--{name.replace('_', '-')}", *map(str, values)]
        processes = []
        for worker in [None, *range(num_workers)]:
            role = ["--role", "chief"] if worker is None else ["--role", "worker", "--worker-id", f"worker{worker}"]
            core = set(cores) if worker is None else {cores[worker % len(cores)]}
            processes.append(start_pinned([*command, *role], core))
            stack.callback(processes[-1].wait)
            stack.callback(processes[-1].send_signal, signal.SIGTERM)
        state = Path(output, "trials", "oracle.json")
        start = None
        while processes[0].poll() is None:
            if start is None and state.exists() and json.loads(state.read_text())["ongoing_trials"]:
                start = time.monotonic()
            time.sleep(0.1)
        seconds = time.monotonic() - (start or time.monotonic())
        results = read_results(output)
    lengths = ", ".join(f"{trial.seconds:.0f}" for trial in results.completed)
    print(f"{num_workers} worker(s): {seconds:.0f} s, {len(results.completed)} trials of {lengths} s", flush=True)
    return seconds


def start_pinned(command: list[str], cores: set[int]) -> subprocess.Popen:
    """Start a process, and its children, on some processor cores."""
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # a child inherits it
    try:
        return subprocess.Popen(command)
    finally:
        os.sched_setaffinity(0, here)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("memory", "workers"), help="what to measure")
    parser.add_argument("--audio", help="folder of recordings; by default music is composed")
    parser.add_argument("--max-trials", type=int, default=20, help="trials in each sweep")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of each trial")
    parser.add_argument("--width", type=int, default=64, help="channels of the decoder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.audio is None:
            arguments.audio = Path(folder, "music")
            compose_collection(arguments.audio, num_pieces=8)
        if arguments.part == "memory":
            measure_memory(arguments)
            return
        cache = Path(folder, "cache")
        sweep_settings(arguments).datasets(cache)  # neither time includes decoding
        alone, together = (time_workers(arguments, num_workers, cache) for num_workers in (1, 2))
        print(f"two workers over one: {together / alone:.2f} of the time")


if __name__ == "__main__":
    main()
