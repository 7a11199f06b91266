"""A model with several codes along a window, in every room of the house."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import spectrovae.model.sequence_prior
from spectrovae import SpectrogramConverter, SpectroVAE, audio_dataset
from spectrovae.audio.recordings import WindowPosition
from spectrovae.evaluation.collection import (
    EncodedCollection,
    encode_collection,
    find_similar,
    find_styles,
    typical_windows,
)
from spectrovae.evaluation.diagnosis import diagnose
from spectrovae.evaluation.sound_distance import pairwise_distance
from spectrovae.pieces import continue_audio, generate_audio, interpolate, morph
from spectrovae.report.callbacks import TensorBoardSounds
from spectrovae.report.folder import write_results
from spectrovae.report.page import write_page

pytestmark = pytest.mark.filterwarnings("ignore:The peak was over 1")

STEPS, DIM = 4, 3

POSITION = WindowPosition(Path("a.wav"), 0.0)


@pytest.fixture(scope="module")
def parts(windows) -> np.ndarray:
    """160 windows, shifted in time so that what follows what is no accident of the window's start."""
    shifts = np.random.default_rng(0).integers(0, 32, 160)
    return np.stack([np.roll(windows[k % 48], shift, axis=1) for k, shift in enumerate(shifts)])


@pytest.fixture(scope="module")
def saved(parts, tmp_path_factory) -> Path:
    converter = SpectrogramConverter(sample_rate=8000, n_fft=64, hop_length=16, num_frames=32, num_iterations=8)
    model = SpectroVAE((32, 32, 1), DIM, 2, 2, converter=converter, width=8, latent_steps=STEPS, seed=0)
    model.compile()
    model.fit(parts, epochs=2, verbose=0)
    path = tmp_path_factory.mktemp("sequences") / "model.keras"
    model.save(path)
    return path


@pytest.fixture
def model(saved):
    return keras.saving.load_model(saved)


@pytest.fixture
def spectrograms(model, monkeypatch) -> list[np.ndarray]:
    """What is turned into sound."""
    inverted = []

    def to_audio(values, seed=None):
        inverted.append(values)
        return np.zeros(values.shape[1] * model.converter.hop_length, np.float32)

    monkeypatch.setattr(model.converter, "to_audio", to_audio)
    return inverted


def test_training_and_saving(model, saved, parts):
    losses = model.evaluate(parts, verbose=0, return_dict=True)
    assert np.isfinite(list(losses.values())).all() and losses["rmse_db"] < 80 * parts.std()
    again = keras.saving.load_model(saved)
    np.testing.assert_array_equal(again.encode(parts), model.encode(parts))
    np.testing.assert_array_equal(again.generate(2, seed=1, duration=0.2), model.generate(2, seed=1, duration=0.2))
    assert again.latent_steps == STEPS and type(again.prior).__name__ == "SequencePrior"


def test_codes_of_arrays_datasets_and_draws(model, parts):
    codes = model.encode(parts[:10], batch_size=4)
    assert codes.shape == (10, STEPS, DIM) and codes.dtype == np.float32
    np.testing.assert_allclose(model.encode(tf.data.Dataset.from_tensor_slices(parts[:10]).batch(3)), codes, atol=1e-5)
    draws = model.encode(parts, sample=True, seed=1)
    deviations = (draws - model.encode(parts)) / model.posterior_of(parts).stddev()
    assert np.std(deviations) == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(model.predict(parts[:4], verbose=0), model.reconstruct(parts[:4]), atol=1e-5)
    for wrong in ((2, DIM), (2, STEPS, 5), (2, 1, STEPS, DIM)):
        with pytest.raises(ValueError, match=r"\(num_windows, 4, 3\)"):
            model.decode(np.zeros(wrong))
    path = interpolate(model, parts[0], codes[1], num_steps=3, texture=0.0)
    np.testing.assert_allclose(path[[0, 2]], model.reconstruct(parts[:2]), atol=1e-5)
    np.testing.assert_allclose(path[1], model.decode(codes[:2].mean(axis=0, keepdims=True))[0], atol=1e-5)


