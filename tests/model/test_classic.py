import keras
import numpy as np
import pytest

from spectrovae import SpectrogramConverter, SpectroVAE
from spectrovae.model.classic import build_classic_decoder, build_classic_encoder
from spectrovae.model.likelihood import BernoulliLikelihood


@pytest.fixture(scope="module")
def classic() -> SpectroVAE:
    return SpectroVAE.classic()


def test_model_is_the_reference_model(classic):
    assert classic.encoder.count_params() == 86_123_646
    assert classic.decoder.count_params() == 2_172_385
    assert (classic.latent_dim, classic.num_components, classic.num_kl_samples) == (100, 2, 3)
    assert classic.posterior == "full"
    assert isinstance(classic.likelihood, BernoulliLikelihood)
    assert not classic.learn_weights and not classic.can_adapt
    assert classic.converter == SpectrogramConverter.classic()


def test_layers_are_those_of_the_reference_model(classic):
    layers = [layer for layer in classic.encoder.layers if "conv" in layer.name or "pool" in layer.name]
    assert [layer.output.shape[1:] for layer in layers] == [
        (256, 256, 32), (128, 128, 64), (64, 64, 64), (32, 32, 128), (16, 16, 256), (8, 8, 256)
    ]  # fmt: skip
    filters = [layer.filters for layer in classic.decoder.layers if "conv" in layer.name]
    assert filters == [128, 64, 32, 128, 64, 32]
    assert sum("normalization" in layer.name for layer in classic.decoder.layers) == 2
    assert classic.decoder.output_shape == (None, 512, 1, 512)


@pytest.mark.parametrize(("shape", "depth"), [((64, 64, 1), 3), ((32, 96, 1), 5), ((64, 16, 1), 1)])
def test_other_shapes_that_the_depth_divides_work(shape, depth):
    encoder = build_classic_encoder(shape, 3, "diagonal", depth=depth, latent_steps=1, seed=0)
    decoder = build_classic_decoder(shape, 3, 2, depth=depth, width=8, latent_steps=1, seed=0)
    parameters = encoder(np.zeros((2, *shape), np.float32))
    assert parameters.shape == (2, 6)
    assert decoder(parameters[:, :3]).shape == (2, shape[1], 2, shape[0])


def test_the_seed_decides_the_weights():
    first, same, other = (
        build_classic_decoder((16, 16, 1), 2, 1, depth=2, width=4, latent_steps=1, seed=seed).get_weights()
        for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("shape", "depth", "latent_steps", "message"),
    [
        ((24, 32, 1), 4, 1, "bins must be a multiple of 16"),
        ((32, 24, 1), 4, 1, "frames must be a multiple of 16"),
        ((32, 32), 2, 1, r"\(bins, frames, 1\).*\(32, 32\)"),
        ((32, 32, 1), 0, 1, "depth=0"),
        ((32, 32, 1), 2, 2, "one code.*latent_steps=2"),
    ],
)
def test_what_does_not_fit_is_named(shape, depth, latent_steps, message):
    with pytest.raises(ValueError, match=message):
        build_classic_encoder(shape, 2, "full", depth=depth, latent_steps=latent_steps, seed=0)
    with pytest.raises(ValueError, match=message):
        build_classic_decoder(shape, 2, 1, depth=depth, width=8, latent_steps=latent_steps, seed=0)


def test_small_classic_model_trains(windows):
    model = SpectroVAE.classic(input_shape=(32, 32, 1), decoder_depth=3, latent_dim=4, seed=0)
    model.compile(keras.optimizers.Adam(5e-4))
    history = model.fit(windows, epochs=3, batch_size=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
