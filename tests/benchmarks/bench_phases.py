"""What the time of a command is spent on, phase by phase.

    python tests/benchmarks/bench_phases.py quickstart
    python tests/benchmarks/bench_phases.py train FOLDER --epochs 10
    python tests/benchmarks/bench_phases.py generate MODEL.keras --num-samples 1 --duration 60

The words are those after `spectrovae`. Functions of the library are wrapped in a clock. While one runs within another,
only the clock of the inner one runs, so that the times add up to that of the whole. "compile" is the first step of
training and of validation, in which TensorFlow traces and compiles them. Beside the time that passes stands the time of
all processor cores, which other programs disturb less. Compare the rows of one run: machines differ.
"""

import collections
import contextlib
import functools
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Clock:
    """Adds up seconds by phase; only the innermost phase counts."""

    def __init__(self) -> None:
        self.seconds: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(2))
        self._running = ["other"]
        self._since = self._now()

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def _stop(self) -> None:
        now = self._now()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the `with` block for a phase."""
        self._stop()
        self._running.append(name)
        try:
            yield
        finally:
            self._stop()
            self._running.pop()

    def timed(self, function: Callable[..., Any], name: str, first: str | None = None) -> Callable[..., Any]:
        """Return a function whose time counts for a phase, that of its first call for another one if given."""
        names = iter([first] if first else [])

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.phase(next(names, name)):
                return function(*args, **kwargs)

        return run

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Wrap a function of a module or class, also where other modules have imported it."""
        original = getattr(owner, attribute)
        wrapped = self.timed(original, name)
        setattr(owner, attribute, wrapped)
        for module in [module for key, module in sys.modules.items() if key.startswith("spectrovae")]:
            for key in [key for key, value in vars(module).items() if value is original]:
                setattr(module, key, wrapped)

    def wrap_steps(self, owner: Any, maker: str, function: str, name: str) -> None:
        """Wrap the compiled function that a method of a Keras model makes and keeps."""
        make = getattr(owner, maker)

        def make_timed(model: Any, force: bool = False) -> Any:
            before = getattr(model, function)
            result = make(model, force)
            if getattr(model, function) is before:
                return result
            setattr(model, function, self.timed(getattr(model, function), name, "compile"))
            return getattr(model, function)

        setattr(owner, maker, make_timed)

    def table(self) -> str:
        """Return a row for each phase, the longest first."""
        self._stop()
        total = sum(self.seconds.values())
        rows = sorted(self.seconds.items(), key=lambda row: -row[1][1])
        lines = [f"| {name} | {wall:.1f} s | {cores:.1f} s | {cores / total[1]:.0%} |" for name, (wall, cores) in rows]
        head = ["| phase | time | processor time | share |", "|---|---|---|---|"]
        return "\n".join([*head, *lines, f"| all | {total[0]:.1f} s | {total[1]:.1f} s | |"])


def watch(clock: Clock) -> None:
    """Import what a command needs, and wrap the functions whose time is told."""
    with clock.phase("import of TensorFlow, Keras and TFP"):
        import keras  # noqa: F401
        import tensorflow as tf  # noqa: F401
        import tensorflow_probability  # noqa: F401
    with clock.phase("import of spectrovae"):
        import spectrovae
        from spectrovae import SpectroVAE, commands  # noqa: F401
        from spectrovae.audio import dataset, phase
        from spectrovae.evaluation import collection, diagnosis
        from spectrovae.model import linear_start
        from spectrovae.model.texture import Texture
        from spectrovae.report import folder, page, plotting

        for name in spectrovae.__all__:
            getattr(spectrovae, name)
    with clock.phase("import of matplotlib"):
        from matplotlib.figure import Figure
    clock.wrap(sys.modules["spectrovae.synthesis"], "compose_collection", "compose")
    clock.wrap(dataset, "audio_dataset", "decode")
    clock.wrap(SpectroVAE, "adapt", "adapt")
    clock.wrap(Texture, "windows", "put texture on")
    for name in ("refit_prior", "refit_texture"):
        clock.wrap(linear_start, name, name)
    clock.wrap(SpectroVAE, "evaluate", "validate")
    clock.wrap(SpectroVAE, "save", "save")
    clock.wrap_steps(SpectroVAE, "make_train_function", "train_function", "train")
    clock.wrap_steps(SpectroVAE, "make_test_function", "test_function", "validate")
    clock.wrap(SpectroVAE, "generate", "generate")
    clock.wrap(SpectroVAE, "reconstruct", "reconstruct")
    clock.wrap(sys.modules["spectrovae.pieces"], "generate_audio", "generate")
    clock.wrap(phase, "griffin_lim", "phases")
    clock.wrap(diagnosis, "diagnose", "diagnose")
    clock.wrap(collection, "encode_collection", "encode the collection")
    clock.wrap(folder, "write_windows", "write sounds")
    clock.wrap(page, "write_page", "page")
    for name in ("plot_spectrograms", "plot_history"):
        clock.wrap(plotting, name, "pictures")
    clock.wrap(Figure, "savefig", "pictures")


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 2
    clock = Clock()
    watch(clock)
    from spectrovae.commands import main as run

    code = run(sys.argv[1:])
    print(f"\n{clock.table()}")
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    return code


if __name__ == "__main__":
    sys.exit(main())
