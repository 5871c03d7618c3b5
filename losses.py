"""The paper's training objective (sec. 3.1 and 3.2) and the ablations of its tables 2 and 3."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from layers import EPS, backproject, disp_to_depth, project, warp

SSIM_WEIGHT = 0.85  # alpha of the photometric error
C1, C2 = 0.01**2, 0.03**2
TIE_BREAK = 1e-5
MASK_WEIGHT = 0.2


def box_mean(x: Float[Tensor, "*B H W"]) -> Float[Tensor, "*B H W"]:
    """3x3 mean under reflection padding, summed row by row: to the digit what pooling makes."""
    H, W = x.shape[-2:]
    padded = F.pad(x.flatten(0, -3), (1, 1, 1, 1), mode="reflect")
    windows = [padded[:, i : i + H, j : j + W] for i in range(3) for j in range(3)]
    sums = windows[0] + windows[1]
    for window in windows[2:]:
        sums += window
    return sums.div_(9).view_as(x)


def box_mean_adjoint(g: Float[Tensor, "*B H W"]) -> Float[Tensor, "*B H W"]:
    """What `box_mean` makes of gradients on their way back: <box_mean(x), g> = <x, adjoint(g)>."""
    sums = box_sum(F.pad(g.flatten(0, -3), (2, 2, 2, 2))).mul_(1 / 9)  # one more on each side,
    sums[:, 2] += sums[:, 0]  # which goes to the pixels that it mirrors
    sums[:, -3] += sums[:, -1]
    sums[:, :, 2] += sums[:, :, 0]
    sums[:, :, -3] += sums[:, :, -1]
    return sums[:, 1:-1, 1:-1].reshape(g.shape)


def box_sum(x: Float[Tensor, "B H W"]) -> Float[Tensor, "B H-2 W-2"]:
    """3x3 sums, first down, then across: adding shifted images is faster than pooling."""
    rows = x[:, :-2] + x[:, 1:-1]
    rows += x[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1]
    sums += rows[:, :, 2:]
    return sums


class Target(NamedTuple):
    """An image with the local moments of SSIM, so that comparing many images with it is cheap."""

    image: Tensor
    mean: Tensor
    var: Tensor

    @classmethod
    def of(cls, image: Float[Tensor, "*B C H W"]) -> "Target":
        mean = box_mean(image)
        return cls(image, mean, box_mean(image * image) - mean * mean)


def ssim_distance(x: Float[Tensor, "*B C H W"], y: Target | Tensor) -> Float[Tensor, "*B C H W"]:
    """(1 - SSIM(x, y)) / 2 per pixel and channel, clamped to [0, 1]; 3x3 box windows.

    The target gets no gradient.
    """
    y = y if isinstance(y, Target) else Target.of(y)
    return _SSIMDistance.apply(x, y.image.detach(), y.mean.detach(), y.var.detach())


class _SSIMDistance(torch.autograd.Function):
    """`ssim_distance` with its derivative written out: a third of the time and memory of autograd.

    With local means m, n of x and y, variances v, w and covariance c of the 3x3 windows,

        SSIM = A1 A2 / (B1 B2),  A1 = 2 m n + C1,  A2 = 2 c + C2,
                                 B1 = m^2 + n^2 + C1,  B2 = v + w + C2,

    and v = mean(x^2) - m^2, c = mean(x y) - m n, so SSIM depends on x by the three maps m,
    mean(x^2) and mean(x y). Its slopes in them are kept for the way back. Sums are built in place,
    as new memory costs more than arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, n: Tensor, w: Tensor) -> Tensor:
        m = box_mean(x)
        mn, mm = m * n, m * m
        A2 = (box_mean(x * y) - mn).mul_(2).add_(C2)
        A1 = mn.mul_(2).add_(C1)
        B2 = (box_mean(x * x) - mm).add_(w).add_(C2)
        B1 = mm.add_(n * n).add_(C1)
        inverse = (B1 * B2).reciprocal_()
        ssim = (A1 * A2).mul_(inverse)
        distance = (1 - ssim).mul_(0.5).clamp_(0, 1)
        if ctx.needs_input_grad[0]:  # the slopes of the distance, which are -1/2 of SSIM's
            in_xy = A1.mul(inverse).neg_()
            in_xx = (ssim / B2).mul_(0.5)
            in_m = A2.sub_(A1).mul_(inverse).mul_(n).neg_()
            in_m -= B2.reciprocal_().sub_(B1.reciprocal_()).mul_(ssim).mul_(m)
            ctx.save_for_backward(x, y, in_m, in_xx, in_xy, distance)
        return distance

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y, in_m, in_xx, in_xy, distance = ctx.saved_tensors
        g = g * ((distance > 0) & (distance < 1))  # no slope where clamped
        in_x = box_mean_adjoint(g * in_m)
        in_x += box_mean_adjoint(g * in_xx).mul_(x).mul_(2)
        in_x += box_mean_adjoint(g * in_xy).mul_(y)
        return in_x, None, None, None


