"""A place for the functions that numba compiles for librosa."""

from __future__ import annotations

import atexit
import importlib.util
import os
from pathlib import Path

from spectrovae.storage import temporary_folder

_VARIABLE = "NUMBA_CACHE_DIR"


def ensure_numba_cache() -> None:
    """Give numba a temporary folder if it has no place to keep compiled functions; without one librosa does not import.

    It looks beside librosa's files and in the home folder. Neither can be written where a container runs a program as a
    user of its own.
    """
    if _VARIABLE in os.environ:
        return
    librosa = importlib.util.find_spec("librosa")
    places = [*(librosa.submodule_search_locations or ())] if librosa is not None else []
    places += [os.environ.get("XDG_CACHE_HOME") or "~/.cache", "~"]
    if not any(_can_be_written(Path(os.path.expanduser(place))) for place in places):
        folder, remover = temporary_folder()
        atexit.register(remover.close)
        os.environ[_VARIABLE] = str(folder)


def _can_be_written(folder: Path) -> bool:
    """Return whether files can be made in a folder, or the folder be made."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
