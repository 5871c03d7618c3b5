import importlib
import io
import itertools
import math
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from datasets.kitti import read_poses
from trajectory import (
    align,
    ate_rmse,
    chain,
    five_frame_ate,
    path_length,
    rebase,
    rpe,
    score_trajectory,
    segment_errors,
    umeyama,
    write_kitti,
    write_tum,
)

ALIGNMENTS = ("none", "scale", "6dof", "7dof")
seeds = st.integers(0, 2**32 - 1)


def trajectory(frames, seed=0, step_m=1.0):
    """Random smooth camera-to-world poses and the exact relative transforms."""
    rng = np.random.default_rng(seed)
    poses = [np.eye(4)]
    for _ in range(frames - 1):
        step = np.eye(4)
        angle = rng.normal(0, 0.05)
        step[:3, :3] = cv2.Rodrigues(np.array([0, angle, 0.01]))[0]
        step[:3, 3] = rng.normal([0, 0, step_m], 0.05)
        poses.append(poses[-1] @ step)
    poses = np.array(poses)
    return relative_of(poses), poses


def relative_of(poses):
    """Transforms of points of camera i into camera i+1."""
    return np.linalg.inv(poses[1:]) @ poses[:-1]


def straight(frames, step_m=1.0):
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = step_m * np.arange(frames)
    return poses


def yaw(degrees):
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0, math.radians(degrees), 0]))[0]
    return T


def scaled(poses, factor):
    poses = poses.copy()
    poses[:, :3, 3] *= factor
    return poses


def some_similarity(rng, spread=10.0):
    """Scale, rotation and translation."""
    R = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    return float(np.exp(rng.uniform(-3, 3))), R, rng.normal(0, spread, 3)


def moved(poses, rng):
    """The same trajectory in another world frame."""
    T = np.eye(4)
    _, T[:3, :3], T[:3, 3] = some_similarity(rng)
    return T @ poses


# From relative motion to a trajectory -------------------------------------------------------------


def test_the_chain_of_true_motion_is_the_true_trajectory():
    relative, poses = trajectory(300)
    np.testing.assert_allclose(chain(relative), poses, atol=1e-9)


def test_the_wrong_direction_is_caught_under_every_alignment():
    """Transforms chained uninverted (or inverted before). Positions alone do not always tell: on
    flat ground they are the right ones turned over."""
    relative, poses = trajectory(600)
    wrong = chain(np.linalg.inv(relative))
    for alignment in ALIGNMENTS:
        right = score_trajectory(chain(relative), poses, alignment)
        assert right.t_rel_percent < 1e-6 and right.ate_rmse_m < 1e-8, alignment
        errors = score_trajectory(wrong, poses, alignment)
        assert errors.t_rel_percent > 50 and errors.r_rel_deg_per_100m > 10, alignment
        if alignment in ("none", "scale"):
            assert errors.ate_rmse_m > 10


def test_driving_backwards_is_not_forgiven_by_a_negative_scale():
    poses = straight(200)
    backwards = np.linalg.inv(poses)
    assert score_trajectory(backwards, poses, "scale").t_rel_percent == pytest.approx(100, rel=0.02)
    for alignment in ("none", "6dof", "7dof"):
        t_rel = score_trajectory(backwards, poses, alignment).t_rel_percent
        assert t_rel == pytest.approx(200, rel=0.02)


# Alignment ----------------------------------------------------------------------------------------


@given(seeds, st.integers(3, 40))
def test_umeyama_recovers_any_similarity(seed, count):
    rng = np.random.default_rng(seed)
    scale, R, t = some_similarity(rng)
    source = rng.normal(rng.normal(0, 5, 3), 1, (count, 3))
    target = scale * source @ R.T + t
    found = umeyama(source, target, with_scale=True)
    assert found[0] == pytest.approx(scale, rel=1e-6)
    np.testing.assert_allclose(found[1], R, atol=1e-5)
    np.testing.assert_allclose(found[0] * source @ found[1].T + found[2], target, atol=1e-6 * scale)


