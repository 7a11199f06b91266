"""Tests of `spectrovae.audio.compiled`."""

import atexit
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import NOBODY

from spectrovae.audio.compiled import ensure_numba_cache


@pytest.fixture
def at_exit(monkeypatch):
    """What is to be called at the end of the program; the environment is as it was after the test."""
    called = []
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setattr(atexit, "register", called.append)
    yield called
    for remove in called:
        remove()


@pytest.mark.parametrize("home", [None, "/nonexistent", "/dev/null"])
def test_without_a_place_numba_gets_a_temporary_one(at_exit, home, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME") if home is None else monkeypatch.setenv("HOME", home)
    ensure_numba_cache()
    folder = Path(os.environ["NUMBA_CACHE_DIR"])
    assert folder.is_dir() and folder.stat().st_mode & 0o077 == 0  # what numba finds there, it runs
    for remove in at_exit:
        remove()
    assert not folder.exists()


def test_a_place_that_is_there_is_used(at_exit, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    ensure_numba_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("NUMBA_CACHE_DIR", "anywhere")
    monkeypatch.setattr(os, "access", lambda *args: False)
    ensure_numba_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "anywhere"


PROGRAM = """
from spectrovae import SpectrogramConverter
converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
print(converter.to_spectrogram([0.1] * 512).shape)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="takes another user")
def test_a_user_without_a_home_can_make_spectrograms(tmp_path):
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    user += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # may read all, and write nothing
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    os.chown(temporary, NOBODY, NOBODY)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")
    }
    environment |= {"HOME": "/nonexistent", "TMPDIR": str(temporary)}
    command = [*user, sys.executable, "-c", PROGRAM]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd="/")
    assert result.stdout == "(32, 32, 1)\n", result.stderr
    assert not list(temporary.glob("spectrovae-*"))
