"""A generative model of your own recordings: a Keras variational autoencoder over music spectrograms."""

from spectrovae.audio.dataset import audio_dataset, dataset_report
from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.model.prior import GaussianMixturePrior
from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.training.callbacks import KLWarmup

__all__ = [
    "GaussianMixturePrior",
    "KLWarmup",
    "SpectroVAE",
    "SpectrogramConverter",
    "audio_dataset",
    "dataset_report",
]
