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
