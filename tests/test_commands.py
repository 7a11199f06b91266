"""The command `spectrovae`, each sub-command run as a user runs it, in small."""

import csv
import inspect
import io
import shutil
import subprocess
import sys
import zipfile
from functools import partialmethod
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

import spectrovae
from spectrovae import SpectrogramConverter, SpectroVAE, compose_collection, generate_audio
from spectrovae.commands import main, make_parser
from spectrovae.commands.train import MODEL_ARGUMENTS
from spectrovae.model.layers import SeparableDenseTranspose

NAMES = ["quickstart", "train", "generate", "continue", "vary", "similar", "styles", "judge", "sweep"]
WINDOW = {"sample_rate": 8000, "n_fft": 64, "hop_length": 16, "num_frames": 32}
MODEL = {"latent_dim": 4, "num_components": 2, "decoder_depth": 2, "width": 8, "seed": 0}
WINDOW_LENGTH = 32 * 16
# Of models that have hardly been trained.
LOUD = pytest.mark.filterwarnings("ignore:There were peaks")


def words(*arguments: object, **options: object) -> list[str]:
    return [str(each) for each in arguments] + [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]


def run(*arguments: object, **options: object) -> None:
    """Run the command in this process, which is quicker than a new one."""
    assert main(words(*arguments, **options)) == 0


def run_train(recordings: Path, output: Path, *arguments: object, **options: object) -> None:
    run("train", recordings, *arguments, **WINDOW | MODEL | {"output": output, "cache": output / "cache"} | options)


def assert_is_sound(path: Path, num_samples: int, sample_rate: int) -> None:
    samples, actual_rate = soundfile.read(path)
    assert (samples.shape, actual_rate) == ((num_samples,), sample_rate), path
    assert np.abs(samples).max() > 1e-3, f"{path} is silent"


def assert_is_picture(path: Path) -> None:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 5000, path


def assert_is_complete(folder: Path, num_samples: int, window_length: int, sample_rate: int) -> str:
    """Check what a training leaves; return the summary."""
    names = [*(f"generated_{number}" for number in range(1, num_samples + 1)), "original", "reconstruction"]
    assert {path.stem for path in folder.glob("*.wav")} == set(names)
    for name in names:
        assert_is_sound(folder / f"{name}.wav", window_length, sample_rate)
    pictures = {*names, "generated", "comparison", "loss_curves"} - {"original"}
    assert {path.stem for path in folder.glob("*.png")} == pictures
    for name in pictures:
        assert_is_picture(folder / f"{name}.png")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.count("<strong>Nearest to generated ") == num_samples
    assert page.count("<strong>Original ") >= 1 and "Verdict" in page and "Course of the training" in page
    return (folder / "summary.txt").read_text(encoding="utf-8")


def num_logged_epochs(folder: Path) -> int:
    with (folder / "log.csv").open() as file:
        return len(list(csv.DictReader(file)))


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


def test_help_names_all_commands_without_tensorflow():
    program = (
        "import runpy, sys; sys.argv[1:] = ['--help']\n"
        "try: runpy.run_module('spectrovae', run_name='__main__')\n"
        "finally: assert not {'tensorflow', 'keras', 'numpy'} & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert not result.returncode, result.stderr
    assert all(f"\n    {name}" in result.stdout for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_tells_what_each_option_does(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert f"spectrovae {name}" in text and "--output" in text


def test_version(capsys):
    run("--version")
    assert capsys.readouterr().out == f"spectrovae {spectrovae.__version__}\n"
    assert main([]) == 2


def test_defaults_are_those_of_the_model():
    defaults = {name: argument.default for name, argument in inspect.signature(SpectroVAE).parameters.items()}
    parser = make_parser()
    options = parser.parse_args(["train", "folder"])
    assert {name: getattr(options, name) for name in MODEL_ARGUMENTS} == {
        name: defaults[name] for name in MODEL_ARGUMENTS
    }
    assert parser.parse_args(["quickstart"]).latent_steps == defaults["latent_steps"]
    converter = SpectrogramConverter().get_config()
    assert {name: getattr(options, name) for name in WINDOW} == {name: converter[name] for name in WINDOW}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "required: audio"),
        (["train", "folder", "--epochs", "0"], "argument --epochs: expected a whole number of 1 or more, received '0'"),
        (["generate", "a.keras", "--num-samples", "few"], "received 'few'"),
        (["generate", "a.keras", "--format", "mp3"], "invalid choice: 'mp3'"),
        (["paint"], "invalid choice: 'paint'"),
    ],
)
def test_wrong_arguments_give_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert_is_one_line(capsys.readouterr().err, message)


