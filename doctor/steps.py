"""What lies between frames that follow each other: shifts, parallax, brightness."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from datasets import Frame
from motion import Motion, Reference, Tracks

from .frames import WIDTH, Reader

THUMB = (32, 16)  # width and height of the small pictures that tell frames apart
LONG = 8  # frames over which slow motion is measured, so that noise does not count
SLOW_PX = 1.0
NO_DISTORTION = np.zeros(5)


class Step(NamedTuple):
    """From a frame to its neighbour, in pixels of images 640 wide.

    flow_px:     median shift of points.
    parallax_px: shift that a turn of the camera does not explain, see `motion.Motion`.
    found:       share of points found again.
    difference:  mean difference of grey values, of 255.
    brighter:    by which factor the second is brighter, in the median.
    """

    first: Frame
    second: Frame
    flow_px: float
    parallax_px: float
    found: float
    difference: float
    brighter: float


class Run(NamedTuple):
    """Neighbours in a row: those that could be read, the steps between them and a small picture
    [F h w] of each, and the pace: shift from frame to frame as measured over several of them."""

    frames: list[Frame]
    steps: list[Step]
    thumbs: Float[ndarray, "F h w"]
    pace_px: float


def measure(reader: Reader, frames: list[Frame]) -> Run:
    """What a run of neighbours shows; frames that cannot be read are left out."""
    images = [reader.grey(frame) for frame in frames]
    read = [frame for frame, image in zip(frames, images, strict=True) if image is not None]
    thumbs = [thumb(image) for image in images if image is not None]
    steps = []
    for i in range(len(frames) - 1):
        if images[i] is not None and images[i + 1] is not None:
            if images[i].shape == images[i + 1].shape:
                steps.append(step(reader, frames[i], frames[i + 1]))
    pace = float(np.median([s.flow_px for s in steps])) if steps else 0.0
    if steps and pace < SLOW_PX and len(read) > 2:
        count = min(len(read) - 1, LONG)
        first, last = reader.grey(read[0]), reader.grey(read[count])
        if first.shape == last.shape:
            pace = step(reader, read[0], read[count]).flow_px / count
    return Run(read, steps, np.array(thumbs).reshape(-1, THUMB[1], THUMB[0]), pace)


def thumb(image: UInt8[ndarray, "H W"]) -> Float[ndarray, "h w"]:
    """A small picture without the image's own brightness and contrast."""
    small = cv2.resize(image, THUMB, interpolation=cv2.INTER_AREA).astype(np.float64)
    return (small - small.mean()) / (small.std() + 1.0)


def track(reader: Reader, first: Frame, second: Frame) -> tuple[Tracks, Motion]:
    """Points of a frame in another of the same size, in pixels of the images as measured."""
    image = reader.grey(first)
    reference = Reference(image, reader.camera(first), NO_DISTORTION, reader.mask(first))
    tracks = reference.track(reader.grey(second))
    return tracks, reference.motion_of(tracks)


def step(reader: Reader, first: Frame, second: Frame) -> Step:
    """What lies between two frames of the same size."""
    before, after = reader.grey(first), reader.grey(second)
    tracks, motion = track(reader, first, second)
    scale = WIDTH / before.shape[1]
    flow = np.median(np.linalg.norm(tracks.shift, axis=1)) if len(tracks.shift) else 0.0
    small = [cv2.resize(i, THUMB, interpolation=cv2.INTER_AREA) + 1.0 for i in (before, after)]
    return Step(
        first,
        second,
        float(scale * flow),
        scale * motion.parallax_px,
        motion.found,
        float(cv2.absdiff(before, after).mean()),
        float(np.median(small[1] / small[0])),
    )
