"""Audio files in folders."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable
from pathlib import Path

from spectrovae.storage import PathLike

# What libsndfile and ffmpeg read, the sound of videos as well, without headerless samples (.raw), MATLAB files (.mat).
_EXTENSIONS = (
    ".3g2 .3ga .3gp .8svx .aac .ac3 .adts .aif .aifc .aiff .alac .amr .ape .asf .au .avi .avr .bwf .caf .dff "
    ".dsf .dts .dtshd .eac3 .ec3 .flac .flv .gsm .htk .iff .ircam .loas .m2ts .m4a .m4b .m4p .m4r .m4v .mka .mkv "
    ".mov .mp1 .mp2 .mp3 .mp4 .mpc .mpeg .mpg .mts .nist .nut .oga .ogg .ogv .oma .opus .paf .pvf .qcp .ra .rf64 "
    ".rm .sd2 .sds .sf .shn .snd .sph .spx .svx .tak .thd .truehd .tta .vob .voc .w64 .wav .wave .weba .webm "
    ".wma .wv .wve .xi"
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
    return search_audio_files(path_or_paths)[0]


def search_audio_files(path_or_paths: PathLike | Iterable[PathLike]) -> tuple[list[Path], tuple[tuple[str, int], ...]]:
    """List audio files as `find_audio_files` does, and count the others by ending, the most frequent first.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("tone.wav", "notes.txt", "cover.JPG", "back.jpg", "TAPE1"):
        ...         Path(folder, name).touch()
        ...     search_audio_files(folder)[1]
        (('.jpg', 2), ('.txt', 1), ('without ending', 1))
    """
    given = [path_or_paths] if isinstance(path_or_paths, (str, os.PathLike)) else list(path_or_paths)
    paths: list[Path] = []
    others: collections.Counter[str] = collections.Counter()
    for path in map(Path, given):
        if not path.exists() and not path.is_symlink():
            raise FileNotFoundError(f"No such file or folder: {path}")
        paths += _search(path, others) if path.is_dir() else [path]
    passed_over = tuple(sorted(others.items(), key=lambda item: (-item[1], item[0])))
    if not paths:
        counts = ", ".join(f"{number} {ending}" for ending, number in passed_over) or "none"
        raise ValueError(
            f"No audio file in {', '.join(map(str, given)) or 'no path at all'} (other files: {counts}; "
            f"hidden ones are not looked at). Endings that are known: {' '.join(sorted(AUDIO_EXTENSIONS))}"
        )
    unique = {os.path.realpath(path): path for path in sorted(paths, reverse=True)}
    return sorted(unique.values()), passed_over


def _search(folder: Path, others: collections.Counter[str]) -> list[Path]:
    """List the audio files in a folder and its sub-folders, each folder once, and count the others by ending."""
    taken: list[Path] = []
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
        others.update(file.suffix.lower() or "without ending" for file in files if not _has_audio_ending(file))
        if _has_audio_ending(Path(parent)) and not folders and not audio_files and parent != str(folder):
            taken.append(Path(parent))
    return taken


def _has_audio_ending(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_EXTENSIONS
