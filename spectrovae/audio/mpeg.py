"""Frames of MP3 files: how many there are, whatever the header says, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

# Bit rates in kbit/s by version (1, or 2 and 2.5) and layer.
_BIT_RATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}

_SAMPLE_RATES = (44100, 48000, 32000)

_SCANNED = 1 << 16  # bytes searched at once for the next frame


class _Frame(NamedTuple):
    """What the four bytes say that a frame begins with."""

    length: int
    bit_rate: int
    num_samples: int
    sample_rate: int
    kind: tuple[int, int, int, bool]  # version, layer, sample rate, mono: the same in all frames of a stream
    tag_offset: int  # where a frame that holds the number of frames says so


def _parse(header: bytes) -> _Frame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version_bits, layer_bits = header[1] >> 3 & 3, header[1] >> 1 & 3
    rate_index, sample_rate_index = header[2] >> 4, header[2] >> 2 & 3
    if version_bits == 1 or layer_bits == 0 or rate_index in (0, 15) or sample_rate_index == 3:
        return None
    version, layer = 1 if version_bits == 3 else 2, 4 - layer_bits
    sample_rate = _SAMPLE_RATES[sample_rate_index] >> {3: 0, 2: 1, 0: 2}[version_bits]
    bit_rate = _BIT_RATES[version, layer][rate_index]
    padding, is_mono = header[2] >> 1 & 1, header[3] >> 6 == 3
    if layer == 1:
        length, num_samples = (12_000 * bit_rate // sample_rate + padding) * 4, 384
    else:
        num_samples = 576 if layer == 3 and version == 2 else 1152
        length = 125 * num_samples * bit_rate // sample_rate + padding
    side_info = (17 if is_mono else 32) if version == 1 else (9 if is_mono else 17)
    return _Frame(
        length, bit_rate, num_samples, sample_rate, (version_bits, layer, sample_rate, is_mono), 4 + side_info
    )


@dataclass
class MpegStream:
    """Frames of one kind that follow one another.

    Attributes:
        frame: What the first frame says of itself.
        first: Its bytes.
        claimed: Number of frames that the header says to follow; None where it says nothing.
        num_frames: Number of frames that do follow.
        ranges: Where they lie: first byte, and the byte after the last.
        bit_rates: All that occur, in kbit/s.
    """

    frame: _Frame
    first: bytes
    claimed: int | None = None
    num_frames: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    bit_rates: set[int] = field(default_factory=set)

    @property
    def seconds(self) -> float:
        """Length in seconds, with what encoders add."""
        return self.num_frames * self.frame.num_samples / self.frame.sample_rate

    @property
    def claimed_seconds(self) -> float | None:
        """Length in seconds that the header claims."""
        return None if self.claimed is None else self.claimed * self.frame.num_samples / self.frame.sample_rate

    @property
    def is_told(self) -> bool:
        """Whether a decoder that trusts the header, or else the first frame's bit rate, reads all frames."""
        if self.claimed is None:
            return len(self.bit_rates) <= 1
        return self.num_frames <= self.claimed + 1

    def pieces(self) -> list[bytes | tuple[int, int]]:
        """Return a file of these frames alone whose header is right, as bytes and ranges."""
        at = self.frame.tag_offset
        if self.frame.kind[1] != 3:  # only layer 3 has headers
            return [*self.ranges]
        if self.claimed is not None and self.first[at + 7] & 1:
            header = self.first[: at + 8] + self.num_frames.to_bytes(4, "big") + self.first[at + 12 :]
            return [header, *self.ranges]
        # With the largest bit rate a frame of any kind has room for the tag.
        start = bytes([*self.first[:2], self.first[2] & 0x0F | 0xE0, self.first[3]])
        tag = b"Info" + (1).to_bytes(4, "big") + self.num_frames.to_bytes(4, "big")
        frame = _parse(start)
        header = (start + bytes(at - 4) + tag).ljust(frame.length if frame else 0, b"\0")
        return [header, *self.ranges]


def find_streams(file: BinaryIO, size: int) -> tuple[list[MpegStream], int]:
    """Walk over the frames of an MP3 file.

    Args:
        file: The file, open for reading.
        size: Its length in bytes.

    Returns:
        The streams, several where files were joined; and the number of bytes between frames that belong to no tag.
    """
    streams: list[MpegStream] = []
    num_foreign = position = 0
    kind = None
    while position < size:
        file.seek(position)
        header = file.read(10)
        frame = _parse(header)
        if frame is None or frame.kind != kind:
            if tag_length := _tag_length(file, position, header):
                position += tag_length
                continue
            following = _find_frame(file, position, size)
            if following is None:
                num_foreign += 0 if streams else size - position
                break  # what follows the last frame is no loss
            num_foreign += following - position
            position = following
            file.seek(position)
            frame = _parse(file.read(4))
            if frame is None:
                break
        file.seek(position)
        first = file.read(frame.length)
        claimed = _claimed_frames(first, frame)
        end = position + frame.length
        if claimed is not None or frame.kind != kind:
            kind = frame.kind
            streams.append(MpegStream(frame, first, claimed))
        stream = streams[-1]
        if claimed is None:
            stream.num_frames += 1
            stream.bit_rates.add(frame.bit_rate)
            if stream.ranges and stream.ranges[-1][1] == position:
                stream.ranges[-1] = (stream.ranges[-1][0], end)
            else:
                stream.ranges.append((position, end))
        position = end
    return [stream for stream in streams if stream.num_frames], num_foreign


def _claimed_frames(content: bytes, frame: _Frame) -> int | None:
    """Return the number of frames that a frame claims, which then holds no sound."""
    at = frame.tag_offset
    if frame.kind[1] != 3 or content[at : at + 4] not in (b"Xing", b"Info") or not content[at + 7 : at + 8]:
        return None
    return int.from_bytes(content[at + 8 : at + 12], "big") if content[at + 7] & 1 else 0


def _tag_length(file: BinaryIO, position: int, header: bytes) -> int:
    """Return the length of the tag that begins here, or 0."""
    if header[:3] == b"ID3" and len(header) == 10 and max(header[6:10]) < 128:
        size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
        return size + (20 if header[5] & 16 else 10)
    if header[:3] == b"TAG":
        return 128
    if header[:8] == b"APETAGEX":
        file.seek(position + 12)
        return 32 + int.from_bytes(file.read(4), "little")
    return 0


def _find_frame(file: BinaryIO, position: int, size: int) -> int | None:
    """Return where the next frame begins that two more of its kind follow, or the end of the file."""
    while position < size:
        file.seek(position)
        content = file.read(_SCANNED)
        at = content.find(b"\xff")
        while 0 <= at < len(content) - 3 or (at >= 0 and position + len(content) >= size):
            if _is_followed(file, position + at, size):
                return position + at
            at = content.find(b"\xff", at + 1)
        if len(content) < _SCANNED:
            return None
        position += len(content) - 3
    return None


def _is_followed(file: BinaryIO, position: int, size: int) -> bool:
    kinds: set[tuple[int, int, int, bool]] = set()
    for _ in range(3):
        file.seek(position)
        frame = _parse(file.read(4))
        if frame is None:
            return position >= size and len(kinds) == 1
        kinds.add(frame.kind)
        position += frame.length
    return len(kinds) == 1
