"""K against the geometry: the camera that explains best how points with depth move.

A camera that moves straight on does not tell: any K does then, for a sheared or stretched space.
A turn tells, if its points are exact: they are tracked again in the neighbour warped by depth and
motion, as plain tracking is off where near and far lie in one window.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import least_squares
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation

from .depth_checks import Geometry
from .frames import whole_and_flat
from .report import Finding

CHECK = "K against geometry"
FLAT_WINDOW, FLAT = 7, 1.15  # pixels of a point's window, and its farthest depth over its nearest
WINDOW = 15  # of tracking, pixels
REVISIT_PX = 0.3
FARTHEST_PX = 3.0  # of a point from where depth and motion put it
FEWEST_POINTS, FEWEST_PAIRS = 15, 6  # of a pair; of all
MOST_PAIRS = 24  # those that turn most
GROUPS = 4  # of pairs, of which each is left out once to see how sure the answer is
ITERATIONS = 50  # at most, of the fit
OUTLIER_PX = 0.5  # errors from which on they weigh less
FARTHEST = 2.0  # deviation: of the focal length's logarithm, and of the middle in widths
STEP = 1e-6  # of numerical derivatives
FOCAL_OFF, MIDDLE_OFF = 0.08, 0.05  # errors that matter: of the focal length, and of the width
SURE = 5.0  # standard errors that a deviation must have
TELLS = 0.5  # of the errors that matter: standard errors above this tell nothing


class Observations(NamedTuple):
    """Points [N] of several pairs: pixel in the first frame, depth, pixel in the second."""

    before: Float[ndarray, "N 2"]
    depth: Float[ndarray, " N"]
    after: Float[ndarray, "N 2"]
    pair: Int[ndarray, " N"]
    motions: Float[ndarray, "P 6"]  # rotation vectors and translations to begin with

    def of(self, pairs: list[int]) -> "Observations":
        """Those of some pairs alone."""
        some = np.isin(self.pair, pairs)
        return Observations(
            self.before[some],
            self.depth[some],
            self.after[some],
            np.searchsorted(pairs, self.pair[some]),
            self.motions[pairs],
        )


class Fit(NamedTuple):
    """Deviations from the K that was given, each with its standard error: of the focal length
    (relative), and of cx and cy in units of the width."""

    deviation: Float[ndarray, " 3"]
    error: Float[ndarray, " 3"]


def check_fit(geometry: Geometry) -> list[Finding]:
    """Whether K is the one that explains the motion of points with depth."""
    fit = fit_K(geometry)
    if fit is None:
        what = "too few points with exact depth and motion to check K against them"
        return [Finding("notice", CHECK, f"{what}: only its plausibility was")]
    names = ("focal length", "cx", "cy")
    limits = np.array([FOCAL_OFF, MIDDLE_OFF, MIDDLE_OFF])
    sure = np.abs(fit.deviation) > np.maximum(limits, SURE * fit.error)
    tells = fit.error < TELLS * limits
    wrong = [i for i in range(3) if sure[i] and tells[i]]
    K = geometry.reader.known_camera(geometry.pairs[0][0]).K
    width = geometry.reader.known_camera(geometry.pairs[0][0]).size[0]
    if wrong:
        said = []
        for i in wrong:
            value = (K[0, 0], K[0, 2], K[1, 2])[i]
            better = value * (1 + fit.deviation[i]) if i == 0 else value + width * fit.deviation[i]
            spread = fit.error[i] * (value if i == 0 else width)
            said.append(f"{names[i]} {value:.0f} should be about {better:.0f} +- {spread:.0f}")
        return [
            Finding(
                "fault",
                CHECK,
                f"points with depth move as for another camera: {', '.join(said)}",
                "correct K (scaled or mirrored?), or depth that is of another view",
            )
        ]
    near = np.abs(fit.deviation) + 2 * fit.error
    seen = [f"{name} within {n:.0%}" for name, n in zip(names, near, strict=True)]
    seen = [text for text, good in zip(seen, near <= limits, strict=True) if good]
    if not seen:
        what = "the camera turns too little for K to be checked against depth"
        return [Finding("notice", CHECK, f"{what}: only its plausibility was")]
    what = f"K agrees with how points with depth move: {', '.join(seen)}"
    return [Finding("notice", CHECK, what)]


def fit_K(geometry: Geometry) -> Fit | None:
    """The best K, or None where there are too few exact points."""
    observed = observe(geometry)
    if observed is None:
        return None
    reader, first = geometry.reader, geometry.pairs[0][0]
    K, width = reader.camera(first), reader.grey(first).shape[1]
    best, error = solve(observed, K, width, geometry.by_stereo)
    count = len(observed.motions)
    groups = [list(range(i, count, GROUPS)) for i in range(min(GROUPS, count))]
    without = []
    for group in groups:
        rest = [i for i in range(count) if i not in group]
        without.append(solve(observed.of(rest), K, width, geometry.by_stereo)[0])
    spread = np.array(without) - np.mean(without, axis=0)
    jackknife = np.sqrt((len(groups) - 1) / len(groups) * (spread**2).sum(0))
    return Fit(best, np.maximum(error, jackknife))


def observe(geometry: Geometry) -> Observations | None:
    """Exact points of the pairs that turn most."""
    reader = geometry.reader

    def turn(T: Float[ndarray, "4 4"]) -> float:
        return Rotation.from_matrix(T[:3, :3]).magnitude()

    pairs = sorted(geometry.pairs, key=lambda pair: -turn(pair[2].T))[:MOST_PAIRS]
    parts, motions = [], []
    for first, second, pose in pairs:
        depth, K = geometry.depth(first), reader.camera(first)
        before = geometry.tracked(first, second).before[pose.agree]
        u, v = np.round(before).astype(int).T
        before = before[whole_and_flat(depth, FLAT_WINDOW, FLAT)[v, u]]
        if len(before) < FEWEST_POINTS:
            continue
        part = tracked_exactly(reader.grey(first), reader.grey(second), before, depth, K, pose.T)
        if len(part[0]) >= FEWEST_POINTS:
            parts.append(part)
            vector = Rotation.from_matrix(pose.T[:3, :3]).as_rotvec()
            motions.append(np.concatenate([vector, pose.T[:3, 3]]))
    if len(parts) < FEWEST_PAIRS:
        return None
    pair = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    before, depth, after = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Observations(before, depth, after, pair, np.array(motions))


def tracked_exactly(
    image: ndarray, other: ndarray, before: ndarray, depth: ndarray, K: ndarray, T: ndarray
) -> tuple[ndarray, ndarray, ndarray]:
    """Points, their depth, and where they are in the other image."""
    height, width = image.shape
    v, u = np.mgrid[:height, :width].astype(np.float64)
    rays = np.stack([u, v, np.ones_like(u)], 2) @ np.linalg.inv(K).T
    points = (rays * depth[..., None]) @ T[:3, :3].T + T[:3, 3]
    pixels = points @ K.T
    place = (pixels[..., :2] / np.maximum(pixels[..., 2:], 1e-6)).astype(np.float32)
    warped = cv2.remap(other, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    how = {
        "winSize": (WINDOW, WINDOW),
        "maxLevel": 1,
        "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 0.003),
    }
    start = before.astype(np.float32)[:, None]
    found, seen, _ = cv2.calcOpticalFlowPyrLK(image, warped, start, None, **how)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(warped, image, found, None, **how)
    shift = (found - start)[:, 0]
    good = (seen & seen_back).ravel().astype(bool)
    good &= np.linalg.norm(back - start, axis=2)[:, 0] < REVISIT_PX
    good &= np.linalg.norm(shift, axis=1) < FARTHEST_PX
    u, v = np.round(before[good]).astype(int).T
    x, y = np.clip(u, 1, width - 2), np.clip(v, 1, height - 2)
    along = (place[y, x + 1] - place[y, x - 1]) / 2  # how the place changes with the pixel
    down = (place[y + 1, x] - place[y - 1, x]) / 2
    after = place[v, u] + shift[good, :1] * along + shift[good, 1:] * down
    return before[good].astype(np.float64), depth[v, u].astype(np.float64), after.astype(np.float64)


def solve(
    observed: Observations, K: Float[ndarray, "3 3"], width: int, by_stereo: bool
) -> tuple[Float[ndarray, " 3"], Float[ndarray, " 3"]]:
    """Deviations of K and their standard errors, by least squares over K and all motions."""
    count = len(observed.motions)
    unit_m = np.median(observed.depth)

    def residuals(x: ndarray) -> ndarray:
        focal = np.array([K[0, 0], K[1, 1]]) * np.exp(x[0])
        middle = K[:2, 2] + width * x[1:3]
        depth = observed.depth / unit_m
        if by_stereo:
            depth = depth * np.exp(x[0])  # it is made with the focal length
        points = np.column_stack([(observed.before - middle) / focal, np.ones(len(depth))])
        motion = x[3:].reshape(count, 6)[observed.pair]
        moved = Rotation.from_rotvec(motion[:, :3]).apply(points * depth[:, None]) + motion[:, 3:]
        return (moved[:, :2] / moved[:, 2:] * focal + middle - observed.after).ravel()

    def slopes(x: ndarray) -> csr_array:
        base = residuals(x)
        slope = np.zeros((len(base), len(x)))
        row = np.arange(len(base))
        for i in range(3):
            slope[:, i] = (residuals(x + STEP * (np.arange(len(x)) == i)) - base) / STEP
        for i in range(6):  # of all pairs at once: each has a motion of its own
            one = np.zeros(len(x))
            one[3 + i :: 6] = STEP
            column = 3 + i + 6 * np.repeat(observed.pair, 2)
            slope[row, column] = (residuals(x + one) - base) / STEP
        return csr_array(slope)

    motions = observed.motions / np.array([1, 1, 1, unit_m, unit_m, unit_m])
    begin = np.concatenate([np.zeros(3), motions.ravel()])
    bound = np.where(np.arange(len(begin)) < 3, FARTHEST, np.inf)  # where nothing tells K
    fit = least_squares(
        residuals,
        begin,
        slopes,  # sparse, which makes this ten times as fast
        bounds=(-bound, bound),
        loss="soft_l1",
        f_scale=OUTLIER_PX,
        x_scale="jac",
        max_nfev=ITERATIONS,
    )
    x, error = fit.x, residuals(fit.x)
    noise = 1.4826 * np.median(np.abs(error))
    slope = slopes(x)
    variance = np.diag(np.linalg.pinv((slope.T @ slope).toarray())) * noise**2
    return np.append(np.expm1(x[0]), x[1:3]), np.sqrt(np.maximum(variance[:3], 0))
