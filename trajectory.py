"""How predicted camera motion is scored against true poses, on short windows and whole drives.

A trajectory is [N 4 4] camera-to-world poses: column 3 of pose i is where camera i stands. Whole
trajectories are scored as KITTI's development kit does (Geiger et al. 2012), with the alignments
that monocular odometry needs, since its scale is arbitrary.
"""

from io import TextIOBase
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

Alignment = Literal["none", "scale", "6dof", "7dof"]
LENGTHS_M = (100, 200, 300, 400, 500, 600, 700, 800)


class WindowError(NamedTuple):
    """Absolute trajectory error in metres, over overlapping windows."""

    mean: float
    std: float
    windows: int


class SegmentErrors(NamedTuple):
    """Drift over segments of a drive; None where the drive is shorter than any segment."""

    t_rel_percent: float | None
    r_rel_deg_per_100m: float | None
    segments: int


class TrajectoryErrors(NamedTuple):
    """Errors of a whole trajectory after one alignment."""

    t_rel_percent: float | None
    r_rel_deg_per_100m: float | None
    segments: int
    ate_rmse_m: float
    rpe_m: float
    rpe_deg: float


# From relative motion to a trajectory -------------------------------------------------------------


def chain(relative: Float[ndarray, "n 4 4"]) -> Float[ndarray, "n+1 4 4"]:
    """Camera-to-world poses, the first camera being the world, from relative transforms.

    relative[i] takes points of camera i into camera i+1, which is what a pose network predicts to
    warp images. A pose takes points the other way, from a camera into the world, so each step
    multiplies by the inverse: pose[i+1] = pose[i] . inv(relative[i]). Without it the car drives
    backwards and t_rel is about 200 %. (ATE may hide that: 6dof turns a flat map over.)
    """
    return _products(np.linalg.inv(relative))


def rebase(poses: Float[ndarray, "N 4 4"]) -> Float[ndarray, "N 4 4"]:
    """The same trajectory in the frame of its first camera."""
    return np.linalg.inv(poses[0]) @ poses


def _products(transforms: Float[ndarray, "n 4 4"]) -> Float[ndarray, "n+1 4 4"]:
    """I, A, A.B, A.B.C ..."""
    poses = [np.eye(4)]
    for transform in transforms:
        poses.append(poses[-1] @ transform)
    return np.array(poses)


# Alignment ----------------------------------------------------------------------------------------


def umeyama(
    source: Float[ndarray, "N 3"], target: Float[ndarray, "N 3"], with_scale: bool
) -> tuple[float, Float[ndarray, "3 3"], Float[ndarray, "3"]]:
    """Scale s, rotation R and translation t that minimise the sum of |target - (s R source + t)|^2.

    Umeyama 1991, eq. 39-43; s = 1 without scale. R is never a reflection. Points that leave R
    undetermined get the least rotation of the best ones: on a straight drive the one that turns
    its line and does not roll about it, and none at all if either set is one point. A source that
    is one point has s = 1.
    """
    mean, target_mean = source.mean(0), target.mean(0)
    x, y = _without_noise(source - mean, source), _without_noise(target - target_mean, target)
    U, d, Vt = np.linalg.svd(y.T @ x)
    signs = np.array([1.0, 1.0, np.linalg.det(U) * np.linalg.det(Vt)])
    if d[0] == 0:
        R = np.eye(3)
    elif d[1] <= 1e-12 * d[0]:
        R = _least_rotation(Vt[0], U[:, 0])
    else:
        R = U @ np.diag(signs) @ Vt
    energy = np.sum(x**2)
    scale = float(d @ signs / energy) if with_scale and energy > 0 else 1.0
    return scale, R, target_mean - scale * R @ mean


