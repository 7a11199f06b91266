"""Train a model in a few minutes and hear what it generates.

    spectrovae quickstart                           # on composed music
    spectrovae quickstart --audio my_recordings/

Then open `outputs/index.html` to listen. `outputs/summary.txt` says how good the model is.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from spectrovae.commands.options import count, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sub-command."""
    parser.add_argument("--audio", type=Path, help="folder of recordings; by default music is composed")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder to write to (%(default)s)")
    parser.add_argument("--epochs", type=count, default=12, help="passes over the music (%(default)s)")
    parser.add_argument("--num-pieces", type=count, default=48, help="pieces of 20 s to compose (%(default)s)")
    parser.add_argument("--latent-steps", type=count, help="codes along a window (one for 16 frames)")
    parser.add_argument("--seed", type=seed, default=0, help="decides the music and the training (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Compose or read music, train, and write what shows the model."""
    start = time.monotonic()
    import keras

    from spectrovae import SpectrogramConverter, SpectroVAE, audio_dataset, compose_collection, write_results

    keras.utils.set_random_seed(options.seed)
    converter = SpectrogramConverter()
    model = SpectroVAE(converter=converter, latent_steps=options.latent_steps, seed=options.seed)
    model.compile()
    audio, output = options.audio, options.output
    if audio is None:
        audio = output / "music"
        print(f"Composing {options.num_pieces} pieces of 20 s into {audio} ...")
        compose_collection(audio, options.num_pieces, seed=options.seed)

    print(f"\nReading {audio} ...")
    # Small batches: of a few minutes of music every step counts.
    train, validation = audio_dataset(audio, converter, batch_size=8, validation_split=0.15, seed=options.seed)

    print("\nTraining: first a linear model in closed form, then gradient steps ...")
    history = model.fit(train, validation_data=validation, epochs=options.epochs)

    print("\nFitting the prior and the texture to the trained model ...")
    model.finish_training(train)

    print(f"\nWriting to {output} ...")
    diagnosis = write_results(model, train, validation, history.history, output, seed=options.seed)
    model.save(output / "model.keras")
    print(f"""
index.html                                a page to listen on, with all of the following
generated_1.wav to generated_5.wav        generated sounds, and a picture of each
original.wav, reconstruction.wav          a recording that the model was not trained on, and its reconstruction
reconstruction.png, loss_curves.png       pictures of both, and of the training
comparison.png                            generated sounds beside recordings
model.keras                               for `spectrovae generate` and `keras.saving.load_model`
summary.txt                               the figures below, and what became of each recording

{diagnosis}
Open {output / "index.html"} to listen. All of it took {time.monotonic() - start:.0f} s.""")
