import csv
import dataclasses
import json

import pytest
from sweeps import COMMAND, IGNORED_WARNINGS

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.tuning import sweep as sweep_module
from spectrovae.tuning.__main__ import main, make_parser
from spectrovae.tuning.oracles import ORACLES
from spectrovae.tuning.results import read_results
from spectrovae.tuning.search_space import DEFAULT_CHOICES, OPTIONAL_CHOICES
from spectrovae.tuning.sweep import write_json

pytestmark = IGNORED_WARNINGS


@pytest.mark.parametrize("tuner", sorted(ORACLES))
def test_sweep_finds_the_best_and_never_repeats(tuner, settings, untrained, tmp_path):
    settings = dataclasses.replace(settings, tuner=tuner, epochs=4 if tuner == "hyperband" else 1)
    sweep_module.Sweep(settings, tmp_path / "sweep", max_trials=8, verbose=0).search()
    results = read_results(tmp_path / "sweep")
    scores = [trial.score for trial in results.completed]
    assert scores == sorted(scores) and len(scores) == len(results.trials) > 3
    best = results.completed[0]
    assert best.score == pytest.approx(best.values["latent_dim"] + best.values["num_components"] / 10)
    assert best.best_epoch == 2
    if tuner != "hyperband":
        combinations = {tuple(trial.values.items()) for trial in results.trials}
        assert len(combinations) == len(results.trials)
        # Eight trials: the whole space.
        assert len(scores) == 8 and best.score == pytest.approx(2.1)


def test_hyperband_goes_on_from_the_weights_of_an_earlier_trial(settings, untrained, tmp_path):
    settings = dataclasses.replace(settings, tuner="hyperband", epochs=4)
    sweep_module.Sweep(settings, tmp_path / "sweep", max_trials=8, verbose=0).search()
    promoted = [task for task in untrained if task.initial_weights is not None]
    assert promoted
    for task in promoted:
        past = task.hyperparameters["values"]["tuner/trial_id"]
        assert task.initial_weights.parent.name == f"trial_{past}"


@pytest.mark.parametrize("tuner", sorted(ORACLES))
def test_sweep_goes_on_where_it_was(tuner, settings, untrained, tmp_path, monkeypatch):
    settings = dataclasses.replace(settings, tuner=tuner, epochs=4 if tuner == "hyperband" else 1)
    run = sweep_module.run_in_child

    def run_until_killed(task):
        if len(untrained) == 2:
            raise KeyboardInterrupt
        return run(task)

    monkeypatch.setattr(sweep_module, "run_in_child", run_until_killed)
    with pytest.raises(KeyboardInterrupt):
        sweep_module.Sweep(settings, tmp_path / "sweep", max_trials=4, verbose=0).search()
    before = read_results(tmp_path / "sweep")
    assert sorted(trial.status for trial in before.trials) == ["COMPLETED", "COMPLETED", "RUNNING"]
    monkeypatch.setattr(sweep_module, "run_in_child", run)
    sweep_module.Sweep(settings, tmp_path / "sweep", max_trials=4, verbose=0).search()
    after = read_results(tmp_path / "sweep")
    assert [trial.status for trial in after.trials] == ["COMPLETED"] * 4
    assert len(untrained) == 4
    cut_short = next(trial for trial in before.trials if trial.status == "RUNNING")
    assert next(t for t in after.trials if t.trial_id == cut_short.trial_id).values == cut_short.values


def test_state_that_a_kill_left_between_two_files_is_repaired(settings, untrained, tmp_path):
    sweep_module.Sweep(settings, tmp_path / "sweep", max_trials=3, verbose=0).search()
    oracle_file = tmp_path / "sweep" / "trials" / "oracle.json"
    state = json.loads(oracle_file.read_text())
    # The last trial's file was written, the oracle's was not; of the one before, the oracle thinks that it runs.
    lost, finished = state["start_order"].pop(), state["start_order"][-1]
    state["end_order"] = [key for key in state["end_order"] if key not in (lost, finished)]
    state["ongoing_trials"] = {"tuner0": finished}
    write_json(oracle_file, state)
    sweep = sweep_module.Sweep(settings, tmp_path / "sweep", max_trials=4, verbose=0)
    assert len(sweep.oracle.trials) == len(sweep.oracle.end_order) == 2
    sweep.search()
    assert [trial.status for trial in read_results(tmp_path / "sweep").trials] == ["COMPLETED"] * 4
    # The two that were kept did not run again.
    assert len(untrained) == 3 + 2


def test_sweep_of_other_settings_is_not_mixed_in(settings, untrained, tmp_path):
    sweep_module.Sweep(settings, tmp_path, max_trials=1, verbose=0).search()
    other = dataclasses.replace(settings, epochs=7)
    with pytest.raises(ValueError, match="epochs: 7, not 1"):
        sweep_module.Sweep(other, tmp_path, verbose=0)
    sweep_module.Sweep(other, tmp_path, max_trials=2, overwrite=True, verbose=0).search()
    assert len(read_results(tmp_path).trials) == 2
    assert len(untrained) == 3


# The command


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
    assert "no trial completed" in captured.err and "loss became nan" in captured.out


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
