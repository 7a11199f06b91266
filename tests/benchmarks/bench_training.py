"""Train side by side, on the same windows: the classic model, principal components with a mixture, and ours.

    python tests/benchmarks/bench_training.py --audio FOLDER --minutes 5 --output outputs/benchmark

Of the files, sorted by name, every fifth from the third on is held out; the score is taken on the first 128 of their
consecutive windows. Each system is a process of its own, one after the other, all reading one cache. `--output` gets
`results.json`, our models, and `rmse.png`, the held-out error over time; the table is printed. With `--judge`, another
table tells how each sounds (`spectrovae.judge`).

RMSE: root mean square error of the clipped reconstruction from the mean code, in dB. Distance: squared maximum mean
discrepancy between 128 generated and the held-out windows; its zero line is that of the training windows.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import matplotlib.figure
import numpy as np
from bench_dataset import peak_memory
from contenders import CONTENDERS, Ours

from spectrovae import SpectrogramConverter, audio_dataset
from spectrovae.audio.files import find_audio_files
from spectrovae.evaluation.generation import evaluate_generation
from spectrovae.evaluation.judging import Judgement, judge_windows

NUM_TEST_WINDOWS = 128


def measure_system(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one system and return its scores."""
    converter = SpectrogramConverter()
    paths = find_audio_files(arguments.audio)
    held_out_paths = [path for index, path in enumerate(paths) if index % 5 == 2]
    options: dict[str, Any] = {"cache": arguments.cache, "verbose": 0, "seed": arguments.seed}
    training_paths = [path for path in paths if path not in held_out_paths]
    dataset = audio_dataset(training_paths, converter, **options)
    held_out = audio_dataset(held_out_paths, converter, random_offset=False, shuffle=False, **options)
    test = np.concatenate(list(held_out.unbatch().batch(NUM_TEST_WINDOWS).take(1)))
    system = CONTENDERS[arguments.system](arguments.latent_dim, arguments.seed)
    history: list[dict[str, float]] = []

    def measure(seconds: float, num_windows: int) -> None:
        error = 80 * np.sqrt(np.square(system.reconstruct(test) - test).mean())
        row = {"seconds": seconds, "windows": num_windows, "rmse_db": float(error)}
        if isinstance(system, Ours):
            loss = system.model.evaluate(test, batch_size=16, verbose=0, return_dict=True)["loss"]
            row["nats per pixel"] = loss / test[0].size
        history.append(row)
        print(arguments.system, row, file=sys.stderr, flush=True)

    system.train(dataset, 60 * arguments.minutes, measure)
    memory = peak_memory()
    keras.utils.clear_session()
    training = np.concatenate([batch for batch in dataset.take(16)])
    generated = system.generate(NUM_TEST_WINDOWS)
    report = evaluate_generation(generated, test, training, converter)
    result = {
        "history": history,
        "memory": memory,
        "distance": report.maximum_mean_discrepancy,
        "zero_line": report.maximum_mean_discrepancy_zero_line,
    }
    if isinstance(system, Ours):
        system.model.save(arguments.output / f"{arguments.system}.keras")
    if arguments.judge:
        textured = system.model.reconstruct(test, texture="grains", seed=0) if isinstance(system, Ours) else None
        judgement = judge_windows(test, system.reconstruct(test), generated, training, converter, textured)
        result["judgement"] = judgement_row(judgement)
    return result


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot the held-out error over the time of training."""
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, result in results.items():
        rows = result["history"]
        axes.plot([row["seconds"] for row in rows], [row["rmse_db"] for row in rows], marker="o", label=name)
    axes.set(xlabel="training (s)", ylabel="held-out RMSE (dB)", xscale="log", yscale="log")
    axes.legend()
    figure.savefig(path)


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Print one row for each system."""
    print("| system | windows/s | peak memory | best RMSE | after | negative ELBO per pixel | distance (zero line) |")
    print("|---|---|---|---|---|---|---|")
    for name, result in results.items():
        rows = result["history"]
        best = min(rows, key=lambda row: row["rmse_db"])
        first = rows[0] if rows[0]["windows"] == 0 else {"seconds": 0.0}
        speed = rows[-1]["windows"] / (rows[-1]["seconds"] - first["seconds"])
        bound = min((row["nats per pixel"] for row in rows if "nats per pixel" in row), default=float("nan"))
        print(
            f"| {name} | {speed:.1f} | {result['memory'] / 1024:.1f} GB | {best['rmse_db']:.2f} dB | "
            f"{best['seconds']:.0f} s | {bound:.3f} | {result['distance']:.3f} ({result['zero_line']:.3f}) |"
        )


def judgement_row(judgement: Judgement) -> dict[str, str]:
    """Return what `print_judgements` prints of a system.

    Where nothing else is said, figures are of what is heard; reconstructions are compared as a set with texture, for a
    system that has it.
    """
    heard, generation, heard_generation = judgement.heard, judgement.generation, judgement.heard_generation
    errors = judgement.decoded.rmse_db, heard.rmse_db, judgement.round_trip.rmse_db
    distances = (
        generation.maximum_mean_discrepancy,
        heard_generation.maximum_mean_discrepancy,
        generation.maximum_mean_discrepancy_zero_line,
    )
    return {
        "RMSE (dB): decoded / heard / phases alone": " / ".join(f"{error:.2f}" for error in errors),
        "log-spectral distance (dB)": f"{heard.log_spectral_distance:.2f}",
        "convergence (dB)": f"{heard.spectral_convergence:.1f}",
        "distance of reconstructions": f"{(judgement.textured or heard).maximum_mean_discrepancy:.3f}",
        "distance of generated: decoded / heard / zero line": " / ".join(f"{distance:.3f}" for distance in distances),
        "rhythm and harmony of generated / zero line": (
            f"{heard_generation.rhythm_and_harmony:.3f} / {heard_generation.rhythm_and_harmony_zero_line:.3f}"
        ),
        "diversity": f"{heard_generation.diversity_ratio:.2f}",
        "to nearest training window, ratio": f"{heard_generation.copies.ratio:.2f}",
    }


def print_judgements(results: dict[str, dict[str, Any]]) -> None:
    """Print one row for each system that was judged."""
    for index, (name, result) in enumerate(results.items()):
        row = result["judgement"]
        if not index:
            print(f"\n| system | {' | '.join(row)} |\n|{'---|' * (1 + len(row))}")
        print(f"| {name} | {' | '.join(row.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", required=True, help="folder of recordings")
    parser.add_argument("--minutes", type=float, default=5.0, help="training time of each system")
    parser.add_argument("--latent-dim", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--systems", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark"))
    parser.add_argument("--cache", type=Path, help="folder for decoded audio; by default one inside the output")
    parser.add_argument("--judge", action="store_true", help="measure what is heard, too")
    parser.add_argument("--system", choices=CONTENDERS, help="measure this one in this process, print JSON")
    arguments = parser.parse_args()
    arguments.cache = arguments.cache or arguments.output / "cache"
    if arguments.system:
        print(json.dumps(measure_system(arguments)))
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = {}
    for system in arguments.systems:
        command = [sys.executable, __file__, *sys.argv[1:], "--system", system]
        child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[system] = json.loads(child.stdout.splitlines()[-1])
    (arguments.output / "results.json").write_text(json.dumps(results, indent=1))
    draw(results, arguments.output / "rmse.png")
    print_table(results)
    if arguments.judge:
        print_judgements(results)


if __name__ == "__main__":
    main()
