"""Show which recordings belong to which mixture component of a model, play what is typical of each, and name them.

    spectrovae styles outputs/model.keras my_recordings/
    spectrovae styles outputs/model.keras my_recordings/ --names "slow strings" drums ...
    spectrovae generate outputs/model.keras --component "slow strings"

Writes the table as `styles.csv`, and `index.html`: for each component the window at its mean, and the most typical
window of the collection. Names are saved in the model's file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from spectrovae.commands.options import add_cache, add_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sub-command."""
    add_model(parser)
    parser.add_argument("collection", type=Path, nargs="+", help="folders or files")
    parser.add_argument("--names", nargs="+", help="a name for each component, from component 0 on; saved")
    add_cache(parser)
    parser.add_argument("--output", type=Path, default=Path("styles"), help="folder to write to (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Name the components, print and write the table, and write a page."""
    from spectrovae import consecutive_windows, encode_collection, load_model
    from spectrovae.evaluation.collection import find_styles, typical_windows
    from spectrovae.report.page import PAGE, Clip, Section, make_page, recording_clip, to_audio
    from spectrovae.storage import replaced_when_complete, write_text

    model = load_model(options.model)
    if options.names:
        model.component_names = options.names
        with replaced_when_complete(options.model) as part:
            model.save(part)
    windows = consecutive_windows(options.collection, model.converter, cache=options.cache, verbose=1)
    styles = find_styles(model, encode_collection(model, windows))
    options.output.mkdir(parents=True, exist_ok=True)
    styles.write_csv(options.output / "styles.csv")
    print(styles)

    means = typical_windows(model)
    rows = []
    details = zip(styles.names, means, to_audio(model.converter, means, seed=0), strict=True)
    for (name, mean, waveform), share, position in zip(details, styles.total_shares, styles.typical, strict=True):
        row = [Clip(f"{name}: its mean", mean, waveform, (f"{100 * share:.0f} % of the windows",))]
        row += [recording_clip(model, f"{name}: most typical recording", position)] if position else []
        rows.append(tuple(row))
    section = Section("Components of the mixture", "The mean of each, and its most typical recording.", tuple(rows))
    page = make_page("Styles", f"Mixture components of {options.model.name}.", [section], model.converter)
    write_text(options.output / PAGE, page)
    print(f"\nWrote {options.output / 'styles.csv'}. Open {options.output / PAGE} to listen.")
