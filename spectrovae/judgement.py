"""What was measured of a generative system for sound, as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from spectrovae.evaluation import GenerationReport


@dataclasses.dataclass(frozen=True)
class RestorationScores:
    """How near windows come to the ones that they stand for.

    Attributes:
        rmse_db: Root-mean-square difference of the levels, in dB.
        log_spectral_distance: Root-mean-square difference of the levels over the bins of a frame, averaged over all
            frames, in dB (Gray and Markel, "Distance measures for speech processing", IEEE Transactions on Acoustics,
            Speech, and Signal Processing, 1976).
        spectral_convergence: Norm of the difference of the magnitudes over that of the original magnitudes, in dB,
            averaged over the windows that are not silent (NaN where all are).
        maximum_mean_discrepancy: Squared distance of the two sets of windows by `SoundDistance`.
    """

    rmse_db: float
    log_spectral_distance: float
    spectral_convergence: float
    maximum_mean_discrepancy: float


@dataclasses.dataclass(frozen=True)
class Judgement:
    """Scores of a generative system, as `judge` returns them; `print` shows them as a table.

    What is heard are windows that were turned into sound, with phases by Griffin-Lim, and analysed again.

    Attributes:
        num_windows: Held-out windows that were measured.
        round_trip: The held-out windows as heard: what phases cost, the ceiling for every model.
        decoded: Reconstructions from mean codes, before they are turned into sound.
        heard: The same reconstructions as heard.
        textured: Reconstructions with texture as heard; None for a system that has none.
        generation: Generated windows before they are turned into sound.
        heard_generation: The same as heard.
    """

    num_windows: int
    round_trip: RestorationScores
    decoded: RestorationScores
    heard: RestorationScores
    textured: RestorationScores | None
    generation: GenerationReport
    heard_generation: GenerationReport

    @property
    def model_share(self) -> float:
        """Share of the mean squared error (dB²) of heard reconstructions that the model makes; phases make the rest."""
        return float(min(1.0, (self.decoded.rmse_db / self.heard.rmse_db) ** 2)) if self.heard.rmse_db else 0.0

    def __str__(self) -> str:
        rows = {
            "phases alone (the ceiling)": self.round_trip,
            "reconstruction, as decoded": self.decoded,
            "reconstruction, heard": self.heard,
            "with texture, heard": self.textured,
        }
        title = f"{self.num_windows} held-out windows"
        lines = [f"{title:34}{'RMSE':>11}{'log-spectral':>14}{'convergence':>13}{'distance':>11}"]
        for name, scores in rows.items():
            if scores is not None:
                lines.append(
                    f"{name:34}{scores.rmse_db:>8.2f} dB{scores.log_spectral_distance:>11.2f} dB"
                    f"{scores.spectral_convergence:>10.1f} dB{scores.maximum_mean_discrepancy:>11.4g}"
                )
        zero_line = self.generation.maximum_mean_discrepancy_zero_line
        lines.append(f"{'training windows (zero line)':34}{zero_line:>49.4g}")
        lines.append(f"Of the squared error of what is heard, the model makes {100 * self.model_share:.0f} %.")
        return "\n".join([*lines, "", "As decoded:", str(self.generation), "", "As heard:", str(self.heard_generation)])


def comparison_table(judgements: Mapping[str, Judgement]) -> str:
    """Return a table in Markdown with a row for each system.

    Where nothing else is said, figures are of what is heard; reconstructions are compared as a set with texture, for a
    system that has it.

    Args:
        judgements: What `judge` or `judge_windows` returned for each, by name.

    Example:
        >>> print(comparison_table({}).splitlines()[0][:20])
        | system | RMSE (dB)
    """
    header = [
        "system",
        "RMSE (dB): decoded / heard / phases alone",
        "log-spectral distance (dB)",
        "convergence (dB)",
        "distance of reconstructions",
        "distance of generated: decoded / heard / zero line",
        "diversity",
        "to nearest training window, ratio",
    ]
    rows = [header, ["---"] * len(header), *([name, *_cells(judgement)] for name, judgement in judgements.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(judgement: Judgement) -> list[str]:
    heard, generation, heard_generation = judgement.heard, judgement.generation, judgement.heard_generation
    errors = judgement.decoded.rmse_db, heard.rmse_db, judgement.round_trip.rmse_db
    distances = (
        generation.maximum_mean_discrepancy,
        heard_generation.maximum_mean_discrepancy,
        generation.maximum_mean_discrepancy_zero_line,
    )
    return [
        " / ".join(f"{error:.2f}" for error in errors),
        f"{heard.log_spectral_distance:.2f}",
        f"{heard.spectral_convergence:.1f}",
        f"{(judgement.textured or heard).maximum_mean_discrepancy:.3f}",
        " / ".join(f"{distance:.3f}" for distance in distances),
        f"{heard_generation.diversity_ratio:.2f}",
        f"{heard_generation.copies.ratio:.2f}",
    ]
