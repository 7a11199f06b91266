import csv
import dataclasses
import inspect
import json
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

import keras_tuner
import numpy as np
import pytest

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.encoder import check_network
from spectrovae.synthesis import compose_collection
from spectrovae.tuning import SpectroVAEHyperModel, choose_objective, search_space
from spectrovae.tuning import sweep as sweep_module
from spectrovae.tuning.__main__ import main, make_parser
from spectrovae.tuning.linear_start import SharedLinearStart
from spectrovae.tuning.oracles import ORACLES
from spectrovae.tuning.results import read_results
from spectrovae.tuning.search_space import DEFAULT_CHOICES, OPTIONAL_CHOICES, buildable_choices
from spectrovae.tuning.settings import SweepSettings, write_json
from spectrovae.tuning.trial_process import OUTCOME, _explain_exit

pytestmark = pytest.mark.filterwarnings(
    # KerasTuner asks for its thread's name by an old name.
    "ignore:currentThread:DeprecationWarning",
    "ignore:getName:DeprecationWarning",
)

CONVERTER = {"sample_rate": 8000, "n_fft": 64, "hop_length": 16, "num_frames": 32}
CHOICES = {"latent_dim": [2, 4], "num_components": [1, 2], "decoder_depth": [2, 3], "width": [8]}
COMMAND = shlex.split(
    "--sample-rate 8000 --n-fft 64 --hop-length 16 --num-frames 32 --latent-dim 2 4 --num-components 1 2 "
    "--decoder-depth 2 3 --width 8 --epochs 1 --batch-size 64 --validation-split 0.3 --verbose 0"
)


@pytest.fixture(scope="session")
def music(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    compose_collection(folder, num_pieces=4, duration=1.0, sample_rate=8000)
    return folder


@pytest.fixture
def settings(music):
    return SweepSettings((str(music),), CONVERTER, CHOICES, tuner="random", epochs=1, validation_split=0.3)


@pytest.fixture
def make_hypermodel(small_converter):
    def make(choices=None, **kwargs):
        return SpectroVAEHyperModel(small_converter, CHOICES | (choices or {}), seed=0, **kwargs)

    return make


@pytest.fixture
def untrained(monkeypatch):
    """Trials that train nothing: their loss is a known function of what was chosen."""
    tasks = []

    def run(task):
        tasks.append(task)
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

    monkeypatch.setattr(sweep_module, "run_in_child", run)
    return tasks


def random_hyperparameters(hypermodel, seed):
    declared = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(declared)
    for parameter in declared.space:
        declared.values[parameter.name] = parameter.random_sample(seed)
    return declared


# What is searched


def test_arguments_are_those_of_the_model_and_start_at_its_defaults():
    arguments = search_space(keras_tuner.HyperParameters())
    parameters = inspect.signature(SpectroVAE).parameters
    assert set(arguments) == set(DEFAULT_CHOICES) and set(arguments) <= set(parameters)
    for name, value in arguments.items():
        assert value == parameters[name].default or parameters[name].default not in DEFAULT_CHOICES[name]
    everything = search_space(keras_tuner.HyperParameters(), choices=OPTIONAL_CHOICES)
    assert set(everything) == set(DEFAULT_CHOICES) | set(OPTIONAL_CHOICES) - {"learning_rate"}


@pytest.mark.parametrize("shape", [(512, 512, 1), (64, 48, 1), (96, 320, 1)])
@pytest.mark.parametrize("architecture", ["temporal", "classic"])
def test_every_depth_that_is_proposed_can_be_built(shape, architecture):
    choices = {"decoder_depth": range(1, 12)}
    depths = buildable_choices(shape, architecture, choices)["decoder_depth"]
    for depth in depths:
        check_network(shape, architecture, depth)
    for depth in set(range(1, 12)) - set(depths):
        with pytest.raises(ValueError):
            check_network(shape, architecture, depth)


def test_what_is_registered_before_has_precedence():
    hp = keras_tuner.HyperParameters()
    hp.Fixed("latent_dim", 77)
    assert search_space(hp)["latent_dim"] == 77


def test_bad_choices_are_refused():
    hp = keras_tuner.HyperParameters()
    with pytest.raises(ValueError, match="latent_size"):
        search_space(hp, choices={"latent_size": [1]})
    with pytest.raises(ValueError, match="no value to choose for decoder_depth.*multiple of 1024"):
        search_space(hp, choices={"decoder_depth": [10]})


def test_objective_is_one_that_compares():
    assert choose_objective().name == "val_loss"
    assert choose_objective(choices={"likelihood": ["gaussian"]}).name == "val_loss"
    assert choose_objective(choices={"likelihood": ["gaussian", "bernoulli"]}).name == "val_rmse_db"
    assert choose_objective("val_rmse_db").direction == "min"
    with pytest.raises(ValueError, match="accuracy"):
        choose_objective("accuracy")


# The hypermodel


def test_model_is_built_as_chosen(make_hypermodel):
    hypermodel = make_hypermodel({"learning_rate": [1e-4, 3e-4], "posterior": ["diagonal", "full"]})
    for seed in range(3):
        hp = random_hyperparameters(hypermodel, seed)
        model = hypermodel.build(hp)
        for name in ("latent_dim", "num_components", "decoder_depth", "width", "posterior"):
            assert getattr(model, name) == hp.get(name)
        assert float(model.optimizer.learning_rate) == pytest.approx(hp.get("learning_rate"))
        assert model.seed == 0


def test_models_that_cannot_be_built_fail_with_the_reason(make_hypermodel):
    hp = keras_tuner.HyperParameters()
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="latent_dim"):
        make_hypermodel({"latent_dim": [-1]}).build(hp)
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="the limit is 100"):
        make_hypermodel(max_parameters=100).build(keras_tuner.HyperParameters())


