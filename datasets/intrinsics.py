"""Intrinsics of pinhole cameras, and what becomes of them when images are cut and resized."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from utils import UserError

LARGEST_SIZE = 100_000  # pixels of an image's side


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float[np.ndarray, "3 3"]:
    """The camera matrix of focal lengths and a principal point."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)


def in_pixels(
    normalised: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> Float[np.ndarray, "3 3"]:
    """Intrinsics in pixels of images of (width, height), from those in units of these."""
    return np.diag([*size, 1.0]) @ normalised


def crop_K(K: Float[np.ndarray, "3 3"], left: int, top: int) -> Float[np.ndarray, "3 3"]:
    """Intrinsics after that many columns and rows are cut off."""
    return K - np.array([[0, 0, left], [0, 0, top], [0, 0, 0]])


def resize_K(
    K: Float[np.ndarray, "3 3"], size: tuple[int, int], new_size: tuple[int, int]
) -> Float[np.ndarray, "3 3"]:
    """Intrinsics after an image of `size` (width, height) is resized to `new_size`.

    Pixel centres are integers, so the image's corner is at -0.5 and stays there.
    """
    x, y = new_size[0] / size[0], new_size[1] / size[1]
    return np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]]) @ K


def demand_camera(path: Path, K: Float[np.ndarray, "3 3"], width: int, height: int) -> None:
    """Refuse a calibration that is no camera: focal lengths and size must be positive.

    Raises:
        UserError: naming the file.
    """
    good = all(1 < size < LARGEST_SIZE for size in (width, height))
    if not (good and min(K[0, 0], K[1, 1], K[2, 2]) > 0 and np.isfinite(K).all()):
        raise UserError(f"{path}: describes no camera (wrong focal length or size)")
