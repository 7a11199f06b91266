import io
import re

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spectrovae.report.callbacks import ListeningPages, TensorBoardSounds
from spectrovae.report.page import to_audio


def read_events(folder):
    """Each tag's values, by step."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    return {tag: {event.step: tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)} for tag in tags}


@pytest.fixture(scope="module")
def logged(make_model, windows, tmp_path_factory):
    """A model of four epochs, and what was logged."""
    folder = tmp_path_factory.mktemp("logs")
    model = make_model(component_names=["strings", "drums"])
    dataset = tf.data.Dataset.from_tensor_slices(windows).batch(20)
    callback = TensorBoardSounds(folder, dataset, every=2, num_samples=3, seed=1)
    model.fit(windows, epochs=4, callbacks=[callback], verbose=0)
    return model, read_events(folder)


def test_everything_is_logged_and_reads_back(logged, windows):
    model, events = logged
    names = {"generated/sound", "generated/spectrogram", "reconstruction/spectrogram"}
    names |= {"latent/mean", "latent/standard_deviation", "latent/information"}
    assert set(events) == names | {"components/strings", "components/drums"}
    assert all(sorted(steps) == [1, 3] for steps in events.values())
    shares = np.mean(model.prior.responsibilities(model.encode(windows)), axis=0)
    assert events["components/drums"][3] == pytest.approx(shares[1], abs=1e-4)
    histogram = events["latent/mean"][3]  # rows of left edge, right edge, count
    assert histogram[:, 2].sum() == 48 * 4
    codes = model.encode(windows)
    assert histogram[0, 0] == pytest.approx(codes.min(), abs=1e-4)
    assert histogram[-1, 1] == pytest.approx(codes.max(), abs=1e-4)
    assert events["latent/information"][3][0, 0] > 0


def test_sounds_and_pictures_are_those_of_the_model(logged, windows):
    model, events = logged
    generated = model.generate(3, seed=1)
    sounds, pictures = events["generated/sound"][3], events["generated/spectrogram"][3]
    for (content, _), waveform in zip(sounds, to_audio(model.converter, generated, seed=1), strict=True):
        samples, sample_rate = soundfile.read(io.BytesIO(content))
        assert sample_rate == 8000
        # Up to what averaging the weights once more, at the end of training, changes.
        np.testing.assert_allclose(samples, waveform, atol=0.02)
    assert [int(number) for number in pictures[:2]] == [32, 32] and len(pictures) == 2 + 3
    picture = tf.io.decode_png(pictures[2]).numpy().astype(float)
    # Brightness follows the level; low frequencies are at the bottom.
    assert np.corrcoef(picture.mean(axis=2).ravel(), generated[0, ::-1, :, 0].ravel())[0, 1] > 0.9
    pairs = events["reconstruction/spectrogram"][3]
    assert [int(number) for number in pairs[:2]] == [32, 64] and len(pairs) == 2 + 3


def test_without_windows_only_what_is_generated(make_model, tmp_path):
    callback = TensorBoardSounds(tmp_path, num_samples=1)
    callback.set_model(make_model())
    callback.on_train_begin()
    callback.on_epoch_end(0)
    callback.on_train_end()
    assert set(read_events(tmp_path)) == {"generated/sound", "generated/spectrogram"}


def test_a_page_is_written_every_few_epochs(make_model, windows, music, tmp_path):
    pages = ListeningPages(tmp_path / "pages", 2, 1, [music / "piece_00.wav"], training=music)
    make_model(warm_start=False).fit(windows, epochs=5, callbacks=[pages], verbose=0)
    written = sorted((tmp_path / "pages").iterdir())
    assert [path.name for path in written] == ["epoch_0002.html", "epoch_0004.html"]
    texts = [path.read_text(encoding="utf-8") for path in written]
    assert all(text.count("<audio") == 4 and "data:image/svg+xml" in text for text in texts)
    assert "After epoch 2." in texts[0] and "Nearest to generated 1" in texts[0]
    generated, other = (re.search(r'src="(data:audio[^"]+)"', text)[1] for text in texts)
    assert generated != other


def test_errors_say_what_came(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="every=0"):
        TensorBoardSounds(tmp_path, every=0)
    with pytest.raises(ValueError, match="every=0"):
        ListeningPages(tmp_path, every=0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        TensorBoardSounds(tmp_path)


def test_sounds_of_several_codes_are_logged(sequence_model, shifted_windows, tmp_path):
    callback = TensorBoardSounds(tmp_path, shifted_windows[:8], num_samples=1)
    callback.set_model(sequence_model)
    callback.on_train_begin()
    callback.on_epoch_end(0)
    callback.on_train_end()
    assert list(tmp_path.rglob("*tfevents*"))
