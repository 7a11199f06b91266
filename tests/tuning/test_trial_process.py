"""What KerasTuner's own callbacks can't see of trials in other processes: TensorBoard's view, and the distance."""

import dataclasses

import keras_tuner
import numpy as np
import pytest
from sweeps import CHOICES, IGNORED_WARNINGS
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from spectrovae.evaluation.sound_distance import SoundDistance
from spectrovae.tuning import SpectroVAEHyperModel, Sweep, choose_objective, read_results
from spectrovae.tuning.hypermodel import GenerationDistance
from spectrovae.tuning.trial_process import tensorboard_logs

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


@pytest.mark.slow
def test_sweep_by_distance_is_shown_and_compares_by_it(settings, tmp_path):
    choices = CHOICES | {"latent_dim": [2, 4], "num_components": [1], "decoder_depth": [2]}
    settings = dataclasses.replace(settings, choices=choices, objective="val_distance", epochs=2)
    Sweep(settings, tmp_path, max_trials=2, verbose=0).search()
    results = read_results(tmp_path)
    assert [trial.status for trial in results.trials] == ["COMPLETED"] * 2
    groups = session_groups(tmp_path)
    assert set(groups) == {f"trial_{trial.trial_id}" for trial in results.trials}
    for trial in results.trials:
        group = groups[f"trial_{trial.trial_id}"]
        assert group.hparams["latent_dim"].number_value == trial.values["latent_dim"]
        assert trial.score == trial.metrics["val_distance"]
        if trial.best_epoch == 2:
            assert metrics_of(group)["epoch_distance"] == pytest.approx(trial.score, rel=1e-5)


# The distance


def test_distance_is_that_of_generated_and_held_out_windows(make_model, windows):
    model = make_model()
    callback = GenerationDistance(windows[:32], [windows[32:40], windows[40:]], num_samples=16, seed=3)
    history = model.fit(windows[:32], epochs=2, callbacks=[callback], verbose=0)
    distance = SoundDistance(windows[:32], model.converter)
    expected = distance.maximum_mean_discrepancy(model.generate(16, seed=3), windows[32:])
    assert history.history["val_distance"][-1] == pytest.approx(expected)
    with pytest.raises(ValueError, match="num_samples=1"):
        GenerationDistance(windows, windows, num_samples=1)


def test_windows_that_are_not_finite_are_nan_away(make_model, windows, monkeypatch):
    model = make_model()
    model.fit(windows, verbose=0)
    callback = GenerationDistance(windows[:32], windows[32:], num_samples=4)
    callback.set_model(model)
    callback.on_train_begin()
    monkeypatch.setattr(model, "generate", lambda num_samples, seed: np.full((num_samples, 32, 32, 1), np.nan))
    logs = {}
    callback.on_epoch_end(0, logs)
    assert np.isnan(logs["val_distance"])


def test_any_tuner_can_search_by_distance(small_converter, windows, tmp_path):
    choices = CHOICES | {"latent_dim": [2], "num_components": [1], "decoder_depth": [2]}
    hypermodel = SpectroVAEHyperModel(small_converter, choices, measure_distance=True, seed=0)
    search = keras_tuner.RandomSearch(
        hypermodel, choose_objective("val_distance"), max_trials=1, directory=tmp_path, overwrite=True
    )
    search.search(windows[:32], validation_data=(windows[32:],), epochs=1, verbose=0)
    (trial,) = search.oracle.trials.values()
    assert trial.status == "COMPLETED" and trial.score == trial.metrics.get_last_value("val_distance")
    hp = keras_tuner.HyperParameters()
    with pytest.raises(ValueError, match="validation_data=None"):
        hypermodel.fit(hp, hypermodel.build(hp), windows, verbose=0)
