import numpy as np
import pytest

import spectrovae.model.transitions
import spectrovae.pieces
from spectrovae import SpectrogramConverter, continue_audio, generate_audio, interpolate, morph, vary
from spectrovae.model.walks import window_starts
from spectrovae.pieces import join_windows

pytestmark = pytest.mark.filterwarnings("ignore:There were peaks")


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


@pytest.fixture
def model(adapted_model):
    """The model that all tests read, its components without names again after each."""
    yield adapted_model
    adapted_model.component_names = None


@pytest.fixture
def sequence_model(sequence_model):
    """The model with several codes that all tests read, its prior and names as they were after each."""
    weights = sequence_model.prior.get_weights()
    yield sequence_model
    sequence_model.prior.set_weights(weights)
    sequence_model.component_names = None


@pytest.fixture
def inverted(monkeypatch) -> list[np.ndarray]:
    """The mean spectrograms that are turned into sound, (bins, frames, 1)."""
    spectrograms: list[np.ndarray] = []

    def to_sound(model, means, scales, num_samples, *rest, drawn=False):
        num_frames = -(-num_samples // model.converter.hop_length)
        spectrograms.append(np.clip(means[:, :num_frames, None], 0, 1))
        return np.zeros(num_samples, np.float32)

    monkeypatch.setattr(spectrovae.pieces, "_to_sound", to_sound)
    return spectrograms


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
    for duration in (0.001, 0.05, 0.064, 0.1, 0.2345):
        audio = generate_audio(model, duration, seed=3)
        assert (audio.shape, audio.dtype) == ((round(8000 * duration),), np.float32)
        assert np.abs(audio).max() <= 1
    np.testing.assert_array_equal(generate_audio(model, 0.2345, seed=3), audio)
    assert not np.allclose(generate_audio(model, 0.2345, seed=4), audio)
    assert not np.allclose(generate_audio(model, 0.1), generate_audio(model, 0.1))


def test_one_component_at_temperature_zero_stays_where_it_is(model):
    audio = generate_audio(model, 0.5, component=0, temperature=0.0, texture=0.0, seed=0)
    centre = model.decode(model.prior.means.numpy()[:1])[0]
    heard = model.converter.to_spectrogram(audio)
    level = model.converter.to_decibels(heard).mean()
    assert level == pytest.approx(model.converter.to_decibels(centre).mean(), abs=3)


def test_several_components_come_in_order(model, inverted):
    generate_audio(model, 0.512, component=[1, 0], temperature=0.0, texture=0.0, seed=0)
    first, second = model.decode(model.prior.means.numpy()[[1, 0]])
    np.testing.assert_allclose(inverted[0][:, :8], first[:, :8], atol=1e-4)
    np.testing.assert_allclose(inverted[0][:, -8:], second[:, -8:], atol=1e-4)
    # Each of them at least once, in a short piece as well.
    generate_audio(model, 0.2, component=(0, 1, 0), temperature=0.0, texture=0.0, seed=0)
    for frames in (slice(8), slice(-8, None)):
        np.testing.assert_allclose(inverted[1][:, frames], second[:, frames], atol=1e-4)
    assert np.abs(inverted[1] - second[:, :1]).max() > 0.05


def test_components_of_a_piece_have_names(model):
    audio = generate_audio(model, 0.3, component=[0, 1], seed=0)
    model.component_names = ["calm", "wild"]
    np.testing.assert_array_equal(generate_audio(model, 0.3, component=["calm", "wild"], seed=0), audio)
    np.testing.assert_array_equal(
        generate_audio(model, 0.1, component="wild", seed=0), generate_audio(model, 0.1, component=1, seed=0)
    )


def test_morph_goes_from_one_recording_to_the_other(model, windows, inverted):
    for ends in (windows[:2], model.encode(windows[:2])):
        assert morph(model, *ends, duration=0.512, texture=0.0).shape == (4096,)
    first, second = model.reconstruct(windows[:2])
    for spectrogram in inverted:
        np.testing.assert_allclose(spectrogram[:, :20], first[:, :20], atol=1e-4)
        np.testing.assert_allclose(spectrogram[:, -20:], second[:, -20:], atol=1e-4)


def test_morph_is_sound_that_repeats(model, windows):
    audio = morph(model, windows[0], windows[1], duration=0.1, texture=0.0, seed=0)
    assert (audio.shape, audio.dtype) == ((800,), np.float32)
    np.testing.assert_array_equal(morph(model, windows[0], windows[1], duration=0.1, texture=0.0, seed=0), audio)


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


def test_interpolation_goes_from_one_end_to_the_other(model, sequence_model, windows):
    for each in (model, sequence_model):
        path = interpolate(each, windows[0], windows[1], num_steps=5, texture=0.0)
        np.testing.assert_allclose(path[[0, -1]], each.reconstruct(windows[:2]), atol=1e-5)
        codes = each.encode(windows[:2])
        np.testing.assert_allclose(path[2], each.decode(codes.mean(axis=0, keepdims=True))[0], atol=1e-5)
        np.testing.assert_allclose(interpolate(each, codes[0], codes[1], num_steps=5, texture=0.0), path, atol=1e-5)
    with pytest.raises(ValueError, match="num_steps=1"):
        interpolate(model, windows[0], windows[1], num_steps=1)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        interpolate(model, np.zeros(3), windows[1])


def test_long_pieces_are_as_varied_in_the_end_as_in_the_beginning(sequence_model):
    codes = np.asarray(sequence_model.prior.sample(3, num_steps=400, seed=0))
    spreads = [half.std(axis=(0, 1)) for half in (codes[:, :200], codes[:, 200:])]
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=0.5)
    audio = generate_audio(sequence_model, 0.2345, seed=3)
    assert (audio.shape, audio.dtype) == ((round(8000 * 0.2345),), np.float32) and np.abs(audio).max() <= 1
    np.testing.assert_array_equal(generate_audio(sequence_model, 0.2345, seed=3), audio)
    assert not np.allclose(generate_audio(sequence_model, 0.2345, seed=4), audio)


