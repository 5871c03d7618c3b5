"""A pinhole camera as people describe it: by focal length or field of view, or not at all."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from utils import UserError

LONGEST_FOCAL, NARROWEST_DEG = 1e6, 0.1  # of a telescope
FOCAL = 0.58  # of the image's width, as KITTI's: for cameras of which nothing is known


class Camera(NamedTuple):
    """What is known of a camera: focal lengths and principal point in pixels of its pictures, or
    the horizontal field of view in degrees."""

    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    fov_deg: float | None = None

    def fault(self) -> str | None:
        """What is wrong with it, in the words of the flags; None where it makes sense."""
        for name in ("fx", "fy"):
            value = getattr(self, name)
            if value is not None and not 0 < value < LONGEST_FOCAL:
                return f"--{name} {value:g}: give pixels, above 0 and below {LONGEST_FOCAL:g}"
        if self.fov_deg is not None and not NARROWEST_DEG <= self.fov_deg < 180:
            return f"--fov_deg {self.fov_deg:g}: give degrees from {NARROWEST_DEG:g} and below 180"
        if self.fx is not None and self.fov_deg is not None:
            return "--fx and --fov_deg say the same: give one of them"
        for name in ("fy", "cx", "cy"):
            if self.fx is None and getattr(self, name) is not None:
                return f"--{name} needs --fx"
        return None

    def K(self, size: tuple[int, int]) -> Float[ndarray, "3 3"]:
        """Intrinsics for a picture of (width, height), pixel centres being integers.

        Raises:
            UserError: the principal point lies outside the picture.
        """
        for name, value, end in (("cx", self.cx, size[0]), ("cy", self.cy, size[1])):
            if value is not None and not 0 <= value < end:
                raise UserError(
                    f"--{name} {value:g}: lies outside a picture of {size[0]}x{size[1]}; give the "
                    "camera in pixels of the images"
                )
        if self.fov_deg is not None:
            return camera_of(*size, focal=size[0] / 2 / math.tan(math.radians(self.fov_deg) / 2))
        if self.fx is None:
            return camera_of(*size, focal=FOCAL * size[0])
        K = camera_of(*size, self.fx, self.cx, self.cy)
        K[1, 1] = self.fx if self.fy is None else self.fy
        return K

    def announce(self) -> None:
        """Say so where the camera is assumed."""
        if self.fx is None and self.fov_deg is None:
            print(
                f"camera not given (--fx or --fov_deg): assuming a focal length of {FOCAL:g} of "
                "the image's width"
            )


def camera_of(
    width: int, height: int, focal: float, cx: float | None = None, cy: float | None = None
) -> Float[ndarray, "3 3"]:
    """Intrinsics of square pixels; the principal point is the image's middle unless given."""
    cx = (width - 1) / 2 if cx is None else cx
    cy = (height - 1) / 2 if cy is None else cy
    return np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]], np.float64)
