import dataclasses
import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.kitti import EIGEN, IMPROVED
from metrics import (
    Protocol,
    depth_errors,
    flip_disagreement,
    flip_post_process,
    garg_crop,
    score_depth,
    score_ranking,
    sparsification,
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


def test_eigen_counts_the_crop_and_improved_ground_truth_counts_everywhere():
    gt = np.full((375, 1242), 30, np.float32)
    gt[200, 600] = 85  # beyond the range of the one, inside that of the other
    eigen, improved = EIGEN.mask(gt), IMPROVED.mask(gt)
    rows, columns = np.flatnonzero(eigen.any(1)), np.flatnonzero(eigen.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (153, 370, 44, 1196)
    assert not eigen[200, 600] and improved.all()
    assert EIGEN.pred_range_m == IMPROVED.pred_range_m == (1e-3, 80.0)
    assert EIGEN.stereo_scale == IMPROVED.stereo_scale == pytest.approx(0.54 / 0.1)


def test_spread_is_relative_to_the_median_ratio():
    gt = some_depth()
    scores = [score_depth((s / gt).astype(np.float32), gt, RULES) for s in (1, 2, 6)]
    summary = summarise(scores)
    assert summary.ratio == pytest.approx(2, rel=1e-4)
    assert summary.ratio_spread == pytest.approx(np.std([0.5, 1, 3]), rel=1e-4)
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


# Uncertainty


def test_removing_the_worst_first_lowers_the_mean_fastest():
    errors = np.array([4.0, 1.0, 3.0, 2.0])
    np.testing.assert_allclose(sparsification(errors, errors, 4), [2.5, 2, 1.5, 1])
    np.testing.assert_allclose(sparsification(errors, -errors, 4), [2.5, 3, 3.5, 4])
    np.testing.assert_allclose(sparsification(errors, np.zeros(4), 4)[0], 2.5)


@given(st.integers(0, 10_000), st.integers(2, 60))
def test_no_ranking_beats_that_by_the_errors_themselves(seed, count):
    rng = np.random.default_rng(seed)
    errors, by = rng.random(count), rng.random(count)
    best, curve = sparsification(errors, errors), sparsification(errors, by)
    assert np.all(best <= curve + 1e-12) and curve[0] == pytest.approx(errors.mean())
    np.testing.assert_allclose(curve, sparsification(errors, 3 * by + 1))  # only the order counts


def test_rankings_are_scored_from_perfect_to_worse_than_chance():
    rng = np.random.default_rng(0)
    gt = rng.uniform(2, 20, (60, 80)).astype(np.float32)
    wrong = rng.uniform(0, 0.5, gt.shape).astype(np.float32)
    disp = 1 / (gt * (1 + wrong))
    rules = Protocol("all", (0.0, 80.0), (1e-3, 80.0), scaling="none")
    perfect = score_ranking(disp, wrong, gt, rules)
    assert perfect.ause == pytest.approx(0, abs=1e-6) and perfect.aurg > 0.1
    chance = score_ranking(disp, rng.random(gt.shape, np.float32), gt, rules)
    assert chance.aurg == pytest.approx(0, abs=0.01) and chance.ause > 0.1
    assert score_ranking(disp, -wrong, gt, rules).aurg < -0.1
    assert score_ranking(disp, wrong, np.zeros_like(gt), rules) is None


def test_agreement_with_the_mirrored_image_is_certainty():
    disp = np.random.default_rng(0).uniform(0.1, 1, (2, 4, 6)).astype(np.float32)
    assert flip_disagreement(disp, disp).max() == 0
    np.testing.assert_allclose(flip_disagreement(disp, 3 * disp), 1, rtol=1e-6)
    np.testing.assert_array_equal(
        flip_disagreement(disp, 2 * disp), flip_disagreement(2 * disp, disp)
    )
