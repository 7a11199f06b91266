import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from spectrovae import SequencePrior, SpectrogramConverter, SpectroVAE


def test_metrics_are_the_terms_of_the_evidence_lower_bound(make_model, windows):
    model = make_model(warm_start=False)
    history = model.fit(windows, validation_data=windows, epochs=2, verbose=0).history
    for prefix in ("", "val_"):
        assert {f"{prefix}{name}" for name in ("loss", "reconstruction_loss", "kl_loss", "rmse_db")} <= set(history)
        total = np.add(history[f"{prefix}reconstruction_loss"], history[f"{prefix}kl_loss"])
        np.testing.assert_allclose(history[f"{prefix}loss"], total, rtol=1e-4)


def test_terms_are_those_of_the_parts(make_model, windows):
    model = make_model(warm_start=False, num_kl_samples=1000, num_components=1)
    batch = tf.constant(windows[:3])
    terms = model.compute_terms(batch)
    model.prior.assign_mixture(np.zeros((1, 4)), np.ones((1, 4)))
    posterior = model.posterior_of(batch)
    mean, variance = posterior.mean(), posterior.variance()
    closed_form = 0.5 * np.sum(variance + mean**2 - 1 - np.log(variance), axis=-1)
    estimate = np.mean([model.compute_terms(batch)["kl_loss"] for _ in range(8)], axis=0)
    np.testing.assert_allclose(estimate, closed_form, rtol=0.05)
    assert terms["reconstruction_loss"].shape == (3,)
    np.testing.assert_allclose(terms["reconstruction"], model.reconstruct(batch), atol=1e-5)


def test_validation_error_is_that_of_the_posterior_mean_in_decibels(make_model, windows):
    model = make_model()
    model.compile(run_eagerly=True)
    model.adapt(windows, verbose=0)
    measured = model.evaluate(windows, verbose=0, return_dict=True)["rmse_db"]
    expected = 80 * np.sqrt(np.square(model.reconstruct(windows) - windows).mean())
    assert measured == pytest.approx(expected, rel=1e-4)


def test_error_of_linear_windows_is_measured_in_decibels_too(make_model, windows):
    converter = SpectrogramConverter(n_fft=64, hop_length=16, num_frames=32, scale="linear")
    model = make_model(converter=converter)
    model.compile(run_eagerly=True)
    measured = model.evaluate(windows, verbose=0, return_dict=True)["rmse_db"]
    levels = [converter.to_decibels(array) for array in (windows, model.reconstruct(windows))]
    assert measured == pytest.approx(np.sqrt(np.square(levels[0] - levels[1]).mean()), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "heteroscedastic_gaussian", "bernoulli"])