def align(
    pred: Float[ndarray, "M 4 4"], gt: Float[ndarray, "N 4 4"], alignment: Alignment
) -> tuple[Float[ndarray, "N 4 4"], Float[ndarray, "N 4 4"]]:
    """Prediction, aligned, and ground truth, both first put in the frame of their first camera.

    `scale` multiplies positions by the least-squares factor sum(gt . pred) / sum(pred^2), but
    never by a negative one: driving backwards is not forgiven. `6dof` and `7dof` move the whole
    trajectory by `umeyama` of its positions, without and with scale.

    Raises:
        ValueError: not two trajectories of one length, two poses or more.
    """
    if len(pred) != len(gt) or len(gt) < 2:
        raise ValueError(f"{len(pred)} predicted and {len(gt)} true poses")
    pred, gt = rebase(pred), rebase(gt)
    x, y = pred[:, :3, 3], gt[:, :3, 3]
    move = np.eye(4)
    scale = 1.0
    if alignment == "scale":
        scale = max(_best_scale(x, y), 0.0)
    elif alignment != "none":
        scale, move[:3, :3], move[:3, 3] = umeyama(x, y, with_scale=alignment == "7dof")
    pred[:, :3, 3] *= scale
    return move @ pred, gt


def _best_scale(source: Float[ndarray, "N 3"], target: Float[ndarray, "N 3"]) -> float:
    """The factor that brings the source nearest to the target; 1 if nothing moves."""
    energy = np.sum(source**2)
    return float(np.sum(target * source) / energy) if energy > 0 else 1.0


def _without_noise(centred: Float[ndarray, "N 3"], points: Float[ndarray, "N 3"]) -> ndarray:
    """Points minus their mean, exactly zero if rounding is all that sets them apart."""
    return centred * (np.abs(centred).max() > 1e-12 * np.abs(points).max())


def _least_rotation(a: Float[ndarray, "3"], b: Float[ndarray, "3"]) -> Float[ndarray, "3 3"]:
    """The least rotation that takes unit vector a to b, as two mirrorings: a to -a, -a to b."""
    w = a + b
    if np.linalg.norm(w) < 1e-9:  # opposite: any half turn about a perpendicular axis
        w = np.cross(a, np.eye(3)[np.argmin(np.abs(a))])
    w = w / np.linalg.norm(w)
    return (np.eye(3) - 2 * np.outer(w, w)) @ (np.eye(3) - 2 * np.outer(a, a))


# Errors of a whole trajectory ---------------------------------------------------------------------


def score_trajectory(
    pred: Float[ndarray, "M 4 4"], gt: Float[ndarray, "N 4 4"], alignment: Alignment
) -> TrajectoryErrors:
    """All errors of a predicted trajectory (any first frame, any scale) after an alignment.

    Raises:
        ValueError: as `align`.
    """
    pred, gt = align(pred, gt, alignment)
    return TrajectoryErrors(*segment_errors(pred, gt), ate_rmse(pred, gt), *rpe(pred, gt))


def path_length(poses: Float[ndarray, "N 4 4"]) -> Float[ndarray, " N"]:
    """Distance driven up to each camera."""
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def segment_errors(
    pred: Float[ndarray, "N 4 4"],
    gt: Float[ndarray, "N 4 4"],
    lengths_m: tuple[int, ...] = LENGTHS_M,
    step: int = 10,
) -> SegmentErrors:
    """KITTI's t_rel and r_rel: drift over segments of 100 to 800 m that start every 10 frames.

    A segment ends at the first frame whose true path is longer than its length. All segments of
    all lengths count alike.
    """
    path = path_length(gt)
    starts = np.arange(0, len(gt), step)
    translations: list[ndarray] = []
    angles: list[ndarray] = []
    for length in lengths_m:
        ends = np.searchsorted(path, path[starts] + length, side="right")
        fits = ends < len(gt)
        metres, radians = _motion_errors(pred, gt, starts[fits], ends[fits])
        translations.append(metres / length)
        angles.append(radians / length)
    t, r = np.concatenate(translations), np.concatenate(angles)
    if not len(t):
        return SegmentErrors(None, None, 0)
    return SegmentErrors(100 * float(t.mean()), 100 * float(np.degrees(r.mean())), len(t))


