import subprocess
import sys

import pytest

MEASURE = """
import resource, sys
from spectrovae.training.memory import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b'.' * 2**26  # more than glibc would keep
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has these settings")
def test_arrays_get_the_memory_of_earlier_ones(monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    faults = {
        kind: int(subprocess.run([sys.executable, "-c", MEASURE, kind], capture_output=True, check=True).stdout)
        for kind in ("kept", "given back")
    }
    assert faults["kept"] < 0.2 * faults["given back"]


def test_settings_of_the_user_are_left_alone(monkeypatch):
    from spectrovae.training.memory import keep_freed_memory

    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
