import csv
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from spectrovae import audio_dataset
from spectrovae.audio.dataset import dataset_report
from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import WindowPosition, read_window
from spectrovae.evaluation.collection import (
    EncodedCollection,
    consecutive_windows,
    encode_collection,
    find_similar,
    find_styles,
    typical_windows,
)


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


@pytest.fixture(scope="module")
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


@pytest.fixture
def three_styles(make_model, windows):
    model = make_model(num_components=3)
    model.adapt(windows, verbose=0)
    return model


@pytest.fixture
def collection(three_styles, windows):
    """Three files of 5, 20 and 23 windows."""
    files = np.repeat([Path("b.wav"), Path("a.wav"), Path("odd\udcff\n.wav")], [5, 20, 23])
    positions = tuple(WindowPosition(path, float(start)) for start, path in enumerate(files))
    return EncodedCollection(three_styles.encode(windows), positions, np.ones(4))


def test_shares_are_mean_responsibilities_by_file(three_styles, collection):
    styles = find_styles(three_styles, collection)
    responsibilities = np.asarray(three_styles.prior.responsibilities(collection.codes))
    assert [path.name for path in styles.paths] == ["b.wav", "a.wav", "odd\udcff\n.wav"]
    assert styles.num_windows.tolist() == [5, 20, 23]
    expected = [part.mean(axis=0) for part in (responsibilities[:5], responsibilities[5:25], responsibilities[25:])]
    np.testing.assert_allclose(styles.shares, expected, rtol=1e-5)
    np.testing.assert_allclose(styles.total_shares, responsibilities.mean(axis=0), rtol=1e-5)
    assert styles.names == ("component 0", "component 1", "component 2")


def test_typical_windows_are_the_densest_of_their_own(three_styles, collection):
    styles = find_styles(three_styles, collection)
    owners = np.argmax(three_styles.prior.responsibilities(collection.codes), axis=1)
    means, scales = three_styles.prior.means.numpy(), three_styles.prior.scales.numpy()
    for component, position in enumerate(styles.typical):
        own = np.flatnonzero(owners == component)
        distances = np.square((collection.codes[own] - means[component]) / scales[component]).sum(axis=1)
        assert position == collection.positions[own[distances.argmin()]]
    for component, window in enumerate(typical_windows(three_styles)):
        expected = three_styles.generate(1, component, temperature=0, texture=0)[0]
        np.testing.assert_allclose(window, expected, atol=1e-5)


def test_component_without_a_window_has_no_typical_one(three_styles, collection):
    means = three_styles.prior.means.numpy()
    means[1] += 1000
    three_styles.prior.means.assign(means)
    styles = find_styles(three_styles, collection)
    assert styles.typical[1] is None and styles.total_shares[1] == pytest.approx(0)


def test_table_for_people_and_for_programs(three_styles, collection, tmp_path):
    three_styles.component_names = ["slow strings", "drums, loud", "c"]
    styles = find_styles(three_styles, collection)
    head, *lines = str(styles).splitlines()
    assert head == "windows  slow strings  drums, loud        c  file" and len(lines) == 4
    assert lines[-1].endswith("  all") and lines[2].endswith(r"  odd\udcff\n.wav")
    for line, share in zip(lines, styles.shares, strict=False):
        assert line.split()[1] == f"{100 * share[0]:.0f}"
    styles.write_csv(tmp_path / "styles.csv")
    with (tmp_path / "styles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["b.wav", "a.wav", "odd\\udcff\n.wav"]
    shares = [[float(row[name]) for name in three_styles.component_names] for row in rows]
    np.testing.assert_allclose(shares, styles.shares, atol=1e-4)


def test_what_is_similar_does_not_depend_on_when_a_note_falls(make_model, windows):
    model = make_model(latent_dim=8, latent_steps=4)
    model.adapt(windows, verbose=0)
    # The parts of a window in another order: other notes at each time, the same in all.
    moved = np.roll(windows, 8, axis=2)
    positions = (WindowPosition(Path("a.wav"), 0.0),) * 48
    codes, variances = model.encode(windows), model.posterior_of(windows).variance().numpy()
    scales = np.sqrt(variances.mean(axis=(0, 1)) / 4)
    collection = EncodedCollection(codes, positions, scales)
    assert np.diag(collection.distances(model.encode(moved))).max() < 1e-3 < collection.spread
    means = codes.mean(axis=1) / scales
    expected = np.sqrt(np.square(means[:, None] - means).mean(axis=2))
    np.testing.assert_allclose(collection.distances(codes), expected, atol=1e-3)
    assert collection.spread == pytest.approx(np.sqrt(np.square(expected).sum() / (48 * 47)), rel=1e-4)
    # Two draws from one posterior are still the square root of two apart.
    first, second = (model.encode(windows, sample=True, seed=seed) for seed in (1, 2))
    distances = EncodedCollection(first, positions, scales).distances(second)
    assert np.mean(np.diag(distances)) == pytest.approx(np.sqrt(2), rel=0.1)
    for given in (codes[5:6], windows[5:6]):
        (found,) = find_similar(model, given, collection, num=1)
        assert found.distance < 1e-3


def test_styles_and_typical_windows_of_several_codes(sequence_model, shifted_windows):
    positions = tuple(WindowPosition(Path("ab"[k % 2]), float(k)) for k in range(len(shifted_windows)))
    collection = EncodedCollection(sequence_model.encode(shifted_windows), positions, np.ones(3))
    styles = find_styles(sequence_model, collection)
    responsibilities = np.asarray(sequence_model.prior.responsibilities(collection.codes))
    np.testing.assert_allclose(styles.total_shares, responsibilities.mean(axis=0), rtol=1e-5)
    joint = np.log(responsibilities) + np.asarray(sequence_model.prior.log_prob(collection.codes))[:, None]
    for component, position in enumerate(styles.typical):
        own = np.flatnonzero(responsibilities.argmax(axis=1) == component)
        assert position == (positions[own[joint[own, component].argmax()]] if len(own) else None)
    middles = typical_windows(sequence_model)
    assert middles.shape == (2, 32, 32, 1)
    held = np.repeat(sequence_model.prior.means.numpy()[:, None], 2 * 4, axis=1)
    np.testing.assert_allclose(middles[:, :, :16], sequence_model.decode(held)[:, :, :16], atol=1e-5)
