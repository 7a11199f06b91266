"""Train a model on a folder of recordings, in Python: the shortest complete program.

    python examples/train.py my_recordings/ --output my_music --epochs 20

Run again, it continues where it stopped. `spectrovae train` does the same with all options.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # no messages about missing GPUs

from spectrovae import (
    SpectrogramConverter,
    SpectroVAE,
    audio_dataset,
    diagnose,
    fit_resumably,
    generate_audio,
    write_audio,
)


def main(argv: list[str] | None = None) -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+", help="folders or files")
    parser.add_argument("--output", type=Path, default=Path("my_music"), help="folder to write to (%(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="in all, earlier runs included (%(default)s)")
    parser.add_argument("--latent-dim", type=int, default=32, help="size of a code (%(default)s)")
    parser.add_argument("--latent-steps", type=int, help="codes along a window (one for 16 frames)")
    parser.add_argument("--num-frames", type=int, default=512, help="frames of a window (%(default)s)")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of the generated piece (%(default)s)")
    args = parser.parse_args(argv)

    converter = SpectrogramConverter(num_frames=args.num_frames)
    train, validation = audio_dataset(args.audio, converter, batch_size=16, validation_split=0.1, seed=0)
    model = SpectroVAE(
        converter.window_shape,
        latent_dim=args.latent_dim,
        latent_steps=args.latent_steps,
        converter=converter,
        seed=0,
    )
    model.compile()
    fit_resumably(model, args.output, train, validation, epochs=args.epochs)
    print(diagnose(model, validation, train))

    piece = generate_audio(model, args.duration, seed=0)
    write_audio(args.output / "piece.wav", piece, converter.sample_rate)
    print(f"Wrote {args.output / 'piece.wav'}. {args.output / 'model.keras'} is the model of the best epoch.")


if __name__ == "__main__":
    main()
