"""Whether neighbours in number are neighbours in what they show."""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from datasets import Frame

from .frames import Reader, spread
from .report import Finding
from .steps import Run, step

CHECK = "order of frames"
FEWEST = 8  # frames that it takes to see an order
CLOSER = 0.7  # a stranger whose small picture is so much nearer than neighbours' should be one
SAME = 0.02  # difference of small pictures that noise makes
DISORDER = 0.15, 0.3  # share of frames with such strangers to warn of, and that is no chance
LOST = 0.6  # share of points found in neighbours, on the whole, below which strangers are asked
TRIED, STRANGERS = 10, 2  # frames whose points are looked for, each in so many strangers
FOUND_MORE = 0.15  # share of points by which a stranger must be ahead of all neighbours


def check_order(reader: Reader, runs: list[Run], stride: int) -> list[Finding]:
    """Compare each frame with its neighbours in number, and with all frames farther away."""
    frames = [frame for run in runs for frame in run.frames]
    if len(frames) < FEWEST:
        return []
    number = np.array([frame.index for frame in frames])
    gap = np.abs(number[:, None] - number)
    apart = differences(np.concatenate([run.thumbs for run in runs]))
    near = np.where(gap == stride, apart, np.inf).min(1)
    strange = np.where(gap > 2 * stride, apart, np.inf)
    asked = np.isfinite(near) & (near > SAME) & np.isfinite(strange).any(1)
    odd = asked & (strange.min(1) < CLOSER * near)
    found = [one.found for run in runs for one in run.steps]
    if odd.sum() < DISORDER[1] * asked.sum() and found and np.median(found) < LOST:
        few, strangers = by_points(reader, runs, frames, strange, asked)
        if strangers.sum() * asked.sum() > odd.sum() * few.sum():
            asked, odd = few, strangers
    share = odd.sum() / max(asked.sum(), 1)
    if asked.sum() < FEWEST / 2 or share < DISORDER[0]:
        return []
    i = int(np.flatnonzero(odd)[0])
    like = frames[int(strange[i].argmin())]
    return [
        Finding(
            "fault" if share >= DISORDER[1] else "warning",
            CHECK,
            f"{share:.0%} of the frames look less like their neighbours in "
            f"number than like frames farther away ({frames[i]} like {like.index}): they are not "
            "in the order they were filmed in",
            "number the frames in the order of time",
            tuple(str(frames[k]) for k in np.flatnonzero(odd)),
        )
    ]


def differences(thumbs: Float[ndarray, "F h w"]) -> Float[ndarray, "F F"]:
    """Root mean square difference of small pictures."""
    flat = thumbs.reshape(len(thumbs), -1)
    squares = (flat**2).mean(1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T / flat.shape[1], 0))


def by_points(
    reader: Reader,
    runs: list[Run],
    frames: list[Frame],
    strange: Float[ndarray, "F F"],
    asked: Bool[ndarray, " F"],
) -> tuple[Bool[ndarray, " F"], Bool[ndarray, " F"]]:
    """Some of the frames asked, and which of them share more points with a stranger."""
    shared: dict[Frame, float] = {}
    for one in (one for run in runs for one in run.steps):
        for frame in (one.first, one.second):
            shared[frame] = max(shared.get(frame, 0.0), one.found)
    known = [i for i in np.flatnonzero(asked) if frames[i] in shared]
    tried, odd = np.zeros_like(asked), np.zeros_like(asked)
    for i in [known[k] for k in spread(len(known))][:TRIED]:
        tried[i] = True
        image = reader.grey(frames[i])
        for k in np.argsort(strange[i])[:STRANGERS]:
            other = reader.grey(frames[k])
            if np.isfinite(strange[i, k]) and other.shape == image.shape:
                found = step(reader, frames[i], frames[k]).found
                odd[i] |= found > shared[frames[i]] + FOUND_MORE
    return tried, odd
