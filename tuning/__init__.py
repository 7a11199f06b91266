"""Search for the best SpectroVAE with KerasTuner: a hypermodel for any tuner, and the sweep command."""

from spectrovae.tuning.hypermodel import SpectroVAEHyperModel
from spectrovae.tuning.search_space import choose_objective, search_space

__all__ = ["SpectroVAEHyperModel", "choose_objective", "search_space"]
