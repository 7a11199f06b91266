"""Figures have the right panels, units and ranges, and leave nothing behind."""

import matplotlib
import numpy as np
import pytest

from spectrovae.audio.spectrogram import SpectrogramConverter
from spectrovae.report.plotting import plot_comparison, plot_history, plot_spectrograms

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


def test_recorded_and_generated_windows_stand_side_by_side(tmp_path):
    figure = draw(plot_comparison(WINDOWS[:3], WINDOWS[3:], CONVERTER), tmp_path)
    panels = figure.axes[:-1]
    assert [panel.get_title() for panel in panels] == ["Recorded", "Generated", "", ""]
    shown = [panel.collections[0] for panel in panels]
    assert {mesh.get_clim() for mesh in shown} == {(-60.0, 0.0)}
    for mesh, window in zip(shown, WINDOWS[[0, 3, 1, 4]], strict=True):
        np.testing.assert_allclose(mesh.get_array(), CONVERTER.to_decibels(window)[..., 0])
    with pytest.raises(ValueError, match="shape"):
        plot_comparison(WINDOWS[:1, :64], WINDOWS[:1, :64], CONVERTER)


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


def test_settings_of_the_user_are_kept():
    before = dict(matplotlib.rcParams)
    plot_spectrograms(WINDOWS[:1], CONVERTER)
    plot_history(HISTORY)
    assert dict(matplotlib.rcParams) == before
