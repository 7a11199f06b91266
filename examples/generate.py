"""Make new sounds with a trained model: a sound file and a picture of each, and a page to listen on, `index.html`.

    python examples/generate.py outputs/model.keras --num-samples 10 --temperature 0.8 --seed 1
    python examples/generate.py outputs/model.keras --num-samples 1 --duration 60

With `--duration` each sound is a piece of that length, which walks through what the model has learned.
The same seed gives the same sounds; each file names the model and the seed in its comment.
"""

import argparse
import os
import random
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras
import numpy as np

import spectrovae  # noqa: F401  (load_model finds the model's class by it)
from spectrovae.evaluation.collection import encode_collection
from spectrovae.report.folder import write_windows
from spectrovae.report.page import PAGE, to_audio, write_page


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a .keras file, as quickstart.py and train.py write it")
    parser.add_argument("--output", type=Path, default="generated", help="folder to write to (%(default)s)")
    parser.add_argument("--num-samples", type=int, default=5, help="number of sounds (%(default)s)")
    parser.add_argument("--duration", type=float, help="seconds of each; by default those of the model's window")
    parser.add_argument("--component", help="draw from this one of the mixture only: a number from 0 on, or its name")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="below 1 more typical, above 1 more daring (%(default)s)"
    )
    parser.add_argument("--seed", type=int, help="repeats the sounds; by default new ones each time")
    parser.add_argument("--compare", type=Path, nargs="+", help="folders or files to find what is most like each sound")
    sound = parser.add_argument_group("sound files")
    sound.add_argument("--format", choices=("wav", "flac"), default="wav", help="kind of file (%(default)s)")
    sound.add_argument("--subtype", default="PCM_16", help="PCM_24, or FLOAT in WAV files, for more (%(default)s)")
    sound.add_argument("--sample-rate", type=int, help="Hz; by default the model's")
    args = parser.parse_args(argv)
    seed = random.randrange(2**31) if args.seed is None else args.seed

    model = keras.saving.load_model(args.model)
    is_number = args.component is not None and args.component.isdecimal()
    component = model.component_index(int(args.component) if is_number else args.component)
    print(f"Making {args.num_samples} sounds ...")
    if args.duration is None:
        windows = model.generate(args.num_samples, component, args.temperature, seed)
        waveforms = to_audio(model.converter, windows, seed)
        codes = model.prior.sample(args.num_samples, component, seed, args.temperature).numpy()  # those of the windows
    else:
        seeds = range(seed, seed + args.num_samples)
        pieces = [model.generate_audio(args.duration, component, args.temperature, number) for number in seeds]
        waveforms, codes = np.stack(pieces), None
        windows = model.converter.to_spectrogram(waveforms)
    tags = {"comment": f"model {args.model.name}, seed {seed}", "software": "SpectroVAE"}
    options = {"subtype": args.subtype, "target_rate": args.sample_rate, "tags": tags}
    options |= {"extension": f".{args.format}", "waveforms": waveforms}
    paths = write_windows(windows, model.converter, args.output, **options)
    for path in paths:
        print(f"Wrote {path} and {path.with_suffix('.png').name}")
    page = write_page(
        args.output / PAGE,
        model,
        windows,
        list(waveforms),
        codes,
        collection=encode_collection(model, args.compare) if args.compare else None,
        text=f"Sounds of {args.model.name} with the seed {seed}.",
    )
    print(f"Open {page} to listen")


if __name__ == "__main__":
    main()
