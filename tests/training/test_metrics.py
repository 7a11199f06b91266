import numpy as np
import pytest

from spectrovae.training.metrics import ComponentPerplexity, NumLiveComponents, RootMean


def test_equal_shares_have_the_perplexity_of_their_number():
    for metric, expected in ((ComponentPerplexity(6), 6), (NumLiveComponents(6), 6)):
        metric.update_state(np.full((10, 6), 1 / 6))
        assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_perplexity_and_live_components_against_their_definitions():
    generator = np.random.default_rng(0)
    batches = [generator.dirichlet([5, 2, 0.5, 0.01], size=size) for size in (7, 12)]
    shares = np.concatenate(batches).mean(axis=0)
    expected = {ComponentPerplexity: np.exp(-np.sum(shares * np.log(shares))), NumLiveComponents: 3}
    assert shares[3] < 0.1 / 4 < shares[2]
    for kind, value in expected.items():
        metric = kind(4)
        for batch in batches:
            metric.update_state(batch)
        np.testing.assert_allclose(metric.shares, shares, rtol=1e-5)
        assert float(metric.result()) == pytest.approx(value, rel=1e-5)
        metric.reset_state()
        assert float(metric.result()) == (1 if kind is ComponentPerplexity else 0)


def test_weights_weigh_the_windows():
    metric = NumLiveComponents(2)
    metric.update_state([[1.0, 0.0], [0.0, 1.0]], sample_weight=[3, 1])
    np.testing.assert_allclose(metric.shares, [0.75, 0.25])


def test_root_mean_over_batches():
    metric = RootMean()
    metric.update_state([1.0, 3.0])
    metric.update_state([8.0])
    assert float(metric.result()) == pytest.approx(2)


def test_errors_say_what_came():
    with pytest.raises(ValueError, match="num_components=0"):
        ComponentPerplexity(0)
