import keras
import numpy as np
import pytest

from spectrovae.model.spectrovae import ComponentNames


@pytest.fixture
def named() -> ComponentNames:
    named = ComponentNames()
    named.num_components = 2
    named.component_names = ["strings", "drums"]
    return named


def test_names_are_found_and_told(named):
    assert named.component_names == ("strings", "drums")
    assert [named.component_name(component) for component in (0, 1)] == ["strings", "drums"]
    assert [named.component_index(component) for component in ("strings", "drums", 1, None)] == [0, 1, 1, None]


def test_without_names_components_have_numbers(named):
    named.component_names = None
    assert named.component_names is None and named.component_name(1) == "component 1"
    assert named.component_index(1) == 1
    with pytest.raises(ValueError, match="component='drums'"):
        named.component_index("drums")


def test_unknown_and_bad_names_are_refused(named):
    with pytest.raises(ValueError, match=r"\['strings', 'drums'\].*component='flutes'"):
        named.component_index("flutes")
    for names in ("ab", ["a"], ["a", "a"], ["a", ""], [1, 2]):
        with pytest.raises(ValueError, match="2 names that differ"):
            named.component_names = names
    assert named.component_names == ("strings", "drums")


def test_names_choose_components_and_are_saved(make_model, tmp_path):
    model = make_model(num_components=3)
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
