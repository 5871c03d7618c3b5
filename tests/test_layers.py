import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layers import backproject, disp_to_depth, pose_matrix, project, rotation_matrix, warp

vectors = st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3).map(torch.tensor)


def camera(height, width, batch=1):
    K = torch.tensor([[0.6 * width, 0, 0.5 * width], [0, 1.1 * height, 0.45 * height], [0, 0, 1]])
    return K.expand(batch, 3, 3)


@given(vectors, vectors)
def test_inverted_pose_undoes_the_pose(axis_angle, translation):
    forth = pose_matrix(axis_angle[None], translation[None])
    back = pose_matrix(axis_angle[None], translation[None], invert=True)
    torch.testing.assert_close(forth @ back, torch.eye(4)[None], atol=2e-5, rtol=0)


@given(vectors.filter(lambda v: v.norm() > 1e-3))
def test_rotation_is_a_rotation_by_the_angle_about_the_axis(axis_angle):
    R = rotation_matrix(axis_angle.double())
    torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=R.dtype), atol=1e-3, rtol=0)
    torch.testing.assert_close(R @ axis_angle.double(), axis_angle.double(), atol=1e-3, rtol=0)
    assert R.trace().item() == pytest.approx(1 + 2 * math.cos(axis_angle.norm()), abs=1e-3)


def test_rotation_about_z_turns_x_to_y():
    R = rotation_matrix(torch.tensor([0, 0, math.pi / 2]))
    torch.testing.assert_close(R @ torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]))


def test_no_motion_has_a_finite_gradient():
    still = torch.zeros(1, 3, requires_grad=True)
    pose_matrix(still, torch.zeros(1, 3)).sum().backward()
    assert still.grad.isfinite().all()


@given(st.floats(0, 1), st.floats(0.01, 1), st.floats(2, 200))
def test_depth_spans_its_range(disp, near, far):
    scaled, depth = disp_to_depth(torch.tensor([0.0, disp, 1.0], dtype=torch.float64), near, far)
    assert depth[0].item() == pytest.approx(far)
    assert depth[2].item() == pytest.approx(near)
    assert near * (1 - 1e-9) <= depth[1] <= far * (1 + 1e-9)
    torch.testing.assert_close(scaled * depth, torch.ones_like(depth))


def test_projecting_back_projected_points_gives_every_pixel_itself():
    H, W = 6, 10
    depth = 1 + torch.rand(2, 1, H, W)
    K = camera(H, W, 2)
    points = backproject(depth, torch.linalg.inv(K))
    torch.testing.assert_close(points[:, 2].view(2, 1, H, W), depth)
    grid = project(points, K, torch.eye(4).expand(2, 4, 4), H, W)
    torch.testing.assert_close(grid[0, 0, 0], torch.tensor([-1.0, -1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(grid[0, -1, -1], torch.tensor([1.0, 1.0]), atol=1e-5, rtol=0)
    image = torch.rand(2, 3, H, W)
    torch.testing.assert_close(warp(image, grid), image, atol=1e-5, rtol=0)


def test_a_point_in_the_camera_itself_projects_to_something_finite():
    points = torch.tensor([[[0.0], [0], [0], [1]]])
    grid = project(points.expand(1, 4, 16), camera(4, 4), torch.eye(4)[None], 4, 4)
    assert grid.isfinite().all()


def test_sideways_motion_shifts_pixels_by_focal_length_over_depth():
    H, W = 4, 20
    K = camera(H, W)
    T = torch.eye(4)[None].clone()
    T[0, 0, 3] = 0.5
    depth = torch.full((1, 1, H, W), 2.0)
    shift = K[0, 0, 0].item() * 0.5 / 2.0  # f t / Z, in pixels
    image = torch.arange(W, dtype=torch.float32).expand(1, 1, H, W)
    warped = warp(image, project(backproject(depth, torch.linalg.inv(K)), K, T, H, W))
    inside = int(W - 1 - shift)
    np.testing.assert_allclose(warped[0, 0, 0, :inside], np.arange(inside) + shift, rtol=1e-5)
    np.testing.assert_allclose(warped[0, 0, :, -1], W - 1, rtol=1e-6)  # the border repeats


@given(vectors.map(lambda v: 0.05 * v), vectors.map(lambda v: 0.1 * v))
def test_warping_commutes_with_mirroring(axis_angle, translation):
    """A mirrored scene has its principal point at W-1-cx, and x motion reversed."""
    H, W = 8, 16
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1])).double()
    depth, image = 1 + torch.rand(1, 1, H, W).double(), torch.rand(1, 3, H, W).double()
    K = camera(H, W).double()
    T = pose_matrix(axis_angle[None].double(), translation[None].double())
    flipped_K = K.clone()
    flipped_K[:, 0, 2] = W - 1 - K[:, 0, 2]

    def view(image, depth, K, T):
        return warp(image, project(backproject(depth, torch.linalg.inv(K)), K, T, H, W))

    straight = view(image, depth, K, T)
    mirrored = view(image.flip(-1), depth.flip(-1), flipped_K, mirror @ T @ mirror)
    torch.testing.assert_close(mirrored.flip(-1), straight, atol=1e-5, rtol=0)
