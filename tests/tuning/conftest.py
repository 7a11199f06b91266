"""What the tests of the tuning share: a small sweep, trials that train nothing, and results."""

import numpy as np
import pytest
from sweeps import CHOICES, CONVERTER, make_trial, run_untrained

from spectrovae.tuning import SweepSettings, sweep
from spectrovae.tuning.results import SweepResults
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


@pytest.fixture
def make_results(tmp_path):
    """A function that makes results of trials; the best completed trial comes first."""

    def make(*trials, **settings):
        ordered = sorted(trials, key=lambda trial: (trial.status != "COMPLETED", trial.score or 0))
        return SweepResults(tmp_path, SweepSettings(("music",), **settings), tuple(ordered))

    return make


@pytest.fixture
def many_results(make_results):
    """20 trials where the size of the code decides, the mixture does not matter, and the depth is always the same."""
    generator = np.random.default_rng(0)
    trials = []
    for number in range(20):
        latent_dim, num_components = int(generator.choice([25, 50, 100])), int(generator.choice([1, 4, 16]))
        score = -1000.0 * latent_dim + generator.normal()
        trials.append(make_trial(number, score, latent_dim=latent_dim, num_components=num_components, decoder_depth=4))
    failure = make_trial(20, 0.0, "loss became <nan> & worse", latent_dim=400, num_components=4, decoder_depth=4)
    return make_results(*trials, failure, tuner="random")
