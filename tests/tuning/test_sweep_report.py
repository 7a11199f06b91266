import html
import html.parser
import re

import pytest
from browser import needs_chromium, open_page
from sweeps import IGNORED_WARNINGS, make_trial

from spectrovae.tuning import Sweep
from spectrovae.tuning.report import (
    make_page,
    plot_argument,
    plot_parallel_coordinates,
    plot_trials,
    score_limits,
    write_report,
)

pytestmark = IGNORED_WARNINGS


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
