"""Frames of a data set as the doctor looks at them, and which ones."""

import copy
import functools
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from datasets import Frame, MonoDataset, read_image
from datasets.images import depth_of_points
from datasets.intrinsics import in_pixels, pinhole, resize_K
from datasets.kitti import STEREO_SCALE
from datasets.mono_dataset import OTHER_SIDE
from utils import UserError

from .warps import stereo_depth

WIDTH = 640  # of images whose pixels motion is given in: what is usual in training
KEPT = 48  # images that are remembered, and as many depth maps and cameras
DENSE = 0.3  # share of pixels with depth from which on a depth image may be shrunk like one

Place = tuple[str, str]  # folder and side


class Camera(NamedTuple):
    """Intrinsics in pixels of images of `size`, (width, height)."""

    K: Float[ndarray, "3 3"]
    size: tuple[int, int]


class Reader:
    """Reads frames of a data set at no more than `WIDTH` columns and remembers the last ones.

    `unreadable` says of each frame (or `depth of <frame>`) that cannot be read why. The data set
    stays as it is.
    """

    def __init__(self, dataset: MonoDataset):
        self.dataset = copy.copy(dataset)
        for name, value in vars(dataset).items():
            if isinstance(value, dict):  # what it remembers of files, which may change
                setattr(self.dataset, name, dict(value))
        self.unreadable: dict[str, str] = {}
        self.sizes: dict[Frame, tuple[int, int]] = {}
        self.grey = functools.lru_cache(KEPT)(self._grey)
        self.depth = functools.lru_cache(KEPT)(self._depth)
        self.camera = functools.lru_cache(KEPT)(self._camera)

    def colour(self, frame: Frame) -> UInt8[ndarray, "H W 3"] | None:
        """A frame in colour at the size it is measured at; None if it cannot be read."""
        try:
            path = self.dataset.find_image(frame)
            if path is None:
                return None
            image = np.asarray(read_image(path))
        except (UserError, OSError) as error:
            self.unreadable.setdefault(str(frame), str(error))
            return None
        self.sizes[frame] = (image.shape[1], image.shape[0])
        size = measured_size(self.sizes[frame])
        if size == self.sizes[frame]:
            return image
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def _grey(self, frame: Frame) -> UInt8[ndarray, "H W"] | None:
        image = self.colour(frame)
        return None if image is None else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)

    def has(self, frame: Frame) -> bool:
        """Whether there is a file of that frame."""
        try:
            return self.dataset.find_image(frame) is not None
        except UserError:
            return False

    def partner(self, frame: Frame) -> Frame | None:
        """The other view of the moment, where there is one; data sets of one camera may give the
        same file for both sides."""
        other = frame._replace(side=OTHER_SIDE[frame.side])
        if not self.has(other):
            return None
        same = self.dataset.find_image(other) == self.dataset.find_image(frame)
        return None if same and not self.dataset.use_stereo else other

    def known_camera(self, frame: Frame) -> Camera:
        """The camera in pixels of the images that it is known for: the calibration, or else what
        the data set says of itself."""
        try:
            return Camera(*self.dataset.calibrated_K(frame))
        except (UserError, OSError, NotImplementedError):
            if self.dataset.nominal_K is None:
                raise
        return self.nominal_camera(frame)

    def nominal_camera(self, frame: Frame) -> Camera:
        """The camera that the data set publishes, in pixels of a frame."""
        if frame not in self.sizes:
            self.grey(frame)
        size = self.sizes[frame]
        return Camera(in_pixels(pinhole(*self.dataset.nominal_K), size), size)

    def _camera(self, frame: Frame) -> Float[ndarray, "3 3"]:
        """Intrinsics in pixels of the images that are measured, as training scales them."""
        K, size = self.known_camera(frame)
        height, width = self.grey(frame).shape
        return resize_K(K, size, (width, height))

    def mask(self, frame: Frame) -> UInt8[ndarray, "H W"] | None:
        """Where a frame shows the world: not 0; None where all of it does."""
        whole = self.dataset.valid_pixels(frame)
        if whole is None:
            return None
        height, width = self.grey(frame).shape
        return cv2.resize(whole.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)

    def baseline_m(self, frame: Frame) -> float:
        """Metres from a frame's camera to its partner's, above 0 if that is to the right."""
        protocol = self.dataset.protocol
        scale = STEREO_SCALE if protocol is None else (protocol.stereo_scale or 1.0)
        baseline = self.dataset.baseline_of(frame) * scale
        return baseline if frame.side == "l" else -baseline

    def stereo_depth(self, frame: Frame, partner: Frame) -> Float[ndarray, "H W"]:
        """Depth in metres by the partner, at the size that frames are measured at, 0 = not found.
        Both can be read."""
        focal, baseline_m = float(self.camera(frame)[0, 0]), self.baseline_m(frame)
        return stereo_depth(self.grey(frame), self.grey(partner), focal, baseline_m)

    def has_depth(self, frame: Frame) -> bool:
        """Whether there is a file of its true depth."""
        try:
            path = self.dataset.depth_path(frame)
        except UserError:
            return False
        return path is not None and path.is_file()

    def true_depth(self, frame: Frame) -> Float[ndarray, "H W"] | None:
        """Depth in metres at the size of its file, 0 = missing; None if it cannot be read."""
        try:
            return self.dataset.read_depth(frame)
        except (UserError, OSError) as error:
            self.unreadable.setdefault(f"depth of {frame}", str(error))
            return None

    def _depth(self, frame: Frame) -> Float[ndarray, "H W"] | None:
        """True depth in metres at the size that frames are measured at, 0 = missing."""
        depth = self.true_depth(frame) if self.has_depth(frame) else None
        if depth is None:
            return None
        height, width = self.grey(frame).shape
        if (depth > 0).mean() > DENSE:
            return cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
        v, u = np.nonzero(depth)
        scale = np.array([width, height]) / depth.shape[::-1]
        pixels = np.round((np.stack([u, v], 1) + 0.5) * scale - 0.5)
        return depth_of_points(pixels, depth[v, u].astype(np.float64), height, width)


