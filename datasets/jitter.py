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
LEVELS = np.arange(256, dtype=np.float32)
Frames = UInt8[ndarray, "F H W 3"]


class ColorJitter:
    """Brightness, contrast, saturation and hue by random amounts, in random order.

    What torchvision's ColorJitter does to Pillow images, on 8-bit colours throughout and several
    times faster.

    Args:
        brightness, contrast, saturation: factors are uniform in [1 - x, 1 + x].
        hue: turns are uniform in [-hue, hue], 1 being the whole circle.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float):
        self.steps: tuple[tuple[Callable[[Frames, float], Frames], float, float], ...] = (
            (adjust_brightness, 1 - brightness, 1 + brightness),
            (adjust_contrast, 1 - contrast, 1 + contrast),
            (adjust_saturation, 1 - saturation, 1 + saturation),
            (adjust_hue, -hue, hue),
        )

    def __call__(self, images: UInt8[Tensor, "F 3 H W"]) -> UInt8[Tensor, "F 3 H W"]:
        """Other images of the same shape; torch's random numbers decide."""
        frames = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        for i in torch.randperm(len(self.steps)).tolist():
            adjust, low, high = self.steps[i]
            frames = adjust(frames, low + (high - low) * float(torch.rand(())))
        return torch.from_numpy(frames).permute(0, 3, 1, 2)


def adjust_brightness(frames: Frames, factor: float) -> Frames:
    """All colours times a factor."""
    return table_lookup(frames, factor * LEVELS)


def adjust_contrast(frames: Frames, factor: float) -> Frames:
    """Away from each frame's mean grey for factors above 1, towards it below."""
    means = [round(cv2.mean(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))[0]) for frame in frames]
    return np.stack(
        [
            table_lookup(frame, factor * LEVELS + (1 - factor) * mean)
            for frame, mean in zip(frames, means, strict=True)
        ]
    )


def adjust_saturation(frames: Frames, factor: float) -> Frames:
    """Away from each pixel's grey for factors above 1, towards it below."""
    tall = frames.reshape(-1, *frames.shape[2:])
    grey = cv2.cvtColor(cv2.cvtColor(tall, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(tall, factor, grey, 1 - factor, 0).reshape(frames.shape)


def adjust_hue(frames: Frames, turn: float) -> Frames:
    """Hues turned by a share of the circle."""
    hsv = cv2.cvtColor(frames.reshape(-1, *frames.shape[2:]), cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(256 * turn) % 256)  # the circle has 256 steps: overflow is right
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL).reshape(frames.shape)


def table_lookup(frames: UInt8[ndarray, "*F H W 3"], table: ndarray) -> UInt8[ndarray, "*F H W 3"]:
    """Colours replaced by the entry of a table [256], rounded and clipped."""
    return cv2.LUT(frames, np.clip(np.rint(table), 0, 255).astype(np.uint8)).reshape(frames.shape)