def test_components_of_a_piece_come_in_order(sequence_model, monkeypatch):
    chosen = []
    continue_from = sequence_model.prior.continue_from

    def watched(components, *rest):
        chosen.append(components)
        return continue_from(components, *rest)

    monkeypatch.setattr(sequence_model.prior, "continue_from", watched)
    generate_audio(sequence_model, 0.5, component=[1, 0, 1], seed=0)
    (window,), (steps,) = chosen
    assert (window == 1).all()
    assert len(steps) == 32 - sequence_model.latent_steps and steps[-1] == 1 and np.abs(np.diff(steps)).sum() == 2
    generate_audio(sequence_model, 0.5, component=0, seed=0)
    assert (chosen[2] == 0).all() and (chosen[3] == 0).all()


def test_a_continuation_begins_where_the_recording_ends(sequence_model, shifted_windows, inverted, monkeypatch):
    duration, hop = 0.1, 16
    continue_audio(sequence_model, shifted_windows[:3], duration, seed=0, texture=0.0, overlap=0.064, temperature=0.5)
    reconstruction = sequence_model.reconstruct(shifted_windows[2:3])[0]
    # All but what the decoder sees of the next code.
    np.testing.assert_allclose(inverted[0][:, :8], reconstruction[:, :8], atol=1e-4)
    assert inverted[0].shape == (32, 32 + 50, 1)
    # The codes of the past decide what follows: held, where the chain holds and is not pulled to their mean.
    monkeypatch.setattr(spectrovae.model.transitions, "_PULL", 0.0)
    transitions = sequence_model.prior.transitions
    transitions.coefficients.assign(np.eye(transitions.coefficients.shape[0])[:, :3])
    for weight in (transitions.means, sequence_model.prior.offsets, sequence_model.prior.pulls):
        weight.assign(np.zeros(weight.shape))
    for name, value in (("lowest", -99.0), ("highest", 99.0)):
        getattr(transitions, name).assign(np.full(3, value))
    continue_audio(sequence_model, shifted_windows[:3], duration, seed=0, texture=0.0, temperature=0.0)
    past = sequence_model.encode(shifted_windows[2:3])
    held = sequence_model.decode(np.concatenate([past, np.repeat(past[:, -1:], 7, axis=1)], axis=1))[0, :, 32:82]
    np.testing.assert_allclose(inverted[1], held, atol=1e-4)
    assert inverted[1].shape == (32, round(8000 * duration) // hop, 1)


@pytest.mark.parametrize("overlap", [0.0, 0.0001, 0.0019, 0.002, 0.0333, 0.064])
@pytest.mark.parametrize("duration", [0.002, 0.0161, 0.1])
def test_a_continuation_has_its_length(sequence_model, shifted_windows, overlap, duration):
    audio = continue_audio(sequence_model, shifted_windows[:1], duration, overlap=overlap, seed=0)
    assert audio.shape == (round(8000 * overlap) + round(8000 * duration),) and audio.dtype == np.float32


def test_continuations_repeat_and_take_a_component(sequence_model, shifted_windows):
    options = {"duration": 0.1, "texture": 0.0}
    past = shifted_windows[:1]
    first = continue_audio(sequence_model, past, seed=1, **options)
    np.testing.assert_array_equal(continue_audio(sequence_model, past, seed=1, **options), first)
    assert not np.allclose(continue_audio(sequence_model, past, seed=2, **options), first)
    own = int(np.argmax(sequence_model.prior.responsibilities(sequence_model.encode(past))))
    np.testing.assert_array_equal(continue_audio(sequence_model, past, seed=1, component=own, **options), first)
    sequence_model.component_names = ["a", "b"]
    other = continue_audio(sequence_model, past, seed=1, component=1 - own, **options)
    named = continue_audio(sequence_model, past, seed=1, component="ab"[1 - own], **options)
    np.testing.assert_array_equal(named, other)
    for name, value in (("overlap", -0.1), ("overlap", 0.07), ("duration", 0.0), ("component", 2), ("texture", -1.0)):
        with pytest.raises(ValueError, match=f"{name}="):
            continue_audio(sequence_model, past, **options | {name: value})


def test_morph_repeats_the_first_and_ends_with_the_second(sequence_model, shifted_windows, inverted):
    [end] = sequence_model.encode(shifted_windows[1:2])
    morph(sequence_model, shifted_windows[0], end, duration=0.256, texture=0.0)
    first, second = sequence_model.reconstruct(shifted_windows[:2])
    assert inverted[0].shape == (32, 128, 1)
    np.testing.assert_allclose(inverted[0][:, :8], first[:, :8], atol=0.02)
    np.testing.assert_allclose(inverted[0][:, -8:], second[:, -8:], atol=0.02)
    morph(sequence_model, shifted_windows[0], shifted_windows[1], duration=0.1, texture=0.0)
    assert inverted[1].shape == (32, 50, 1) and np.isfinite(inverted[1]).all()
    with pytest.raises(ValueError, match="longer than a window"):
        morph(sequence_model, shifted_windows[0], shifted_windows[1], duration=0.05)
    with pytest.raises(ValueError, match=r"shape \(4, 3\).*shape \(3,\)"):
        morph(sequence_model, np.zeros(3), shifted_windows[1], duration=0.2)


def test_one_code_cannot_continue(model, windows):
    with pytest.raises(ValueError, match="latent_steps above 1.*latent_steps=1"):
        continue_audio(model, windows[:1], duration=0.1)


def test_variations_go_from_the_recording_to_what_is_drawn(sequence_model, shifted_windows):
    recording, converter = shifted_windows[:3], sequence_model.converter
    levels = {}
    for amount in (0.0, 0.3, 0.6, 1.0):
        audio = vary(sequence_model, recording, amount, seed=1, texture="none")
        assert len(audio) == 3 * converter.window_length
        np.testing.assert_array_equal(vary(sequence_model, recording, amount, seed=1, texture="none"), audio)
        levels[amount] = converter.to_spectrogram(audio)
    distances = [np.abs(levels[amount] - levels[0.0]).mean() for amount in (0.3, 0.6, 1.0)]
    assert 0.002 < distances[0] < distances[1] < distances[2]
    codes = sequence_model.encode(recording).reshape(1, 12, 3)
    expected = sequence_model.decode(codes)[0, ..., 0]
    original = converter.to_audio(expected[None, ..., None], seed=1)[0]
    difference = levels[0.0] - converter.to_spectrogram(original)
    difference -= np.median(difference)  # one of the two may have peaks that are turned down
    assert np.abs(difference).mean() < 0.25 * distances[0]
    other = vary(sequence_model, recording, 1.0, seed=2, texture="none")
    assert np.abs(converter.to_spectrogram(other) - levels[1.0]).mean() > 0.01


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan")])
def test_variations_by_impossible_amounts_are_refused(sequence_model, windows, amount):
    with pytest.raises(ValueError, match="`amount`"):
        vary(sequence_model, windows[:1], amount)


def test_variations_need_several_codes(model, windows):
    with pytest.raises(ValueError, match="one code for a window"):
        vary(model, windows[:1])