def assert_is_one_line(text: str, message: str) -> None:
    assert text.startswith("spectrovae") and "error: " in text and message in text and text.count("\n") == 1


def test_files_that_do_not_exist_give_one_line(tmp_path, capsys):
    for arguments in (["generate", tmp_path / "a.keras"], ["train", tmp_path / "music", f"--output={tmp_path}"]):
        assert main(words(*arguments)) == 2
        assert_is_one_line(capsys.readouterr().err, "No such file")
    with pytest.raises(FileNotFoundError):
        main(words("generate", tmp_path / "a.keras", "--traceback"))


def test_terminals_of_any_encoding_are_written_to(monkeypatch, tmp_path):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(words("generate", tmp_path / "für_Elise_音.keras")) == 2
    stream.flush()
    assert b"f?r_Elise_?.keras. Give" in stream.buffer.getvalue()


def test_sweep_is_that_of_tuning_or_says_what_is_missing(monkeypatch, tmp_path, capsys):
    assert main(words("sweep", tmp_path / "nothing", output=tmp_path / "sweep")) == 2
    assert "nothing" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "spectrovae.tuning.__main__", None)
    assert main(["sweep", "music"]) == 2
    assert_is_one_line(capsys.readouterr().err, "pip install 'spectrovae[tuning]'")


def test_train_writes_everything_and_accounts_for_every_file(trained):
    summary = assert_is_complete(trained, 2, WINDOW_LENGTH, 8000)
    assert "4 of 5 files used" in summary and "broken.wav: unreadable" in summary
    assert "Held out:" in summary
    assert num_logged_epochs(trained) == 2
    model = keras.saving.load_model(trained / "model.keras")
    assert model.converter == SpectrogramConverter(8000, 64, 16, 32)
    assert (model.latent_dim, model.num_components, model.width) == (4, 2, 8)


def test_train_fits_the_prior_of_several_codes_once_more_at_the_end(sequences):
    before, model = (keras.saving.load_model(sequences / name) for name in ("checkpoint.keras", "model.keras"))
    for part, is_same in (("encoder", True), ("decoder", True), ("prior", False)):
        pairs = zip(getattr(before, part).weights, getattr(model, part).weights, strict=True)
        # One file has the last step's weights, the other their average.
        assert all(np.allclose(old, new, atol=1e-3) for old, new in pairs) == is_same


def test_train_continues_where_it_stopped(trained, recordings, tmp_path, caplog):
    output = tmp_path / "trained"
    shutil.copytree(trained, output)
    steps = int(keras.saving.load_model(output / "checkpoint.keras").optimizer.iterations)
    run_train(recordings, output, epochs=3, validation_split=0.3, learning_rate=1e-5, num_samples=2)
    assert "2 of 3 epochs" in caplog.text
    assert num_logged_epochs(output) == 3
    optimizer = keras.saving.load_model(output / "checkpoint.keras").optimizer
    assert int(optimizer.iterations) == steps * 3 / 2
    assert optimizer.get_config()["learning_rate"]["config"]["learning_rate"] == 1e-5
    run_train(recordings, output, epochs=3, validation_split=0.3, num_samples=2)
    assert num_logged_epochs(output) == 3


def test_train_on_one_file_in_mixed_precision_from_another_model(trained, recordings, tmp_path, capsys):
    begun = trained / "model.keras"
    options = {"from": begun, "epochs": 1, "validation_split": 0}
    try:
        run_train(recordings / "piece_00.wav", tmp_path, "--mixed-precision", **options)
    finally:
        keras.config.set_dtype_policy("float32")
    summary = assert_is_complete(tmp_path, 5, WINDOW_LENGTH, 8000)
    assert "training windows" in summary and "Held out" not in summary
    assert "mixed_bfloat16" in zipfile.ZipFile(tmp_path / "checkpoint.keras").read("config.json").decode()
    # What reads the codes is new, and the convolutions behind it have hardly moved in so few steps.
    old, new = keras.saving.load_model(begun), keras.saving.load_model(tmp_path / "checkpoint.keras")
    for kind, is_kept in ((keras.layers.Conv1D, True), (SeparableDenseTranspose, False)):
        kernels = [
            layer.weights[0].numpy() for model in (old, new) for layer in model.decoder.layers if type(layer) is kind
        ]
        middle = len(kernels) // 2
        assert all(
            np.allclose(*pair, atol=1e-3) == is_kept for pair in zip(kernels[:middle], kernels[middle:], strict=True)
        )
    assert new.num_adapted_windows > 0
    capsys.readouterr()
    assert main(words("train", recordings, "--from", begun, latent_dim=8, output=tmp_path / "other")) == 2
    assert_is_one_line(capsys.readouterr().err, "has latent_dim=4. Leave out --latent-dim")


