"""Depth as people look at it: colours, side by side."""

import cv2
import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

Range = tuple[float, float]


def usual_range(disp: Float[ndarray, "H W"]) -> Range:
    """What `colour_map` spans by itself: from the minimum to the 95th percentile."""
    return float(disp.min()), float(np.percentile(disp, 95))


def colour_map(
    disp: Float[ndarray, "H W"], span: Range | None = None, colours: str = "magma"
) -> Float[ndarray, "H W 3"]:
    """Colours in [0, 1], dark at the low end of the span, brightest from its high end on."""
    low, high = usual_range(disp) if span is None else span
    scaled = np.clip((disp - low) / max(high - low, 1e-12), 0, 1)
    return matplotlib.colormaps[colours](scaled)[..., :3]


def disparity_picture(
    disp: Float[ndarray, "h w"],
    size: tuple[int, int],
    span: Range | None = None,
    colours: str = "magma",
) -> UInt8[ndarray, "H W 3"]:
    """A disparity's colours at the (width, height) of its picture; the disparity is resized."""
    resized = cv2.resize(disp, size)
    return np.uint8(255 * colour_map(resized, span, colours) + 0.5)


def side_by_side(
    image: UInt8[ndarray, "H W 3"], other: UInt8[ndarray, "H W 3"]
) -> UInt8[ndarray, "H2 W2 3"]:
    """Both in one picture: wide ones one above the other, others next to each other."""
    height, width = image.shape[:2]
    return np.concatenate([image, other], axis=0 if width > 1.5 * height else 1)


class SteadyRange:
    """A colour range that follows a video slowly, so that its colours do not flicker.

    Args:
        share: of the way to a frame's own range that each frame moves it.
    """

    def __init__(self, share: float = 0.05):
        self.share = share
        self._span: ndarray | None = None

    def __call__(self, disp: Float[ndarray, "h w"]) -> Range:
        own = np.array(usual_range(disp))
        self._span = own if self._span is None else self._span + self.share * (own - self._span)
        return tuple(self._span.tolist())
