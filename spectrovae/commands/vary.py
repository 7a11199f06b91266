"""Play variations of a recording with a trained model.

    spectrovae train my_recordings/
    spectrovae vary trained/model.keras tune.wav --at 30 --duration 30 --amount 0.3 0.6 1

A variation follows the course of the recording with other details: the more, the greater its amount. Each is written as
a sound and a picture, beside the recording as the model hears it (`variation_0.wav`).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from spectrovae.commands.options import add_chance, add_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the sub-command."""
    add_model(parser)
    parser.add_argument("recording", type=Path, help="an audio file")
    amounts = "how far to go from the recording, 0 to 1; one or several (0.3 0.6)"
    parser.add_argument("--amount", type=float, nargs="+", default=[0.3, 0.6], help=amounts)
    parser.add_argument("--at", type=float, default=0.0, help="second of the recording to begin with (%(default)s)")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds of the recording (%(default)s)")
    add_chance(parser)
    parser.add_argument("--output", type=Path, default=Path("variations"), help="folder to write to (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Write the variations."""
    import numpy as np

    from spectrovae import load_model, plot_spectrograms, read_audio, vary, write_audio
    from spectrovae.report.plotting import save_figure

    if not (options.at >= 0 and options.duration > 0):
        raise ValueError(
            f"--at must be 0 or more and --duration above 0. Received: --at {options.at}, --duration {options.duration}"
        )
    if not all(0 <= amount <= 1 for amount in options.amount):
        raise ValueError(f"--amount must lie in [0, 1]. Received: {' '.join(map(str, options.amount))}")
    model = load_model(options.model)
    converter, rate = model.converter, model.converter.sample_rate
    start = round(options.at * rate)
    recording = read_audio(options.recording, rate)[start : start + round(options.duration * rate)]
    if not len(recording):
        raise ValueError(f"{options.recording} holds no sound, or none after --at {options.at:g}")
    # Whole windows: what is short of the last one is silence, and cut off again.
    num_windows = -(-len(recording) // converter.window_length)
    padded = np.pad(recording, (0, num_windows * converter.window_length - len(recording)))
    frames = converter.to_spectrogram(padded)
    windows = np.stack(np.split(frames, num_windows, axis=1))
    seed = random.randrange(2**31) if options.seed is None else options.seed
    options.output.mkdir(parents=True, exist_ok=True)
    for amount in dict.fromkeys([0.0, *options.amount]):
        audio = vary(model, windows, amount, options.temperature, seed)[: len(recording)]
        path = options.output / f"variation_{amount:g}.wav"
        write_audio(path, audio, rate)
        title = f"{options.recording.stem}, varied by {amount:g}"
        save_figure(plot_spectrograms(converter.to_spectrogram(audio), converter, [title]), path.with_suffix(".png"))
        print(f"Wrote {path} and {path.with_suffix('.png').name}")
