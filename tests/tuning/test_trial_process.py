import dataclasses
import multiprocessing
import os
import signal
import tempfile
import threading

import keras_tuner
import pytest
from sweeps import CHOICES, IGNORED_WARNINGS, wait_for
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from spectrovae.tuning import Sweep, read_results
from spectrovae.tuning import sweep as sweep_module
from spectrovae.tuning.trial_process import _context, _explain_exit, tensorboard_logs

pytestmark = IGNORED_WARNINGS


def session_groups(folder):
    """Return what TensorBoard's HParams view lists for a folder, by the name of the trial."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = Context(TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=100,
        allowed_statuses=[
            api_pb2.STATUS_SUCCESS,
            api_pb2.STATUS_FAILURE,
            api_pb2.STATUS_RUNNING,
            api_pb2.STATUS_UNKNOWN,
        ],
    )
    response = Handler(RequestContext(), context, "sweep", request).run()
    return {group.name: group for group in response.session_groups}


def metrics_of(group):
    return {value.name.tag: value.value for value in group.metric_values if value.name.group == "validation"}


@pytest.fixture
def hp():
    declared = keras_tuner.HyperParameters()
    declared.Choice("latent_dim", [2, 4])
    declared.Fixed("likelihood", "gaussian")
    declared.values["tuner/epochs"] = 3
    return declared


def test_view_lists_a_trial_with_its_metrics(hp, make_model, windows, tmp_path):
    for _ in range(2):  # what ran before under the same name is not mixed in
        with tensorboard_logs(tmp_path / "trial_0" / "logs", "trial_0", hp) as callback:
            history = make_model().fit(windows, validation_data=windows, epochs=2, callbacks=[callback], verbose=0)
    (group,) = session_groups(tmp_path).values()
    assert group.name == "trial_0" and [session.status for session in group.sessions] == [api_pb2.STATUS_SUCCESS]
    assert set(group.hparams) == {"latent_dim", "likelihood"}
    assert group.hparams["latent_dim"].number_value == 2 and group.hparams["likelihood"].string_value == "gaussian"
    for name in ("loss", "rmse_db", "kl_loss"):
        assert metrics_of(group)[f"epoch_{name}"] == pytest.approx(history.history[f"val_{name}"][-1], rel=1e-5)


def test_failed_trial_is_shown_as_failed(hp, tmp_path):
    with pytest.raises(RuntimeError), tensorboard_logs(tmp_path, "trial_1", hp):
        raise RuntimeError
    (group,) = session_groups(tmp_path).values()
    assert [session.status for session in group.sessions] == [api_pb2.STATUS_FAILURE]


def test_exit_of_a_killed_process_is_explained():
    assert "SIGKILL" in _explain_exit(-signal.SIGKILL) and "out of memory" in _explain_exit(-signal.SIGKILL)
    assert "exit code 3" in _explain_exit(3)


def test_long_temporary_folders_have_no_socket(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 25)))
    assert _context().get_start_method() == "spawn"


@pytest.mark.slow
def test_trials_in_processes_complete_diverge_or_are_killed(settings, tmp_path, monkeypatch):
    choices = {"latent_dim": [2], "num_components": [1], "decoder_depth": [2], "learning_rate": [1e-4, 1e30, 2e-4]}
    settings = dataclasses.replace(
        settings, choices=CHOICES | choices, tuner="grid", objective="val_distance", epochs=2
    )
    run = sweep_module.run_in_child

    def kill_trial():
        wait_for(multiprocessing.active_children)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    def run_and_kill_the_last(task):
        if task.folder.name == "trial_2":
            threading.Thread(target=kill_trial, daemon=True).start()
        return run(task)

    monkeypatch.setattr(sweep_module, "run_in_child", run_and_kill_the_last)
    Sweep(settings, tmp_path, max_trials=3, verbose=0).search()
    completed, diverged, killed = sorted(read_results(tmp_path).trials, key=lambda trial: trial.trial_id)
    assert [trial.status for trial in (completed, diverged, killed)] == ["COMPLETED", "FAILED", "FAILED"]
    assert completed.seconds > 0 and completed.peak_memory_mb > 100
    assert "became" in diverged.reason and "epoch 1" in diverged.reason
    assert "SIGKILL" in killed.reason and "out of memory" in killed.reason
    # TensorBoard shows them too.
    groups = session_groups(tmp_path)
    assert {f"trial_{trial.trial_id}" for trial in (completed, diverged)} <= set(groups)
    group = groups[f"trial_{completed.trial_id}"]
    assert group.hparams["latent_dim"].number_value == completed.values["latent_dim"]
    assert completed.score == completed.metrics["val_distance"]
    if completed.best_epoch == 2:
        assert metrics_of(group)["epoch_distance"] == pytest.approx(completed.score, rel=1e-5)
