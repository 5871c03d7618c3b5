"""How far a camera moved between two images, as far as depth can be learnt from it.

Turning the camera shifts near and far points alike, so it teaches no depth. What a turn does not
explain of the points' shifts is parallax.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.spatial.transform import Rotation

POINTS = 300
FEWEST_POINTS = 10
REVISIT_PX = 1.0  # a point counts if it is found again where it started, tracked there and back


class Motion(NamedTuple):
    """How points of one image lie in another, in pixels of these images.

    parallax_px: a quarter of the points is shifted by at least so much more than the turn of the
                 camera that explains most.
    found:       share of the points that were found in the other image.
    """

    parallax_px: float
    found: float


class Tracks(NamedTuple):
    """Points that one image shares with another.

    before, after: their pixels in the first and in the other image.
    found:         share of the first image's points that were found in the other.
    """

    before: Float[ndarray, "N 2"]
    after: Float[ndarray, "N 2"]
    found: float

    @property
    def shift(self) -> Float[ndarray, "N 2"]:
        """How far each point went, in pixels."""
        return self.after - self.before


class Reference:
    """An image that others are compared with; `K` and `distortion` (OpenCV's) are its camera's.

    Points are looked for where `mask` [H W] uint8 is not 0, if there is one.
    """

    def __init__(
        self,
        grey: np.ndarray,
        K: np.ndarray,
        distortion: np.ndarray,
        mask: np.ndarray | None = None,
    ):
        self._grey, self._K, self._distortion = grey, K, distortion
        corners = cv2.goodFeaturesToTrack(grey, POINTS, qualityLevel=0.01, minDistance=6, mask=mask)
        self._points = np.empty((0, 1, 2), np.float32) if corners is None else corners

    @property
    def has_points(self) -> bool:
        """Whether there is enough in the image to be found in others."""
        return len(self._points) >= FEWEST_POINTS

    def track(self, grey: np.ndarray) -> Tracks:
        """Where the points are in another image of the same size [H W] uint8."""
        before = self._points
        if not self.has_points:
            return Tracks(np.empty((0, 2), np.float32), np.empty((0, 2), np.float32), 0.0)
        after, seen, _ = cv2.calcOpticalFlowPyrLK(self._grey, grey, before, None)
        back, seen_back, _ = cv2.calcOpticalFlowPyrLK(grey, self._grey, after, None)
        good = (seen & seen_back).ravel().astype(bool)
        good &= np.linalg.norm(back - before, axis=-1).ravel() < REVISIT_PX
        return Tracks(before[good, 0], after[good, 0], float(good.mean()))

    def motion_to(self, grey: np.ndarray) -> Motion:
        """Motion of the camera until another image of the same size [H W] uint8."""
        return self.motion_of(self.track(grey))

    def motion_of(self, tracks: Tracks) -> Motion:
        """The motion that points found by `track` show."""
        if len(tracks.before) < FEWEST_POINTS:
            return Motion(0.0, tracks.found)
        old, new = self._rays(tracks.before), self._rays(tracks.after)
        turn, _ = Rotation.align_vectors(unit(new), unit(old))
        turned = turn.apply(old)
        unexplained = new[:, :2] - turned[:, :2] / turned[:, 2:]
        focal = (self._K[0, 0], self._K[1, 1])
        parallax_px = np.percentile(np.linalg.norm(unexplained * focal, axis=1), 75)
        return Motion(float(parallax_px), tracks.found)

    def _rays(self, pixels: np.ndarray) -> np.ndarray:
        """Directions [N 3] with z = 1 of points."""
        flat = cv2.undistortPoints(pixels[:, None], self._K, self._distortion)[:, 0]
        return np.column_stack([flat, np.ones(len(flat))])


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [N 3] made one long."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
