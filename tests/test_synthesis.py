"""The composed pieces repeat, differ, fit their format, and are in key."""

import librosa
import numpy as np
import pytest
import soundfile

from spectrovae.synthesis import MODES, Note, Score, compose, compose_collection, render, write_score

SAMPLE_RATE = 22050


def test_seed_repeats_and_seeds_differ():
    pieces = [compose(4.0, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(pieces[0], pieces[1])
    assert not np.allclose(pieces[0], pieces[2])
    assert not np.allclose(compose(1.0), compose(1.0))


@pytest.mark.parametrize("duration", [0.1, 1.0, 7.3])
@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100])
def test_format(duration, sample_rate):
    for seed in range(3):
        samples = compose(duration, sample_rate, seed)
        assert samples.dtype == np.float32
        assert samples.shape == (round(duration * sample_rate),)
        assert np.all(np.isfinite(samples))
        assert 0.5 <= np.max(np.abs(samples)) <= 0.9001


@pytest.mark.parametrize("seed", range(6))
def test_is_in_key(seed):
    score = write_score(15.0, np.random.default_rng(seed))
    scale = {(score.tonic + step) % 12 for step in MODES[score.mode]}
    chroma = librosa.feature.chroma_stft(
        y=compose(15.0, seed=seed), sr=SAMPLE_RATE, n_fft=4096, tuning=0.0, norm=None
    ).sum(axis=1)
    assert set(np.argsort(-chroma)[:4].tolist()) <= scale
    assert chroma[sorted(scale)].sum() > 0.7 * chroma.sum()  # all twelve alike would give 0.58


def test_no_clicks_at_the_ends_and_no_long_silence():
    for seed in range(4):
        samples = compose(10.0, seed=seed)
        assert abs(samples[0]) < 1e-3 and abs(samples[-1]) < 1e-3
        music = samples[: int(8.5 * SAMPLE_RATE)]  # the rest is the ending
        loudness = librosa.feature.rms(y=music, frame_length=SAMPLE_RATE, center=False)[0]
        assert loudness.min() > 0.01


def test_render_places_notes_in_time():
    note = Note(1.0, 0.5, 69, 0.5, "organ")
    samples = render(Score(9, "ionian", [note]), 3.0, SAMPLE_RATE, np.random.default_rng(0))
    sounding = np.flatnonzero(samples) / SAMPLE_RATE
    assert sounding[0] == pytest.approx(1.0, abs=0.01)
    assert sounding[-1] == pytest.approx(1.56, abs=0.01)
    assert np.max(np.abs(samples)) == pytest.approx(0.5)


def test_collection(tmp_path):
    paths = compose_collection(tmp_path / "music", num_pieces=3, duration=1.5, sample_rate=16000, seed=4)
    assert [path.name for path in paths] == ["piece_00.wav", "piece_01.wav", "piece_02.wav"]
    for path in paths:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16000, 1, 24000, "PCM_16")
    again = compose_collection(tmp_path / "again", num_pieces=2, duration=1.5, sample_rate=16000, seed=4)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths[:2]]
    assert paths[0].read_bytes() != paths[1].read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [{"duration": 0}, {"duration": -1.0}, {"duration": np.nan}, {"duration": np.inf}, {"sample_rate": 100}],
)
def test_bad_input(arguments):
    with pytest.raises(ValueError, match="Received"):
        compose(**arguments)


def test_collection_needs_pieces(tmp_path):
    with pytest.raises(ValueError, match="num_pieces"):
        compose_collection(tmp_path, num_pieces=0)
