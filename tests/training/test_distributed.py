"""Several replicas and workers train as one: real processes on loopback, which `worker.py` is the program of."""

import contextlib
import csv
import importlib.util
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spectrovae.synthesis import compose_collection
from spectrovae.training.distributed import split_evenly

WORKER = Path(__file__).parents[1] / "worker.py"
EXAMPLE = Path(__file__).parents[2] / "examples" / "train_distributed.py"
TIMEOUT = 900.0
"""Seconds for a group of processes, several times what it takes on a quiet machine."""


def cluster(num_workers: int) -> list[str]:
    """`TF_CONFIG` for each of so many workers, at ports that are free."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(num_workers)]
        addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(num_workers)
    ]


class Group:
    """Processes that run `worker.py` at the same time; none outlives the `with` block."""

    def __init__(self, task: str, folder: Path, num_workers: int = 1) -> None:
        configs = cluster(num_workers) if num_workers > 1 else ["{}"]
        self.logs = [folder / f"{task}_{index}.log" for index in range(num_workers)]
        self.processes = []
        for config, log in zip(configs, self.logs, strict=True):
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, WORKER, task, folder],
                        env=os.environ | {"TF_CONFIG": config},
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self) -> list[int | None]:
        """Return the exit codes, None for a process that is still running at the end of the time."""
        end = time.monotonic() + TIMEOUT
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
        return [process.poll() for process in self.processes]

    def told(self) -> str:
        return "\n".join(log.read_text()[-3000:] for log in self.logs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with what all processes have left in it."""
    folder = tmp_path_factory.mktemp("distribution")
    compose_collection(folder / "music", num_pieces=3, duration=0.5, sample_rate=8000)
    with Group("devices", folder) as devices, Group("first", folder, num_workers=2) as first:
        assert first.wait() == [0, -9], first.told()
        assert devices.wait() == [0], devices.told()
    with Group("again", folder, num_workers=2) as again:
        assert again.wait() == [0, 0], again.told()
    return folder


def facts(folder: Path, name: str) -> dict:
    return json.loads((folder / f"{name}.json").read_text())


def arrays(folder: Path, name: str, kind: str) -> list[np.ndarray]:
    with np.load(folder / f"{name}.npz") as file:
        return [file[key] for key in file.files if key.startswith(f"{kind}_")]


