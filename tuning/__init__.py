"""Search for the best SpectroVAE with KerasTuner: a hypermodel for every tuner, and the command for sweeps.

The names are imported when they are first used, so that the command shows its help at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectrovae.tuning.hypermodel import SpectroVAEHyperModel
    from spectrovae.tuning.report import write_report
    from spectrovae.tuning.results import read_results
    from spectrovae.tuning.search_space import SweepSettings, choose_arguments, choose_objective
    from spectrovae.tuning.sweep import Sweep

_MODULES = {
    "SpectroVAEHyperModel": "hypermodel",
    "Sweep": "sweep",
    "SweepSettings": "search_space",
    "choose_arguments": "search_space",
    "choose_objective": "search_space",
    "read_results": "results",
    "write_report": "report",
}

__all__ = [
    "SpectroVAEHyperModel",
    "Sweep",
    "SweepSettings",
    "choose_arguments",
    "choose_objective",
    "read_results",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
