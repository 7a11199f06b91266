"""From codes to the sound of one long piece."""

from __future__ import annotations

from typing import Any

import numpy as np

from spectrovae.batching import iterate_batches
from spectrovae.checks import check_seed
from spectrovae.joining import join_windows
from spectrovae.latent_space import LatentSpace

_BATCH_SIZE = 8


class Rendering(LatentSpace):
    """The part of `SpectroVAE` that turns the codes of a piece into its pixels, and these into sound."""

    def _decoded_one(self, codes: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and scale of each pixel of one sequence of codes `(1, num_steps, latent_dim)`."""
        means, scales = self.decoded(codes)
        return means[0, ..., 0], scales[0, ..., 0]

    def _join(self, codes: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the scale of each pixel of the piece, both `(bins, frames)`, cross-faded."""
        decoded = (self.decoded(batch) for batch in iterate_batches(codes, _BATCH_SIZE))
        windows = ((mean[..., 0], scale[..., 0]) for batch in decoded for mean, scale in zip(*batch, strict=True))
        return join_windows(windows, starts, self.converter)

    def _sound_of(
        self,
        values: np.ndarray,
        scales: np.ndarray,
        num_samples: int,
        texture: float,
        seed: int | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Turn the mean and the scale of each pixel, both `(bins, frames)`, into sound."""
        if not texture >= 0:
            raise ValueError(f"`texture` must be 0 or more. Received: texture={texture!r}")
        check_seed("seed", seed)
        if texture and self.likelihood.per_pixel:
            values = values + texture * scales * self.texture.sample(1, rng, values.shape[1])[0, ..., 0]
        num_frames = -(-num_samples // self.converter.hop_length)
        spectrogram = np.clip(values[:, :num_frames, None], 0.0, 1.0)
        return self.converter.to_audio(spectrogram, seed=seed)[:num_samples]
