"""Files that others made: nothing in them runs, and nothing is written where it should not be."""

import ast
import json
import re
import zipfile
from pathlib import Path

import keras
import pytest
from hostile_audio import CONVERTER, write_names

from spectrovae.audio.recordings import Recordings

ROOT = Path(__file__).parents[1]
FILES = sorted(path for top in ("spectrovae", "tuning", "examples") for path in (ROOT / top).rglob("*.py"))
RUNS_WHAT_IT_READS = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
RUNNERS = {"eval", "exec", "extractall", "enable_unsafe_deserialization", "unpack_archive", "import_module"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_can_run(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            assert not RUNS_WHAT_IT_READS & {name.partition(".")[0] for name in names}
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called == "importlib.import_module" and path.name == "__init__.py":
            continue  # public names, each from a module that a table gives
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert called.rpartition(".")[2] not in RUNNERS, called
        if called == "np.load":
            assert options.get("allow_pickle") == "False", f"line {node.lineno}"
        assert options.get("allow_pickle", "False") == "False" and options.get("safe_mode", "True") == "True"


@pytest.fixture
def tampered(make_model, tmp_path):
    """A function that saves a model with other content; returns the path."""

    def tamper(change_config=None, members=()):
        original, path = tmp_path / "original.keras", tmp_path / "tampered.keras"
        make_model().save(original)
        with zipfile.ZipFile(original) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "config.json" and change_config:
                    config = json.loads(content)
                    change_config(config)
                    content = json.dumps(config).encode()
                target.writestr(name, content)
            for name in members:
                target.writestr(name, b"written by an archive")
        original.unlink()
        return path

    return tamper


def lambda_layer():
    """A layer whose configuration is code."""
    return keras.saving.serialize_keras_object(keras.layers.Lambda(lambda x: open("lambda_ran", "w").close() or x))


SYSTEM = {
    "module": "os",
    "class_name": "function",
    "config": "system",
    "registered_name": "system",
}
POPEN = {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "popen_ran"]}}


@pytest.mark.parametrize("key", ["likelihood", "converter"])
@pytest.mark.parametrize("planted", [lambda_layer, lambda: SYSTEM, lambda: POPEN], ids=["lambda", "function", "class"])
def test_code_in_a_model_does_not_run(tampered, tmp_path, monkeypatch, key, planted):
    monkeypatch.chdir(tmp_path)
    path = tampered(lambda config: config["config"].update({key: planted()}))
    with pytest.raises((ValueError, TypeError, AttributeError)):
        keras.saving.load_model(path).generate(1)
    assert {file.name for file in tmp_path.iterdir()} == {"tampered.keras"}


@pytest.mark.filterwarnings("ignore:Skipping invalid path")
def test_paths_in_a_model_stay_inside(tampered, tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    absolute = str(tmp_path / "absolute.txt")
    path = tampered(members=["../outside.txt", "assets/../../outside.txt", absolute, "assets/x/../../../y.txt"])
    try:
        keras.saving.load_model(path)
    except (ValueError, OSError) as error:  # refusing is as good as passing over
        assert "outside" in str(error) or "absolute" in str(error) or "path" in str(error).lower()
    assert {file.name for file in tmp_path.iterdir()} == {"tampered.keras", "inner"}
    assert list(inner.iterdir()) == []


def test_names_of_recordings_are_no_names_of_cache_files(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    expected = write_names(folder)
    Recordings(folder, CONVERTER, tmp_path / "cache", verbose=0)
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert all(re.fullmatch(r"[0-9a-f]{64}\.(npy|json)", name) for name in names)
    assert sum(name.endswith(".npy") for name in names) == len(expected)
    assert {path.name for path in tmp_path.iterdir()} == {"recordings", "cache"}
