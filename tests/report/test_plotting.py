"""Figures have the right panels, units and ranges, and leave nothing behind."""

import matplotlib
import numpy as np
import pytest

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.report.plotting import plot_history, plot_latent, plot_spectrograms

CONVERTER = SpectrogramConverter(sample_rate=8000, n_fft=256, hop_length=64, num_frames=50, dynamic_range=60.0)
RNG = np.random.default_rng(0)
WINDOWS = RNG.random((5, 128, 50, 1)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_global_figures():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    yield
    assert pyplot.get_fignums() == before


def draw(figure, tmp_path):
    """Lay the figure out as a user's `savefig` does; warnings are errors."""
    path = tmp_path / "picture.png"
    figure.savefig(path)
    assert path.stat().st_size > 5000
    return figure


@pytest.mark.parametrize("frequency_scale", ["log", "linear"])
def test_spectrogram_axes(tmp_path, frequency_scale):
    figure = draw(plot_spectrograms(WINDOWS[0], CONVERTER, frequency_scale=frequency_scale), tmp_path)
    panel, color_bar = figure.axes
    assert panel.get_xlabel() == "Time (s)"
    assert panel.get_ylabel() == "Frequency (Hz)"
    assert color_bar.get_ylabel() == "Level (dB)"
    assert panel.get_yscale() == {"log": "symlog", "linear": "linear"}[frequency_scale]
    (mesh,) = panel.collections
    assert mesh.get_clim() == (-60.0, 0.0)
    np.testing.assert_allclose(mesh.get_array(), CONVERTER.to_decibels(WINDOWS[0])[..., 0])
    # Cells are centred on the bins and frames, half a cell wider on each side.
    assert panel.get_xlim() == pytest.approx((-0.5 * 64 / 8000, 49.5 * 64 / 8000), abs=64 / 8000)
    assert panel.get_ylim()[1] == pytest.approx(4000 - 4000 / 128, abs=4000 / 128)


def test_spectrogram_grid(tmp_path):
    titles = [f"window {index}" for index in range(5)]
    figure = draw(plot_spectrograms(WINDOWS, CONVERTER, titles, num_columns=3), tmp_path)
    panels = figure.axes[:-1]
    assert [panel.get_title() for panel in panels] == titles
    assert [bool(panel.get_xlabel()) for panel in panels] == [False, False, True, True, True]
    assert [bool(panel.get_ylabel()) for panel in panels] == [True, False, False, True, False]
    assert len(plot_spectrograms(WINDOWS[:2], CONVERTER, num_columns=1).axes) == 3


@pytest.mark.parametrize(
    ("spectrograms", "options", "message"),
    [
        (WINDOWS[..., 0], {}, "shape"),
        (WINDOWS[:, :64], {}, "shape"),
        (WINDOWS[:0], {}, "shape"),
        (WINDOWS, {"titles": ["one"]}, "titles"),
        (WINDOWS, {"titles": "abcde"}, "titles"),
        (WINDOWS, {"num_columns": 0}, "num_columns"),
        (WINDOWS, {"frequency_scale": "mel"}, "frequency_scale"),
    ],
)
def test_spectrograms_bad_input(spectrograms, options, message):
    with pytest.raises(ValueError, match=message):
        plot_spectrograms(spectrograms, CONVERTER, **options)


HISTORY = {
    "rmse_db": [7.0, 6.5, 6.2, 6.1],
    "live_components": [8, 8, 7, 7],
    "loss": [-1e5, -1.2e5, -1.3e5, -1.31e5],
    "kl_loss": [340.0, 350.0, 352.0, 353.0],
    "val_loss": [-1.1e5, -1.25e5],
    "val_rmse_db": [6.6, 6.3],
}


def test_history(tmp_path):
    figure = draw(plot_history(HISTORY), tmp_path)
    assert [(axes.get_title(), axes.get_ylabel()) for axes in figure.axes] == [
        ("Loss", "nats per window"),
        ("KL divergence", "nats per window"),
        ("Reconstruction error", "dB"),
        ("live components", ""),
    ]
    training, validation = figure.axes[0].lines
    assert training.get_label() == "training" and validation.get_label() == "validation"
    np.testing.assert_array_equal(training.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(training.get_ydata(), HISTORY["loss"])
    np.testing.assert_array_equal(validation.get_xdata(), [2, 4])  # validation_freq=2
    assert len(figure.axes[1].lines) == 1
    assert {axes.get_xlabel() for axes in figure.axes} == {"Epoch"}


def test_history_of_a_resumed_run_and_of_one_epoch(tmp_path):
    class History:
        epoch = (10,)
        history = {"loss": [1.0], "val_loss": [2.0]}  # noqa: RUF012

    figure = draw(plot_history(History()), tmp_path)
    assert [line.get_xdata().tolist() for line in figure.axes[0].lines] == [[11], [11]]
    draw(plot_history({"loss": [float("nan"), 1.0]}), tmp_path)


@pytest.mark.parametrize("history", [{}, {"loss": []}, None, [1.0]])
def test_history_bad_input(history):
    with pytest.raises(ValueError, match="history"):
        plot_history(history)


def test_latent_shows_the_principal_plane(tmp_path):
    # Two independent latent dimensions with variances 9 and 3, hidden by a rotation; a third with 0.
    codes = np.zeros((400, 3))
    codes[:, :2] = np.linalg.qr(RNG.normal(size=(400, 3)))[0][:, 1:] * [3, np.sqrt(3)]
    codes -= codes.mean(axis=0)
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    figure = draw(plot_latent(codes @ rotation, title="codes"), tmp_path)
    (axes,) = figure.axes
    shown = np.asarray(axes.collections[0].get_offsets())
    variances = np.linalg.eigvalsh(np.cov(codes, rowvar=False))[::-1]
    np.testing.assert_allclose(shown.var(axis=0, ddof=1), variances[:2])
    for rank, label in enumerate([axes.get_xlabel(), axes.get_ylabel()]):
        assert f"({100 * variances[rank] / variances.sum():.0f} % of the variance)" in label
    assert axes.get_title() == "codes" and axes.get_legend() is None


@pytest.mark.parametrize("num_labels", [3, 60])
def test_latent_legend_gives_shares(tmp_path, num_labels):
    labels = np.arange(240) % num_labels
    figure = draw(plot_latent(RNG.normal(size=(240, 6)), labels, num_components=num_labels + 1), tmp_path)
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[0] == f"0 ({100 / num_labels:.0f} %)" and texts[-1] == f"{num_labels} (0 %)"
    sizes = [len(points.get_offsets()) for points in axes.collections]
    assert sizes == [240 // num_labels] * num_labels + [0]
    colors = {tuple(points.get_facecolor()[0]) for points in axes.collections[:-1]}
    assert len(colors) == num_labels
    figure.canvas.draw()
    area = axes.get_window_extent().width / figure.bbox.width
    assert area > 0.35  # the legend leaves room for the map


@pytest.mark.parametrize("shape", [(2, 1), (30, 1), (10, 4, 3)])
def test_latent_odd_shapes(tmp_path, shape):
    draw(plot_latent(RNG.normal(size=shape)), tmp_path)


def test_latent_collapsed(tmp_path):
    figure = draw(plot_latent(np.ones((20, 4)), np.zeros(20, int)), tmp_path)
    assert "(0 % of the variance)" in figure.axes[0].get_xlabel()


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        (np.zeros(5), {}, "shape"),
        (np.zeros((1, 4)), {}, "at least 2"),
        (np.full((5, 2), np.nan), {}, "finite"),
        (np.zeros((5, 2)), {"labels": np.zeros(4, int)}, "labels"),
        (np.zeros((5, 2)), {"labels": np.zeros(5)}, "integers"),
        (np.zeros((5, 2)), {"labels": np.full(5, -1)}, "labels"),
        (np.zeros((5, 2)), {"labels": np.full(5, 3), "num_components": 3}, "num_components"),
    ],
)
def test_latent_bad_input(codes, options, message):
    with pytest.raises(ValueError, match=message):
        plot_latent(codes, **options)


def test_settings_of_the_user_are_kept():
    before = dict(matplotlib.rcParams)
    plot_spectrograms(WINDOWS[:1], CONVERTER)
    plot_history(HISTORY)
    plot_latent(RNG.normal(size=(5, 2)))
    assert dict(matplotlib.rcParams) == before
