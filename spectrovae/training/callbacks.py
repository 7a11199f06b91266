"""Callbacks for training."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from spectrovae.training.distributed import share_variables
from spectrovae.training.metrics import LIVE_SHARE

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
    """Revives dead components of the prior at the end of each epoch, as `GaussianMixturePrior.revive` does.

    `SpectroVAE.fit` adds one by itself. Dead is what has made too small a share of the epoch's training codes. Such
    a component gets no gradient, so it would stay dead, but where mixing weights are fixed its share of what is
    generated remains. Nothing else is reset; the log tells what was done.

    Args:
        live_share: The part of an equal share, 1/K, that a component must make to be live; 0 revives none.

    Raises:
        ValueError: If `live_share` is not in [0, 1].

    Example:
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

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Forget the epoch before."""
        self._shares = None

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Keep the shares of the training codes: validation starts the metrics anew."""
        if self._shares is None:
            self._shares = self.model.trackers["num_live_components"].shares.numpy()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Revive what is dead."""
        self.on_test_begin()
        prior = self.model.prior
        with reset_slots(self.model.optimizer, prior.trainable_variables):
            revived = prior.revive(self._shares, self.live_share)
            share_variables(self.model.distribute_strategy, prior.trainable_variables if revived else [])
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


@contextlib.contextmanager
def reset_slots(optimizer: keras.optimizers.Optimizer | None, weights: Iterable[keras.Variable]) -> Iterator[None]:
    """Have an optimizer follow what the `with` block assigns to weights.

    Where a number was changed, its momentum becomes 0, and the optimizer's average of past weights, with which a
    training may end, becomes the new number: else both would drag it back.

    Args:
        optimizer: The optimizer, or None where there is none yet.
        weights: Weights that it trains.
    """
    before = [(weight, weight.numpy()) for weight in weights]
    yield
    slots = {slot.path.rpartition("/")[2]: slot for slot in optimizer.variables} if optimizer else {}
    for weight, old in before:
        new = weight.numpy()
        for kind, value in (("average", new), ("momentum", 0)):
            slot = slots.get(f"{weight.path.replace('/', '_')}_{kind}")
            if slot is not None and (new != old).any():
                slot.assign(np.where(new != old, value, slot.numpy()))


def with_own_callbacks(callbacks: Any, use_ema: bool) -> Any:
    """Return callbacks behind those that `fit` adds where there is none of their kind.

    One revives dead components of the prior; where the optimizer averages the weights, another has the average
    validated, since that is what the training ends with. They come first: what others save is what they leave.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = keras.tree.flatten(callbacks or [])
    own = [keras.callbacks.SwapEMAWeights, ReviveComponents] if use_ema else [ReviveComponents]
    missing = [kind() for kind in own if not any(isinstance(callback, kind) for callback in callbacks)]
    return missing + callbacks
