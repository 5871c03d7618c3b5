"""Whether depth is metres of these images, and explains with K how neighbours differ."""

import functools

import numpy as np

from datasets import Frame
from motion import Tracks

from .cameras import SAME_SHAPE, by
from .frames import WIDTH, Camera, Reader
from .motion_checks import same
from .report import Finding, Picture
from .steps import Run, track
from .stereo_checks import warp_pictures
from .warps import FEWEST_POINTS, Pose, Warped, pose_of, warp_test

CHECK = "depth"
MEDIAN_M = 0.2, 100.0  # of what cameras look at
FEWEST_VALID = 0.005  # share of pixels; one laser scan has about 0.05
SATURATED = 0.2  # share of valid pixels that all have the greatest value
SCALE = 0.8, 1.25  # depth over that of the stereo pair
UNITS = {  # what depth is multiplied by when its unit is mistaken
    1000.0: "millimetres read as metres",
    100.0: "centimetres read as metres",
    0.001: "metres read as millimetres",
    1000 / 256: "millimetres read as 1/256 m",
    0.256: "units of 1/256 m read as millimetres",
    256.0: "units of 1/256 m read as metres",
    1 / 256: "metres read as units of 1/256 m",
    5.0: "units of 1/5000 m read as millimetres",
    0.2: "millimetres read as units of 1/5000 m",
}
LIKE = 0.1  # relative difference to one of these
GOOD_PX = 8.0, 30.0  # motion that shows in an image, and that tracking still follows
LEAST_PX = 2.0  # motion below which a pose is guessed
FEW = 12  # pairs that are enough
BETTER = 0.8  # the warped neighbour's error must fall to this share of that in place,
THAN_FLAT = 0.7  # and to this share of that in a flat world, if near and far can show:
PARALLAX_PX, SPREAD = 2.0, 1.5  # by such parallax (of 640), and farthest over nearest points
WARPED = 4  # pairs that are warped
AGREE = 0.5  # share of points whose motion one pose must explain
FEWEST_STEREO = 200  # pixels with both depths


def check_depth(reader: Reader, frames: list[Frame]) -> list[Finding]:
    """The values of some depth images of one sequence."""
    read = {frame: reader.true_depth(frame) for frame in frames if reader.has_depth(frame)}
    read = {frame: depth for frame, depth in read.items() if depth is not None}
    if not read:
        return []
    where = tuple(map(str, read))
    findings = []
    for frame, depth in read.items():
        size, shape = reader.sizes.get(frame), depth.shape[::-1]
        if size is not None and not same_view(shape, size, reader.known_camera(frame)):
            findings.append(
                Finding(
                    "fault",
                    CHECK,
                    f"depth has {by(shape)} pixels, its image {by(size)}: another shape",
                    "cut and resize depth as the images were",
                    where,
                )
            )
            break
    valid = float(np.median([(depth > 0).mean() for depth in read.values()]))
    if valid < FEWEST_VALID:
        findings.append(
            Finding(
                "warning",
                CHECK,
                f"only {valid:.1%} of the pixels have depth",
                "check the depth images: 0 means missing",
                where,
            )
        )
    values = [depth[depth > 0] for depth in read.values() if (depth > 0).any()]
    if not values:
        return findings
    middle = float(np.median(np.concatenate(values)))
    if not MEDIAN_M[0] < middle < MEDIAN_M[1]:
        findings.append(
            Finding(
                "fault",
                CHECK,
                f"the median depth is {middle:.3g} m, which no camera films",
                "correct the unit (metres_per_unit; 0.001 for millimetres)",
                where,
            )
        )
    full = float(np.median([(one == one.max()).mean() for one in values]))
    if full > SATURATED:
        findings.append(
            Finding(
                "warning",
                CHECK,
                f"{full:.0%} of the depth has its greatest value {max(map(np.max, values)):.3g} m: "
                "it is cut off there",
                "write 0, which means missing, where nothing was measured",
                where,
            )
        )
    return findings


def check_scale(reader: Reader, frames: list[Frame]) -> list[Finding]:
    """Depth against that of the stereo pair."""
    ratios = []
    for frame in frames:
        partner = reader.partner(frame)
        depth = reader.depth(frame) if reader.grey(frame) is not None else None
        if partner is None or depth is None or reader.grey(partner) is None:
            continue
        other = reader.stereo_depth(frame, partner)
        both = (depth > 0) & (other > 0)
        if both.sum() > FEWEST_STEREO:
            ratios.append(np.median(depth[both] / other[both]))
    if not ratios:
        return []
    ratio = float(np.median(ratios))
    if SCALE[0] < ratio < SCALE[1]:
        return []
    likely = min(UNITS, key=lambda factor: abs(np.log(ratio / factor)))
    guess = f", as {UNITS[likely]} would be" if abs(ratio / likely - 1) < LIKE else ""
    return [
        Finding(
            "fault",
            CHECK,
            f"depth is {ratio:.3g} times what the stereo pair says{guess}",
            "correct metres_per_unit, or the baseline",
            tuple(map(str, frames)),
        )
    ]


def same_view(shape: tuple[int, int], size: tuple[int, int], camera: Camera) -> bool:
    """Whether depth of a shape (width, height) can show what images of a size show: it has their
    aspect, or that of square pixels, where images were resized to another one."""
    seen = camera.size[0] / camera.K[0, 0] / (camera.size[1] / camera.K[1, 1])
    aspects = (size[0] / size[1], seen)
    return any(abs(shape[0] / shape[1] / aspect - 1) < SAME_SHAPE for aspect in aspects)


