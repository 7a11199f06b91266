"""Audio files, spectrograms, phases, and datasets of windows."""

from spectrovae.audio.compiled import ensure_numba_cache

ensure_numba_cache()  # before librosa is imported