@given(seeds, st.integers(4, 30), st.booleans())
def test_umeyama_is_the_least_squares_solution(seed, count, with_scale):
    """Unrelated points: the rotation is SciPy's, the scale the one of rotated points' regression,
    and nothing nearby is better."""
    rng = np.random.default_rng(seed)
    source, target = rng.normal(3, 2, (count, 3)), rng.normal(-1, 5, (count, 3))
    scale, R, t = umeyama(source, target, with_scale)
    x, y = source - source.mean(0), target - target.mean(0)
    np.testing.assert_allclose(R, Rotation.align_vectors(y, x)[0].as_matrix(), atol=1e-6)
    assert np.linalg.det(R) == pytest.approx(1)
    assert scale == (pytest.approx(np.sum(y * (x @ R.T)) / np.sum(x**2)) if with_scale else 1)

    def cost(scale, R, t):
        return np.sum((scale * source @ R.T + t - target) ** 2)

    least = cost(scale, R, t)
    for _ in range(5):
        nudge = Rotation.from_rotvec(rng.normal(0, 0.05, 3)).as_matrix()
        factor = 1 + 0.05 * rng.normal() * with_scale
        assert cost(scale * factor, nudge @ R, t + rng.normal(0, 0.05, 3)) >= least * (1 - 1e-12)


def test_umeyama_never_mirrors():
    source = np.random.default_rng(0).normal(size=(20, 3))
    _, R, _ = umeyama(source, source * [1, 1, -1], with_scale=False)
    assert np.linalg.det(R) == pytest.approx(1)


@given(seeds, st.integers(2, 20))
def test_a_straight_drive_is_turned_but_not_rolled(seed, count):
    rng = np.random.default_rng(seed)
    along = np.linspace(0, 1, count) ** 2
    a, b = rng.normal(size=(2, 3))
    source, target = np.outer(along, a) + 3, np.outer(along, b) - 2
    scale, R, t = umeyama(source, target, with_scale=True)
    np.testing.assert_allclose(scale * source @ R.T + t, target, atol=1e-9)
    assert np.linalg.det(R) == pytest.approx(1)
    axis = np.cross(a, b)  # the least rotation leaves what is perpendicular to both lines
    np.testing.assert_allclose(R @ axis, axis, atol=1e-6)


def test_straight_drives_ahead_and_back():
    line = straight(9)[:, :3, 3]
    np.testing.assert_allclose(umeyama(line, 2 * line, with_scale=True)[1], np.eye(3), atol=1e-12)
    scale, R, t = umeyama(line, -2 * line, with_scale=True)
    np.testing.assert_allclose(scale * line @ R.T + t, -2 * line, atol=1e-12)
    assert scale == pytest.approx(2) and np.linalg.det(R) == pytest.approx(1)


def test_points_that_are_one_point_are_only_shifted():
    point, cloud = np.full((50, 3), 0.1), np.random.default_rng(0).normal(size=(50, 3))
    for source, target, expected in ((point, cloud, 1), (cloud, point, 0), (point, point + 1, 1)):
        scale, R, t = umeyama(source, target, with_scale=True)
        assert scale == expected
        np.testing.assert_array_equal(R, np.eye(3))
        np.testing.assert_allclose(t, target.mean(0) - scale * source.mean(0), atol=1e-12)


@given(seeds)
def test_7dof_undoes_any_similarity_and_6dof_any_motion(seed):
    rng = np.random.default_rng(seed)
    _, poses = trajectory(60, seed % 1000)
    scale, R, t = some_similarity(rng)
    # another world, another scale, and a camera that was mounted at another angle
    mounted = moved(poses, rng) @ np.block([[R, np.zeros((3, 1))], [np.zeros(3), 1]])
    for pred, alignment in ((scaled(mounted, scale), "7dof"), (mounted, "6dof")):
        aligned, gt = align(pred, poses, alignment)
        np.testing.assert_allclose(aligned[:, :3, 3], gt[:, :3, 3], atol=1e-6)
        np.testing.assert_allclose(aligned[:, :3, :3], gt[:, :3, :3] @ R, atol=1e-6)
        assert score_trajectory(pred, poses, alignment).ate_rmse_m == pytest.approx(0, abs=1e-6)


