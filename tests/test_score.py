"""Scores vary, keep to their scale and lead their voices smoothly."""

import numpy as np

from spectrovae.synthesis import MODES, TIMBRES, _voice_chord, write_score


def test_pieces_vary():
    scores = [write_score(15.0, np.random.default_rng(seed)) for seed in range(30)]
    assert {score.mode for score in scores} == set(MODES)
    assert len({score.tonic for score in scores}) > 8
    assert {note.timbre for score in scores for note in score.notes} == set(TIMBRES)
    assert len({frozenset(note.timbre for note in score.notes) for score in scores}) > 15


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
