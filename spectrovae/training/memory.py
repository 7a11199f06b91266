"""Memory that training uses again instead of giving it back."""

import ctypes
import os
import sys

_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1  # numbers of glibc's parameters, of its malloc.h


def keep_freed_memory() -> bool:
    """Have this process keep the memory of large arrays for the next ones, and return whether that was possible.

    The GNU C library maps each array of a training step anew and gives it back when it is freed; clearing its pages
    takes a quarter of the step. `SpectroVAE.fit` and the command `spectrovae` call this. It is possible on Linux with
    glibc only, and nothing is done where an environment variable `MALLOC_...` says what the user wants.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
    return all([mallopt(parameter, value) for parameter, value in settings.items()])
