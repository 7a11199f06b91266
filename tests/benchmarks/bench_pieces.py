"""Pieces of a minute beside recordings: do they hold their level, their notes and their key, and come back to them?

    python tests/benchmarks/bench_pieces.py MODEL.keras HELD_OUT_FOLDER --num-pieces 8 --seed 0

Compares stretches of held-out recordings, what the model makes of the same stretches (decoded with texture), and pieces
that it composes. Medians over the pieces of

level deviation   standard deviation of the level of seconds, dB
level drift       level of the last quarter minus that of the first, its absolute value, dB
flux              change of audible pixels from frame to frame, dB
note duration     how long spectral peaks hold within half a semitone, s
key entropy       entropy of the mean chroma, nats; at most 2.48
similarity        cosine of log-mel spectra of seconds that are 5 to 20 s apart, less the mean spectrum
"""

import argparse
import resource
import time
from pathlib import Path

import librosa
import numpy as np

from spectrovae import SpectroVAE, generate_audio, load_model, read_audio, vary
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.evaluation.listening import spectral_flux

NUM_PEAKS, MIN_PEAK_DB, MIN_FRAMES = 6, -50.0, 3
SEMITONE = 2 ** (1 / 12)


def note_duration(levels: np.ndarray, converter: SpectrogramConverter) -> float:
    """Return for how many seconds the strongest peaks of a spectrogram in dB, `(bins, frames)`, hold; their median."""
    durations, running = [], {}
    for frame in [*levels.T, np.full(len(levels), -np.inf)]:
        inner = frame[1:-1]
        is_peak = (inner > frame[:-2]) & (inner >= frame[2:]) & (inner > MIN_PEAK_DB)
        places = 1 + np.flatnonzero(is_peak)
        places = places[np.argsort(frame[places])[::-1][:NUM_PEAKS]]
        following = {}
        for place in places:
            # Bins are coarse for low notes: a bin beside is as near as can be told.
            near = [old for old in running if abs(old - place) <= max(1, place * (SEMITONE**0.5 - 1))]
            following[place] = 1 + max((running.pop(old) for old in near), default=0)
        durations += [length for length in running.values() if length >= MIN_FRAMES]
        running = following
    return float(np.median(durations)) * converter.hop_length / converter.sample_rate if durations else np.nan


def figures(audio: np.ndarray, converter: SpectrogramConverter) -> list[float]:
    """Return the figures of one piece."""
    rate = converter.sample_rate
    seconds = audio[: len(audio) // rate * rate].reshape(-1, rate)
    loudness = 10 * np.log10(np.square(seconds).mean(axis=1) + 1e-9)
    quarter = len(loudness) // 4
    window = converter.to_spectrogram(audio)[..., 0]
    power = 10 ** (converter.to_decibels(window) / 10)
    chroma = librosa.feature.chroma_stft(S=power_with_nyquist(power), sr=rate, tuning=0.0, norm=None).mean(axis=1)
    shares = chroma / chroma.sum()
    mel = np.log(librosa.feature.melspectrogram(S=power_with_nyquist(power), sr=rate) + 1e-7)
    length = rate // converter.hop_length
    spectra = mel[:, : mel.shape[1] // length * length].reshape(len(mel), -1, length).mean(axis=2).T
    spectra -= spectra.mean(axis=0)
    spectra /= np.linalg.norm(spectra, axis=1, keepdims=True) + 1e-9
    similarity = spectra @ spectra.T
    lags = np.subtract.outer(np.arange(len(spectra)), np.arange(len(spectra)))
    return [
        float(loudness.std()),
        float(abs(loudness[-quarter:].mean() - loudness[:quarter].mean())),
        spectral_flux(window, converter),
        note_duration(converter.to_decibels(window), converter),
        float(-(shares * np.log(shares + 1e-9)).sum()),
        float(similarity[(lags >= 5) & (lags <= 20)].mean()),
    ]


def power_with_nyquist(power: np.ndarray) -> np.ndarray:
    """Add the highest bin, which windows leave out."""
    return np.concatenate([power, power[-1:]])


def stretches(folder: Path, model: SpectroVAE, duration: float, number: int) -> list[np.ndarray]:
    """Return stretches of whole windows from the middle of recordings, one of each."""
    length = int(duration // model.converter.window_duration) * model.converter.window_length
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        audio = read_audio(path, model.converter.sample_rate)
        if len(audio) >= length:
            start = (len(audio) - length) // 2
            found.append(audio[start : start + length])
    return found[:number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--duration", type=float, default=60.0)
    parser.add_argument("--num-pieces", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = load_model(options.model)
    converter = model.converter
    music = stretches(options.folder, model, options.duration, options.num_pieces)
    decoded = []
    for audio in music:
        frames = converter.to_spectrogram(audio)
        windows = np.stack(np.split(frames, len(audio) // converter.window_length, axis=1))
        decoded.append(vary(model, windows, amount=0.0, seed=options.seed))
    start = time.perf_counter()
    seeds = range(options.seed, options.seed + options.num_pieces)
    generated = [generate_audio(model, options.duration, seed=seed) for seed in seeds]
    seconds = (time.perf_counter() - start) / len(generated)
    print("| | level deviation | level drift | flux | note duration | key entropy | similarity |\n" + "|---" * 7 + "|")
    for name, pieces in (("music", music), ("decoded", decoded), ("generated", generated)):
        medians = np.median([figures(piece, converter) for piece in pieces], axis=0)
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in medians) + " |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{seconds:.1f} s for a piece of {options.duration:.0f} s; peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
