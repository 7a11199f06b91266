"""Models that older versions saved are understood as they were."""

import json
import zipfile

import keras
import numpy as np
import pytest
from golden_files import FOLDER, SETTINGS, golden_windows

from spectrovae.model.spectrovae import FORMAT_VERSION

FILES = sorted(FOLDER.glob("*.keras"))


def test_each_kind_of_model_has_a_file_of_this_format():
    names = {path.name for path in FILES}
    assert {f"{name}_{FORMAT_VERSION}.keras" for name in SETTINGS} <= names
    assert max(path.stat().st_size for path in FILES) < 200_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_model_gives_what_it_gave(path):
    model = keras.saving.load_model(path)
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as expected:
        windows = golden_windows()
        np.testing.assert_allclose(model.encode(windows), expected["codes"], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(model.reconstruct(windows), expected["reconstructions"], atol=2e-3)
        generated = model.generate(1, component=1, seed=1, texture=0)
        np.testing.assert_allclose(generated, expected["generated"], atol=2e-3)
    assert model.converter.sample_rate == 8000


def test_sequences_are_understood_and_go_on():
    model = keras.saving.load_model(FOLDER / f"sequence_{FORMAT_VERSION}.keras")
    assert model.latent_steps == 4 and model.encode(golden_windows()).shape == (2, 4, 3)
    assert model.generate(1, seed=0, duration=0.2, texture=0).shape == (1, 32, 100, 1)


def test_a_newer_format_is_told(tmp_path):
    path = tmp_path / "newer.keras"
    with zipfile.ZipFile(FILES[0]) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"] |= {"format_version": FORMAT_VERSION + 1, "some_new_argument": 3}
                content = json.dumps(config)
            new.writestr(name, content)
    with pytest.raises(ValueError, match=f"newer spectrovae, in format {FORMAT_VERSION + 1}.*Upgrade"):
        keras.saving.load_model(path)
