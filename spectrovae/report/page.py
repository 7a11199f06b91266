"""One HTML page on which a model is heard and seen."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from numpy.typing import ArrayLike

from spectrovae.audio.limiter import limit_peaks
from spectrovae.audio.recordings import WindowPosition, printable, read_window
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.collection import EncodedCollection, find_similar
from spectrovae.evaluation.diagnosis import Diagnosis
from spectrovae.evaluation.sound_distance import rmse_db
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.pieces import vary
from spectrovae.report.plotting import plot_history, plot_spectrograms
from spectrovae.storage import PathLike, remove_leftovers, write_text

if TYPE_CHECKING:  # matplotlib is imported when something is drawn
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

PAGE = "index.html"
"""Name of the page in a folder."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A sound on the page.

    Attributes:
        title: Its name, on this page its only one.
        window: Its spectrogram, `(bins, frames, 1)` with values in [0, 1].
        waveform: Its samples at the converter's rate, `(samples,)`; peaks over 1 are turned down.
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


def write_page(
    path: PathLike,
    model: SpectroVAE,
    windows: ArrayLike,
    waveforms: Sequence[np.ndarray] | None = None,
    codes: np.ndarray | None = None,
    *,
    collection: EncodedCollection | None = None,
    reconstructions: Sequence[tuple[Clip, ...]] = (),
    history: Mapping[str, Sequence[float]] | None = None,
    diagnosis: Diagnosis | None = None,
    text: str = "",
    seed: int | None = None,
) -> Path:
    """Write a page to listen on: one HTML file that opens without a network.

    Each generated sound has its spectrogram, a player, the mixture component that it belongs to, and beside it the
    window of the training collection that it is most like (`find_similar` says by what distance): what is near to 0
    was copied.

    Args:
        path: The file to write, such as `index.html`; its folder is made if need be.
        model: The model.
        windows: Generated spectrograms with values in [0, 1], `(num_samples, bins, frames, 1)`. They may have more or
            fewer frames than the model's windows: then what is said of their codes is said of each stretch as long as
            a window.
        waveforms: Their sounds, each `(samples,)`; by default they are made here.
        codes: Their codes, as `model.encode` returns them, where they are known; by default they are encoded.
        collection: The training recordings, as `encode_collection` returns them. Without it nothing is compared.
        reconstructions: Recordings beside their reconstructions, as `reconstruction_clips` returns them.
        history: For each metric its values by epoch.
        diagnosis: What `diagnose` returned.
        text: The line below the page's heading.
        seed: Integer for phases that repeat.

    Returns:
        The path.

    Raises:
        OSError: If the page cannot be written, or a recording not be read.
        ValueError: If windows, sounds and codes do not fit one another, or a recording cannot be decoded.

    Example:
        >>> import tempfile
        >>> from spectrovae import SpectroVAE
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> path = write_page(f"{tempfile.mkdtemp()}/index.html", model, model.generate(1, seed=0), seed=0)
        >>> path.read_text(encoding="utf-8").count("<audio")
        1
    """
    path, windows = Path(path), np.asarray(windows, np.float32)
    if waveforms is None:
        waveforms = list(to_audio(model.converter, windows, seed))
    if len(waveforms) != len(windows) or (codes is not None and len(codes) != len(windows)):
        raise ValueError(
            f"There must be a sound and a code for each of the {len(windows)} windows. Received: {len(waveforms)} "
            f"waveforms, {'no' if codes is None else len(codes)} codes"
        )
    rows: list[tuple[Clip, ...]] = []
    for index, (window, waveform) in enumerate(zip(windows, waveforms, strict=True)):
        own_codes = codes[index : index + 1] if codes is not None else _codes_of(model, window)
        details = _component_text(model, own_codes)
        clip = Clip(f"Generated {index + 1}", window, waveform, details)
        rows.append((clip, *_nearest(model, own_codes, collection, index + 1)))
    if collection is None:  # there is nothing to compare
        rows = [tuple(clip for row in rows for clip in row)]
    sections = [Section("Generated sounds", _generated_text(collection), tuple(rows))]
    if reconstructions:
        rows = list(reconstructions)
        varied = any(len(row) > 2 for row in rows)
        title = "Reconstructions and variations" if varied else "Reconstructions"
        remark = "Recordings, and what is left of them after encoding."
        if varied:
            remark += " A variation follows the course of the recording with other details."
        sections.append(Section(title, remark, tuple(rows)))
    health = "" if diagnosis is None else str(diagnosis)
    content = make_page("What the model sounds like", text, sections, model.converter, history, health)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    write_text(path, content)
    return path


