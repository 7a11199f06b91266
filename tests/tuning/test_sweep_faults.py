"""Real trials, each in a process of its own: what is killed, lost or diverges, and what is left of it."""

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sweeps import CHOICES, COMMAND, IGNORED_WARNINGS

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.tuning import sweep as sweep_module
from spectrovae.tuning.__main__ import main
from spectrovae.tuning.report import write_report
from spectrovae.tuning.results import read_results
from spectrovae.tuning.trial_process import OUTCOME, _explain_exit

pytestmark = IGNORED_WARNINGS
STATUS = Path("/proc/self/status")


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def status_of(output, trial_id):
    return {trial.trial_id: trial.status for trial in read_results(output).trials}.get(trial_id)


@pytest.mark.slow
def test_killed_sweep_keeps_what_it_has_and_goes_on(music, tmp_path):
    output = tmp_path / "sweep"
    command = [sys.executable, "-m", "spectrovae.tuning", str(music), "--output", str(output), *COMMAND]
    command += ["--max-trials", "3", "--tuner", "random"]
    with subprocess.Popen(command) as process:
        wait_for(lambda: (output / "settings.json").exists() and status_of(output, "1") == "RUNNING")
        process.kill()
    assert status_of(output, "0") == "COMPLETED"
    kept = output / "trials" / "trial_0" / OUTCOME
    written = kept.stat().st_mtime_ns
    assert subprocess.run(command).returncode == 0
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


@pytest.mark.slow
def test_trial_whose_process_is_killed_fails_and_the_sweep_goes_on(settings, tmp_path, monkeypatch):
    run = sweep_module.run_in_child

    def run_and_kill_the_first(task):
        if task.folder.name == "trial_0":
            watcher = threading.Thread(target=kill_trial, daemon=True)
            watcher.start()
        return run(task)

    def kill_trial():
        wait_for(multiprocessing.active_children)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    monkeypatch.setattr(sweep_module, "run_in_child", run_and_kill_the_first)
    sweep_module.Sweep(settings, tmp_path, max_trials=2, verbose=0).search()
    completed, failed = read_results(tmp_path).trials
    assert (completed.status, failed.status) == ("COMPLETED", "FAILED")
    assert "SIGKILL" in failed.reason and "out of memory" in failed.reason


@pytest.mark.slow
def test_trial_that_diverges_fails_in_its_process_too(settings, tmp_path):
    choices = CHOICES | {"latent_dim": [2], "num_components": [1], "decoder_depth": [2], "learning_rate": [1e30]}
    sweep = sweep_module.Sweep(dataclasses.replace(settings, choices=choices), tmp_path, max_trials=1, verbose=0)
    sweep.search()
    (failed,) = read_results(tmp_path).trials
    assert failed.status == "FAILED" and "became" in failed.reason and "epoch 1" in failed.reason


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc, which only Linux has")
def test_memory_stays_flat(settings, tmp_path):
    settings = dataclasses.replace(settings, choices=CHOICES | {"num_components": [1, 2, 3]}, tuner="bayesian")
    resident = []

    def report(output):
        write_report(output)
        resident.append(int(re.search(r"VmRSS:\s+(\d+) kB", STATUS.read_text())[1]))

    sweep_module.Sweep(settings, tmp_path, max_trials=12, verbose=0, report=report).search()
    assert len(resident) == len(read_results(tmp_path).completed) == 12
    assert resident[11] < 1.1 * resident[2]


def ongoing_trials(output):
    file = output / "trials" / "oracle.json"
    return json.loads(file.read_text())["ongoing_trials"] if file.exists() else {}


@pytest.fixture
def start_role(music, tmp_path):
    """A function that starts a chief or a worker on loopback; what is left of them is killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "spectrovae.tuning", str(music), "--output", str(tmp_path / "sweep"), *COMMAND]
    command += ["--max-trials", "4", "--tuner", "random", "--chief", address, "--worker-timeout", "8"]
    processes = []

    def start(role, name=None):
        processes.append(subprocess.Popen([*command, "--role", role, *(["--worker-id", name] if name else [])]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["worker", "chief"])
def test_chief_and_workers_survive_the_loss_of_one(loss, start_role, tmp_path):
    output = tmp_path / "sweep"
    chief, first, second = start_role("chief"), start_role("worker", "first"), start_role("worker", "second")
    wait_for(lambda: len(ongoing_trials(output)) == 2)
    lost = first if loss == "worker" else chief
    lost.kill()
    lost.wait()
    if loss == "chief":
        chief = start_role("chief")
        assert first.wait() == 0
    assert second.wait() == 0
    assert chief.wait() == 0
    results = read_results(output)
    assert [trial.status for trial in results.trials] == ["COMPLETED"] * 4
    assert (output / "best.json").exists() and "4 of 4 trials completed" in (output / "report.html").read_text()
    state = json.loads((output / "trials" / "oracle.json").read_text())
    assert sorted(state["end_order"]) == sorted(state["start_order"]) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--role", "chief"], "HOST:PORT"),
        (["--role", "worker", "--chief", "127.0.0.1:9"], "needs a name"),
    ],
)
def test_roles_need_an_address_and_a_name(extra, message, music, tmp_path, capsys):
    assert main([str(music), "--output", str(tmp_path), *COMMAND, *extra]) == 2
    assert message in capsys.readouterr().err


def test_exit_of_a_killed_process_is_explained():
    assert "SIGKILL" in _explain_exit(-signal.SIGKILL) and "out of memory" in _explain_exit(-signal.SIGKILL)
    assert "exit code 3" in _explain_exit(3)
