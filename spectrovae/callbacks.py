"""Callbacks for training."""

import keras
import numpy as np


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
