"""Tests of `spectrovae.audio.dataset`."""

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from spectrovae.audio.dataset import audio_dataset, dataset_report
from spectrovae.audio.spectrogram import SpectrogramConverter

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=128, hop_length=64, num_frames=64)  # windows of 0.512 s


def write_noise(path, seconds, seed):
    """Noise: every frame differs, so that a window tells where it comes from."""
    waveform = 0.1 * np.random.default_rng(seed).standard_normal(round(8000 * seconds))
    soundfile.write(path, waveform, 8000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten files with 2 to 11 windows each, 65 in all."""
    folder = tmp_path_factory.mktemp("recordings")
    for index in range(10):
        write_noise(folder / f"{index}.wav", 0.512 * (index + 2) + 0.2, seed=index)
    return folder


def make(folder, **arguments):
    defaults = {"converter": CONVERTER, "batch_size": 8, "cache": "memory", "verbose": 0}
    return audio_dataset(folder, **defaults | arguments)


def windows_of(dataset):
    return np.concatenate([batch.numpy() for batch in dataset])


def spectrogram_of(path):
    return CONVERTER.to_spectrogram(soundfile.read(path)[0])


def find(window, spectrograms):
    """File and first frame of a window, found by its first and last frames."""
    for name, spectrogram in spectrograms.items():
        num_starts = spectrogram.shape[1] - 63
        errors = [np.abs(spectrogram[:, start : start + 64] - window).max() for start in range(num_starts)]
        if min(errors) < 1e-3:
            return name, int(np.argmin(errors))
    raise AssertionError("The window comes from no file")


def test_contract(folder):
    dataset = make(folder)
    assert isinstance(dataset, tf.data.Dataset)
    assert dataset.element_spec == tf.TensorSpec((None, 64, 64, 1), tf.float32)
    assert len(dataset) == 9
    for _ in range(2):
        batches = list(dataset)
        assert [len(batch) for batch in batches] == [8] * 8 + [1]
    windows = windows_of(dataset)
    assert windows.min() >= 0
    assert windows.max() <= 1


@pytest.mark.parametrize("cache", ["memory", "disk", "kept"])
def test_consecutive_windows(folder, cache, tmp_path):
    cache = tmp_path if cache == "kept" else cache
    dataset = make(folder, random_offset=False, shuffle=False, cache=cache)
    expected = []
    for index in range(10):
        spectrogram = spectrogram_of(folder / f"{index}.wav")
        expected += [spectrogram[:, 64 * i : 64 * i + 64] for i in range(index + 2)]
    np.testing.assert_allclose(windows_of(dataset), np.stack(expected), atol=3e-4)
    positions = dataset_report(dataset).windows
    assert len(positions) == 65
    assert [(p.path.name, p.start) for p in positions[:3]] == [
        ("0.wav", 0.0),
        ("0.wav", CONVERTER.window_duration),
        ("1.wav", 0.0),
    ]


def test_random_offsets_cover_files_evenly(folder):
    spectrograms = {name: spectrogram_of(folder / f"{name}.wav") for name in (0, 9)}
    paths = [folder / "0.wav", folder / "9.wav"]
    dataset = make(paths, shuffle=False, seed=1)
    epochs = []
    for _ in range(3):
        places = [find(window, spectrograms) for window in windows_of(dataset)]
        assert [name for name, _ in places] == [0] * 2 + [9] * 11
        for name, num_windows in ((0, 2), (9, 11)):
            num_starts = spectrograms[name].shape[1] - 63
            starts = [start for found, start in places if found == name]
            strata = [start * num_windows / num_starts for start in starts]
            # Rounding down to a whole frame may reach just below the window's own share of the starts.
            assert all(rank - num_windows / num_starts < x < rank + 1 for rank, x in enumerate(strata))
        epochs.append(places)
    assert epochs[0] != epochs[1] != epochs[2]


def test_seed_repeats_the_sequence_of_epochs(folder):
    first, second, other = make(folder, seed=3), make(folder, seed=3), make(folder, seed=4)
    epochs = [windows_of(first) for _ in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(epoch, windows_of(second))
    assert np.abs(epochs[0] - epochs[1]).max() > 0.01
    assert np.abs(epochs[1] - epochs[2]).max() > 0.01
    assert np.abs(epochs[0] - windows_of(other)).max() > 0.01


def test_shuffle_is_full_and_new_each_epoch(folder):
    dataset = make(folder, random_offset=False, seed=0)
    fixed = windows_of(make(folder, random_offset=False, shuffle=False))
    orders = []
    for _ in range(2):
        distance = np.abs(windows_of(dataset)[:, None, :, :8] - fixed[None, :, :, :8]).max(axis=(2, 3, 4))
        orders.append(distance.argmin(axis=1))
        assert sorted(orders[-1]) == list(range(65))
    assert (orders[0] != orders[1]).any()
    # The first batch is drawn from the whole collection.
    assert np.ptp(orders[0][:8]) > 20


@pytest.mark.parametrize("validation_split", [0.01, 0.2, 0.5, 0.99])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_split_by_file(folder, validation_split, seed):
    train, validation = make(folder, validation_split=validation_split, seed=seed)
    used = [{file.path.name for file in dataset_report(x).used} for x in (train, validation)]
    assert used[0].isdisjoint(used[1])
    assert used[0] | used[1] == {f"{index}.wav" for index in range(10)}
    assert used[0]
    assert used[1]
    share = dataset_report(validation).num_windows / 65
    assert share == pytest.approx(validation_split, abs=0.1)
    again = make(folder, validation_split=validation_split, seed=seed)[1]
    assert dataset_report(again) == dataset_report(validation)
    assert len(windows_of(train)) + len(windows_of(validation)) == 65


def test_split_depends_on_the_seed(folder):
    splits = {
        tuple(file.path for file in dataset_report(make(folder, validation_split=0.3, seed=seed)[1]).used)
        for seed in range(5)
    }
    assert len(splits) > 1


def test_validation_windows_are_consecutive_and_in_order(folder):
    _, validation = make(folder, validation_split=0.2, seed=0)
    expected = []
    for position in dataset_report(validation).windows:
        start = round(position.start / CONVERTER.window_duration) * 64
        expected.append(spectrogram_of(position.path)[:, start : start + 64])
    for _ in range(2):
        np.testing.assert_allclose(windows_of(validation), np.stack(expected), atol=3e-4)


def test_split_needs_two_files(folder):
    with pytest.raises(ValueError, match=r"at least two files.*add files"):
        make(folder / "3.wav", validation_split=0.1)
    train, validation = make([folder / "3.wav", folder / "9.wav"], validation_split=0.9)
    assert [file.path.name for file in dataset_report(train).used] == ["3.wav"]
    assert [file.path.name for file in dataset_report(validation).used] == ["9.wav"]


def test_left_out_files_are_reported_on_both_sides(folder, tmp_path):
    write_noise(tmp_path / "short.wav", 0.1, seed=0)
    for dataset in make([folder, tmp_path], validation_split=0.2):
        assert [file.path.name for file in dataset_report(dataset).left_out] == ["short.wav"]
    looped = make([folder, tmp_path], loop_short_files=True)
    assert dataset_report(looped).left_out == ()
    assert dataset_report(looped).num_windows == 66


def test_report_is_for_own_datasets_only(folder):
    dataset = make(folder)
    for other in (dataset.take(1), tf.data.Dataset.range(3)):
        with pytest.raises(ValueError, match="audio_dataset returned"):
            dataset_report(other)


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"validation_split": 1},
        {"validation_split": -0.1},
        {"validation_split": float("nan")},
        {"seed": -1},
        {"seed": 1.5},
    ],
)
def test_odd_arguments_are_refused(folder, arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"Received: {name}="):
        make(folder, **arguments)


def test_keras_fits_it(folder):
    train, validation = make(folder, validation_split=0.2, seed=0)
    model = keras.Sequential([keras.layers.Input((64, 64, 1)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    train_pairs, validation_pairs = (tf.data.Dataset.zip(x, x) for x in (train, validation))
    history = model.fit(train_pairs, validation_data=validation_pairs, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    assert model.predict(train, verbose=0).shape[0] == dataset_report(train).num_windows


def test_default_converter(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 140000), 22050)
    dataset = audio_dataset(tmp_path / "a.wav", verbose=0)
    assert dataset.element_spec.shape == (None, 512, 512, 1)
    assert windows_of(dataset).shape == (1, 512, 512, 1)
