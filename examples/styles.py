"""Tell which recordings belong to which component of a model's mixture, hear what is typical of each, and name them.

    python examples/styles.py outputs/model.keras my_recordings/
    python examples/styles.py outputs/model.keras my_recordings/ --names "slow strings" drums ...
    python examples/generate.py outputs/model.keras --component "slow strings"

Writes the table as `styles.csv`, and `index.html`: of each component the window in its middle, and the window of the
collection that is most typical of it. Names are saved in the model's file.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras

import spectrovae  # noqa: F401  (load_model finds the model's class by it)
from spectrovae.evaluation.collection import consecutive_windows, encode_collection, find_styles, typical_windows
from spectrovae.report.page import PAGE, Clip, Section, make_page, recording_clip, to_audio
from spectrovae.storage import replaced_when_complete


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .keras file, as quickstart.py and train.py write it")
    parser.add_argument("collection", type=Path, nargs="+", help="folders or files")
    parser.add_argument("--names", nargs="+", help="a name for each component, the first for component 0; saved")
    parser.add_argument("--cache", default="disk", help='"disk", "memory", or a folder that the next run uses again')
    parser.add_argument("--output", type=Path, default="styles", help="folder to write to (%(default)s)")
    args = parser.parse_args(argv)

    model = keras.saving.load_model(args.model)
    if args.names:
        model.component_names = args.names
        with replaced_when_complete(args.model) as part:
            model.save(part)
    windows = consecutive_windows(args.collection, model.converter, cache=args.cache, verbose=1)
    styles = find_styles(model, encode_collection(model, windows))
    args.output.mkdir(parents=True, exist_ok=True)
    styles.write_csv(args.output / "styles.csv")
    print(styles)

    middles = typical_windows(model)
    rows = []
    details = zip(styles.names, middles, to_audio(model.converter, middles, seed=0), strict=True)
    for (name, middle, waveform), share, position in zip(details, styles.total_shares, styles.typical, strict=True):
        row = [Clip(f"{name}: its middle", middle, waveform, (f"{100 * share:.0f} % of the windows",))]
        row += [recording_clip(model, f"{name}: most typical recording", position)] if position else []
        rows.append(tuple(row))
    section = Section("Components of the mixture", "What each is like, by itself and in the recordings.", tuple(rows))
    page = make_page("Styles", f"Of {args.model.name}.", [section], model.converter)
    with replaced_when_complete(args.output / PAGE) as part:
        part.write_text(page, encoding="utf-8")
    print(f"\nWrote {args.output / 'styles.csv'}; open {args.output / PAGE} to listen")


if __name__ == "__main__":
    main()
