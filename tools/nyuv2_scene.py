"""Training sequences of one raw recording of NYUv2: undistorted, cut, resized, with parallax."""

import json
import math
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from datasets import read_image
from datasets.intrinsics import crop_K, resize_K
from datasets.kinect import (
    COLOUR_DISTORTION,
    COLOUR_K,
    HEIGHT,
    WIDTH,
    read_raw_depth,
    register,
    undistort,
)
from media import encoded
from motion import Motion, Reference
from tools.nyuv2_labelled import depth_png
from utils import UserError, atomic_write

NAME = re.compile(r"([rd])-(\d+\.\d+)-\d+\.(ppm|pgm)", re.ASCII)
HALF = (WIDTH // 2, HEIGHT // 2)  # motion is measured at half size
LONGEST_PAUSE_S = 1.0  # between frames of one sequence
FARTHEST_DEPTH_S = 0.05  # between a frame and the depth image that goes with it
FEWEST_FOUND = 0.3  # share of a frame's points without which the next does not go on from it
PATIENCE = 3  # frames in which they may not be found, blurred ones say, before a sequence ends
SHORTEST = 3  # frames of a sequence: a target and its neighbours


class Settings(NamedTuple):
    """How sequences are made: pixels that are cut off all round, (width, height) afterwards, least
    parallax of neighbours in pixels of the 640x480 frames, and whether depth comes along."""

    crop: int
    size: tuple[int, int]
    min_parallax: float
    depth: bool

    @property
    def camera(self) -> dict[str, float]:
        """Intrinsics of the images that are written, in pixels."""
        cut = (WIDTH - 2 * self.crop, HEIGHT - 2 * self.crop)
        K = resize_K(crop_K(COLOUR_K, self.crop, self.crop), cut, self.size)
        numbers = {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
        return numbers | {"width": self.size[0], "height": self.size[1]}

    def cut(self, image: np.ndarray) -> np.ndarray:
        """An image [480 640 ...] without its margin."""
        return image[self.crop : HEIGHT - self.crop, self.crop : WIDTH - self.crop]


class Scene(NamedTuple):
    """What became of a recording: sequences as (first, last) numbers of the images written, and
    counts of colour frames found, kept, unreadable, and listed in INDEX.txt but not there, and of
    kept frames whose depth is unreadable."""

    name: str
    sequences: list[tuple[int, int]]
    frames: int
    kept: int
    unreadable: int
    absent: int
    bad_depth: int


def prepare_scene(
    folder: Path, out: Path, settings: Settings, stopping: threading.Event | None = None
) -> Scene:
    """Write the sequences of a scene, unless an earlier run did and no frame has come since.

    Raises:
        UserError: `stopping` was set; another run begins the scene anew.
    """
    target = out / folder.name
    colour = timed_files(folder, "r")
    scene = read_scene(target)
    if scene is not None and scene.frames >= len(colour):
        return scene
    if target.exists():
        shutil.rmtree(target)  # an earlier run did not finish it, or knew less of it
    depth = timed_files(folder, "d") if settings.depth else []
    sequences, unreadable = select(until(stopping, colour), settings.min_parallax)
    runs, number, kept, bad_depth = [], 0, 0, 0
    for sequence in sequences:
        runs.append((number, number + len(sequence) - 1))
        for seconds, path in until(stopping, sequence):
            write_frame(target, number, path, settings)
            bad_depth += not write_depth(target, number, seconds, depth, settings)
            number += 1
        kept += len(sequence)
        number += 1  # a number that is missing parts two sequences
    if runs:
        write_json(target / "intrinsics.json", settings.camera)
    absent = listed_but_absent(folder)
    scene = Scene(folder.name, runs, len(colour), kept, unreadable, absent, bad_depth)
    write_json(target / "scene.json", scene._asdict())
    return scene


def until(
    stopping: threading.Event | None, frames: Iterable[tuple[float, Path]]
) -> Iterator[tuple[float, Path]]:
    """Frames, as long as nothing has to stop.

    Raises:
        UserError: it has.
    """
    for frame in frames:
        if stopping is not None and stopping.is_set():
            raise UserError("stopped; run again to go on")
        yield frame


def select(
    frames: Iterable[tuple[float, Path]], min_parallax: float
) -> tuple[list[list[tuple[float, Path]]], int]:
    """Sequences of frames in which each has moved on from the one before, and how many frames of
    all could not be read.

    A sequence ends where frames are too far apart, in time or in what they show.
    """
    K = resize_K(COLOUR_K, (WIDTH, HEIGHT), HALF)
    sequences: list[list[tuple[float, Path]]] = []
    reference, last_s, lost, unreadable = None, -math.inf, 0, 0
    for seconds, path in frames:
        image = readable(path)
        if image is None:
            unreadable += 1
            continue
        grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), HALF, None, 0, 0, cv2.INTER_AREA)
        motion = Motion(0.0, 0.0) if reference is None else reference.motion_to(grey)
        lost = lost + 1 if motion.found < FEWEST_FOUND else 0
        if reference is None or seconds - last_s > LONGEST_PAUSE_S or lost >= PATIENCE:
            sequences.append([])
        elif lost or motion.parallax_px * WIDTH / HALF[0] < min_parallax:
            last_s = seconds
            continue
        sequences[-1].append((seconds, path))
        reference, last_s, lost = Reference(grey, K, COLOUR_DISTORTION), seconds, 0
        if not reference.has_points:
            reference = None  # nothing goes on from a blank frame
    return [sequence for sequence in sequences if len(sequence) >= SHORTEST], unreadable