def test_training_lowers_the_loss_from_random_weights(make_model, windows, likelihood):
    model = make_model(likelihood=likelihood, warm_start=False)
    model.compile(keras.optimizers.Adam(3e-3))
    losses = model.fit(windows, epochs=12, batch_size=8, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 10


@pytest.mark.slow
def test_deep_paths_learn_what_the_linear_start_leaves(make_model, windows):
    # The square of a pattern's strength is not linear in it.
    curved = np.clip(windows + 4 * np.square(windows - 0.5), 0, 1)
    model = make_model(latent_dim=2)
    model.adapt(curved, verbose=0)
    before = model.evaluate(curved, verbose=0, return_dict=True)["loss"]
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(curved, epochs=40, batch_size=8, verbose=0)
    assert model.evaluate(curved, verbose=0, return_dict=True)["loss"] < before - 20


def test_fit_takes_arrays_and_datasets_with_or_without_targets(make_model, windows):
    model = make_model()
    model.compile(run_eagerly=True)
    windows = windows[:16]
    dataset = tf.data.Dataset.from_tensor_slices(windows).batch(16)
    for arguments in ([windows], [windows, windows], [dataset], [tf.data.Dataset.zip(dataset, dataset)]):
        assert np.isfinite(model.fit(*arguments, verbose=0).history["loss"]).all()


def test_sample_weights_weigh_the_windows(make_model, windows):
    model = make_model()
    model.compile(run_eagerly=True)
    odd = np.arange(len(windows)) % 2
    weighted = model.evaluate(windows, windows, sample_weight=odd, verbose=0, return_dict=True)["rmse_db"]
    assert weighted == pytest.approx(model.evaluate(windows[1::2], verbose=0, return_dict=True)["rmse_db"], rel=1e-4)
    assert weighted != pytest.approx(model.evaluate(windows, verbose=0, return_dict=True)["rmse_db"], rel=1e-2)


def test_the_same_seed_trains_the_same_model(make_model, windows):
    losses = [make_model().fit(windows, shuffle=False, verbose=0).history["loss"] for _ in range(2)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_validation_shows_the_average_that_training_ends_with(make_model, windows):
    model = make_model()
    model.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    logged = model.fit(windows, validation_data=windows, epochs=3, batch_size=8, verbose=0).history["val_rmse_db"][-1]
    assert model.evaluate(windows, verbose=0, return_dict=True)["rmse_db"] == pytest.approx(logged, rel=1e-4)


def test_metrics_of_the_user_compare_window_and_reconstruction(make_model, windows):
    model = make_model()
    model.compile(metrics=[keras.metrics.MeanAbsoluteError()], run_eagerly=True)
    measured = model.evaluate(windows, verbose=0, return_dict=True)["mean_absolute_error"]
    assert measured == pytest.approx(np.abs(model.reconstruct(windows) - windows).mean(), rel=1e-4)


def test_saved_model_is_the_same_in_another_process(make_model, windows, tmp_path):
    model = make_model(likelihood="heteroscedastic_gaussian")
    model.fit(windows, epochs=2, verbose=0)
    model.kl_weight.assign(0.5)
    model.save(tmp_path / "model.keras")
    script = """
        import sys, keras, numpy as np, spectrovae
        model = keras.saving.load_model(sys.argv[1])
        np.savez(
            sys.argv[2], windows=model.generate(3, seed=1), steps=int(model.optimizer.iterations),
            momenta=model.optimizer.variables[5].numpy(), kl_weight=float(model.kl_weight),
            sample_rate=model.converter.sample_rate,
        )
    """
    arguments = [str(tmp_path / "model.keras"), str(tmp_path / "seen.npz")]
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), *arguments], check=True)
    seen = np.load(tmp_path / "seen.npz")
    np.testing.assert_array_equal(seen["windows"], model.generate(3, seed=1))
    assert seen["steps"] == int(model.optimizer.iterations) == 4
    np.testing.assert_array_equal(seen["momenta"], model.optimizer.variables[5].numpy())
    assert seen["kl_weight"] == 0.5
    assert seen["sample_rate"] == 8000


