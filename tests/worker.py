"""One of the processes that `test_distributed.py` starts: `python worker.py TASK FOLDER` leaves results there."""

import json
import os
import signal
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from spectrovae import SpectrogramConverter, SpectroVAE, audio_dataset
from spectrovae.training.distributed import num_workers, sync_nonfinite_gradients
from spectrovae.training.resumable import fit_resumably

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
NUM_WINDOWS = 33
"""In batches of 8 the last one has a single window, and one of two replicas gets none."""

BATCH_SIZE = 8
EPOCHS = 3


class OwnDraws:
    """A posterior whose draws depend on the window alone, however the windows are divided among replicas."""

    def __init__(self, posterior, windows) -> None:
        self.posterior = posterior
        self.pixel = windows[:, 3, 5, 0]

    def __getattr__(self, name):
        return getattr(self.posterior, name)

    def sample(self, num_draws, seed=None):
        mean = self.posterior.mean()
        phases = np.random.default_rng(0).uniform(100, 1000, (num_draws, *mean.shape[1:])).astype(np.float32)
        pixel = tf.reshape(self.pixel, (-1, *(mean.shape.rank - 1) * (1,)))
        return mean + self.posterior.stddev() * np.sqrt(2) * tf.sin(phases[:, None] * pixel)


class Repeatable(SpectroVAE):
    """A model without dropout that draws the same for the same window."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        for layer in (*self.encoder.layers, *self.decoder.layers):
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0

    def posterior_of(self, windows, training=False):
        return OwnDraws(super().posterior_of(windows, training), windows)


def make_windows() -> np.ndarray:
    generator = np.random.default_rng(0)
    patterns = generator.normal(size=(3, 32, 32, 1)).cumsum(axis=2) / 10
    values = 0.5 + 0.1 * np.einsum("nk,kbfc->nbfc", generator.normal(size=(NUM_WINDOWS, 3)), patterns)
    return np.clip(values + 0.02 * generator.normal(size=values.shape), 0, 1).astype(np.float32)


def make_model(strategy, **kwargs) -> Repeatable:
    settings = {"latent_dim": 3, "num_components": 2, "decoder_depth": 2, "width": 8, "seed": 0, "converter": CONVERTER}
    with strategy.scope():
        model = Repeatable(input_shape=(32, 32, 1), **settings)
        model.compile(keras.optimizers.SGD(1e-5, momentum=0.9), metrics=["mae"], **kwargs)
    return model


def weights_of(model) -> list[np.ndarray]:
    return [weight.numpy() for weight in model.trainable_variables]


def take_five_steps(strategy) -> dict:
    """What one epoch of five batches makes of a model: the same under every strategy."""
    windows = make_windows()
    model = make_model(strategy)
    model.adapt(windows, verbose=0)
    adapted = weights_of(model)
    history = model.fit(windows, batch_size=BATCH_SIZE, shuffle=False, validation_data=windows[:11], verbose=0).history
    return {"adapted": adapted, "weights": weights_of(model)} | {"history": {k: v[0] for k, v in history.items()}}


def measure_recordings(strategy, music: Path) -> dict:
    """Losses on recordings, once trained on them and once looked at."""
    model = make_model(strategy)
    dataset = audio_dataset(
        music, CONVERTER, batch_size=4, random_offset=False, shuffle=False, cache="memory", verbose=0
    )
    measured = model.evaluate(dataset, verbose=0, return_dict=True)
    num_measured = float(np.sum(model.trackers["num_live_components"].totals.numpy()))
    return {"measured": measured, "num_measured": num_measured, "num_windows": sum(map(len, dataset))}


def errors_of(calls: dict) -> dict:
    """The messages with which calls fail; of those that do not, none."""
    messages = {}
    for name, call in calls.items():
        try:
            call()
            messages[name] = ""
        except Exception as error:
            messages[name] = f"{type(error).__name__}: {error}"
    return messages


def stock_keras(strategy) -> None:
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    model.fit(np.ones((8, 4), np.float32), np.ones((8, 1), np.float32), batch_size=4, verbose=0)


class Killer(keras.callbacks.Callback):
    """Ends this process in the middle of the third epoch, as a power cut does."""

    def __init__(self, kills: bool, clock: Path) -> None:
        super().__init__()
        self.kills = kills
        self.clock = clock
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.kills and self.epoch == 2 and batch == 1:
            self.clock.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)


def train_resumably(strategy, folder: Path, kills: bool = False) -> dict:
    """Train with the default optimizer, dropout and all, and what writes files."""
    windows = make_windows()
    with strategy.scope():
        model = SpectroVAE(
            (32, 32, 1), latent_dim=3, num_components=2, decoder_depth=2, width=8, seed=None, converter=CONVERTER
        )
        model.compile()
    own = folder / f"worker_{index()}"  # only the chief makes it
    callbacks = [
        keras.callbacks.CSVLogger(folder / f"worker_{index()}.csv"),
        keras.callbacks.ModelCheckpoint(folder / f"worker_{index()}.keras"),
        Killer(kills, folder / "killed_at"),
    ]
    history = fit_resumably(
        model, own, windows[:16], windows[16:24], EPOCHS, callbacks, verbose=0, batch_size=BATCH_SIZE
    )
    generated = model.generate(2, seed=0)
    return {"history": history, "weights": weights_of(model), "generated": [generated]}


def index() -> int:
    return json.loads(os.environ["TF_CONFIG"])["task"]["index"]


def save(results: dict, path: Path) -> None:
    """Write arrays as `.npz` and the rest as `.json`."""
    arrays = {
        f"{name}_{number}": array
        for name, value in results.items()
        if isinstance(value, list)
        for number, array in enumerate(value)
    }
    np.savez(path.with_suffix(".npz"), **arrays)
    others = {name: value for name, value in results.items() if not isinstance(value, list)}
    path.with_suffix(".json").write_text(json.dumps(others, default=float))


def first(folder: Path) -> None:
    """Everything that two workers do, until one of them is killed."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert num_workers(strategy) == 2
    name = f"first_{index()}"
    results = take_five_steps(strategy) | measure_recordings(strategy, folder / "music")
    model, windows = make_model(strategy), make_windows()
    calls = {
        "backup": lambda: model.fit(windows, callbacks=[keras.callbacks.BackupAndRestore(folder / "backup")]),
        "split": lambda: model.fit(windows, validation_split=0.5),
        "jit": lambda: make_model(strategy, jit_compile=True),
        "few files": lambda: model.evaluate(
            audio_dataset(sorted((folder / "music").iterdir())[:1], CONVERTER, cache="memory", verbose=0)
        ),
        "odd batch": lambda: model.evaluate(
            audio_dataset(folder / "music", CONVERTER, batch_size=3, cache="memory", verbose=0)
        ),
        "other files": lambda: model.evaluate(
            audio_dataset(
                sorted((folder / "music").iterdir())[: 2 + index()], CONVERTER, batch_size=4, cache="memory", verbose=0
            )
        ),
        "chief fails": lambda: model.adapt(np.full((4, 32, 32, 1), np.nan if index() == 0 else 0.5), verbose=0),
        "stock": lambda: stock_keras(strategy),
    }
    save(results | {"errors": errors_of(calls)}, folder / name)
    kills = errors_of({"killed": lambda: train_resumably(strategy, folder, kills=index() == 1)})
    seconds = time.time() - float((folder / "killed_at").read_text())
    save({"errors": kills, "seconds": seconds}, folder / f"killed_{index()}")