@given(seeds, st.sampled_from(ALIGNMENTS))
def test_errors_do_not_depend_on_the_choice_of_the_world(seed, alignment):
    rng = np.random.default_rng(seed)
    _, gt = trajectory(130)
    _, pred = trajectory(130, seed=1)
    expected = score_trajectory(pred, gt, alignment)
    other = score_trajectory(moved(pred, rng), moved(gt, rng), alignment)
    np.testing.assert_allclose(other, expected, rtol=1e-6, atol=1e-9)
    if alignment in ("scale", "7dof"):
        other = score_trajectory(scaled(pred, rng.uniform(0.01, 100)), gt, alignment)
        np.testing.assert_allclose(other, expected, rtol=1e-6, atol=1e-9)


def test_alignment_lowers_the_error_step_by_step():
    """More freedom never fits positions worse."""
    _, gt = trajectory(130)
    _, pred = trajectory(130, seed=1)
    ate = {name: score_trajectory(pred, gt, name).ate_rmse_m for name in ALIGNMENTS}
    assert ate["7dof"] <= min(ate["6dof"], ate["scale"]) <= max(ate.values()) == ate["none"]
    x, y = (rebase(poses)[:, :3, 3] for poses in (pred, gt))
    factor = (x * y).sum() / (x * x).sum()
    assert ate["scale"] == pytest.approx(np.sqrt(((factor * x - y) ** 2).sum(1).mean()))


# Errors of a whole trajectory ---------------------------------------------------------------------


def test_two_percent_of_scale_are_two_percent_of_drift():
    gt = straight(1001)
    pred = scaled(gt, 1.02)
    errors = score_trajectory(pred, gt, "none")
    assert errors.t_rel_percent == pytest.approx(2, rel=0.01)  # segments are up to 1 m longer
    assert errors.segments == 90 + 80 + 70 + 60 + 50 + 40 + 30 + 20
    assert errors.ate_rmse_m == pytest.approx(0.02 * math.sqrt(np.mean(np.arange(1001.0) ** 2)))
    assert errors.rpe_m == pytest.approx(0.02)
    assert errors.r_rel_deg_per_100m == errors.rpe_deg == 0
    assert score_trajectory(pred, gt, "6dof").t_rel_percent == pytest.approx(2, rel=0.01)
    for alignment in ("scale", "7dof"):
        np.testing.assert_allclose(
            score_trajectory(pred, gt, alignment)._replace(segments=0), 0, atol=1e-9
        )


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("degrees_per_100m", [-3.0, 0.5, 2.0])
def test_a_constant_turn_is_the_rotation_error(alignment, degrees_per_100m):
    gt = straight(1001)
    pred = chain(yaw(degrees_per_100m / 100) @ relative_of(gt))
    errors = score_trajectory(pred, gt, alignment)
    assert errors.r_rel_deg_per_100m == pytest.approx(abs(degrees_per_100m), rel=0.01)
    assert errors.rpe_deg == pytest.approx(abs(degrees_per_100m) / 100, rel=1e-6)
    assert errors.t_rel_percent > 1


def test_relative_error_is_a_mean_and_absolute_error_a_root_mean_square():
    gt, pred = straight(5), straight(5)
    pred[4, 0, 3] = 2  # one step of four is off by two metres
    assert rpe(pred, gt) == pytest.approx((0.5, 0))
    assert ate_rmse(pred, gt) == pytest.approx(math.sqrt(4 / 5))


def plain_segment_errors(pred, gt, lengths, step):
    """KITTI's segment errors, written out."""
    path = [0.0]
    for a, b in itertools.pairwise(gt):
        path.append(path[-1] + math.dist(a[:3, 3], b[:3, 3]))
    translations, angles = [], []
    for start in range(0, len(gt), step):
        for length in lengths:
            for end in range(start, len(gt)):
                if path[end] > path[start] + length:
                    a, b = (np.linalg.solve(p[start], p[end]) for p in (pred, gt))
                    error = np.linalg.solve(a, b)
                    translations.append(math.hypot(*error[:3, 3]) / length)
                    cosine = (error[0, 0] + error[1, 1] + error[2, 2] - 1) / 2
                    angles.append(math.acos(max(-1, min(1, cosine))) / length)
                    break
    if not translations:
        return None, None, 0
    t, r = np.mean(translations), np.mean(angles)
    return 100 * t, 100 * math.degrees(r), len(translations)


