"""Whether stereo partners are where the baseline says, rectified, and warp into each other."""

import numpy as np

from datasets import Frame

from .frames import WIDTH, Reader
from .report import Finding, Picture
from .steps import track
from .warps import Warped, warp_test

CHECK = "stereo"
SHIFT_PX = 0.5  # less is no disparity but an error of tracking
SIDE = 0.7  # share of disparities that must agree on the side
SAME_GREY = 1.0  # mean difference below which both are one picture
FEWEST_FOUND = 0.15  # of points: near things shift far
ROWS_PX = 1.0, 2.0  # shift across rows that a quarter of the points exceeds: warn, and spoilt
BETTER = 0.8  # the warped partner's error must fall to this share
FEWEST_POINTS = 20


def check_stereo(reader: Reader, frames: list[Frame]) -> tuple[list[Finding], list[Picture]]:
    """Compare some frames of a sequence with their partners."""
    pairs = [(frame, reader.partner(frame)) for frame in frames]
    pairs = [(a, b) for a, b in pairs if b is not None and reader.grey(a) is not None]
    pairs = [(a, b) for a, b in pairs if reader.grey(b) is not None]
    if not pairs:
        return [], []
    odd = [a for a, b in pairs if reader.grey(a).shape != reader.grey(b).shape]
    if odd:
        return [_fault("a frame and its partner differ in size", "resize both alike", odd)], []
    findings = _sides(reader, pairs)
    if findings:
        a, b = pairs[0]
        return findings, [Picture(str(a), reader.grey(a)), Picture("its partner", reader.grey(b))]
    warps = [warp_to_partner(reader, *pair) for pair in pairs]
    ratio = float(np.median([one.ratio for one in warps]))
    if ratio > BETTER:
        findings.append(
            _fault(
                f"warped by the disparity between them, partners stay unlike frames (error "
                f"{ratio:.2f} of that without warping)",
                "check that both were taken at one moment, and are rectified",
                [a for a, _ in pairs],
            )
        )
    return findings, warp_pictures(warps[0], f"stereo partner of {pairs[0][0]}")


def _fault(message: str, fix: str, frames: list[Frame]) -> Finding:
    return Finding("fault", CHECK, message, fix, tuple(map(str, frames)))


def _sides(reader: Reader, pairs: list[tuple[Frame, Frame]]) -> list[Finding]:
    """What is wrong with where points are in the partner; empty if nothing is."""
    first = [a for a, _ in pairs]
    difference = [np.abs(reader.grey(a).astype(int) - reader.grey(b)).mean() for a, b in pairs]
    if np.median(difference) < SAME_GREY:
        return [_fault("both views are the same picture", "give the other camera's images", first)]
    shifts, found = [], []
    for a, b in pairs:
        tracks, _ = track(reader, a, b)
        shifts.append(tracks.shift * (WIDTH / reader.grey(a).shape[1]))
        found.append(tracks.found)
    shift = np.concatenate(shifts)
    apart = shift[np.abs(shift[:, 0]) > SHIFT_PX]
    if np.median(found) < FEWEST_FOUND or len(apart) < FEWEST_POINTS:
        return [
            Finding(
                "warning",
                CHECK,
                f"only {np.median(found):.0%} of the points of a frame are found in its partner",
                "check that both were taken at one moment and place",
                tuple(map(str, first)),
            )
        ]
    baseline = reader.baseline_m(first[0])
    agree = float((apart[:, 0] * baseline < 0).mean())
    if agree < SIDE:
        said, is_at = ("right", "left") if baseline > 0 else ("left", "right")
        what = (
            f"the partner is said to be {abs(baseline):.3g} m to the {said}, but its picture was "
            f"taken farther {is_at} ({1 - agree:.0%} of the points say so)"
        )
        if agree > 1 - SIDE:
            what = "points shift to both sides in the partner: no rectified pair"
        fix = "exchange the two folders of images, or turn the sign of the baseline round"
        return [_fault(what, fix if agree <= 1 - SIDE else "rectify the images", first)]
    rows = float(np.percentile(np.abs(shift[:, 1]), 75))
    if rows > ROWS_PX[0]:
        return [
            Finding(
                "fault" if rows > ROWS_PX[1] else "warning",
                CHECK,
                f"points are {rows:.1f} px higher or lower in the partner (of images 640 wide): "
                "the pair is not rectified",
                "rectify the images, and take the camera of the rectified ones",
                tuple(map(str, first)),
            )
        ]
    return []


def warp_to_partner(reader: Reader, frame: Frame, partner: Frame) -> Warped:
    """The partner warped into the frame, by the disparity between them."""
    T = np.eye(4)
    T[0, 3] = -reader.baseline_m(frame)
    depth = reader.stereo_depth(frame, partner)
    return warp_test(reader.grey(frame), reader.grey(partner), depth, reader.camera(frame), T)


def warp_pictures(warped: Warped, what: str) -> list[Picture]:
    """Target, source, the source warped, and the errors without and with warping."""
    top = max(float(np.percentile(warped.still, 99)), 1e-3)

    def shown(error: np.ndarray) -> np.ndarray:
        return np.uint8(255 * np.clip(error / top, 0, 1))

    return [
        Picture(f"{what}: target", warped.target),
        Picture("source", warped.source),
        Picture("source warped into the target", np.where(warped.counts, warped.image, 0)),
        Picture("error of the source left in place", shown(warped.still)),
        Picture(
            f"error of the source warped ({warped.ratio:.2f} of it)",
            shown(np.where(warped.counts, warped.error, 0)),
        ),
    ]
