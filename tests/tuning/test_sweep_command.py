import csv
import json

import pytest
from sweeps import COMMAND, IGNORED_WARNINGS

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.tuning.__main__ import _CONVERTER, main, make_parser
from spectrovae.tuning.search_space import DEFAULT_CHOICES, OPTIONAL_CHOICES

pytestmark = IGNORED_WARNINGS


def test_command_ends_with_summary_and_files(music, untrained, tmp_path, capsys):
    output = tmp_path / "sweep"
    # Of eight different trials four fail: among any five are some that do and some that do not.
    command = [str(music), "--output", str(output), "--max-trials", "5", *COMMAND, "--latent-dim", "2", "3"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    with (output / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    completed = [row for row in rows if row["status"] == "COMPLETED"]
    failed = [row for row in rows if row["status"] == "FAILED"]
    assert len(rows) == 5 and completed and failed
    assert f"{len(completed)} of 5 trials completed, {len(failed)} failed" in shown
    assert all(row["reason"] == "loss became nan in epoch 1." for row in failed)
    assert shown.count("loss became nan in epoch 1.") == len(failed)
    best = json.loads((output / "best.json").read_text())
    assert best["score"] == min(float(row["score"]) for row in completed)
    converter = SpectrogramConverter(**best["converter"])
    model = SpectroVAE(converter.window_shape, converter=converter, **best["arguments"])
    assert model.latent_dim == 2


def test_command_fails_if_all_trials_failed(music, untrained, tmp_path, capsys):
    command = [str(music), "--output", str(tmp_path), "--max-trials", "2", *COMMAND, "--latent-dim", "3"]
    assert main(command) == 1
    captured = capsys.readouterr()
    assert "no trial completed" in captured.err and "report.html for the reasons" in captured.err
    assert "loss became nan" in captured.out
    page = (tmp_path / "report.html").read_text()
    assert "0 of 2 trials completed, 2 failed" in page and page.count("loss became nan in epoch 1.") == 2
    assert not (tmp_path / "best.json").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--decoder-depth", "9"], "no value to choose for decoder_depth"),
        (["--decoder-depth", "0"], "`decoder_depth` must be an integer of 1 or more"),
        (["--latent-dim", "100", "0"], "`latent_dim` must be an integer of 1 or more"),
        (["--latent-dim", "2000000"], "`latent_dim` must be at most"),
        (["--num-components", "500000000"], "`num_components` must be at most"),
        (["--width", "-8"], "`width`"),
        (["--latent-steps", "7"], "no value to choose for latent_steps"),
        (["--learning-rate", "0"], "`learning_rate` must be a number above 0"),
        (["--learning-rate", "nan"], "`learning_rate`"),
        (["--learning-rate", "inf"], "`learning_rate`"),
        (["--validation-split", "0"], "validation_split"),
        (["--validation-split", "20"], "validation_split"),
        (["--validation-split", "nan"], "validation_split"),
        (["--worker-timeout", "0"], "`worker_timeout` must be above 0"),
        (["--worker-timeout", "inf"], "`worker_timeout`"),
        (["--worker-timeout", "nan"], "`worker_timeout`"),
        (["--seed", "-1"], "`seed`"),
        (["--seed", str(2**70)], "`seed`"),
        (["--sample-rate", "5"], "`sample_rate` must be in Hz"),
        (["--n-fft", "1"], "n_fft"),
        (["nowhere"], "nowhere"),
        (["--output", "{music}/piece_00.wav/sweep"], "piece_00.wav"),
    ],
)
def test_command_refuses_what_cannot_be(extra, message, music, untrained, tmp_path, capsys):
    """Each mistake is reported in one line, before anything is trained."""
    options = [option.format(music=music) for option in extra]
    assert main([str(music), *COMMAND, "--output", str(tmp_path / "sweep"), *options][extra == ["nowhere"] :]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
    assert not untrained


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--max-trials", "0"], "must be a whole number of 1 or more, not 0"),
        (["--epochs", "ten"], "must be a whole number of 1 or more, not ten"),
        (["--batch-size", "1.5"], "must be a whole number of 1 or more, not 1.5"),
        (["--latent-dim", "many"], "invalid int value: 'many'"),
        (["--likelihood", "gausian"], "invalid choice: 'gausian'"),
        (["--posterior", "diagonal", "ful"], "invalid choice: 'ful'"),
        (["--architecture", "dense_temporal"], "invalid choice"),
        (["--tuner", "bayes"], "invalid choice: 'bayes'"),
        (["--objective", "loss"], "invalid choice: 'loss'"),
        (["--max-trails", "3"], "unrecognized arguments: --max-trails"),
        (["--max-tri", "3"], "unrecognized arguments: --max-tri"),
        (["--verbose", "3"], "invalid choice: 3"),
    ],
)
def test_parser_refuses_typos(extra, message, music, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_code:
        main([str(music), "--output", str(tmp_path), *extra])
    assert exit_code.value.code == 2 and message in capsys.readouterr().err


def test_depths_that_do_not_fit_are_left_out_and_named(music, untrained, tmp_path, capsys):
    command = [str(music), "--output", str(tmp_path), "--max-trials", "3", *COMMAND, "--decoder-depth", "3", "6"]
    assert main(command) == 0
    assert "decoder_depth 6 left out" in capsys.readouterr().out
    assert {task.hyperparameters["values"]["decoder_depth"] for task in untrained} == {3}


def test_help_lists_every_argument(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    for name in (*DEFAULT_CHOICES, *OPTIONAL_CHOICES, "tuner", "max-trials", "epochs", "output", "overwrite"):
        assert f"--{name.replace('_', '-')}" in shown


def test_defaults_are_those_of_the_converter():
    assert {key: value for key, value in SpectrogramConverter().get_config().items() if key in _CONVERTER} == _CONVERTER
