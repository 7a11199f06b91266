"""What the tests of the tuning share: small sweeps, and the warnings of others in them.

Run as a program, it is the command of the sweep with trials that train nothing, each of SECONDS:

    python tests/sweeps.py SECONDS FOLDER --output sweeps/mine ...
"""

import shlex
import sys
import time

import pytest

# KerasTuner asks for its thread's name by an old name.
IGNORED_WARNINGS = pytest.mark.filterwarnings(
    "ignore:currentThread:DeprecationWarning",
    "ignore:getName:DeprecationWarning",
)

CONVERTER = {"sample_rate": 8000, "n_fft": 64, "hop_length": 16, "num_frames": 32}
CHOICES = {"latent_dim": [2, 4], "num_components": [1, 2], "decoder_depth": [2, 3], "width": [8]}
COMMAND = shlex.split(
    "--sample-rate 8000 --n-fft 64 --hop-length 16 --num-frames 32 --latent-dim 2 4 --num-components 1 2 "
    "--decoder-depth 2 3 --width 8 --epochs 1 --batch-size 64 --validation-split 0.3 --verbose 0"
)


def wait_for(condition, seconds=120):
    """Wait until a function returns something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def run_untrained(task):
    """Stand in for `run_in_child`: the loss is a known function of the chosen values, and 3 numbers fail."""
    from spectrovae.tuning.search_space import write_json
    from spectrovae.tuning.trial_process import OUTCOME

    values = task.hyperparameters["values"]
    outcome = {
        "arguments": values,
        "history": {"val_loss": [9.0, values["latent_dim"] + values["num_components"] / 10]},
        "num_parameters": 1000 * values["latent_dim"],
        "seconds": 1.0,
        "peak_memory_mb": 500.0,
    }
    if values["latent_dim"] == 3:
        outcome = {"reason": "loss became nan in epoch 1.", "seconds": 1.0}
    write_json(task.folder / OUTCOME, outcome)
    return outcome


def make_trial(number, score, reason=None, **values):
    """Return the result of a trial with these values; with a reason it failed."""
    from spectrovae.tuning.results import TrialResult

    status = "COMPLETED" if reason is None else "FAILED"
    metrics = {} if reason else {"val_loss": score, "val_rmse_db": 5.0 + number}
    score = None if reason else score
    return TrialResult(f"{number:02d}", status, score, values, metrics, 2, 30.0, 1000 * number, 500.0, reason)


def main() -> int:
    """Run the command of the sweep with trials that train nothing."""
    from spectrovae.tuning import sweep
    from spectrovae.tuning.__main__ import main

    def run(task):
        time.sleep(float(sys.argv[1]))
        return run_untrained(task)

    sweep.run_in_child = run
    return main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
