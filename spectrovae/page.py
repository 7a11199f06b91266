"""A page to listen on: one HTML file with sounds and pictures inside, which opens without a network."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

import matplotlib
import numpy as np
import soundfile
from matplotlib.figure import Figure

from spectrovae.converter import SpectrogramConverter
from spectrovae.plotting import plot_history, plot_spectrograms
from spectrovae.report import printable


@dataclasses.dataclass(frozen=True)
class Clip:
    """A sound on the page.

    Attributes:
        title: Its name, on this page its only one.
        window: Its spectrogram, `(bins, frames, 1)` with values in [0, 1].
        waveform: Its samples at the converter's rate, `(samples,)`; scaled down if the peak is over 1.
        details: Lines of text below the title.
    """

    title: str
    window: np.ndarray
    waveform: np.ndarray
    details: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        text: What is to be seen and heard.
        rows: Clips; those of a row are compared with one another.
    """

    title: str
    text: str
    rows: tuple[tuple[Clip, ...], ...]


def make_page(
    title: str,
    text: str,
    sections: Sequence[Section],
    converter: SpectrogramConverter,
    history: Mapping[str, Sequence[float]] | None = None,
    health: str = "",
) -> str:
    """Return a page as HTML, with all sounds (WAV, 16 bits) and pictures inside.

    Texts may hold anything, such as names of files: they are escaped.

    Args:
        title: Heading and title of the page.
        text: The line below it.
        sections: What is to be heard.
        converter: The `SpectrogramConverter` that made the windows.
        history: For each metric its values by epoch, drawn as curves.
        health: Lines about the model, such as `str(diagnosis)`.

    Example:
        >>> converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
        >>> clip = Clip("Silence", np.zeros((32, 32, 1)), np.zeros(512), ("nothing < everything",))
        >>> page = make_page("Sounds", "Made by nobody.", [Section("All", "One sound.", ((clip,),))], converter)
        >>> "nothing &lt; everything" in page, page.count("<audio")
        (True, 1)
    """
    template = Path(__file__).with_name("page_template.html").read_text(encoding="utf-8")
    parts = [_section(section, converter) for section in sections]
    if history and any(len(curve) for curve in history.values()):
        curves = picture(plot_history(history), "Course of the training, by epoch", "svg", "wide")
        # With a tab stop, what is wider than the window can be scrolled by keyboard.
        region = f'<div class="scroll" role="region" aria-label="Course of the training" tabindex="0">{curves}</div>'
        parts.append(f"<section><h2>Training</h2>{region}</section>")
    if health:
        parts.append(f"<section><h2>Health of the model</h2>{_health(health)}</section>")
    return Template(template).substitute(title=_text(title), text=_text(text), content="\n".join(parts))


def _section(section: Section, converter: SpectrogramConverter) -> str:
    rows = "\n".join(
        f'<div class="row">{"".join(_clip(clip, converter) for clip in row)}</div>' for row in section.rows
    )
    return f"<section><h2>{_text(section.title)}</h2><p>{_text(section.text)}</p>\n{rows}</section>"


def _clip(clip: Clip, converter: SpectrogramConverter) -> str:
    seconds = len(clip.waveform) / converter.sample_rate
    text = f"Spectrogram of {clip.title}: {seconds:.1f} s, 0 to {converter.sample_rate / 2:,.0f} Hz"
    spectrogram = picture(plot_spectrograms(clip.window, converter), text, "webp")
    details = "".join(f"<br>{_text(line)}" for line in clip.details)
    return (
        f"<figure>{spectrogram}{_player(clip, converter.sample_rate)}"
        f"<figcaption><strong>{_text(clip.title)}</strong>{details}</figcaption></figure>\n"
    )


def _player(clip: Clip, sample_rate: int) -> str:
    stream = io.BytesIO()
    waveform = clip.waveform / max(1.0, np.abs(clip.waveform).max(initial=0))
    # FLAC would be smaller, but Chromium can't seek in one of less than a second, and then refuses to play it.
    soundfile.write(stream, waveform, sample_rate, "PCM_16", format="WAV")
    return f'<audio controls aria-label="{_text(clip.title)}" src="{_data_address("audio/wav", stream)}"></audio>'


def picture(figure: Figure, text: str, kind: str, css_class: str = "") -> str:
    """Return a figure as an HTML picture that holds its data.

    Args:
        figure: What to draw.
        text: What is to be seen, for those who cannot see it.
        kind: `"svg"` or `"webp"`, or what else both matplotlib and browsers know.
        css_class: Class of the element.

    Example:
        >>> picture(Figure(), "nothing", "svg", "wide")[:32]
        '<img class="wide" alt="nothing" '
    """
    stream = io.BytesIO()
    # The same content gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "spectrovae"}):
        figure.savefig(stream, format=kind, metadata={"Date": None} if kind == "svg" else None)
    media_type = "image/svg+xml" if kind == "svg" else f"image/{kind}"
    attributes = f' class="{css_class}"' if css_class else ""
    return f'<img{attributes} alt="{_text(text)}" src="{_data_address(media_type, stream)}">'


def _data_address(media_type: str, content: io.BytesIO) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content.getbuffer()).decode()}"


def _health(health: str) -> str:
    lines = []
    for line in health.splitlines():
        label, separator, rest = line.partition(": ")
        is_labelled = separator and " " not in label
        lines.append(f"<li><strong>{_text(label)}</strong>: {_text(rest)}</li>" if is_labelled else _item(line))
    return f"<ul>{''.join(lines)}</ul>"


def _item(line: str) -> str:
    return f'<li class="problem">{_text(line[2:])}</li>' if line.startswith("- ") else f"<li>{_text(line)}</li>"


def _text(text: str) -> str:
    return escape(printable(text))
