"""Find what in a collection sounds most like a recording: file and second, by the codes of a trained model.

    python examples/similar.py outputs/model.keras my_recordings/ tune.wav --num 10

Each window of the recording is compared with each of the collection. The distance is in standard deviations of the
model's posterior, averaged over the latent dimensions: 0 is the same, below 1.4 the model can't tell the two apart. How
far any two of the collection are from each other stands in the last line. `similar.html` plays them side by side.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras

import spectrovae  # noqa: F401  (load_model finds the model's class by it)
from spectrovae.audio.recordings import printable
from spectrovae.evaluation.collection import consecutive_windows, encode_collection, find_similar
from spectrovae.report.page import Section, make_page, recording_clip
from spectrovae.storage import replaced_when_complete


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .keras file, as quickstart.py and train.py write it")
    parser.add_argument("collection", type=Path, help="folder to search")
    parser.add_argument("recording", type=Path, help="an audio file of a window or more")
    parser.add_argument("--num", type=int, default=5, help="number of places to find (%(default)s)")
    parser.add_argument("--cache", default="disk", help='"disk", "memory", or a folder that the next run uses again')
    parser.add_argument("--output", type=Path, default="similar.html", help="page to write (%(default)s)")
    args = parser.parse_args(argv)

    model = keras.saving.load_model(args.model)
    windows = consecutive_windows(args.collection, model.converter, cache=args.cache, verbose=1)
    collection = encode_collection(model, windows)
    recording = encode_collection(model, args.recording)
    others = collection.without(args.recording)  # it may be part of the collection
    found = find_similar(model, recording.codes, others, args.num)
    print("distance  from (s)  like second  file")
    rows = []
    for number, similar in enumerate(found, 1):
        own = recording.positions[similar.index]
        place = similar.position
        print(f"{similar.distance:8.2f}  {place.start:8.1f}  {own.start:11.1f}  {printable(place.path)}")
        details = [f"at a distance of {similar.distance:.2f}"]
        clips = recording_clip(model, f"Yours {number}", own), recording_clip(model, f"Like {number}", place, details)
        rows.append(clips)
    print(f"{collection.spread:8.2f}  between any two windows of the collection")
    section = Section("Similar windows", "The nearest first; your recording on the left.", tuple(rows))
    page = make_page("What is similar", f"To {args.recording}, in {args.collection}.", [section], model.converter)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(args.output) as part:
        part.write_text(page, encoding="utf-8")
    print(f"Open {args.output} to listen")


if __name__ == "__main__":
    main()
