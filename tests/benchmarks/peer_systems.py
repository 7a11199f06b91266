"""RAVE and pythae's variational autoencoder, as they come, in an environment without this library.

    ENVIRONMENT/bin/python tests/benchmarks/peer_systems.py rave FOLDER --seconds 600

`peers.py` makes the environment and the folder, and runs this. `rave` reads `training.npy` (samples) and
`held_out_*.npy`, and writes `reconstructed_*.npy` and `generated.npy` (clips). `pythae` reads `training.npy` and
`held_out.npy` (windows), and writes `reconstructed.npy` and `generated.npy`. The last line that is printed is JSON.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch


class Crops(torch.utils.data.Dataset):
    """Stretches of audio from anywhere."""

    def __init__(self, audio: np.ndarray, length: int, num_crops: int, seed: int) -> None:
        self.audio, self.length = audio, length
        self.starts = np.random.default_rng(seed).integers(len(audio) - length, size=num_crops)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> torch.Tensor:
        start = self.starts[index]
        return torch.from_numpy(self.audio[start : start + self.length].copy())[None]


def run_rave(options: argparse.Namespace) -> int:
    """Train the configuration "v2", batches and crops of its own command line; return how many crops it has seen."""
    import gin
    import pytorch_lightning
    import rave

    folder = options.folder
    gin.parse_config_files_and_bindings(["v2.gin"], [f"SAMPLING_RATE = {options.sample_rate}"])
    model = rave.RAVE(n_channels=1)
    crops = Crops(np.load(folder / "training.npy", mmap_mode="r"), 131072, 1_000_000, options.seed)
    trainer = pytorch_lightning.Trainer(
        max_time={"seconds": options.seconds},
        logger=pytorch_lightning.loggers.TensorBoardLogger(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[rave.model.WarmupCallback(), rave.model.BetaWarmupCallback()],
    )
    trainer.fit(model, torch.utils.data.DataLoader(crops, batch_size=8))
    model.eval()
    unit = 2048 * 8  # the network's stride divides it

    def decode(codes: torch.Tensor, length: int) -> np.ndarray:
        return model.decode(codes)[:, 0, :length].numpy()

    with torch.no_grad():
        for path in sorted(folder.glob("held_out_*.npy")):
            audio = np.load(path)
            padded = torch.from_numpy(np.pad(audio, (0, -len(audio) % unit)))[None, None]
            mean = model.encode(padded)[:, : model.latent_size]
            np.save(path.with_name(path.name.replace("held_out", "reconstructed")), decode(mean, len(audio))[0])
        num_codes = -(-options.clip_length // unit) * unit * mean.shape[-1] // padded.shape[-1]
        draws = [torch.randn(1, model.latent_size, num_codes) for _ in range(options.num_samples)]
        clips = [decode(draw, options.clip_length) for draw in draws]
    np.save(folder / "generated.npy", np.concatenate(clips))
    return 8 * trainer.global_step


def run_pythae(options: argparse.Namespace) -> int:
    """Train `VAE` with its default networks, batch and rate; return how many windows it has seen."""
    from pythae.models import VAE, VAEConfig
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
    from pythae.trainers import BaseTrainerConfig

    folder, defaults = options.folder, BaseTrainerConfig()
    windows = np.load(folder / "training.npy", mmap_mode="r")
    shape = (1, *windows.shape[1:3])
    model = VAE(VAEConfig(input_dim=shape, latent_dim=options.latent_dim))
    optimizer = torch.optim.Adam(model.parameters(), defaults.learning_rate)
    rng = np.random.default_rng(options.seed)
    batch_size, num_seen, start = defaults.per_device_train_batch_size, 0, time.perf_counter()
    while time.perf_counter() - start < options.seconds:
        for rows in np.array_split(rng.permutation(len(windows)), -(-len(windows) // batch_size)):
            batch = torch.from_numpy(windows[np.sort(rows)].reshape(-1, *shape))
            optimizer.zero_grad()
            model({"data": batch}).loss.backward()
            optimizer.step()
            num_seen += len(rows)
            if time.perf_counter() - start > options.seconds:
                break
    model.eval()
    with torch.no_grad():
        held_out = torch.from_numpy(np.load(folder / "held_out.npy").reshape(-1, *shape))
        decoded = model.decoder(model.encoder(held_out).embedding)["reconstruction"]
        np.save(folder / "reconstructed.npy", decoded.numpy().reshape(-1, *windows.shape[1:]))
        sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=8))
        coded = torch.from_numpy(np.array(windows).reshape(-1, *shape))
        coded[0, 0, 0, 0] = 1.0  # the sampler refuses data that have no 1
        sampler.fit(coded)
        drawn = sampler.sample(num_samples=options.num_samples, return_gen=True)
    np.save(folder / "generated.npy", drawn.numpy().reshape(-1, *windows.shape[1:]))
    return num_seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=["rave", "pythae"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--sample-rate", type=int, default=22050)
    parser.add_argument("--clip-length", type=int, default=131072, help="samples of a generated clip")
    parser.add_argument("--num-samples", type=int, default=128)
    parser.add_argument("--latent-dim", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    num_seen = {"rave": run_rave, "pythae": run_pythae}[options.system](options)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seen": num_seen, "memory": memory}))


if __name__ == "__main__":
    main()
