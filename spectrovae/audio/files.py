"""Audio files in folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from spectrovae.storage import PathLike

# What libsndfile and ffmpeg read, without headerless samples (.raw), MATLAB files (.mat) and videos.
_EXTENSIONS = (
    ".3gp .8svx .aac .ac3 .aif .aifc .aiff .alac .amr .ape .au .avr .caf .dsf .flac .htk .iff .m4a .m4b .mka "
    ".mp1 .mp2 .mp3 .mpc .oga .ogg .opus .paf .pvf .rf64 .sd2 .sds .sf .snd .sph .spx .svx .tta .voc .w64 .wav "
    ".wave .wma .wv .wve .xi"
)

AUDIO_EXTENSIONS = frozenset(_EXTENSIONS.split())
"""Endings (lower case) of the files that `find_audio_files` takes from a folder."""


def find_audio_files(path_or_paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """List audio files: the given ones, and all in the given folders and their sub-folders.

    In folders, a file is taken by its ending (`AUDIO_EXTENSIONS`, upper or lower case), and hidden files and
    folders (`.name`) are not looked at. Symbolic links are followed. A file given by its own path is taken
    whatever it is called. So that nothing is lost in silence, broken links and the like are listed as well, as
    are folders that cannot be searched, and folders that are called like an audio file but hold none: reading
    them tells what is wrong.

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
        if not path.exists() and not path.is_symlink():
            raise FileNotFoundError(f"No such file or folder: {path}")
        taken, others = _search(path) if path.is_dir() else ([path], 0)
        paths += taken
        num_others += others
    if not paths:
        raise ValueError(
            f"No audio file in {', '.join(map(str, given)) or 'no path at all'} ({num_others} other files; "
            f"hidden ones are not looked at). Endings that are known: {' '.join(sorted(AUDIO_EXTENSIONS))}"
        )
    unique = {os.path.realpath(path): path for path in sorted(paths, reverse=True)}
    return sorted(unique.values())


def _search(folder: Path) -> tuple[list[Path], int]:
    """Audio files in a folder and its sub-folders, and the number of others; each folder once."""
    taken: list[Path] = []
    num_others = 0
    visited: set[str] = set()

    def take_unsearchable(error: OSError) -> None:
        taken.append(Path(error.filename))

    for parent, folders, names in os.walk(folder, onerror=take_unsearchable, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # however many links lead to it
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [Path(parent, name) for name in names if not name.startswith(".")]
        audio_files = [file for file in files if _has_audio_ending(file)]
        taken += audio_files
        num_others += len(files) - len(audio_files)
        if _has_audio_ending(Path(parent)) and not folders and not audio_files and parent != str(folder):
            taken.append(Path(parent))
    return taken, num_others


def _has_audio_ending(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_EXTENSIONS
