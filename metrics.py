"""How predicted depth is scored against ground truth (camera motion: trajectory.py).

Everything is NumPy: one implementation serves evaluation, and validation inside training.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

Crop = Callable[[int, int], tuple[slice, slice]]
Scaling = Literal["per_image_median", "global_median", "none"]
SCALINGS: dict[Scaling, str] = {
    "per_image_median": "per-image median scaling",
    "global_median": "one factor for all images",
    "none": "no median scaling",
}


class DepthErrors(NamedTuple):
    """The seven standard metrics; sq_rel and rmse are in metres."""

    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    a1: float
    a2: float
    a3: float


# The seven metrics and the mean absolute difference of log10, as NYUv2's tables have it.
IndoorErrors = NamedTuple(
    "IndoorErrors", [*((name, float) for name in DepthErrors._fields), ("log10", float)]
)


class ServerErrors(NamedTuple):
    """The metrics of KITTI's depth-prediction server (Uhrig et al. 2017), in its units."""

    silog: float  # 100 log(m)
    sq_error_rel: float  # percent
    abs_error_rel: float  # percent
    irmse: float  # 1/km


def full_frame(height: int, width: int) -> tuple[slice, slice]:
    """No crop."""
    return slice(0, height), slice(0, width)


def garg_crop(height: int, width: int) -> tuple[slice, slice]:
    """The crop of Garg et al. 2016, which all recent KITTI Eigen results use."""
    return (
        slice(int(0.40810811 * height), int(0.99189189 * height)),
        slice(int(0.03594771 * width), int(0.96405229 * width)),
    )


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A benchmark's rules.

    gt_range_m:   ground truth strictly within this range counts.
    pred_range_m: predictions are clipped to it, after scaling.
    crop:         (height, width) -> rows and columns that count, of the ground truth.
    input_crop:   rows and columns of the image that the network sees; nothing else is scored.
    scaling:      `per_image_median` multiplies by median(gt) / median(prediction) of each image,
                  `global_median` by the median of these ratios, the same for all images.
    stereo_scale: metres per unit of a network trained on stereo; None where there is none.
    log10:        add this metric to the seven.
    server_metrics: also score as KITTI's depth-prediction server does.
    """

    name: str
    gt_range_m: tuple[float, float]
    pred_range_m: tuple[float, float]
    crop: Crop = full_frame
    scaling: Scaling = "per_image_median"
    stereo_scale: float | None = None
    server_metrics: bool = False
    input_crop: Crop | None = None
    log10: bool = False

    def seen(self, gt: Float[ndarray, "H W"]) -> Float[ndarray, "h w"]:
        """The part of a ground-truth map that the network sees."""
        return gt if self.input_crop is None else gt[self.input_crop(*gt.shape)]

    def mask(self, gt: Float[ndarray, "H W"]) -> Bool[ndarray, "H W"]:
        """The pixels that count of a ground-truth map, as far as the network sees it."""
        mask = np.zeros(gt.shape, bool)
        mask[self.crop(*gt.shape)] = True
        return mask & (gt > self.gt_range_m[0]) & (gt < self.gt_range_m[1])

    def describe(self) -> str:
        """One line for people."""
        cut = f"images cut to {_words(self.input_crop)}, " if self.input_crop else ""
        return (
            f"{self.name}: {cut}ground truth {self.gt_range_m[0]:g}-{self.gt_range_m[1]:g} m, "
            f"{_words(self.crop)}, {SCALINGS[self.scaling]}, predictions "
            f"clipped to {self.pred_range_m[0]:g}-{self.pred_range_m[1]:g} m"
        )


def _words(crop: Crop) -> str:
    return crop.__name__.replace("_", " ")


class DepthScore(NamedTuple):
    """Errors of one image, and the median ratio gt / prediction before any scaling of it."""

    errors: DepthErrors | IndoorErrors
    ratio: float
    server: ServerErrors | None = None


def depth_errors(gt: Float[ndarray, "*N"], pred: Float[ndarray, "*N"]) -> DepthErrors:
    """The seven metrics of positive depths in metres, over all elements (paper sec. 4.1)."""
    worse = np.maximum(gt / pred, pred / gt)
    difference = gt - pred
    log_difference = np.log(gt) - np.log(pred)
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(difference) / gt)),
        sq_rel=float(np.mean(difference**2 / gt)),
        rmse=float(np.sqrt(np.mean(difference**2))),
        rmse_log=float(np.sqrt(np.mean(log_difference**2))),
        a1=float(np.mean(worse < 1.25)),
        a2=float(np.mean(worse < 1.25**2)),
        a3=float(np.mean(worse < 1.25**3)),
    )


def log10_error(gt: Float[ndarray, "*N"], pred: Float[ndarray, "*N"]) -> float:
    """Mean |log10 gt - log10 pred| of positive depths."""
    return float(np.mean(np.abs(np.log10(gt) - np.log10(pred))))


def server_errors(gt: Float[ndarray, "*N"], pred: Float[ndarray, "*N"]) -> ServerErrors:
    """KITTI's server metrics of positive depths in metres, over all elements.

    SILog is the root of the variance of the log difference (Eigen et al. 2014), and both relative
    errors divide by the true depth, the squared one by its square.
    """
    gt, pred = gt.astype(np.float64), pred.astype(np.float64)
    return ServerErrors(
        silog=float(100 * np.std(np.log(pred) - np.log(gt))),
        sq_error_rel=float(100 * np.mean(((pred - gt) / gt) ** 2)),
        abs_error_rel=float(100 * np.mean(np.abs(pred - gt) / gt)),
        irmse=float(1000 * np.sqrt(np.mean((1 / pred - 1 / gt) ** 2))),
    )


def resized_depth(disp: Float[ndarray, "h w"], size: tuple[int, int]) -> Float[ndarray, "H W"]:
    """Depth of a scaled disparity at (height, width); the disparity is resized, bilinearly."""
    with np.errstate(divide="ignore"):  # infinitely far, until the range is clipped
        return 1 / cv2.resize(disp, (size[1], size[0]))


def score_depth(
    disp: Float[ndarray, "h w"],
    gt: Float[ndarray, "H W"],
    protocol: Protocol,
    depth_scale: float = 1.0,
) -> DepthScore | None:
    """Score a scaled disparity (1 / depth) of any size against a map in metres, 0 = missing.

    The disparity is that of what the network saw: of the map's part `protocol.seen`.
    Predicted depth times `depth_scale` is scaled by the image's median where the protocol says so,
    then clipped. None if no pixel counts.
    """
    counted = _counted(disp, gt, protocol, depth_scale)
    if counted is None:
        return None
    gt, pred, ratio, _ = counted
    errors = depth_errors(gt, pred)
    if protocol.log10:
        errors = IndoorErrors(*errors, log10_error(gt, pred))
    server = server_errors(gt, pred) if protocol.server_metrics else None
    return DepthScore(errors, ratio, server)


class _Counted(NamedTuple):
    """True and predicted depth of the pixels that count, the latter scaled and clipped."""

    gt: Float[ndarray, " N"]
    pred: Float[ndarray, " N"]
    ratio: float
    mask: Bool[ndarray, "H W"]


def _counted(
    disp: Float[ndarray, "h w"], gt: Float[ndarray, "H W"], protocol: Protocol, depth_scale: float
) -> _Counted | None:
    gt = protocol.seen(gt)
    mask = protocol.mask(gt)
    if not mask.any():
        return None
    pred = depth_scale * resized_depth(disp, gt.shape)[mask]
    gt = gt[mask]
    ratio = float(np.median(gt) / np.median(pred))
    if protocol.scaling == "per_image_median":
        with np.errstate(invalid="ignore"):  # a disparity of 0 all over: NaN, and a ratio of 0
            pred = pred * ratio
    return _Counted(gt, np.clip(pred, *protocol.pred_range_m), ratio, mask)


class RankingScore(NamedTuple):
    """How well an uncertainty ranks the errors of an image's pixels (Ilg et al. 2018).

    Attributes:
        ause: area between the sparsification curve and that of the perfect ranking; 0 is perfect.
        aurg: area between it and that of no ranking at all; above 0 is better than chance.
    """

    ause: float
    aurg: float


def sparsification(
    errors: Float[ndarray, " N"], by: Float[ndarray, " N"], steps: int = 50
) -> Float[ndarray, " {steps}"]:
    """Mean error of what is left after the share k / steps with the largest `by` is taken out."""
    kept_first = errors[np.argsort(by, kind="stable")]
    means = np.cumsum(kept_first, dtype=np.float64) / np.arange(1, len(errors) + 1)
    left = np.ceil(len(errors) * (1 - np.arange(steps) / steps)).astype(int)
    return means[np.maximum(left, 1) - 1]


def score_ranking(
    disp: Float[ndarray, "h w"],
    uncertainty: Float[ndarray, "h w"],
    gt: Float[ndarray, "H W"],
    protocol: Protocol,
    depth_scale: float = 1.0,
) -> RankingScore | None:
    """How well an uncertainty ranks the relative errors |gt - pred| / gt; as `score_depth`."""
    counted = _counted(disp, gt, protocol, depth_scale)
    if counted is None:
        return None
    errors = np.abs(counted.gt - counted.pred) / counted.gt
    resized = cv2.resize(uncertainty, counted.mask.shape[::-1])[counted.mask]
    curve, best = sparsification(errors, resized), sparsification(errors, errors)
    return RankingScore(float(np.mean(curve - best)), float(np.mean(errors.mean() - curve)))


class DepthSummary(NamedTuple):
    """Mean errors over images, and the median and relative spread of their scale ratios."""

    errors: DepthErrors | IndoorErrors
    ratio: float
    ratio_spread: float
    images: int
    server: ServerErrors | None = None


def summarise(scores: list[DepthScore]) -> DepthSummary:
    """Mean over images of each metric; spread is std(ratio / median ratio)."""
    mean = np.mean([score.errors for score in scores], axis=0)
    ratios = np.array([score.ratio for score in scores])
    middle = float(np.median(ratios))
    spread = float(np.std(ratios / middle))
    server = None
    if scores[0].server is not None:
        server = ServerErrors(*map(float, np.mean([score.server for score in scores], axis=0)))
    errors = type(scores[0].errors)(*map(float, mean))
    return DepthSummary(errors, middle, spread, len(scores), server)


def flip_disagreement(
    disp: Float[ndarray, "B H W"], disp_of_flipped: Float[ndarray, "B H W"]
) -> Float[ndarray, "B H W"]:
    """Uncertainty: the difference to the mirrored image's disparity, mirrored back, as a share of
    their mean (Poggi et al. 2020, "post")."""
    return 2 * np.abs(disp - disp_of_flipped) / (disp + disp_of_flipped)


def flip_post_process(
    disp: Float[ndarray, "B H W"], disp_of_flipped: Float[ndarray, "B H W"]
) -> Float[ndarray, "B H W"]:
    """Blend a disparity with that of the mirrored image, mirrored back (Godard et al. 2017, v1).

    The mean of both, but near the left and right 5 % the one that does not see past that border.
    """
    ramp = np.linspace(0, 1, disp.shape[-1], dtype=np.float64)
    left = 1 - np.clip(20 * (ramp - 0.05), 0, 1)
    right = left[::-1]
    mean = 0.5 * (disp + disp_of_flipped)
    return (right * disp + left * disp_of_flipped + (1 - left - right) * mean).astype(disp.dtype)
