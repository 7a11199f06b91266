"""Find audio files in folders, and write files that are never half there."""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

# What libsndfile and ffmpeg read, without headerless samples (.raw), MATLAB files (.mat) and videos.
_EXTENSIONS = (
    ".3gp .8svx .aac .ac3 .aif .aifc .aiff .alac .amr .ape .au .avr .caf .dsf .flac .htk .iff .m4a .m4b .mka "
    ".mp1 .mp2 .mp3 .mpc .oga .ogg .opus .paf .pvf .rf64 .sd2 .sds .sf .snd .sph .spx .svx .tta .voc .w64 .wav "
    ".wave .wma .wv .wve .xi"
)

AUDIO_EXTENSIONS = frozenset(_EXTENSIONS.split())
"""Endings (lower case) of the files that `find_audio_files` takes from a folder."""


def find_audio_files(path_or_paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """Lists audio files: the given ones, and all in the given folders and their sub-folders.

    In folders, a file is taken by its ending (`AUDIO_EXTENSIONS`, upper or lower case), and hidden files and
    folders (`.name`) are not looked at. Symbolic links are followed. A file given by its own path is taken
    whatever it is called.

    Args:
        path_or_paths: A file, a folder, or any number of both.

    Returns:
        Paths, sorted, each file once.

    Raises:
        FileNotFoundError: If a given path does not exist.
        ValueError: If there is no audio file at all.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "tone.wav").touch()
        ...     Path(folder, "notes.txt").touch()
        ...     [path.name for path in find_audio_files(folder)]
        ['tone.wav']
    """
    given = [path_or_paths] if isinstance(path_or_paths, (str, os.PathLike)) else list(path_or_paths)
    paths: list[Path] = []
    num_others = 0
    for path in map(Path, given):
        if not path.exists():
            raise FileNotFoundError(f"No such file or folder: {path}")
        files = list(_walk(path)) if path.is_dir() else [path]
        audio_files = [file for file in files if file == path or file.suffix.lower() in AUDIO_EXTENSIONS]
        num_others += len(files) - len(audio_files)
        paths += audio_files
    if not paths:
        raise ValueError(
            f"No audio file in {', '.join(map(str, given)) or 'no path at all'} ({num_others} other files; "
            f"hidden ones are not looked at). Endings that are known: {' '.join(sorted(AUDIO_EXTENSIONS))}"
        )
    unique = {os.path.realpath(path): path for path in sorted(paths, reverse=True)}
    return sorted(unique.values())


@contextlib.contextmanager
def replaced_when_complete(path: Path) -> Iterator[Path]:
    """Gives a hidden path to write: the file replaces `path` if the `with` block succeeds, and else goes."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder of {path} does not exist: create it first")
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _walk(folder: Path) -> Iterator[Path]:
    """Files in a folder and its sub-folders; each folder once, however many links lead to it."""
    visited: set[str] = set()

    def report(error: OSError) -> None:
        logger.warning("A folder could not be searched: %s", error)

    for parent, folders, files in os.walk(folder, onerror=report, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in files):
            # A broken link is listed, so that reading it tells; sockets and the like are not.
            if not path.name.startswith(".") and (path.is_file() or path.is_symlink()):
                yield path
