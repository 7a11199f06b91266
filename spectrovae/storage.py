"""Files that are complete or absent, temporary folders, and locks."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
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

_LOCK = ".lock"

# What SIGTERM is to remove.
_unfinished: set[Path] = set()

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files and temporary folders that killed programs left in a folder.

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


def temporary_folder() -> tuple[Path, contextlib.ExitStack]:
    """Make a temporary folder, and clear away those of killed programs.

    Returns:
        The folder, and what removes it: its `close()`.

    Example:
        >>> folder, remover = temporary_folder()
        >>> folder.exists(), remover.close(), folder.exists()
        (True, None, False)
    """
    clear_on_sigterm()
    remove_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
    remover = contextlib.ExitStack()
    remover.callback(_unfinished.discard, folder)
    remover.callback(shutil.rmtree, folder, ignore_errors=True)
    _unfinished.add(folder)
    # Locked under another name first: unlocked under this one it would be taken for a leftover.
    lock = folder / "lock"
    remover.enter_context(_locked(lock))
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
    return OSError(error.errno, f"{error.strerror}. {advice}. While writing", str(path))
