"""Models that somebody else may have written: sizes beyond reason, archives that swell, weights that are not finite."""

import json
import resource
import zipfile

import h5py
import keras
import numpy as np
import pytest

from spectrovae import SpectrogramConverter, SpectroVAE, generate_audio, load_model
from spectrovae.storage import check_archive

MEMORY = resource.RUSAGE_SELF


def peak_memory_mb():
    return resource.getrusage(MEMORY).ru_maxrss / 1024


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The file of a small model."""
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    SpectroVAE((32, 32, 1), 2, 2, decoder_depth=2, width=8, latent_steps=4, seed=0).save(path)
    return path


@pytest.fixture
def change(saved, tmp_path):
    """A function that returns a copy of the file with other arguments in its configuration."""

    def changed(**arguments):
        path = tmp_path / "changed.keras"
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
            for name in source.namelist():
                content = source.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    config["config"] |= arguments
                    content = json.dumps(config).encode()
                target.writestr(name, content)
        return path

    return changed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 2_000_000}, "`latent_dim` must be at most"),
        ({"num_components": 500_000_000}, "`num_components` must be at most"),
        ({"width": 10_000_000}, "`width` must be at most"),
        ({"width": 16_384}, "decoder would have .* weights"),
        ({"latent_dim": 16_384, "posterior": "full"}, "encoder would have .* weights"),
        ({"latent_dim": 16_384}, "(decoder|prior) would have .* weights"),
        ({"latent_dim": 16_384, "num_components": 16_384, "latent_steps": 1}, "prior would have .* weights"),
        ({"latent_dim": 16_384, "architecture": "classic", "latent_steps": 1, "posterior": "full"}, "would have"),
        ({"latent_steps": 2**40}, "`latent_steps` must be at most"),
        ({"decoder_depth": 10**9}, "`decoder_depth` must be at most"),
        ({"num_kl_samples": 10**9}, "`num_kl_samples` must be at most"),
        ({"input_shape": [2**30, 2**30, 1]}, "A window has at most"),
        ({"bank_size": 10**9}, "texture would have .* weights"),
        ({"latent_dim": "2"}, "`latent_dim` must be an integer"),
        ({"width": -1}, "`width` must be an integer"),
        ({"num_components": 1.5}, "`num_components` must be an integer"),
        ({"num_components": True}, "`num_components` must be an integer"),
        ({"seed": 2**32}, "`seed` must be None or an integer"),
        ({"format_version": "1"}, "newer spectrovae"),
        ({"converter": None}, "converter must be a SpectrogramConverter"),
        ({"likelihood": "evil"}, "likelihood must be a Likelihood"),
    ],
)
def test_sizes_beyond_reason_are_refused_before_any_weight_is_made(arguments, message, change):
    path = change(**arguments)
    before = peak_memory_mb()
    with pytest.raises(ValueError, match=message):
        keras.saving.load_model(path)
    assert peak_memory_mb() < before + 300


@pytest.mark.parametrize("name", ["converter", "likelihood"])
def test_other_classes_are_not_made(name, change):
    """`Transitions` makes its weights at once."""
    config = {"latent_dim": 10_000, "num_experts": 1_000, "memory": 4}
    nested = {
        "module": "spectrovae.model.sequence_prior",
        "class_name": "Transitions",
        "config": config,
        "registered_name": "spectrovae>Transitions",
    }
    with pytest.raises(ValueError, match=f"The model's {name} must be a"):
        keras.saving.load_model(change(**{name: nested}))


def test_converter_of_a_file_has_sensible_sizes(saved, change):
    with zipfile.ZipFile(saved) as archive:
        converter = json.loads(archive.read("config.json"))["config"]["converter"]
    for name, value in (("n_fft", 2**60), ("num_frames", 2**40), ("num_iterations", 10**12), ("dynamic_range", 1e300)):
        other = converter | {"config": converter["config"] | {name: value}}
        with pytest.raises(ValueError, match=name):
            keras.saving.load_model(change(converter=other))


# Archives


def test_archive_that_swells_is_refused(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        with archive.open("model.weights.h5", "w") as member:
            for _ in range(200):
                member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    before = peak_memory_mb()
    for load in (load_model, check_archive):
        with pytest.raises(ValueError, match="unpacks to"):
            load(path)
    assert peak_memory_mb() < before + 50


@pytest.mark.parametrize("options", [{}, {"compression": "gzip", "chunks": (2**20,)}])
def test_weights_that_swell_are_refused(options, tmp_path):
    path = tmp_path / "bomb.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/deep/vars/0", shape=(2**28,), dtype="float32", **options)
    assert path.stat().st_size < 2**20
    with pytest.raises(ValueError, match="unpacks to 1,073,741,824 bytes"):
        check_archive(path)
    packed = tmp_path / "bomb.keras"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(path, "model.weights.h5")
    with pytest.raises(ValueError, match="unpacks to 1,073,741,824 bytes"):
        check_archive(packed)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"evil" * 1000])
def test_damaged_archive_is_named(content, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.keras is damaged"):
        check_archive(path)


def test_own_files_pass(saved, tmp_path):
    check_archive(saved)
    model = load_model(saved)
    model.compile()
    model.save_weights(tmp_path / "model.weights.h5")
    check_archive(tmp_path / "model.weights.h5")


# What is not finite


@pytest.mark.parametrize("part", ["prior", "decoder"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_generating_from_weights_that_are_not_finite_is_refused(part, value, saved, tmp_path):
    model = keras.saving.load_model(saved)
    variable = model.prior.means if part == "prior" else model.decoder.get_layer("deep_window").bias
    variable.assign(np.full(variable.shape, value))
    model.save(tmp_path / "broken.keras")
    broken = keras.saving.load_model(tmp_path / "broken.keras")
    for use in (lambda: broken.generate(2, seed=0), lambda: generate_audio(broken, 0.2, seed=0)):
        with pytest.raises(ValueError, match=r"not finite, since its weights|codes hold NaN"):
            use()


def test_encoding_names_what_is_not_finite(saved, windows):
    model = keras.saving.load_model(saved)
    for value in (np.nan, np.inf):
        broken = windows[:4].copy()
        broken[2, 3, 4] = value
        for use in (model.encode, model.reconstruct):
            with pytest.raises(ValueError, match="windows hold NaN or infinite values"):
                use(broken)
    with pytest.raises(ValueError, match="codes hold NaN or infinite values"):
        model.decode(np.full((1, 4, 2), np.nan))
    bias = model.encoder.get_layer("linear_mean").bias
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.raises(ValueError, match="its weights hold NaN"):
        model.encode(windows[:4])


# Arguments of draws


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": np.inf}, "`temperature` must be a finite number"),
        ({"temperature": np.nan}, "`temperature`"),
        ({"temperature": -1.0}, "`temperature`"),
        ({"temperature": "hot"}, "`temperature`"),
        ({"texture": np.inf}, "`texture`"),
        ({"texture": np.nan}, "`texture`"),
        ({"component": 1.0}, "`component` must be None or an integer"),
        ({"component": True}, "`component`"),
        ({"component": -1}, "`component`"),
        ({"component": 2}, "`component`"),
        ({"component": "drums"}, "`component`"),
        ({"seed": 2**62}, "`seed` must be None or an integer from 0 to"),
        ({"seed": -1}, "`seed`"),
        ({"seed": 1.0}, "`seed`"),
        ({"seed": True}, "`seed`"),
    ],
)
@pytest.mark.parametrize("generate", [SpectroVAE.generate, generate_audio])
def test_arguments_of_draws_are_refused(generate, arguments, message, saved):
    model = keras.saving.load_model(saved)
    with pytest.raises(ValueError, match=message):
        generate(model, 1, **arguments)


@pytest.mark.parametrize("interval", [1e-12, 0.0, -1.0, np.nan])
def test_way_points_are_at_least_a_frame_apart(interval, saved):
    model = keras.saving.load_model(saved)
    with pytest.raises(ValueError, match="`waypoint_interval` must be at least a frame"):
        generate_audio(model, 1.0, waypoint_interval=interval)


def test_seeds_that_are_accepted_differ(saved):
    model = keras.saving.load_model(saved)
    drawn = [model.generate(1, seed=seed, texture="none").tobytes() for seed in (0, 1, 2**31, 2**32, 2**61, 2**62 - 1)]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("dynamic_range", [1e300, 401.0, 0.0, -80.0, np.inf, np.nan])
def test_dynamic_range_is_one_that_can_be_heard(dynamic_range):
    with pytest.raises(ValueError, match="`dynamic_range` must be above 0 and at most 400"):
        SpectrogramConverter(dynamic_range=dynamic_range)
