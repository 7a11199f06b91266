"""Train side by side, on the same music: the classic model, principal components with a mixture, ours, and peers.

    python tests/benchmarks/bench_training.py --audio FOLDER --minutes 5 --output outputs/benchmark
    python tests/benchmarks/bench_training.py --audio FOLDER --minutes 10 --judge --systems ours rave pythae

Of the files, sorted by name, every fifth from the third on is held out; the score is taken on the first 128 of their
consecutive windows. Each system is a process of its own, one after the other, all reading one cache. `--output` gets
`results.json`, our models, and `rmse.png`, the held-out error over time; the table is printed. With `--judge`, another
table tells how each sounds (`spectrovae.judge`). Peers are RAVE, which learns samples, and pythae's variational
autoencoder with its Gaussian mixture sampler. They are installed into an environment of their own (`--environment`,
5.5 GB), and take as they come all settings but the sample rate.

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
import tensorflow as tf
from bench_dataset import peak_memory
from contenders import CONTENDERS, Ours
from peers import PEERS, make_environment, train_peer

from spectrovae import SpectrogramConverter, audio_dataset
from spectrovae.audio.files import find_audio_files
from spectrovae.evaluation.generation import evaluate_generation
from spectrovae.evaluation.judging import Judgement, judge_windows

NUM_TEST_WINDOWS = 128
SYSTEMS = [*CONTENDERS, *PEERS]


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
    if arguments.system in PEERS:
        installed = make_environment(arguments.environment)
        peer = train_peer(
            arguments.system,
            arguments.environment,
            arguments.output / arguments.system,
            (training_paths, held_out_paths),
            (dataset, test),
            converter,
            60 * arguments.minutes,
            arguments.seed,
        )
        reconstructed, generated, textured, memory = peer.reconstructed, peer.generated, None, peer.memory
        error = 80 * np.sqrt(np.square(reconstructed - test).mean())
        history = [{"seconds": 60 * arguments.minutes, "windows": peer.num_seen, "rmse_db": float(error)}]
    else:
        history, memory, reconstructed, generated, textured = train_ours(arguments, dataset, test)
        installed = {}
    training = np.concatenate([batch for batch in dataset.take(16)])
    report = evaluate_generation(generated, test, training, converter)
    result = {
        "history": history,
        "memory": memory,
        "installed": installed,
        "distance": report.maximum_mean_discrepancy,
        "zero_line": report.maximum_mean_discrepancy_zero_line,
    }
    if arguments.judge:
        judgement = judge_windows(test, reconstructed, generated, training, converter, textured)
        result["judgement"] = judgement_row(judgement)
    return result


def train_ours(arguments: argparse.Namespace, dataset: tf.data.Dataset, test: np.ndarray) -> tuple:
    """Train one of `CONTENDERS`; return its history, memory, reconstructions, generated and textured windows."""
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
    textured = None
    if isinstance(system, Ours):
        system.model.finish_training(dataset)
        system.model.save(arguments.output / f"{arguments.system}.keras")
        textured = system.model.reconstruct(test, texture="grains", seed=0)
    return history, memory, system.reconstruct(test), system.generate(len(test)), textured


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
    """Print one row for each system, and what the environment of peers takes."""
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
    for installed in [result["installed"] for result in results.values() if result["installed"]][:1]:
        print(
            f"\nPeers take {installed['megabytes'] / 1000:.1f} GB of disk, installed in {installed['seconds']:.0f} s."
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
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(CONTENDERS))
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark"))
    parser.add_argument("--cache", type=Path, help="folder for decoded audio; by default one inside the output")
    parser.add_argument("--environment", type=Path, default=Path("outputs/peers"), help="where peers are installed")
    parser.add_argument("--judge", action="store_true", help="measure what is heard, too")
    parser.add_argument("--system", choices=SYSTEMS, help="measure this one in this process, print JSON")
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
