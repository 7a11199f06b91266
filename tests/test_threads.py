"""A trained model may be asked from many threads at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest


def test_threads_get_the_same_answers_as_one(adapted_model, windows):
    model = adapted_model
    questions = [lambda seed=seed: model.generate(4, seed=seed) for seed in range(8)]
    questions += [lambda start=start: model.encode(windows[start : start + 8]) for start in range(0, 32, 4)]
    questions += [lambda seed=seed: model.encode(windows[:8], sample=True, seed=seed) for seed in range(8)]
    questions += [lambda start=start: model.reconstruct(windows[start : start + 4]) for start in range(0, 32, 4)]
    expected = [question() for question in questions]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda question: question(), questions * 4))
    for answer, reference in zip(answers, expected * 4, strict=True):
        np.testing.assert_allclose(answer, reference, atol=1e-6)


def test_threads_without_a_seed_draw_differently(adapted_model):
    with ThreadPoolExecutor(8) as threads:
        samples = list(threads.map(lambda _: adapted_model.generate(1), range(16)))
    assert all(np.isfinite(sample).all() for sample in samples)
    assert len({sample.tobytes() for sample in samples}) == 16


def test_threads_convert_the_same_sound(small_converter, windows):
    converter = small_converter
    expected = converter.to_audio(0.5 * windows[:4], seed=0)
    with ThreadPoolExecutor(8) as threads:
        for audio in threads.map(lambda _: converter.to_audio(0.5 * windows[:4], seed=0), range(8)):
            np.testing.assert_array_equal(audio, expected)


@pytest.mark.parametrize("latent_steps", [1, 4])
def test_a_model_that_is_training_can_be_asked(make_model, windows, latent_steps, tmp_path):
    model = make_model(latent_steps=latent_steps)
    questions = [
        lambda: model.generate(2),
        lambda: model.encode(windows[:4], sample=True),
        lambda: model.reconstruct(windows[:4]),
        lambda: (model.save(tmp_path / "model.keras"), np.zeros(1))[1],
    ]
    stop = threading.Event()

    def ask(question) -> int:
        number = 0
        while not stop.is_set() or not number:
            assert np.isfinite(question()).all()
            number += 1
        return number

    with ThreadPoolExecutor(len(questions)) as threads:
        asked = [threads.submit(ask, question) for question in questions]
        try:
            history = model.fit(windows, validation_data=windows[:8], batch_size=8, epochs=2, verbose=0).history
        finally:
            stop.set()
        assert all(future.result() for future in asked)
    assert np.isfinite(history["loss"]).all() and np.isfinite(history["val_loss"]).all()
