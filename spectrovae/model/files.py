"""Models loaded from files that somebody else may have written."""

from __future__ import annotations

from pathlib import Path

import keras

from spectrovae.model.spectrovae import SpectroVAE
from spectrovae.storage import PathLike, check_archive


def load_model(path: PathLike) -> SpectroVAE:
    """Load a trained model, after a look at the file.

    `keras.saving.load_model` loads the same files. It unpacks them before it knows their sizes, so that a small file
    from a stranger may fill the memory: this function checks the sizes first, and that the file holds a `SpectroVAE`.
    Code in a file is never run by either.

    Args:
        path: A `.keras` file, as `model.save`, `fit_resumably` and the command `spectrovae` write it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, unpacks to far more than its size, or holds another model.

    Example:
        >>> import tempfile
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
        >>> path = Path(tempfile.mkdtemp(), "model.keras")
        >>> model.save(path)
        >>> load_model(path).latent_dim
        2
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such file: {path}. Give a .keras file that quickstart or train has written")
    check_archive(path)
    model = keras.saving.load_model(path)
    if not isinstance(model, SpectroVAE):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a SpectroVAE")
    return model
