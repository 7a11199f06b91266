"""Find the windows of a collection that sound most like a recording, by the codes of a trained model.

    spectrovae similar outputs/model.keras my_recordings/ tune.wav --num 10

Each window of the recording is compared with each of the collection. Distances are in standard deviations of the
model's posterior, averaged over the latent dimensions: 0 means equal codes, and below 1.4 the model cannot tell two
windows apart. The last line says how far apart two windows of the collection are on average. `similar.html` plays the
windows side by side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from spectrovae.commands.options import add_cache, add_model, count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sub-command."""
    add_model(parser)
    parser.add_argument("collection", type=Path, help="folder to search")
    parser.add_argument("recording", type=Path, help="an audio file of at least one window")
    parser.add_argument("--num", type=count, default=5, help="number of windows to find (%(default)s)")
    add_cache(parser)
    parser.add_argument("--output", type=Path, default=Path("similar.html"), help="page to write (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Find similar windows; print a table and write a page."""
    from spectrovae import consecutive_windows, encode_collection, find_similar, load_model
    from spectrovae.audio.recordings import printable
    from spectrovae.report.page import Section, make_page, recording_clip
    from spectrovae.storage import write_text

    model = load_model(options.model)
    windows = consecutive_windows(options.collection, model.converter, cache=options.cache, verbose=1)
    collection = encode_collection(model, windows)
    recording = encode_collection(model, options.recording)
    others = collection.without(options.recording)  # it may be part of the collection
    print("distance  from (s)  like second  file")
    rows = []
    for number, similar in enumerate(find_similar(model, recording.codes, others, options.num), 1):
        own, found = recording.positions[similar.index], similar.position
        print(f"{similar.distance:8.2f}  {found.start:8.1f}  {own.start:11.1f}  {printable(found.path)}")
        details = [f"at a distance of {similar.distance:.2f}"]
        clips = recording_clip(model, f"Yours {number}", own), recording_clip(model, f"Like {number}", found, details)
        rows.append(clips)
    print(f"{collection.spread:8.2f}  between two windows of the collection, on average")
    section = Section("Similar windows", "The nearest first; your recording on the left.", tuple(rows))
    text = f"Windows of {options.collection} that sound like {options.recording}."
    page = make_page("Similar windows", text, [section], model.converter)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, page)
    print(f"Open {options.output} to listen.")
