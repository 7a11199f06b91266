"""Where the sound lies in files whose headers do not tell, and files that are put together of such pieces."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from spectrovae.audio.mpeg import find_streams

Piece = bytes | tuple[int, int]
"""Bytes, or a range of a file: its first byte, and the byte after the last."""

_UNKNOWN_SIZES = range(0x7FFFF000, 1 << 32)  # what writers put that do not know how much will follow

# Fewer bytes after the end are no sound that a header forgot, but something that another program added.
_LEAST_FORGOTTEN = 4096

_FLAC_START = b"fLaC\0\0\0\x22"

_FLAC_END = 1 << 18  # bytes in which the last frames are looked for

_LARGEST_WAV = 1 << 31  # of samples in one segment


class PiecedFile(io.RawIOBase):
    """A file made of pieces of another one, to read from.

    Args:
        path: The other file.
        pieces: What it is made of.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     _ = path.write_bytes(b"one two three")
        ...     with PiecedFile(path, [b"first ", (4, 7)]) as file:
        ...         file.read()
        b'first two'
    """

    def __init__(self, path: Path, pieces: list[Piece]) -> None:
        self._file = path.open("rb")
        self._pieces: list[tuple[int, int, Piece]] = []  # first byte, byte after the last, and what is there
        size = 0
        for piece in pieces:
            length = len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
            self._pieces.append((size, size + length, piece))
            size += length
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill a buffer as far as there is content; return how many bytes were read."""
        num_read = 0
        for start, stop, piece in self._pieces:
            if start <= self._position < stop and num_read < len(buffer):
                first = self._position - start
                length = min(stop - self._position, len(buffer) - num_read)
                if isinstance(piece, bytes):
                    content = piece[first : first + length]
                else:
                    self._file.seek(piece[0] + first)
                    content = self._file.read(length)
                buffer[num_read : num_read + len(content)] = content
                num_read += len(content)
                self._position += len(content)
        return num_read

    def close(self) -> None:
        """Close the other file too."""
        self._file.close()
        super().close()


