"""Files in a sweep's folder that something else has written: each is refused by its name."""

import json
import shutil

import pytest
from sweeps import CHOICES, COMMAND, CONVERTER, IGNORED_WARNINGS, run_untrained

from spectrovae.tuning import Sweep, SweepSettings, read_results, sweep, write_report
from spectrovae.tuning.__main__ import main
from spectrovae.tuning.hypermodel import SharedLinearStart

pytestmark = IGNORED_WARNINGS


@pytest.fixture(scope="module")
def finished_sweep(music, tmp_path_factory):
    """The folder of a sweep of two trials."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    settings = SweepSettings((str(music),), CONVERTER, CHOICES, tuner="random", epochs=1, validation_split=0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "run_in_child", run_untrained)
        Sweep(settings, folder, max_trials=2, verbose=0, report=write_report).search()
    return folder


@pytest.fixture
def sweep_folder(finished_sweep, untrained, tmp_path):
    """A copy of the folder, which `settings` fit."""
    return shutil.copytree(finished_sweep, tmp_path / "sweep")


def plant(file, *path, value):
    """Change a value deep inside a JSON file."""
    state = json.loads(file.read_text())
    place = state
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(state))


VALUES = ("hyperparameters", "values")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("trial_id",), "../../evil"),
        (("trial_id",), "1"),
        (("trial_id",), 0),
        (("status",), "DONE"),
        (("status",), ["COMPLETED"]),
        (("score",), None),
        (("score",), float("nan")),
        (("score",), "<script>"),
        (("score",), True),
        (("best_step",), "first"),
        (("message",), {"a": 1}),
        (("metrics",), []),
        (("metrics", "metrics"), {"val_loss": 3}),
        (("metrics", "metrics", "val_loss", "observations"), [{"value": ["low"], "step": 0}]),
        (("metrics", "metrics", "val_loss", "direction"), "sideways"),
        (("hyperparameters",), None),
        (VALUES, {}),
        ((*VALUES, "latent_dim"), 2_000_000),
        ((*VALUES, "latent_dim"), "2"),
        ((*VALUES, "latent_dim"), [2]),
        ((*VALUES, "width"), 10**7),
        ((*VALUES, "converter"), "evil"),
        ((*VALUES, "tuner/trial_id"), "../../../evil"),
        ((*VALUES, "tuner/epochs"), 10**12),
        ((*VALUES, "tuner/initial_epoch"), -5),
    ],
)
def test_planted_trial_is_refused(path, value, sweep_folder, settings, untrained):
    file = sweep_folder / "trials" / "trial_0" / "trial.json"
    plant(file, *path, value=value)
    for read in (lambda: read_results(sweep_folder), lambda: Sweep(settings, sweep_folder, 3, verbose=0)):
        with pytest.raises(ValueError, match="trial_0/trial.json is damaged"):
            read()
    assert not untrained


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"trial_id": "0"}'])
@pytest.mark.parametrize("name", ["trial.json", "outcome.json"])
def test_garbage_is_refused(content, name, sweep_folder, settings):
    (sweep_folder / "trials" / "trial_0" / name).write_bytes(content)
    if name == "outcome.json" and content.startswith(b'{"'):
        assert len(read_results(sweep_folder).completed) == 2
        return
    with pytest.raises(ValueError, match=f"trial_0/{name} is damaged"):
        read_results(sweep_folder)


def test_search_space_in_a_file_is_not_used(sweep_folder, settings, untrained):
    """A class that is named there would be imported."""
    evil = [{"class_name": "evil", "module": "evil", "config": {}, "registered_name": None}]
    plant(sweep_folder / "trials" / "trial_0" / "trial.json", "hyperparameters", "space", value=evil)
    plant(sweep_folder / "trials" / "oracle.json", "hyperparameters", "space", value=evil)
    Sweep(settings, sweep_folder, 3, verbose=0).search()
    assert [trial.status for trial in read_results(sweep_folder).trials] == ["COMPLETED"] * 3


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("start_order",), ["7"]),
        (("start_order",), 5),
        (("start_order",), ["../evil"]),
        (("ongoing_trials",), {"tuner0": "9"}),
        (("ongoing_trials",), []),
        (("tried_so_far",), None),
        (("display",), "now"),
        (("end_order",), None),
    ],
)
def test_planted_state_is_refused(path, value, sweep_folder, settings, untrained):
    plant(sweep_folder / "trials" / "oracle.json", *path, value=value)
    with pytest.raises(ValueError, match="oracle.json is damaged"):
        Sweep(settings, sweep_folder, 3, verbose=0)
    assert not untrained


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("epochs",), "many"),
        (("recordings",), "/"),
        (("recordings",), None),
        (("evil",), 1),
        (("choices",), [1]),
        (("choices", "latent_dim"), [2_000_000]),
        (("choices", "latent_dim"), 5),
        (("converter", "n_fft"), 2**60),
        (("converter", "evil"), 2),
        (("tuner",), "evil"),
        (("tuner",), ["grid"]),
        (("architecture",), "evil"),
        (("objective",), "accuracy"),
        (("validation_split",), True),
        (("seed",), None),
        (("max_parameters",), "all"),
    ],
)
def test_planted_settings_are_refused(path, value, sweep_folder, settings):
    plant(sweep_folder / "settings.json", *path, value=value)
    for read in (lambda: read_results(sweep_folder), lambda: Sweep(settings, sweep_folder, 3, verbose=0)):
        with pytest.raises(ValueError, match=r"settings\.json does not hold the settings"):
            read()


def test_command_names_a_planted_file_and_starts_over(music, untrained, tmp_path, capsys):
    command = [str(music), "--output", str(tmp_path), "--max-trials", "1", *COMMAND]
    assert main(command) == 0
    (tmp_path / "trials" / "trial_0" / "trial.json").write_text("{}")
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "trial_0/trial.json" in error and "Traceback" not in error
    assert main([*command, "--overwrite"]) == 0


def test_planted_best_is_replaced_and_not_followed(sweep_folder, tmp_path):
    other = tmp_path / "other.json"
    other.write_text("mine")
    (sweep_folder / "best.json").unlink()
    (sweep_folder / "best.json").symlink_to(other)
    write_report(sweep_folder)
    assert other.read_text() == "mine" and not (sweep_folder / "best.json").is_symlink()
    best = json.loads((sweep_folder / "best.json").read_text())
    assert best["weights"] == f"trials/trial_{best['trial_id']}/checkpoint.weights.h5"
    # What the outcome claims is not what is written.
    plant(sweep_folder / "trials" / f"trial_{best['trial_id']}" / "outcome.json", "arguments", value={"width": 10**9})
    write_report(sweep_folder)
    assert json.loads((sweep_folder / "best.json").read_text())["arguments"]["width"] == 8


def test_link_in_place_of_a_trial_is_refused(sweep_folder, settings, tmp_path):
    shutil.move(sweep_folder / "trials" / "trial_0", tmp_path / "trial_0")
    (sweep_folder / "trials" / "trial_0").symlink_to(tmp_path / "trial_0")
    with pytest.raises(ValueError, match="link"):
        read_results(sweep_folder)


@pytest.mark.parametrize("content", [b"", b"PK", b"evil" * 100])
def test_damaged_linear_start_is_computed_anew(content, make_model, windows, tmp_path):
    SharedLinearStart([4], tmp_path, seed=0).adapt(make_model(), windows)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    start = SharedLinearStart([4], tmp_path, seed=0)
    start.adapt(make_model(), windows)
    assert start.num_computed == 1


def test_two_sweeps_do_not_share_a_folder(sweep_folder, settings, untrained, music, capsys):
    first = Sweep(settings, sweep_folder, 3, verbose=0)
    for overwrite in (False, True):
        with pytest.raises(BlockingIOError, match="Another sweep is using"):
            Sweep(settings, sweep_folder, 3, overwrite=overwrite, verbose=0)
    assert main([str(music), "--output", str(sweep_folder), *COMMAND]) == 2
    assert "Another sweep is using" in capsys.readouterr().err
    first.search()
    assert len(read_results(sweep_folder).trials) == 3
    Sweep(settings, sweep_folder, 4, verbose=0).search()
    assert [trial.status for trial in read_results(sweep_folder).trials] == ["COMPLETED"] * 4
