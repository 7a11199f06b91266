"""A generative model of your own recordings: a Keras variational autoencoder over music spectrograms."""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrovae.audio.dataset import audio_dataset, dataset_report
    from spectrovae.audio.io import read_audio, write_audio
    from spectrovae.audio.spectrogram import SpectrogramConverter
    from spectrovae.evaluation.collection import consecutive_windows, encode_collection, find_similar
    from spectrovae.evaluation.diagnosis import diagnose
    from spectrovae.evaluation.judging import judge, judge_recordings
    from spectrovae.model.files import load_model
    from spectrovae.model.likelihood import GaussianLikelihood
    from spectrovae.model.prior import GaussianMixturePrior
    from spectrovae.model.sequence_prior import SequencePrior
    from spectrovae.model.spectrovae import SpectroVAE
    from spectrovae.pieces import continue_audio, generate_audio, interpolate, morph, vary
    from spectrovae.report.callbacks import ListeningPages
    from spectrovae.report.folder import write_results
    from spectrovae.report.plotting import plot_history, plot_spectrograms
    from spectrovae.synthesis import compose_collection
    from spectrovae.training.callbacks import KLWarmup, ReviveComponents
    from spectrovae.training.optimizer import LinearWarmup, default_optimizer
    from spectrovae.training.resumable import fit_resumably, read_history

_PLACES = {
    "audio.dataset": ("audio_dataset", "dataset_report"),
    "audio.io": ("read_audio", "write_audio"),
    "audio.spectrogram": ("SpectrogramConverter",),
    "evaluation.collection": ("consecutive_windows", "encode_collection", "find_similar"),
    "evaluation.diagnosis": ("diagnose",),
    "evaluation.judging": ("judge", "judge_recordings"),
    "model.files": ("load_model",),
    "model.likelihood": ("GaussianLikelihood",),
    "model.prior": ("GaussianMixturePrior",),
    "model.sequence_prior": ("SequencePrior",),
    "model.spectrovae": ("SpectroVAE",),
    "pieces": ("continue_audio", "generate_audio", "interpolate", "morph", "vary"),
    "report.callbacks": ("ListeningPages",),
    "report.folder": ("write_results",),
    "report.plotting": ("plot_history", "plot_spectrograms"),
    "synthesis": ("compose_collection",),
    "training.callbacks": ("KLWarmup", "ReviveComponents"),
    "training.optimizer": ("LinearWarmup", "default_optimizer"),
    "training.resumable": ("fit_resumably", "read_history"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__version__: str
__all__ = [
    "GaussianLikelihood",
    "GaussianMixturePrior",
    "KLWarmup",
    "LinearWarmup",
    "ListeningPages",
    "ReviveComponents",
    "SequencePrior",
    "SpectroVAE",
    "SpectrogramConverter",
    "audio_dataset",
    "compose_collection",
    "consecutive_windows",
    "continue_audio",
    "dataset_report",
    "default_optimizer",
    "diagnose",
    "encode_collection",
    "find_similar",
    "fit_resumably",
    "generate_audio",
    "interpolate",
    "judge",
    "judge_recordings",
    "load_model",
    "morph",
    "plot_history",
    "plot_spectrograms",
    "read_audio",
    "read_history",
    "vary",
    "write_audio",
    "write_results",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import spectrovae` is light."""
    if name == "__version__":
        from importlib.metadata import version

        return version("spectrovae")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'spectrovae' has no attribute {name!r}")
    if _backend() != "tensorflow":
        raise ImportError(
            "spectrovae needs Keras with the TensorFlow backend. Unset the environment variable KERAS_BACKEND before "
            f"Keras is imported. Received: KERAS_BACKEND={_backend()}"
        )
    return getattr(importlib.import_module(f"spectrovae.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _backend() -> str:
    return os.environ.get("KERAS_BACKEND", "tensorflow")


if "keras" in sys.modules and _backend() == "tensorflow":
    # Registers the classes, so that Keras finds them in saved models.
    importlib.import_module("spectrovae.model.spectrovae")
