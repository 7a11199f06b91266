"""Kill one sweep again and again with SIGKILL at random moments, then let it end, and see what is lost.

    python tests/benchmarks/kill_sweep.py --kills 10 --seed 0

The trials train small models on composed music. After each kill the results are read, and no process may be left. Ends
with status 1 if a completed trial was lost or changed, a trial failed, the results could not be read, or something
unfinished was left.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from spectrovae.synthesis import compose_collection
from spectrovae.tuning import read_results

SETTINGS = shlex.split(
    "--sample-rate 8000 --n-fft 64 --hop-length 16 --num-frames 32 --latent-dim 2 3 4 5 --num-components 1 2 "
    "--decoder-depth 2 3 --width 8 --epochs 3 --batch-size 64 --validation-split 0.3 --verbose 0 --tuner random"
)


def completed_trials(output: Path) -> dict[str, float]:
    """Return the score of each completed trial, by its number."""
    if not (output / "settings.json").exists():
        return {}
    results = read_results(output)
    if results.failed:
        raise RuntimeError(f"Trials failed: {[trial.reason for trial in results.failed]}")
    return {trial.trial_id: trial.score for trial in results.completed}


def has_processes(session: int) -> bool:
    """Return whether a process is left of those that a killed one had started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, other = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(other) == session and state != "Z":
            return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="how often to kill the sweep")
    parser.add_argument("--max-trials", type=int, default=10, help="trials of the sweep")
    parser.add_argument("--longest", type=float, default=60.0, help="most seconds until a kill")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        music, output, temporary = (Path(place, name) for name in ("music", "sweep", "temporary"))
        compose_collection(music, num_pieces=4, duration=1.0, sample_rate=8000)
        temporary.mkdir()
        command = [sys.executable, "-m", "spectrovae.tuning", str(music), "--output", str(output), *SETTINGS]
        environment = os.environ | {"TMPDIR": str(temporary)}
        known: dict[str, float] = {}
        for kill in range(arguments.kills):
            command_line = [*command, "--max-trials", str(arguments.max_trials)]
            process = subprocess.Popen(command_line, env=environment, start_new_session=True)
            try:
                process.wait(arguments.longest * generator.uniform(0.1, 1))
                arguments.max_trials += 2  # it had ended
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            end = time.monotonic() + 60  # a process that imports TensorFlow looks up when it is done
            while has_processes(process.pid):
                if time.monotonic() > end:
                    problems.append(f"kill {kill}: a process is left")
                    break
                time.sleep(0.1)
            now = completed_trials(output)
            if any(now.get(number) != score for number, score in known.items()):
                problems.append(f"kill {kill}: {known} became {now}")
            known = now
            print(f"kill {kill + 1}: {len(known)} trials completed", flush=True)
        if status := subprocess.run([*command, "--max-trials", str(arguments.max_trials)], env=environment).returncode:
            problems.append(f"the last run ended with status {status}")
        final = completed_trials(output)
        if len(final) != arguments.max_trials or any(final[number] != score for number, score in known.items()):
            problems.append(f"{len(final)} of {arguments.max_trials} trials completed in the end")
        # Python's own folders, pymp-*, stay where a program is killed.
        left = [str(path) for path in (*output.rglob("*.part*"), *temporary.glob("[!p]*"))]
        if left:
            problems.append(f"left behind: {left}")
    print(f"{arguments.kills} kills, {len(final)} trials in the end; {'; '.join(problems) or 'nothing was lost'}")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
