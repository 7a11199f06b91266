"""Train the model that this library began as, with its own settings, to compare.

    python examples/classic.py my_recordings/ --epochs 20

Linear magnitudes at 44.1 kHz without overlap, 88 million parameters, Bernoulli pixels, Adam at 5e-4, batches of 8. It
is slow: about 3 windows of 12 s per second on 2 cores, and it needs 8 GB of memory. After half an hour it is still
worse than the mean spectrum; use `spectrovae train` for sound. Try it with `--max-steps 5 --epochs 1`.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no messages about missing GPUs

import keras

from spectrovae import SpectroVAE, audio_dataset, write_results


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+", help="folders or files")
    parser.add_argument("--output", type=Path, default=Path("classic"), help="folder to write to (%(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the recordings (%(default)s)")
    parser.add_argument("--max-steps", type=int, help="gradient steps per epoch at most")
    parser.add_argument("--batch-size", type=int, default=8, help="windows per gradient step (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides the split and all draws (%(default)s)")
    args = parser.parse_args(argv)

    model = SpectroVAE.classic(seed=args.seed)
    train, validation = audio_dataset(
        args.audio,
        model.converter,
        args.batch_size,
        validation_split=0.1,
        random_offset=False,
        seed=args.seed,
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-4))
    steps = train if args.max_steps is None else train.take(args.max_steps)
    history = model.fit(steps, validation_data=validation, epochs=args.epochs)

    diagnosis = write_results(model, train, validation, history.history, args.output, seed=args.seed)
    model.save(args.output / "model.keras")
    print(f"\nWrote sounds, pictures, summary.txt and model.keras to {args.output}.\n{diagnosis}")


if __name__ == "__main__":
    main()
