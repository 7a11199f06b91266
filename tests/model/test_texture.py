import keras
import numpy as np
import pytest

from spectrovae import SpectroVAE
from spectrovae.model.texture import ENVELOPE_SCALE, NOISE_SCALE, Texture

BINS, FRAMES = 64, 96


def correlated_fields(num_windows: int, seed: int = 0) -> np.ndarray:
    """Return fields that fade over time: each frame is 0.9 of the one before, and fresh noise."""
    rng = np.random.default_rng(seed)
    fields = np.zeros((num_windows, BINS, FRAMES + 50))
    for frame in range(1, fields.shape[2]):
        fields[..., frame] = 0.9 * fields[..., frame - 1] + np.sqrt(1 - 0.81) * rng.standard_normal(fields.shape[:2])
    return fields[..., 50:]


def autocorrelation(fields: np.ndarray, lag: int) -> float:
    return float((fields[..., :-lag] * fields[..., lag:]).mean() / np.square(fields).mean())


@pytest.fixture
def texture() -> Texture:
    return Texture(n_fft=2 * BINS, hop_length=BINS // 2, num_frames=FRAMES)


@pytest.mark.parametrize("num_frames", [FRAMES, 3 * FRAMES + 1])
def test_envelopes_have_the_correlation_of_the_residuals(texture, num_frames):
    texture.fit([correlated_fields(64)])
    fields = texture.sample(32, np.random.default_rng(1), num_frames)[..., 0]
    assert fields.shape == (32, BINS, num_frames)
    for lag in (1, 4, 10):
        assert autocorrelation(fields, lag) == pytest.approx(0.9**lag, abs=0.08)


def test_noise_of_the_transform_is_recognised(texture):
    rng = np.random.default_rng(0)
    waveforms = rng.standard_normal((64, (FRAMES - 1) * texture.hop_length + texture.n_fft))
    frames = np.lib.stride_tricks.sliding_window_view(waveforms, texture.n_fft, axis=1)[:, :: texture.hop_length]
    magnitudes = np.abs(np.fft.rfft(frames * np.hanning(texture.n_fft)))[..., :BINS].swapaxes(1, 2)
    texture.fit([np.log(magnitudes)])
    assert float(texture.noise_share) > 0.9
    fields = texture.sample(16, np.random.default_rng(1))
    assert fields.std() == pytest.approx(NOISE_SCALE, rel=0.1)


def test_attacks_are_sharper_than_decays(texture):
    texture.fit([correlated_fields(64)])
    steps = np.diff(texture.sample(32, np.random.default_rng(1))[..., 0])
    assert (steps**3).mean() > 0.03 * (steps**2).mean() ** 1.5


def test_variance_is_that_of_its_parts(texture):
    texture.fit([correlated_fields(64)])
    share = float(texture.noise_share)
    expected = np.sqrt(share * NOISE_SCALE**2 + (1 - share) * ENVELOPE_SCALE**2)
    assert texture.sample(32, np.random.default_rng(2)).std() == pytest.approx(expected, rel=0.05)


def test_seed_repeats_and_an_unfitted_field_is_zero(texture):
    assert not texture.sample(2, np.random.default_rng(0)).any()
    texture.fit([np.zeros((4, BINS, FRAMES))])
    assert not texture.fitted
    texture.fit([correlated_fields(8)])
    first, again, other = (texture.sample(2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_no_residuals_is_an_error(texture):
    with pytest.raises(ValueError, match="at least one window"):
        texture.fit([])


@pytest.fixture(scope="module")
def adapted() -> tuple[SpectroVAE, np.ndarray]:
    windows = np.clip(0.4 + 0.1 * correlated_fields(48)[..., :64, None], 0, 1).astype(np.float32)
    model = SpectroVAE((BINS, 64, 1), latent_dim=2, num_components=2, decoder_depth=2, width=8, seed=0)
    model.adapt(windows, verbose=0)
    return model, windows


def test_generated_windows_vary_like_music_only_with_texture(adapted):
    model, windows = adapted
    plain, textured = (model.generate(8, seed=0, texture=amount) for amount in (0.0, 1.0))
    music = np.diff(windows, axis=2).std()
    assert np.diff(plain, axis=2).std() < 0.3 * music
    assert 0.5 * music < np.diff(textured, axis=2).std() < 1.2 * music
    np.testing.assert_array_equal(textured, model.generate(8, seed=0))


def test_decode_gives_the_mean_unless_asked(adapted):
    model, windows = adapted
    codes = model.encode(windows[:2])
    np.testing.assert_array_equal(model.decode(codes), model.reconstruct(windows[:2]))
    np.testing.assert_array_equal(
        model.decode(codes, texture=0.5, seed=3), model.reconstruct(windows[:2], texture=0.5, seed=3)
    )
    with pytest.raises(ValueError, match="texture=-1"):
        model.decode(codes, texture=-1)


def test_texture_is_saved_with_the_model(adapted, tmp_path):
    model, _ = adapted
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.generate(2, seed=5), model.generate(2, seed=5), atol=1e-6)


def test_other_likelihoods_have_no_texture(adapted):
    _, windows = adapted
    model = SpectroVAE((BINS, 64, 1), latent_dim=2, decoder_depth=2, width=8, likelihood="gaussian", seed=0)
    model.adapt(windows, verbose=0)
    codes = model.encode(windows[:2])
    np.testing.assert_array_equal(model.decode(codes, texture=1.0), model.decode(codes))
    with pytest.raises(ValueError, match="GaussianLikelihood"):
        model.refit_texture(windows)
