import numpy as np
import pytest

from spectrovae.model.course import Course

ANYWHERE = np.full((1, 1), -1)


@pytest.fixture
def circle() -> Course:
    """A course on a circle: each window goes on by a twelfth, half of them are of component 0."""
    angles = np.linspace(0, 2 * np.pi, 240, endpoint=False)
    halves = np.stack([angles, angles + np.pi / 6], axis=1)
    codes = np.stack([np.cos(halves), np.sin(halves)], axis=-1).repeat(2, axis=1)  # (240, 4, 2)
    course = Course(2)
    course.fit(codes, (angles > np.pi).astype(int), seed=0)
    return course


def test_walks_go_where_windows_went(circle):
    assert circle.is_known and not Course(2).is_known
    circle.components.assign(np.minimum(circle.components, 0))
    points, components = circle.walk(np.array([[1.0, 0.0]]), np.repeat(ANYWHERE, 13, axis=1), np.random.default_rng(0))
    angles = np.unwrap(np.arctan2(points[0, :, 1], points[0, :, 0]))
    np.testing.assert_allclose(np.diff(angles), np.pi / 6, atol=0.06)
    assert components.shape == (1, 12) and (components == 0).all()
    np.testing.assert_allclose(np.linalg.norm(points[0], axis=1), 1, atol=1e-5)


def test_walks_differ_by_seed_only(circle):
    starts = np.array([[1.0, 0.0], [0.0, 1.0]])
    wanted = np.full((2, 7), -1)
    first, again, other = (circle.walk(starts, wanted, np.random.default_rng(seed))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(first[:, 0], starts)


def test_walks_keep_to_a_component(circle):
    points, components = circle.walk(np.array([[1.0, 0.0]]), np.array([[1] * 6 + [0] * 5]), np.random.default_rng(0))
    assert components[0].tolist() == [1] * 5 + [0] * 5
    # A window of component 1 begins in the lower half, and goes on by a twelfth.
    assert (points[0, 1:6, 1] < np.sin(np.pi / 6) + 0.01).all()


def test_walks_seldom_leave_a_component_by_themselves():
    rng = np.random.default_rng(0)
    course = Course(2)
    course.fit(rng.normal(size=(400, 4, 2)), rng.integers(2, size=400))
    wanted = np.full((50, 101), -1)
    wanted[:, 0] = 0
    _, components = course.walk(np.zeros((50, 2)), wanted, rng)
    assert np.mean(np.diff(components, axis=1) != 0) == pytest.approx(0.05, abs=0.02)  # every other one that may


def test_component_without_windows_takes_any(circle):
    points, components = circle.walk(np.array([[1.0, 0.0]]), np.array([[0, 7]]), np.random.default_rng(0))
    assert components.tolist() == [[7]] and points[0, 1, 1] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("num_windows", [1, 3, 1500])
def test_any_number_of_windows(num_windows):
    course = Course(2)
    course.fit(np.random.default_rng(0).normal(size=(num_windows, 5, 2)), np.zeros(num_windows, int))
    assert (course.components.numpy() >= 0).sum() == min(num_windows, 1024)
    points, components = course.walk(np.zeros((2, 2)), np.full((2, 4), -1), np.random.default_rng(0))
    assert points.shape == (2, 4, 2) and (components == 0).all() and np.isfinite(points).all()
