import numpy as np
from keras import layers

from spectrovae.model.pca import average_frames, interpolate_frames


def test_averaging_is_that_of_keras(windows):
    sequence = windows[..., 0].swapaxes(1, 2)
    averaged = average_frames(windows, 4).swapaxes(1, 2)
    np.testing.assert_allclose(averaged, layers.AveragePooling1D(4)(sequence), rtol=1e-5, atol=1e-6)


def test_interpolation_is_that_of_keras(windows):
    steps = average_frames(windows, 4)
    theirs = layers.UpSampling2D((1, 4), interpolation="bilinear")(steps[..., None])
    np.testing.assert_allclose(interpolate_frames(steps, 4), theirs, atol=1e-5)


def test_interpolation_undoes_averaging_of_what_is_linear_in_time():
    ramp = np.broadcast_to(np.linspace(0, 1, 32), (1, 3, 32))[..., None]
    restored = interpolate_frames(average_frames(ramp, 4), 4)
    np.testing.assert_allclose(restored[:, :, 2:-2], ramp[:, :, 2:-2], atol=1e-6)
