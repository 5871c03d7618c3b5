"""Random changes of colour, the same for all frames of a sample (paper sec. 4, implementation)."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

# Loader workers are forked, and OpenCV's own threads do not survive that.
cv2.setNumThreads(0)
Image = UInt8[ndarray, "H W 3"]
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue


class ColorJitter:
    """Brightness, contrast, saturation and hue by random amounts, in random order.

    What torchvision's ColorJitter does to Pillow images, on 8-bit colours throughout and several
    times faster.

    Args:
        brightness, contrast, saturation: factors are uniform in [1 - x, 1 + x].
        hue: turns are uniform in [-hue, hue], 1 being the whole circle.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float):
        self.steps: tuple[tuple[Callable[[Image, float], Image], float, float], ...] = (
            (adjust_brightness, 1 - brightness, 1 + brightness),
            (adjust_contrast, 1 - contrast, 1 + contrast),
            (adjust_saturation, 1 - saturation, 1 + saturation),
            (adjust_hue, -hue, hue),
        )

    def __call__(self, images: UInt8[Tensor, "F 3 H W"]) -> UInt8[Tensor, "F 3 H W"]:
        """Other images of the same shape; torch's random numbers decide."""
        drawn = []
        for i in torch.randperm(len(self.steps)).tolist():
            adjust, low, high = self.steps[i]
            drawn.append((adjust, low + (high - low) * float(torch.rand(()))))
        frames = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        changed = np.empty_like(frames)
        for i, frame in enumerate(frames):
            for adjust, amount in drawn:
                frame = adjust(frame, amount)
            changed[i] = frame
        return torch.from_numpy(changed).permute(0, 3, 1, 2)


def adjust_brightness(image: Image, factor: float) -> Image:
    """All colours times a factor."""
    return cv2.convertScaleAbs(image, alpha=factor)


def adjust_contrast(image: Image, factor: float) -> Image:
    """Away from the image's mean grey for factors above 1, towards it below."""
    mean = round(float(GREY @ cv2.mean(image)[:3]))
    return cv2.addWeighted(image, factor, image, 0, (1 - factor) * mean)


def adjust_saturation(image: Image, factor: float) -> Image:
    """Away from each pixel's grey for factors above 1, towards it below."""
    return cv2.transform(image, factor * np.eye(3, dtype=np.float32) + (1 - factor) * GREY)


def adjust_hue(image: Image, turn: float) -> Image:
    """Hues turned by a share of the circle."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    step = np.array([round(256 * turn) % 256, 0, 0], np.uint8)  # of 256: overflow is right
    rows = hsv.reshape(len(hsv), -1)
    np.add(rows, np.tile(step, hsv.shape[1]), out=rows)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