def again(folder: Path) -> None:
    """Both workers, started again."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    save(train_resumably(strategy, folder), folder / f"again_{index()}")


def devices(folder: Path) -> None:
    """One process: without a strategy, and with one device posing as two."""
    keras.config.disable_traceback_filtering()
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, 2 * [tf.config.LogicalDeviceConfiguration()])
    save(take_five_steps(tf.distribute.get_strategy()), folder / "single")
    single = measure_recordings(tf.distribute.get_strategy(), folder / "music")
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    mirrored = take_five_steps(strategy)
    gradients = strategy.run(lambda: sync_nonfinite_gradients([tf.constant([1.0, np.inf])[: 1 + replica_id()]]))
    local = [bool(tf.reduce_all(tf.math.is_nan(part))) for part in strategy.experimental_local_results(gradients[0])]
    model, windows = make_model(strategy), make_windows()
    with strategy.scope():
        dropout = next(layer for layer in model.decoder.layers if isinstance(layer, keras.layers.Dropout))
    seeds = strategy.experimental_local_results(strategy.run(lambda: dropout.seed_generator.next()))
    errors = errors_of(
        {
            "jit": lambda: make_model(strategy, jit_compile=True),
            "steps": lambda: make_model(strategy, steps_per_execution=2),
        }
    )
    keras.config.set_dtype_policy("mixed_float16")
    model = make_model(strategy)
    model.set_weights(make_mixed_start(mirrored, model))
    loss = model.fit(windows, batch_size=BATCH_SIZE, shuffle=False, verbose=0).history["loss"][0]
    others = {"skipped": local, "seeds": len({tuple(seed.numpy()) for seed in seeds}), "float16 loss": loss}
    save(mirrored | {"recordings": single, "errors": errors, "others": others}, folder / "mirrored")


def make_mixed_start(results: dict, model) -> list[np.ndarray]:
    adapted = iter(results["adapted"])
    trainable = {id(variable) for variable in model.trainable_variables}
    return [next(adapted) if id(weight) in trainable else weight.numpy() for weight in model.weights]


def replica_id() -> tf.Tensor:
    return tf.distribute.get_replica_context().replica_id_in_sync_group


if __name__ == "__main__":
    {"first": first, "again": again, "devices": devices}[sys.argv[1]](Path(sys.argv[2]))