def test_generated_windows_have_the_length_that_is_asked_for(model):
    for duration, num_frames in ((None, 32), (0.001, 1), (0.064, 32), (0.0641, 33), (1.0, 500)):
        windows = model.generate(2, seed=1, duration=duration)
        assert windows.shape == (2, 32, num_frames, 1) and 0 <= windows.min() <= windows.max() <= 1
    np.testing.assert_array_equal(model.generate(2, seed=1, duration=1.0), windows)
    assert not np.array_equal(model.generate(2, seed=2, duration=1.0), windows)
    with pytest.raises(ValueError, match="duration=0"):
        model.generate(1, duration=0)


def test_a_model_of_one_code_says_why_it_can_not(make_model, windows):
    for call in (
        lambda model: model.generate(1, duration=1.0),
        lambda model: continue_audio(model, windows[:1], duration=0.1),
    ):
        with pytest.raises(ValueError, match="latent_steps above 1.*latent_steps=1"):
            call(make_model())


def test_long_pieces_are_as_varied_in_the_end_as_in_the_beginning(model):
    codes = np.asarray(model.prior.sample(3, num_steps=400, seed=0))
    spreads = [part.std(axis=(0, 1)) for part in (codes[:, :200], codes[:, 200:])]
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=0.5)
    audio = generate_audio(model, 1.2345, seed=3)
    assert (audio.shape, audio.dtype) == ((round(8000 * 1.2345),), np.float32) and np.abs(audio).max() <= 1
    np.testing.assert_array_equal(generate_audio(model, 1.2345, seed=3), audio)
    assert not np.allclose(generate_audio(model, 1.2345, seed=4), audio)