@pytest.mark.parametrize(
    ("tuner", "arguments"),
    [
        ("RandomSearch", {"max_trials": 2}),
        pytest.param("BayesianOptimization", {"max_trials": 2}, marks=pytest.mark.slow),
        pytest.param("GridSearch", {"max_trials": 2}, marks=pytest.mark.slow),
        pytest.param("Hyperband", {"max_epochs": 2, "factor": 2}, marks=pytest.mark.slow),
    ],
)
def test_any_tuner_takes_the_hypermodel(tuner, arguments, make_hypermodel, windows, tmp_path):
    hypermodel = make_hypermodel({"decoder_depth": [2]})
    search = getattr(keras_tuner, tuner)(hypermodel, objective="val_loss", directory=tmp_path, seed=0, **arguments)
    search.search(windows[:32], validation_data=windows[32:], epochs=1, verbose=0)
    trials = list(search.oracle.trials.values())
    assert len(trials) >= 2
    assert [trial.status for trial in trials] == ["COMPLETED"] * len(trials)
    assert hypermodel.linear_start.num_computed == 1
    best = search.get_best_models()[0]
    score = best.evaluate(windows[32:], verbose=0, return_dict=True)["loss"]
    assert score == pytest.approx(search.oracle.get_best_trials()[0].score, rel=0.02)


@pytest.mark.slow
def test_trial_that_ends_in_nan_fails_with_its_reason(make_hypermodel, windows, tmp_path):
    hypermodel = make_hypermodel({name: [1] for name in ("latent_dim", "num_components", "decoder_depth")})
    hypermodel.choices["learning_rate"] = [1e30, 1e-4]
    search = keras_tuner.GridSearch(hypermodel, objective="val_loss", directory=tmp_path, max_trials=2)
    search.search(windows, validation_data=windows, epochs=2, verbose=0)
    failed, completed = search.oracle.trials.values()
    assert (failed.status, completed.status) == ("FAILED", "COMPLETED")
    assert "became" in failed.message and "epoch 1" in failed.message


# The shared linear start


def test_shared_start_is_that_of_the_model(make_model, windows):
    start = SharedLinearStart([2, 3, 4], seed=0)
    for latent_dim in (2, 4):
        shared, own = make_model(latent_dim=latent_dim), make_model(latent_dim=latent_dim)
        start.adapt(shared, windows)
        own.adapt(windows, verbose=0)
        losses = [model.evaluate(windows, verbose=0, return_dict=True)["loss"] for model in (shared, own)]
        assert losses[0] == pytest.approx(losses[1], rel=0.01)
        np.testing.assert_allclose(shared.reconstruct(windows), own.reconstruct(windows), atol=0.01)
        assert shared.adapted
    assert start.num_computed == 1


def test_shared_start_serves_other_processes(make_model, windows, tmp_path):
    first, second = (SharedLinearStart([2, 4], tmp_path / "start", seed=0) for _ in range(2))
    models = [make_model(), make_model()]
    for start, model in zip((first, second), models, strict=True):
        start.adapt(model, windows)
    assert (first.num_computed, second.num_computed) == (1, 0)
    np.testing.assert_array_equal(models[0].reconstruct(windows), models[1].reconstruct(windows))


def test_start_of_other_data_is_computed_anew(make_model, windows):
    start = SharedLinearStart([4])
    for data in (windows, windows[:24]):
        start.adapt(make_model(), data)
    assert start.num_computed == 2


# The sweep


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


def test_exit_of_a_killed_process_is_explained():
    assert "SIGKILL" in _explain_exit(-signal.SIGKILL) and "out of memory" in _explain_exit(-signal.SIGKILL)
    assert "exit code 3" in _explain_exit(3)


# Real trials, each in a process of its own


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def status_of(output, trial_id):
    return {trial.trial_id: trial.status for trial in read_results(output).trials}.get(trial_id)