def photometric_error(
    x: Float[Tensor, "*B C H W"], target: Target | Tensor, use_ssim: bool = True
) -> Float[Tensor, "*B H W"]:
    """The paper's pe (sec. 3.1): 0.85 SSIM distance + 0.15 L1, averaged over colours."""
    target = target if isinstance(target, Target) else Target.of(target)
    l1 = (x - target.image).abs().mean(-3)
    if not use_ssim:
        return l1
    return SSIM_WEIGHT * ssim_distance(x, target).mean(-3) + (1 - SSIM_WEIGHT) * l1


def edge_aware_smoothness(
    disp: Float[Tensor, "B 1 H W"],
    image: Float[Tensor, "B C H W"],
    valid: Bool[Tensor, "B 1 H W"] | None = None,
) -> Float[Tensor, ""]:
    """Disparity gradients, damped by exp(-|image gradient|) (paper eq. 3), averaged.

    With `valid`, only those between two valid pixels count.
    """

    def one_axis(dim: int) -> Tensor:
        damping = (-image.diff(dim=dim).abs().mean(1, True)).exp()
        both = None
        if valid is not None:
            length = valid.shape[dim] - 1
            both = valid.narrow(dim, 0, length) & valid.narrow(dim, 1, length)
        return mean_where(disp.diff(dim=dim).abs() * damping, both)

    return one_axis(-1) + one_axis(-2)


def mean_where(x: Tensor, where: Tensor | None) -> Float[Tensor, ""]:
    """The mean, or that of the places named, whose shape broadcasts to x's; 0 if there are none."""
    if where is None:
        return x.mean()
    where = where.expand_as(x)
    return torch.where(where, x, 0).sum() / where.sum().clamp(min=1)


def all_of_3x3(x: Bool[Tensor, "B N H W"]) -> Bool[Tensor, "B N H W"]:
    """Whether a pixel and all its neighbours in the image are set."""
    return F.max_pool2d((~x).float(), 3, stride=1, padding=1) == 0


class Views(NamedTuple):
    """What one resolution compares: target [B 1 3 H W] and sources [B S 3 H W]."""

    target: Target
    sources: Tensor
    K: Tensor
    identity: Tensor | None  # [B S H W] ([B 1 H W] averaged), error of each source left in place
    valid: Tensor | None  # [B 1 H W], of target and sources alike


class LossTerms(NamedTuple):
    """What one evaluation of the loss yields; pictures are detached and kept for the log.

    total:     scalar, mean over scales
    per_scale: [N], photometric + weighted smoothness of each scale
    warped:    per scale [B S 3 H W], the reconstructions of the target
    automask:  per scale [B H W], 1 where a reconstruction beat the unwarped sources (mu of eq. 5);
               empty without auto-masking
    """

    total: Tensor
    per_scale: Tensor
    warped: tuple[Tensor, ...]
    automask: tuple[Tensor, ...]


