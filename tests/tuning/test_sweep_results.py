import re

import numpy as np
import pytest
import scipy.stats
from sweeps import make_trial

from spectrovae.tuning.results import Effect, measure_effects, partial_correlation


def test_partial_correlation_is_that_of_the_others_held_fixed():
    first, other, noise = np.random.default_rng(0).normal(size=(3, 40))
    second = first - 3 * other + noise
    pearson = scipy.stats.pearsonr(first, second)
    alone = partial_correlation(first, second, [])
    np.testing.assert_allclose(alone, [pearson.statistic, pearson.pvalue], rtol=1e-6)
    # The closed form for one variable that is held fixed.
    table = np.corrcoef([first, second, other])
    expected = (table[0, 1] - table[0, 2] * table[1, 2]) / np.sqrt((1 - table[0, 2] ** 2) * (1 - table[1, 2] ** 2))
    assert partial_correlation(first, second, [other])[0] == pytest.approx(expected)
    assert partial_correlation(first, second, [2 * first]) == (None, None)


def test_effects_are_told_as_they_are(many_results):
    size, mixture, depth = (str(effect) for effect in measure_effects(many_results))
    assert size.startswith("latent_dim: larger values do better (rank correlation -") and "20 trials" in size
    assert "p < 0.001" in size and re.search(r"goes from -\d+,\d+ at 100 .* to -\d+,\d+ at 25", size)
    assert mixture.startswith("num_components: no clear rise or fall of val_loss")
    assert depth == "decoder_depth: its effect was not measured: it was 4 in all trials that completed."


def test_few_trials_tell_nothing(make_results):
    trials = [make_trial(n, float(n), latent_dim=n, num_components=n % 2, decoder_depth=n % 3) for n in range(6)]
    for effect in measure_effects(make_results(*trials)):
        assert "too few trials to tell its effect: 6 completed, at least 9 are needed" in str(effect)
    assert all("no trial completed" in str(effect) for effect in measure_effects(make_results()))


def test_arguments_that_changed_together_are_not_told_apart(make_results):
    trials = [make_trial(n, float(n), latent_dim=n % 5, num_components=2 * (n % 5), decoder_depth=3) for n in range(12)]
    effects = measure_effects(make_results(*trials))
    assert all("changed only together with others" in str(effect) for effect in effects[:2])


def test_words_are_compared_by_their_groups(make_results):
    trials = [make_trial(n, float(n + 50 * (n % 2)), likelihood=("good", "bad")[n % 2]) for n in range(12)]
    effect = measure_effects(make_results(*trials))[-1]
    groups = [[trial.score for trial in trials[start::2]] for start in (0, 1)]
    assert effect.name == "likelihood" and effect.p_value == pytest.approx(scipy.stats.kruskal(*groups).pvalue)
    assert "its values differ clearly in 12 trials" in str(effect)
    same = Effect("likelihood", "val_loss", 9, {"a": (1.0, 5), "b": (2.0, 4)}, None, 0.6, 7)
    assert "no clear difference" in str(same) and "from 1 at a (5 trials) to 2 at b (4 trials)" in str(same)
