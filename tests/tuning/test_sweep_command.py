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
    command = [str(music), "--output", str(output), "--max-trials", "4", *COMMAND, "--latent-dim", "2", "3"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    with (output / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    completed = [row for row in rows if row["status"] == "COMPLETED"]
    failed = [row for row in rows if row["status"] == "FAILED"]
    assert len(rows) == 4 and completed and failed
    assert f"{len(completed)} of 4 trials completed, {len(failed)} failed" in shown
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
        (["--validation-split", "0"], "validation_split"),
        (["nowhere"], "nowhere"),
    ],
)
def test_command_refuses_what_cannot_be(extra, message, music, untrained, tmp_path, capsys):
    folder = extra if extra == ["nowhere"] else [str(music)]
    options = [] if extra == ["nowhere"] else extra
    assert main([*folder, "--output", str(tmp_path / "sweep"), *COMMAND, *options]) == 2
    assert message in capsys.readouterr().err
    assert not untrained


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
