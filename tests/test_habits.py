"""What Keras users do without thinking, and what happens here: one table of habits for each kind."""

import copy
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from spectrovae import GaussianLikelihood, GaussianMixturePrior, SpectrogramConverter, SpectroVAE, diagnose

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32)
BATCH_SIZE = 16


def make_model(kind=SpectroVAE, **kwargs) -> SpectroVAE:
    settings = {"latent_dim": 4, "num_components": 2, "decoder_depth": 2, "width": 8, "converter": CONVERTER, "seed": 0}
    return kind((32, 32, 1), **settings | kwargs)


class Still:
    """A model that training does not change, so that equal data have equal losses."""

    def __init__(self, windows: np.ndarray) -> None:
        self.model = make_model()
        self.model.compile(keras.optimizers.SGD(0.0))
        self.model.adapt(windows, verbose=0)
        states = [variable for variable in self.model.variables if variable.path.endswith("seed_generator_state")]
        self.states = [(state, state.numpy()) for state in states]

    def loss(self, call) -> float:
        """Return the loss that a call of `fit` or `evaluate` gives; all draws are the same each time."""
        for state, value in self.states:
            state.assign(value)
        result = call(self.model)
        return result.history["loss"][0] if isinstance(result, keras.callbacks.History) else result["loss"]


@pytest.fixture(scope="module")
def still(windows) -> Still:
    return Still(windows)


@pytest.fixture(scope="module")
def trained(windows) -> SpectroVAE:
    model = make_model()
    model.compile()
    model.fit(windows, batch_size=BATCH_SIZE, verbose=0)
    return model


class Pieces(keras.utils.PyDataset):
    """Batches of windows."""

    def __init__(self, windows: np.ndarray) -> None:
        super().__init__()
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows) // BATCH_SIZE

    def __getitem__(self, index: int) -> tuple:
        return (self.windows[index * BATCH_SIZE : (index + 1) * BATCH_SIZE],)


def batches_of(windows):
    return (windows[start : start + BATCH_SIZE] for start in range(0, len(windows), BATCH_SIZE))


def dataset_of(*parts):
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(BATCH_SIZE)


