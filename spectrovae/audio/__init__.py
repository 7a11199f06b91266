"""Audio files, spectrograms, phases, and datasets of windows."""