@pytest.mark.slow
def test_train_shows_how_it_goes(recordings, tmp_path):
    run_train(recordings, tmp_path, "--tensorboard", epochs=2, validation_split=0.3, pages=2, num_samples=2)
    page = (tmp_path / "epoch_0002.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 2 * 2 + 2 and page.count("at a distance of") == 2
    assert len(list((tmp_path / "logs").rglob("*tfevents*"))) >= 2


def test_generate_repeats_with_a_seed(trained, tmp_path, capsys):
    for folder, seed in (("one", 1), ("same", 1), ("other", 2)):
        options = {"component": 1, "temperature": 0.5, "num_samples": 3, "seed": seed}
        run("generate", trained / "model.keras", output=tmp_path / folder, **options)
    assert str(tmp_path / "one" / "generated_3.wav") in capsys.readouterr().out
    assert len(list((tmp_path / "one").iterdir())) == 7
    page = (tmp_path / "one" / "index.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 3 and page.count("Style: component 1") == 3 and "with seed 1." in page
    for path in (tmp_path / "one").glob("*.wav"):
        assert_is_sound(path, WINDOW_LENGTH, 8000)
        assert_is_picture(path.with_suffix(".png"))
        assert path.read_bytes() == (tmp_path / "same" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()


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
@pytest.mark.parametrize("folder", ["trained", "sequences"])
def test_generate_makes_pieces_of_any_length(folder, recordings, tmp_path, request):
    path = request.getfixturevalue(folder) / "model.keras"
    run("generate", path, output=tmp_path, duration=0.5, num_samples=2, seed=4, compare=recordings)
    model = keras.saving.load_model(path)
    for number in (1, 2):
        sound = soundfile.read(tmp_path / f"generated_{number}.wav")[0]
        np.testing.assert_allclose(sound, generate_audio(model, 0.5, seed=3 + number), atol=1e-4)
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count("<strong>Nearest to generated ") == 2


@pytest.mark.parametrize("folder", ["trained", "sequences"])
def test_similar_finds_places_and_plays_them(folder, recordings, tmp_path, capsys, request):
    page = tmp_path / "new" / "similar.html"
    model = request.getfixturevalue(folder) / "model.keras"
    run("similar", model, recordings, recordings / "piece_01.wav", num=3, output=page)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith(".wav")]
    assert len(lines) == 3 and [float(line[0]) for line in lines] == sorted(float(line[0]) for line in lines)
    assert all(0 <= float(second) < 2 for line in lines for second in line[1:3])
    assert all("piece_01" not in line[3] and Path(line[3]).exists() for line in lines)
    text = page.read_text(encoding="utf-8")
    assert text.count("<audio") == 6 and f"{lines[0][3]} from {lines[0][1]} s on" in text


@pytest.mark.parametrize("folder", ["trained", "sequences"])
def test_styles_are_told_named_and_generated(folder, recordings, tmp_path, capsys, request):
    model = tmp_path / "model.keras"
    shutil.copy(request.getfixturevalue(folder) / "model.keras", model)
    run("styles", model, recordings, "--names", "slow strings", "drums", output=tmp_path / "styles")
    assert "windows  slow strings    drums  file" in capsys.readouterr().out
    with (tmp_path / "styles" / "styles.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == [f"piece_0{number}.wav" for number in range(4)]
    assert all(float(row["slow strings"]) + float(row["drums"]) == pytest.approx(1, abs=1e-3) for row in rows)
    assert "drums: its mean" in (tmp_path / "styles" / "index.html").read_text(encoding="utf-8")
    run("generate", model, component="drums", num_samples=1, output=tmp_path / "drums")
    assert "Style: drums" in (tmp_path / "drums" / "index.html").read_text(encoding="utf-8")
    assert main(words("generate", model, component="flutes", output=tmp_path / "flutes")) == 2
    assert_is_one_line(capsys.readouterr().err, "component='flutes'")


@LOUD
def test_continue_begins_where_a_recording_ends(sequences, recordings, tmp_path, capsys):
    assert "in 4 codes along a window" in assert_is_complete(sequences, 2, WINDOW_LENGTH, 8000)
    recording = recordings / "piece_00.wav"
    original = soundfile.read(recording)[0]
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        output = tmp_path / name / "continued.wav"
        run("continue", sequences / "model.keras", recording, at=1.0, duration=0.5, output=output, seed=seed)
        assert_is_sound(output, 8000 + 4000, 8000)
        assert_is_picture(output.with_suffix(".png"))
    assert "(1.5 s, from 1.0 s on generated by the model)" in capsys.readouterr().out
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
def test_vary_writes_the_recording_and_its_variations(sequences, recordings, tmp_path, capsys):
    output = tmp_path / "variations"
    arguments = words("vary", sequences / "model.keras", recordings / "piece_00.wav", output=output, seed=1)
    run(*arguments, "--amount", 0.5, 1, at=0.1, duration=0.3)
    paths = [output / f"variation_{amount}.wav" for amount in ("0", "0.5", "1")]
    assert set(output.glob("*.wav")) == set(paths)
    sounds = [soundfile.read(path)[0] for path in paths]
    for path in paths:
        assert_is_sound(path, 2400, 8000)
        assert_is_picture(path.with_suffix(".png"))
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-3
    capsys.readouterr()
    for options, message in (
        (["--amount", "0.5", "2"], "--amount must lie in [0, 1]. Received: 0.5 2.0"),
        (["--at", "99"], "holds no sound, or none after --at 99"),
        (["--duration", "0"], "--duration above 0"),
    ):
        assert main([*arguments, *options]) == 2
        assert_is_one_line(capsys.readouterr().err, message)


@LOUD
def test_continue_tells_what_is_wrong(trained, sequences, recordings, tmp_path, capsys):
    for model, options, message in (
        (trained, {}, "one code for a window"),
        (sequences, {"past": 0.01, "overlap": 0.02}, "--overlap is longer than the 0.01 s that are kept"),
        (sequences, {"at": 0}, "holds no sound, or none before --at"),
    ):
        arguments = words("continue", model / "model.keras", recordings / "piece_00.wav", **options)
        assert main([*arguments, f"--output={tmp_path / 'x.wav'}"]) == 2
        assert_is_one_line(capsys.readouterr().err, message)
    assert not (tmp_path / "x.wav").exists()
    short = tmp_path / "short.wav"
    soundfile.write(short, 0.3 * np.sin(np.arange(300)), 8000)
    run("continue", sequences / "model.keras", short, duration=0.1, output=tmp_path / "x.wav", seed=0)
    assert_is_sound(tmp_path / "x.wav", 300 + 800, 8000)


def test_judge_compares_models_and_folders(trained, recordings, tmp_path, capsys):
    output = tmp_path / "new" / "judgement.txt"
    run("judge", trained / "model.keras", recordings, training=recordings, num_windows=8, output=output)
    text = output.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    for part in ("8 held-out windows", "phases alone", "As heard:", "8 generated"):
        assert part in text
    run("judge", recordings, recordings, output=output, **WINDOW)
    assert "124 generated, 62 held-out and 62 training windows" in output.read_text(encoding="utf-8")


@pytest.mark.slow
@LOUD
def test_quickstart_leaves_everything(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SpectroVAE, "compile", partialmethod(SpectroVAE.compile, run_eagerly=True))  # quicker for once
    run("quickstart", num_pieces=4, epochs=1)
    folder = tmp_path / "outputs"
    summary = assert_is_complete(folder, 5, 512 * 256, 22050)
    assert len(list((folder / "music").glob("*.wav"))) == 4 and "4 of 4 files used" in summary
    figures = summary[: summary.index("How near generated windows are")]
    for part in (
        "Reconstruction: ",
        "; PCA with as many numbers",
        "dimensions active",
        "of 8 components live",
        "Verdict:",
    ):
        assert part in figures
    assert figures in capsys.readouterr().out
    model = keras.saving.load_model(folder / "model.keras")
    assert model.adapted and model.generate(1, seed=0).shape == (1, 512, 512, 1)