def test_components_of_a_piece_come_in_order(model, monkeypatch):
    chosen = []
    continue_from = model.prior.continue_from

    def watched(components, *rest):
        chosen.append(components)
        return continue_from(components, *rest)

    monkeypatch.setattr(model.prior, "continue_from", watched)
    generate_audio(model, 0.5, component=[1, 0, 1], seed=0)
    windows, (steps,) = chosen
    order = windows[:, 0].tolist()
    assert order == sorted(order[: len(order) // 2 + 1], reverse=True) + order[len(order) // 2 + 1 :]
    assert order[0] == order[-1] == 1 and np.abs(np.diff(order)).sum() == 2
    assert len(steps) == 32 - model.latent_steps and steps[-1] == 1 and np.abs(np.diff(steps)).sum() == 2
    generate_audio(model, 0.5, component=0, seed=0)
    assert (chosen[2] == 0).all() and (chosen[3] == 0).all()


def test_a_continuation_begins_where_the_recording_ends(model, parts, spectrograms, monkeypatch):
    duration, hop = 0.1, 16
    continue_audio(model, parts[:3], duration, seed=0, texture=0.0, overlap=0.064, temperature=0.5)
    reconstruction = model.reconstruct(parts[2:3])[0]
    # All but what the decoder sees of the next code.
    np.testing.assert_allclose(spectrograms[0][:, :8], reconstruction[:, :8], atol=1e-4)
    assert spectrograms[0].shape == (32, 32 + 50, 1)
    # The codes of the past decide what follows: held, where the chain holds and is not pulled to their mean.
    monkeypatch.setattr(spectrovae.model.sequence_prior, "_PULL", 0.0)
    transitions = model.prior.transitions
    transitions.coefficients.assign(np.eye(transitions.coefficients.shape[0])[:, :DIM])
    for weight in (transitions.means, model.prior.offsets):
        weight.assign(np.zeros(weight.shape))
    for name, value in (("lowest", -99.0), ("highest", 99.0)):
        getattr(transitions, name).assign(np.full(DIM, value))
    continue_audio(model, parts[:3], duration, seed=0, texture=0.0, temperature=0.0)
    past = model.encode(parts[2:3])
    held = model.decode(np.concatenate([past, np.repeat(past[:, -1:], 7, axis=1)], axis=1))[0, :, 32:82]
    np.testing.assert_allclose(spectrograms[1], held, atol=1e-4)
    assert spectrograms[1].shape == (32, round(8000 * duration) // hop, 1)


@pytest.mark.parametrize("overlap", [0.0, 0.0001, 0.0019, 0.002, 0.0333, 0.064])
@pytest.mark.parametrize("duration", [0.002, 0.0161, 0.1])
def test_a_continuation_has_its_length(model, parts, overlap, duration):
    audio = continue_audio(model, parts[:1], duration, overlap=overlap, seed=0)
    assert audio.shape == (round(8000 * overlap) + round(8000 * duration),) and audio.dtype == np.float32


def test_continuations_repeat_and_take_a_component(model, parts):
    options = {"duration": 0.1, "texture": 0.0}
    first = continue_audio(model, parts[:1], seed=1, **options)
    np.testing.assert_array_equal(continue_audio(model, parts[:1], seed=1, **options), first)
    assert not np.allclose(continue_audio(model, parts[:1], seed=2, **options), first)
    own = int(np.argmax(model.prior.responsibilities(model.encode(parts[:1]))))
    np.testing.assert_array_equal(continue_audio(model, parts[:1], seed=1, component=own, **options), first)
    model.component_names = ["a", "b"]
    other = continue_audio(model, parts[:1], seed=1, component=1 - own, **options)
    named = continue_audio(model, parts[:1], seed=1, component="ab"[1 - own], **options)
    np.testing.assert_array_equal(named, other)
    for name, value in (("overlap", -0.1), ("overlap", 0.07), ("duration", 0.0), ("component", 2), ("texture", -1.0)):
        with pytest.raises(ValueError, match=f"{name}="):
            continue_audio(model, parts[:1], **options | {name: value})


def test_morph_repeats_the_first_and_ends_with_the_second(model, parts, spectrograms):
    morph(model, parts[0], model.encode(parts[1:2])[0], duration=0.256, texture=0.0)
    first, second = model.reconstruct(parts[:2])
    assert spectrograms[0].shape == (32, 128, 1)
    np.testing.assert_allclose(spectrograms[0][:, :8], first[:, :8], atol=0.02)
    np.testing.assert_allclose(spectrograms[0][:, -8:], second[:, -8:], atol=0.02)
    morph(model, parts[0], parts[1], duration=0.1, texture=0.0)
    assert spectrograms[1].shape == (32, 50, 1) and np.isfinite(spectrograms[1]).all()
    with pytest.raises(ValueError, match="longer than a window"):
        morph(model, parts[0], parts[1], duration=0.05)
    with pytest.raises(ValueError, match=r"shape \(4, 3\).*shape \(3,\)"):
        morph(model, np.zeros(3), parts[1], duration=0.2)


def test_diagnosis_counts_dimensions_of_all_codes_and_compares_with_pca_of_the_parts(make_model, parts):
    model = make_model(latent_dim=DIM, latent_steps=STEPS)
    model.adapt(parts[:120], verbose=0)
    diagnosis = diagnose(model, parts[120:], training=parts[:120])
    assert diagnosis.rmse_db == pytest.approx(diagnosis.pca_rmse_db, rel=0.01)
    assert (diagnosis.latent_dim, diagnosis.latent_steps, diagnosis.num_active_dims) == (DIM, STEPS, DIM)
    assert "3 of 3 dimensions active in 4 codes along a window, KL" in str(diagnosis)
    measured = [model.evaluate(parts[120:], verbose=0, return_dict=True)["kl_loss"] for _ in range(4)]
    assert diagnosis.kl == pytest.approx(np.mean(measured), abs=4 * np.std(measured) + 1e-3)
    generated = model.decode(model.prior.sample(16, seed=0))
    assert diagnosis.generated_pairwise_db == pytest.approx(pairwise_distance(generated, model.converter), rel=1e-4)
    # A dimension that only differs along the window is in use; one that never differs is not.
    layer = model.encoder.get_layer("linear_mean")
    courses, spectra, bias = layer.get_weights()
    layer.set_weights([courses, spectra * [1, 1, 0], bias])
    along = np.concatenate([parts[:1, :, ::-1], parts[:1, :, ::-1]])
    assert diagnose(model, along).num_active_dims == 2
    assert diagnose(model, parts).num_active_dims == 2


def test_diagnosis_of_models_without_a_linear_optimum(make_model, parts):
    model = make_model(latent_steps=STEPS, likelihood="bernoulli")
    assert diagnose(model, parts[:40], training=parts[40:80]).pca_rmse_db > 0


def test_what_is_similar_does_not_depend_on_when_a_note_falls(make_model, windows):
    model = make_model(latent_dim=8, latent_steps=STEPS)
    model.adapt(windows, verbose=0)
    # The parts of a window in another order: other notes at each time, the same in all.
    moved = np.roll(windows, 8, axis=2)
    codes, variances = model.encode(windows), model.posterior_of(windows).variance().numpy()
    scales = np.sqrt(variances.mean(axis=(0, 1)) / STEPS)
    collection = EncodedCollection(codes, (POSITION,) * 48, scales)
    assert np.diag(collection.distances(model.encode(moved))).max() < 1e-3 < collection.spread
    means = codes.mean(axis=1) / scales
    expected = np.sqrt(np.square(means[:, None] - means).mean(axis=2))
    np.testing.assert_allclose(collection.distances(codes), expected, atol=1e-3)
    assert collection.spread == pytest.approx(np.sqrt(np.square(expected).sum() / (48 * 47)), rel=1e-4)
    # Two draws from one posterior are still the square root of two apart.
    first, second = (model.encode(windows, sample=True, seed=seed) for seed in (1, 2))
    distances = EncodedCollection(first, (POSITION,) * 48, scales).distances(second)
    assert np.mean(np.diag(distances)) == pytest.approx(np.sqrt(2), rel=0.1)
    for given in (codes[5:6], windows[5:6]):
        (found,) = find_similar(model, given, collection, num=1)
        assert found.distance < 1e-3


def test_styles_and_typical_windows(model, parts):
    positions = tuple(WindowPosition(Path("ab"[k % 2]), float(k)) for k in range(len(parts)))
    collection = EncodedCollection(model.encode(parts), positions, np.ones(DIM))
    styles = find_styles(model, collection)
    responsibilities = np.asarray(model.prior.responsibilities(collection.codes))
    np.testing.assert_allclose(styles.total_shares, responsibilities.mean(axis=0), rtol=1e-5)
    joint = np.log(responsibilities) + np.asarray(model.prior.log_prob(collection.codes))[:, None]
    for component, position in enumerate(styles.typical):
        own = np.flatnonzero(responsibilities.argmax(axis=1) == component)
        assert position == (positions[own[joint[own, component].argmax()]] if len(own) else None)
    middles = typical_windows(model)
    assert middles.shape == (2, 32, 32, 1)
    held = np.repeat(model.prior.means.numpy()[:, None], 2 * STEPS, axis=1)
    np.testing.assert_allclose(middles[:, :, :16], model.decode(held)[:, :, :16], atol=1e-5)


def test_pages_logs_and_results(model, music, parts, tmp_path):
    train, held_out = audio_dataset(music, model.converter, validation_split=0.3, cache="memory", seed=0, verbose=0)
    write_results(model, train, held_out, {"loss": [1.0, 0.5]}, tmp_path / "results", num_samples=2, seed=0)
    page = (tmp_path / "results" / "index.html").read_text(encoding="utf-8")
    assert page.count("at a distance of") == 2 and "4 codes along a window" in page
    collection = encode_collection(model, train)
    assert collection.codes.shape[1:] == (STEPS, DIM) and collection.scales.shape == (DIM,)
    short = write_page(tmp_path / "short.html", model, model.generate(1, duration=0.02, seed=0), collection=collection)
    assert "Style" not in short.read_text(encoding="utf-8")
    long = write_page(tmp_path / "long.html", model, model.generate(1, duration=0.2, seed=0), collection=collection)
    assert "Nearest to generated 1" in long.read_text(encoding="utf-8")
    logs = TensorBoardSounds(tmp_path / "logs", parts[:8], num_samples=1)
    logs.set_model(model)
    logs.on_train_begin()
    logs.on_epoch_end(0)
    logs.on_train_end()
    assert list((tmp_path / "logs").rglob("*tfevents*"))


def test_the_prior_is_fitted_within_a_strategy_too(parts):
    settings = {"decoder_depth": 2, "width": 8, "latent_steps": STEPS, "seed": 0}
    alone = SpectroVAE((32, 32, 1), DIM, 2, **settings)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        spread = SpectroVAE((32, 32, 1), DIM, 2, **settings)
    for model in (alone, spread):
        model.adapt(parts, verbose=0)
    for one, other in zip(alone.weights, spread.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5)
