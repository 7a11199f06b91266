import numpy as np
import pytest

from spectrovae.model import networks as decoding

CASES = [(2, 4, "steps"), (1, 8, "steps"), (3, 4, "steps"), (2, 4, "codes"), (1, 8, "codes")]


@pytest.fixture(params=CASES, ids=lambda param: "depth {}, {} codes, refines {}".format(*param))
def model(make_model, request):
    """A model of several codes whose deep path does something, and something else for every step and pixel."""
    depth, latent_steps, refine = request.param
    model = make_model(decoder_depth=depth, latent_steps=latent_steps, refine=refine, latent_dim=3)
    generator = np.random.default_rng(0)
    for weight in model.decoder.weights:
        if weight.ndim:
            weight.assign(generator.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1])))
    return model


@pytest.fixture
def codes() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 37, 3)).astype(np.float32)


def test_a_long_sequence_in_stretches_is_the_whole(model, codes, monkeypatch):
    whole = model.decoded(codes)
    assert [part.shape for part in whole] == [(2, 32, 37 * 32 // model.latent_steps, 1)] * 2
    calls = []
    decoder = model.decoder
    monkeypatch.setattr(decoding, "STEPS_AT_ONCE", 8)
    monkeypatch.setattr(type(decoder), "__call__", _counting(type(decoder).__call__, calls))
    for part, expected in zip(model.decoded(codes), whole, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-5)
    assert len(calls) > 2 and max(calls) < 37


def _counting(call, calls):
    def counted(self, inputs, *args, **kwargs):
        calls.append(inputs.shape[1])
        return call(self, inputs, *args, **kwargs)

    return counted


def test_a_margin_that_is_too_small_would_be_noticed(model, codes, monkeypatch):
    whole = model.decoded(codes)[0]
    monkeypatch.setattr(decoding, "STEPS_AT_ONCE", 8)
    monkeypatch.setattr(decoding, "DECODER_CONTEXT", 0)
    assert np.abs(model.decoded(codes)[0] - whole).max() > 1e-3


def test_the_decoder_sees_no_further_than_it_says(model, codes):
    margin = decoding.DECODER_CONTEXT  # codes
    if model.refine == "steps":
        margin = -(-margin * 2**model.decoder_depth * model.latent_steps // 32)
    others = codes.copy()
    others[:, : 18 - margin] += 1
    others[:, 19 + margin :] -= 1
    frames = slice(18 * 32 // model.latent_steps, 19 * 32 // model.latent_steps)
    for part, same in zip(model.decoded(codes), model.decoded(others), strict=True):
        np.testing.assert_allclose(part[:, :, frames], same[:, :, frames], atol=1e-5)
    # A code right beside is seen.
    others = codes.copy()
    others[:, 17] += 1
    assert np.abs(model.decoded(codes)[0] - model.decoded(others)[0])[:, :, frames].max() > 1e-3


def test_a_window_is_decoded_as_it_was(make_model, windows):
    for latent_steps in (1, 4):
        model = make_model(latent_steps=latent_steps)
        codes = model.encode(windows[:3])
        assert codes.shape[1:] == model.code_shape == ((4,) if latent_steps == 1 else (4, 4))
        expected = np.asarray(model.likelihood.mean(model.decoder(codes)))
        np.testing.assert_allclose(model.decoded(codes)[0], expected, atol=1e-6)
        np.testing.assert_allclose(model.decode(codes), np.clip(expected, 0, 1), atol=1e-6)


def test_seconds_to_frames_and_codes(make_model):
    model = make_model(latent_steps=4)  # 8000 Hz, 16 samples per frame, 8 frames per code
    assert [model.num_samples_of(duration) for duration in (1e-9, 0.002, 1.0)] == [1, 16, 8000]
    assert [model.num_frames_of(duration) for duration in (1e-9, 0.002, 0.0021, 1.0)] == [1, 1, 2, 500]
    assert [model.num_steps_for(num_frames) for num_frames in (1, 8, 9, 500)] == [1, 1, 2, 63]
    for duration in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="duration="):
            model.num_samples_of(duration)
    with pytest.raises(ValueError, match="latent_steps=1"):
        make_model().num_steps_for(3)
