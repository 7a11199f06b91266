"""The scripts in `examples/`, each run as a user runs it, in small."""

import importlib.util
import json
import re
import zipfile
from functools import partialmethod
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from sweeps import IGNORED_WARNINGS

from spectrovae import SpectroVAE, compose_collection

EXAMPLES = Path(__file__).parents[1] / "examples"
WINDOW_LENGTH = 32 * 256
# Of models that have hardly been trained.
LOUD = pytest.mark.filterwarnings("ignore:There were peaks")


def run(name: str, *arguments: object, **options: object) -> None:
    """Run the `main` of a script in this process, which is quicker than a new one."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = [str(argument) for argument in arguments]
    module.main(words + [f"--{key.replace('_', '-')}={value}" for key, value in options.items()])


def read_sound(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path)
    assert rate == 22050 and np.abs(samples).max() > 1e-3, f"{path} is silent"
    return samples


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """A folder with three pieces of two seconds."""
    folder = tmp_path_factory.mktemp("recordings")
    compose_collection(folder, num_pieces=3, duration=2.0)
    return folder


@pytest.fixture(scope="module")
def trained(recordings, tmp_path_factory) -> Path:
    """What `train.py` leaves."""
    output = tmp_path_factory.mktemp("trained")
    run("train", recordings, output=output, epochs=1, num_frames=32, latent_dim=4, latent_steps=4, duration=1.0)
    return output


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_help_tells_what_each_option_does(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")
    text = capsys.readouterr().out
    assert f"python examples/{name}.py" in text and "--output" in text
    assert f"`{name}.py" in (EXAMPLES / "README.md").read_text()


@LOUD
def test_documented_ways_with_other_tools_run(make_model, windows):
    model = make_model(latent_steps=4)
    model.adapt(windows, verbose=0)
    text = (EXAMPLES / "README.md").read_text().partition("## With other tools")[2].partition("\n## ")[0]
    names = {"model": model, "windows": windows, "keras": keras, "tf": tf, "SpectroVAE": SpectroVAE}
    for block in re.findall("```python\n(.+?)```", text, flags=re.DOTALL):
        needs_more = "IPython" in block and not importlib.util.find_spec("IPython")
        if not needs_more and "TFLiteConverter" not in block:  # test_habits.py does this with both endpoints
            exec(block, names)
    assert names["vectors"].shape == (48, 4) and set(names["groups"]) == {0, 1}
    assert names["classifier"](windows[:2]).shape == (2, 3)
    for kind in (names["HalfKL"], names["Quiet"]):
        own = kind.from_config(model.get_config())
        own.compile(run_eagerly=True)
        history = own.fit(windows[:16], batch_size=8, validation_split=0.5, verbose=0).history
        assert np.isfinite(history["loss"][0]) and np.isfinite(history["val_loss"][0])


@LOUD
def test_train_leaves_a_model_and_a_piece(trained):
    assert len(read_sound(trained / "piece.wav")) == 22050
    model = keras.saving.load_model(trained / "model.keras")
    assert model.code_shape == (4, 4)


@LOUD
def test_interpolate_goes_from_one_recording_to_the_other(trained, recordings, tmp_path):
    ends = recordings / "piece_00.wav", recordings / "piece_01.wav"
    for name, first, second in (("there", *ends), ("back", *reversed(ends))):
        walk = tmp_path / name / "walk.wav"
        run("interpolate", trained / "model.keras", first, second, num_steps=5, output=walk, seed=0)
        assert len(read_sound(walk)) == 5 * WINDOW_LENGTH and walk.with_suffix(".png").exists()
    converter = keras.saving.load_model(trained / "model.keras").converter
    there, back = (
        converter.to_spectrogram(read_sound(tmp_path / name / "walk.wav")).reshape(512, 5, 32)
        for name in ("there", "back")
    )
    # The way back is the same way, up to the phases that are estimated anew: levels within 4 dB on average.
    assert np.abs(there - back[:, ::-1]).mean() * 80 < 4


@LOUD
def test_interpolate_morphs_without_seams(trained, recordings, tmp_path):
    ends = recordings / "piece_00.wav", recordings / "piece_01.wav"
    for name in ("one", "same"):
        walk = tmp_path / name / "walk.flac"
        run("interpolate", trained / "model.keras", *ends, duration=1.0, output=walk, seed=0)
        assert len(read_sound(walk)) == 22050 and walk.with_suffix(".png").exists()
    assert (tmp_path / "one" / "walk.flac").read_bytes() == walk.read_bytes()
    with pytest.raises(SystemExit):
        run("interpolate", trained / "model.keras", *ends, duration=1.0, num_steps=3)


@pytest.fixture
def without_compiling(monkeypatch) -> None:
    """Have models of this process run step by step: for a few steps compiling takes longer."""
    monkeypatch.setattr(SpectroVAE, "compile", partialmethod(SpectroVAE.compile, run_eagerly=True))


@pytest.mark.slow
@IGNORED_WARNINGS
@pytest.mark.usefixtures("without_compiling")
def test_sweep_trains_the_winner_and_continues(music, tmp_path, capsys):
    choices = ["--latent-dim", 2, 4, "--num-components=1", "--decoder-depth=2", "--width=8"]
    options = {"sample_rate": 8000, "n_fft": 64, "hop_length": 16, "num_frames": 32}
    options |= {"audio": music, "output": tmp_path, "trial_epochs": 1}
    run("sweep", *choices, **options, epochs=2, max_trials=2)
    best = json.loads((tmp_path / "sweep" / "best.json").read_text())
    folder = tmp_path / f"trial_{best['trial_id']}"
    model = keras.saving.load_model(folder / "model.keras")
    assert model.latent_dim == best["values"]["latent_dim"] and model.width == 8
    assert "2 of 2 trials completed" in (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    written = (tmp_path / "sweep" / best["weights"]).stat().st_mtime_ns
    run("sweep", *choices, **options, epochs=3, max_trials=2)
    assert len((folder / "log.csv").read_text().splitlines()) == 1 + 3
    assert (tmp_path / "sweep" / best["weights"]).stat().st_mtime_ns == written
    assert (folder / "index.html").exists() and "report.html" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("without_compiling")
def test_classic_takes_a_step(tmp_path):
    compose_collection(tmp_path / "music", num_pieces=3, duration=12.5, sample_rate=44100)
    output = tmp_path / "classic"
    try:
        run("classic", tmp_path / "music", epochs=1, max_steps=1, batch_size=2, output=output)
        with zipfile.ZipFile(output / "model.keras") as archive:
            assert archive.testzip() is None
        assert "Verdict" in (output / "summary.txt").read_text()
    finally:
        (output / "model.keras").unlink(missing_ok=True)  # a gigabyte
