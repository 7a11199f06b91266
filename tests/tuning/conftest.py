"""What the tests of the tuning share: a small sweep, and trials that train nothing."""

import pytest
from sweeps import CHOICES, CONVERTER, run_untrained

from spectrovae.tuning import SweepSettings, sweep
from spectrovae.tuning.trial_process import TrialTask


@pytest.fixture
def settings(music) -> SweepSettings:
    """Settings of a small sweep over `music`."""
    return SweepSettings((str(music),), CONVERTER, CHOICES, tuner="random", epochs=1, validation_split=0.3)


@pytest.fixture
def untrained(monkeypatch) -> list[TrialTask]:
    """Trials that train nothing; the list of those that have run."""
    tasks = []

    def run(task):
        tasks.append(task)
        return run_untrained(task)

    monkeypatch.setattr(sweep, "run_in_child", run)
    return tasks
