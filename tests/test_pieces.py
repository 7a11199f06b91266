import numpy as np
import pytest

from spectrovae import SpectrogramConverter
from spectrovae.model.walks import window_starts
from spectrovae.pieces import generate_audio, join_windows, morph


@pytest.fixture(params=["decibel", "linear"])
def converter(request) -> SpectrogramConverter:
    return SpectrogramConverter(sample_rate=8000, n_fft=16, hop_length=4, num_frames=8, scale=request.param)


def flat(level: float, scale: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    return np.full((8, 8), level, np.float32), np.full((8, 8), scale, np.float32)


def test_between_unlike_windows_loudness_goes_straight(converter):
    means, scales = join_windows([flat(0.9, 0.2), flat(0.5, 0.4)], np.array([0, 4]), converter)
    assert means.shape == scales.shape == (8, 12)
    np.testing.assert_allclose(means[:, :4], 0.9, atol=1e-6)
    np.testing.assert_allclose(means[:, 8:], 0.5, atol=1e-6)
    amplitudes = 10 ** (converter.to_decibels(means[..., None])[0, :, 0] / 20)
    loudness = amplitudes**0.6
    shares = (loudness[4:8] - loudness[-1]) / (loudness[0] - loudness[-1])
    expected = np.cos(0.5 * np.pi * (np.arange(4) + 0.5) / 4) ** 2
    np.testing.assert_allclose(shares, expected, atol=1e-4)
    np.testing.assert_allclose(scales[0, 4:8], 0.2 * expected + 0.4 * (1 - expected), atol=1e-6)


def test_windows_may_come_one_by_one_and_must_be_as_many_as_places(converter):
    windows = [flat(level) for level in (0.2, 0.6, 0.4)]
    starts = np.array([0, 6, 12])
    means, _ = join_windows(iter(windows), starts, converter)
    np.testing.assert_allclose(means, join_windows(windows, starts, converter)[0])
    for number in (2, 4):
        with pytest.raises(ValueError):
            join_windows((windows * 2)[:number], starts, converter)


pytestmark = pytest.mark.filterwarnings("ignore:The peak was over 1")


@pytest.fixture
def model(make_model, windows):
    model = make_model()
    model.adapt(windows, verbose=0)
    return model


def frame_levels(audio: np.ndarray, converter) -> np.ndarray:
    """Return levels in dB, (frames, bins)."""
    return converter.to_decibels(converter.to_spectrogram(audio))[..., 0].T


def flux(levels: np.ndarray) -> np.ndarray:
    """Return the root-mean-square change from frame to frame in dB."""
    return np.sqrt(np.square(np.diff(levels, axis=0)).mean(axis=1))


def seams_and_rest(values: np.ndarray, starts: np.ndarray, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Split values of frames into those in the middle of a fade between windows, and those of one window alone."""
    middles = (starts[1:] + starts[:-1] + num_frames) // 2
    near = np.abs(np.arange(len(values))[:, None] - middles).min(axis=1) <= 2
    far = np.abs(np.arange(len(values))[:, None] - middles).min(axis=1) >= num_frames // 4
    return values[near], values[far]


@pytest.mark.parametrize("seed", [0, 1])
def test_seams_are_as_the_material_around_them(model, seed):
    converter = model.converter
    audio = generate_audio(model, duration=3.0, seed=seed)
    num_frames = len(audio) // converter.hop_length
    starts = window_starts(num_frames, 32, 8)
    levels = frame_levels(audio, converter)
    for values in (levels.mean(axis=1), flux(levels)):
        seams, rest = seams_and_rest(values, starts, 32)
        assert len(seams) > 100 and len(rest) > 100
        assert abs(seams.mean() - rest.mean()) < 0.5 * rest.std()
        assert np.percentile(seams, 99) < rest.max()


def test_the_seam_test_hears_windows_that_are_only_put_side_by_side(model):
    windows = model.generate(50, seed=0)
    changes = flux(model.converter.to_decibels(np.concatenate(windows, axis=1))[..., 0].T)
    assert changes[31::32].mean() > changes.mean() + changes.std()


def test_length_type_and_seed(model):
    for duration in (0.001, 0.05, 0.064, 0.1, 1.2345):
        audio = generate_audio(model, duration, seed=3)
        assert (audio.shape, audio.dtype) == ((round(8000 * duration),), np.float32)
        assert np.abs(audio).max() <= 1
    np.testing.assert_array_equal(generate_audio(model, 1.2345, seed=3), audio)
    assert not np.allclose(generate_audio(model, 1.2345, seed=4), audio)
    assert not np.allclose(generate_audio(model, 0.5), generate_audio(model, 0.5))


def test_one_component_at_temperature_zero_stays_where_it_is(model):
    audio = generate_audio(model, 0.5, component=0, temperature=0.0, texture=0.0, seed=0)
    centre = model.decode(model.prior.means.numpy()[:1])[0]
    heard = model.converter.to_spectrogram(audio)
    level = model.converter.to_decibels(heard).mean()
    assert level == pytest.approx(model.converter.to_decibels(centre).mean(), abs=3)


def test_several_components_come_in_order(model):
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(model._choose_components([1, 0], 5, rng), [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(model._choose_components((0, 1, 0), 2, rng), [0, 1, 0])
    assert set(model._choose_components(None, 50, rng)) == {0, 1}
    audio = generate_audio(model, 0.3, component=[0, 1], seed=0)
    model.component_names = ["calm", "wild"]
    np.testing.assert_array_equal(generate_audio(model, 0.3, component=["calm", "wild"], seed=0), audio)
    np.testing.assert_array_equal(model._choose_components("wild", 3, rng), [1, 1, 1])


def test_morph_goes_from_one_recording_to_the_other(model, windows, monkeypatch):
    codes = model.encode(windows[:2])
    audio = morph(model, windows[0], windows[1], duration=0.512, texture=0.0, seed=0)
    assert (audio.shape, audio.dtype) == ((4096,), np.float32)
    np.testing.assert_allclose(morph(model, *codes, duration=0.512, texture=0.0, seed=0), audio, atol=1e-3)
    inverted = []
    monkeypatch.setattr(model.converter, "to_audio", lambda values, seed: inverted.append(values) or np.zeros(9999))
    morph(model, windows[0], windows[1], duration=0.512, texture=0.0)
    first, second = model.reconstruct(windows[:2])
    np.testing.assert_allclose(inverted[0][:, :20], first[:, :20], atol=1e-4)
    np.testing.assert_allclose(inverted[0][:, -20:], second[:, -20:], atol=1e-4)


def test_a_joined_piece_begins_and_ends_with_whole_windows(model, windows):
    codes = model.encode(windows[:3])
    values, scales = model._join(codes, np.array([0, 24, 48]))
    assert values.shape == scales.shape == (32, 80)
    means = model.decode(codes)[..., 0]
    np.testing.assert_allclose(np.clip(values[:, :24], 0, 1), means[0][:, :24], atol=1e-5)
    np.testing.assert_allclose(np.clip(values[:, 56:], 0, 1), means[2][:, 8:], atol=1e-5)
    # Where a window fades into itself, nothing changes.
    same, _ = model._join(codes[[0, 0]], np.array([0, 0]))
    np.testing.assert_allclose(np.clip(same, 0, 1), means[0], atol=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_other_likelihoods_and_scales(make_model, windows, likelihood, small_converter):
    config = small_converter.get_config() | {"scale": "linear"}
    model = make_model(likelihood=likelihood, converter=type(small_converter)(**config))
    audio = generate_audio(model, 0.2, seed=0)
    assert audio.shape == (1600,) and np.isfinite(audio).all() and audio.any()


def test_bad_arguments(model, windows):
    for name, value in (
        ("duration", 0.0),
        ("duration", float("nan")),
        ("component", 2),
        ("component", []),
        ("component", [0, 5]),
        ("component", "calm"),
        ("temperature", -1.0),
        ("texture", -1.0),
        ("waypoint_interval", 0.0),
        ("seed", -1),
    ):
        with pytest.raises(ValueError, match=f"Received: {name}="):
            generate_audio(model, **{"duration": 0.1} | {name: value})
    with pytest.raises(ValueError, match="longer than a window"):
        morph(model, windows[0], windows[1], duration=0.05)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        morph(model, np.zeros(3), windows[1], duration=1.0)
