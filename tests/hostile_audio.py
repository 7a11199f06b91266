"""Audio files as bad as they come, made on the spot; every kind is a function of the folder to write to.

`write_corpus` gives for each file the outcome that has to be: `"used"`, or the start of the reason why not.
"""

import functools
import io
import os
import struct
from pathlib import Path

import numpy as np
import soundfile

from spectrovae import SpectrogramConverter

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=64, num_frames=64)  # windows of 0.512 s

UNDECODABLE = "unreadable: The file could not be decoded"
NOT_FINITE = "unreadable: The file has NaN or infinite samples"
TEN_HOURS = 10 * 3600


def music(seconds: float = 1.0, sample_rate: int = 8000, num_channels: int = 1, seed: int = 0) -> np.ndarray:
    """A falling tone in noise, `(samples, num_channels)`, within [-0.6, 0.6]."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    tone = 0.3 * np.sin(2 * np.pi * (900 - 200 * time) * time)
    noise = 0.05 * np.random.default_rng(seed).standard_normal((len(time), num_channels))
    return np.clip(tone[:, None] + noise, -0.6, 0.6)


def encode(audio: np.ndarray, file_format: str = "WAV", subtype: str | None = None, sample_rate: int = 8000) -> bytes:
    """A file's content."""
    content = io.BytesIO()
    soundfile.write(content, audio, sample_rate, subtype, format=file_format)
    return content.getvalue()


def wav_header(
    num_bytes: int, sample_rate: int = 8000, num_channels: int = 1, bits: int = 16, block_align: int | None = None
) -> bytes:
    """A WAV header that may lie: `num_bytes` of samples are claimed to follow."""
    align = num_channels * bits // 8 if block_align is None else block_align
    fields = (1, num_channels, sample_rate, sample_rate * align & 0xFFFFFFFF, align & 0xFFFF, bits)
    size = min(num_bytes + 36, 0xFFFFFFFF)
    return (
        b"RIFF"
        + struct.pack("<I", size)
        + b"WAVEfmt \x10\0\0\0"
        + struct.pack("<HHIIHH", *fields)
        + (b"data" + struct.pack("<I", min(num_bytes, 0xFFFFFFFF)))
    )