class SelfSupervisedLoss(nn.Module):
    """Per-pixel minimum reprojection with auto-masking at full resolution (paper sec. 3.2).

    Args:
        scales: pyramid levels of the disparities, ascending; level s has size H/2^s x W/2^s.
        min_depth, max_depth: range of depth that a disparity in [0, 1] spans.
        disparity_smoothness: lambda of the final loss; level s weighs lambda / 2^s.
        use_ssim: off leaves L1 alone (`--no_ssim`).
        v1_multiscale: compare at each level's own resolution instead of at full size.
        avg_reprojection: average over sources instead of taking the minimum (eq. 1).
        automasking: the unwarped sources join the minimum: static pixels drop out (eq. 5).
        scale_translation: multiply temporal translations by the mean inverse depth (PoseCNN).
        stereo: the last source is the stereo partner, whose known translation is never scaled.
    """

    def __init__(
        self,
        scales: tuple[int, ...] = (0, 1, 2, 3),
        min_depth: float = 0.1,
        max_depth: float = 100.0,
        disparity_smoothness: float = 1e-3,
        use_ssim: bool = True,
        v1_multiscale: bool = False,
        avg_reprojection: bool = False,
        automasking: bool = True,
        scale_translation: bool = False,
        stereo: bool = False,
    ):
        super().__init__()
        self.scales = tuple(scales)
        self.min_depth, self.max_depth = min_depth, max_depth
        self.disparity_smoothness = disparity_smoothness
        self.use_ssim = use_ssim
        self.v1_multiscale = v1_multiscale
        self.avg_reprojection = avg_reprojection
        self.automasking = automasking
        self.scale_translation = scale_translation
        self.stereo = stereo

    def forward(
        self,
        disps: tuple[Tensor, ...],
        T: Float[Tensor, "B S 4 4"],
        masks: tuple[Tensor, ...],
        color: Float[Tensor, "B F 3 H W"],
        K: Float[Tensor, "B 3 3"],
        valid: Bool[Tensor, "B H W"] | None = None,
    ) -> LossTerms:
        """Loss of disparities [B 1 H/2^s W/2^s] and transforms on un-augmented frames in [0, 1].

        `masks` are the predictive-mask baseline's [B S H/2^s W/2^s], or empty.
        `K` is in pixels at HxW. Where not `valid`, all frames show the own vehicle: these pixels
        have no part in the loss, neither as target nor as what a source is sampled at.
        """
        if valid is not None:  # sampling mixes pixels: those that do not count are all the same
            color = torch.where(valid[:, None, None], color, 0)
        views = None
        losses, warps, automasks = [], [], []
        for level, (scale, disp) in enumerate(zip(self.scales, disps, strict=True)):
            if views is None or self.v1_multiscale:
                views = self._views(color, K, valid, scale if self.v1_multiscale else 0)
            size = views.sources.shape[-2:]
            warped, seen = self._reconstruct(resize(disp, size), T, views)
            mask = resize(masks[level], size) if masks else None
            photometric, automask = self._photometric(warped, seen, views, mask)
            smoothness = self._smoothness(disp, shrink(color[:, 0], scale), whole(valid, scale))
            losses.append(photometric + self.disparity_smoothness / 2**scale * smoothness)
            warps.append(warped.detach())
            automasks += [] if automask is None else [automask]

        per_scale = torch.stack(losses)
        return LossTerms(per_scale.mean(), per_scale, tuple(warps), tuple(automasks))

    @staticmethod
    def _smoothness(disp: Tensor, image: Tensor, valid: Tensor | None) -> Tensor:
        """Of the disparity over its mean in each image."""
        if valid is None:
            mean = disp.mean((2, 3), True)
        else:
            count = valid.sum((2, 3), keepdim=True).clamp(min=1)
            mean = torch.where(valid, disp, 0).sum((2, 3), keepdim=True) / count
        return edge_aware_smoothness(disp / (mean + EPS), image, valid)

    def _views(self, color: Tensor, K: Tensor, valid: Tensor | None, scale: int) -> Views:
        """Frames and K at 1/2^scale of their size, with what is the same for every disparity."""
        pooled = shrink(color.flatten(0, 1), scale).unflatten(0, color.shape[:2])
        target, sources = Target.of(pooled[:, :1]), pooled[:, 1:]
        identity = None
        if self.automasking:
            identity = photometric_error(sources, target, self.use_ssim)
            if self.avg_reprojection:
                identity = identity.mean(1, keepdim=True)
        K = K * K.new_tensor([[0.5**scale], [0.5**scale], [1]])
        return Views(target, sources, K, identity, whole(valid, scale))

    def _reconstruct(self, disp: Tensor, T: Tensor, views: Views) -> tuple[Tensor, Tensor | None]:
        """Every source warped into the target view (eq. 2), [B S 3 H W], and where valid pixels of
        the source make it up, [B S H W]."""
        B, S, _, H, W = views.sources.shape
        scaled_disp, depth = disp_to_depth(disp, self.min_depth, self.max_depth)
        if self.scale_translation:
            T = T.clone()
            T[:, : S - self.stereo, :3, 3] *= scaled_disp.mean((2, 3))[..., None]
        points = backproject(depth, torch.linalg.inv(views.K)).repeat_interleave(S, 0)
        grid = project(points, views.K.repeat_interleave(S, 0), T.flatten(0, 1), H, W)
        warped = warp(views.sources.flatten(0, 1), grid).unflatten(0, (B, S))
        if views.valid is None:
            return warped, None
        share = warp(views.valid.float().repeat_interleave(S, 0), grid.detach())
        return warped, share.unflatten(0, (B, S))[:, :, 0] > 0.999

    def _photometric(
        self, warped: Tensor, seen: Tensor | None, views: Views, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Mean over pixels of the minimum over candidates (eq. 4 and 5), and the auto-mask."""
        error = photometric_error(warped, views.target, self.use_ssim)
        penalty = 0.0
        if mask is not None:
            error = error * mask
            penalty = F.binary_cross_entropy(mask, torch.ones_like(mask), reduction="none")
            penalty = MASK_WEIGHT * mean_where(penalty, views.valid)
        counted = None
        if seen is not None:  # SSIM looks at the neighbours, too
            counted = all_of_3x3(views.valid)[:, 0]
            error = error.masked_fill(~all_of_3x3(seen), torch.inf)
        if self.avg_reprojection:
            error = error.mean(1, keepdim=True)
        error = error.amin(1)
        if views.identity is None:
            counted = None if counted is None else counted & error.isfinite()
            return mean_where(error, counted) + penalty, None
        still = (views.identity + TIE_BREAK * torch.randn_like(views.identity)).amin(1)
        automask = (error < still).detach()
        automask = automask if counted is None else automask & counted
        return mean_where(torch.minimum(error, still), counted) + penalty, automask


def shrink(x: Float[Tensor, "B C H W"], scale: int) -> Float[Tensor, "B C h w"]:
    """Means of blocks of 2^scale pixels a side."""
    return F.avg_pool2d(x, 2**scale) if scale else x


def whole(valid: Bool[Tensor, "B H W"] | None, scale: int) -> Bool[Tensor, "B 1 h w"] | None:
    """Where all pixels of a block of 2^scale a side are valid."""
    return None if valid is None else shrink(valid[:, None].float(), scale) == 1


def resize(x: Float[Tensor, "B C h w"], size: tuple[int, ...]) -> Float[Tensor, "B C H W"]:
    """Bilinear resize of disparities and masks to (H, W), half-pixel centres."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