def ate_rmse(pred: Float[ndarray, "N 4 4"], gt: Float[ndarray, "N 4 4"]) -> float:
    """Absolute trajectory error: root mean square distance of positions, as aligned."""
    return float(np.sqrt(np.mean(np.sum((pred[:, :3, 3] - gt[:, :3, 3]) ** 2, axis=1))))


def rpe(pred: Float[ndarray, "N 4 4"], gt: Float[ndarray, "N 4 4"]) -> tuple[float, float]:
    """Relative pose error of consecutive frames: mean translation, and mean angle in degrees."""
    first = np.arange(len(gt) - 1)
    metres, radians = _motion_errors(pred, gt, first, first + 1)
    return float(metres.mean()), float(np.degrees(radians.mean()))


def _motion_errors(
    pred: Float[ndarray, "N 4 4"], gt: Float[ndarray, "N 4 4"], start: ndarray, end: ndarray
) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """Length and angle (radians) of inv(predicted motion) . true motion from starts to ends."""
    pred_motion = np.linalg.inv(pred[start]) @ pred[end]
    gt_motion = np.linalg.inv(gt[start]) @ gt[end]
    error = np.linalg.inv(pred_motion) @ gt_motion
    R = error[:, :3, :3]
    skew = R - R.swapaxes(1, 2)  # 2 sin(angle) [axis]x; with the cosine, exact at small angles
    sine = np.linalg.norm(skew[:, [2, 0, 1], [1, 2, 0]], axis=1) / 2
    cosine = (np.trace(R, axis1=1, axis2=2) - 1) / 2
    return np.linalg.norm(error[:, :3, 3], axis=1), np.arctan2(sine, cosine)


# Errors of short windows --------------------------------------------------------------------------


def five_frame_ate(
    relative: Float[ndarray, "N 4 4"],
    poses: Float[ndarray, "M 4 4"],
    strict: bool = True,
    as_published: bool = True,
    length: int = 5,
) -> WindowError:
    """Scale-aligned absolute trajectory error of short windows (Zhou et al. 2017; paper table 6).

    Args:
        relative: predicted transform of points of camera i into camera i+1, M-1 of them.
        poses: true camera-to-world poses.
        strict: only windows of `length` frames; else also the shorter ones at the end, which the
            published numbers include.
        as_published: chain the transforms uninverted, as published numbers do. The geometric
            trajectory chains their inverses.

    Raises:
        ValueError: the counts do not fit, or there are fewer than `length` poses.
    """
    if len(relative) != len(poses) - 1 or len(poses) < length:
        raise ValueError(f"{len(relative)} relative and {len(poses)} absolute poses")
    true_relative = np.linalg.inv(poses[1:]) @ poses[:-1]
    compose = _products if as_published else chain
    last = len(poses) - length + 1 if strict else len(relative)
    errors = []
    for start in range(last):
        window = slice(start, start + length - 1)
        pred, gt = (compose(each[window])[:, :3, 3] for each in (relative, true_relative))
        difference = _best_scale(pred, gt) * pred - gt
        errors.append(np.sqrt(np.sum(difference**2)) / len(gt))
    return WindowError(float(np.mean(errors)), float(np.std(errors)), len(errors))


# Files --------------------------------------------------------------------------------------------


def write_kitti(file: TextIOBase, poses: Float[ndarray, "N 4 4"]) -> None:
    """KITTI's format: a line of twelve numbers per pose, the rows of its 3x4 matrix."""
    np.savetxt(file, poses[:, :3].reshape(-1, 12), fmt="%.9e")


def write_tum(
    file: TextIOBase, poses: Float[ndarray, "N 4 4"], times_s: Float[ndarray, " N"]
) -> None:
    """TUM's format: `time tx ty tz qx qy qz qw` per pose, the quaternion of the camera's axes."""
    quaternions = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    rows = np.column_stack([times_s, poses[:, :3, 3], quaternions])
    np.savetxt(file, rows, fmt=["%.9f"] + 7 * ["%.9e"])
