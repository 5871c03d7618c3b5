"""Whether neighbouring frames teach depth: enough motion, in order, and not of turning alone."""

import numpy as np

from .report import Finding
from .steps import Run, Step

TOO_SLOW_PX = 1.0  # below a pixel, errors of the flow are as large as what nearness makes of it
TOO_FAST_PX = 60.0  # of 640: neighbours share too little, and the loss finds no way so far
GOOD_PX = 5.0  # what a stride should make of slow motion: KITTI's at ten frames a second
FEWEST_FOUND = 0.3  # of points: as tools/prepare_nyuv2.py ends a sequence
STILL_PX = 0.25  # what remains of motion where a camera stands, by noise
STILL_PACE_PX = 0.1  # the same from frame to frame, as measured over several
STANDING = 0.3, 0.9  # share of such steps to warn of, and that spoils
SAME_GREY, SAME_PX = 1.0, 0.1  # differences below which a frame is the one before, encoded anew
LONGEST_PATTERN = 6  # frames after which doubles come again: 24 a second made 30 have 5
CLEAR = 0.9  # share of steps that must keep to a pattern
EXPOSURE, JUMPS = 1.15, 0.1  # a jump of brightness, and share of steps with it
TURNING = 0.4, 0.8  # share of steps that only turn to warn of, and that spoils
TURN_PX, TURN_SHARE = 0.4, 0.1  # of parallax, in pixels and of the shift: no more than errors
FEWEST_STEPS = 4  # for anything to be said about motion


def steps_of(runs: list[Run]) -> list[Step]:
    return [step for run in runs for step in run.steps]


def same(step: Step) -> bool:
    """Whether the second frame is the first one again."""
    return step.difference < SAME_GREY and step.flow_px < SAME_PX


def still(step: Step) -> bool:
    """Whether the camera stands; not if too few points are found to see it."""
    return same(step) or (step.flow_px < STILL_PX and step.found >= FEWEST_FOUND)


def names(steps: list[Step]) -> tuple[str, ...]:
    return tuple(str(step.second) for step in steps)


