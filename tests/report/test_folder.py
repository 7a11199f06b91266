import logging
import re

import numpy as np
import pytest
import soundfile

from spectrovae import SpectrogramConverter, audio_dataset
from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import WindowPosition
from spectrovae.evaluation.collection import encode_collection
from spectrovae.report.folder import write_reconstruction, write_results, write_windows
from spectrovae.report.page import reconstruction_clips, to_audio, write_page

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def assert_is_picture(path):
    content = path.read_bytes()
    assert content.startswith(PNG_SIGNATURE) and len(content) > 5000, path


def assert_is_sound(path, converter):
    samples, sample_rate = soundfile.read(path)
    assert sample_rate == converter.sample_rate and samples.shape == (converter.window_length,), path
    return samples


@pytest.fixture
def recordings(tmp_path, small_converter):
    """A folder with three recordings of 4 windows each, and a file that is none."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    noise = np.random.default_rng(0).normal(size=(3, 4 * small_converter.window_length))
    for number, samples in enumerate(noise):
        write_audio(folder / f"{number}.wav", 0.1 * samples / np.abs(samples).max(), small_converter.sample_rate)
    (folder / "broken.wav").write_text("not a sound")
    return folder


def test_write_windows(tmp_path, windows, small_converter):
    paths = write_windows(windows[:10], small_converter, tmp_path / "new", name="sample", seed=0)
    assert [path.name for path in paths[::9]] == ["sample_01.wav", "sample_10.wav"]
    assert len(list((tmp_path / "new").iterdir())) == 20
    for path in paths:
        assert np.abs(assert_is_sound(path, small_converter)).max() > 0.01
        assert_is_picture(path.with_suffix(".png"))
    again = write_windows(windows[:1], small_converter, tmp_path / "again", seed=0)
    assert again[0].name == "generated_1.wav"
    np.testing.assert_array_equal(soundfile.read(again[0])[0], soundfile.read(paths[0])[0])


def test_write_windows_in_other_formats_and_with_other_sounds(tmp_path, windows, small_converter):
    sounds = 0.5 * np.sin(0.1 * np.arange(1000) * np.arange(1, 3)[:, None])
    options = {"subtype": "PCM_24", "target_rate": 16000, "tags": {"comment": "seed 1"}}
    paths = write_windows(windows[:2], small_converter, tmp_path, extension=".flac", waveforms=sounds, **options)
    for path, number in zip(paths, (1, 2), strict=True):
        with soundfile.SoundFile(path) as file:
            assert (file.title, file.comment) == (f"generated_{number}", "seed 1")
            assert (path.suffix, file.subtype, file.samplerate, file.frames) == (".flac", "PCM_24", 16000, 2000)


def test_sounds_that_are_turned_down_by_much_are_told_of(tmp_path, caplog):
    converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32, num_iterations=2)
    caplog.set_level(logging.WARNING, "spectrovae")
    (path,) = write_windows(np.ones((1, 32, 32, 1)), converter, tmp_path)
    assert np.abs(assert_is_sound(path, converter)).max() <= 1
    assert "were turned down" in caplog.text


def test_write_reconstruction(tmp_path, make_model, recordings, windows):
    model = make_model()
    model.adapt(windows, verbose=0)
    [pair] = reconstruction_clips(model, [WindowPosition(recordings / "1.wav", 0.064)], seed=0)
    original, reconstruction, picture = write_reconstruction(*pair, model.converter, tmp_path / "new")
    waveform = soundfile.read(recordings / "1.wav")[0][512:1024]
    np.testing.assert_allclose(assert_is_sound(original, model.converter), waveform, atol=1e-4)
    expected = model.converter.to_audio(model.reconstruct(model.converter.to_spectrogram(waveform)[None])[0], seed=0)
    np.testing.assert_allclose(assert_is_sound(reconstruction, model.converter), expected, atol=1e-4)
    assert_is_picture(picture)


@pytest.mark.parametrize("validation_split", [0.0, 0.3])
def test_write_results_accounts_for_every_file(tmp_path, make_model, recordings, validation_split, monkeypatch):
    model, waveforms = make_model(), []
    original = SpectrogramConverter.to_audio

    def count(converter, spectrograms, seed=None):
        waveforms.append(original(converter, spectrograms, seed))
        return waveforms[-1]

    monkeypatch.setattr(SpectrogramConverter, "to_audio", count)
    datasets = audio_dataset(
        recordings, model.converter, 4, validation_split=validation_split, seed=0, cache="memory", verbose=0
    )
    train, validation = datasets if validation_split else (datasets, None)
    history = {"loss": [2.0, 1.0]}
    diagnosis = write_results(model, train, validation, history, tmp_path / "out", num_samples=3, seed=0)
    assert diagnosis.num_windows == (4 if validation_split else 12)
    assert diagnosis.kind == ("held-out" if validation_split else "training")
    sounds = {path.stem for path in (tmp_path / "out").glob("*.wav")}
    assert sounds == {"generated_1", "generated_2", "generated_3", "original", "reconstruction"}
    for path in (tmp_path / "out").glob("*.png"):
        assert_is_picture(path)
    for name in ("generated", "comparison", "loss_curves", "reconstruction", "generated_3"):
        assert (tmp_path / "out" / f"{name}.png").exists()
    text = (tmp_path / "out" / "summary.txt").read_text(encoding="utf-8")
    assert text.startswith(str(diagnosis))
    assert "3 of 4 files used: 12 windows" in text and "broken.wav: unreadable" in text
    assert all(str(recordings / f"{number}.wav") in text for number in range(3))
    assert ("Held out:" in text) == bool(validation_split)
    nearness = re.search(r"a distance of (-?\d\.\d{3}), where the training music itself is at (-?\d\.\d{3})\.", text)
    assert bool(nearness) == bool(validation_split)
    if nearness:
        assert nearness[0] in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
        assert float(nearness[1]) > float(nearness[2])  # of a model that was not trained
    # Drawn, decoded and turned into sound once: all that is generated, and some reconstructions.
    assert len(waveforms) == 1 + (2 if validation_split else 3)
    expected = to_audio(model.converter, model.generate(3, seed=0), seed=0)
    np.testing.assert_array_equal(waveforms[0], expected)
    for number, waveform in enumerate(expected, 1):
        samples, _ = soundfile.read(tmp_path / "out" / f"generated_{number}.wav")
        np.testing.assert_allclose(samples, waveform, atol=1e-4)


def test_results_and_pages_of_several_codes(tmp_path, sequence_model, recordings):
    model = sequence_model
    train, held_out = audio_dataset(
        recordings, model.converter, validation_split=0.3, cache="memory", seed=0, verbose=0
    )
    write_results(model, train, held_out, {"loss": [1.0, 0.5]}, tmp_path / "results", num_samples=2, seed=0)
    page = (tmp_path / "results" / "index.html").read_text(encoding="utf-8")
    assert page.count("at a distance of") == 2 and "4 codes along a window" in page
    collection = encode_collection(model, train)
    assert collection.codes.shape[1:] == (4, 3) and collection.scales.shape == (3,)
    for duration, has_neighbours in ((0.02, False), (0.2, True)):
        windows = model.generate(1, duration=duration, seed=0)
        page = write_page(tmp_path / "page.html", model, windows, collection=collection).read_text(encoding="utf-8")
        assert ("Nearest to generated 1" in page) == has_neighbours
