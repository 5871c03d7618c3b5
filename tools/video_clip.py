"""Training sequences of one clip: frames that moved on, written as they come."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from PIL import Image

from datasets.folder import CAMERA_FILE
from datasets.intrinsics import resize_K
from media import black_borders
from motion import Reference
from tools.video_camera import Lens
from tools.video_sequence import MASK_FILE, SHORTEST, Made, SequenceWriter, Settings, camera_file
from tools.video_source import Clip, Picture, on_clock
from tools.video_view import View
from utils import UserError, ahead, atomic_folder

FOR_BORDERS = 16  # frames of a clip that are looked at for black borders
MEASURED = 320  # pixels of the longer side of pictures whose motion is measured
QUOTED = 640  # pixels of the longer side of pictures that motion is quoted for
LONGEST_PAUSE_S = 1.0  # between frames of one sequence
LONGEST_STEP = 2.5  # the same in steps of a slower clock
FEWEST_FOUND = 0.3  # share of a frame's points without which the next does not go on from it
PATIENCE = 3  # frames in which they may not be found, blurred ones say, before a sequence ends
AHEAD = 4  # frames that are decoded while others are measured and written


def prepare_clip(
    clip: Clip,
    lens: Lens,
    folder: Path,
    settings: Settings,
    stopping: threading.Event,
    seen: Callable[[], Any],
) -> Made:
    """Write a clip's frames, intrinsics.json and mask into a folder that appears when all is there.

    Args:
        stopping: set when there is no use in going on.
        seen: called for every frame.

    Raises:
        UserError: nothing of use is in the clip, or `stopping` was set.
    """
    view = view_of(clip, lens, settings)
    with atomic_folder(folder) as new:
        writer = SequenceWriter(new)
        made = fill(writer, pictures(clip, view, settings, stopping, seen), view, clip, settings)
        if not made.kept:
            raise UserError(f"{clip.path}: {complaint(made)}")
        if settings.mask is not None:
            Image.fromarray(np.uint8(255) * view.of_mask(settings.mask)).save(new / MASK_FILE)
        content = camera_file(clip, lens, view, settings, made)
        (new / CAMERA_FILE).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return made


def view_of(clip: Clip, lens: Lens, settings: Settings) -> View:
    """What is written of a clip's frames.

    Raises:
        UserError: as `View`.
    """
    margins = settings.margins
    if settings.crop_borders:
        left, top, right, bottom = margins
        rows, columns = slice(top, clip.size[1] - bottom), slice(left, clip.size[0] - right)
        some = (picture[rows, columns] for picture in clip.some(FOR_BORDERS, settings.span))
        found = black_borders([picture for picture in some if picture.size])
        margins = tuple(a + b for a, b in zip(margins, found, strict=True))
    try:
        return View(lens, margins, settings.size)
    except UserError as error:
        raise UserError(f"{clip.path}: {error}") from None


def complaint(made: Made) -> str:
    """Why nothing is kept of a clip."""
    if made.read == made.unreadable:
        return "no frame between --start and --end can be decoded, or has the size of the first"
    if made.still:
        return (
            f"{made.still} of {made.read} frames show no motion, and no {SHORTEST} in a row are "
            "left: was the camera fixed? (--min_motion 0 keeps all)"
        )
    return (
        f"has no {SHORTEST} frames in a row that show one scene, of {made.read} that --start, "
        "--end and --fps leave"
    )


def pictures(
    clip: Clip,
    view: View,
    settings: Settings,
    stopping: threading.Event,
    seen: Callable[[], Any],
) -> Iterator[tuple[float, Picture | None]]:
    """Times and pictures of what the clock takes of a clip, None for frames that cannot be decoded.

    Raises:
        UserError: `stopping` was set.
    """

    def moments() -> Iterator[tuple[float, Picture | None]]:
        for moment in clip.moments(settings.span):
            if stopping.is_set():
                raise UserError("stopped; run again to go on")
            seen()
            yield moment

    taken = moments() if settings.fps is None else on_clock(moments(), settings.fps)
    for seconds, frame in taken:
        yield seconds, None if frame is None else view.of(frame)


def fill(
    writer: "SequenceWriter",
    moments: Iterator[tuple[float, Picture | None]],
    view: View,
    clip: Clip,
    settings: Settings,
) -> Made:
    """Write the pictures that moved on from the one before; start a new sequence where they cannot
    be linked.

    Motion is parallax, what the camera's turning does not explain: a car that waits and a camera
    that only pans teach no depth, though in the latter's pictures everything moves. A camera that
    is not quite the right one makes some parallax of turns, less than the flow itself would be.
    """
    pause_s = max(LONGEST_PAUSE_S, LONGEST_STEP / (settings.fps or clip.rate))
    scale = MEASURED / max(*view.size, MEASURED)
    size = tuple(max(1, round(side * scale)) for side in view.size)
    K, quoted = resize_K(view.K, view.size, size), QUOTED / max(size)
    mask = None if settings.mask is None else measured_mask(view.of_mask(settings.mask), size)
    read = still = unreadable = lost = 0
    reference, last_s = None, -math.inf
    for seconds, picture in ahead(moments, AHEAD):
        read += 1
        if picture is None:
            unreadable += 1
            continue
        if seconds - last_s > pause_s:
            writer.cut()
            reference = None
        last_s = seconds
        if settings.min_motion == 0:
            writer.add(picture)
            continue
        grey = measured(picture, size)
        if reference is not None:
            motion = reference.motion_to(grey)
            lost = lost + 1 if motion.found < FEWEST_FOUND else 0
            if lost and lost < PATIENCE:
                continue
            if lost:
                writer.cut()
            elif motion.parallax_px * quoted < settings.min_motion:
                still += 1
                continue
        writer.add(picture)
        reference, lost = Reference(grey, K, np.zeros(5), mask), 0
        if not reference.has_points:  # nothing goes on from a blank picture
            writer.cut()
            reference = None
    writer.cut()
    unlinked = read - unreadable - still - writer.kept
    return Made(read, writer.kept, still, unlinked, unreadable, writer.sequences)


def measured(picture: Picture, size: tuple[int, int]) -> UInt8[ndarray, "h w"]:
    """A picture as its motion is measured."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return grey if grey.shape[::-1] == size else cv2.resize(grey, size, None, 0, 0, cv2.INTER_AREA)


def measured_mask(mask: Bool[ndarray, "H W"], size: tuple[int, int]) -> UInt8[ndarray, "h w"]:
    """Where points are looked for: not 0."""
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
