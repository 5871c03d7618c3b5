"""What becomes of a frame, and of its camera: cut, undistorted, resized."""

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image

from datasets.intrinsics import crop_K, resize_K
from media import Margins
from tools.video_camera import Lens
from tools.video_source import Picture
from utils import UserError

SAME_SHAPE = 0.02  # stretch of pixels, as rounding makes it
SMALLEST = 32  # pixels of a side that are no picture any more
LONGEST = 1280  # pixels of a side, unless a size is given


class View:
    """Frames after all that is done to them.

    Margins are cut off, what the lens bends is straightened, and the rest resized. Straightened
    pictures show the largest rectangle without black corners, at the scale of the frame's middle,
    or smaller where they would be larger than the frame.

    Attributes:
        K: camera of the pictures, in pixels of them.
        size: (width, height) of the pictures.
        reshaped: the principal point need not be in their middle, nor their pixels square.

    Raises:
        UserError: nothing is left, or the camera makes no sense for it.
    """

    def __init__(self, lens: Lens, margins: Margins, size: tuple[int, int] | None):
        left, top, right, bottom = margins
        width, height = lens.size[0] - left - right, lens.size[1] - top - bottom
        if min(width, height) < SMALLEST:
            raise UserError(
                f"--crop {' '.join(map(str, margins))} leaves {max(width, 0)}x{max(height, 0)} of "
                f"frames of {lens.size[0]}x{lens.size[1]}"
            )
        self._rows, self._columns = slice(top, top + height), slice(left, left + width)
        K, cut, self._maps = crop_K(lens.K, left, top), (width, height), None
        if lens.bends:
            new_K, new_size = straightened(K, lens.distortion, cut)
            self._maps = cv2.initUndistortRectifyMap(
                K, lens.distortion, None, new_K, new_size, cv2.CV_16SC2
            )
            K, cut = new_K, new_size
        self.size = size or shrunk(cut)
        self.K = resize_K(K, cut, self.size)
        stretch = (self.size[0] / cut[0]) / (self.size[1] / cut[1])
        self.reshaped = lens.reshaped or any(margins) or abs(stretch - 1) > SAME_SHAPE
        if not (0 <= self.K[0, 2] < self.size[0] and 0 <= self.K[1, 2] < self.size[1]):
            raise UserError(
                f"--crop {' '.join(map(str, margins))}: the camera's principal point "
                f"{lens.K[0, 2]:.0f}, {lens.K[1, 2]:.0f} lies outside what is left"
            )

    @property
    def camera(self) -> str:
        """A name that says what the camera is: clips of one camera have the same."""
        fx, fy, cx, cy = np.round(self.K[[0, 1, 0, 1], [0, 1, 2, 2]]).astype(int)
        return f"{self.size[0]}x{self.size[1]}_f{fx}_{fy}_c{cx}_{cy}"

    def of(self, frame: Picture) -> Picture:
        """A frame of the clip as it is written."""
        picture = frame[self._rows, self._columns]
        if self._maps is not None:
            picture = cv2.remap(picture, *self._maps, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
        if picture.shape[1::-1] == self.size:
            return np.ascontiguousarray(picture)
        image = Image.fromarray(np.ascontiguousarray(picture))
        return np.asarray(image.resize(self.size, Image.Resampling.LANCZOS))

    def of_mask(self, mask: Bool[ndarray, "H W"]) -> Bool[ndarray, "h w"]:
        """A mask of the clip's frames, as one of what is written."""
        cut = np.ascontiguousarray(mask[self._rows, self._columns]).astype(np.uint8)
        if self._maps is not None:
            cut = cv2.remap(cut, *self._maps, cv2.INTER_NEAREST, None, cv2.BORDER_REPLICATE)
        return cv2.resize(cut, self.size, interpolation=cv2.INTER_NEAREST) > 0


def shrunk(size: tuple[int, int]) -> tuple[int, int]:
    """A size with the same aspect whose longer side is not above the usual limit."""
    scale = min(1.0, LONGEST / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def straightened(
    K: Float[ndarray, "3 3"], distortion: Float[ndarray, " N"], size: tuple[int, int]
) -> tuple[Float[ndarray, "3 3"], tuple[int, int]]:
    """Camera and (width, height) of the largest straight picture that a bent frame fills.

    Focal lengths stay as they are, or shrink alike where it would be larger than the frame.

    Raises:
        UserError: these coefficients fold the picture before its border.
    """
    x, y = (np.linspace(0, side - 1, 65) for side in size)
    borders = [  # left, top, right, bottom
        np.column_stack(np.broadcast_arrays(*line))
        for line in ((0, y), (x, 0), (size[0] - 1.0, y), (x, size[1] - 1.0))
    ]
    straight = [unbent(border, K, distortion) for border in borders]
    left, top = straight[0][:, 0].max(), straight[1][:, 1].max()
    right, bottom = straight[2][:, 0].min(), straight[3][:, 1].min()
    if min(right - left, bottom - top) < SMALLEST:
        raise UserError(f"distortion {numbers(distortion)}: leaves no straight picture")
    scale = min(1.0, (size[0] - 1) / (right - left), (size[1] - 1) / (bottom - top))
    new_K = np.diag([scale, scale, 1.0]) @ (K - [[0, 0, left], [0, 0, top], [0, 0, 0]])
    sides = (int(scale * side + 1e-6) + 1 for side in (right - left, bottom - top))
    return new_K, tuple(sides)


def unbent(
    pixels: Float[ndarray, "N 2"], K: Float[ndarray, "3 3"], distortion: Float[ndarray, " N"]
) -> Float[ndarray, "N 2"]:
    """Where a lens without distortion would show what a bent frame shows at these pixels.

    Raises:
        UserError: nowhere.
    """
    into = np.linalg.inv(K)
    straight = pixels.copy()
    for _ in range(200):
        rays = np.column_stack([straight, np.ones(len(straight))]) @ into.T
        seen = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), K, distortion)[0][:, 0]
        missed = pixels - seen
        farthest = np.abs(missed).max()
        if not 1e-6 < farthest < 1e6:  # found, or running away
            break
        straight += missed
    if not farthest < 0.01:
        raise UserError(
            f"distortion {numbers(distortion)}: folds the picture before its border; check the "
            "coefficients, or --crop the border"
        )
    return straight


def numbers(values: Float[ndarray, " N"]) -> str:
    return " ".join(f"{value:g}" for value in values)
