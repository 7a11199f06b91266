"""Files that are complete or absent, temporary folders, and locks."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows has no such locks: what a killed program left is then not cleared away
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]

# Names of what is in the making.
_PART = ".part"

_TEMPORARY = "spectrovae-"

_PART_NAME = re.compile(rf"\.{_TEMPORARY}[0-9a-f]{{32}}{re.escape(_PART)}.*", re.DOTALL)

_LOCK = ".lock"

_MARK = b"This temporary folder of spectrovae is removed when its program has ended.\n"
"""What a lock holds, so that no other program's folder is taken for one of ours."""

# What SIGTERM is to remove.
_unfinished: set[Path] = set()

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_TEMPORARY_ADVICE = "Set the environment variable TMPDIR to a folder that can be written and has room"

# What says something of the system, and nothing of the file that was to be opened.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_LIMIT_ADVICE = "Close other programs, or raise the limit (ulimit -n 1024)"


@contextlib.contextmanager
def replaced_when_complete(path: Path, is_private: bool = False) -> Iterator[Path]:
    """Give a hidden path to write: the file replaces `path` if the `with` block succeeds, and else goes.

    The content is on the disk before the name is, so that not even a power cut leaves half a file. What a killed
    program leaves behind is cleared away by `remove_leftovers`.

    Args:
        path: The file; its folder must exist. The hidden path has the same ending.
        is_private: Whether other users may not read it.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the file cannot be written; the message names it, whatever the library that writes says.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder of {path} does not exist: create it first")
    begun = path.with_name(f".{_TEMPORARY}{uuid.uuid4().hex}")
    part = begun.with_name(f"{begun.name}{_PART}{path.suffix}")
    _unfinished.add(part)
    try:
        # From its first moment under this name to its last it is locked: else it would be taken for a leftover.
        with _locked(begun, 0o600 if is_private else 0o666):
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
        _unfinished.discard(part)


def check_writable(folder: Path, is_private: bool = False) -> None:
    """Make a folder if need be; an OSError says so if no file can be made in it.

    Args:
        folder: The folder.
        is_private: Whether other users may not look into it, if it is made.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_writable(Path(folder, "new"))
        ...     os.listdir(folder)
        ['new']
    """
    try:
        folder.mkdir(0o700 if is_private else 0o777, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _naming(folder, error) from error


def raise_if_exhausted(error: Exception) -> None:
    """Raise an OSError if a file could not be opened for want of memory or because too many are open already.

    Args:
        error: What was raised. Libraries do not always say why a file cannot be opened: it is looked at anew.

    Example:
        >>> raise_if_exhausted(ValueError("damaged"))
    """
    try:
        if isinstance(error, OSError) and error.errno in _EXHAUSTED:
            raise error
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as cause:
        if cause.errno in _EXHAUSTED:
            raise OSError(cause.errno, f"{cause.strerror}. {_LIMIT_ADVICE}. While reading", cause.filename) from error


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8: the file is complete or as it was.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder, "a.txt"), "größe")
        ...     Path(folder, "a.txt").read_text(encoding="utf-8")
        'größe'
    """
    with replaced_when_complete(path) as part:
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def used_by_one(folder: Path, what: str) -> Iterator[None]:
    """Keep others out of a folder in the `with` block; nothing is written to it.

    Args:
        folder: An existing folder.
        what: What it is used for, for the message.

    Raises:
        BlockingIOError: If a program, or another thread of this one, is using it in the same way.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, used_by_one(Path(folder), "training"):
        ...     with used_by_one(Path(folder), "training"):
        ...         pass
        Traceback (most recent call last):
        ...
        BlockingIOError: Another training is using ...: wait for its end, stop it, or choose another folder
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BlockingIOError(
            f"Another {what} is using {folder}: wait for its end, stop it, or choose another folder"
        ) from None
    except OSError:  # some network drives know no locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files and temporary folders that killed programs left in a folder.

    Those of programs that still run are kept: each holds a lock that ends with its program. So is what other users own,
    and what only has a similar name.
    """
    if fcntl is None:
        return
    parts = [path for path in folder.glob(f".{_TEMPORARY}*") if _PART_NAME.fullmatch(path.name)]
    for path in (*parts, *folder.glob(f"{_TEMPORARY}*/{_LOCK}")):
        # An OSError: it is locked, a link, or gone by now.
        with contextlib.suppress(OSError):
            _remove_leftover(path)