@settings(max_examples=50)
@given(seeds, st.integers(2, 80), st.integers(1, 12), st.floats(0.5, 30))
def test_segment_errors_are_those_of_plain_loops(seed, frames, step, step_m):
    gt = trajectory(frames, seed, step_m)[1]
    pred = trajectory(frames, seed + 1, 1.1 * step_m)[1]
    lengths = (5, 10, 20, 100, 200)
    errors = segment_errors(pred, gt, lengths, step)
    expected = plain_segment_errors(pred, gt, lengths, step)
    assert errors.segments == expected[2]
    if errors.segments:
        assert errors == pytest.approx(expected, rel=1e-6)
    else:
        assert errors == expected


def test_a_drive_shorter_than_any_segment_has_no_drift_and_a_stop_is_no_step():
    gt = straight(101)  # 100 m are not longer than 100 m
    errors = score_trajectory(scaled(gt, 1.02), gt, "none")
    assert errors[:3] == (None, None, 0) and errors.ate_rmse_m > 0
    gt = np.concatenate([straight(100), np.repeat(straight(102)[-1:], 500, axis=0)])
    assert segment_errors(gt, gt).segments == 1


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("frames", [2, 3, 4])
def test_a_few_poses_are_scored(alignment, frames):
    gt = trajectory(frames, step_m=200.0)[1]
    assert np.isfinite(score_trajectory(gt, gt, alignment)).all()
    still = np.tile(np.eye(4), (frames, 1, 1))
    errors = score_trajectory(still, gt, alignment)
    assert errors.rpe_m == pytest.approx(200, rel=0.01) and np.isfinite(errors).all()
    assert score_trajectory(still, still, alignment) == (None, None, 0, 0, 0, 0)


@pytest.mark.parametrize("counts", [(1, 1), (0, 0), (5, 4)])
def test_what_is_no_pair_of_trajectories_is_refused(counts):
    pred, gt = (straight(max(count, 1))[:count] for count in counts)
    with pytest.raises(ValueError, match="poses"):
        align(pred, gt, "none")


# The package evo ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evo(tmp_path_factory):
    """evo's modules; some versions write settings into the home folder when imported."""
    pytest.importorskip("evo")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        names = ("core.metrics", "core.trajectory", "tools.file_interface")
        yield {name.split(".")[1]: importlib.import_module(f"evo.{name}") for name in names}


def evo_errors(evo, pred, gt):
    """ATE in metres, RPE in metres and degrees."""
    metrics = evo["metrics"]
    relation, kind = metrics.PoseRelation, metrics.StatisticsType
    ape = metrics.APE(relation.translation_part)
    ape.process_data((gt, pred))
    result = [ape.get_statistic(kind.rmse)]
    for part in (relation.translation_part, relation.rotation_angle_deg):
        measure = metrics.RPE(part, delta=1, delta_unit=metrics.Unit.frames, all_pairs=False)
        measure.process_data((gt, pred))
        result.append(measure.get_statistic(kind.mean))
    return result


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_errors_are_those_of_evo(evo, alignment, seed):
    gt, pred = trajectory(200, seed)[1], scaled(trajectory(200, seed + 10)[1], 0.2)
    PosePath3D = evo["trajectory"].PosePath3D
    theirs, reference = PosePath3D(poses_se3=list(pred)), PosePath3D(poses_se3=list(gt))
    if alignment in ("6dof", "7dof"):
        theirs.align(reference, correct_scale=alignment == "7dof")
    elif alignment == "scale":  # evo's own takes the scale of 7dof
        theirs.scale(np.sum(gt[:, :3, 3] * pred[:, :3, 3]) / np.sum(pred[:, :3, 3] ** 2))
    errors = score_trajectory(pred, gt, alignment)
    assert list(errors[3:]) == pytest.approx(evo_errors(evo, theirs, reference), rel=1e-6)


# Files --------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """A trajectory, its times, and it in both formats."""
    poses, times_s = trajectory(40)[1], 0.1037 * np.arange(40)
    with open(tmp_path / "kitti.txt", "w") as kitti, open(tmp_path / "tum.txt", "w") as tum:
        write_kitti(kitti, poses)
        write_tum(tum, poses, times_s)
    return poses, times_s, tmp_path