FORMS = {
    "array": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "tensor": tf.constant,
    "pair of windows and targets": lambda x: (x, x),
    "triple": lambda x: (x, x, np.ones(len(x))),
    "dictionary of one array": lambda x: {"windows": x},
    "list of one array": lambda x: [x],
    "list of windows": list,
    "tf.data": dataset_of,
    "tf.data of pairs": lambda x: dataset_of(x, x),
    "generator": batches_of,
    "generator of tuples": lambda x: ((batch,) for batch in batches_of(x)),
    "iterator of tf.data": lambda x: iter(dataset_of(x)),
    "PyDataset": Pieces,
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras says so of every generator
@pytest.mark.parametrize("form", FORMS)
def test_fit_takes_data_in_the_form_of(form, still, windows):
    options = {"epochs": 1, "verbose": 0, "shuffle": False}
    if "array" in form or "list" in form or form in ("float64", "tensor", "pair of windows and targets", "triple"):
        options["batch_size"] = BATCH_SIZE
    expected = still.loss(lambda model: model.fit(windows, batch_size=BATCH_SIZE, verbose=0, shuffle=False))
    assert still.loss(lambda model: model.fit(FORMS[form](windows), **options)) == pytest.approx(expected, rel=1e-5)


WEIGHTS = np.linspace(0, 2, 48)
WEIGHTED = {
    "fit(x, y, sample_weight=w)": lambda model, x, **o: model.fit(x, x, sample_weight=WEIGHTS, shuffle=False, **o),
    "fit(x, sample_weight=w)": lambda model, x, **o: model.fit(x, sample_weight=WEIGHTS, shuffle=False, **o),
    "fit(x, sample_weight=list)": lambda model, x, **o: model.fit(x, sample_weight=[*WEIGHTS], shuffle=False, **o),
    "fit((x, None, w))": lambda model, x, **o: model.fit((x, None, WEIGHTS), shuffle=False, **o),
}
MEASURED = {
    "evaluate(x, x, sample_weight=w)": lambda model, x, **o: model.evaluate(x, x, sample_weight=WEIGHTS, **o),
    "evaluate(x, sample_weight=w)": lambda model, x, **o: model.evaluate(x, sample_weight=WEIGHTS, **o),
    "evaluate((x, x, w))": lambda model, x, **o: model.evaluate((x, x, WEIGHTS), **o),
}


@pytest.mark.parametrize("habit", WEIGHTED | MEASURED)
def test_weights_count(habit, still, windows):
    table, options = (WEIGHTED, {}) if habit in WEIGHTED else (MEASURED, {"return_dict": True})
    first = next(iter(table.values()))
    options |= {"batch_size": BATCH_SIZE, "verbose": 0}
    expected = still.loss(lambda model: first(model, windows, **options))
    assert still.loss(lambda model: table[habit](model, windows, **options)) == pytest.approx(expected, rel=1e-5)
    twice = still.loss(lambda model: model.fit(windows, sample_weight=2 * WEIGHTS, shuffle=False, **BATCHES))
    once = still.loss(lambda model: model.fit(windows, sample_weight=WEIGHTS, shuffle=False, **BATCHES))
    assert twice == pytest.approx(once, rel=1e-5)  # of means only the shares count


BATCHES = {"batch_size": BATCH_SIZE, "verbose": 0}


def with_nan(windows):
    spoiled = windows.copy()
    spoiled[3, 5, 5] = np.nan
    return spoiled


REFUSED = {
    "weights of 0": (lambda model, x: model.fit(x, sample_weight=np.zeros(48)), "not 0 for all windows"),
    "weights of NaN": (lambda model, x: model.fit(x, sample_weight=np.full(48, np.nan)), "must be finite"),
    "negative weights": (lambda model, x: model.fit(x, sample_weight=-WEIGHTS), "0 or more"),
    "class_weight": (lambda model, x: model.fit(x, class_weight={0: 1}), "sample_weight.*class_weight={0: 1}"),
    "loss": (lambda model, x: model.compile(loss="mse"), "its own loss.*loss='mse'"),
    "loss_weights": (lambda model, x: model.compile(loss_weights=[1]), r"its own loss.*loss_weights=\[1\]"),
    "third argument of compile": (lambda model, x: model.compile("adam", None, [1]), r"loss_weights=\[1\]"),
    "automatic steps": (lambda model, x: model.compile(steps_per_execution="auto"), "steps_per_execution='auto'"),
    "no data": (lambda model, x: model.fit(), "There are no windows"),
    "several inputs": (lambda model, x: model.fit({"a": x, "b": x}), r"one input.*\['a', 'b'\]"),
    "list of batches": (lambda model, x: model.fit([x, x]), r"np\.concatenate.*list of 2"),
    "pair twice": (lambda model, x: model.fit((x, x), x), "tuple of 2"),
    "unbatched dataset": (lambda model, x: model.fit(tf.data.Dataset.from_tensor_slices(x)), r"\.batch\(16\)"),
    "dataset of dictionaries": (lambda model, x: model.fit(dataset_of({"windows": x})), r"\['windows'\].*dataset\.map"),
    "single window": (lambda model, x: model.fit(x[0]), r"window\[None\]"),
    "no channel axis": (lambda model, x: model.fit(x[..., 0]), r"windows\[\.\.\., None\]"),
    "NaN": (lambda model, x: model.fit(with_nan(x)), "hold NaN"),
    "decibels": (lambda model, x: model.fit(80 * x - 80), "scale others to that range"),
    "encode of a dictionary": (lambda model, x: model.encode({"windows": x}), r"\['windows'\]"),
    "a rate that follows a schedule, set by a callback": (
        lambda model, x: model.fit(x, callbacks=[keras.callbacks.ReduceLROnPlateau("loss")]),
        "ReduceLROnPlateau sets the learning rate.*AdamW",
    ),
    "the same for LearningRateScheduler": (
        lambda model, x: model.fit(x, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)]),
        "LearningRateScheduler sets the learning rate",
    ),
}


