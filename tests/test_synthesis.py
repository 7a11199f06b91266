"""Tests of `spectrovae.synthesis`: scores, instruments, and the pieces made of them."""

import librosa
import numpy as np
import pytest
import soundfile

from spectrovae.synthesis import (
    MODE_TONICS,
    MODES,
    TIMBRES,
    Note,
    Score,
    _voice_chord,
    compose,
    compose_collection,
    form_band,
    render,
    write_score,
)

SAMPLE_RATE = 22050
DRUMS = ("kick", "snare", "hat")


def shares_of_notes(audio: np.ndarray) -> np.ndarray:
    """The share of each pitch class in the power above 200 Hz, where no kick drum sounds."""
    power = np.square(np.abs(librosa.stft(audio, n_fft=8192)))
    power[: round(200 * 8192 / SAMPLE_RATE)] = 0
    chroma = librosa.feature.chroma_stft(S=power, sr=SAMPLE_RATE, tuning=0.0, norm=None).sum(axis=1)
    return chroma / chroma.sum()


def test_pieces_vary():
    scores = [write_score(15.0, np.random.default_rng(seed)) for seed in range(30)]
    assert {score.mode for score in scores} == set(MODES)
    assert len({score.tonic for score in scores}) > 8
    assert {note.timbre for score in scores for note in score.notes} == set(TIMBRES)
    assert len({frozenset(note.timbre for note in score.notes) for score in scores}) > 15


@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_a_band_share_their_notes_and_instruments(seed):
    band = form_band(np.random.default_rng(seed))
    scale = {(band.scale + step) % 12 for step in MODES["ionian"]}
    scores = [write_score(20.0, np.random.default_rng(piece), band) for piece in range(8)]
    notes = [note for score in scores for note in score.notes if note.timbre not in DRUMS]
    assert {note.pitch % 12 for note in notes} == scale
    assert {note.timbre for note in notes} == set(band.timbres.values())
    assert len({score.mode for score in scores}) > 2
    for score in scores:
        assert score.tonic == (band.scale + MODE_TONICS[score.mode]) % 12


def test_score_keeps_to_the_scale_and_moves_voices_little():
    score = write_score(30.0, np.random.default_rng(5))
    scale = {(score.tonic + step) % 12 for step in MODES[score.mode]}
    pitched = [note for note in score.notes if note.timbre not in ("kick", "snare", "hat")]
    assert {note.pitch % 12 for note in pitched} <= scale
    assert all(0 < note.velocity <= 1 and note.duration > 0 for note in score.notes)
    chord = _voice_chord(score, 0, [60, 64, 67])
    for root in (3, 4, 5, 0):
        previous, chord = chord, _voice_chord(score, root, chord)
        assert sum(abs(a - b) for a, b in zip(chord, previous, strict=True)) <= 9
    final = [note for note in score.notes if note.start > 30.0 - 1.5 - 60 * 4 / 144 * 0.9]
    assert {note.pitch % 12 for note in final} <= {score.pitch(step, 4) % 12 for step in (0, 2, 4)}


@pytest.mark.parametrize("timbre", sorted(set(TIMBRES) - set(DRUMS)))
@pytest.mark.parametrize("frequency", [110.0, 440.0])
def test_timbres_are_in_tune(timbre, frequency):
    samples = TIMBRES[timbre](frequency, 1.5, SAMPLE_RATE, np.random.default_rng(0))
    # Vibrato stays within a third of a semitone.
    pitch = librosa.yin(samples.astype(np.float32), fmin=60, fmax=1000, sr=SAMPLE_RATE, frame_length=4096)
    middle = np.median(pitch[8:40])
    assert abs(12 * np.log2(middle / frequency)) < 0.3
    assert abs(samples[0]) < 1e-6 * np.max(np.abs(samples)) and abs(samples[-1]) < 0.01


@pytest.mark.parametrize("timbre", TIMBRES)
@pytest.mark.parametrize("sample_rate", [8000, 44100])
@pytest.mark.parametrize("frequency", [40.0, 2000.0])
def test_timbres_sound_at_the_edges_of_their_range(timbre, sample_rate, frequency):
    samples = TIMBRES[timbre](frequency, 0.3, sample_rate, np.random.default_rng(0))
    peak = np.max(np.abs(samples))
    assert np.all(np.isfinite(samples)) and peak > 0
    assert abs(samples[0]) < 1e-6 * peak and abs(samples[-1]) < 0.01 * peak
    assert samples.ndim == 1 and 0.1 * sample_rate <= len(samples) <= sample_rate


def test_drums_differ_in_brightness():
    centroids = []
    for drum in DRUMS:
        samples = TIMBRES[drum](0.0, 0.0, SAMPLE_RATE, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(samples)) ** 2
        centroids.append(np.average(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), weights=power))
    assert centroids[0] < 200 and 2000 < centroids[1] < centroids[2] - 1000


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
    chroma = shares_of_notes(compose(15.0, seed=seed))
    assert set(np.argsort(-chroma)[:3].tolist()) <= scale
    assert chroma[sorted(scale)].sum() > 0.7  # all twelve alike would give 0.58


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


def test_one_band_plays_a_collection_and_another_the_next(tmp_path):
    instruments = []
    for seed in range(2):
        chromas = []
        for path in compose_collection(tmp_path / str(seed), num_pieces=4, duration=12.0, seed=seed):
            chromas.append(shares_of_notes(soundfile.read(path)[0]))
        notes = {(form_band(np.random.default_rng(seed)).scale + step) % 12 for step in MODES["ionian"]}
        assert all(chroma[sorted(notes)].sum() > 0.7 for chroma in chromas)
        instruments.append(form_band(np.random.default_rng(seed)).timbres)
    assert instruments[0] != instruments[1]


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