def pattern(steps: list[Step], stride: int) -> tuple[int, int] | None:
    """(p, n) where of p frames in a row, at the same places again and again, n are repeated."""
    repeated = np.array([same(step) for step in steps])
    number = np.array([step.second.index // stride for step in steps])
    for period in range(2, LONGEST_PATTERN + 1):
        shares = [repeated[number % period == k] for k in range(period)]
        if min(map(len, shares)) < 2:
            return None
        shares = np.array([share.mean() for share in shares])
        always, never = shares >= CLEAR, shares <= 1 - CLEAR
        if always.any() and never.any() and (always | never).all():
            return period, int(always.sum())
    return None


def check_repeats(runs: list[Run], stride: int) -> list[Finding]:
    """Frames that are there several times, at regular places."""
    steps = steps_of(runs)
    found = pattern(steps, stride)
    if found is None:
        return []
    period, count = found
    if count == period - 1:
        times = "twice" if period == 2 else f"{period} times"
        what = f"every frame is there {times}"
        step = period * stride
        also = f", or train with --frame_ids 0 -{step} {step}"
    else:
        what, also = f"of every {period} frames, {count} are repeated", ""
    fix = f"make the frames anew at {period - count}/{period} of the rate"
    fix += f" (tools/prepare_video.py --fps){also}"
    return [Finding("fault", "repeated frames", what, fix, names([s for s in steps if same(s)]))]


def check_standing(runs: list[Run], stride: int) -> list[Finding]:
    """How much of the time the camera stands."""
    steps = steps_of(runs)
    if len(steps) < FEWEST_STEPS or pattern(steps, stride) is not None:
        return []
    standing = []
    for run in runs:  # motion that is slow throughout is about the frame rate
        slow = STILL_PACE_PX <= run.pace_px < TOO_SLOW_PX
        standing += [step for step in run.steps if (same if slow else still)(step)]
    share = len(standing) / len(steps)
    if share < STANDING[0]:
        return []
    copies = sum(map(same, standing))
    what = f"the camera stands in {share:.0%} of the frames looked at"
    what += f" ({copies / len(steps):.0%} are copies of the frame before)" if copies else ""
    return [
        Finding(
            "fault" if share >= STANDING[1] else "warning",
            "standing camera",
            what,
            "take those frames out of the split: they teach no depth",
            names(standing),
        )
    ]


def check_rate(runs: list[Run], stride: int) -> list[Finding]:
    """Whether neighbours are as far apart as depth is learnt from."""
    moving = [run for run in runs if run.steps and run.pace_px >= STILL_PACE_PX]
    steps = [step for run in moving for step in run.steps if not same(step)]
    if len(steps) < FEWEST_STEPS:
        return []
    found = float(np.median([step.found for step in steps]))
    seen = [step.flow_px for step in steps if step.found >= FEWEST_FOUND / 2]
    flow = float(np.median(seen)) if seen else 0.0
    doubled = pattern(steps_of(runs), stride) is not None
    pace = flow if doubled else float(np.median([run.pace_px for run in moving]))
    closer = "take more frames a second of the video (tools/prepare_video.py --fps)"
    if stride > 1:
        closer = "train with --frame_ids that are less far apart"
    if found < FEWEST_FOUND:
        what = (
            f"only {found:.0%} of the points of a frame are found in the next: neighbours are too "
            "far apart, or not neighbours in time"
        )
        return [Finding("fault", "frame rate", what, closer)]
    if pace > TOO_FAST_PX:
        what = (
            f"from frame to frame points move by {pace:.0f} px (of images 640 wide): too far to "
            "learn from"
        )
        return [Finding("fault", "frame rate", what, closer)]
    if pace < TOO_SLOW_PX:
        times = int(np.clip(np.round(GOOD_PX / max(pace, 1e-3)), 2, 30))
        step = times * stride
        return [
            Finding(
                "fault",
                "frame rate",
                f"from frame to frame points move by only {pace:.2f} px (of images 640 wide): too "
                "little for depth",
                f"train with --frame_ids 0 -{step} {step}, or take every {times}th frame "
                "(tools/prepare_video.py --fps)",
            )
        ]
    return []


def check_exposure(runs: list[Run]) -> list[Finding]:
    """Brightness that jumps, which the loss takes for a difference of what is seen."""
    steps = steps_of(runs)
    jumps = [s for s in steps if max(s.brighter, 1 / max(s.brighter, 1e-6)) > EXPOSURE]
    if len(steps) < FEWEST_STEPS or len(jumps) < max(JUMPS * len(steps), 2):
        return []
    worst = max(max(s.brighter, 1 / max(s.brighter, 1e-6)) for s in jumps)
    return [
        Finding(
            "warning",
            "exposure",
            f"brightness jumps by more than {EXPOSURE - 1:.0%} in {len(jumps) / len(steps):.0%} of "
            f"the steps (by up to {worst - 1:.0%})",
            "film with fixed exposure, or even out the brightness of the frames",
            names(jumps),
        )
    ]


def check_turning(runs: list[Run]) -> list[Finding]:
    """Whether the camera moves, or only turns."""
    moving = [s for s in steps_of(runs) if s.flow_px >= TOO_SLOW_PX and s.found >= FEWEST_FOUND]
    turning = [s for s in moving if s.parallax_px < max(TURN_PX, TURN_SHARE * s.flow_px)]
    share = len(turning) / max(len(moving), 1)
    if len(moving) < FEWEST_STEPS or share < TURNING[0]:
        return []
    return [
        Finding(
            "fault" if share >= TURNING[1] else "warning",
            "turning camera",
            f"in {share:.0%} of the steps the camera only turns in its place: points near and far "
            "move alike, which teaches no depth",
            "move the camera sideways or forward while filming, and take these frames out of the "
            "split",
            names(turning),
        )
    ]