@pytest.mark.parametrize("habit", REFUSED)
def test_what_cannot_be_done_is_refused_with_advice(habit, trained, windows):
    call, message = REFUSED[habit]
    before = trained.get_weights()
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        call(trained, windows)
    for ours, theirs in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_positional_arguments_are_in_the_order_of_keras(windows, capsys):
    model = make_model()
    model.compile(keras.optimizers.SGD(0.0), None, None, ["mae"], None, True, 1, False)
    assert model.run_eagerly and not model.jit_compile
    history = model.fit(windows, None, 24, 1, 0).history
    assert {"loss", "mae"} <= history.keys()
    assert capsys.readouterr().out == ""  # verbose=0, for `adapt` too


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_generator_is_adapted_to_and_loses_no_batch(windows):
    losses = []
    for data in (batches_of(windows), windows):
        model = make_model()
        model.compile(keras.optimizers.SGD(0.0))
        history = model.fit(data, batch_size=None, shuffle=False, verbose=0).history
        assert model.adapted
        losses.append(history["loss"][0])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    endless = (windows[:BATCH_SIZE] for _ in iter(int, 1))
    model.fit(endless, steps_per_epoch=2, epochs=2, verbose=0)


CALLBACKS = {
    "ModelCheckpoint": lambda folder: keras.callbacks.ModelCheckpoint(folder / "model.keras"),
    "EarlyStopping": lambda folder: keras.callbacks.EarlyStopping("loss", restore_best_weights=True),
    "BackupAndRestore": lambda folder: keras.callbacks.BackupAndRestore(folder / "backup"),
    "CSVLogger": lambda folder: keras.callbacks.CSVLogger(folder / "log.csv"),
    "TensorBoard": lambda folder: keras.callbacks.TensorBoard(folder / "logs"),
    "TerminateOnNaN": lambda folder: keras.callbacks.TerminateOnNaN(),
    "SwapEMAWeights": lambda folder: keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
    "LambdaCallback": lambda folder: keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_work_beside_the_default_optimizer(name, trained, windows, tmp_path):
    callback = CALLBACKS[name](tmp_path)
    history = trained.fit(windows, epochs=2, callbacks=[callback], **BATCHES).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("name", ["ReduceLROnPlateau", "LearningRateScheduler"])
def test_callbacks_set_a_rate_that_is_fixed(name, windows):
    model = make_model(warm_start=False)
    model.compile(keras.optimizers.AdamW(1e-3, use_ema=True), run_eagerly=True)
    callback = {
        "ReduceLROnPlateau": lambda: keras.callbacks.ReduceLROnPlateau("loss", 0.5, patience=1, min_delta=1e9),
        "LearningRateScheduler": lambda: keras.callbacks.LearningRateScheduler(lambda epoch, rate: 1e-3 / 2**epoch),
    }[name]()
    model.fit(windows[:4], epochs=2, verbose=0, callbacks=[callback])
    assert float(model.optimizer.learning_rate) == pytest.approx(5e-4)


def by_weights(model, folder):
    model.save_weights(folder / "model.weights.h5")
    copied = make_model(seed=1)
    copied.load_weights(folder / "model.weights.h5")
    return copied


def by_file(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def by_clone(model, folder):
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    return copied


@pytest.mark.filterwarnings("ignore:.*optimizer.*:UserWarning")  # of weights that are loaded without an optimizer
@pytest.mark.parametrize("way", [by_weights, by_file, by_clone, lambda model, folder: copy.deepcopy(model)])
def test_copies_give_the_same(way, trained, windows, tmp_path):
    copied = way(trained, tmp_path)
    np.testing.assert_array_equal(copied.encode(windows[:4]), trained.encode(windows[:4]))
    np.testing.assert_array_equal(copied.generate(2, seed=3), trained.generate(2, seed=3))


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    trained.export(folder)
    return folder


@pytest.mark.parametrize("latent_steps", [1, 4])
def test_export_runs_without_the_library(latent_steps, trained, windows, tmp_path):
    model = trained
    if latent_steps > 1:
        model = make_model(latent_steps=latent_steps)
        model.adapt(windows, verbose=0)
    model.export(tmp_path / "model")
    program = (
        "import sys, numpy as np, tensorflow as tf; model = tf.saved_model.load(sys.argv[1]);"
        "windows = np.load(sys.argv[1] + '.npy'); codes = model.encode(windows);"
        "drawn = [model.generate(tf.constant(100), tf.constant(7), tf.constant(1.0)) for _ in range(2)];"
        "np.savez(sys.argv[1], codes, model.decode(codes), model.serve(windows), *drawn);"
        "assert 'spectrovae' not in sys.modules"
    )
    np.save(tmp_path / "model.npy", windows[:5])
    subprocess.run([sys.executable, "-c", program, tmp_path / "model"], check=True, capture_output=True)
    with np.load(tmp_path / "model.npz") as file:
        codes, decoded, served, drawn, again = (file[name] for name in file.files)
    np.testing.assert_allclose(codes, model.encode(windows[:5]), atol=1e-5)
    np.testing.assert_allclose(decoded, model.reconstruct(windows[:5]), atol=1e-5)
    np.testing.assert_allclose(served, decoded, atol=1e-5)
    np.testing.assert_array_equal(drawn, again)
    expected = model.decode(model.prior.sample(100, seed=1))
    assert abs(drawn.mean() - expected.mean()) < 0.05 and abs(drawn.std() - expected.std()) < 0.05


def test_parts_are_layers_of_other_models(trained, windows):
    inputs = keras.Input((32, 32, 1))
    for part, expected in ((trained.encoder, trained.encoder(windows[:2])), (trained, trained(windows[:2]))):
        other = keras.Model(inputs, keras.layers.Flatten()(part(inputs)))
        np.testing.assert_allclose(other(windows[:2]), np.reshape(expected, (2, -1)), rtol=1e-5)
    codes = keras.Input(trained.code_shape)
    other = keras.Model(codes, trained.likelihood(trained.decoder(codes)))
    drawn = trained.prior.sample(2, seed=0)
    np.testing.assert_allclose(np.clip(other(drawn), 0, 1), trained.decode(drawn), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("endpoint", ["encode", "decode"])
def test_exported_endpoints_run_in_lite_rt(endpoint, trained, exported, windows):
    converter = tf.lite.TFLiteConverter.from_saved_model(str(exported), signature_keys=[endpoint])
    runner = tf.lite.Interpreter(model_content=converter.convert()).get_signature_runner(endpoint)
    codes = trained.encode(windows[:3])
    given, expected = (windows[:3], codes) if endpoint == "encode" else (codes, trained.decode(codes))
    (result,) = runner(**{"windows" if endpoint == "encode" else "codes": given}).values()
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the converter
@pytest.mark.parametrize("part", ["encoder", "decoder", "model"])
def test_parts_run_in_onnx(part, trained, windows, tmp_path):
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    network = trained if part == "model" else getattr(trained, part)
    network.export(tmp_path / "part.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "part.onnx")
    given = trained.encode(windows[:3]) if part == "decoder" else windows[:3]
    (result,) = session.run(None, {session.get_inputs()[0].name: given})
    np.testing.assert_allclose(result, network(given), atol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Halved(SpectroVAE):
    """Counts the KL term half."""

    def compute_terms(self, windows, training=False):
        terms = super().compute_terms(windows, training)
        return terms | {"kl_loss": terms["kl_loss"] / 2}


@keras.saving.register_keras_serializable(package="tests")
class Sharp(GaussianLikelihood):
    """A likelihood of one's own."""

    def log_prob(self, parameters, windows):
        return 2 * super().log_prob(parameters, windows)


def test_subclasses_train_and_are_saved(windows, tmp_path):
    for kind, likelihood in ((Halved, "heteroscedastic_gaussian"), (SpectroVAE, Sharp())):
        model = make_model(kind, likelihood=likelihood)
        model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        history = model.fit(windows[:8], verbose=0).history
        assert history["loss"][0] == pytest.approx(history["reconstruction_loss"][0] + history["kl_loss"][0], rel=1e-5)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert type(loaded) is kind and type(loaded.likelihood) is type(model.likelihood)
        np.testing.assert_array_equal(loaded.encode(windows[:2]), model.encode(windows[:2]))


def test_prior_trains_in_another_model():
    class Density(keras.Model):
        """The density of codes."""

        def __init__(self):
            super().__init__()
            self.prior = GaussianMixturePrior(num_components=2, seed=0)

        def call(self, codes):
            return -self.prior.log_prob(codes)

    codes = np.random.default_rng(0).normal(3, 0.1, (64, 2)).astype(np.float32)
    model = Density()
    model.compile(keras.optimizers.Adam(0.05), loss=lambda y, loss: loss)
    losses = model.fit(codes, np.zeros(64), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 1


def test_summary_names_the_parts(trained, capsys):
    trained.summary(expand_nested=True)
    shown = capsys.readouterr().out
    for part in ("encoder (Functional)", "decoder (Functional)", "prior (GaussianMixturePrior)", "texture (Texture)"):
        assert part in shown
    assert "linear_mean" in shown and "deep_window" in shown


def test_values_show_themselves_as_print_does(trained, windows):
    diagnosis = diagnose(trained, windows[:8])
    assert repr(diagnosis) == str(diagnosis) and "Verdict" in repr(diagnosis)
    namespace = {"SpectrogramConverter": SpectrogramConverter}
    assert eval(repr(CONVERTER), namespace) == CONVERTER


def test_sound_plays_in_notebooks(trained):
    display = pytest.importorskip("IPython.display")
    clips = CONVERTER.to_audio(trained.generate(2, seed=0, temperature=0))
    sound = display.Audio(clips[0], rate=CONVERTER.sample_rate)
    assert clips.shape == (2, 512) and len(sound.data) == 44 + 2 * 512 and "<audio" in sound._repr_html_()


def test_global_seed_decides_weights_and_draws(windows):
    results = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        model = make_model(seed=None)
        model.compile(run_eagerly=True)
        model.fit(windows[:8], batch_size=4, verbose=0)
        results.append(model.generate(2, seed=1))
    np.testing.assert_allclose(*results, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_near_full_precision(policy, still, windows):
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model()
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(still.model.get_weights())
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)  # for so few steps compiling takes longer
    loss = model.evaluate(windows, verbose=0, return_dict=True)["loss"]
    expected = still.model.evaluate(windows, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(expected, rel=0.01, abs=10)


def run(program: str, *words, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, words)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_files_load_in_a_new_process(trained, tmp_path):
    trained.save(tmp_path / "model.keras")
    load = "; import sys; print(keras.saving.load_model(sys.argv[1]).generate(1, seed=0).shape)"
    for imports in ("import keras, spectrovae", "from spectrovae import SpectroVAE; import keras"):
        result = run(imports + load, tmp_path / "model.keras")
        assert result.stdout == "(1, 32, 32, 1)\n", result.stderr


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_are_refused_in_a_sentence(backend):
    result = run("import spectrovae; spectrovae.SpectroVAE", KERAS_BACKEND=backend)
    assert "needs Keras with the TensorFlow backend" in result.stderr.splitlines()[-1]
