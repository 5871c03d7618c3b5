"""KITTI calibration files and the projection of LiDAR scans into a camera."""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from utils import UserError, read_lines

from .images import depth_of_points

DepthAxis = Literal["velodyne_x", "camera_z"]


def read_calibration(path: Path) -> dict[str, Float[np.ndarray, " n"]]:
    """The numeric entries of a `name: numbers` file.

    Raises:
        UserError: the file is missing or unreadable.
    """
    entries = {}
    for line in read_lines(path, "calibration file", "KITTI's calib archive has it"):
        name, _, numbers = line.partition(":")
        try:
            entries[name.strip()] = np.array(numbers.split(), np.float64)
        except ValueError:
            continue  # such as calib_time
    return entries


def calibration_matrix(
    path: Path, name: str, *shape: int
) -> Float[np.ndarray, "rows cols"] | Float[np.ndarray, " n"]:
    """One entry of a calibration file in the given shape.

    Raises:
        UserError: no such entry, another count of numbers, or one that is not finite.
    """
    entry = read_calibration(path).get(name)
    if entry is None or entry.size != np.prod(shape) or not np.isfinite(entry).all():
        raise UserError(
            f"{path}: holds no {'x'.join(map(str, shape))} entry '{name}'; "
            "KITTI's calib archive has the whole file"
        )
    return entry.reshape(shape)


def read_scan(path: Path) -> Float[np.ndarray, "N 4"]:
    """Points of a velodyne .bin: x forward, y left, z up in metres, and reflectance.

    Raises:
        UserError: missing, or not a whole number of points.
    """
    try:
        values = np.fromfile(path, np.float32)
    except OSError as error:
        raise UserError(f"{path}: cannot read this velodyne scan ({error.strerror})") from None
    if values.size == 0 or values.size % 4 or path.stat().st_size % 16:
        raise UserError(f"{path}: is no velodyne scan (rows of four float32); fetch it again")
    return values.reshape(-1, 4)


def velodyne_to_image(calibration: Path, camera: int) -> Float[np.ndarray, "3 4"]:
    """P_rect . R_rect_00 . [R|T]: scan to pixels of colour camera 2 or 3, from a date's folder."""
    cam_to_cam = calibration / "calib_cam_to_cam.txt"
    velo_to_cam = calibration / "calib_velo_to_cam.txt"
    rectify, place = np.eye(4), np.eye(4)
    rectify[:3, :3] = calibration_matrix(cam_to_cam, "R_rect_00", 3, 3)
    place[:3, :3] = calibration_matrix(velo_to_cam, "R", 3, 3)
    place[:3, 3] = calibration_matrix(velo_to_cam, "T", 3)
    return calibration_matrix(cam_to_cam, f"P_rect_{camera:02d}", 3, 4) @ rectify @ place


def project_scan(
    scan: Float[np.ndarray, "N 4"],
    P: Float[np.ndarray, "3 4"],
    height: int,
    width: int,
    depth_axis: DepthAxis = "velodyne_x",
) -> Float[np.ndarray, "H W"]:
    """Sparse depth map in metres, 0 = no point; of several points in a pixel the nearest wins.

    Args:
        depth_axis: `velodyne_x` stores the forward coordinate of the scanner, as the published
            KITTI numbers do although it lies about 0.27 m behind the camera; `camera_z` the depth
            seen by the camera.
    """
    scan = scan[(scan[:, 0] >= 0) & np.isfinite(scan[:, :3]).all(1)].astype(np.float64)
    points = np.column_stack([scan[:, :3], np.ones(len(scan))]) @ P.T
    depth = scan[:, 0] if depth_axis == "velodyne_x" else points[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = np.round(points[:, :2] / points[:, 2:]) - 1  # the devkit counts pixels from one
    return depth_of_points(pixels, depth, height, width)