@pytest.mark.slow
def test_killed_sweep_keeps_what_it_has_and_goes_on(music, tmp_path):
    output = tmp_path / "sweep"
    command = [sys.executable, "-m", "spectrovae.tuning", str(music), "--output", str(output), *COMMAND]
    command += ["--max-trials", "3", "--tuner", "random"]
    with subprocess.Popen(command) as process:
        wait_for(lambda: (output / "settings.json").exists() and status_of(output, "1") == "RUNNING")
        process.kill()
    assert status_of(output, "0") == "COMPLETED"
    kept = output / "trials" / "trial_0" / OUTCOME
    written = kept.stat().st_mtime_ns
    assert subprocess.run(command).returncode == 0
    results = read_results(output)
    assert [trial.status for trial in results.trials] == ["COMPLETED"] * 3
    assert kept.stat().st_mtime_ns == written
    best = json.loads((output / "best.json").read_text())
    converter = SpectrogramConverter(**best["converter"])
    model = SpectroVAE(converter.window_shape, converter=converter, **best["arguments"])
    model.load_weights(output / best["weights"])
    model.compile()
    _, validation = results.settings.datasets(output / "audio_cache")
    assert model.evaluate(validation, verbose=0, return_dict=True)["loss"] == pytest.approx(best["score"], rel=0.02)
    # One linear start for each depth that came up, shared by the processes.
    depths = {trial.values["decoder_depth"] for trial in results.trials}
    assert {file.name for file in (output / "linear_start").iterdir()} == {f"pool_{2**depth}.npz" for depth in depths}
    assert all(trial.seconds > 0 and trial.peak_memory_mb > 100 for trial in results.trials)


@pytest.mark.slow
def test_trial_whose_process_is_killed_fails_and_the_sweep_goes_on(settings, tmp_path, monkeypatch):
    run = sweep_module.run_in_child

    def run_and_kill_the_first(task):
        if task.folder.name == "trial_0":
            watcher = threading.Thread(target=kill_trial, daemon=True)
            watcher.start()
        return run(task)

    def kill_trial():
        wait_for(multiprocessing.active_children)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    monkeypatch.setattr(sweep_module, "run_in_child", run_and_kill_the_first)
    sweep_module.Sweep(settings, tmp_path, max_trials=2, verbose=0).search()
    completed, failed = read_results(tmp_path).trials
    assert (completed.status, failed.status) == ("COMPLETED", "FAILED")
    assert "SIGKILL" in failed.reason and "out of memory" in failed.reason


@pytest.mark.slow
def test_trial_that_diverges_fails_in_its_process_too(settings, tmp_path):
    choices = CHOICES | {"latent_dim": [2], "num_components": [1], "decoder_depth": [2], "learning_rate": [1e30]}
    sweep = sweep_module.Sweep(dataclasses.replace(settings, choices=choices), tmp_path, max_trials=1, verbose=0)
    sweep.search()
    (failed,) = read_results(tmp_path).trials
    assert failed.status == "FAILED" and "became" in failed.reason and "epoch 1" in failed.reason


def ongoing_trials(output):
    file = output / "trials" / "oracle.json"
    return json.loads(file.read_text())["ongoing_trials"] if file.exists() else {}


@pytest.fixture
def start_role(music, tmp_path):
    """A function that starts a chief or a worker on loopback; what is left of them is killed at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "spectrovae.tuning", str(music), "--output", str(tmp_path / "sweep"), *COMMAND]
    command += ["--max-trials", "4", "--tuner", "random", "--chief", address, "--worker-timeout", "8"]
    processes = []

    def start(role, name=None):
        processes.append(subprocess.Popen([*command, "--role", role, *(["--worker-id", name] if name else [])]))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["worker", "chief"])
def test_chief_and_workers_survive_the_loss_of_one(loss, start_role, tmp_path):
    output = tmp_path / "sweep"
    chief, first, second = start_role("chief"), start_role("worker", "first"), start_role("worker", "second")
    wait_for(lambda: len(ongoing_trials(output)) == 2)
    lost = first if loss == "worker" else chief
    lost.kill()
    lost.wait()
    if loss == "chief":
        chief = start_role("chief")
        assert first.wait() == 0
    assert second.wait() == 0
    assert chief.wait() == 0
    results = read_results(output)
    assert [trial.status for trial in results.trials] == ["COMPLETED"] * 4
    assert (output / "best.json").exists()
    state = json.loads((output / "trials" / "oracle.json").read_text())
    assert sorted(state["end_order"]) == sorted(state["start_order"]) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--role", "chief"], "HOST:PORT"),
        (["--role", "worker", "--chief", "127.0.0.1:9"], "needs a name"),
    ],
)
def test_roles_need_an_address_and_a_name(extra, message, music, tmp_path, capsys):
    assert main([str(music), "--output", str(tmp_path), *COMMAND, *extra]) == 2
    assert message in capsys.readouterr().err
