"""A sweep over hyperparameters: a tuner of KerasTuner that runs each trial in a process of its own."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.engine import base_tuner

from spectrovae.audio.recordings import Recordings
from spectrovae.storage import check_writable, remove_leftovers
from spectrovae.tuning.chief import connect, current_role, heartbeat, serve, shared_token
from spectrovae.tuning.oracles import DurableOracle, is_trial_id, make_oracle
from spectrovae.tuning.search_space import WORKER_TIMEOUT, SweepSettings, write_json
from spectrovae.tuning.trial_process import CHECKPOINT, TrialTask, run_in_child

try:
    import fcntl
except ImportError:  # Windows has no such locks: two sweeps in one folder are then not noticed
    fcntl = None  # type: ignore[assignment]

SETTINGS, TRIALS, CACHE, LINEAR_START = "settings.json", "trials", "audio_cache", "linear_start"
LOCK = ".lock"
"""Names of the files and folders, in a sweep's folder, besides the results."""


class Sweep(base_tuner.BaseTuner):
    """A search for the best model of some recordings, which keeps all it knows in a folder.

    The folder holds `settings.json`, the trials (KerasTuner's project), the decoded recordings and the linear
    start. A sweep that was killed continues with a new `Sweep` of the same settings and folder.

    Args:
        settings: What the trials have in common.
        output: The sweep's folder.
        max_trials: Number of trials to run; may be raised later.
        cache: Folder of the decoded recordings; by default in the sweep's folder.
        overwrite: Whether to start over. The decoded recordings stay.
        verbose: 0 for silence, 1 for a line per trial and epoch, 2 for a progress bar.
        worker_timeout: After how many seconds of silence the chief gives a worker's trial to another worker.
        report: Called with the folder each time a trial has ended, such as `write_report`. Workers do not call it.

    Raises:
        ValueError: If the folder holds a sweep of other settings or damaged files, no recording can be used, or an
            argument is out of its range.
        FileNotFoundError: If a path of `settings.recordings` does not exist.
        BlockingIOError: If another sweep is using the folder.
        OSError: If the folder cannot be written.

    Example:
        >>> from spectrovae.tuning import Sweep, SweepSettings
        >>> sweep = Sweep(SweepSettings(("music/",)), "sweeps/mine", max_trials=20)  # doctest: +SKIP
        >>> sweep.search()  # doctest: +SKIP
    """

    def __init__(
        self,
        settings: SweepSettings,
        output: str | Path,
        max_trials: int = 20,
        cache: str | Path | None = None,
        overwrite: bool = False,
        verbose: int = 1,
        worker_timeout: float = WORKER_TIMEOUT,
        report: Callable[[Path], Any] | None = None,
    ) -> None:
        self.settings = settings
        self.output = Path(output)
        self.cache = self.output / CACHE if cache is None else Path(cache)
        self.verbose = verbose
        self.report = report
        if current_role() != "single":
            shared_token()
        if not 0 < worker_timeout < math.inf:
            raise ValueError(f"`worker_timeout` must be above 0 (seconds). Received: worker_timeout={worker_timeout!r}")
        oracle = make_oracle(settings, max_trials)
        oracle.verbose = 0
        oracle.worker_timeout = worker_timeout
        check_writable(self.output)
        # Held until the search ends, or the sweep is deleted. Workers share the folder of their chief.
        self._lock = contextlib.ExitStack()
        if current_role() != "worker":
            self._lock.enter_context(_locked(self.output))
        try:
            self._prepare(oracle, overwrite)
        except BaseException:
            self._lock.close()
            raise

    def _prepare(self, oracle: DurableOracle, overwrite: bool) -> None:
        self._prepare_folder(overwrite)
        settings = self.settings
        if current_role() != "chief":
            Recordings(
                settings.recordings,
                settings.make_converter(),
                self.cache,
                settings.loop_short_files,
                verbose=min(self.verbose, 1),
            )
        super().__init__(oracle, _SpaceOnly(settings), directory=str(self.output), project_name=TRIALS)
        self._is_idle = False
        if current_role() == "worker":
            connect(self.oracle)

    def _prepare_folder(self, overwrite: bool) -> None:
        file = self.output / SETTINGS
        if overwrite:
            for folder in (TRIALS, LINEAR_START):  # not the decoded recordings, which take long
                shutil.rmtree(self.output / folder, ignore_errors=True)
            file.unlink(missing_ok=True)
        if file.exists():
            if differences := self.settings.differences(SweepSettings.load(file)):
                raise ValueError(
                    f"{self.output} holds a sweep of other settings ({'; '.join(differences)}). Use its settings, "
                    "choose another folder, or start over with overwrite."
                )
        else:
            self.settings.save(file)
        # A trial that was killed may have left them.
        for place in (self.output, self.output / LINEAR_START, *(self.output / TRIALS).glob("trial_*")):
            remove_leftovers(place)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Run the remaining trials; as a chief, hand them out until all have ended."""
        with self._lock:
            if current_role() == "chief":
                self.save()
                serve(self.oracle, self._report)
            else:
                super().search(*fit_args, **fit_kwargs)

    def pre_create_trial(self) -> None:
        """Wait a second if the chief had no trial."""
        if self._is_idle:
            time.sleep(1)
        self._is_idle = True

    def on_search_begin(self) -> None:
        """Save the search before its first trial, so that a kill loses nothing."""
        self.save()

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> keras.callbacks.History:
        """Run a trial in a child process.

        Returns:
            The history of losses and metrics by epoch.

        Raises:
            FailedTrialError: If the trial failed.
        """
        values = trial.hyperparameters.values
        past_trial = values.get("tuner/trial_id")
        for trial_id in (trial.trial_id, past_trial):
            if not (trial_id is None or is_trial_id(trial_id)):
                raise keras_tuner.errors.FatalError(f"The chief sent a trial with a wrong number: {trial_id!r}")
        task = TrialTask(
            self.settings,
            trial.hyperparameters.get_config(),
            Path(self.get_trial_dir(trial.trial_id)),
            self.cache,
            self.output / LINEAR_START,
            None if past_trial is None else Path(self.get_trial_dir(past_trial), CHECKPOINT),
            {0: 0, 1: 2, 2: 1}[self.verbose],
        )
        alive = heartbeat(self.oracle, trial.trial_id) if current_role() == "worker" else contextlib.nullcontext()
        with alive:
            outcome = run_in_child(task)
        if "history" not in outcome:
            raise keras_tuner.errors.FailedTrialError(outcome["reason"])
        history = keras.callbacks.History()
        history.history = outcome["history"]
        return history

    def on_trial_begin(self, trial: Any) -> None:
        """Print which trial begins."""
        self._is_idle = False
        self._say(f"Trial {trial.trial_id}: {describe_values(trial.hyperparameters.values)}")

    def on_trial_end(self, trial: Any) -> None:
        """Keep the result of a trial, and print it."""
        if trial.message:
            # KerasTuner keeps the whole traceback: its last line is the reason.
            trial.message = trial.message.strip().split("FailedTrialError: ")[-1]
        super().on_trial_end(trial)
        trial = self.oracle.get_trial(trial.trial_id)
        if trial.status == "COMPLETED":
            self._say(f"Trial {trial.trial_id}: {self.oracle.objective.name} {trial.score:.6g}")
        else:
            self._say(f"Trial {trial.trial_id} failed: {trial.message}")
        if current_role() == "single":
            self._report()

    def save(self) -> None:
        """Write the state of the search."""
        if current_role() != "worker":
            self.oracle.save()
        write_json(Path(self._get_tuner_fname()), self.get_state())

    def _report(self) -> None:
        if self.report is not None:
            self.report(self.output)

    def _say(self, text: str) -> None:
        if self.verbose:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


def describe_values(values: dict[str, Any]) -> str:
    """Return values as `latent_dim=100, width=256`, without those that KerasTuner keeps for itself.

    Example:
        >>> describe_values({"latent_dim": 100, "learning_rate": 1e-4, "tuner/epochs": 3})
        'latent_dim=100, learning_rate=0.0001'
    """
    return ", ".join(f"{name}={value}" for name, value in values.items() if not name.startswith("tuner/"))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other sweeps out of a folder; a BlockingIOError says so if there is one already."""
    with (folder / LOCK).open("ab") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"Another sweep is using {folder}: wait for its end, stop it, or choose another folder"
                ) from None
            except OSError:  # some network drives have no locks
                pass
        yield


class _SpaceOnly(keras_tuner.HyperModel):
    """Tell KerasTuner what is searched, without building: models are built in the processes that train them."""

    def __init__(self, settings: SweepSettings) -> None:
        super().__init__()
        self.settings = settings

    def build(self, hp: keras_tuner.HyperParameters) -> None:
        self.settings.declare(hp)
