import dataclasses
import json
import re
from pathlib import Path

import pytest
from sweeps import CHOICES, IGNORED_WARNINGS

from spectrovae.tuning import sweep as sweep_module
from spectrovae.tuning import write_report
from spectrovae.tuning.oracles import ORACLES
from spectrovae.tuning.results import read_results
from spectrovae.tuning.search_space import write_json

pytestmark = IGNORED_WARNINGS
STATUS = Path("/proc/self/status")


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


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc, which only Linux has")
def test_memory_stays_flat(settings, untrained, tmp_path):
    settings = dataclasses.replace(settings, choices=CHOICES | {"num_components": [1, 2]}, tuner="bayesian")
    resident = []

    def report(output):
        write_report(output)
        resident.append(int(re.search(r"VmRSS:\s+(\d+) kB", STATUS.read_text())[1]))

    sweep_module.Sweep(settings, tmp_path, max_trials=7, verbose=0, report=report).search()
    assert len(resident) == len(read_results(tmp_path).completed) == 7
    assert resident[6] < 1.1 * resident[1]
