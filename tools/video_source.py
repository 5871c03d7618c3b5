"""Clips as people have them, a video or a folder of images: frames, one after the other."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from media import IMAGES, USUAL_FPS, VIDEOS, find_images, open_image, rate_and_count
from utils import UserError

Picture = UInt8[ndarray, "H W 3"]
Moment = tuple[float, Picture | None]  # seconds, and the frame unless it cannot be decoded
SPAN = (0.0, math.inf)
MENDS = "copy it again, or try ffmpeg -i IN out.mp4"
FALSE_ENDS = 0.02  # of a video's frames may be missing at its end: its own count is no more exact


class Clip:
    """A video or a folder of images.

    Attributes:
        path: what the user named.
        size: (width, height) of the frames as they are seen upright.
        fps: frames per second; None where that is unknown.
        count: how many frames there should be.
        bytes: of the video's file, or of all images.
    """

    path: Path
    size: tuple[int, int]
    fps: float | None
    count: int
    bytes: int

    @property
    def rate(self) -> float:
        """Frames per second, assumed where unknown."""
        return self.fps or USUAL_FPS

    def moments(self, span: tuple[float, float] = SPAN) -> Iterator[Moment]:
        """Frames in order, with the seconds since the beginning; those in `span` only."""
        raise NotImplementedError

    def some(self, count: int, span: tuple[float, float] = SPAN) -> list[Picture]:
        """Up to `count` frames from all over the seconds in `span`."""
        raise NotImplementedError

    def _numbers(self, count: int, span: tuple[float, float]) -> list[int]:
        """Of up to `count` frames that lie evenly in a span."""
        last = max(self.count - 1, 0)
        first, last = (min(seconds * self.rate, last) for seconds in span)
        return sorted({int(i) for i in np.linspace(first, last, count)})

    def _fitting(self, frame: Picture) -> Picture | None:
        """The frame, unless it is of another size than the first."""
        return frame if frame.shape[1::-1] == self.size else None


class Video(Clip):
    """A video file. Turned ones, as phones write them, come out upright.

    Raises:
        UserError: it cannot be opened or has no frame.
    """

    def __init__(self, path: Path):
        self.path = path
        capture = cv2.VideoCapture(str(path))
        there, frame = capture.read()
        if not there:
            raise UserError(f"{path}: cannot be read as a video; {MENDS}")
        self.size = frame.shape[1::-1]
        self.fps, count = rate_and_count(capture)
        self.count = count or 0
        self.bytes = path.stat().st_size
        capture.release()

    def moments(self, span: tuple[float, float] = SPAN) -> Iterator[Moment]:
        capture = cv2.VideoCapture(str(self.path))
        seconds, bad, taken = -1 / self.rate, 0, 0
        while True:
            if not capture.grab():
                bad += 1  # what follows a damaged frame may be whole
                taken += 1
                if taken >= self.count:
                    break
                continue
            taken += 1
            at = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            usual = seconds + (bad + 1) / self.rate
            seconds = at if seconds < at < math.inf else usual
            if seconds > span[1]:
                bad = 0
                break
            if seconds >= span[0]:
                yield from [(seconds, None)] * bad
                there, frame = capture.retrieve()
                picture = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if there else None
                yield seconds, None if picture is None else self._fitting(picture)
            bad = 0
        if bad > max(2, FALSE_ENDS * self.count):
            yield from [(seconds, None)] * bad
        capture.release()

    def some(self, count: int, span: tuple[float, float] = SPAN) -> list[Picture]:
        capture, found = cv2.VideoCapture(str(self.path)), []
        for number in self._numbers(count, span):
            capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            there, frame = capture.read()
            if there and frame.shape[1::-1] == self.size:
                found.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        capture.release()
        return found


class Images(Clip):
    """The images of a folder, in the order of their names: numbers in them count as numbers.

    Raises:
        UserError: there is none, or none can be read.
    """

    def __init__(self, path: Path, fps: float | None = None):
        self.path, self.fps = path, fps
        self.paths = sorted(find_images(str(path)), key=natural)
        self.count = len(self.paths)
        self.bytes = sum(one.stat().st_size for one in self.paths)
        first = next((p for one in self.paths if (p := readable(one)) is not None), None)
        if first is None:
            raise UserError(f"{path}: none of its {self.count} images can be read")
        self.size = first.shape[1::-1]

    def moments(self, span: tuple[float, float] = SPAN) -> Iterator[Moment]:
        for number, path in enumerate(self.paths):
            seconds = number / self.rate
            if span[0] <= seconds <= span[1]:
                picture = readable(path)
                yield seconds, None if picture is None else self._fitting(picture)

    def some(self, count: int, span: tuple[float, float] = SPAN) -> list[Picture]:
        pictures = (readable(self.paths[i]) for i in self._numbers(count, span))
        return [p for p in pictures if p is not None and self._fitting(p) is not None]


def open_clip(path: Path, source_fps: float | None = None) -> Clip:
    """A video, or a folder of images of which somebody may know the rate.

    Raises:
        UserError: there is no such thing, or it cannot be read.
    """
    if not path.exists():
        raise UserError(f"{path}: no such video or folder of images")
    if path.is_dir():
        inside = {one.suffix.lower() for one in path.iterdir()}
        if inside & set(VIDEOS) and not inside & set(IMAGES):
            raise UserError(f"{path}: holds videos; give the videos themselves, as {path}/*")
        return Images(path, source_fps)
    if path.suffix.lower() in IMAGES:
        raise UserError(f"{path}: is a single image; give a video or a folder of images")
    return Video(path)


def readable(path: Path) -> Picture | None:
    """An image, upright; None if it cannot be read."""
    try:
        return np.asarray(open_image(path))
    except UserError:
        return None


def natural(path: Path) -> list[tuple[int, str]]:
    """A key that sorts frame_9 before frame_10."""
    return [
        (int(part), "") if part.isdecimal() else (0, part)
        for part in re.split(r"([0-9]{1,18})", path.name)
    ]


def on_clock(moments: Iterator[Moment], fps: float) -> Iterator[Moment]:
    """Of frames in order, those nearest to the ticks of a clock that begins with the first one.

    A frame is given once, whatever the number of ticks it is nearest to. Frames that cannot be
    decoded pass through.
    """
    waiting: Moment | None = None
    first, tick, half = 0.0, 0, 0.0
    for moment in moments:
        if moment[1] is None:
            yield moment
            continue
        if waiting is None:
            first = moment[0]
        else:
            half = (moment[0] - waiting[0]) / 2
            middle = waiting[0] + half
            if first + tick / fps < middle:
                yield waiting
                tick = math.floor((middle - first) * fps)
                while first + tick / fps < middle:
                    tick += 1
        waiting = moment
    if waiting is not None and first + tick / fps < waiting[0] + max(half, 1e-9):
        yield waiting
