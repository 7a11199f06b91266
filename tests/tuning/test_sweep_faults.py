"""Sweeps in processes of their own that are killed, and what is left of them."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sweeps import COMMAND, IGNORED_WARNINGS, wait_for

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.tuning.__main__ import main
from spectrovae.tuning.results import read_results
from spectrovae.tuning.trial_process import OUTCOME

pytestmark = IGNORED_WARNINGS
UNTRAINED = Path(__file__).parents[1] / "sweeps.py"


def status_of(output, trial_id):
    return {trial.trial_id: trial.status for trial in read_results(output).trials}.get(trial_id)


def session_of(process):
    """Return the numbers of the living processes that a process has started, itself among them."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(session) == process.pid and state != "Z":
                alive.append(int(stat.parent.name))
    return alive


@pytest.fixture
def short_folder():
    """An empty folder whose path leaves room for the sockets in it, which that of pytest may not."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read from /proc, which only Linux has")
def test_stopped_sweep_leaves_nothing_behind_and_goes_on(music, tmp_path, short_folder):
    output, temporary = tmp_path / "sweep", short_folder
    arguments = [str(music), "--output", str(output), *COMMAND, "--max-trials", "3", "--tuner", "random"]
    command = [sys.executable, "-m", "spectrovae.tuning", *arguments]
    environment = os.environ | {"TMPDIR": str(temporary)}

    def is_training(trial_id):
        return (output / "trials" / f"trial_{trial_id}" / "logs").exists() and status_of(output, trial_id) == "RUNNING"

    stops = [
        ("0", lambda process: process.terminate(), 143),
        ("0", lambda process: os.killpg(process.pid, signal.SIGINT), 130),  # as Ctrl-C does
        ("1", lambda process: process.kill(), -signal.SIGKILL),
    ]
    for trial_id, stop, exit_code in stops:
        shutil.rmtree(output / "trials" / f"trial_{trial_id}" / "logs", ignore_errors=True)
        with subprocess.Popen(
            command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
        ) as process:
            wait_for(lambda trial_id=trial_id: is_training(trial_id))
            stop(process)
            _, error = process.communicate(timeout=60)
        assert process.returncode == exit_code
        wait_for(lambda process=process: not session_of(process), seconds=20)
        if exit_code > 0:
            assert "Traceback" not in error
            assert not list(temporary.iterdir()) and not list(output.rglob("*.part*"))
    assert status_of(output, "0") == "COMPLETED"
    kept = output / "trials" / "trial_0" / OUTCOME
    written = kept.stat().st_mtime_ns
    assert main(arguments) == 0
    results = read_results(output)
    assert [trial.status for trial in results.trials] == ["COMPLETED"] * 3
    assert kept.stat().st_mtime_ns == written
    best = json.loads((output / "best.json").read_text())
    converter = SpectrogramConverter(**best["converter"])
    model = SpectroVAE(converter.window_shape, converter=converter, **best["arguments"])
    model.load_weights(output / best["weights"])
    model.compile()
    _, validation = results.settings.datasets(output / "audio_cache")
    measured = model.evaluate(validation, verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(best["score"], rel=0.1)  # codes are drawn anew
    assert measured["rmse_db"] == pytest.approx(best["metrics"]["val_rmse_db"], rel=1e-4)
    # One linear start for each depth that came up, shared by the processes.
    depths = {trial.values["decoder_depth"] for trial in results.trials}
    assert {file.name for file in (output / "linear_start").iterdir()} == {f"pool_{2**depth}.npz" for depth in depths}
    assert all(trial.seconds > 0 and trial.peak_memory_mb > 100 for trial in results.trials)


@pytest.fixture
def start_role(music, tmp_path, monkeypatch):
    """A function that starts a chief or a worker on loopback; what is left of them is killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    monkeypatch.setenv("SPECTROVAE_SWEEP_TOKEN", "0123456789abcdef")
    command = [sys.executable, str(UNTRAINED), "1.5", str(music), "--output", str(tmp_path / "sweep"), *COMMAND]
    command += ["--max-trials", "6", "--tuner", "random", "--chief", port, "--worker-timeout", "4"]
    processes = []

    def start(role, name=None):
        processes.append(subprocess.Popen([*command, "--role", role, *(["--worker-id", name] if name else [])]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def ongoing_trials(output):
    file = output / "trials" / "oracle.json"
    return json.loads(file.read_text())["ongoing_trials"] if file.exists() else {}


@pytest.mark.slow
def test_sweep_survives_the_loss_of_its_chief_and_of_a_worker(start_role, tmp_path):
    output = tmp_path / "sweep"
    chief, first, second = start_role("chief"), start_role("worker", "first"), start_role("worker", "second")
    wait_for(lambda: len(ongoing_trials(output)) == 2)
    for lost in (first, chief):
        lost.kill()
        lost.wait()
    chief = start_role("chief")
    assert second.wait() == 0
    assert chief.wait() == 0
    results = read_results(output)
    assert [trial.status for trial in results.trials] == ["COMPLETED"] * 6
    assert (output / "best.json").exists() and "6 of 6 trials completed" in (output / "report.html").read_text()
    state = json.loads((output / "trials" / "oracle.json").read_text())
    assert sorted(state["end_order"]) == sorted(state["start_order"]) == ["0", "1", "2", "3", "4", "5"]