def measured_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) at which images of that size are measured."""
    width = min(size[0], WIDTH)
    return width, max(round(size[1] * width / size[0]), 1)


def sequences(dataset: MonoDataset) -> dict[Place, list[int]]:
    """Numbers of all frames that samples consist of, in order, by folder and side."""
    numbers: dict[Place, set[int]] = {}
    for frame in dataset.frames:
        here = numbers.setdefault((frame.folder, frame.side), set())
        here.update(frame.index + offset for offset in dataset.frame_ids or (0,))
    return {place: sorted(found) for place, found in numbers.items()}


def stride_of(frame_ids: tuple[int, ...]) -> int:
    """How far a target's nearest neighbour is, 0 where it has none."""
    return min((abs(offset) for offset in frame_ids if offset), default=0)


def runs(
    dataset: MonoDataset, place: Place, numbers: list[int], stride: int, most: int, length: int
) -> list[list[Frame]]:
    """Runs of neighbours, at most `length` long, that cover a sequence or, where it has more than
    `most` frames, lie evenly in it."""
    known = set(numbers)

    def run_from(first: int) -> list[Frame]:
        frames = [Frame(place[0], first, place[1])]
        while stride and len(frames) < length:
            after = frames[-1]._replace(index=frames[-1].index + stride)
            if after.index not in known or not dataset.same_recording(frames[-1], after):
                break
            frames.append(after)
        return frames

    if len(numbers) > most:
        count = max(most // length if stride else most, 1)
        places = np.linspace(0, max(len(numbers) - length, 0), count).round().astype(int)
        return [run_from(numbers[i]) for i in dict.fromkeys(places.tolist())]
    covered: set[int] = set()
    found = []
    for number in numbers:
        if number not in covered:
            run = run_from(number)
            if len(run) > 1 or not any(number in (f.index for f in one) for one in found[-stride:]):
                found.append(run)
            covered.update(frame.index for frame in run[:-1])
    return found


def spread(count: int) -> list[int]:
    """0 to count - 1 in an order in which any beginning lies evenly among all."""
    bits = max(count - 1, 0).bit_length()
    order = (int(f"{i:0{bits}b}"[::-1], 2) if bits else 0 for i in range(2**bits))
    return [i for i in order if i < count]


def whole_and_flat(depth: Float[ndarray, "H W"], window: int, step: float) -> Bool[ndarray, "H W"]:
    """Where a window of depth is complete and its farthest point is no more than `step` times as
    far as its nearest."""
    kernel = np.ones((window, window), np.uint8)
    low, high = cv2.erode(depth, kernel), cv2.dilate(depth, kernel)
    return (low > 0) & (high < step * low)
