"""The test of all geometry: is an image that is warped into another like it?

It warps as training does (`layers`), by depth that is known or comes of the stereo pair.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

from layers import backproject, project, warp
from losses import photometric_error
from motion import Tracks

WIDEST = 0.2  # share of the width that disparities may have
INLIER_PX = 2.0
FEWEST_POINTS = 20  # for a pose
TRIALS = 300


class Pose(NamedTuple):
    """Motion of points of one frame into another one's camera, the tracked points that agree
    [N] bool, and the depth of all [N], 0 where it is unknown."""

    T: Float[ndarray, "4 4"]
    agree: Bool[ndarray, " N"]
    depth: Float[ndarray, " N"]

    @property
    def share(self) -> float:
        """Of the points with depth, how many agree."""
        return float(self.agree.sum() / max((self.depth > 0).sum(), 1))


class Warped(NamedTuple):
    """A source warped into the target view, with photometric errors [H W] of it and of the source
    left in place, and where they count."""

    target: UInt8[ndarray, "H W"]
    source: UInt8[ndarray, "H W"]
    image: UInt8[ndarray, "H W"]
    error: Float[ndarray, "H W"]
    still: Float[ndarray, "H W"]
    counts: Bool[ndarray, "H W"]

    @property
    def ratio(self) -> float:
        """Mean error of the warped image over that of the source left in place."""
        if not self.counts.any():
            return 1.0
        return float(self.error[self.counts].mean() / max(self.still[self.counts].mean(), 1e-6))


def stereo_matcher(disparities: int) -> cv2.StereoSGBM:
    """OpenCV's semi-global matching of rectified grey images, for so many columns of disparity."""
    return cv2.StereoSGBM_create(
        minDisparity=0,
        numDisparities=disparities,
        blockSize=5,
        P1=8 * 25,
        P2=32 * 25,
        disp12MaxDiff=1,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )


def disparity(left: UInt8[ndarray, "H W"], right: UInt8[ndarray, "H W"]) -> Float[ndarray, "H W"]:
    """Columns by which the right image's points lie left of the left one's, 0 = not found."""
    reach = 16 * max(round(WIDEST * left.shape[1] / 16), 1)
    matcher = stereo_matcher(reach)
    wide = [
        cv2.copyMakeBorder(image, 0, 0, reach, 0, cv2.BORDER_REPLICATE) for image in (left, right)
    ]
    found = matcher.compute(*wide)[:, reach:].astype(np.float32) / 16
    inside = found <= np.arange(left.shape[1])
    return np.where((found > 0.5) & inside, found, np.float32(0))


def stereo_depth(
    target: UInt8[ndarray, "H W"],
    partner: UInt8[ndarray, "H W"],
    focal: float,
    baseline_m: float,
) -> Float[ndarray, "H W"]:
    """Depth of the target in metres by a partner that far to the right, 0 = not found."""
    if baseline_m < 0:
        found = np.fliplr(disparity(*(np.ascontiguousarray(i[:, ::-1]) for i in (target, partner))))
    else:
        found = disparity(target, partner)
    depth = focal * abs(baseline_m) / np.maximum(found, np.float32(0.5))
    return np.where(found > 0, depth, 0).astype(np.float32)


def pose_of(tracks: Tracks, depth: Float[ndarray, "H W"], K: Float[ndarray, "3 3"]) -> Pose | None:
    """Motion by which tracked points with depth were shifted so; None where too few tell.

    Points with depth near by, of sparse depth, take that.
    """
    known = depth_at(tracks.before, depth)
    some = known > 0
    if some.sum() < FEWEST_POINTS:
        return None
    points = lifted(tracks.before[some].astype(np.float64), known[some].astype(np.float64), K)
    cv2.setRNGSeed(0)
    good, turn, way, inliers = cv2.solvePnPRansac(
        points,
        tracks.after[some].astype(np.float64),
        K,
        None,
        iterationsCount=TRIALS,
        reprojectionError=INLIER_PX,
    )
    agree = np.zeros(len(known), bool)
    if not good or inliers is None:
        return Pose(np.eye(4), agree, known)
    agree[np.flatnonzero(some)[inliers[:, 0]]] = True
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(turn)[0], way[:, 0]
    return Pose(T, agree, known)


def depth_at(pixels: Float[ndarray, "N 2"], depth: Float[ndarray, "H W"]) -> Float[ndarray, " N"]:
    """Depth at points, or where they have none the nearest to the camera within two pixels."""
    u, v = np.round(pixels).astype(int).T
    inside = (u >= 0) & (v >= 0) & (u < depth.shape[1]) & (v < depth.shape[0])
    u, v = np.where(inside, u, 0), np.where(inside, v, 0)
    far = np.where(depth > 0, depth, np.float32(1e9))
    near = cv2.erode(far, np.ones((5, 5), np.uint8))[v, u]
    found = np.where(depth[v, u] > 0, depth[v, u], np.where(near < 1e9, near, 0))
    return np.where(inside, found, 0).astype(np.float32)


def lifted(
    pixels: Float[ndarray, "N 2"], depth: Float[ndarray, " N"], K: Float[ndarray, "3 3"]
) -> Float[ndarray, "N 3"]:
    """Points in space of pixels with depth."""
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K).T
    return rays * depth[:, None]


@torch.no_grad()
def warp_test(
    target: UInt8[ndarray, "H W"],
    source: UInt8[ndarray, "H W"],
    depth: Float[ndarray, "H W"],
    K: Float[ndarray, "3 3"],
    T: Float[ndarray, "4 4"],
) -> Warped:
    """Warp a source into the target view by the geometry that training has."""
    height, width = target.shape

    def tensor(values: ndarray) -> torch.Tensor:
        return torch.tensor(np.array(values), dtype=torch.float32)[None]

    known = depth > 0
    if known.any():  # neighbours of known pixels count in the error, too
        nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
        depth = depth[tuple(nearest)]
    points = backproject(tensor(depth)[None], tensor(np.linalg.inv(K)))
    grid = project(points, tensor(K), tensor(T), height, width)
    images = [tensor(image)[None] / 255 for image in (target, source)]
    image = warp(images[1], grid)
    error, still = (photometric_error(one, images[0])[0].numpy() for one in (image, images[1]))
    inside = (grid[0].abs() <= 1).all(-1).numpy()
    shown = (255 * image[0, 0] + 0.5).clamp(0, 255).byte().numpy()
    return Warped(target, source, shown, error, still, known & inside)
