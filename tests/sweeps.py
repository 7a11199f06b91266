"""What the tests of the tuning share: small sweeps, and the warnings of others in them."""

import shlex

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
