"""The page on which to hear what a model does: generated sounds, and reconstructions beside their originals."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from spectrovae.collection import EncodedCollection, find_similar, read_window
from spectrovae.converter import SpectrogramConverter
from spectrovae.diagnosis import Diagnosis
from spectrovae.files import PathLike, replaced_when_complete
from spectrovae.objective import Objective
from spectrovae.page import Clip, Section, make_page
from spectrovae.report import WindowPosition

logger = logging.getLogger(__name__)

PAGE = "index.html"
"""Name of the page in a folder."""


def write_page(
    path: PathLike,
    model: Objective,
    windows: ArrayLike,
    waveforms: Sequence[np.ndarray] | None = None,
    codes: np.ndarray | None = None,
    *,
    collection: EncodedCollection | None = None,
    originals: Sequence[WindowPosition | PathLike] = (),
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
        originals: Recordings whose reconstruction is shown beside them: files, for their first window, or positions.
        history: For each metric its values by epoch.
        diagnosis: What `model.diagnose` returned.
        text: The line below the page's heading.
        seed: Integer for phases that repeat.

    Returns:
        The path.

    Raises:
        OSError: If the page cannot be written, or a recording not be read.
        ValueError: If windows, sounds and codes do not fit one another, or a recording cannot be decoded.

    Example:
        >>> import tempfile
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
    pairs = tuple(_reconstructions(model, originals, seed))
    if pairs:
        sections.append(Section("Reconstructions", "Recordings, and what is left of them after encoding.", pairs))
    health = "" if diagnosis is None else str(diagnosis)
    content = make_page("What the model sounds like", text, sections, model.converter, history, health)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(path) as part:
        part.write_text(content, encoding="utf-8")
    return path


def to_audio(converter: SpectrogramConverter, windows: ArrayLike, seed: int | None = None) -> np.ndarray:
    """Turn windows into sound, as `converter.to_audio` does; its warnings become lines of the log."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waveforms = converter.to_audio(windows, seed=seed)
    for warning in caught:
        logger.warning("%s", warning.message)
    return waveforms


def position_text(position: WindowPosition) -> str:
    """Return where a window is from, for people.

    Example:
        >>> position_text(WindowPosition(Path("music/first.wav"), 11.88))
        'music/first.wav from 11.9 s on'
    """
    return f"{position.path} from {position.start:.1f} s on"


def recording_clip(model: Objective, title: str, position: WindowPosition, details: Sequence[str] = ()) -> Clip:
    """Return the window at a place of a recording as a clip."""
    waveform = read_window(position.path, model.converter, position.start)
    window = model.converter.to_spectrogram(waveform)
    return Clip(title, window, waveform, (position_text(position), *details))


def _codes_of(model: Objective, window: np.ndarray) -> np.ndarray:
    """Return the codes of the stretches of a spectrogram that are as long as a window."""
    num_frames = model.converter.num_frames
    stretches = range(0, window.shape[1] - num_frames + 1, num_frames)
    if not stretches:
        return np.zeros((0, *model.code_shape), np.float32)
    return model.encode(np.stack([window[:, start : start + num_frames] for start in stretches]))


def _component_text(model: Objective, codes: np.ndarray) -> tuple[str, ...]:
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
    model: Objective, codes: np.ndarray, collection: EncodedCollection | None, number: int
) -> tuple[Clip, ...]:
    if collection is None or not len(codes):
        return ()
    (nearest,) = find_similar(model, codes, collection, num=1)
    distance = f"at a distance of {nearest.distance:.1f}"
    return (recording_clip(model, f"Nearest to generated {number}", nearest.position, (distance,)),)


def _reconstructions(
    model: Objective, originals: Sequence[WindowPosition | PathLike], seed: int | None
) -> Iterator[tuple[Clip, Clip]]:
    converter = model.converter
    for number, place in enumerate(originals, 1):
        position = place if isinstance(place, WindowPosition) else WindowPosition(Path(os.fspath(place)), 0.0)
        original = recording_clip(model, f"Original {number}", position)
        reconstruction = model.reconstruct(original.window[None])[0]
        error = converter.to_decibels(original.window) - converter.to_decibels(reconstruction)
        style = _component_text(model, _codes_of(model, original.window))
        details = (f"{np.sqrt(np.mean(error**2)):.1f} dB RMSE", *style)
        waveform = to_audio(converter, reconstruction, seed)
        yield original, Clip(f"Reconstruction {number}", reconstruction, waveform, details)
