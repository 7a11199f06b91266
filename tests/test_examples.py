"""The scripts in `examples/`, each run as a user runs it, in small."""

import csv
import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
from sweeps import IGNORED_WARNINGS

from spectrovae import SpectrogramConverter
from spectrovae.synthesis import compose_collection

EXAMPLES = Path(__file__).parents[1] / "examples"
WINDOW = {"sample-rate": 8000, "n-fft": 64, "hop-length": 16, "num-frames": 32}
MODEL = {"latent-dim": 4, "num-components": 2, "decoder-depth": 2, "width": 8, "seed": 0}
WINDOW_LENGTH = 32 * 16
# Of models that have hardly been trained.
LOUD = pytest.mark.filterwarnings("ignore:The peak was over 1")


def run(name: str, *arguments: object, **options: object) -> None:
    """Run the `main` of a script in this process, which is quicker than a new one."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = [str(argument) for argument in arguments]
    module.main(words + [f"--{key.replace('_', '-')}={value}" for key, value in options.items()])


def run_train(recordings: Path, output: Path, *arguments: object, **options: object) -> None:
    small = {key.replace("-", "_"): value for key, value in (WINDOW | MODEL).items()}
    run("train", recordings, *arguments, **small | {"output": output, "cache": output / "cache"} | options)


def assert_is_sound(path: Path, num_samples: int, sample_rate: int) -> None:
    samples, actual_rate = soundfile.read(path)
    assert (samples.shape, actual_rate) == ((num_samples,), sample_rate), path
    assert np.abs(samples).max() > 1e-3, f"{path} is silent"


def assert_is_picture(path: Path) -> None:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 5000, path


def assert_is_complete(folder: Path, num_samples: int, window_length: int, sample_rate: int) -> str:
    """Check what every training script writes; return the summary."""
    names = [*(f"generated_{number}" for number in range(1, num_samples + 1)), "original", "reconstruction"]
    assert {path.stem for path in folder.glob("*.wav")} == set(names)
    for name in names:
        assert_is_sound(folder / f"{name}.wav", window_length, sample_rate)
    pictures = {*names, "generated", "loss_curves"} - {"original"}
    assert {path.stem for path in folder.glob("*.png")} == pictures
    for name in pictures:
        assert_is_picture(folder / f"{name}.png")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count("<strong>Nearest to generated ") == num_samples
    assert page.count("<strong>Original ") >= 1 and "Verdict" in page and "Course of the training" in page
    return (folder / "summary.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """A folder with four pieces of two seconds and a file that is no sound."""
    folder = tmp_path_factory.mktemp("recordings")
    compose_collection(folder, num_pieces=4, duration=2.0, sample_rate=8000)
    (folder / "broken.wav").write_text("not a sound")
    return folder


@pytest.fixture(scope="module")
def trained(recordings, tmp_path_factory) -> Path:
    """The folder of a training of two epochs."""
    output = tmp_path_factory.mktemp("trained")
    run_train(recordings, output, epochs=2, validation_split=0.3, num_samples=2)
    return output


@pytest.fixture(scope="module")
def sequences(recordings, tmp_path_factory) -> Path:
    """The folder of a training of one epoch of a model with four codes along a window."""
    output = tmp_path_factory.mktemp("sequences")
    run_train(recordings, output, epochs=1, validation_split=0.3, num_samples=2, latent_steps=4)
    return output


def num_logged_epochs(folder: Path) -> int:
    with (folder / "log.csv").open() as file:
        return len(list(csv.DictReader(file)))


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_help_tells_what_each_option_does(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(name, "--help")
    text = capsys.readouterr().out
    assert f"python examples/{name}.py" in text and "--output" in text


def test_train_writes_everything_and_accounts_for_every_file(trained):
    summary = assert_is_complete(trained, 2, WINDOW_LENGTH, 8000)
    assert "4 of 5 files used" in summary and "broken.wav: unreadable" in summary
    assert "Held out:" in summary
    assert num_logged_epochs(trained) == 2
    model = keras.saving.load_model(trained / "model.keras")
    assert model.converter == SpectrogramConverter(8000, 64, 16, 32)
    assert (model.latent_dim, model.num_components, model.width) == (4, 2, 8)


@LOUD
def test_train_fits_the_prior_of_several_codes_once_more_at_the_end(recordings, tmp_path):
    run_train(recordings, tmp_path, epochs=1, validation_split=0.3, num_samples=1, latent_steps=4)
    before, model = (keras.saving.load_model(tmp_path / name) for name in ("checkpoint.keras", "model.keras"))
    for part, is_same in (("encoder", True), ("decoder", True), ("prior", False)):
        pairs = zip(getattr(before, part).weights, getattr(model, part).weights, strict=True)
        # One file has the last step's weights, the other their average.
        assert all(np.allclose(old, new, atol=1e-3) for old, new in pairs) == is_same


def test_train_goes_on_where_it_stopped(trained, recordings, tmp_path, caplog):
    output = tmp_path / "trained"
    shutil.copytree(trained, output)
    steps = int(keras.saving.load_model(output / "checkpoint.keras").optimizer.iterations)
    run_train(recordings, output, epochs=3, validation_split=0.3, learning_rate=1e-5)
    assert "2 of 3 epochs" in caplog.text and "continuing" in caplog.text
    assert num_logged_epochs(output) == 3
    optimizer = keras.saving.load_model(output / "checkpoint.keras").optimizer
    assert int(optimizer.iterations) == steps * 3 / 2
    assert optimizer.get_config()["learning_rate"]["config"]["learning_rate"] == 1e-5
    run_train(recordings, output, epochs=3, validation_split=0.3)
    assert "nothing is left to train" in caplog.text
    assert num_logged_epochs(output) == 3


def test_train_on_one_file_in_mixed_precision_with_nothing_held_out(recordings, tmp_path):
    try:
        run_train(recordings / "piece_00.wav", tmp_path, "--mixed-precision", epochs=1, validation_split=0)
    finally:
        keras.config.set_dtype_policy("float32")
    summary = assert_is_complete(tmp_path, 5, WINDOW_LENGTH, 8000)
    assert "training windows" in summary and "Held out" not in summary
    assert "mixed_bfloat16" in zipfile.ZipFile(tmp_path / "checkpoint.keras").read("config.json").decode()


def test_generate_repeats_with_a_seed(trained, tmp_path, capsys):
    for folder, seed in (("one", 1), ("same", 1), ("other", 2)):
        options = {"component": 1, "temperature": 0.5, "num_samples": 3, "seed": seed}
        run("generate", trained / "model.keras", output=tmp_path / folder, **options)
    assert str(tmp_path / "one" / "generated_3.wav") in capsys.readouterr().out
    assert len(list((tmp_path / "one").iterdir())) == 7
    page = (tmp_path / "one" / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 3 and page.count("Style: component 1") == 3 and "with the seed 1." in page
    for path in (tmp_path / "one").glob("*.wav"):
        assert_is_sound(path, WINDOW_LENGTH, 8000)
        assert_is_picture(path.with_suffix(".png"))
        assert path.read_bytes() == (tmp_path / "same" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()


@pytest.mark.slow
def test_train_shows_how_it_goes(recordings, tmp_path):
    run_train(recordings, tmp_path, "--tensorboard", epochs=2, validation_split=0.3, pages=2, num_samples=2)
    page = (tmp_path / "epoch_0002.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 2 * 2 + 2 and page.count("at a distance of") == 2
    assert len(list((tmp_path / "logs").rglob("*tfevents*"))) >= 2


def test_similar_finds_places_and_plays_them(trained, recordings, tmp_path, capsys):
    page = tmp_path / "new" / "similar.html"
    run("similar", trained / "model.keras", recordings, recordings / "piece_01.wav", num=3, output=page)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith(".wav")]
    assert len(lines) == 3 and [float(line[0]) for line in lines] == sorted(float(line[0]) for line in lines)
    assert all(0 <= float(second) < 2 for line in lines for second in line[1:3])
    assert all("piece_01" not in line[3] and Path(line[3]).exists() for line in lines)
    text = page.read_text(encoding="utf-8")
    assert text.count("<audio") == 6 and f"{lines[0][3]} from {lines[0][1]} s on" in text


def test_styles_are_told_named_and_generated(trained, recordings, tmp_path, capsys):
    model = tmp_path / "model.keras"
    shutil.copy(trained / "model.keras", model)
    run("styles", model, recordings, "--names", "slow strings", "drums", output=tmp_path / "styles")
    assert "windows  slow strings    drums  file" in capsys.readouterr().out
    with (tmp_path / "styles" / "styles.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == [f"piece_0{number}.wav" for number in range(4)]
    assert all(float(row["slow strings"]) + float(row["drums"]) == pytest.approx(1, abs=1e-3) for row in rows)
    assert "drums: its middle" in (tmp_path / "styles" / "index.html").read_text(encoding="utf-8")
    run("generate", model, component="drums", num_samples=2, output=tmp_path / "drums", compare=recordings)
    page = (tmp_path / "drums" / "index.html").read_text(encoding="utf-8")
    assert page.count("Style: drums") == 2 and page.count("<strong>Nearest to generated ") == 2
    with pytest.raises(ValueError, match="component='flutes'"):
        run("generate", model, component="flutes", output=tmp_path / "flutes")


def test_generate_in_other_formats_names_model_and_seed(trained, tmp_path):
    options = {"format": "flac", "subtype": "PCM_24", "sample_rate": 16000, "num_samples": 2}
    run("generate", trained / "model.keras", output=tmp_path / "drawn", **options)
    with soundfile.SoundFile(tmp_path / "drawn" / "generated_2.flac") as file:
        assert (file.samplerate, file.subtype, file.frames) == (16000, "PCM_24", 2 * WINDOW_LENGTH)
        assert file.title == "generated_2" and file.comment.startswith("model model.keras, seed ")
        seed = file.comment.split()[-1]
    run("generate", trained / "model.keras", output=tmp_path / "again", seed=seed, **options)
    for path in (tmp_path / "drawn").glob("*.flac"):
        np.testing.assert_array_equal(soundfile.read(path)[0], soundfile.read(tmp_path / "again" / path.name)[0])


@LOUD
def test_generate_makes_pieces_of_any_length(trained, tmp_path):
    run("generate", trained / "model.keras", output=tmp_path, duration=0.5, num_samples=2, seed=4)
    sounds = [soundfile.read(tmp_path / f"generated_{number}.wav")[0] for number in (1, 2)]
    model = keras.saving.load_model(trained / "model.keras")
    for number, sound in enumerate(sounds):
        np.testing.assert_allclose(sound, model.generate_audio(0.5, seed=4 + number), atol=1e-4)
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count("<audio") == 2


@LOUD
def test_interpolate_morphs_without_seams(trained, recordings, tmp_path):
    ends = recordings / "piece_00.wav", recordings / "piece_01.wav"
    for name in ("one", "same"):
        walk = tmp_path / name / "walk.flac"
        run("interpolate", trained / "model.keras", *ends, duration=0.5, output=walk, seed=0)
        assert_is_sound(walk, 4000, 8000)
        assert_is_picture(walk.with_suffix(".png"))
    assert (tmp_path / "one" / "walk.flac").read_bytes() == walk.read_bytes()
    with pytest.raises(SystemExit):
        run("interpolate", trained / "model.keras", *ends, duration=0.5, num_steps=3)


@LOUD
def test_continue_goes_on_where_a_recording_ends(sequences, recordings, tmp_path, capsys):
    assert "in 4 codes along a window" in assert_is_complete(sequences, 2, WINDOW_LENGTH, 8000)
    recording = recordings / "piece_00.wav"
    original = soundfile.read(recording)[0]
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        output = tmp_path / name / "continued.wav"
        run("continue", sequences / "model.keras", recording, at=1.0, duration=0.5, output=output, seed=seed)
        assert_is_sound(output, 8000 + 4000, 8000)
        assert_is_picture(output.with_suffix(".png"))
    assert "(1.5 s, from 1.0 s on the model's own)" in capsys.readouterr().out
    one, same, other = (soundfile.read(tmp_path / name / "continued.wav")[0] for name in ("one", "same", "other"))
    np.testing.assert_array_equal(one, same)
    # All but the fade is the recording, and where it is left the level stays.
    kept = 8000 - WINDOW_LENGTH
    assert np.corrcoef(one[:kept], original[:kept])[0, 1] > 0.9999
    assert np.abs(one - other)[8000:].max() > 1e-3
    levels = [np.sqrt(np.mean(np.square(one[start : start + 512]))) for start in (8000 - 1024, 8000 - 512, 8000)]
    assert min(levels) > 0.2 * max(levels)
    options = {"past": 0.1, "overlap": 0.02, "component": 1}
    run("continue", sequences / "model.keras", recording, duration=0.5, output=output, **options)
    assert_is_sound(output, 800 + 4000, 8000)


@LOUD
def test_continue_tells_what_is_wrong(trained, sequences, recordings, tmp_path, capsys):
    for model, options, message in (
        (trained, {}, "one code for a window"),
        (sequences, {"past": 0.01, "overlap": 0.02}, "--overlap is longer than what is kept"),
        (sequences, {"at": 0}, "holds no sound, or none before --at"),
    ):
        with pytest.raises(SystemExit):
            run("continue", model / "model.keras", recordings / "piece_00.wav", output=tmp_path / "x.wav", **options)
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x.wav").exists()
    short = tmp_path / "short.wav"
    soundfile.write(short, 0.3 * np.sin(np.arange(300)), 8000)
    run("continue", sequences / "model.keras", short, duration=0.1, output=tmp_path / "x.wav", seed=0)
    assert_is_sound(tmp_path / "x.wav", 300 + 800, 8000)


@LOUD
def test_models_of_several_codes_do_what_others_do(sequences, recordings, tmp_path):
    model, ends = sequences / "model.keras", (recordings / "piece_00.wav", recordings / "piece_01.wav")
    run("generate", model, output=tmp_path, duration=0.5, num_samples=1, seed=4, compare=recordings)
    sound = soundfile.read(tmp_path / "generated_1.wav")[0]
    np.testing.assert_allclose(sound, keras.saving.load_model(model).generate_audio(0.5, seed=4), atol=1e-4)
    for options, num_samples in (({"duration": 0.5}, 4000), ({"num_steps": 3}, 3 * WINDOW_LENGTH)):
        run("interpolate", model, *ends, output=tmp_path / "walk.wav", seed=0, **options)
        assert_is_sound(tmp_path / "walk.wav", num_samples, 8000)
    run("similar", model, recordings, ends[0], num=2, output=tmp_path / "similar.html")
    run("styles", model, recordings, output=tmp_path / "styles")
    assert (tmp_path / "styles" / "index.html").exists() and (tmp_path / "similar.html").exists()


def test_judge_compares_models_and_folders(trained, recordings, tmp_path, capsys):
    output = tmp_path / "new" / "judgement.txt"
    run("judge", trained / "model.keras", recordings, training=recordings, num_windows=8, output=output)
    text = output.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    for part in ("8 held-out windows", "phases alone", "As heard:", "8 generated"):
        assert part in text
    small = {key.replace("-", "_"): value for key, value in WINDOW.items()}
    run("judge", recordings, recordings, output=output, **small)
    assert "124 generated, 62 held-out and 62 training windows" in output.read_text(encoding="utf-8")


def test_interpolate_walks_from_one_recording_to_the_other(trained, recordings, tmp_path):
    ends = recordings / "piece_00.wav", recordings / "piece_01.wav"
    for name, first, second in (("there", *ends), ("back", *reversed(ends))):
        walk = tmp_path / name / "walk.wav"
        run("interpolate", trained / "model.keras", first, second, num_steps=5, output=walk, seed=0)
        assert_is_sound(walk, 5 * WINDOW_LENGTH, 8000)
        assert_is_picture(walk.with_suffix(".png"))
    converter = SpectrogramConverter(8000, 64, 16, 32)
    there, back = (
        converter.to_spectrogram(soundfile.read(tmp_path / name / "walk.wav")[0]).reshape(32, 5, 32)
        for name in ("there", "back")
    )
    # The way back is the same way, up to the phases that are estimated anew: levels within 4 dB on average.
    assert np.abs(there - back[:, ::-1]).mean() * 80 < 4


@pytest.mark.slow
@IGNORED_WARNINGS
def test_sweep_trains_the_winner_and_goes_on(recordings, tmp_path, capsys):
    choices = ["--latent-dim", 2, 4, "--num-components=1", "--decoder-depth=2", "--width=8"]
    small = {key.replace("-", "_"): value for key, value in WINDOW.items()}
    options = small | {"audio": recordings, "output": tmp_path, "trial_epochs": 1, "epochs": 2}
    run("sweep", *choices, **options, max_trials=2)
    best = json.loads((tmp_path / "sweep" / "best.json").read_text())
    folder = tmp_path / f"trial_{best['trial_id']}"
    assert_is_complete(folder, 5, WINDOW_LENGTH, 8000)
    assert num_logged_epochs(folder) == 2
    model = keras.saving.load_model(folder / "model.keras")
    assert model.latent_dim == best["values"]["latent_dim"] and model.width == 8
    assert "2 of 2 trials completed" in (tmp_path / "sweep" / "report.html").read_text(encoding="utf-8")
    written = (tmp_path / "sweep" / best["weights"]).stat().st_mtime_ns
    run("sweep", *choices, **options | {"epochs": 3}, max_trials=2)
    assert num_logged_epochs(folder) == 3
    assert (tmp_path / "sweep" / best["weights"]).stat().st_mtime_ns == written
    assert "report.html" in capsys.readouterr().out


@pytest.mark.slow
def test_quickstart_as_a_command(tmp_path):
    command = [sys.executable, EXAMPLES / "quickstart.py", "--num-pieces=4", "--epochs=1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    folder = tmp_path / "outputs"
    summary = assert_is_complete(folder, 5, 512 * 256, 22050)
    assert len(list((folder / "music").glob("*.wav"))) == 4 and "4 of 4 files used" in summary
    figures = summary[: summary.index("The reconstruction shown")]
    for part in (
        "Reconstruction: ",
        "; PCA with as many numbers",
        "dimensions active",
        "of 8 components live",
        "Verdict:",
    ):
        assert part in figures
    assert figures in result.stdout
    model = keras.saving.load_model(folder / "model.keras")
    assert model.adapted and model.generate(1, seed=0).shape == (1, 512, 512, 1)


@pytest.mark.slow
def test_classic_takes_a_step(tmp_path):
    compose_collection(tmp_path / "music", num_pieces=3, duration=12.5, sample_rate=44100)
    output = tmp_path / "classic"
    try:
        run("classic", tmp_path / "music", epochs=1, max_steps=1, batch_size=2, output=output)
        assert_is_complete(output, 5, 512 * 1024, 44100)
        with zipfile.ZipFile(output / "model.keras") as archive:
            assert archive.testzip() is None
    finally:
        (output / "model.keras").unlink(missing_ok=True)  # a gigabyte
