"""Find audio files in folders, and write files that are never half there."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no such locks: what a killed program left is then not cleared away
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]

# What libsndfile and ffmpeg read, without headerless samples (.raw), MATLAB files (.mat) and videos.
_EXTENSIONS = (
    ".3gp .8svx .aac .ac3 .aif .aifc .aiff .alac .amr .ape .au .avr .caf .dsf .flac .htk .iff .m4a .m4b .mka "
    ".mp1 .mp2 .mp3 .mpc .oga .ogg .opus .paf .pvf .rf64 .sd2 .sds .sf .snd .sph .spx .svx .tta .voc .w64 .wav "
    ".wave .wma .wv .wve .xi"
)

AUDIO_EXTENSIONS = frozenset(_EXTENSIONS.split())
"""Endings (lower case) of the files that `find_audio_files` takes from a folder."""

# Names of what is in the making.
_PART = ".part"
_TEMPORARY = "spectrovae-"
_LOCK = ".lock"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def find_audio_files(path_or_paths: PathLike | Iterable[PathLike]) -> list[Path]:
    """Lists audio files: the given ones, and all in the given folders and their sub-folders.

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


@contextlib.contextmanager
def replaced_when_complete(path: Path) -> Iterator[Path]:
    """Gives a hidden path to write: the file replaces `path` if the `with` block succeeds, and else goes.

    The content is on the disk before the name is, so that not even a power cut leaves half a file. What a killed
    program leaves behind is cleared away by `remove_leftovers`.

    Args:
        path: The file; its folder must exist. The hidden path has the same ending.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the file cannot be written; the message names it, whatever the library that writes says.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder of {path} does not exist: create it first")
    begun = path.with_name(f".{_TEMPORARY}{uuid.uuid4().hex}")
    part = begun.with_name(f"{begun.name}{_PART}{path.suffix}")
    try:
        # From its first moment under this name to its last it is locked: else it would be taken for a leftover.
        with _locked(begun):
            os.rename(begun, part)
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        if error.filename not in (None, str(begun), str(part)):  # not about this file
            raise
        raise _naming(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # else it would hide what went wrong
            part.unlink(missing_ok=True)
            begun.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Makes a folder if need be; an OSError says so if no file can be made in it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_writable(Path(folder, "new"))
        ...     os.listdir(folder)
        ['new']
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _naming(folder, error) from error


def remove_leftovers(folder: Path) -> None:
    """Removes the unfinished files and temporary folders that killed programs left in a folder.

    Those of programs that still run are kept: each holds a lock that ends with its program.
    """
    if fcntl is None:
        return
    for path in (*folder.glob(f".{_TEMPORARY}*{_PART}*"), *folder.glob(f"{_TEMPORARY}*/{_LOCK}")):
        # An OSError: it is locked, another user's, or gone by now.
        with contextlib.suppress(OSError), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.name == _LOCK:
                shutil.rmtree(path.parent, ignore_errors=True)
            else:
                path.unlink()


def temporary_folder() -> tuple[Path, contextlib.ExitStack]:
    """Makes a temporary folder, and clears away those of killed programs.

    Returns:
        The folder, and what removes it: its `close()`.

    Example:
        >>> folder, remover = temporary_folder()
        >>> folder.exists(), remover.close(), folder.exists()
        (True, None, False)
    """
    remove_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
    remover = contextlib.ExitStack()
    remover.callback(shutil.rmtree, folder, ignore_errors=True)
    # Locked under another name first: unlocked under this one it would be taken for a leftover.
    lock = folder / "lock"
    remover.enter_context(_locked(lock))
    lock.replace(folder / _LOCK)
    return folder, remover


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


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes] | None]:
    """Makes an empty file that is locked as long as this program runs, or the `with` block."""
    with path.open("wb") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network drives know no locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            return
    yield None  # closed, since Windows does not replace open files


def _flush_folder(folder: Path) -> None:
    """Makes a new name in a folder outlast a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _naming(path: Path, error: OSError) -> OSError:
    """The same kind of error, with a message that names the file and says what to do."""
    if error.errno is None:  # not from the system: its message says it all
        return error
    advice = "Free some space, or use another folder" if error.errno in _FULL else "Choose a folder that can be written"
    return OSError(error.errno, f"{error.strerror}. {advice}. While writing", str(path))