def readable(path: Path) -> np.ndarray | None:
    """A raw colour frame [480 640 3], or None for a truncated, damaged or odd file."""
    try:
        image = np.asarray(read_image(path))
    except UserError:
        return None
    return image if image.shape == (HEIGHT, WIDTH, 3) else None


def write_frame(target: Path, number: int, path: Path, settings: Settings) -> None:
    """A raw colour frame as an image of the sequence."""
    image = settings.cut(undistort(np.asarray(read_image(path))))
    resized = Image.fromarray(image).resize(settings.size, Image.Resampling.LANCZOS)
    with atomic_write(target / f"{number:06d}.jpg") as file:
        file.write(encoded(np.asarray(resized), png=False))


def write_depth(
    target: Path,
    number: int,
    seconds: float,
    depth: list[tuple[float, Path]],
    settings: Settings,
) -> bool:
    """The depth image nearest in time, as the frame sees it; False if it cannot be read."""
    near = [one for one in depth if abs(one[0] - seconds) <= FARTHEST_DEPTH_S]
    if not near:
        return True
    _, path = min(near, key=lambda one: abs(one[0] - seconds))
    try:
        depth_m = settings.cut(register(read_raw_depth(path)))
    except UserError:
        return False
    with atomic_write(target / "depth" / f"{number:06d}.png") as file:
        file.write(depth_png(depth_m, path, number))
    return True


def write_json(path: Path, content: dict) -> None:
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=2)


def read_scene(target: Path) -> Scene | None:
    """What an earlier run made of a scene; None if it did not finish."""
    try:
        content = json.loads((target / "scene.json").read_text(encoding="utf-8"))
        counts = {name: int(content[name]) for name in Scene._fields[2:]}
        runs = [(int(first), int(last)) for first, last in content["sequences"]]
        return Scene(target.name, runs, **counts)
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None


def timed_files(folder: Path, kind: str) -> list[tuple[float, Path]]:
    """(time in seconds, file) of a scene's colour (r) or depth (d) images, in order of time."""
    matches = [(NAME.fullmatch(name), folder / name) for name in os.listdir(folder)]
    return sorted((float(m[2]), path) for m, path in matches if m and m[1] == kind)


def listed_but_absent(folder: Path) -> int:
    """How many colour frames INDEX.txt names that are not there."""
    try:
        names = (folder / "INDEX.txt").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return 0
    here = set(os.listdir(folder))
    return sum(name.startswith("r-") and name not in here for name in names)
