"""Audio files decoded by the program `ffmpeg`, for the formats that libsndfile does not know."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np

# Seconds after which a program that gives no samples is taken to hang.
_PATIENCE = 120.0

# What holds sound and nothing but its own. Playlists and scripts, which name other files, are not among them.
_FORMATS = (
    "aac ac3 aiff amr amrnb amrwb ape asf asf_o au avi caf dsf dts dtshd eac3 flac flv gsm iff ilbc loas matroska mlp "
    "mov mp3 mpc mpc8 mpeg mpegts nistsphere nut ogg oma paf pvf qcp rm sbc sds shn sol sox spdif svx tak truehd tta "
    "voc w64 wav webm wv wve xa xwma"
)

# Runs a program that the system kills when this one ends, however it ends. Linux only.
_TIE_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def decode_with_ffmpeg(
    path: Path, block_length: int, reason: str, notes: list[str]
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode the first sound of a file with ffmpeg, block by block.

    ffmpeg may read no other file and no network, whatever the file asks for, and ends with this program.

    Args:
        path: The file.
        block_length: Most values of one block, those of all channels counted.
        reason: Why the file is not decoded in another way, for the message if ffmpeg cannot help.
        notes: What ffmpeg says of a file that it decodes in part is added to these.

    Yields:
        Samples per second (Hz), and float32 `(samples, channels)` with full scale at 1.

    Raises:
        ValueError: If ffmpeg is not installed, decodes nothing of the file, or hangs.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise ValueError(
            f"The file could not be decoded: {path} ({reason}; ffmpeg, which knows more formats, is missing)"
        )
    command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file"]
    command += ["-format_whitelist", _FORMATS.replace(" ", ",")]
    # An AU file tells the sample rate and the number of channels at its beginning, and needs no length.
    command += ["-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "-"]
    if sys.platform == "linux" and sys.executable:
        command = [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()), *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        messages: list[bytes] = []
        listener = threading.Thread(target=_listen, args=(cast(IO[bytes], process.stderr), messages), daemon=True)
        listener.start()
        num_decoded = 0
        try:
            for sample_rate, block in _read_au(process, block_length):
                num_decoded += len(block)
                yield sample_rate, block
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"The file could not be decoded: {path} (ffmpeg stood still for {_PATIENCE:.0f} s)"
            ) from error
        finally:
            process.kill()  # if the reader stopped early; else it has ended
            listener.join(_PATIENCE)
        message = messages[0].decode(errors="replace").strip() if messages else ""
        if status and not num_decoded:
            raise ValueError(f"The file could not be decoded: {path} (ffmpeg: {message or reason})")
        if status or message:
            notes.append(f"damaged: what could be decoded is used (ffmpeg: {message or f'exit status {status}'})")


def _listen(errors: IO[bytes], messages: list[bytes]) -> None:
    """Keep the first line that a program writes, and read all others, for which it would wait else."""
    messages.append(errors.readline(2000))
    while errors.read(1 << 16):
        pass


def _read_au(process: subprocess.Popen[bytes], block_length: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield sample rate and blocks of an AU file of big-endian floats that a program writes."""
    output = cast(IO[bytes], process.stdout)
    header = _read_with_timeout(output, 24, process)
    if len(header) < 24:
        return
    _, size, _, _, sample_rate, num_channels = np.frombuffer(header, ">u4").tolist()
    _read_with_timeout(output, size - 24, process)
    num_bytes = 4 * num_channels * max(1, block_length // num_channels)
    while content := _read_with_timeout(output, num_bytes, process):
        samples = np.frombuffer(content, ">f4", len(content) // (4 * num_channels) * num_channels)
        yield sample_rate, samples.astype(np.float32).reshape(-1, num_channels)


def _read_with_timeout(output: IO[bytes], num_bytes: int, process: subprocess.Popen[bytes]) -> bytes:
    """Read from a program; kill it if nothing comes for too long."""
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
