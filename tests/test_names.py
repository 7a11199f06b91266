"""Names of files that are markup, formulas or no text: each is shown as it is, wherever it is shown."""

import csv
import html.parser
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spectrovae import audio_dataset, write_results
from spectrovae.commands import main

# A formula that matplotlib cannot set, bytes that are no UTF-8, characters that fonts lack.
NAMES = (
    "<script>alert(1)<!-- & \"x\" 'y'.wav",
    "<img src=x onerror=alert(1)>\n$\\frac{1$ &lt;.wav",
    os.fsdecode(b"\xff\xfe ${title} %s {0} \xe9\x9f\xb3 \xf0\x9f\x8e\xb5.wav"),
)
SHOWN = (
    "&lt;script&gt;alert(1)&lt;!-- &amp; &quot;x&quot; &#x27;y&#x27;.wav",
    r"\n$\frac{1$ &amp;lt;.wav",
    "${title} %s",
)
# All elements of our pages: no script, and no frame.
ELEMENTS = {"html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "p", "section", "div"}
ELEMENTS |= {"figure", "img", "audio", "figcaption", "strong", "br", "ul", "li"}


class Elements(html.parser.HTMLParser):
    """Collects the elements of a page and the attributes that run code or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.odd: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.names.add(tag)
        for name, value in attributes:
            if name.startswith("on") or (name in ("src", "href") and not value.startswith("data:")):
                self.odd.append(f"{tag} {name}={value[:50]}")


def check_page(path: Path, *shown: str) -> None:
    text = path.read_text(encoding="utf-8")
    page = Elements()
    page.feed(text)
    page.close()
    assert page.names <= ELEMENTS, page.names - ELEMENTS
    assert not page.odd
    for part in shown:
        assert part in text, part


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, small_converter) -> Path:
    folder = tmp_path_factory.mktemp("recordings") / "<b>&amp;"
    folder.mkdir()
    noise = np.random.default_rng(0).normal(size=(len(NAMES), 4 * small_converter.window_length))
    for name, samples in zip(NAMES, noise, strict=True):
        soundfile.write(os.fsencode(folder / name), 0.1 * samples / np.abs(samples).max(), small_converter.sample_rate)
    return folder


@pytest.mark.filterwarnings("ignore:There were peaks")
def test_every_page_and_picture_takes_any_name(recordings, adapted_model, sequence_model, tmp_path, capsys):
    one_code, several_codes = (tmp_path / f"{name}.keras" for name in ("<i>one<i>", "$\\several{"))
    adapted_model.save(one_code)
    sequence_model.save(several_codes)

    def run(*arguments: object) -> None:
        assert main([str(each) for each in arguments]) == 0, capsys.readouterr().err

    run("similar", one_code, recordings, recordings / NAMES[0], "--num=9", f"--output={tmp_path / 'similar.html'}")
    check_page(tmp_path / "similar.html", *SHOWN, "that sound like")
    names = ("--names", "<script>x", "$\\frac{")
    run("styles", one_code, recordings, *names, f"--output={tmp_path / 'styles'}")
    check_page(tmp_path / "styles" / "index.html", "&lt;script&gt;x", "$\\frac{", "&lt;i&gt;one&lt;i&gt;.keras")
    with (tmp_path / "styles" / "styles.csv").open(encoding="utf-8", newline="") as file:
        assert {Path(row["file"]).name for row in csv.DictReader(file)} >= set(NAMES[:2])
    run("generate", one_code, "--num-samples=4", "--compare", recordings, f"--output={tmp_path / 'generated'}")
    check_page(tmp_path / "generated" / "index.html", "&lt;i&gt;one&lt;i&gt;.keras", "Style: ")
    with soundfile.SoundFile(tmp_path / "generated" / "generated_1.wav") as file:
        assert file.comment.startswith("model <i>one<i>.keras, seed ")
    for number, name in enumerate(NAMES):
        output = f"--output={tmp_path / 'continued' / f'{number}.wav'}"
        run("continue", several_codes, recordings / name, "--duration=0.1", "--seed=0", output)
        assert (tmp_path / "continued" / f"{number}.png").stat().st_size > 5000


def test_results_of_a_training_take_any_name(recordings, adapted_model, tmp_path):
    options = {"validation_split": 0.4, "cache": "memory", "seed": 0, "verbose": 0}
    for number, split in enumerate((0.2, 0.4)):
        train, held_out = audio_dataset(recordings, adapted_model.converter, **options | {"validation_split": split})
        write_results(adapted_model, train, held_out, {"$\\frac{": [1.0]}, tmp_path / f"{number}", 2, seed=number)
        check_page(tmp_path / f"{number}" / "index.html", "Nearest to generated 1")
        summary = (tmp_path / f"{number}" / "summary.txt").read_text(encoding="utf-8")
        assert r"\udcff\udcfe ${title} %s {0}" in summary and r"onerror=alert(1)>\n$\frac{1$" in summary
