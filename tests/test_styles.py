import csv
from pathlib import Path

import keras
import numpy as np
import pytest

from spectrovae.audio.recordings import WindowPosition
from spectrovae.evaluation.collection import EncodedCollection, find_styles, typical_windows


@pytest.fixture
def model(make_model, windows):
    model = make_model(num_components=3)
    model.adapt(windows, verbose=0)
    return model


@pytest.fixture
def collection(model, windows):
    """Three files of 5, 20 and 23 windows."""
    files = np.repeat([Path("b.wav"), Path("a.wav"), Path("odd\udcff\n.wav")], [5, 20, 23])
    positions = tuple(WindowPosition(path, float(start)) for start, path in enumerate(files))
    return EncodedCollection(model.encode(windows), positions, np.ones(4))


def test_shares_are_mean_responsibilities_by_file(model, collection):
    styles = find_styles(model, collection)
    responsibilities = np.asarray(model.prior.responsibilities(collection.codes))
    assert [path.name for path in styles.paths] == ["b.wav", "a.wav", "odd\udcff\n.wav"]
    assert styles.num_windows.tolist() == [5, 20, 23]
    expected = [part.mean(axis=0) for part in (responsibilities[:5], responsibilities[5:25], responsibilities[25:])]
    np.testing.assert_allclose(styles.shares, expected, rtol=1e-5)
    np.testing.assert_allclose(styles.total_shares, responsibilities.mean(axis=0), rtol=1e-5)
    assert styles.names == ("component 0", "component 1", "component 2")


def test_typical_windows_are_the_densest_of_their_own(model, collection):
    styles = find_styles(model, collection)
    owners = np.argmax(model.prior.responsibilities(collection.codes), axis=1)
    means, scales = model.prior.means.numpy(), model.prior.scales.numpy()
    for component, position in enumerate(styles.typical):
        own = np.flatnonzero(owners == component)
        distances = np.square((collection.codes[own] - means[component]) / scales[component]).sum(axis=1)
        assert position == collection.positions[own[distances.argmin()]]
    for component, window in enumerate(typical_windows(model)):
        expected = model.generate(1, component, temperature=0, texture=0)[0]
        np.testing.assert_allclose(window, expected, atol=1e-5)


def test_component_without_a_window_has_no_typical_one(model, collection):
    means = model.prior.means.numpy()
    means[1] += 1000
    model.prior.means.assign(means)
    styles = find_styles(model, collection)
    assert styles.typical[1] is None and styles.total_shares[1] == pytest.approx(0)


def test_table_for_people_and_for_programs(model, collection, tmp_path):
    model.component_names = ["slow strings", "drums, loud", "c"]
    styles = find_styles(model, collection)
    head, *lines = str(styles).splitlines()
    assert head == "windows  slow strings  drums, loud        c  file" and len(lines) == 4
    assert lines[-1].endswith("  all") and lines[2].endswith(r"  odd\udcff\n.wav")
    for line, share in zip(lines, styles.shares, strict=False):
        assert line.split()[1] == f"{100 * share[0]:.0f}"
    styles.write_csv(tmp_path / "styles.csv")
    with (tmp_path / "styles.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["b.wav", "a.wav", "odd\\udcff\n.wav"]
    shares = [[float(row[name]) for name in model.component_names] for row in rows]
    np.testing.assert_allclose(shares, styles.shares, atol=1e-4)


def test_names_choose_components_and_are_saved(model, tmp_path):
    assert model.component_names is None and model.component_name(2) == "component 2"
    with pytest.raises(ValueError, match="component='drums'"):
        model.generate(1, "drums")
    model.component_names = ["slow strings", "drums", "voices"]
    expected = model.generate(2, component=1, seed=0)
    np.testing.assert_array_equal(model.generate(2, component="drums", seed=0), expected)
    with pytest.raises(ValueError, match="component='flutes'"):
        model.generate(1, component="flutes")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.component_names == ("slow strings", "drums", "voices")
    np.testing.assert_allclose(loaded.generate(2, component="drums", seed=0), expected, atol=1e-6)
    loaded.component_names = None
    assert loaded.get_config()["component_names"] is None


@pytest.mark.parametrize("names", ["abc", ["a", "b"], ["a", "b", "b"], ["a", "b", ""], [1, 2, 3]])
def test_names_must_be_one_for_each_component(model, names):
    with pytest.raises(ValueError, match="3 names that differ"):
        model.component_names = names
