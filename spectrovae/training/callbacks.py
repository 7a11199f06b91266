"""Callbacks for training."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from spectrovae.training.distributed import share_variables
from spectrovae.training.interruptions import kept_interruptions
from spectrovae.training.metrics import LIVE_SHARE
from spectrovae.training.optimizer import averaged_weights, keeps_average, reset_slots

logger = logging.getLogger(__name__)


@keras.saving.register_keras_serializable(package="spectrovae")
class KLWarmup(keras.callbacks.Callback):
    """Raises the weight of the KL term from a small start to 1, batch by batch.

    Bowman et al., "Generating sentences from a continuous space" (CoNLL 2016). A model that starts from random
    weights learns to use its code before the prior presses on it. After `adapt` it is not needed: the code is in
    use from the first step. `val_loss` is not changed by it.

    Args:
        num_epochs: Epochs until the weight is 1, 1 or more.
        initial_weight: Weight at the first batch, from 0 to 1.

    Raises:
        ValueError: If an argument is out of its range; at the start of training if the model has no `kl_weight`.

    Example:
        >>> from spectrovae import KLWarmup
        >>> warmup = KLWarmup(num_epochs=2)
        >>> [warmup.weight_after(progress) for progress in (0.0, 1.0, 2.0, 3.0)]
        [0.0, 0.5, 1.0, 1.0]
    """

    def __init__(self, num_epochs: int, initial_weight: float = 0.0) -> None:
        super().__init__()
        if not num_epochs >= 1:
            raise ValueError(f"`num_epochs` must be 1 or more. Received: num_epochs={num_epochs!r}")
        if not 0 <= initial_weight <= 1:
            raise ValueError(f"`initial_weight` must lie in [0, 1]. Received: initial_weight={initial_weight!r}")
        self.num_epochs = num_epochs
        self.initial_weight = initial_weight
        self._epoch = 0

    def weight_after(self, num_epochs: float) -> float:
        """Return the weight after that many epochs, a fraction of one included."""
        progress = float(np.clip(num_epochs / self.num_epochs, 0, 1))
        return self.initial_weight + (1 - self.initial_weight) * progress

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Refuse models that have no KL term."""
        if not hasattr(self.model, "kl_weight"):
            raise ValueError(f"KLWarmup needs a SpectroVAE. Received: model={self.model!r}")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Set the weight of this epoch's first batch; a resumed training goes on where it was."""
        self._epoch = epoch
        self.model.kl_weight.assign(self.weight_after(epoch))

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Set the weight of this batch."""
        num_batches = self.params.get("steps") or 0
        if num_batches:
            self.model.kl_weight.assign(self.weight_after(self._epoch + batch / num_batches))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leave the weight where the epochs that ran have brought it."""
        self.model.kl_weight.assign(self.weight_after(self._epoch + 1))

    def get_config(self) -> dict:
        """Return the arguments of the callback."""
        return {"num_epochs": self.num_epochs, "initial_weight": self.initial_weight}


