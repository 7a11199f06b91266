"""Audio formats that libsndfile does not know, read with the program `ffmpeg`."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np

# Seconds after which a program that gives no samples is taken to hang.
_PATIENCE = 120.0


def read_with_ffmpeg(path: Path, sample_rate: int, block_length: int, reason: str) -> Iterator[np.ndarray]:
    """Reads an audio file block by block with ffmpeg, which mixes it to mono and resamples it.

    Args:
        path: The file.
        sample_rate: Samples per second (Hz) of the result.
        block_length: Most samples of one block.
        reason: Why the file is not read in another way, for the message if ffmpeg cannot help.

    Yields:
        float32, shape `(samples,)`, full scale at 1.

    Raises:
        ValueError: If ffmpeg is not installed, cannot decode the file, or hangs.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError(
            f"The file could not be decoded: {path} ({reason}; ffmpeg, which knows more formats, is missing)"
        )
    command = [program, "-nostdin", "-v", "error", "-i", f"file:{path}", "-map", "0:a:0"]
    command += ["-ac", "1", "-ar", str(sample_rate), "-f", "f32le", "-"]
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        output = cast(IO[bytes], process.stdout)
        try:
            while content := _read_patiently(output, 4 * block_length, process):
                yield np.frombuffer(content[: len(content) // 4 * 4], "<f4").astype(np.float32)
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"The file could not be decoded: {path} (ffmpeg stood still for {_PATIENCE:.0f} s)"
            ) from error
        finally:
            process.kill()  # if the reader stopped early; else it has ended
        if status:
            messages.seek(0)
            line = messages.readline(2000).decode(errors="replace").strip()
            raise ValueError(f"The file could not be decoded: {path} (ffmpeg: {line or reason})")


def _read_patiently(output: IO[bytes], num_bytes: int, process: subprocess.Popen[bytes]) -> bytes:
    """Reads from a program; kills it if nothing comes for too long."""
    is_late = threading.Event()

    def give_up() -> None:
        is_late.set()
        process.kill()

    timer = threading.Timer(_PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    try:
        content = output.read(num_bytes)
    finally:
        timer.cancel()
    if is_late.is_set():
        raise subprocess.TimeoutExpired(process.args, _PATIENCE)
    return content