def write_formats(folder: Path) -> dict[str, str]:
    """What is unusual and fine: 1 to 8 channels, 8 to 192 kHz, all widths of integers and floats, all containers."""
    for num_channels in range(1, 9):
        (folder / f"{num_channels} channels.wav").write_bytes(encode(music(num_channels=num_channels)))
    for rate in (8000, 11025, 16000, 22050, 32000, 44100, 48000, 88200, 96000, 176400, 192000):
        (folder / f"{rate} Hz.wav").write_bytes(encode(music(1, rate), sample_rate=rate))
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"):
        (folder / f"{subtype}.wav").write_bytes(encode(music(), subtype=subtype))
    for file_format in ("AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "VOC", "W64"):
        (folder / f"container.{file_format.lower()}").write_bytes(encode(music(), file_format))
    (folder / "opus.ogg").write_bytes(encode(music(), "OGG", "OPUS"))
    (folder / "offset.wav").write_bytes(encode(np.full(8000, 0.5)))
    (folder / "loud.wav").write_bytes(encode(20 * music(), subtype="FLOAT"))
    (folder / "a click in silence.wav").write_bytes(encode(np.eye(1, 8000, 4000)[0] / 2))
    return dict.fromkeys(os.listdir(folder), "used") | {"offset.wav": "silent"}


def write_names(folder: Path) -> dict[str, str]:
    """Good files with names that break programs."""
    names = [
        " ",
        "two  spaces ",
        "line\nbreak",
        "tab\tand\rreturn",
        "größe 音楽 🎹",
        "e\N{COMBINING ACUTE ACCENT}",
        "\x1b[31mred",
        "right\N{RIGHT-TO-LEFT OVERRIDE}left",
        "-rf",
        "%s %d {0} $HOME `id`",
        "<b>bold&amp;",
        "quote\"'",
        "back\\slash",
        "x" * 240,
        os.fsdecode(b"no utf-8 \xff\xfe"),
    ]
    for seed, name in enumerate(names):
        (folder / f"{name}.wav").write_bytes(encode(music(seed=seed)))
    return {f"{name}.wav": "used" for name in names}


def write_broken(folder: Path) -> dict[str, str]:
    """Files that are no sound, or not all of it, or lie about it."""
    whole = encode(music())
    expected: dict[str, str] = {}

    def write(name: str, content: bytes, outcome: str) -> None:
        (folder / name).write_bytes(content)
        expected[name] = outcome

    write("zero bytes.wav", b"", "unreadable: The file has no content")
    write("one byte.wav", b"R", UNDECODABLE)
    write("text.wav", b"Dear diary, today I recorded nothing.\n" * 50, UNDECODABLE)
    write("header only.wav", whole[:44], "empty")
    write("half a header.wav", whole[:20], UNDECODABLE)
    write("truncated.wav", whole[: len(whole) * 3 // 4], "used")
    write("truncated early.wav", whole[:500], "too short")
    write("silent.wav", encode(np.zeros(8000)), "silent")
    write("below the floor.wav", encode(1e-6 * music(), subtype="FLOAT"), "silent")
    write("one sample.wav", encode(np.array([0.5])), "too short")
    write("short of a window.wav", encode(music()[:4095]), "too short")
    write("one window.wav", encode(music()[:4096]), "used")
    for name, value in (("nan", np.nan), ("infinity", np.inf), ("minus infinity", -np.inf)):
        audio = music(num_channels=2)
        audio[4321, 1] = value
        write(f"{name}.wav", encode(audio, subtype="FLOAT"), NOT_FINITE)
    audio = music(num_channels=2)
    audio[4321] = np.inf, -np.inf
    write("infinities.wav", encode(audio, subtype="DOUBLE"), NOT_FINITE)
    write("integers as floats.wav", encode(32768 * music(), subtype="FLOAT"), "unreadable: The file has samples of")
    write("huge floats.wav", encode(1e38 * music(), subtype="FLOAT"), "unreadable: The file has")
    for file_format in ("FLAC", "OGG", "MP3", "CAF", "W64"):
        content = encode(music(3), file_format)
        write(f"half.{file_format.lower()}", content[: len(content) // 2], "used or unreadable or empty")
    samples = whole[44:]
    write("claims 0 samples.wav", wav_header(0) + samples, "used")
    write("claims half.wav", wav_header(len(samples) // 2) + samples, "used")
    write("claims 4 GB.wav", wav_header(0xFFFFFFFF) + samples, "used")
    write("claims 10 hours.wav", wav_header(2 * 8000 * TEN_HOURS) + samples, "used")
    write("claims 0 Hz.wav", wav_header(len(samples), sample_rate=0) + samples, "unreadable")
    write("claims 4 GHz.wav", wav_header(len(samples), sample_rate=0xFFFFFFFF) + samples, "unreadable")
    write("claims 0 channels.wav", wav_header(len(samples), num_channels=0) + samples, UNDECODABLE)
    write("claims 65535 channels.wav", wav_header(len(samples), num_channels=65535) + samples, UNDECODABLE)
    write("claims 1000 channels.wav", wav_header(len(samples), num_channels=1000) + samples, "too short")
    write("claims 77 bits.wav", wav_header(len(samples), bits=77) + samples, UNDECODABLE)
    write("claims odd blocks.wav", wav_header(len(samples), block_align=3) + samples, "used or unreadable")
    flac = bytearray(encode(music(), "FLAC"))
    num_claimed = 8000 * TEN_HOURS
    flac[21:26] = bytes([flac[21] & 0xF0 | num_claimed >> 32]) + struct.pack(">I", num_claimed & 0xFFFFFFFF)
    write("claims 10 hours.flac", bytes(flac), "used or unreadable")
    return expected


def write_traps(folder: Path) -> dict[str, str]:
    """What is no file: links, folders, pipes, and what may not be read (unless the tests run as root)."""
    good = folder / "good.wav"
    good.write_bytes(encode(music()))
    (folder / "link to nothing.wav").symlink_to(folder / "nowhere.wav")
    (folder / "link to itself.wav").symlink_to(folder / "link to itself.wav")
    (folder / "there.wav").symlink_to(folder / "back.wav")
    (folder / "back.wav").symlink_to(folder / "there.wav")
    (folder / "link to the folder.wav").symlink_to(folder, target_is_directory=True)
    (folder / "second name.wav").symlink_to(good)  # the same file: taken once
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "locked.wav").write_bytes(encode(music()))
    (folder / "locked.wav").chmod(0)
    (folder / "locked").mkdir()
    (folder / "locked" / "inside.wav").write_bytes(encode(music()))
    (folder / "locked").chmod(0)
    loop = "unreadable: [Errno 40] Too many levels of symbolic links"
    return {
        "good.wav": "used",
        "link to nothing.wav": "unreadable: [Errno 2] No such file",
        "link to itself.wav": loop,
        "there.wav": loop,
        "back.wav": loop,
        "folder.wav": "unreadable: [Errno 21] Is a directory",
        "pipe.wav": "unreadable: Not a regular file",
        "locked.wav": "unreadable: [Errno 13] Permission denied",
        "locked": "unreadable: [Errno 13] Permission denied",
    }


KINDS = {"formats": write_formats, "names": write_names, "broken": write_broken, "traps": write_traps}


def mutate(content: bytes, generator: np.random.Generator) -> bytes:
    """A file's content with one to three random faults, many of them in its header."""
    data = bytearray(content)
    for _ in range(generator.integers(1, 4)):
        size = len(data)
        if not size:
            break
        end = min(size, 64) if generator.random() < 0.5 else size
        place = int(generator.integers(end))
        length = int(min(size - place, 2 ** generator.integers(0, 9)))
        match generator.integers(7):
            case 0:
                data[place] ^= 1 << int(generator.integers(8))
            case 1:
                data[place : place + length] = generator.bytes(length)
            case 2:
                width = int(generator.choice([1, 2, 4, 8]))
                data[place : place + width] = generator.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * width
            case 3:
                del data[place : place + length]
            case 4:
                data[place:place] = generator.bytes(length)
            case 5:
                data[place:place] = data[place : place + length]
            case 6:
                del data[int(generator.integers(size)) :]
    return bytes(data)


@functools.cache
def seed_contents() -> dict[str, bytes]:
    """Small good files of every container and coding, to be mutated: ending to content."""
    audio, stereo = music(0.6), music(0.6, num_channels=2)
    contents = {f"{subtype}.wav": encode(audio, subtype=subtype) for subtype in ("PCM_U8", "PCM_24", "FLOAT", "ALAW")}
    contents |= {f"{subtype}.wav": encode(stereo, subtype=subtype) for subtype in ("PCM_16", "IMA_ADPCM", "MS_ADPCM")}
    for file_format in ("AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "VOC", "W64"):
        contents[f"seed.{file_format.lower()}"] = encode(stereo, file_format)
    return contents | {"opus.ogg": encode(audio, "OGG", "OPUS"), "alac.caf": encode(stereo, "CAF", "ALAC_16")}
