"""A training that is killed and started again ends like one that ran in peace."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from kill_training import faults, measure


@pytest.mark.slow
def test_killed_training_loses_nothing(tmp_path):
    """What `benchmarks/kill_training.py` does with 20 kills, with three."""
    result = measure(kills=3, epochs=25, seed=1, num_references=1, place=tmp_path)
    assert faults(result, epochs=25) == [], result
    assert result["reads of model files"] > 20
