"""How high a camera is over the ground, from the depth that it sees."""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from pointcloud import points_of_depth

GROUND_TOP, GROUND_SIDE = 0.6, 0.25  # ground is looked for below this row, between these columns
POINTS, PLANES = 3000, 500  # at most so many points, and planes through three of them, are tried
FEWEST_POINTS = 30
REFITS = 5
TOLERANCE = 0.08  # of a point's depth, or of the camera's height: a car camera's kerbs are above it
LEAST_SHARE = 0.5  # of the points must be part of it
STEEPEST_DEG = 20.0  # between the ground's normal and the image's vertical


def camera_height(depth: Float[ndarray, "H W"], K: Float[ndarray, "3 3"]) -> float | None:
    """How high the camera is over the ground, in the depth's unit; the same for the same depth.

    The ground is the plane below the camera that fits most points of the lower middle of the image
    (RANSAC, then least squares). A point off it by a share of the camera's height has a depth that
    is wrong by this share, so one tolerance serves all distances.

    Args:
        depth: along the optical axis; 0 or not finite where it is unknown.
        K: in pixels of this very map.

    Returns:
        None where too few points are known, or too few lie in one plane near to level.
    """
    points = ground_points(depth, K)
    if len(points) < FEWEST_POINTS:
        return None
    rng = np.random.default_rng(0)
    if len(points) > POINTS:
        points = points[rng.choice(len(points), POINTS, replace=False)]
    plane = likeliest_plane(points, rng)
    if plane is None:
        return None
    for _ in range(REFITS):
        near = points[is_near(points, plane)]
        plane = np.linalg.lstsq(near, np.ones(len(near)), rcond=None)[0]
    good = is_level(plane) and is_near(points, plane).mean() >= LEAST_SHARE
    return float(1 / np.linalg.norm(plane)) if good else None


def ground_points(depth: Float[ndarray, "H W"], K: Float[ndarray, "3 3"]) -> Float[ndarray, "N 3"]:
    """Known points of the part of the image where a level camera sees the ground."""
    height, width = depth.shape
    known = np.isfinite(depth) & (depth > 0)
    points = points_of_depth(np.where(known, depth, 0), K)
    known[: round(GROUND_TOP * height)] = False
    known[:, : round(GROUND_SIDE * width)] = False
    known[:, round((1 - GROUND_SIDE) * width) :] = False
    return points[known].astype(np.float64)


def likeliest_plane(
    points: Float[ndarray, "N 3"], rng: np.random.Generator
) -> Float[ndarray, "3"] | None:
    """Of level planes through three points each, the one that most points are near."""
    a, b, c = points[rng.integers(len(points), size=(3, PLANES))]
    normals = np.cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):  # three points in line
        planes = normals / (normals * a).sum(1, keepdims=True)
    planes = planes[np.isfinite(planes).all(1)]
    planes = planes[is_level(planes)]
    if not len(planes):
        return None
    return planes[is_near(points, planes.T).sum(0).argmax()]


def is_near(points: Float[ndarray, "N 3"], planes: Float[ndarray, "3 ..."]) -> ndarray:
    """Which points [N ...] are part of planes m, for whose points m . x = 1."""
    return np.abs(points @ planes - 1) < TOLERANCE


def is_level(planes: Float[ndarray, "... 3"]) -> ndarray:
    """Which planes m [...] lie below the camera, and nearly level to it."""
    upright = math.cos(math.radians(STEEPEST_DEG))
    return planes[..., 1] > upright * np.linalg.norm(planes, axis=-1)
