"""Pictures of frames and of how their points move."""

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from motion import Tracks

from .frames import Reader
from .report import Picture
from .steps import Run, track

SHOWN = 3  # frames of a sequence
COLOUR, WIDTH_PX = (255, 190, 0), 1  # of arrows


def motion_pictures(reader: Reader, runs: list[Run]) -> list[Picture]:
    """Some frames of a sequence with arrows to where their points are in the next."""
    steps = [step for run in runs for step in run.steps]
    chosen = [steps[i] for i in np.linspace(0, len(steps) - 1, min(SHOWN, len(steps))).astype(int)]
    pictures = []
    for step in chosen:
        image = reader.colour(step.first)
        tracks, _ = track(reader, step.first, step.second)
        shift = f"points move by {step.flow_px:.1f} px, {step.found:.0%} are found again"
        pictures.append(Picture(f"{step.first}: {shift}", with_arrows(image, tracks)))
    if not steps and runs:
        frame = runs[0].frames[0]
        pictures.append(Picture(str(frame), reader.colour(frame)))
    return pictures


def with_arrows(image: UInt8[ndarray, "H W 3"], tracks: Tracks) -> UInt8[ndarray, "H W 3"]:
    """An image with an arrow from each point to where it goes."""
    drawn = image.copy()
    for start, end in zip(tracks.before, tracks.after, strict=True):
        ends = [tuple(int(round(float(x) * 8)) for x in point) for point in (start, end)]
        cv2.line(drawn, *ends, COLOUR, WIDTH_PX, cv2.LINE_AA, 3)
        cv2.circle(drawn, ends[1], 12, COLOUR, -1, cv2.LINE_AA, 3)
    return drawn