def largest_difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    return max(np.abs(first - second).max() for first, second in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mirrored", "first_0", "first_1"])
def test_replicas_take_the_steps_of_one(folder, name):
    single = arrays(folder, "single", "weights")
    moved = largest_difference(single, arrays(folder, "single", "adapted"))
    assert moved > 1e-3
    assert largest_difference(arrays(folder, name, "weights"), single) < 1e-3 * moved
    history = facts(folder, "single")["history"]
    for metric, value in facts(folder, name)["history"].items():
        assert value == pytest.approx(history[metric], rel=1e-4), metric


@pytest.mark.slow
def test_workers_agree_to_the_last_bit(folder):
    for kind in ("adapted", "weights"):
        assert largest_difference(arrays(folder, "first_0", kind), arrays(folder, "first_1", kind)) == 0
    assert facts(folder, "first_0")["history"] == facts(folder, "first_1")["history"]
    assert largest_difference(arrays(folder, "first_0", "adapted"), arrays(folder, "single", "adapted")) < 1e-5


@pytest.mark.slow
def test_every_window_of_every_file_is_measured_once(folder):
    single = facts(folder, "mirrored")["recordings"]
    assert single["num_measured"] == pytest.approx(single["num_windows"])
    for worker in (0, 1):
        ours = facts(folder, f"first_{worker}")
        assert ours["num_measured"] == pytest.approx(single["num_windows"])
        assert ours["measured"] == pytest.approx(single["measured"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("backup", "ValueError.*fit_resumably"),
        ("split", "ValueError.*validation_data"),
        ("jit", "ValueError.*jit_compile"),
        ("few files", "ValueError.*1 files for 2 workers"),
        ("odd batch", "ValueError.*multiple of their number, 2"),
        ("other files", "ValueError.*different recordings"),
    ],
)
def test_what_workers_cannot_do_is_told(folder, name, message):
    for worker in (0, 1):
        assert re.search(message, facts(folder, f"first_{worker}")["errors"][name])


@pytest.mark.slow
def test_an_error_on_the_chief_is_told_to_all(folder):
    chief, other = (facts(folder, f"first_{worker}")["errors"]["chief fails"] for worker in (0, 1))
    assert chief.startswith("ValueError") and "NaN" in chief
    assert other.startswith("RuntimeError") and chief in other


@pytest.mark.slow
def test_stock_keras_still_fails_on_two_workers(folder):
    """Fails when keras-team/keras#20585 is mended: `DistributedModel` may then need less."""
    for worker in (0, 1):
        assert "PerReplica" in facts(folder, f"first_{worker}")["errors"]["stock"]


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_training_resumes(folder):
    message = facts(folder, "killed_0")["errors"]["killed"]
    assert facts(folder, "killed_0")["seconds"] < 60
    assert message.startswith("ConnectionError: Another worker has died")
    assert "start all workers again" in message
    with (folder / "worker_0.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["2"]  # started again it begins with the third
    history = facts(folder, "again_0")["history"]
    assert {len(values) for values in history.values()} == {3}
    assert facts(folder, "again_1")["history"] == history
    for kind in ("weights", "generated"):
        assert largest_difference(arrays(folder, "again_0", kind), arrays(folder, "again_1", kind)) == 0


@pytest.mark.slow
def test_only_the_chief_writes(folder):
    assert (folder / "worker_0" / "model.keras").exists() and (folder / "worker_0.keras").exists()
    assert not list(folder.glob("worker_1*"))


@pytest.mark.slow
def test_replicas_of_one_machine(folder):
    mirrored = facts(folder, "mirrored")
    assert "jit_compile" in mirrored["errors"]["jit"] and "steps_per_execution" in mirrored["errors"]["steps"]
    assert mirrored["others"]["skipped"] == [True, True]
    assert mirrored["others"]["seeds"] == 2
    assert mirrored["others"]["float16 loss"] == pytest.approx(mirrored["history"]["loss"], abs=5)


def test_files_are_divided_evenly():
    sizes = np.random.default_rng(0).integers(1, 50, 40).tolist()
    parts = split_evenly(sizes, 4)
    assert sorted(itertools.chain(*parts)) == list(range(40))
    totals = [sum(sizes[position] for position in part) for part in parts]
    assert max(totals) - min(totals) <= max(sizes)


@pytest.fixture(scope="module")
def example():
    """The script that users start."""
    spec = importlib.util.spec_from_file_location("train_distributed", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_launcher_gives_each_worker_its_place_and_tells_of_failures(example, tmp_path):
    program = (
        "import json, os, pathlib, sys; config = json.loads(os.environ['TF_CONFIG']); index = config['task']['index'];"
        "pathlib.Path(sys.argv[1], str(index)).write_text(str(len(config['cluster']['worker'])));"
        "sys.exit(int(sys.argv[2]) * index)"
    )
    for code in (0, 3):
        assert example.launch(2, [sys.executable, "-c", program, str(tmp_path), str(code)]) == code
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "2", "1": "2"}


@pytest.mark.slow
def test_example_runs_on_one_machine(example, tmp_path):
    music = tmp_path / "music"
    compose_collection(music, num_pieces=3, duration=0.5, sample_rate=8000)
    window = {"sample-rate": 8000, "n-fft": 64, "hop-length": 16, "num-frames": 32, "validation-split": 0.4}
    model = {"latent-dim": 2, "num-components": 2, "decoder-depth": 2, "width": 8, "num-samples": 2, "epochs": 1}
    output = tmp_path / "output"
    words = [f"--{name}={value}" for name, value in (window | model | {"output": output, "cache": "memory"}).items()]
    example.main([str(music), *words])
    assert {"model.keras", "log.csv", "index.html", "summary.txt"} <= {path.name for path in output.iterdir()}
