import base64
import html.parser
import io
import re

import numpy as np
import pytest
import soundfile
from browser import needs_chromium, open_page

from spectrovae.audio.io import write_audio
from spectrovae.audio.recordings import WindowPosition
from spectrovae.evaluation.collection import encode_collection
from spectrovae.evaluation.diagnosis import diagnose
from spectrovae.report.page import Clip, Section, make_page, reconstruction_clips, write_page

VOID = {"meta", "img", "br"}


class StrictParser(html.parser.HTMLParser):
    """Checks that elements are closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, small_converter):
    """Two recordings of 4 windows each, one with a name that is made of HTML."""
    folder = tmp_path_factory.mktemp("recordings")
    noise = np.random.default_rng(0).normal(size=(2, 4 * small_converter.window_length))
    for name, samples in zip(("first.wav", "<img src=x> & 'more'.wav"), noise, strict=True):
        write_audio(folder / name, 0.1 * samples / np.abs(samples).max(), small_converter.sample_rate)
    return folder


@pytest.fixture(scope="module")
def model(make_model, windows):
    model = make_model(component_names=["slow strings", "<drums>"])
    model.adapt(windows, verbose=0)
    return model


@pytest.fixture(scope="module")
def whole_page(model, recordings, windows, tmp_path_factory):
    """The path of a page with everything on it."""
    place = WindowPosition(recordings / "<img src=x> & 'more'.wav", 0.064)
    return write_page(
        tmp_path_factory.mktemp("page") / "new" / "index.html",
        model,
        model.generate(2, seed=0),
        codes=model.prior.sample(2, seed=0).numpy(),
        collection=encode_collection(model, recordings),
        reconstructions=reconstruction_clips(model, [place], seed=0),
        history={"loss": [3.0, 2.0], "val_loss": [4.0, 3.0], "rmse_db": [9.0, 8.0]},
        diagnosis=diagnose(model, windows),
        seed=0,
    )


def sounds_of(page):
    """The samples of all players."""
    data = re.findall(r'src="data:audio/wav;base64,([^"]+)"', page)
    return [soundfile.read(io.BytesIO(base64.b64decode(text)))[0] for text in data]


def test_page_holds_everything(whole_page, model, small_converter, recordings):
    codes = model.prior.sample(2, seed=0).numpy()
    page = whole_page.read_text(encoding="utf-8")
    StrictParser().feed(page)
    sounds = sounds_of(page)
    assert len(sounds) == 6 and page.count("data:image/webp") == 6
    np.testing.assert_allclose(sounds[0], small_converter.to_audio(model.generate(2, seed=0)[0], seed=0), atol=1e-4)
    names = [("slow strings", "&lt;drums&gt;")[k] for k in np.argmax(model.prior.responsibilities(codes), axis=1)]
    assert re.findall("<strong>Generated.{0,40}Style: ([^<]+)", page) == names
    assert page.count("at a distance of ") == 2
    assert page.count("data:image/svg+xml") == 1 and "Verdict" in page and "<strong>Prior</strong>: " in page
    assert "<img src=x>" not in page and "&lt;img src=x&gt; &amp; &#x27;more&#x27;.wav from 0.1 s on" in page
    original = soundfile.read(recordings / "<img src=x> & 'more'.wav")[0][512:1024]
    np.testing.assert_allclose(sounds[4], original, atol=1e-4)


def test_page_of_sounds_alone(model, tmp_path):
    path = write_page(tmp_path / "page.html", model, model.generate(2, seed=0), [np.full(512, 1.9), np.zeros(512)])
    page = path.read_text(encoding="utf-8")
    loud, silent = sounds_of(page)
    assert loud.max() == pytest.approx(1, abs=1e-3) and not silent.any()
    assert "Nearest" not in page and "Reconstruction" not in page and "Training" not in page and "Health" not in page


def test_sounds_longer_and_shorter_than_a_window(model, recordings, windows, tmp_path):
    of_first, of_second = (
        windows[np.argmax(model.prior.responsibilities(model.encode(windows)), axis=1) == k][0] for k in (0, 1)
    )
    joined = np.concatenate([of_first, of_first, of_second, of_second[:, :5]], axis=1)
    collection = encode_collection(model, recordings)
    page = write_page(tmp_path / "long.html", model, joined[None], collection=collection).read_text(encoding="utf-8")
    assert "Style: slow strings, then &lt;drums&gt;" in page
    assert [len(sound) for sound in sounds_of(page)] == [16 * 101, 512]
    page = write_page(tmp_path / "short.html", model, joined[None, :, :9], collection=collection).read_text("utf-8")
    assert "Style" not in page and [len(sound) for sound in sounds_of(page)] == [16 * 9]


def test_errors_say_what_came(model, windows, tmp_path):
    with pytest.raises(ValueError, match="2 windows. Received: 1 waveforms"):
        write_page(tmp_path / "page.html", model, windows[:2], [np.zeros(512)])
    with pytest.raises(ValueError, match="3 codes"):
        write_page(tmp_path / "page.html", model, windows[:2], codes=np.zeros((3, 4)))
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_text(small_converter):
    clip = Clip("a\udcff\n<b>", np.zeros((32, 32, 1)), np.zeros(512))
    page = make_page("T", "", [Section("S", "", ((clip,),))], small_converter, health="Verdict:\n- a < b: c")
    assert rb"a\udcff\n&lt;b&gt;" in page.encode("utf-8")
    assert '<li class="problem">a &lt; b: c</li>' in page
    assert make_page("T", "", [Section("S", "", ((clip,),))], small_converter, health="Verdict:\n- a < b: c") == page


@needs_chromium
@pytest.mark.parametrize("width", [1200, 360])
def test_page_opens_and_plays_in_a_browser(width, whole_page):
    with open_page(whole_page, width) as opened:
        opened.assert_pictures_are_visible()
        opened.assert_fits_its_width()
        players = opened.page.locator("audio").all()
        assert len(players) == 6
        for player in players:
            player.evaluate("player => player.readyState > 0 || new Promise(done => player.onloadedmetadata = done)")
            assert player.evaluate("player => player.error === null && player.duration") == pytest.approx(0.064)
            assert player.is_visible() and player.bounding_box()["width"] > 200
            assert len(player.get_attribute("aria-label")) > 5
        assert opened.page.get_by_text("<img src=x>").first.is_visible()
        assert opened.page.get_by_role("heading", name="Health of the model").is_visible()
        # By keyboard: the first tab stop is the first player, which the space bar starts.
        opened.page.keyboard.press("Tab")
        assert opened.page.evaluate("document.activeElement.ariaLabel") == "Generated 1"
        opened.page.keyboard.press("Space")
        opened.page.wait_for_function("() => document.querySelector('audio').ended")
        assert players[0].evaluate("player => player.error === null && player.played.length") == 1
        assert not opened.errors and not opened.requests


def test_variations_stand_beside_their_recordings(sequence_model, small_converter, tmp_path):
    rng = np.random.default_rng(0)
    write_audio(tmp_path / "a.wav", 0.1 * rng.standard_normal(2000), small_converter.sample_rate)
    rows = reconstruction_clips(sequence_model, [tmp_path / "a.wav"], seed=0, amount=0.25)
    assert [clip.title for clip in rows[0]] == ["Original 1", "Reconstruction 1", "Variation 1"]
    assert rows[0][2].details == ("Varied by 0.25 of 1",)
    assert rows[0][2].window.shape == sequence_model.input_shape
    page = write_page(tmp_path / "index.html", sequence_model, sequence_model.generate(1, seed=0), reconstructions=rows)
    text = page.read_text(encoding="utf-8")
    assert "Reconstructions and variations" in text and "follows the course of the recording" in text