def _remove_leftover(path: Path) -> None:
    """Remove an unfinished file, or the folder of a lock, if it is our own and of no running program."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.name != _LOCK:
            path.unlink()
        elif file.read(len(_MARK) + 1) == _MARK:
            shutil.rmtree(path.parent, ignore_errors=True)


def exit_on_sigterm() -> None:
    """Have SIGTERM end this program as `sys.exit(143)` does: for the main functions of programs.

    Nothing is changed where there is another handler, or outside the main thread.
    """
    if _can_handle_sigterm(signal.SIG_DFL, _clear_and_end):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def clear_on_sigterm() -> None:
    """Have SIGTERM remove temporary folders and unfinished files before it ends this program.

    Nothing is changed where there is another handler, or outside the main thread.
    """
    if _can_handle_sigterm(signal.SIG_DFL):
        signal.signal(signal.SIGTERM, _clear_and_end)


def _can_handle_sigterm(*handlers: object) -> bool:
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGTERM) in handlers


def _clear_and_end(number: int, frame: object) -> None:
    for path in tuple(_unfinished):
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def check_archive(path: Path) -> None:
    """Raise a ValueError if a file of weights, or a model, unpacks to far more than its own size.

    Keras writes both without compression. A file that somebody else has written may be small and fill the memory.

    Args:
        path: A `.keras` or `.weights.h5` file.

    Raises:
        ValueError: If it unpacks to more than twice its size, or is damaged.
    """
    import h5py

    largest = 2 * path.stat().st_size + 2**20

    def check(num_bytes: int) -> None:
        if num_bytes > largest:
            raise ValueError(
                f"{path} unpacks to {num_bytes:,} bytes, more than a model of its size. It is damaged, or was not "
                "written by Keras: do not load it."
            )

    try:
        with contextlib.ExitStack() as stack:
            weights: Any = path
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                check(sum(member.file_size for member in archive.infolist()))
                names = [name for name in archive.namelist() if name.endswith(".h5")]
                if not names:
                    return
                weights = stack.enter_context(archive.open(names[0]))
            sizes: list[int] = []
            file = stack.enter_context(h5py.File(weights, "r"))
            file.visititems(lambda name, item: sizes.append(item.nbytes) if isinstance(item, h5py.Dataset) else None)
            check(sum(sizes))
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def system_temporary_folder() -> Path:
    """Return the system's folder for temporary files.

    Raises:
        FileNotFoundError: If there is none that can be written; the message says what to do.

    Example:
        >>> system_temporary_folder().is_dir()
        True
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.strerror}. {_TEMPORARY_ADVICE}") from error


def temporary_folder() -> tuple[Path, contextlib.ExitStack]:
    """Make a temporary folder, and clear away those of killed programs.

    Returns:
        The folder, and what removes it: its `close()`.

    Raises:
        OSError: If there is no room for it; the message says what to do.

    Example:
        >>> folder, remover = temporary_folder()
        >>> folder.exists(), remover.close(), folder.exists()
        (True, None, False)
    """
    clear_on_sigterm()
    place = system_temporary_folder()
    remove_leftovers(place)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}. {_TEMPORARY_ADVICE}. While writing", str(place)) from error
    remover = contextlib.ExitStack()
    remover.callback(_unfinished.discard, folder)
    remover.callback(shutil.rmtree, folder, ignore_errors=True)
    _unfinished.add(folder)
    # Locked under another name first: unlocked under this one it would be taken for a leftover.
    lock = folder / "lock"
    file = remover.enter_context(_locked(lock))
    if file is not None:
        file.write(_MARK)
        file.flush()
    lock.replace(folder / _LOCK)
    return folder, remover


@contextlib.contextmanager
def _locked(path: Path, mode: int = 0o666) -> Iterator[IO[bytes] | None]:
    """Make an empty file that is locked as long as this program runs, or the `with` block."""
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # some network drives know no locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            return
    yield None  # closed, since Windows does not replace open files


def _flush_folder(folder: Path) -> None:
    """Make a new name in a folder outlast a power cut, where the system can."""
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
    advice = _LIMIT_ADVICE if error.errno in _EXHAUSTED else advice
    return OSError(error.errno, f"{error.strerror}. {advice}. While writing", str(path))
