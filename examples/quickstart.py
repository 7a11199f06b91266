"""Hear what a SpectroVAE learns: train one in a few minutes and let it make sounds of its own.

    python examples/quickstart.py                       # composes its own music
    python examples/quickstart.py --audio my_recordings/

Open `outputs/index.html` to listen; `outputs/summary.txt` says how good it is.
"""

import argparse
import inspect
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no word on GPUs that are not there

import keras

from spectrovae import SpectrogramConverter, SpectroVAE, audio_dataset
from spectrovae.report.folder import write_results
from spectrovae.synthesis import compose_collection


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", type=Path, help="folder of recordings; by default music is composed")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder to write to (%(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="walks over the music (%(default)s)")
    parser.add_argument("--num-pieces", type=int, default=48, help="pieces of 20 s to compose (%(default)s)")
    parser.add_argument("--latent-steps", type=int, help="codes along a window (%(default)s)")
    parser.set_defaults(latent_steps=inspect.signature(SpectroVAE).parameters["latent_steps"].default)
    parser.add_argument("--seed", type=int, default=0, help="decides music and training (%(default)s)")
    args = parser.parse_args(argv)
    start = time.monotonic()
    keras.utils.set_random_seed(args.seed)

    if args.audio is None:
        args.audio = args.output / "music"
        print(f"Composing {args.num_pieces} pieces of 20 s into {args.audio} ...")
        compose_collection(args.audio, args.num_pieces, seed=args.seed)

    print(f"\nReading {args.audio} ...")
    converter = SpectrogramConverter()
    train, validation = audio_dataset(args.audio, converter, validation_split=0.15, seed=args.seed)

    print("\nTraining: first the linear optimum in closed form, then gradient steps ...")
    model = SpectroVAE(
        latent_dim=100, num_components=8, converter=converter, latent_steps=args.latent_steps, seed=args.seed
    )
    model.compile()
    history = model.fit(train, validation_data=validation, epochs=args.epochs)

    print(f"\nWriting to {args.output} ...")
    diagnosis = write_results(model, train, validation, history.history, args.output, seed=args.seed)
    model.save(args.output / "model.keras")
    print(f"""
index.html                                a page to hear and see all of it
generated_1.wav to generated_5.wav        sounds that nobody has played; a picture beside each
original.wav, reconstruction.wav          a piece that was held out, and what the model makes of it
reconstruction.png, loss_curves.png       the same as a picture; the course of the training
model.keras                               for examples/generate.py and keras.saving.load_model
summary.txt                               these figures, and what became of each recording

{diagnosis}
All of it took {time.monotonic() - start:.0f} s.""")


if __name__ == "__main__":
    main()
