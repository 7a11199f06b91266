"""Which recordings belong to which component of the mixture, and what is typical of each."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np

from spectrovae.collection import EncodedCollection
from spectrovae.files import PathLike, replaced_when_complete
from spectrovae.objective import Objective
from spectrovae.report import WindowPosition, printable


@dataclasses.dataclass(frozen=True)
class Styles:
    """The components of a model's prior, as a collection of recordings shows them; `str` gives a table for people.

    Attributes:
        names: What the components are called, `num_components` of them.
        paths: The files, in order.
        num_windows: Windows of each file.
        shares: Share of each component in the windows of each file, `(num_files, num_components)`: the mean of their
            responsibilities. Each row sums to 1.
        typical: For each component the window of the collection whose code is densest under it, among those that are
            more its own than any other component's; None for a component that has none.
    """

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    num_windows: np.ndarray
    shares: np.ndarray
    typical: tuple[WindowPosition | None, ...]

    @property
    def total_shares(self) -> np.ndarray:
        """Share of each component in all windows, `(num_components,)`."""
        return self.num_windows @ self.shares / self.num_windows.sum()

    def write_csv(self, path: PathLike) -> None:
        """Write the table for spreadsheets and programs: a row for each file, a column for each component.

        Args:
            path: The file; its folder must exist.

        Raises:
            OSError: If it cannot be written.
        """
        header = ["file", "windows", *self.names]
        # Names of files may be bytes that are no text.
        with (
            replaced_when_complete(Path(path)) as part,
            part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(header)
            for name, number, shares in zip(self.paths, self.num_windows, self.shares, strict=True):
                writer.writerow([name, number, *(f"{share:.4f}" for share in shares)])

    def __str__(self) -> str:
        rows = [*zip(map(printable, self.paths), self.num_windows, self.shares, strict=True)]
        rows.append(("all", self.num_windows.sum(), self.total_shares))
        widths = [max(7, len(name)) for name in self.names]
        columns = "  ".join(f"{printable(name):>{width}}" for name, width in zip(self.names, widths, strict=True))
        lines = [f"windows  {columns}  file"]
        for path, number, shares in rows:
            percents = (f"{100 * share:.0f} %".rjust(width) for share, width in zip(shares, widths, strict=True))
            lines.append(f"{number:7d}  {'  '.join(percents)}  {path}")
        return "\n".join(lines)


def find_styles(model: Objective, collection: EncodedCollection) -> Styles:
    """Tell which recordings belong to which component of the prior.

    Args:
        model: A trained model; `model.component_names` names the components.
        collection: What `encode_collection` returned for it. The responsibilities are those of the mean codes.

    Example:
        >>> model = SpectroVAE((32, 32, 1), 2, 2, decoder_depth=2, width=8, component_names=["low", "high"], seed=0)
        >>> model.prior.assign_mixture(np.array([[-3, 0], [3, 0]]), np.ones((2, 2)))
        >>> positions = [WindowPosition(Path(name), 0.0) for name in ("a.wav", "a.wav", "b.wav", "b.wav")]
        >>> codes = np.array([[-3, 0], [-2, 0], [-4, 0], [3, 1]], np.float32)
        >>> print(find_styles(model, EncodedCollection(codes, tuple(positions), np.ones(2))))
        windows      low     high  file
              2    100 %      0 %  a.wav
              2     50 %     50 %  b.wav
              4     75 %     25 %  all
    """
    shares = np.asarray(model.prior.responsibilities(collection.codes), np.float64)  # (num_windows, num_components)
    log_probs = np.asarray(model.prior.log_prob(collection.codes))
    indices: dict[Path, int] = {}
    files = np.array([indices.setdefault(position.path, len(indices)) for position in collection.positions])
    paths = tuple(indices)
    num_windows = np.bincount(files)
    sums = np.stack([np.bincount(files, weights) for weights in shares.T], axis=1)
    owner = shares.argmax(axis=1)
    typical: list[WindowPosition | None] = []
    for component in range(model.num_components):
        own = np.flatnonzero(owner == component)
        # By the rule of Bayes this is the density under the component, but for what is the same for all windows.
        densities = np.log(shares[own, component]) + log_probs[own]
        best = own[densities.argmax()] if len(own) else None
        typical.append(None if best is None else collection.positions[best])
    names = tuple(model.component_name(component) for component in range(model.num_components))
    return Styles(names, paths, num_windows, sums / num_windows[:, None], tuple(typical))


def typical_windows(model: Objective) -> np.ndarray:
    """Return the window in the middle of each component, without texture, `(num_components, bins, frames, 1)`.

    It is `model.generate(1, component, temperature=0, texture=0)` for each of them; where there are several codes along
    a window, the mean code of the component, held.

    Args:
        model: A trained model.

    Example:
        >>> model = SpectroVAE((32, 32, 1), latent_dim=2, num_components=3, decoder_depth=2, width=8, seed=0)
        >>> typical_windows(model).shape
        (3, 32, 32, 1)
    """
    means = model.prior.means.numpy()
    return model.decode(means if model.latent_steps == 1 else means[:, None].repeat(model.latent_steps, axis=1))