def find_segments(path: Path) -> tuple[list[list[Piece]], list[str]]:
    """Find sound in a file that a decoder would not find, since the header says another length than there is.

    This covers WAV, RF64, AIFF, AU, CAF and FLAC files whose header was never completed or counts wrong, WAV files
    beyond 4 GB, MP3 files of variable bit rate without a header, or with something else between their frames, and WAV,
    MP3 and Ogg files that were joined.

    Args:
        path: The file.

    Returns:
        The segments, files of their own to be decoded one after another, each as pieces of the file; none if the file
        can be decoded as it is. And notes on what is the matter.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(12)
        if magic[:4] in (b"RIFF", b"RF64", b"BW64") and magic[8:] == b"WAVE":
            return _find_in_wav(file, size)
        if magic[:4] == b"FORM" and magic[8:] in (b"AIFF", b"AIFC"):
            return _find_in_aiff(file, size)
        if magic[:4] == b".snd":
            return _find_in_au(file, size)
        if magic[:4] == b"caff":
            return _find_in_caf(file, size)
        if magic[:4] == b"OggS":
            return _find_in_ogg(file, size)
        if magic[:4] == b"fLaC":
            return _find_in_flac(file, size)
        if magic[:3] == b"ID3" or path.suffix.lower() == ".mp3" or (magic[:1] == b"\xff" and magic[1] & 0xE0 == 0xE0):
            return _find_in_mpeg(file, size)
    return [], []


def _find_in_mpeg(file: BinaryIO, size: int) -> tuple[list[list[Piece]], list[str]]:
    streams, num_foreign = find_streams(file, size)
    seconds = sum(stream.seconds for stream in streams)
    # Bytes of other formats look like a frame now and then.
    if seconds == 0 or num_foreign > size / 2 or (len(streams) == 1 and streams[0].is_told and not num_foreign):
        return [], []
    notes = []
    if len(streams) > 1:
        notes.append(f"{len(streams)} sounds in one file: all of them are read, one after another")
    if num_foreign:
        notes.append(f"damaged: {num_foreign} bytes between or before its {seconds:.1f} s are no sound")
    claimed = [stream.claimed_seconds for stream in streams if stream.claimed and not stream.is_told]
    if claimed:
        notes.append(f"the header claims {sum(filter(None, claimed)):.1f} s, {seconds:.1f} s follow")
    elif not all(stream.is_told for stream in streams):
        notes.append(f"of variable bit rate without a header that tells its length: {seconds:.1f} s follow")
    return [stream.pieces() for stream in streams], notes


def _find_in_flac(file: BinaryIO, size: int) -> tuple[list[list[Piece]], list[str]]:
    starts = [0]
    while (start := _find_bytes(file, _FLAC_START, starts[-1] + 1)) is not None:
        starts.append(start)
    if len(starts) > 1:
        note = f"{len(starts)} sounds in one file: all of them are read, one after another"
        return [[(start, stop)] for start, stop in zip(starts, [*starts[1:], size], strict=True)], [note]
    file.seek(8)
    facts = file.read(18)  # block sizes, frame sizes, sample rate, channels, bits, and the number of samples
    block_size, sample_rate = int.from_bytes(facts[2:4], "big"), int.from_bytes(facts[10:13], "big") >> 4
    claimed = int.from_bytes(facts[13:18], "big") & 0xFFFFFFFFF
    if facts[:2] != facts[2:4] or not block_size or not sample_rate:
        return [], []
    start = max(0, size - _FLAC_END)
    file.seek(start)
    content = file.read(_FLAC_END)
    lengths: dict[int, int] = {}  # samples of each of the last frames, by number
    at = content.find(b"\xff\xf8")
    while at >= 0:
        if (found := _parse_flac_frame(content[at : at + 16], block_size)) is not None:
            lengths[found[0]] = found[1]
        at = content.find(b"\xff\xf8", at + 1)
    numbers = [number for number in lengths if number == 0 or number - 1 in lengths]
    num_samples = max((number * block_size + lengths[number] for number in numbers), default=0)
    if num_samples <= claimed:
        return [], []
    told = facts[13] & 0xF0 | num_samples >> 32
    pieces: list[Piece] = [(0, 21), bytes([told]) + (num_samples & 0xFFFFFFFF).to_bytes(4, "big"), (26, size)]
    seconds = num_samples / sample_rate
    # A program that writes to a pipe cannot come back to its header, and leaves a zero.
    notes = [f"the header claims {claimed / sample_rate:.1f} s, {seconds:.1f} s follow"] if claimed else []
    return [pieces], notes


def _parse_flac_frame(header: bytes, block_size: int) -> tuple[int, int] | None:
    """Return the number and the samples of a frame of FLAC with blocks of one size, or None if this is no frame."""
    size_code, rate_code = header[2] >> 4, header[2] & 15
    if len(header) < 16 or not size_code or header[3] & 1:
        return None
    # The number is coded as UTF-8 codes a character.
    num_ones = 8 - (header[4] ^ 0xFF).bit_length()
    number = header[4] & (0x7F >> num_ones)
    at = 4 + max(1, num_ones)
    for byte in header[5:at]:
        number = number << 6 | byte & 0x3F
    size_length = {6: 1, 7: 2}.get(size_code, 0)
    length = int.from_bytes(header[at : at + size_length], "big") + 1 if size_length else block_size
    at += size_length + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    check = 0
    for byte in header[:at]:
        check ^= byte
        for _ in range(8):
            check = check << 1 ^ (0x107 if check & 0x80 else 0)
    return (number, length) if check == header[at] and length <= block_size else None


def _find_in_ogg(file: BinaryIO, size: int) -> tuple[list[list[Piece]], list[str]]:
    starts: list[int] = []
    position, is_beginning = 0, False
    while position < size:
        file.seek(position)
        header = file.read(27)
        if header[:4] != b"OggS" or len(header) < 27:
            following = _find_bytes(file, b"OggS", position + 1)
            if following is None:
                break
            position = following
            continue
        if header[5] & 2:  # the first page of a stream; streams that sound together begin together
            if not is_beginning:
                starts.append(position)
            is_beginning = True
        else:
            is_beginning = False
        position += 27 + header[26] + sum(file.read(header[26]))
    if len(starts) < 2:
        return [], []
    note = f"{len(starts)} sounds in one file: all of them are read, one after another"
    return [[(start, stop)] for start, stop in zip(starts, [*starts[1:], size], strict=True)], [note]


def _find_bytes(file: BinaryIO, pattern: bytes, position: int) -> int | None:
    while True:
        file.seek(position)
        content = file.read(1 << 16)
        at = content.find(pattern)
        if at >= 0:
            return position + at
        if len(content) <= len(pattern):
            return None
        position += len(content) - len(pattern) + 1


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    start: int  # of its content
    size: int  # that it claims


def _chunks(
    file: BinaryIO, position: int, end: int, byte_order: Literal["little", "big"], size_length: int = 4
) -> Iterator[_Chunk]:
    """Yield the chunks of a RIFF, AIFF or CAF file, as long as they follow one another."""
    while position + 4 + size_length <= end:
        file.seek(position)
        header = file.read(4 + size_length)
        if not all(32 <= byte < 127 for byte in header[:4]):
            return
        chunk = _Chunk(header[:4], position + 4 + size_length, int.from_bytes(header[4:], byte_order))
        yield chunk
        position = chunk.start + chunk.size + (chunk.size & 1 if size_length == 4 else 0)


def _is_forgotten(
    file: BinaryIO, data: _Chunk, end: int, byte_order: Literal["little", "big"], size_length: int = 4
) -> bool:
    """Return whether what follows the sound that a header claims is sound as well, and not other chunks."""
    after = data.start + data.size + (data.size & 1 if size_length == 4 else 0)
    if end - after < (_LEAST_FORGOTTEN if data.size else 1):
        return False
    reached = after
    for chunk in _chunks(file, after, end, byte_order, size_length):
        reached = chunk.start + chunk.size
    file.seek(after)
    return reached < end - _LEAST_FORGOTTEN and file.read(3) not in (b"ID3", b"TAG", b"APE")


def _find_in_wav(file: BinaryIO, size: int) -> tuple[list[list[Piece]], list[str]]:
    segments: list[list[Piece]] = []
    notes: list[str] = []
    starts = [0]
    for start in starts:
        is_long = False
        byte_rate = block_align = data_size_at = 0
        data = None
        for chunk in _chunks(file, start + 12, size, "little"):
            file.seek(chunk.start)
            content = file.read(28)
            if chunk.name == b"fmt ":
                byte_rate, block_align = (int.from_bytes(content[a:b], "little") for a, b in ((8, 12), (12, 14)))
            elif chunk.name == b"ds64":
                is_long, data_size_at, long_size = True, chunk.start + 8, int.from_bytes(content[8:16], "little")
            elif chunk.name == b"data" and data is None:
                data = _Chunk(chunk.name, chunk.start, long_size if is_long else chunk.size)
                data_size_at = data_size_at or chunk.start - 4
                if is_long and data.size != chunk.size:
                    break
            elif chunk.name == b"RIFF" and file.seek(chunk.start) and file.read(4) == b"WAVE":
                starts.append(chunk.start - 8)
                break
        if data is None or not byte_rate or not block_align:
            return [], []
        end = starts[-1] if starts[-1] > start else size
        rest = end - data.start
        if data.size <= rest and _is_forgotten(file, data, end, "little"):
            note = f"the header claims {data.size / byte_rate:.1f} s, {rest / byte_rate:.1f} s follow"
        elif data.size > rest + 1 and (is_long or data.size not in _UNKNOWN_SIZES) and data.size:
            note = f"the header claims {data.size / byte_rate:.1f} s, only {rest / byte_rate:.1f} s follow"
        else:
            note, rest = "", min(rest, data.size)
        notes += [note] if note else []
        # As many segments as it takes, since the header can count to 4 GB only.
        longest = rest if is_long else _LARGEST_WAV // block_align * block_align
        for first in range(0, max(rest, 1), max(longest, 1)):
            length = min(longest, rest - first)
            width = 8 if is_long else 4
            segments.append(
                [
                    (start, data_size_at),
                    length.to_bytes(width, "little"),
                    (data_size_at + width, data.start),
                    (data.start + first, data.start + first + length),
                ]
            )
    if len(starts) > 1:
        notes.append(f"{len(starts)} sounds in one file: all of them are read, one after another")
    return (segments, notes) if notes else ([], [])


def _find_in_aiff(file: BinaryIO, size: int) -> tuple[list[list[Piece]], list[str]]:
    common = data = None
    for chunk in _chunks(file, 12, size, "big"):
        common = chunk if chunk.name == b"COMM" else common
        data = chunk if chunk.name == b"SSND" else data
    if common is None or data is None:
        return [], []
    file.seek(common.start)
    content = file.read(18)
    bytes_per_frame = int.from_bytes(content[:2], "big") * -(-int.from_bytes(content[6:8], "big") // 8)
    # The sample rate is a number of 80 bits, of which these are the exponent and the whole part.
    exponent = int.from_bytes(content[8:10], "big") - 16383
    rate = int.from_bytes(content[10:18], "big") / 2 ** (63 - exponent) if 0 <= exponent < 63 else 0
    claimed, actual = max(0, data.size - 8), size - data.start - 8
    is_forgotten = _is_forgotten(file, _Chunk(data.name, data.start, max(8, data.size)), size, "big") or (
        claimed == 0 and actual >= _LEAST_FORGOTTEN
    )
    if not is_forgotten or not bytes_per_frame or not rate:
        return [], []
    num_frames = actual // bytes_per_frame
    pieces: list[Piece] = [
        (0, common.start + 2),
        num_frames.to_bytes(4, "big"),
        (common.start + 6, data.start - 4),
        (num_frames * bytes_per_frame + 8).to_bytes(4, "big"),
        (data.start, data.start + 8 + num_frames * bytes_per_frame),
    ]
    seconds = [num_bytes / bytes_per_frame / rate for num_bytes in (claimed, actual)]
    return [pieces], [f"the header claims {seconds[0]:.1f} s, {seconds[1]:.1f} s follow"]


def _find_in_au(file: BinaryIO, size: int) -> tuple[list[list[Piece]], list[str]]:
    file.seek(4)
    start, claimed = (int.from_bytes(file.read(4), "big") for _ in range(2))
    if claimed == 0xFFFFFFFF or size - start - claimed < (_LEAST_FORGOTTEN if claimed else 1):
        return [], []
    note = f"the header claims {claimed} bytes of sound, {size - start} bytes follow"
    return [[(0, 8), (0xFFFFFFFF).to_bytes(4, "big"), (12, size)]], [note]


def _find_in_caf(file: BinaryIO, size: int) -> tuple[list[list[Piece]], list[str]]:
    for chunk in _chunks(file, 8, size, "big", size_length=8):
        is_unknown = chunk.size >= 1 << 63  # -1
        if chunk.name == b"data" and (is_unknown or _is_forgotten(file, chunk, size, "big", size_length=8)):
            rest = size - chunk.start
            pieces: list[Piece] = [(0, chunk.start - 8), rest.to_bytes(8, "big"), (chunk.start, size)]
            note = f"the header claims {max(0, chunk.size - 4)} bytes of sound, {rest - 4} bytes follow"
            return [pieces], [] if is_unknown else [note]
        if is_unknown:
            break
    return [], []
