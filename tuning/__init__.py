"""Search for the best SpectroVAE with KerasTuner: a hypermodel for any tuner, and the sweep command."""

from spectrovae.tuning.hypermodel import SpectroVAEHyperModel
from spectrovae.tuning.report import write_report
from spectrovae.tuning.results import read_results
from spectrovae.tuning.search_space import choose_objective, search_space
from spectrovae.tuning.sweep import Sweep, SweepSettings

__all__ = [
    "SpectroVAEHyperModel",
    "Sweep",
    "SweepSettings",
    "choose_objective",
    "read_results",
    "search_space",
    "write_report",
]
