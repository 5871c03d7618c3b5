import dataclasses
import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics import (
    Protocol,
    depth_errors,
    five_frame_ate,
    flip_post_process,
    garg_crop,
    score_depth,
    summarise,
)

RULES = Protocol("test", (1e-3, 80.0), (1e-3, 80.0))


def some_depth(seed=0, shape=(30, 40)):
    return np.random.default_rng(seed).uniform(2, 70, shape).astype(np.float32)


def test_metrics_of_one_wrong_pixel_by_hand():
    errors = depth_errors(gt=np.array([2.0, 4.0]), pred=np.array([2.0, 6.0]))
    assert errors.abs_rel == pytest.approx(0.25)
    assert errors.sq_rel == pytest.approx(0.5)
    assert errors.rmse == pytest.approx(math.sqrt(2))
    assert errors.rmse_log == pytest.approx(math.log(1.5) / math.sqrt(2))
    assert (errors.a1, errors.a2, errors.a3) == (0.5, 1.0, 1.0)


@given(st.floats(0.01, 100))
def test_median_scaling_forgives_any_scale(scale):
    gt = some_depth()
    one = score_depth(1 / gt, gt, RULES)
    assert one.errors.abs_rel == pytest.approx(0, abs=1e-5)
    scaled = score_depth((scale / gt).astype(np.float32), gt, RULES)
    assert scaled.ratio == pytest.approx(scale, rel=1e-4)
    np.testing.assert_allclose(scaled.errors, one.errors, atol=1e-4)


def test_without_scaling_the_scale_counts_and_a_factor_mends_it():
    gt = some_depth()
    rules = dataclasses.replace(RULES, scaling="none")
    assert score_depth(5.4 / gt, gt, rules).errors.abs_rel == pytest.approx(1 - 1 / 5.4, rel=1e-4)
    assert score_depth(5.4 / gt, gt, rules, 5.4).errors.abs_rel == pytest.approx(0, abs=1e-5)


def test_clipping_comes_after_the_median():
    """Predictions beyond the range before scaling must not be cut down to it."""
    gt = some_depth()
    assert score_depth((1e-4 / gt), gt, RULES).errors.abs_rel == pytest.approx(0, abs=1e-5)
    near = np.full((4, 4), 10, np.float32)
    near[0, 0] = 79
    pred = np.full((4, 4), 10, np.float32)
    pred[0, 0] = 500
    assert score_depth(1 / pred, near, RULES).errors.rmse == pytest.approx(1 / 4, rel=1e-4)


def test_disparity_is_resized_not_depth():
    disp = np.array([[0.1, 0.9]], np.float32)
    gt = np.full((4, 8), 3.0, np.float32)
    rules = dataclasses.replace(RULES, scaling="none")
    expected = depth_errors(gt, 1 / cv2.resize(disp, (8, 4)))
    assert score_depth(disp, gt, rules).errors == pytest.approx(expected)


def test_only_masked_pixels_count():
    gt = some_depth(shape=(100, 200))
    rules = dataclasses.replace(RULES, crop=garg_crop)
    rows, cols = garg_crop(100, 200)
    assert (rows.start, rows.stop, cols.start, cols.stop) == (40, 99, 7, 192)
    wrong = 1 / gt
    wrong[:40] = wrong[99:] = 1e-3
    wrong[:, :7] = wrong[:, 192:] = 1e-3
    assert score_depth(wrong, gt, rules).errors.abs_rel == pytest.approx(0, abs=1e-5)
    holes = gt.copy()
    holes[50:60] = 0
    holes[60:70] = 80
    wrong[50:70] = 1e-3
    assert score_depth(wrong, holes, rules).errors.abs_rel == pytest.approx(0, abs=1e-5)
    assert score_depth(1 / gt, np.zeros_like(gt), rules) is None


def test_spread_is_relative_to_the_median_ratio():
    gt = some_depth()
    scores = [score_depth((s / gt).astype(np.float32), gt, RULES) for s in (1, 2, 3)]
    summary = summarise(scores)
    assert summary.ratio == pytest.approx(2, rel=1e-4)
    assert summary.ratio_spread == pytest.approx(np.std([0.5, 1, 1.5]), rel=1e-4)
    assert summary.images == 3


def test_post_processing_takes_each_border_from_the_view_that_sees_it():
    straight = np.zeros((1, 2, 101), np.float32)
    mirrored = np.ones((1, 2, 101), np.float32)
    blend = flip_post_process(straight, mirrored)[0, 0]
    assert blend[0] == 1 and blend[-1] == 0  # left from the mirrored image, right from the other
    np.testing.assert_allclose(blend[10:91], 0.5)
    assert flip_post_process(straight, straight).max() == 0
    both = flip_post_process(straight, mirrored) + flip_post_process(mirrored, straight)
    np.testing.assert_allclose(both, 1, atol=1e-6)


def trajectory(frames, seed=0):
    """Random smooth camera-to-world poses and the exact relative transforms."""
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for _ in range(frames - 1):
        step = np.eye(4)
        angle = rng.normal(0, 0.05)
        step[:3, :3] = cv2.Rodrigues(np.array([0, angle, 0.01]))[0]
        step[:3, 3] = rng.normal([0, 0, 1], 0.05)
        poses.append(poses[-1] @ step)
    poses = np.array(poses)
    return np.linalg.inv(poses[1:]) @ poses[:-1], poses


@pytest.mark.parametrize("as_published", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_true_motion_has_no_trajectory_error_at_any_scale(as_published, scale):
    relative, poses = trajectory(12)
    relative[:, :3, 3] *= scale
    error = five_frame_ate(relative, poses, as_published=as_published)
    assert error.mean == pytest.approx(0, abs=1e-9)
    assert error.windows == 8


def test_tail_windows_are_counted_only_when_asked_for():
    relative, poses = trajectory(12)
    assert five_frame_ate(relative, poses, strict=False).windows == 11
    with pytest.raises(ValueError):
        five_frame_ate(relative[:-1], poses)


def test_trajectory_error_by_hand():
    """Steps of 1 m ahead, predicted as sideways: no scale helps, the prediction vanishes."""
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 2, 3] = np.arange(5)
    wrong = np.tile(np.eye(4), (4, 1, 1))
    wrong[:, 0, 3] = 1
    error = five_frame_ate(wrong, poses)
    assert error.mean == pytest.approx(math.sqrt(1 + 4 + 9 + 16) / 5)


def test_the_published_chain_is_not_the_geometric_one():
    """Predictions with a constant turn too much, chained by hand in both ways."""
    relative, poses = trajectory(8)
    turn = np.eye(4)
    turn[:3, :3] = cv2.Rodrigues(np.array([0, 0.3, 0]))[0]
    relative = relative @ turn
    errors = {}
    for published in (True, False):
        errors[published] = five_frame_ate(relative, poses, as_published=published).mean
        own, true = relative, np.linalg.inv(poses[1:]) @ poses[:-1]
        if not published:
            own, true = np.linalg.inv(own), np.linalg.inv(true)
        by_hand = []
        for start in range(len(poses) - 4):
            a = b = np.eye(4)
            xs, ys = [a[:3, 3]], [b[:3, 3]]
            for k in range(4):
                a, b = a @ own[start + k], b @ true[start + k]
                xs.append(a[:3, 3])
                ys.append(b[:3, 3])
            xs, ys = np.array(xs), np.array(ys)
            scale = (xs * ys).sum() / (xs * xs).sum()
            by_hand.append(np.linalg.norm(scale * xs - ys) / 5)
        assert errors[published] == pytest.approx(np.mean(by_hand))
    assert abs(errors[True] - errors[False]) > 1e-3
