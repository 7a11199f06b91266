import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.model.likelihood import BernoulliLikelihood


def test_metrics_are_the_terms_of_the_evidence_lower_bound(make_model, windows):
    model = make_model(warm_start=False)
    history = model.fit(windows, validation_data=windows, epochs=2, verbose=0).history
    for prefix in ("", "val_"):
        assert {f"{prefix}{name}" for name in ("loss", "reconstruction_loss", "kl_loss", "rmse_db")} <= set(history)
        total = np.add(history[f"{prefix}reconstruction_loss"], history[f"{prefix}kl_loss"])
        np.testing.assert_allclose(history[f"{prefix}loss"], total, rtol=1e-4)


def test_terms_are_those_of_the_parts(make_model, windows):
    model = make_model(warm_start=False, num_kl_samples=2000, num_components=1)
    batch = tf.constant(windows[:3])
    terms = model.compute_terms(batch)
    model.prior.assign_mixture(np.zeros((1, 4)), np.ones((1, 4)))
    posterior = model.posterior_of(batch)
    mean, variance = posterior.mean(), posterior.variance()
    closed_form = 0.5 * np.sum(variance + mean**2 - 1 - np.log(variance), axis=-1)
    np.testing.assert_allclose(model.compute_terms(batch)["kl_loss"], closed_form, rtol=0.05)
    assert terms["reconstruction_loss"].shape == (3,)
    np.testing.assert_allclose(terms["reconstruction"], model.reconstruct(batch), atol=1e-5)


def test_validation_error_is_that_of_the_posterior_mean_in_decibels(make_model, windows):
    model = make_model()
    model.adapt(windows, verbose=0)
    measured = model.evaluate(windows, verbose=0, return_dict=True)["rmse_db"]
    expected = 80 * np.sqrt(np.square(model.reconstruct(windows) - windows).mean())
    assert measured == pytest.approx(expected, rel=1e-4)


def test_error_of_linear_windows_is_measured_in_decibels_too(make_model, windows):
    converter = SpectrogramConverter(n_fft=64, hop_length=16, num_frames=32, scale="linear")
    model = make_model(converter=converter)
    measured = model.evaluate(windows, verbose=0, return_dict=True)["rmse_db"]
    levels = [converter.to_decibels(array) for array in (windows, model.reconstruct(windows))]
    assert measured == pytest.approx(np.sqrt(np.square(levels[0] - levels[1]).mean()), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "heteroscedastic_gaussian", "bernoulli", "continuous_bernoulli"])
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
    dataset = tf.data.Dataset.from_tensor_slices(windows).batch(16)
    for arguments in ([windows], [windows, windows], [dataset], [tf.data.Dataset.zip(dataset, dataset)]):
        assert np.isfinite(model.fit(*arguments, verbose=0).history["loss"]).all()


def test_sample_weights_weigh_the_windows(make_model, windows):
    model = make_model()
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
    model.compile(metrics=[keras.metrics.MeanAbsoluteError()])
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


def test_classic_model_is_the_reference_model():
    model = SpectroVAE.classic()
    assert model.encoder.count_params() == 86_123_646
    assert model.decoder.count_params() == 2_172_385
    assert (model.latent_dim, model.num_components, model.num_kl_samples) == (100, 2, 3)
    assert model.posterior == "full"
    assert isinstance(model.likelihood, BernoulliLikelihood)
    assert not model.learn_weights
    assert model.converter == SpectrogramConverter.classic()


def test_small_classic_model_trains(windows):
    model = SpectroVAE.classic(input_shape=(32, 32, 1), decoder_depth=3, latent_dim=4, seed=0)
    model.compile(keras.optimizers.Adam(5e-4))
    history = model.fit(windows, epochs=3, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


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