def test_loaded_model_goes_on_like_the_one_that_was_saved(make_model, windows, tmp_path):
    model = make_model()
    model.fit(windows, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    losses = [m.fit(windows, shuffle=False, epochs=2, verbose=0).history["loss"] for m in (model, loaded)]
    # Keras does not save the state of random generators, so the draws differ.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_clone_has_the_same_settings_and_weights_of_its_own(make_model):
    model = make_model(num_components=3, posterior="full")
    clone = keras.models.clone_model(model)
    assert clone.get_config() == model.get_config()
    assert clone.count_params() == model.count_params() > 0
    assert clone.converter == model.converter
    assert clone.prior is not model.prior


def test_summary_counts_every_parameter(make_model, capsys):
    model = make_model()
    model.summary()
    shown = capsys.readouterr().out
    assert "encoder" in shown
    assert "unbuilt" not in shown
    parts = (model.encoder, model.decoder, model.prior, model.likelihood)
    assert sum(weight.shape.num_elements() for weight in model.trainable_variables) == sum(
        weight.shape.num_elements() for part in parts for weight in part.trainable_variables
    )


@pytest.mark.slow
def test_mixed_precision_trains_to_the_same_losses(make_model, windows):
    losses, codes = [], []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            model = make_model()
        finally:
            keras.config.set_dtype_policy("float32")
        assert model.encoder(windows[:2]).dtype == model.decoder(np.zeros((2, 4))).dtype == tf.float32
        model.adapt(windows, verbose=0)
        codes.append(model.encode(windows))
        losses.append(model.fit(windows, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    np.testing.assert_allclose(codes[0], codes[1], atol=1e-4)


def test_several_steps_in_one_execution(make_model, windows):
    model = make_model()
    model.compile(steps_per_execution=3)
    assert np.isfinite(model.fit(windows, batch_size=8, verbose=0).history["loss"]).all()
    assert int(model.optimizer.iterations) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim=0"),
        ({"num_components": 0}, "num_components=0"),
        ({"decoder_depth": 6}, "frames must be a multiple of 64"),
        ({"architecture": "deep"}, "architecture='deep'"),
        ({"posterior": "none"}, "posterior='none'"),
        ({"likelihood": "none"}, "likelihood='none'"),
        ({"width": 0}, "width=0"),
        ({"num_kl_samples": 0}, "num_kl_samples=0"),
        ({"converter": SpectrogramConverter()}, r"\(512, 512, 1\).*\(32, 32, 1\)"),
    ],
)
def test_bad_arguments_are_named(make_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


def test_a_loss_of_the_user_is_refused(make_model, windows):
    with pytest.raises(ValueError, match="loss='mse'"):
        make_model().compile(loss="mse")
    with pytest.raises(ValueError, match="compile"):
        SpectroVAE((32, 32, 1), latent_dim=2, decoder_depth=2, width=4).fit(windows)


def spoilt(windows: np.ndarray, value: float) -> np.ndarray:
    windows = windows.copy()
    windows[-1, 3, 3] = value
    return windows


BAD_DATA = {
    "decibels": (lambda windows: 80 * windows - 80, r"from 0 to 1.*values from -80"),
    "bytes": (lambda windows: (255 * windows).astype(np.uint8), "from 0 to 1"),
    "NaN": (lambda windows: spoilt(windows, np.nan), "values from nan"),
    "infinity": (lambda windows: spoilt(windows, np.inf), "to inf"),
    "one window": (lambda windows: windows[0], r"\(num_windows, 32, 32, 1\).*first axis of 1"),
    "another shape": (lambda windows: windows[:, :16], r"\(num_windows, 32, 32, 1\).*\(48, 16, 32, 1\)"),
    "words": (lambda windows: np.full(windows.shape, "a"), "must be numbers.*string"),
    "complex": (lambda windows: windows.astype(np.complex64), "must be numbers.*complex64"),
    "a little too loud": (lambda windows: spoilt(windows, 1.0001), r"values from .* to 1\.0001"),
    "a little too quiet": (lambda windows: spoilt(windows, -0.00011), r"values from -0\.00011"),
    "nothing": (lambda windows: windows[:0], "`inputs` is empty"),
}


@pytest.fixture(scope="module")
def untrained(make_model) -> dict[bool, SpectroVAE]:
    """Two models that nothing has been fitted to, one with a warm start and one without."""
    return {warm_start: make_model(warm_start=warm_start) for warm_start in (False, True)}


@pytest.mark.parametrize("as_dataset", [False, True])
@pytest.mark.parametrize("kind", BAD_DATA)
@pytest.mark.parametrize("warm_start", [False, True])
def test_bad_data_is_told_before_the_first_step(untrained, windows, kind, as_dataset, warm_start):
    make, message = BAD_DATA[kind]
    model = untrained[warm_start]
    data = make(windows)
    if as_dataset and data.ndim == 4:
        data = tf.data.Dataset.from_tensor_slices(data).batch(64)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.fit(data, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_late_batch_that_is_not_finite_is_told_by_adapt(make_model, windows):
    batches = tf.data.Dataset.from_tensor_slices(spoilt(windows, np.nan)).batch(8)
    model = make_model()
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.adapt(batches, verbose=0)
    assert not model.adapted


def test_a_batch_may_be_larger_than_the_data(make_model, windows):
    model = make_model()
    model.compile(run_eagerly=True)
    history = model.fit(windows[:3], batch_size=64, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    batches = tf.data.Dataset.from_tensor_slices(windows[:3]).batch(64, drop_remainder=True)
    with pytest.raises(ValueError, match="`inputs` is empty"):
        model.fit(batches, verbose=0)


@pytest.mark.parametrize("likelihood", ["gaussian", "heteroscedastic_gaussian", "bernoulli"])
def test_values_beyond_the_range_by_rounding_train(make_model, windows, likelihood):
    model = make_model(likelihood=likelihood)
    model.compile(run_eagerly=True)
    odd = np.concatenate([spoilt(windows, 1.00009)[-8:], spoilt(windows, -0.00009)[-8:]])
    history = model.fit(odd, batch_size=16, verbose=0)
    assert np.isfinite(history.history["loss"]).all() and np.isfinite(model.generate(2, seed=0)).all()


@pytest.mark.parametrize(
    ("shape", "depth", "sample_rate"), [((32, 2, 1), 1, 100), ((34, 46, 1), 1, 384_000), ((2, 4, 1), 2, 8000)]
)
def test_tiny_and_odd_windows_train_and_sound(shape, depth, sample_rate):
    converter = SpectrogramConverter(sample_rate, 2 * shape[0], max(1, shape[0] // 2), shape[1], num_iterations=2)
    model = SpectroVAE(shape, 2, 2, decoder_depth=depth, width=8, converter=converter, seed=0)
    model.compile(run_eagerly=True)
    windows = np.random.default_rng(0).uniform(0, 0.7, (8, *shape)).astype(np.float32)
    assert np.isfinite(model.fit(windows, batch_size=8, verbose=0).history["loss"]).all()
    model.finish_training(windows)
    generated = model.generate(2, seed=0)
    assert generated.shape == (2, *shape) and np.isfinite(generated).all()
    waveforms = converter.to_audio(0.5 * generated, seed=0)
    assert waveforms.shape == (2, converter.window_length) and np.isfinite(waveforms).all()
    if converter.window_length >= converter.n_fft:  # two frames are too short to be analysed by themselves
        assert converter.to_spectrogram(waveforms).shape == generated.shape


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float64"])
def test_windows_of_any_number_type_train(make_model, windows, dtype):
    model = make_model(warm_start=False)
    model.compile(run_eagerly=True)
    history = model.fit((windows[:8] > 0.5).astype(dtype), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_arrays_and_datasets_give_the_same_codes(adapted_model, windows):
    codes = adapted_model.encode(windows, batch_size=7)
    assert codes.shape == (len(windows), 4)
    assert codes.dtype == np.float32
    dataset = tf.data.Dataset.from_tensor_slices((windows, np.zeros(len(windows)))).batch(10)
    np.testing.assert_allclose(adapted_model.encode(dataset), codes, atol=1e-5)


def test_sampled_codes_repeat_and_spread_around_the_mean(adapted_model, windows):
    first = adapted_model.encode(windows, sample=True, seed=1)
    np.testing.assert_array_equal(adapted_model.encode(windows, sample=True, seed=1), first)
    assert not np.array_equal(adapted_model.encode(windows, sample=True), adapted_model.encode(windows, sample=True))
    deviations = (first - adapted_model.encode(windows)) / adapted_model.posterior_of(windows).stddev()
    assert 0.7 < np.std(deviations) < 1.3
    # Every batch has draws of its own.
    halves = adapted_model.encode(np.concatenate([windows[:8], windows[:8]]), sample=True, seed=1, batch_size=8)
    assert not np.array_equal(halves[:8], halves[8:])


def test_reconstruction_is_what_predict_gives(adapted_model, windows):
    reconstruction = adapted_model.reconstruct(windows, batch_size=9)
    np.testing.assert_allclose(adapted_model.predict(windows, verbose=0), reconstruction, atol=1e-5)
    assert reconstruction.shape == windows.shape
    assert np.sqrt(np.square(reconstruction - windows).mean()) < 0.5 * windows.std()


def test_generated_windows_lie_in_range_and_repeat(adapted_model):
    windows = adapted_model.generate(5, seed=1, batch_size=2)
    assert windows.shape == (5, 32, 32, 1)
    assert windows.dtype == np.float32
    assert windows.min() >= 0
    assert windows.max() <= 1
    np.testing.assert_allclose(adapted_model.generate(5, seed=1), windows, atol=1e-6)
    assert not np.allclose(adapted_model.generate(5, seed=2), windows)


def test_one_component_at_temperature_zero_is_its_centre(adapted_model):
    centre = adapted_model.decode(adapted_model.prior.means.numpy()[1:2])
    np.testing.assert_allclose(adapted_model.generate(1, component=1, temperature=0.0, texture=0.0), centre, atol=1e-5)


def test_errors_say_what_came(adapted_model, windows):
    with pytest.raises(ValueError, match=r"\(num_windows, 32, 32, 1\).*\(32, 32, 1\).*single window"):
        adapted_model.encode(windows[0])
    with pytest.raises(ValueError, match=r"\(num_windows, 32, 32, 1\).*\(2, 16, 32, 1\)"):
        adapted_model.reconstruct(windows[:2, :16])
    with pytest.raises(ValueError, match=r"\(num_windows, 4\).*\(3, 5\)"):
        adapted_model.decode(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="`inputs` is empty"):
        adapted_model.encode(windows[:0])
    with pytest.raises(ValueError, match="batch_size=0"):
        adapted_model.encode(windows, batch_size=0)
    with pytest.raises(ValueError, match="component=9"):
        adapted_model.generate(1, component=9)


def test_names_choose_components_and_are_saved(make_model, tmp_path):
    model = make_model(num_components=3)
    assert model.component_names is None and model.component_name(2) == "component 2"
    with pytest.raises(ValueError, match="component='drums'"):
        model.generate(1, "drums")
    model.component_names = ["slow strings", "drums", "voices"]
    expected = model.generate(2, component=1, seed=0)
    np.testing.assert_array_equal(model.generate(2, component="drums", seed=0), expected)
    with pytest.raises(ValueError, match="component='flutes'"):
        model.generate(1, component="flutes")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.component_names == ("slow strings", "drums", "voices")
    np.testing.assert_allclose(loaded.generate(2, component="drums", seed=0), expected, atol=1e-6)
    loaded.component_names = None
    assert loaded.get_config()["component_names"] is None


def test_components_are_found_by_their_names(make_model):
    model = make_model(component_names=["strings", "drums"])
    assert model.component_names == ("strings", "drums")
    assert [model.component_name(component) for component in (0, 1)] == ["strings", "drums"]
    assert [model.component_index(component) for component in ("strings", "drums", 1, None)] == [0, 1, 1, None]
    with pytest.raises(ValueError, match=r"\['strings', 'drums'\].*component='flutes'"):
        model.component_index("flutes")
    for names in ("ab", ["a"], ["a", "a"], ["a", ""], [1, 2]):
        with pytest.raises(ValueError, match="2 names that differ"):
            model.component_names = names
    assert model.component_names == ("strings", "drums")


def test_a_window_is_decoded_as_the_network_says(adapted_model, sequence_model, windows):
    for model in (adapted_model, sequence_model):
        codes = model.encode(windows[:3])
        assert codes.shape[1:] == model.code_shape == ((4,) if model.latent_steps == 1 else (4, 3))
        parameters = model.decoder(codes)
        means, scales = model.decode_moments(codes)
        np.testing.assert_allclose(means, model.likelihood.mean(parameters), atol=1e-6)
        np.testing.assert_allclose(scales, model.likelihood.scale(parameters), atol=1e-6)
        np.testing.assert_allclose(model.decode(codes), np.clip(means, 0, 1), atol=1e-6)
        assert not model.decode_moments(codes, with_scales=False)[1].any()


def test_seconds_become_frames_and_codes(adapted_model, sequence_model):
    converter = sequence_model.converter  # 8000 Hz, 16 samples per frame, 8 frames per code
    assert [converter.num_samples_of(duration) for duration in (1e-9, 0.002, 1.0)] == [1, 16, 8000]
    assert [converter.num_frames_of(duration) for duration in (1e-9, 0.002, 0.0021, 1.0)] == [1, 1, 2, 500]
    assert [sequence_model.num_codes_for(num_frames) for num_frames in (1, 8, 9, 500)] == [1, 1, 2, 63]
    for duration in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="duration="):
            converter.num_samples_of(duration)
    with pytest.raises(ValueError, match="latent_steps=1"):
        adapted_model.num_codes_for(3)


def test_several_codes_are_trained_and_saved(sequence_model, shifted_windows, tmp_path):
    losses = sequence_model.evaluate(shifted_windows, verbose=0, return_dict=True)
    assert np.isfinite(list(losses.values())).all() and losses["rmse_db"] < 80 * shifted_windows.std()
    sequence_model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.encode(shifted_windows), sequence_model.encode(shifted_windows))
    generated = sequence_model.generate(2, seed=1, duration=0.2)
    np.testing.assert_array_equal(again.generate(2, seed=1, duration=0.2), generated)
    assert again.latent_steps == 4 and type(again.prior) is SequencePrior


def test_several_codes_of_arrays_datasets_and_draws(sequence_model, shifted_windows):
    some = shifted_windows[:10]
    codes = sequence_model.encode(some, batch_size=4)
    assert codes.shape == (10, 4, 3) and codes.dtype == np.float32
    dataset = tf.data.Dataset.from_tensor_slices(some).batch(3)
    np.testing.assert_allclose(sequence_model.encode(dataset), codes, atol=1e-5)
    draws = sequence_model.encode(shifted_windows, sample=True, seed=1)
    posterior = sequence_model.posterior_of(shifted_windows)
    assert np.std((draws - posterior.mean()) / posterior.stddev()) == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(sequence_model.predict(some, verbose=0), sequence_model.reconstruct(some), atol=1e-5)
    for wrong in ((2, 3), (2, 4, 5), (2, 1, 4, 3)):
        with pytest.raises(ValueError, match=r"\(num_windows, 4, 3\)"):
            sequence_model.decode(np.zeros(wrong))


def test_generated_windows_have_the_length_that_is_asked_for(sequence_model, adapted_model):
    for duration, num_frames in ((None, 32), (0.001, 1), (0.064, 32), (0.0641, 33), (1.0, 500)):
        windows = sequence_model.generate(2, seed=1, duration=duration)
        assert windows.shape == (2, 32, num_frames, 1) and 0 <= windows.min() <= windows.max() <= 1
    np.testing.assert_array_equal(sequence_model.generate(2, seed=1, duration=1.0), windows)
    assert not np.array_equal(sequence_model.generate(2, seed=2, duration=1.0), windows)
    with pytest.raises(ValueError, match="duration=0"):
        sequence_model.generate(1, duration=0)
    with pytest.raises(ValueError, match="latent_steps above 1.*latent_steps=1"):
        adapted_model.generate(1, duration=1.0)
