import itertools

import keras
import numpy as np
import pytest

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.audio.phase import noise_spectrum
from spectrovae.model.texture import Texture, _Decibels, _fitting_strength, _rician_spreads, _tone_to_noise

BINS, FRAMES = 64, 64
CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=2 * BINS, hop_length=32, num_frames=FRAMES, num_iterations=8)


def music(num_windows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return means of different slopes, scales of 6 dB, and windows that stray from the means as the slopes say."""
    rng = np.random.default_rng(seed)
    slopes = rng.uniform(-0.3, 0.3, (num_windows, 1, 1))
    means = 0.6 + slopes * np.linspace(-1, 1, BINS)[:, None] + np.zeros((1, 1, FRAMES))
    scales = np.full_like(means, 6 / 80)
    pattern = np.sign(slopes) * np.where(np.arange(BINS) % 16 < 8, 1.0, -1.0)[:, None] + np.zeros(FRAMES)
    pattern = pattern + 0.2 * rng.standard_normal(pattern.shape)  # so that no two grains are equal
    return tuple(each.astype(np.float32) for each in (means, scales, means + scales * pattern))


@pytest.fixture(scope="module")
def texture() -> Texture:
    layer = Texture(CONVERTER, bank_size=24, grain_length=16)
    layer.fit([music(160)], seed=0)
    return layer


@pytest.mark.parametrize(
    ("ratio", "spread"),
    [(0, 5.57), (0.5, 5.41), (1, 5.09), (2, 4.37), (3, 3.75), (5, 2.91), (8, 2.25), (12, 1.81), (20, 1.39), (50, 0.87)],
)
def test_spread_of_a_level_tells_tone_from_noise(ratio, spread):
    spreads, ratios = _rician_spreads()
    assert np.interp(ratio, ratios[::-1], spreads[::-1]) == pytest.approx(spread, abs=0.01)
    assert _tone_to_noise(np.array(spread)) == pytest.approx(ratio, rel=0.05, abs=0.1)


def test_ratio_matches_draws():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 100_000)) / np.sqrt(2)
    levels = 20 * np.log10(np.hypot(np.sqrt(3) + noise[0], noise[1]))
    assert _tone_to_noise(levels.std()) == pytest.approx(3, rel=0.05)
    assert _tone_to_noise(np.array([100.0, 0.01, 1e-6])).tolist() == pytest.approx([0, 3.77e5, 3.77e7], rel=0.02)


def test_noise_has_unit_power():
    spectrum = noise_spectrum(400, 2 * BINS, 32, np.random.default_rng(0))
    assert spectrum.shape == (BINS, 400)
    assert np.square(np.abs(spectrum[2:-2])).mean() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("num_frames", [1, 15, FRAMES, 3 * FRAMES + 5])
@pytest.mark.parametrize("kind", ["grains", "noise", "none"])
def test_any_length_and_finite(texture, num_frames, kind):
    mean, scale, _ = (np.resize(each[0].T, (num_frames, BINS)).T for each in music(1, seed=3))
    for part in texture.split(mean, scale, np.random.default_rng(0), kind):
        assert part.shape == (BINS, num_frames) and part.dtype == np.float32
        assert np.isfinite(part).all() and (part >= 0).all()
    window = texture.windows(mean, scale, np.random.default_rng(0), kind)
    assert window.shape == (BINS, num_frames) and window.min() >= 0 and window.max() <= 1


def test_grains_are_those_of_the_nearest_means(texture):
    means, scales, windows = music(8, seed=5)
    found = [texture._residual(texture._decibels(mean, means)[0], np.random.default_rng(0)) for mean in means]
    residuals, shares = (np.stack(each) for each in zip(*found, strict=True))
    assert shares.max() == 1 and shares.mean() > 0.9
    is_grain = np.broadcast_to(shares[:, None] == 1, means.shape)
    assert np.corrcoef(residuals[is_grain], ((windows - means) / scales)[is_grain])[0, 1] > 0.8


def test_runs_are_short_and_do_not_come_back_at_once():
    layer = Texture(SpectrogramConverter(sample_rate=600, n_fft=128, hop_length=32, num_frames=64), 12, grain_length=16)
    layer.fit([music(40)], seed=0)
    levels = np.tile(layer._decibels(*(each[0] for each in music(1)[:2]))[0], (1, 6))
    grains = layer._choose(levels, np.random.default_rng(0))
    follows = [b.window == a.window and b.slot == a.slot + 4 for a, b in itertools.pairwise(grains)]
    assert not any(follows)  # 1.5 s are shorter than two grains
    assert len({(grain.window, grain.slot) for grain in grains}) > 4


def test_far_from_all_grains_there_is_noise(texture):
    mean, scale = np.full((BINS, 48), 0.05, np.float32), np.full((BINS, 48), 6 / 80, np.float32)
    mean[::2] = 0.9  # a comb, as no window has it
    _, share = texture._residual(texture._decibels(mean, scale)[0], np.random.default_rng(0))
    assert not share.any()
    _, noise = texture.split(mean, scale, np.random.default_rng(0))
    assert noise.any()


def test_power_is_that_of_the_music(texture):
    means, scales, windows = music(16, seed=7)
    for kind in ("grains", "noise"):
        ratios = []
        for mean, scale, window in zip(means, scales, windows, strict=True):
            parts = texture.split(mean, scale, np.random.default_rng(0), kind)
            power = sum(np.square(part).sum() for part in parts)
            ratios.append(power / np.square(CONVERTER.to_magnitudes(window)).sum())
        assert 10 * np.log10(np.mean(ratios)) == pytest.approx(0, abs=1), kind


def test_strength_is_that_with_which_levels_change_as_the_music_does():
    rng = np.random.default_rng(0)
    mean, added = np.full((8, 400), -30.0), 5 * rng.standard_normal((8, 400))
    for share in (0.4, 0.8, 1.5):
        checked = [_Decibels(mean, np.ones_like(mean), mean + share * 5 * rng.standard_normal(mean.shape))]
        assert _fitting_strength(checked, [added]) == pytest.approx(min(share, 1), abs=0.05)


def test_seeds_repeat(texture):
    mean, scale = (each[0] for each in music(1, seed=2)[:2])
    for kind in ("grains", "noise"):
        first, again, other = (texture.windows(mean, scale, np.random.default_rng(seed), kind) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 0.01
    layer = Texture(CONVERTER, bank_size=24, grain_length=16)
    layer.fit([music(160)], seed=0)
    np.testing.assert_array_equal(layer.bank, texture.bank)


def test_bank_is_bounded_and_fitting_again_forgets(texture):
    layer = Texture(CONVERTER, bank_size=4, grain_length=16)
    assert (
        layer.num_windows == 0 and layer.split(*(each[0] for each in music(1)[:2]), np.random.default_rng(0))[1].any()
    )
    layer.fit(zip(*(np.split(each, 4) for each in music(40)), strict=True), seed=0)
    assert layer.num_windows == 4
    layer.fit([music(3)], seed=0)
    assert layer.num_windows == 2
    empty = Texture(CONVERTER, bank_size=0)
    empty.fit([music(3)])
    assert empty.num_windows == 0 and empty.windows(*(each[0] for each in music(1)[:2]), np.random.default_rng(0)).any()


def test_linear_scale_gives_the_same_kind_of_sound():
    converter = SpectrogramConverter(8000, 2 * BINS, 32, FRAMES, scale="linear")
    means, _, windows = (10 ** (4 * (each - 1)).astype(np.float32) for each in music(40))
    layer = Texture(converter, bank_size=8, grain_length=16)
    layer.fit([(means, 0.7 * means, windows)], seed=0)
    heard = layer.windows(means[0], 0.7 * means[0], np.random.default_rng(0))
    assert heard.max() <= 1 and np.corrcoef(np.log(heard.ravel()), np.log(windows[0].ravel()))[0, 1] > 0.8


def test_sound_of_noise_has_its_power():
    audio = CONVERTER.magnitudes_to_audio(np.zeros((BINS, 200), np.float32), np.full((BINS, 200), 0.01), seed=0)
    assert audio.shape == (200 * 32,)
    heard = np.square(CONVERTER.to_magnitudes(CONVERTER.to_spectrogram(audio)))[2:-2, 8:-8].mean()
    assert 10 * np.log10(heard) == pytest.approx(-40, abs=0.5)
    np.testing.assert_array_equal(
        audio, CONVERTER.magnitudes_to_audio(np.zeros((BINS, 200), np.float32), np.full((BINS, 200), 0.01), seed=0)
    )


@pytest.mark.parametrize("arguments", [{"bank_size": -1}, {"bank_size": 1.5}, {"grain_length": 6}, {"grain_length": 0}])
def test_wrong_sizes_are_errors(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Texture(CONVERTER, **arguments)


def test_no_windows_and_unknown_textures_are_errors(texture):
    with pytest.raises(ValueError, match="at least one window"):
        Texture(CONVERTER, bank_size=2).fit([])
    with pytest.raises(ValueError, match="texture='rain'"):
        texture.split(*(each[0] for each in music(1)[:2]), np.random.default_rng(0), "rain")


@pytest.fixture(scope="module")
def adapted() -> tuple[SpectroVAE, np.ndarray]:
    rng = np.random.default_rng(0)
    windows = music(48)[2] + 0.05 * rng.standard_normal((48, BINS, FRAMES))
    windows = np.clip(windows, 0, 1).astype(np.float32)[..., None]
    model = SpectroVAE((BINS, FRAMES, 1), 2, 2, decoder_depth=2, width=8, converter=CONVERTER, bank_size=8, seed=0)
    model.adapt(windows, verbose=0)
    return model, windows


def test_decode_gives_the_mean_unless_asked(adapted):
    model, windows = adapted
    codes = model.encode(windows[:2])
    np.testing.assert_array_equal(model.decode(codes), model.reconstruct(windows[:2]))
    textured = model.decode(codes, texture="grains", seed=3)
    np.testing.assert_array_equal(textured, model.reconstruct(windows[:2], texture="grains", seed=3))
    change = [np.abs(np.diff(each, axis=2)).mean() for each in (model.decode(codes), textured, windows[:2])]
    assert change[0] < 0.5 * change[2] and change[1] == pytest.approx(change[2], rel=0.3)
    with pytest.raises(ValueError, match="texture=1"):
        model.decode(codes, texture=1)


def test_bank_is_saved_with_the_model(adapted, tmp_path):
    model, _ = adapted
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.texture.num_windows == model.texture.num_windows == 8
    np.testing.assert_allclose(loaded.generate(2, seed=5), model.generate(2, seed=5), atol=1e-6)


def test_other_likelihoods_have_no_texture(adapted):
    _, windows = adapted
    model = SpectroVAE((BINS, FRAMES, 1), latent_dim=2, decoder_depth=2, width=8, likelihood="gaussian", seed=0)
    model.adapt(windows, verbose=0)
    codes = model.encode(windows[:2])
    np.testing.assert_array_equal(model.decode(codes, texture="grains"), model.decode(codes))
    assert model.texture.bank_size == 0
    with pytest.raises(ValueError, match="GaussianLikelihood"):
        model.refit_texture(windows)
