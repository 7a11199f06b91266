"""`spectrovae train` ends at SIGTERM and Ctrl-C with its epochs kept and nothing left behind."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from spectrovae import read_history
from spectrovae.synthesis import compose_collection

TIMEOUT = 300.0
"""Seconds for a program to come so far, many times what it takes on a quiet machine."""

OPTIONS = shlex.split(
    "--epochs 100000 --validation-split 0.4 --sample-rate 8000 --n-fft 64 --hop-length 16 --num-frames 32 "
    "--latent-dim 4 --num-components 2 --decoder-depth 2 --width 8"
)


POOR = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A program that knows no characters but ASCII; it may have 64 files open."""


def is_training(folder: Path) -> bool:
    return len(read_history(folder / "output").get("loss", [])) >= 2


def is_decoding(folder: Path) -> bool:
    return any((folder / "temporary").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "number", "status", "is_poor"),
    [
        (is_training, signal.SIGTERM, 143, False),
        (is_training, signal.SIGINT, 130, True),
        (is_decoding, signal.SIGTERM, 143, False),
    ],
)
def test_interrupted_training_ends_and_leaves_only_its_epochs(
    stage: Callable[[Path], bool], number: int, status: int, is_poor: bool, tmp_path: Path
):
    # Decoding has to last for a moment.
    compose_collection(tmp_path / "größe 音", num_pieces=3, duration=3.0 if stage is is_training else 60.0)
    (tmp_path / "temporary").mkdir()
    command = [
        sys.executable,
        "-m",
        "spectrovae",
        "train",
        str(tmp_path / "größe 音"),
        "--output",
        str(tmp_path / "output"),
        *OPTIONS,
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    if is_poor:
        command = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command]
        environment |= POOR
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + TIMEOUT
        while not stage(tmp_path) and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(TIMEOUT) == status, (tmp_path / "log").read_text()[-3000:]
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # no child is left
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert list((tmp_path / "temporary").iterdir()) == []
    if stage is is_training:
        names = {path.name for path in (tmp_path / "output").iterdir()}
        assert names == {"checkpoint.keras", "model.keras", "log.csv"}
        keras.saving.load_model(tmp_path / "output" / "model.keras")
        assert is_training(tmp_path)
