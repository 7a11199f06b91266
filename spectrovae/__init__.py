"""A generative model of your own recordings: a Keras variational autoencoder over music spectrograms."""

import importlib
import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrovae.audio.dataset import audio_dataset, dataset_report
    from spectrovae.audio.io import read_audio, write_audio
    from spectrovae.audio.spectrogram import SpectrogramConverter
    from spectrovae.evaluation.collection import consecutive_windows, encode_collection, find_similar
    from spectrovae.evaluation.diagnosis import diagnose
    from spectrovae.evaluation.judging import judge, judge_recordings
    from spectrovae.model.likelihood import GaussianLikelihood
    from spectrovae.model.prior import GaussianMixturePrior
    from spectrovae.model.sequence_prior import SequencePrior
    from spectrovae.model.spectrovae import SpectroVAE
    from spectrovae.pieces import continue_audio, generate_audio, interpolate, morph
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
    "model.likelihood": ("GaussianLikelihood",),
    "model.prior": ("GaussianMixturePrior",),
    "model.sequence_prior": ("SequencePrior",),
    "model.spectrovae": ("SpectroVAE",),
    "pieces": ("continue_audio", "generate_audio", "interpolate", "morph"),
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
    "morph",
    "plot_history",
    "plot_spectrograms",
    "read_audio",
    "read_history",
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
    value = getattr(importlib.import_module(f"spectrovae.{_MODULE_OF[name]}"), name)
    if "keras" in sys.modules:
        _register_classes()
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _backend() -> str:
    return os.environ.get("KERAS_BACKEND", "tensorflow")


class _AfterKeras(MetaPathFinder):
    """Import the model after Keras, so that Keras finds the classes of saved models, whichever was imported first."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_both(module: ModuleType) -> None:
                run(module)
                _register_classes()

            spec.loader.exec_module = run_both  # type: ignore[method-assign]
        return spec


def _register_classes() -> None:
    """Import the model, which registers its classes with Keras, unless one of its modules is just being imported."""
    if _backend() != "tensorflow":
        return
    own = [module for name, module in sys.modules.items() if name.startswith("spectrovae.")]
    if not any(getattr(module.__spec__, "_initializing", False) for module in own):
        importlib.import_module("spectrovae.model.spectrovae")


if "keras" in sys.modules:
    _register_classes()
else:
    sys.meta_path.insert(0, _AfterKeras())
