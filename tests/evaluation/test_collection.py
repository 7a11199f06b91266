import numpy as np
import pytest
import tensorflow as tf

from spectrovae import audio_dataset
from spectrovae.audio.dataset import dataset_report
from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import WindowPosition, read_window
from spectrovae.evaluation.collection import EncodedCollection, consecutive_windows, encode_collection, find_similar


@pytest.fixture
def recordings(tmp_path, small_converter):
    """Three tones of 4 windows each, and one that is shorter than a window."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number, pitch in enumerate((300, 900, 2700)):
        times = np.arange(4 * small_converter.window_length) / 8000
        write_audio(folder / f"{number}.wav", 0.3 * np.sin(2 * np.pi * pitch * times) * (1 + times) / 2, 8000)
    write_audio(folder / "short.wav", 0.3 * np.sin(np.arange(300)), 8000)
    return folder


@pytest.fixture
def model(make_model, windows):
    model = make_model()
    model.adapt(windows, verbose=0)
    return model


def test_each_code_is_that_of_its_place(model, recordings):
    shuffled = audio_dataset(recordings, model.converter, seed=0, cache="memory", loop_short_files=True, verbose=0)
    ordered = audio_dataset(
        recordings,
        model.converter,
        shuffle=False,
        random_offset=False,
        cache="memory",
        loop_short_files=True,
        verbose=0,
    )
    collection = encode_collection(model, shuffled, batch_size=5)
    assert list(collection.positions) == dataset_report(ordered).windows and len(collection.positions) == 13
    np.testing.assert_allclose(collection.codes, model.encode(ordered), atol=1e-5)
    variances = model.posterior_of(np.concatenate(list(ordered))).variance()
    np.testing.assert_allclose(collection.scales, np.sqrt(np.mean(variances, axis=0)), rtol=1e-5)
    # A folder is read as `audio_dataset` does: without short files.
    assert len(encode_collection(model, recordings).positions) == 12


def test_consecutive_windows_are_not_read_again(model, recordings):
    dataset = consecutive_windows(recordings, model.converter, batch_size=5)
    expected = encode_collection(model, dataset).codes
    for path in recordings.iterdir():
        path.unlink()
    np.testing.assert_array_equal(encode_collection(model, dataset).codes, expected)


@pytest.mark.parametrize("loop_short_files", [False, True])
def test_a_dataset_with_a_kept_cache_is_not_decoded_again(small_converter, recordings, tmp_path, loop_short_files):
    cache = tmp_path / "cache"
    dataset = audio_dataset(recordings, small_converter, cache=cache, loop_short_files=loop_short_files, verbose=0)
    decoded = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = consecutive_windows(dataset, small_converter, cache=cache)
    assert dataset_report(again).used == dataset_report(dataset).used
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == decoded and decoded


def test_distances_are_root_mean_squares_in_posterior_deviations():
    codes, others = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    scales = np.array([0.1, 1, 10])
    collection = EncodedCollection(codes, (WindowPosition("a.wav", 0.0),) * 6, scales)
    differences = (others[:, None] - codes) / scales
    np.testing.assert_allclose(collection.distances(others), np.sqrt(np.mean(differences**2, axis=2)), rtol=1e-6)
    own = collection.distances(codes)
    np.testing.assert_allclose(np.diag(own), 0, atol=1e-6)
    assert collection.spread == pytest.approx(np.sqrt(np.square(own).sum() / 30))
    assert np.isnan(EncodedCollection(codes[:1], collection.positions[:1], scales).spread)


def test_two_draws_from_a_posterior_are_the_square_root_of_two_apart(make_model, windows):
    model = make_model(latent_dim=32)
    model.adapt(windows, verbose=0)
    first, second = (model.encode(windows, sample=True, seed=seed) for seed in (1, 2))
    scales = np.sqrt(np.mean(model.posterior_of(windows).variance(), axis=0))
    distances = EncodedCollection(first, (WindowPosition("a.wav", 0.0),) * len(first), scales).distances(second)
    assert np.mean(np.diag(distances)) == pytest.approx(np.sqrt(2), rel=0.1)


def test_a_recording_is_most_like_itself(model, recordings):
    collection = encode_collection(model, recordings)
    dataset = consecutive_windows(recordings / "1.wav", model.converter)
    found = find_similar(model, dataset, collection, num=4)
    assert {similar.position.path.name for similar in found} == {"1.wav"}
    starts = {similar.index: similar.position.start for similar in found}
    assert starts == pytest.approx({0: 0.0, 1: 0.064, 2: 0.128, 3: 0.192})
    assert max(similar.distance for similar in found) < 1e-3
    others = find_similar(model, model.encode(dataset), collection, num=100)[4:]
    assert len(others) == 8 and {similar.position.path.name for similar in others} == {"0.wav", "2.wav"}
    assert np.all(np.diff([similar.distance for similar in others]) >= 0) and others[0].distance > 0.01
    assert find_similar(model, dataset, collection.without(recordings / "1.wav"), num=100) == others
    assert not find_similar(model, dataset, collection.without(recordings / "1.wav").without(recordings / "0.wav"))[4:]


def test_errors_say_what_came(model, recordings):
    collection = encode_collection(model, recordings)
    with pytest.raises(ValueError, match="num=0"):
        find_similar(model, np.zeros((1, 4)), collection, num=0)
    with pytest.raises(ValueError, match=r"shape \(1, 5\)"):
        find_similar(model, np.zeros((1, 5)), collection)
    with pytest.raises(ValueError, match="audio_dataset returned"):
        encode_collection(model, tf.data.Dataset.range(3))
    with pytest.raises(ValueError, match=r"start=9"):
        read_window(recordings / "1.wav", model.converter, start=9)
