"""The Kinect that filmed NYU Depth V2: both cameras, and the depth images of the raw recordings.

The numbers are those of `camera_params.m` in the data set's toolbox.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Num, UInt8, UInt16

from utils import UserError

from .images import depth_of_points, read_depth_image

WIDTH, HEIGHT = 640, 480
MAX_DEPTH_M = 10.0
NO_READING = 2047  # of the sensor's 11 bits
COLOUR_K = np.array(
    [[518.8579011745019, 0, 325.58244941119034], [0, 519.4696111212749, 253.73616633400465],
     [0, 0, 1]]
)  # fmt: skip
COLOUR_DISTORTION = np.array(  # k1, k2, p1, p2, k3 as OpenCV orders them
    [0.2079661531880906, -0.5861382516391178, 0.0007223136313588833, 0.001047962719576518,
     0.49856986684705107]
)  # fmt: skip
DEPTH_K = np.array(
    [[582.6244816773795, 0, 313.0447587080473], [0, 582.6910327098864, 238.44389626620386],
     [0, 0, 1]]
)  # fmt: skip
DEPTH_DISTORTION = np.array(
    [-0.09989723655308448, 0.39065324602765344, 0.0019290592870229277, -0.0019422022475975055,
     -0.5103172505340058]
)  # fmt: skip
# The toolbox writes -R' and +t, which mirrors a point through the camera; the projection, where a
# sign of the whole point cancels, is that of R' and -t.
DEPTH_TO_COLOUR_R = np.array(
    [[9.9997798940829263e-01, 5.0518419386157446e-03, 4.3011152014118693e-03],
     [-5.0359919480810989e-03, 9.9998051861143999e-01, -3.6879781309514218e-03],
     [-4.3196624923060242e-03, 3.6662365748484798e-03, 9.9998394948385538e-01]]
).T  # fmt: skip
DEPTH_TO_COLOUR_T_M = -np.array([0.0250318750591413, 0.000662387470083301, -0.0002934231293584641])


def undistort(image: UInt8[np.ndarray, "480 640 3"]) -> UInt8[np.ndarray, "480 640 3"]:
    """A raw colour image as the pinhole camera `COLOUR_K` sees it; black where there is nothing."""
    return cv2.undistort(image, COLOUR_K, COLOUR_DISTORTION)


def metres(raw: UInt16[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Depth of the sensor's readings, 0 = missing; readings of 10 m and more count as missing."""
    with np.errstate(divide="ignore"):
        depth_m = 351.3 / (1092.5 - raw.astype(np.float64))
    good = (depth_m > 0) & (depth_m < MAX_DEPTH_M) & (raw > 0) & (raw < NO_READING)
    return np.where(good, depth_m, 0).astype(np.float32)


def read_raw_depth(path: Path) -> Float[np.ndarray, "480 640"]:
    """Depth in metres of a raw recording's `d-<time>-<n>.pgm`, as the depth camera saw it.

    The files hold the bytes of each number in the wrong order for a PGM.

    Raises:
        UserError: damaged, truncated, or of another kind or size.
    """
    raw = read_depth_image(path, 1.0).astype(np.uint16).byteswap()
    if raw.shape != (HEIGHT, WIDTH) or raw.max() > NO_READING:
        raise UserError(f"{path}: is no raw depth image of the Kinect (640x480, 11 bits)")
    return metres(raw)


def register(depth_m: Float[np.ndarray, "480 640"]) -> Float[np.ndarray, "480 640"]:
    """Raw depth as the undistorted colour camera sees it, 0 = missing."""
    maps = cv2.initUndistortRectifyMap(
        DEPTH_K, DEPTH_DISTORTION, None, DEPTH_K, (WIDTH, HEIGHT), cv2.CV_32FC1
    )
    depth_m = cv2.remap(depth_m, *maps, cv2.INTER_NEAREST)
    v, u = np.nonzero(depth_m)
    rays = np.stack([u, v, np.ones(u.size)], 1) @ np.linalg.inv(DEPTH_K).T
    points = (rays * depth_m[v, u, None]) @ DEPTH_TO_COLOUR_R.T + DEPTH_TO_COLOUR_T_M
    return depth_of_points(project(points), points[:, 2], HEIGHT, WIDTH)


def project(points: Float[np.ndarray, "N 3"]) -> Num[np.ndarray, "N 2"]:
    """Whole pixels (u, v) of points in front of the colour camera."""
    pixels = points @ COLOUR_K.T
    return np.round(pixels[:, :2] / pixels[:, 2:])