@keras.saving.register_keras_serializable(package="spectrovae")
class ReviveComponents(keras.callbacks.Callback):
    """Keep the components of the prior in use: at the end of each epoch, set weights and revive what is dead.

    `SpectroVAE.fit` adds one by itself. Mixing weights, where they are learned, become the components' shares of the
    epoch's training codes (`GaussianMixturePrior.assign_weights`): their gradient would take many epochs. Dead is what
    has made too small a share of these codes. Such a component gets no gradient, so it would stay dead
    (`GaussianMixturePrior.revive`). Nothing else is reset; the log tells what was done.

    Args:
        live_share: The part of an equal share, 1/K, that a component must make to be live; 0 revives none, and only
            sets weights.

    Raises:
        ValueError: If `live_share` is not in [0, 1].

    Example:
        >>> import numpy as np
        >>> from spectrovae import ReviveComponents, SpectroVAE
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> model.compile()
        >>> history = model.fit(np.zeros((4, 32, 32, 1)), callbacks=[ReviveComponents(live_share=0)], verbose=0)
    """

    def __init__(self, live_share: float = LIVE_SHARE) -> None:
        super().__init__()
        if not 0 <= live_share <= 1:
            raise ValueError(f"`live_share` must lie in [0, 1]. Received: live_share={live_share!r}")
        self.live_share = live_share
        self._shares: np.ndarray | None = None
        self._num_codes = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Forget the epoch before."""
        self._shares = None

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Keep the shares of the training codes: validation starts the metrics anew."""
        if self._shares is None:
            tracker = self.model.trackers["num_live_components"]
            self._shares, self._num_codes = tracker.shares.numpy(), float(np.sum(tracker.totals.numpy()))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Set the weights and revive what is dead."""
        self.on_test_begin()
        prior = self.model.prior
        with reset_slots(self.model.optimizer, prior.trainable_variables):
            prior.assign_weights(self._shares, self._num_codes)
            revived = prior.revive(self._shares, self.live_share)
            changed = prior.trainable_variables if revived or prior.learn_weights else []
            share_variables(self.model.distribute_strategy, changed)
        if revived:
            places = ", ".join(f"{component} beside {other}" for component, other in revived.items())
            logger.info(
                "Epoch %d: %d of %d components of the prior made less than %.2g %% of the codes and were revived: %s.",
                epoch + 1,
                len(revived),
                prior.num_components,
                100 * self.live_share / prior.num_components,
                places,
            )

    def get_config(self) -> dict:
        """Return the arguments of the callback."""
        return {"live_share": self.live_share}


class _BeginAverage(keras.callbacks.Callback):
    """Give the model its averaged weights before the other callbacks see what was validated."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.stack.enter_context(averaged_weights(self.model))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.stack.enter_context(averaged_weights(self.model))

    def on_train_end(self, logs: dict | None = None) -> None:
        # Early stopping restores weights here; the optimizer's average has to be theirs.
        self.stack.enter_context(reset_slots(self.model.optimizer, self.model.trainable_variables))


class _EndAverage(keras.callbacks.Callback):
    """Go back to the weights that are trained, after the other callbacks."""

    def __init__(self, begin: _BeginAverage) -> None:
        super().__init__()
        self.begin = begin

    def on_test_end(self, logs: dict | None = None) -> None:
        self.begin.stack.close()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.begin.stack.close()

    def on_train_end(self, logs: dict | None = None) -> None:
        self.begin.stack.close()


@contextlib.contextmanager
def own_callbacks(callbacks: Any, model: keras.Model) -> Iterator[Any]:
    """Give the callbacks to train a model with; wherever the training ends, leave the weights that were trained."""
    if model.compiled:
        callbacks = with_own_callbacks(callbacks, model.optimizer)
    with kept_interruptions(callbacks) as callbacks:
        try:
            yield callbacks
        finally:
            for callback in callbacks if isinstance(callbacks, list) else ():
                if isinstance(callback, _BeginAverage):
                    callback.stack.close()


def with_own_callbacks(callbacks: Any, optimizer: keras.optimizers.Optimizer) -> Any:
    """Return callbacks with those that `fit` adds, in the order in which they have to run.

    Where the optimizer averages the weights, validation and all callbacks after an epoch work with the average: what
    they save or restore is what `val_loss` was measured with. This replaces Keras' `SwapEMAWeights`. Dead components
    are revived after that. At the very end come the callbacks that save the state of a training to resume it:
    `BackupAndRestore`, and those whose attribute `saves_training` is true.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = keras.tree.flatten(callbacks or [])
    _check_rate_can_be_set(callbacks, optimizer)
    revivers = [callback for callback in callbacks if isinstance(callback, ReviveComponents)] or [ReviveComponents()]
    savers = [
        callback
        for callback in callbacks
        if isinstance(callback, keras.callbacks.BackupAndRestore) or getattr(callback, "saves_training", False)
    ]
    others = [callback for callback in callbacks if callback not in revivers + savers]
    if keeps_average(optimizer):
        others = [callback for callback in others if not isinstance(callback, keras.callbacks.SwapEMAWeights)]
        begin = _BeginAverage()
        others = [begin, *others, _EndAverage(begin)]
    return others + revivers + savers


def _check_rate_can_be_set(callbacks: list[keras.callbacks.Callback], optimizer: keras.optimizers.Optimizer) -> None:
    """Raise a ValueError if a callback sets the learning rate and a schedule does so too."""
    rate = getattr(optimizer, "inner_optimizer", optimizer).get_config().get("learning_rate")
    setters = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
    for callback in callbacks:
        if isinstance(callback, setters) and isinstance(rate, dict):
            raise ValueError(
                f"{type(callback).__name__} sets the learning rate, which follows a schedule in this optimizer. "
                "Compile it with a number, such as keras.optimizers.AdamW(5e-4, use_ema=True, ema_momentum=0.99). "
                f"Received: a schedule of the class {rate.get('class_name')}"
            )