class Geometry:
    """Pairs of frames of a sequence, some steps apart, with depth of the first and their motion.

    pairs: (first, second, pose); by_stereo: whether depth comes of the stereo pair.
    """

    def __init__(self, reader: Reader, runs: list[Run], most: int):
        self.reader, self.by_stereo = reader, False
        self.depth = functools.lru_cache(most)(self._depth)
        self.pairs: list[tuple[Frame, Frame, Pose]] = []
        for first, second in far_pairs(runs, most):
            depth = self.depth(first)
            if depth is None or reader.grey(second) is None:
                continue
            if reader.grey(first).shape != reader.grey(second).shape:
                continue
            pose = pose_of(self.tracked(first, second), depth, reader.camera(first))
            if pose is not None:
                self.pairs.append((first, second, pose))

    def tracked(self, first: Frame, second: Frame) -> Tracks:
        """Points of a frame in another."""
        return track(self.reader, first, second)[0]

    def _depth(self, frame: Frame) -> np.ndarray | None:
        """Depth of a frame at the size it is measured at: known, or by its stereo pair."""
        reader = self.reader
        if reader.grey(frame) is None:
            return None
        depth = reader.depth(frame)
        if depth is not None:
            return depth
        partner = reader.partner(frame)
        if partner is None or reader.grey(partner) is None:
            return None
        self.by_stereo = True
        return reader.stereo_depth(frame, partner)


def far_pairs(runs: list[Run], most: int) -> list[tuple[Frame, Frame]]:
    """Pairs of frames of runs, spread over them, with motion that shows between them.

    Where these are few, pairs less far apart join them.
    """
    by_gap: dict[int, list[tuple[Frame, Frame]]] = {}
    for run in runs:
        again = {step.second for step in run.steps if same(step)}
        frames = [frame for frame in run.frames if frame not in again]
        pace_px = run.pace_px * len(run.frames) / max(len(frames), 1)
        if len(frames) < 2 or not LEAST_PX / len(frames) < pace_px < GOOD_PX[1]:
            continue
        far = int(np.clip(round(GOOD_PX[0] / pace_px), 1, len(frames) - 1))
        for gap in range(far, 0, -1):
            if gap == far or gap * pace_px >= LEAST_PX:
                pairs = zip(frames, frames[gap:], strict=False)
                by_gap.setdefault(far - gap, []).extend(pairs)
    chosen: list[tuple[Frame, Frame]] = []
    for _, pairs in sorted(by_gap.items()):
        if len(chosen) < FEW:
            chosen += pairs
    if len(chosen) > most:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, most).round().astype(int)]
    return chosen


def check_warp(geometry: Geometry) -> tuple[list[Finding], list[Picture]]:
    """Whether neighbours become alike when warped by K, depth and the motion that fits best.

    A flat world, at the median depth everywhere, is what depth has to do better than.
    """
    pairs = geometry.pairs
    if not pairs:
        return [], []
    where = tuple(str(first) for first, _, _ in pairs)
    source = "the depth of the stereo pair" if geometry.by_stereo else "depth"
    check = "check K, and that depth is of these frames and along the camera's axis"
    share = float(np.median([pose.share for _, _, pose in pairs]))
    if share < AGREE:
        what = f"K and {source} explain the motion of only {share:.0%} of the points"
        return [Finding("fault", "warp test", what, check, where)], []
    good = [pair for pair in pairs if pair[2].agree.sum() >= FEWEST_POINTS]
    good = good[:: max(len(good) // WARPED, 1)][:WARPED]
    if not good:
        return [], []
    warps = [warped(geometry, *pair) for pair in good]
    flats = [warped(geometry, *pair, flat=True) for pair in good]
    pictures = warp_pictures(warps[0], f"{good[0][1]} warped into {good[0][0]}")
    ratio, flat = (float(np.median([one.ratio for one in some])) for some in (warps, flats))
    if ratio < BETTER and (ratio < THAN_FLAT * flat or not shows_depth(geometry, good)):
        return [], pictures
    what = (
        f"warped by K, {source} and the best motion, neighbours stay unlike: the error is "
        f"{ratio:.2f} of that without warping, and {flat:.2f} in a world that is flat"
    )
    return [Finding("fault", "warp test", what, check, where)], pictures


def shows_depth(geometry: Geometry, pairs: list[tuple[Frame, Frame, Pose]]) -> bool:
    """Whether points near and far move differently in most of the pairs."""
    parallaxes, spreads = [], []
    for first, second, pose in pairs:
        scale = WIDTH / geometry.reader.grey(first).shape[1]
        parallaxes.append(scale * track(geometry.reader, first, second)[1].parallax_px)
        near, far = np.percentile(pose.depth[pose.depth > 0], (10, 90))
        spreads.append(far / near)
    return bool(np.median(parallaxes) > PARALLAX_PX and np.median(spreads) > SPREAD)


def warped(
    geometry: Geometry, first: Frame, second: Frame, pose: Pose, flat: bool = False
) -> Warped:
    """The second frame warped into the first, as if all were equally far if `flat`."""
    reader, depth = geometry.reader, geometry.depth(first)
    K = reader.camera(first)
    if flat:
        known = depth > 0
        depth = np.where(known, np.median(depth[known]), 0).astype(np.float32)
        pose = pose_of(geometry.tracked(first, second), depth, K)
    return warp_test(reader.grey(first), reader.grey(second), depth, K, pose.T)