def to_audio(converter: SpectrogramConverter, windows: ArrayLike, seed: int | None = None) -> np.ndarray:
    """Turn windows into sound, as `converter.to_audio` does; its warnings become lines of the log."""
    with _warnings_in_log():
        return converter.to_audio(windows, seed=seed)


@contextlib.contextmanager
def _warnings_in_log() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        logger.warning("%s", warning.message)


def position_text(position: WindowPosition) -> str:
    """Return where a window is from, for people.

    Example:
        >>> position_text(WindowPosition(Path("music/first.wav"), 11.88))
        'music/first.wav from 11.9 s on'
    """
    return f"{printable(position.path)} from {position.start:.1f} s on"


def recording_clip(model: SpectroVAE, title: str, position: WindowPosition, details: Sequence[str] = ()) -> Clip:
    """Return the window at a place of a recording as a clip."""
    waveform = read_window(position.path, model.converter, position.start)
    window = model.converter.to_spectrogram(waveform)
    return Clip(title, window, waveform, (position_text(position), *details))


def reconstruction_clips(
    model: SpectroVAE,
    originals: Sequence[WindowPosition | PathLike],
    seed: int | None = None,
    amount: float | None = None,
) -> list[tuple[Clip, ...]]:
    """Return recordings beside what the model makes of them: their reconstruction, and a variation if asked for.

    Args:
        model: The model.
        originals: Positions in recordings, or files, for their first window.
        seed: Integer for phases and variations that repeat.
        amount: How far each variation goes from the recording, as in `vary`; None for no variation.

    Raises:
        OSError: If a recording cannot be read.
        ValueError: If it cannot be decoded, or has no such position.
    """
    rows = []
    for number, place in enumerate(originals, 1):
        position = place if isinstance(place, WindowPosition) else WindowPosition(Path(os.fspath(place)), 0.0)
        original = recording_clip(model, f"Original {number}", position)
        codes = model.encode(original.window[None])
        (window,) = model.decode(codes)
        error = f"{rmse_db(original.window, window, model.converter):.1f} dB RMSE"
        waveform = to_audio(model.converter, window, seed)
        details = (error, *_component_text(model, codes))
        row = [original, Clip(f"Reconstruction {number}", window, waveform, details)]
        if amount is not None:
            with _warnings_in_log():
                waveform = vary(model, original.window[None], amount, seed=seed)
            title, window = f"Variation {number}", model.converter.to_spectrogram(waveform)
            row.append(Clip(title, window, waveform, (f"Varied by {amount:g} of 1",)))
        rows.append(tuple(row))
    return rows


def _codes_of(model: SpectroVAE, window: np.ndarray) -> np.ndarray:
    """Return the codes of the stretches of a spectrogram that are as long as a window."""
    num_frames = model.converter.num_frames
    stretches = range(0, window.shape[1] - num_frames + 1, num_frames)
    if not stretches:
        return np.zeros((0, *model.code_shape), np.float32)
    return model.encode(np.stack([window[:, start : start + num_frames] for start in stretches]))


def _component_text(model: SpectroVAE, codes: np.ndarray) -> tuple[str, ...]:
    names = [model.component_name(int(k)) for k in np.argmax(model.prior.responsibilities(codes), axis=-1)]
    changes = [name for index, name in enumerate(names) if not index or name != names[index - 1]]
    return (f"Style: {', then '.join(changes)}",) if changes else ()


def _generated_text(collection: EncodedCollection | None) -> str:
    if collection is None:
        return "Drawn from the prior."
    return (
        "Drawn from the prior. Beside each, the training window that it is most like. Distances are in standard "
        "deviations of the posterior: below 1.4 the model can't tell two windows apart, and any two training windows "
        f"are {collection.spread:.0f} apart."
    )


def _nearest(
    model: SpectroVAE, codes: np.ndarray, collection: EncodedCollection | None, number: int
) -> tuple[Clip, ...]:
    if collection is None or not len(codes):
        return ()
    (nearest,) = find_similar(model, codes, collection, num=1)
    distance = f"at a distance of {nearest.distance:.1f}"
    return (recording_clip(model, f"Nearest to generated {number}", nearest.position, (distance,)),)


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
    waveform = limit_peaks(clip.waveform, sample_rate)
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
        >>> from matplotlib.figure import Figure
        >>> picture(Figure(), "nothing", "svg", "wide")[:32]
        '<img class="wide" alt="nothing" '
    """
    from matplotlib import rc_context

    stream = io.BytesIO()
    # The same content gives the same file.
    with rc_context({"svg.hashsalt": "spectrovae"}):
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
