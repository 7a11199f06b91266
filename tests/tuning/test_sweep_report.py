import html
import html.parser
import re

import numpy as np
import pytest
import scipy.stats
from browser import needs_chromium, open_page
from sweeps import COMMAND, IGNORED_WARNINGS

from spectrovae.tuning import Sweep, SweepSettings
from spectrovae.tuning.__main__ import main
from spectrovae.tuning.report import (
    make_page,
    plot_argument,
    plot_parallel_coordinates,
    plot_trials,
    score_limits,
    write_report,
)
from spectrovae.tuning.results import Effect, SweepResults, TrialResult, measure_effects, partial_correlation

pytestmark = IGNORED_WARNINGS


def make_trial(number, score, reason=None, **values):
    status = "COMPLETED" if reason is None else "FAILED"
    metrics = {} if reason else {"val_loss": score, "val_rmse_db": 5.0 + number}
    score = None if reason else score
    return TrialResult(f"{number:02d}", status, score, values, metrics, 2, 30.0, 1000 * number, 500.0, reason)


@pytest.fixture
def make_results(tmp_path):
    """A function that makes results of trials; the best completed trial comes first."""

    def make(*trials, **settings):
        ordered = sorted(trials, key=lambda trial: (trial.status != "COMPLETED", trial.score or 0))
        return SweepResults(tmp_path, SweepSettings(("music",), **settings), tuple(ordered))

    return make


@pytest.fixture
def many_results(make_results):
    """20 trials where the size of the code decides, the mixture does not matter, and the depth is always the same."""
    generator = np.random.default_rng(0)
    trials = []
    for number in range(20):
        latent_dim, num_components = int(generator.choice([25, 50, 100])), int(generator.choice([1, 4, 16]))
        score = -1000.0 * latent_dim + generator.normal()
        trials.append(make_trial(number, score, latent_dim=latent_dim, num_components=num_components, decoder_depth=4))
    failure = make_trial(20, 0.0, "loss became <nan> & worse", latent_dim=400, num_components=4, decoder_depth=4)
    return make_results(*trials, failure, tuner="random")


# What each argument does


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


# Pictures


def test_pictures_show_each_trial(many_results):
    (axes,) = plot_parallel_coordinates(many_results).axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(lines) == 20
    assert max(lines, key=lambda line: line.get_linewidth()).get_ydata()[-1] == 1
    (axes,) = plot_argument(many_results, "latent_dim").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["25", "50", "100", "400"]
    num_points = [len(points.get_offsets()) for points in axes.collections if hasattr(points, "get_sizes")]
    assert sum(num_points) == 20 + 1 + 1  # all, the best once more, and the failed one
    (axes,) = plot_trials(many_results, "seconds", "time (s)").axes
    assert [bar.get_height() for bar in axes.patches] == [30] * 21


def test_one_bad_score_does_not_squeeze_the_others(make_results):
    trials = [make_trial(n, float(n), latent_dim=n) for n in range(9)]
    assert score_limits(trials) == (0, 8)
    assert score_limits([*trials, make_trial(9, 1e9, latent_dim=9)]) == (0, 8)
    assert score_limits(trials[:1])[1] > 0


# The page


class StrictParser(html.parser.HTMLParser):
    """Keeps the tags, and refuses those that are not closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_self_contained(many_results):
    page = make_page(many_results)
    parser = StrictParser()
    parser.feed(page)
    assert not parser.open and not {"script", "link", "iframe"} & set(parser.tags)
    assert parser.links and all(link.startswith("data:image/svg+xml;base64,") for link in parser.links)
    # One overall, one for each of two arguments, the course, time, size and memory.
    assert parser.tags.count("img") == 1 + 2 + 4
    for text in ("20 of 21 trials completed, 1 failed", "latent_dim: larger values do better", "val_rmse_db"):
        assert text in page
    assert len(page) < 2e6


def test_names_and_reasons_are_escaped(make_results):
    evil = '<script>alert("&")</script>'
    trials = [make_trial(n, float(n), latent_dim=n, likelihood=("a", evil)[n % 2]) for n in range(4)]
    page = make_page(make_results(*trials, make_trial(5, 0.0, evil, latent_dim=1, likelihood=evil)))
    assert "<script" not in page and page.count(html.escape(evil)) >= 3
    StrictParser().feed(page)


@pytest.mark.parametrize("num_failed", [0, 2])
def test_page_without_a_result_says_so(num_failed, make_results):
    failures = [make_trial(n, 0.0, "out of memory", latent_dim=n) for n in range(num_failed)]
    page = make_page(make_results(*failures))
    assert "No trial has completed." in page and page.count("<td>out of memory</td>") == num_failed


def test_same_sweep_gives_the_same_pictures(many_results):
    pages = [re.findall(r"base64,[^\"]+", make_page(many_results)) for _ in range(2)]
    assert pages[0] == pages[1]


def test_report_is_refreshed_after_each_trial(settings, untrained, tmp_path):
    seen = []

    def report(output):
        write_report(output)
        page = (output / "report.html").read_text()
        seen.append(int(re.search(r"(\d+) of \d+ trials completed", page)[1]))

    Sweep(settings, tmp_path / "sweep", max_trials=3, verbose=0, report=report).search()
    assert seen == [1, 2, 3]


def test_command_writes_the_report(music, untrained, tmp_path, capsys):
    assert main([str(music), "--output", str(tmp_path), "--max-trials", "2", *COMMAND, "--latent-dim", "3"]) == 1
    page = (tmp_path / "report.html").read_text()
    assert "0 of 2 trials completed, 2 failed" in page and page.count("loss became nan in epoch 1.") == 2
    assert not (tmp_path / "best.json").exists()
    assert "report.html for the reasons" in capsys.readouterr().err


@needs_chromium
@pytest.mark.parametrize("width", [1200, 360])
def test_page_opens_in_a_browser(width, many_results, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(make_page(many_results), encoding="utf-8")
    with open_page(file, width) as opened:
        opened.assert_pictures_are_visible()
        opened.assert_fits_its_width()
        assert opened.page.get_by_role("heading", name="What mattered").is_visible()
        assert opened.page.get_by_text("loss became <nan> & worse").is_visible()
        # What is wider than the window can be reached by keyboard.
        region = opened.page.get_by_role("region", name="Best trials")
        region.focus()
        opened.page.keyboard.press("End")
        opened.page.keyboard.press("ArrowRight")
        opened.page.wait_for_timeout(300)
        is_wider, position = region.evaluate("r => [r.scrollWidth > r.clientWidth, r.scrollLeft]")
        assert (position > 0) == is_wider
        assert is_wider or width == 1200
        assert not opened.errors and not opened.requests
