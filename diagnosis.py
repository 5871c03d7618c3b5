"""Signs that a training goes wrong in one of the known ways, looked for after each epoch."""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from layers import disp_to_depth
from losses import LossTerms
from networks import Prediction

LEAST_CONTRAST = 0.02  # of disparity; a plane that fills the view has 0.2 and more
LEAST_MOVED = 0.02  # share of pixels; on KITTI's training frames most move
HOLE = 10.0  # times the median depth of the image's lower part: farther than any ground there
MOST_HOLES = 0.01  # share of the lower part
LEAST_SHIFT = 3e-4  # of the median depth: some hundredths of a pixel
MOST_SHIFT = 1.0  # the camera would be where it looks
MOST_TURN = 0.5  # radians from one frame to the next
PAGE = "docs/troubleshooting.md"


class Signs(NamedTuple):
    """What one validation sample shows; NaN where there is nothing to see.

    Attributes:
        contrast: standard deviation of the disparity over its mean.
        moved: share of pixels that some warped source explains better than the unwarped ones.
        holes: share of the image's lower third that is `HOLE` times as far as that third's median.
        shift: the largest predicted translation over the median depth.
        turn: the largest predicted rotation in radians.
    """

    contrast: float
    moved: float
    holes: float
    shift: float
    turn: float


def signs_of(
    prediction: Prediction,
    terms: LossTerms,
    min_depth: float,
    max_depth: float,
    stereo: bool,
    scale_translation: bool = False,
    valid: Bool[Tensor, "B H W"] | None = None,
) -> list[Signs]:
    """The signs of each sample of a batch.

    Args:
        stereo: the last transform is the rig's and predicted by nobody.
        scale_translation: as of the loss: translations are in units of the mean inverse depth.
        valid: where frames show the world and not the own vehicle; None where all counts.
    """
    disp, depth = disp_to_depth(prediction.disps[0][:, 0].float(), min_depth, max_depth)
    inverse = disp.flatten(1).mean(1) if scale_translation else torch.ones_like(disp[:, 0, 0])
    if valid is not None:
        disp, depth = (torch.where(valid, one, math.nan) for one in (disp, depth))
    nothing = torch.full((len(disp),), math.nan, device=disp.device)
    lower = depth[:, -(depth.shape[1] // 3) :].flatten(1)
    far = lower > HOLE * lower.nanmedian(1, keepdim=True).values
    holes = torch.where(lower.isnan(), math.nan, far.float()).nanmean(1)
    moved = nothing
    if terms.automask:
        counts = terms.automask[0].reshape(disp.shape).float()
        moved = torch.where(disp.isnan(), math.nan, counts).flatten(1).nanmean(1)
    T = prediction.T[:, : prediction.T.shape[1] - stereo].float()
    shift = turn = nothing
    if T.shape[1]:
        way = T[..., :3, 3].norm(dim=-1).amax(1) * inverse
        shift = way / depth.flatten(1).nanmedian(1).values
        turn = rotation_angle(T[..., :3, :3]).amax(1)
    mean = disp.flatten(1).nanmean(1, keepdim=True)
    contrast = (disp.flatten(1) - mean).square().nanmean(1).sqrt() / mean[:, 0]
    columns = torch.stack([contrast, moved, holes, shift, turn], 1)
    return [Signs(*row) for row in columns.tolist()]


def rotation_angle(R: Tensor) -> Tensor:
    """Angles [*B] of rotations [*B 3 3], radians."""
    trace = R.diagonal(dim1=-2, dim2=-1).sum(-1)
    return ((trace - 1) / 2).clamp(-1, 1).acos()


def warnings_of(signs: list[Signs]) -> list[str]:
    """One line for each known failure: what, why probably, and where the way out is described.

    Judged are the medians over the samples, and the mean share of holes.
    """
    columns = np.array(signs, float).reshape(-1, len(Signs._fields)).T
    seen = [
        float(np.median(c[~np.isnan(c)])) if (~np.isnan(c)).any() else math.nan for c in columns
    ]
    contrast, moved, _, shift, turn = seen
    known = columns[2][~np.isnan(columns[2])]
    holes = float(np.mean(known)) if len(known) else math.nan
    lines = []
    if contrast < LEAST_CONTRAST:
        lines.append(
            f"depth is nearly the same everywhere (disparity varies by {contrast:.1%}): a wrong "
            "camera or order of frames, too little motion, or a learning rate too high; "
            f"{PAGE}#depth-is-the-same-everywhere"
        )
    if moved < LEAST_MOVED:
        lines.append(
            f"auto-masking leaves {moved:.1%} of the pixels: neighbours hardly differ, or their "
            f"motion is not found; {PAGE}#all-pixels-are-masked-out"
        )
    if holes > MOST_HOLES:
        lines.append(
            f"{holes:.1%} of the images' lower parts are holes, {HOLE:g} times as far as what is "
            "around them: things that move as the camera does, or ground without texture; "
            f"{PAGE}#holes-of-infinite-depth"
        )
    if shift < LEAST_SHIFT:
        lines.append(
            f"the predicted motion is next to nothing ({shift:.1e} of the median depth): frames "
            f"are too close in time, or the same; {PAGE}#the-pose-network-sees-no-motion"
        )
    if shift > MOST_SHIFT or turn > MOST_TURN:
        lines.append(
            f"the predicted motion explodes ({shift:.1f} of the median depth, "
            f"{math.degrees(turn):.0f} degrees from frame to frame): frames out of order or too "
            f"far apart, or a learning rate too high; {PAGE}#the-pose-network-explodes"
        )
    return lines
