"""A sweep over hyperparameters, from its settings to its results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_tuner.engine import base_tuner

from spectrovae import SpectrogramConverter
from spectrovae.audio.dataset import audio_dataset
from spectrovae.audio.recordings import Recordings
from spectrovae.storage import replaced_when_complete
from spectrovae.tuning.hypermodel import SpectroVAEHyperModel
from spectrovae.tuning.oracles import WORKER_TIMEOUT, current_role, heartbeat, make_oracle, make_patient, serve
from spectrovae.tuning.search_space import choose_objective
from spectrovae.tuning.trial_process import CHECKPOINT, TrialTask, run_in_child


@dataclasses.dataclass(frozen=True)
class SweepSettings:
    """What the trials of a sweep have in common. A sweep goes on only with the settings it began with.

    Attributes:
        recordings: Files and folders of recordings.
        converter: Arguments of the `SpectrogramConverter`.
        choices: For each argument the values to choose from, as for `search_space`.
        architecture: `"temporal"` or `"classic"`.
        tuner: A key of `ORACLES`.
        objective: As for `choose_objective`.
        epochs: Epochs of each trial; with Hyperband the most that one gets.
        batch_size: Windows in a batch.
        validation_split: Share of the windows that is put aside, in (0, 1). Whole files are.
        loop_short_files: Whether files shorter than a window are repeated instead of left out.
        max_parameters: Models with more weights fail; None for no limit.
        seed: Decides the proposals, the split and the models' weights and draws.

    Raises:
        ValueError: If a number is out of its range, or no model can be built.
    """

    recordings: tuple[str, ...]
    converter: dict[str, Any] = dataclasses.field(default_factory=dict)
    choices: dict[str, list] = dataclasses.field(default_factory=dict)
    architecture: str = "temporal"
    tuner: str = "bayesian"
    objective: str = "auto"
    epochs: int = 10
    batch_size: int = 16
    validation_split: float = 0.2
    loop_short_files: bool = False
    max_parameters: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more. Received: {name}={getattr(self, name)}")
        if not 0 < self.validation_split < 1:
            raise ValueError(
                "validation_split must be above 0 and below 1: trials are compared on held-out recordings. "
                f"Received: validation_split={self.validation_split}"
            )
        choose_objective(self.objective)
        self.hypermodel()

    def make_converter(self) -> SpectrogramConverter:
        """Return the converter that makes the windows."""
        return SpectrogramConverter(**self.converter)

    def make_objective(self) -> keras_tuner.Objective:
        """Return the measure by which trials compare."""
        return choose_objective(self.objective, self.choices)

    def hypermodel(self, linear_start_folder: Path | None = None) -> SpectroVAEHyperModel:
        """Return the hypermodel; the linear start is shared through the folder."""
        return SpectroVAEHyperModel(
            self.make_converter(),
            self.choices,
            self.architecture,
            self.max_parameters,
            linear_start_folder,
            self.make_objective().name == "val_distance",
            seed=self.seed,
        )

    def datasets(self, cache: Path) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        """Return the training and the validation windows, decoded once into the cache."""
        return audio_dataset(
            self.recordings,
            self.make_converter(),
            self.batch_size,
            self.validation_split,
            seed=self.seed,
            cache=cache,
            loop_short_files=self.loop_short_files,
            verbose=0,
        )

    def save(self, file: Path) -> None:
        """Write the settings as JSON."""
        write_json(file, dataclasses.asdict(self))

    @classmethod
    def load(cls, file: Path) -> SweepSettings:
        """Read what `save` wrote."""
        values = json.loads(file.read_text())
        return cls(**values | {"recordings": tuple(values["recordings"])})

    def differences(self, other: SweepSettings) -> list[str]:
        """Return for each setting that differs a text such as `epochs: 10, not 20`."""
        mine, others = (json.loads(json.dumps(dataclasses.asdict(each))) for each in (self, other))
        return [f"{name}: {mine[name]}, not {others[name]}" for name in mine if mine[name] != others[name]]


def write_json(file: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    with replaced_when_complete(file) as part:
        part.write_text(json.dumps(value, indent=1))


SETTINGS, TRIALS, CACHE, LINEAR_START = "settings.json", "trials", "audio_cache", "linear_start"
"""What a sweep's folder holds besides the results."""


class Sweep(base_tuner.BaseTuner):
    """A KerasTuner tuner that runs each trial in a process of its own and keeps all it knows in a folder.

    The folder holds `settings.json`, the trials (KerasTuner's project), the decoded recordings and the linear
    start. A sweep that was killed goes on with a new `Sweep` of the same settings and folder.

    Args:
        settings: What the trials have in common.
        output: The sweep's folder.
        max_trials: How many trials to run; may be raised later.
        cache: Folder of the decoded recordings; by default in the sweep's folder.
        overwrite: Whether to begin anew. The decoded recordings stay.
        verbose: 0 for silence, 1 for a line per trial and epoch, 2 for a progress bar.
        worker_timeout: After how many seconds of silence the chief gives a worker's trial to another.
        report: Called with the folder each time a trial has ended, such as `write_report`. Workers don't call it.

    Raises:
        ValueError: If the folder holds a sweep of other settings, or no recording can be used.
        FileNotFoundError: If a path of `settings.recordings` does not exist.

    Example:
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
        oracle = make_oracle(settings, max_trials)
        oracle.verbose = 0
        oracle.worker_timeout = worker_timeout
        self._prepare_folder(overwrite)
        if current_role() != "chief":
            Recordings(
                settings.recordings,
                settings.make_converter(),
                self.cache,
                settings.loop_short_files,
                verbose=min(verbose, 1),
            )
        super().__init__(oracle, _SpaceOnly(settings), directory=str(self.output), project_name=TRIALS)
        self._is_idle = False
        if current_role() == "worker":
            make_patient(self.oracle)

    def _prepare_folder(self, overwrite: bool) -> None:
        file = self.output / SETTINGS
        if overwrite:
            for folder in (TRIALS, LINEAR_START):
                shutil.rmtree(self.output / folder, ignore_errors=True)
            file.unlink(missing_ok=True)
        if file.exists():
            if differences := self.settings.differences(SweepSettings.load(file)):
                raise ValueError(
                    f"{self.output} holds a sweep of other settings ({'; '.join(differences)}). Go on with its own, "
                    "take another folder, or begin anew with overwrite."
                )
            return
        self.output.mkdir(parents=True, exist_ok=True)
        self.settings.save(file)

    def search(self, *fit_args: Any, **fit_kwargs: Any) -> None:
        """Run the trials that are left; as a chief, hand them out until all have ended."""
        if current_role() == "chief":
            self.save()
            serve(self.oracle, self._report)
        else:
            super().search(*fit_args, **fit_kwargs)

    def pre_create_trial(self) -> None:
        """Wait a moment if the chief had no trial."""
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
        """Say which trial begins."""
        self._is_idle = False
        self._say(f"Trial {trial.trial_id}: {describe_values(trial.hyperparameters.values)}")

    def on_trial_end(self, trial: Any) -> None:
        """Keep a trial's result, and say what it was."""
        if trial.message:
            # KerasTuner keeps the whole traceback; its last line is what a person wants to read.
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


class _SpaceOnly(keras_tuner.HyperModel):
    """Tells KerasTuner what is searched, and builds nothing: models are built where they are trained."""

    def __init__(self, settings: SweepSettings) -> None:
        super().__init__()
        self.hypermodel = settings.hypermodel()

    def build(self, hp: keras_tuner.HyperParameters) -> None:
        self.hypermodel.declare_hyperparameters(hp)