def test_files_hold_the_trajectory(files):
    poses, times_s, folder = files
    np.testing.assert_allclose(read_poses(folder / "kitti.txt"), poses, atol=1e-7)
    rows = np.loadtxt(folder / "tum.txt")
    assert rows.shape == (40, 8)
    np.testing.assert_allclose(rows[:, 0], times_s, atol=1e-9)
    np.testing.assert_allclose(rows[:, 1:4], poses[:, :3, 3], atol=1e-7)
    for (x, y, z, w), pose in zip(rows[:, 4:], poses, strict=True):
        axis = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        R = np.eye(3) + 2 * w * axis + 2 * axis @ axis
        np.testing.assert_allclose(R, pose[:3, :3], atol=1e-7)


def test_evo_reads_the_files(evo, files):
    poses, times_s, folder = files
    kitti = evo["file_interface"].read_kitti_poses_file(str(folder / "kitti.txt"))
    tum = evo["file_interface"].read_tum_trajectory_file(str(folder / "tum.txt"))
    for read in (kitti, tum):
        np.testing.assert_allclose(read.poses_se3, poses, atol=1e-7)
    np.testing.assert_allclose(tum.timestamps, times_s, atol=1e-9)


def test_the_first_pose_is_written_as_identity():
    text = io.StringIO()
    write_kitti(text, chain(trajectory(3)[0]))
    first = [float(number) for number in text.getvalue().splitlines()[0].split()]
    assert first == list(np.eye(4)[:3].flat)


# A real drive: sequence 07 ------------------------------------------------------------------------


@pytest.fixture
def drive(real_data):
    return read_poses(real_data / "kitti_odometry/poses/07.txt")


def real_segments(gt):
    """(length, path, chord) of every segment."""
    positions = [tuple(pose[:3, 3]) for pose in gt]
    driven = list(itertools.accumulate(map(math.dist, positions, positions[1:]), initial=0.0))
    segments = []
    for start, length in itertools.product(range(0, len(gt), 10), range(100, 900, 100)):
        end = next((i for i, d in enumerate(driven) if d > driven[start] + length), None)
        if end is not None:
            chord = math.dist(positions[start], positions[end])
            segments.append((length, driven[end] - driven[start], chord))
    return segments


def test_a_real_drive_at_two_percent_too_large(drive):
    """Its error on a segment is 2 % of the chord, relative to the length along the street."""
    segments = real_segments(drive)
    assert path_length(drive)[-1] == pytest.approx(694.7, abs=0.1)
    assert path_length(drive)[0] == 0 and len(drive) == 1101
    errors = score_trajectory(scaled(drive, 1.02), drive, "none")
    assert errors.segments == len(segments)
    expected = np.mean([0.02 * chord / length for length, _, chord in segments])
    assert errors.t_rel_percent == pytest.approx(100 * expected, rel=1e-4)
    assert errors.rpe_m == pytest.approx(0.02 * 694.7 / 1100, rel=1e-3)
    assert errors.r_rel_deg_per_100m < 1e-3
    for alignment in ("scale", "7dof"):
        assert score_trajectory(scaled(drive, 1.02), drive, alignment).t_rel_percent < 1e-3


def test_a_real_drive_with_a_constant_turn(drive):
    """Cameras turned by 1.5 degrees more every 100 m, at the right places."""
    turns = map(yaw, 0.015 * path_length(drive))
    turned = np.array([pose @ turn for pose, turn in zip(drive, turns, strict=True)])
    errors = score_trajectory(turned, drive, "none")
    expected = np.mean([1.5 * path / length for length, path, _ in real_segments(drive)])
    assert errors.r_rel_deg_per_100m == pytest.approx(expected, rel=0.01)
    assert errors.ate_rmse_m < 1e-9


def test_a_real_drive_is_chained_from_its_motion(drive):
    pred = chain(relative_of(drive))
    for alignment in ALIGNMENTS:
        errors = score_trajectory(scaled(pred, 1.0), drive, alignment)
        np.testing.assert_allclose(errors._replace(segments=0), 0, atol=1e-4)
    errors = score_trajectory(scaled(chain(np.linalg.inv(relative_of(drive))), 0.05), drive, "7dof")
    assert errors.t_rel_percent > 30


# Errors of short windows --------------------------------------------------------------------------


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
