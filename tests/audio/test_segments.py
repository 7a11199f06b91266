"""Tests of `spectrovae.audio.segments` and `mpeg`: files are read to the end, whatever their headers say."""

import io
import struct

import numpy as np
import pytest
import soundfile
from hostile_audio import encode, music

from spectrovae.audio.decoding import AudioReader
from spectrovae.audio.segments import PiecedFile, find_segments

RATE = 44100
FIRST, SECOND = music(2, RATE), music(3, RATE, seed=1)


def patched(content, *changes):
    """Content with other bytes at some places, each given by what comes before it and the distance to it."""
    data = bytearray(content)
    for mark, distance, new in changes:
        at = data.index(mark) + distance if isinstance(mark, bytes) else mark
        data[at : at + len(new)] = new
    return bytes(data)


def mp3(audio, mode="VARIABLE", level=0.5):
    content = io.BytesIO()
    soundfile.write(content, audio, RATE, format="MP3", bitrate_mode=mode, compression_level=level)
    return content.getvalue()


def without_header(content):
    """An MP3 file without its first frame, which tells the length; frames begin alike."""
    return content[content.index(content[:2], 4) :]


def foreign(num_bytes, seed=0):
    return np.random.default_rng(seed).bytes(num_bytes)


WAV, AIFF, AU, CAF, FLAC = (encode(FIRST, name, sample_rate=RATE) for name in ("WAV", "AIFF", "AU", "CAF", "FLAC"))
RF64, W64 = (encode(FIRST, name, sample_rate=RATE) for name in ("RF64", "W64"))
MP3 = mp3(np.where(np.arange(2 * RATE)[:, None] // 22050 % 2, 0.02, 1) * FIRST)
STREAM_INFO = b"fLaC"
ID3 = b"ID3\x03\0\0\0\0\x07\x76" + bytes(1014)

# Content, seconds that are to be read, and what is said.
KINDS = {
    "half.wav": (patched(WAV, (b"data", 4, struct.pack("<I", 2 * RATE))), 2, "claims 1.0 s, 2.0 s follow"),
    "crashed.wav": (patched(WAV, (b"data", 4, bytes(4))), 2, "claims 0.0 s, 2.0 s follow"),
    "crashed at once.wav": (patched(WAV, (b"data", 4, bytes(4)), (b"RIFF", 4, bytes(4))), 2, "claims 0.0 s"),
    "streamed.wav": (patched(WAV, (b"data", 4, b"\xff" * 4), (b"RIFF", 4, b"\xff" * 4)), 2, None),
    "truncated.wav": (WAV[: 44 + RATE], 0.5, "claims 2.0 s, only 0.5 s follow"),
    "tagged.wav": (WAV + b"LIST\x08\0\0\0INFOabcd" + b"id3 " + struct.pack("<I", 9000) + bytes(9000), 2, None),
    "with an MP3 tag.wav": (WAV + ID3 + bytes(8000), 2, None),
    "joined.wav": (WAV + encode(SECOND, sample_rate=RATE), 5, "2 sounds in one file"),
    "joined, of two rates.wav": (WAV + encode(music(3, 8000)), 5, "2 sounds in one file"),
    "joined and crashed.wav": (WAV + patched(WAV, (b"data", 4, bytes(4))), 4, "claims 0.0 s, 2.0 s follow"),
    "crashed.rf64": (patched(RF64, (b"ds64", 16, bytes(8))), 2, "claims 0.0 s, 2.0 s follow"),
    "crashed.w64": (patched(W64, (b"data", 16, struct.pack("<Q", 24))), 2, None),
    "crashed.aiff": (patched(AIFF, (b"SSND", 4, b"\0\0\0\x08"), (b"COMM", 10, bytes(4))), 2, "claims 0.0 s, 2.0 s"),
    "half.aiff": (patched(AIFF, (b"SSND", 4, struct.pack(">I", 2 * RATE + 8))), 2, "claims 1.0 s, 2.0 s follow"),
    "crashed.au": (patched(AU, (b".snd", 8, bytes(4))), 2, "0 bytes of sound"),
    "streamed.au": (patched(AU, (b".snd", 8, b"\xff" * 4)), 2, None),
    "crashed.caf": (patched(CAF, (b"data", 4, bytes(8))), 2, "0 bytes of sound"),
    "streamed.caf": (patched(CAF, (b"data", 4, b"\xff" * 8)), 2, None),
    "streamed.flac": (patched(FLAC, (STREAM_INFO, 22, bytes(4))), 2, None),
    "half.flac": (patched(FLAC, (STREAM_INFO, 22, struct.pack(">I", RATE))), 2, "claims 1.0 s, 2.0 s follow"),
    "tagged.flac": (ID3 + FLAC, 2, None),
    "joined.flac": (FLAC + encode(SECOND, "FLAC", sample_rate=RATE), 5, "2 sounds in one file"),
    "whole.mp3": (MP3, 2, None),
    "variable, without header.mp3": (without_header(MP3), 2.03, "of variable bit rate without a header"),
    "half.mp3": (patched(MP3, (b"Xing", 8, struct.pack(">I", 38))), 2, "the header claims 1.0 s"),
    "truncated.mp3": (MP3[: len(MP3) // 2], 0.92, "only"),
    "tagged.mp3": (ID3 + MP3 + b"TAG" + bytes(125), 2, None),
    "after foreign bytes.mp3": (foreign(5000) + MP3, 2, "no sound"),
    "with foreign bytes.mp3": (
        MP3[: len(MP3) // 2] + foreign(3000) + MP3[len(MP3) // 2 :],
        2,
        "3000 bytes between or before",
    ),
    "joined.mp3": (MP3 + ID3 + mp3(SECOND, "CONSTANT"), 5, "2 sounds in one file"),
    "joined, without headers.mp3": (without_header(MP3) * 2, 4.06, "of variable bit rate without a header"),
    "chained.ogg": (encode(FIRST, "OGG", "VORBIS", RATE) + encode(SECOND, "OGG", "VORBIS", RATE), 5, "2 sounds in"),
    "chained, of two rates.ogg": (
        encode(FIRST, "OGG", "VORBIS", RATE) + encode(music(3, 16000), "OGG", "VORBIS", 16000),
        5,
        "2 sounds in one file",
    ),
    "chained.opus": (encode(music(2), "OGG", "OPUS") + encode(music(3), "OGG", "OPUS"), 5, "2 sounds in one file"),
}


@pytest.mark.parametrize("name", KINDS)
def test_files_are_read_to_their_end(tmp_path, monkeypatch, name):
    content, seconds, note = KINDS[name]
    monkeypatch.setenv("PATH", str(tmp_path))  # without ffmpeg
    path = tmp_path / name
    path.write_bytes(content)
    reader = AudioReader(path, 22050)
    audio = np.concatenate(list(reader.read_settled()))
    assert len(audio) / 22050 == pytest.approx(seconds, abs=0.03)
    assert np.sqrt(np.mean(np.square(audio[-4000:]))) > 0.004  # there is sound at the end
    assert (note in "; ".join(reader.notes)) if note else not reader.notes


def test_joined_sounds_are_whole(tmp_path):
    """No sample is lost, added or changed where one file ends and the next begins."""
    (tmp_path / "a.wav").write_bytes(encode(FIRST, sample_rate=RATE) + encode(SECOND, sample_rate=RATE))
    audio = np.concatenate(list(AudioReader(tmp_path / "a.wav", RATE).read_settled()))
    np.testing.assert_allclose(audio, np.concatenate([FIRST, SECOND])[:, 0], atol=1 / 32768)
    (tmp_path / "a.mp3").write_bytes(mp3(FIRST) + mp3(FIRST))
    audio = np.concatenate(list(AudioReader(tmp_path / "a.mp3", RATE).read_settled()))
    assert len(audio) == 4 * RATE
    np.testing.assert_allclose(audio[3000 : RATE - 3000], audio[2 * RATE + 3000 : 3 * RATE - 3000], atol=0.01)


def test_wav_files_beyond_4_gb(tmp_path):
    """The header can count to 4 GB only: what it says is the rest of a division."""
    path = tmp_path / "a.wav"
    size = (1 << 32) + 2 * 2 * RATE
    with path.open("wb") as file:
        file.write(patched(WAV[:44], (b"data", 4, struct.pack("<I", size % (1 << 32)))))
        file.seek(44 + size - len(WAV[44:]))  # a file with holes takes no space
        file.write(WAV[44:])
    if path.stat().st_blocks * 512 > 100e6:
        pytest.skip("The disk knows no files with holes.")
    segments, notes = find_segments(path)
    assert len(segments) == 3 and "follow" in notes[0]
    with PiecedFile(path, segments[-1]) as content, soundfile.SoundFile(content) as file:
        assert file.frames < 1 << 31
        file.seek(file.frames - 2 * RATE)
        np.testing.assert_allclose(file.read(dtype="float32"), FIRST[:, 0], atol=1 / 32768)


def test_pieces_read_like_a_file(tmp_path):
    path = tmp_path / "a.bin"
    content = foreign(10_000)
    path.write_bytes(content)
    whole = b"head" + content[100:200] + content[5000:]
    generator = np.random.default_rng(0)
    with PiecedFile(path, [b"head", (100, 200), (5000, 10_000)]) as file:
        for _ in range(200):
            position, length = (int(value) for value in generator.integers(0, 6000, 2))
            assert file.seek(position) == position
            assert file.read(length) == whole[position : position + length]
        assert file.seek(0, 2) == len(whole)


@pytest.mark.parametrize("damage", [0, 3000])
def test_damaged_stretch_without_ffmpeg_is_told(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("PATH", str(tmp_path))
    content = encode(music(8, RATE), "FLAC", sample_rate=RATE)
    middle = len(content) // 2
    (tmp_path / "a.flac").write_bytes(content[:middle] + foreign(damage) + content[middle + 3000 :])
    reader = AudioReader(tmp_path / "a.flac", RATE)
    seconds = sum(map(len, reader.read_settled())) / RATE
    assert seconds > 2.5 and f"damaged: {seconds:.1f} s could be decoded" in reader.notes[0]


def test_other_formats_are_not_taken_for_mp3(tmp_path):
    for name in ("a.mp3", "b.mp3"):
        path = tmp_path / name
        path.write_bytes((b"\0\0\0\x20ftypM4A " if name == "a.mp3" else b"\xff\xfb") + foreign(300_000))
        assert find_segments(path) == ([], [])
