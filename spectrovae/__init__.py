"""A generative model of your own recordings: a Keras variational autoencoder over music spectrograms."""

from spectrovae.callbacks import KLWarmup
from spectrovae.converter import SpectrogramConverter
from spectrovae.dataset import audio_dataset, dataset_report
from spectrovae.model import SpectroVAE
from spectrovae.prior import GaussianMixturePrior

__all__ = [
    "GaussianMixturePrior",
    "KLWarmup",
    "SpectroVAE",
    "SpectrogramConverter",
    "audio_dataset",
    "dataset_report",
]
