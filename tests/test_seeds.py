from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from spectrovae.model.distributions import stateless_seed


def test_a_seed_repeats_whatever_the_generator():
    generators = [keras.random.SeedGenerator(number) for number in (0, 1)]
    for seed in (0, 7, 2**31, 2**40):
        first, second = (stateless_seed(seed, generator).numpy() for generator in generators)
        np.testing.assert_array_equal(first, second)
        assert first.dtype == np.int32 and first.shape == (2,) and (first >= 0).all()
    pairs = {tuple(stateless_seed(seed, generators[0]).numpy()) for seed in (0, 1, 2**31, 2**31 + 1)}
    assert len(pairs) == 4


def test_without_a_seed_the_generator_goes_on():
    generators = [keras.random.SeedGenerator(0) for _ in range(2)]
    first, same = ([tuple(stateless_seed(None, each).numpy()) for _ in range(3)] for each in generators)
    assert first == same and len(set(first)) == 3


def test_no_two_threads_get_the_same_draw():
    generator = keras.random.SeedGenerator(0)
    with ThreadPoolExecutor(8) as threads:
        draws = list(threads.map(lambda _: tuple(stateless_seed(None, generator).numpy()), range(400)))
    assert len(set(draws)) == 400


@pytest.mark.parametrize("seed", [-1, 0.5, "a"])
def test_other_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="seed="):
        stateless_seed(seed, keras.random.SeedGenerator(0))
