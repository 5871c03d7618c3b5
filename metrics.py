"""How predictions are scored: depth against ground truth, camera motion against true poses.

Everything is NumPy: one implementation serves evaluation, and validation inside training.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

Crop = Callable[[int, int], tuple[slice, slice]]
Scaling = Literal["per_image_median", "none"]


class DepthErrors(NamedTuple):
    """The seven standard metrics; sq_rel and rmse are in metres."""

    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    a1: float
    a2: float
    a3: float


def full_frame(height: int, width: int) -> tuple[slice, slice]:
    """No crop."""
    return slice(0, height), slice(0, width)


def garg_crop(height: int, width: int) -> tuple[slice, slice]:
    """The crop of Garg et al. 2016, which all recent KITTI Eigen results use."""
    return (
        slice(int(0.40810811 * height), int(0.99189189 * height)),
        slice(int(0.03594771 * width), int(0.96405229 * width)),
    )


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A benchmark's rules.

    gt_range_m:   ground truth strictly within this range counts.
    pred_range_m: predictions are clipped to it, after scaling.
    crop:         (height, width) -> rows and columns that count.
    scaling:      `per_image_median` multiplies by median(gt) / median(prediction) of each image.
    stereo_scale: metres per unit of a network trained on stereo; None where there is none.
    """

    name: str
    gt_range_m: tuple[float, float]
    pred_range_m: tuple[float, float]
    crop: Crop = full_frame
    scaling: Scaling = "per_image_median"
    stereo_scale: float | None = None

    def mask(self, gt: Float[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
        """The pixels of a ground-truth map that count."""
        mask = np.zeros(gt.shape, bool)
        mask[self.crop(*gt.shape)] = True
        return mask & (gt > self.gt_range_m[0]) & (gt < self.gt_range_m[1])

    def describe(self) -> str:
        """One line for people."""
        return (
            f"{self.name}: ground truth {self.gt_range_m[0]:g}-{self.gt_range_m[1]:g} m, "
            f"{self.crop.__name__.replace('_', ' ')}, predictions clipped to "
            f"{self.pred_range_m[0]:g}-{self.pred_range_m[1]:g} m after "
            + ("per-image median scaling" if self.scaling != "none" else "no median scaling")
        )


class DepthScore(NamedTuple):
    """Errors of one image, and the median ratio gt / prediction before any scaling of it."""

    errors: DepthErrors
    ratio: float


def depth_errors(gt: Float[ndarray, "*N"], pred: Float[ndarray, "*N"]) -> DepthErrors:
    """The seven metrics of positive depths in metres, over all elements (paper sec. 4.1)."""
    worse = np.maximum(gt / pred, pred / gt)
    difference = gt - pred
    log_difference = np.log(gt) - np.log(pred)
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(difference) / gt)),
        sq_rel=float(np.mean(difference**2 / gt)),
        rmse=float(np.sqrt(np.mean(difference**2))),
        rmse_log=float(np.sqrt(np.mean(log_difference**2))),
        a1=float(np.mean(worse < 1.25)),
        a2=float(np.mean(worse < 1.25**2)),
        a3=float(np.mean(worse < 1.25**3)),
    )


def resized_depth(disp: Float[ndarray, "h w"], size: tuple[int, int]) -> Float[ndarray, "H W"]:
    """Depth of a scaled disparity at (height, width); the disparity is resized, bilinearly."""
    with np.errstate(divide="ignore"):  # infinitely far, until the range is clipped
        return 1 / cv2.resize(disp, (size[1], size[0]))


def score_depth(
    disp: Float[ndarray, "h w"],
    gt: Float[ndarray, "H W"],
    protocol: Protocol,
    depth_scale: float = 1.0,
) -> DepthScore | None:
    """Score a scaled disparity (1 / depth) of any size against a map in metres, 0 = missing.

    Predicted depth times `depth_scale` is scaled by the median, then clipped. None if no pixel
    counts.
    """
    mask = protocol.mask(gt)
    if not mask.any():
        return None
    pred = depth_scale * resized_depth(disp, gt.shape)[mask]
    gt = gt[mask]
    ratio = float(np.median(gt) / np.median(pred))
    if protocol.scaling == "per_image_median":
        with np.errstate(invalid="ignore"):  # a disparity of 0 all over: NaN, and a ratio of 0
            pred = pred * ratio
    return DepthScore(depth_errors(gt, np.clip(pred, *protocol.pred_range_m)), ratio)


class DepthSummary(NamedTuple):
    """Mean errors over images, and the median and relative spread of their scale ratios."""

    errors: DepthErrors
    ratio: float
    ratio_spread: float
    images: int


def summarise(scores: list[DepthScore]) -> DepthSummary:
    """Mean over images of each metric; spread is std(ratio / median ratio)."""
    mean = np.mean([score.errors for score in scores], axis=0)
    ratios = np.array([score.ratio for score in scores])
    middle = float(np.median(ratios))
    return DepthSummary(
        DepthErrors(*map(float, mean)), middle, float(np.std(ratios / middle)), len(scores)
    )


def flip_post_process(
    disp: Float[ndarray, "B H W"], disp_of_flipped: Float[ndarray, "B H W"]
) -> Float[ndarray, "B H W"]:
    """Blend a disparity with that of the mirrored image, mirrored back (Godard et al. 2017, v1).

    The mean of both, but near the left and right 5 % the one that does not see past that border.
    """
    ramp = np.linspace(0, 1, disp.shape[-1], dtype=np.float64)
    left = 1 - np.clip(20 * (ramp - 0.05), 0, 1)
    right = left[::-1]
    mean = 0.5 * (disp + disp_of_flipped)
    return (right * disp + left * disp_of_flipped + (1 - left - right) * mean).astype(disp.dtype)


class TrajectoryError(NamedTuple):
    """Absolute trajectory error in metres, over overlapping windows."""

    mean: float
    std: float
    windows: int


def five_frame_ate(
    relative: Float[ndarray, "N 4 4"],
    poses: Float[ndarray, "M 4 4"],
    strict: bool = True,
    as_published: bool = True,
    length: int = 5,
) -> TrajectoryError:
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
    if not as_published:
        relative, true_relative = np.linalg.inv(relative), np.linalg.inv(true_relative)
    last = len(poses) - length + 1 if strict else len(relative)
    errors = []
    for start in range(last):
        window = slice(start, start + length - 1)
        pair = _positions(relative[window]), _positions(true_relative[window])
        errors.append(_aligned_error(*pair))
    return TrajectoryError(float(np.mean(errors)), float(np.std(errors)), len(errors))


def _positions(transforms: Float[ndarray, "n 4 4"]) -> Float[ndarray, "m 3"]:
    """Camera positions along a chain that starts at the origin."""
    pose = np.eye(4)
    positions = [pose[:3, 3]]
    for transform in transforms:
        pose = pose @ transform
        positions.append(pose[:3, 3])
    return np.array(positions)


def _aligned_error(pred: Float[ndarray, "m 3"], gt: Float[ndarray, "m 3"]) -> float:
    """Error after the best scale: root of the summed squares, divided by the number of frames."""
    energy = np.sum(pred**2)
    scale = np.sum(gt * pred) / energy if energy > 0 else 1.0
    return float(np.sqrt(np.sum((scale * pred - gt) ** 2)) / len(gt))
