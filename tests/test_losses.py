"""The loss against a readable reference, and the properties it is made for."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from layers import backproject, disp_to_depth, pose_matrix, project, warp
from losses import (
    C1,
    C2,
    SelfSupervisedLoss,
    Target,
    box_mean,
    edge_aware_smoothness,
    photometric_error,
    ssim_distance,
)

H, W = 32, 48


def plain_ssim_distance(x, y):
    """(1 - SSIM) / 2 of two [H W] arrays, window by window."""
    x, y = (np.pad(a.astype(np.float64), 1, mode="reflect") for a in (x, y))
    out = np.zeros((x.shape[0] - 2, x.shape[1] - 2))
    for i, j in np.ndindex(out.shape):
        a, b = x[i : i + 3, j : j + 3], y[i : i + 3, j : j + 3]
        cov = ((a - a.mean()) * (b - b.mean())).mean()
        top = (2 * a.mean() * b.mean() + 0.01**2) * (2 * cov + 0.03**2)
        low = (a.mean() ** 2 + b.mean() ** 2 + 0.01**2) * (a.var() + b.var() + 0.03**2)
        out[i, j] = (1 - top / low) / 2
    return out.clip(0, 1)


def test_ssim_is_that_of_every_window():
    x, y = torch.rand(1, 1, 12, 17), torch.rand(1, 1, 12, 17)
    expected = plain_ssim_distance(x[0, 0].numpy(), y[0, 0].numpy())
    np.testing.assert_allclose(ssim_distance(x, y)[0, 0], expected, atol=1e-5)


def test_ssim_distance_is_zero_for_equals_and_never_leaves_its_range():
    x = torch.rand(2, 3, 9, 9)
    assert ssim_distance(x, x).abs().max() < 1e-6
    checker = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(5, 5)[None, None]
    distance = ssim_distance(checker, 1 - checker)  # SSIM < 0 everywhere: the distance passes 1/2
    assert 0.9 < distance.min() and distance.max() <= 1


def test_rounding_never_takes_the_ssim_distance_below_zero():
    """Float rounding takes SSIM above 1 here and there; the clamp keeps the distance at 0."""
    x = 0.5 + 1e-4 * torch.rand(4, 3, 32, 32)
    y = x + 1e-7 * torch.randn(4, 3, 32, 32)
    assert ssim_distance(x, y).min() >= 0
    mean, var = Target.of(x).mean, Target.of(x).var
    other = Target.of(y)
    cov = box_mean(x * y) - mean * other.mean
    top = (2 * mean * other.mean + C1) * (2 * cov + C2)
    low = (mean**2 + other.mean**2 + C1) * (var + other.var + C2)
    assert (1 - top / low).min() < 0  # so the clamp has something to do


def test_photometric_error_weighs_ssim_and_l1():
    x, y = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    l1 = (x - y).abs().mean(1)
    torch.testing.assert_close(photometric_error(x, y, use_ssim=False), l1)
    both = 0.85 * ssim_distance(x, y).mean(1) + 0.15 * l1
    torch.testing.assert_close(photometric_error(x, y), both)
    torch.testing.assert_close(photometric_error(x, Target.of(y)), both)


def test_smoothness_forgives_gradients_at_edges():
    disp = torch.zeros(1, 1, 8, 8)
    disp[..., 4:] = 1
    flat, edge = torch.zeros(1, 3, 8, 8), disp.expand(1, 3, 8, 8)
    assert edge_aware_smoothness(torch.ones_like(disp), flat) == 0
    ratio = edge_aware_smoothness(disp, edge) / edge_aware_smoothness(disp, flat)
    assert ratio.item() == pytest.approx(np.exp(-1), rel=1e-5)


def sample(sources=2, seed=0):
    """Smooth random frames, disparities, motions and camera."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, sources + 1, 3, 5, 7, generator=generator)
    color = F.interpolate(coarse.flatten(0, 1), (H, W), mode="bicubic").clamp(0, 1)
    color = color.unflatten(0, (2, sources + 1))
    disps = tuple(
        0.01 + 0.1 * torch.rand(2, 1, H // 2**s, W // 2**s, generator=generator) for s in range(4)
    )
    six = 0.02 * torch.randn(2, sources, 6, generator=generator)
    K = torch.tensor([[0.6 * W, 0, 0.5 * W], [0, 1.2 * H, 0.5 * H], [0, 0, 1]]).expand(2, 3, 3)
    return disps, pose_matrix(six[..., :3], six[..., 3:]), color, K


def plain_loss(disps, T, masks, color, K, *, v1, average, automasking, stereo, scale_translation):
    """The published objective, one sample, scale and source at a time."""
    totals = []
    for s, disp in enumerate(disps):
        per_sample, smooth, bce = [], [], []
        for b in range(len(disp)):
            frames = F.avg_pool2d(color[b], 2**s) if v1 else color[b]
            h, w = frames.shape[-2:]
            big = F.interpolate(disp[b : b + 1], (h, w), mode="bilinear", align_corners=False)
            scaled, depth = disp_to_depth(big, 0.1, 100.0)
            k = K[b].clone()
            k[:2] /= 2**s if v1 else 1
            errors, still = [], []
            for i in range(T.shape[1]):
                t = T[b, i].clone()
                if scale_translation and not (stereo and i == T.shape[1] - 1):
                    t[:3, 3] *= scaled.mean()
                points = backproject(depth, torch.linalg.inv(k)[None])
                view = warp(frames[None, i + 1], project(points, k[None], t[None], h, w))
                errors.append(photometric_error(view, frames[None, 0])[0])
                if masks:
                    mask = F.interpolate(
                        masks[s][b : b + 1, i : i + 1], (h, w), mode="bilinear", align_corners=False
                    )[0, 0]
                    errors[-1] = errors[-1] * mask
                    bce.append(-mask.log().mean())
                still.append(photometric_error(frames[None, i + 1], frames[None, 0])[0])
            if average:
                errors, still = [sum(errors) / len(errors)], [sum(still) / len(still)]
            candidates = errors + (still if automasking else [])
            per_sample.append(torch.stack(candidates).min(0).values.mean())
            normal = disp[b : b + 1] / (disp[b].mean() + 1e-7)
            small = F.avg_pool2d(color[b, :1], 2**s)
            smooth.append(edge_aware_smoothness(normal, small))
        mask_loss = 0.2 * sum(bce) / len(bce) if bce else 0.0
        mean = sum(per_sample) / len(per_sample)
        totals.append(mean + mask_loss + 1e-3 / 2**s * sum(smooth) / len(smooth))
    return sum(totals) / len(totals)


CHOICES = [
    dict(
        zip(
            ("v1", "average", "automasking", "stereo", "scale_translation", "masked"),
            bits,
            strict=True,
        )
    )
    for bits in itertools.product([False, True], repeat=6)
]


@pytest.mark.parametrize("choice", [c for c in CHOICES if not (c["masked"] and c["automasking"])])
def test_loss_is_the_plain_one_for_every_choice(choice):
    choice = dict(choice)
    disps, T, color, K = sample()
    masks = ()
    if choice.pop("masked"):
        masks = tuple(0.2 + 0.7 * torch.rand(2, 2, *disp.shape[-2:]) for disp in disps)
    loss = SelfSupervisedLoss(
        v1_multiscale=choice["v1"],
        avg_reprojection=choice["average"],
        automasking=choice["automasking"],
        stereo=choice["stereo"],
        scale_translation=choice["scale_translation"],
    )
    expected = plain_loss(disps, T, masks, color, K, **choice)
    got = loss(disps, T, masks, color, K)
    assert got.total.item() == pytest.approx(expected.item(), abs=2e-6)
    assert got.per_scale.mean().item() == pytest.approx(got.total.item(), abs=1e-7)
    assert len(got.warped) == 4 and len(got.automask) == (4 if choice["automasking"] else 0)


def build(choice):
    names = {"v1": "v1_multiscale", "average": "avg_reprojection"}
    choice = {names.get(name, name): on for name, on in choice.items() if name != "masked"}
    return SelfSupervisedLoss(**choice)


def vehicle(kind):
    """A mask [2 H W] that is False where the own vehicle is in the picture."""
    valid = torch.ones(2, H, W, dtype=torch.bool)
    if kind == "bonnet":
        valid[:, -H // 4 :] = False
    elif kind == "a rounded bonnet and a sticker":
        v, u = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        valid &= (v - H) ** 2 * 4 + (u - W / 2) ** 2 > (W / 2) ** 2
        valid[1, 3:6, 10:17] = False
    return valid


@pytest.mark.parametrize("choice", [c for c in CHOICES if not (c["masked"] and c["automasking"])])
def test_the_own_vehicle_has_no_influence_on_the_loss(choice):
    """Whatever its pixels show, in target and sources, the loss is the same to the last digit; nor
    does it depend on the finest disparity there."""
    disps, T, color, K = sample()
    valid = vehicle("a rounded bonnet and a sticker")
    masks = ()
    if choice["masked"]:
        masks = tuple(0.2 + 0.7 * torch.rand(2, 2, *disp.shape[-2:]) for disp in disps)
    loss = build(choice)
    finest = disps[0].requires_grad_()
    repainted = torch.where(valid[:, None, None], color, torch.rand_like(color))
    results = []
    for frames in (color, repainted):
        torch.manual_seed(0)  # of the noise that breaks ties
        results.append(loss(disps, T, masks, frames, K, valid))
    assert (results[0].per_scale == results[1].per_scale).all()
    for one, other in zip(results[0].automask, results[1].automask, strict=True):
        assert (one == other).all() and not one[
            ~valid[:, :: H // one.shape[1], :: W // one.shape[2]]
        ].any()
    if not choice["scale_translation"]:  # which takes the mean of all disparities
        results[0].total.backward()
        assert finest.grad[~valid[:, None]].abs().max() == 0 < finest.grad.abs().max()


@pytest.mark.parametrize("choice", [c for c in CHOICES if not (c["masked"] and c["automasking"])])
def test_a_mask_that_hides_nothing_changes_nothing(choice):
    disps, T, color, K = sample()
    results = []
    for valid in (None, vehicle("none")):
        torch.manual_seed(0)
        results.append(build(choice)(disps, T, (), color, K, valid))
    torch.testing.assert_close(*(r.per_scale for r in results), atol=1e-6, rtol=1e-6)


def test_what_a_source_shows_of_its_vehicle_explains_no_pixel():
    """Without auto-masking, pixels that only the source's bonnet would explain drop out."""
    disps, T, color, K = sample()
    loss, valid = SelfSupervisedLoss(automasking=False, use_ssim=False), vehicle("bonnet")
    down = torch.eye(4).repeat(2, 2, 1, 1)
    down[..., 1, 3] = 50.0  # all is sampled far below the image's bottom, which repeats
    terms = loss(disps, down, (), color, K, valid)
    smoothness = SelfSupervisedLoss(automasking=False)._smoothness(
        disps[0], color[:, 0], valid[:, None]
    )
    assert terms.per_scale[0].item() == pytest.approx(1e-3 * smoothness.item())


def test_what_stands_still_is_masked_out_and_gives_no_gradient():
    disps, T, color, K = sample()
    T = T.requires_grad_()
    color[:, 1:] = color[:, :1]  # nothing moves, but the predicted motion says it does
    terms = SelfSupervisedLoss()(disps, T, (), color, K)
    assert all(mask.float().mean() < 0.02 for mask in terms.automask)
    terms.total.backward()
    masked = T.grad.norm()
    T.grad = None
    SelfSupervisedLoss(automasking=False)(disps, T, (), color, K).total.backward()
    assert masked < 0.05 * T.grad.norm()


def test_ties_with_a_still_camera_are_broken_at_random():
    """Source equals target and nothing is predicted to move: either may win, pixel by pixel."""
    disps, T, color, K = sample()
    color[:, 1:] = color[:, :1]
    still = torch.eye(4).expand_as(T)
    mask = SelfSupervisedLoss()(disps, still, (), color, K).automask[0].float()
    assert 0.02 < mask.mean() < 0.98


def test_a_disparity_of_zero_has_a_finite_loss():
    disps, T, color, K = sample()
    empty = tuple(torch.zeros_like(disp).requires_grad_() for disp in disps)
    terms = SelfSupervisedLoss()(empty, T, (), color, K)
    terms.total.backward()
    assert terms.total.isfinite() and all(disp.grad.isfinite().all() for disp in empty)


def test_the_minimum_is_no_more_than_the_average():
    disps, T, color, K = sample()
    least = SelfSupervisedLoss(automasking=False)(disps, T, (), color, K).per_scale
    mean = SelfSupervisedLoss(automasking=False, avg_reprojection=True)(disps, T, (), color, K)
    assert (least <= mean.per_scale).all()


def test_sources_may_come_in_any_order():
    disps, T, color, K = sample(sources=3)
    loss = SelfSupervisedLoss(automasking=False)
    straight = loss(disps, T, (), color, K).total
    order = [2, 0, 1]
    shuffled = loss(disps, T[:, order], (), color[:, [0] + [i + 1 for i in order]], K).total
    torch.testing.assert_close(straight, shuffled)


def test_smoothness_ignores_the_scale_of_disparity():
    disps, T, color, K = sample()
    still = torch.eye(4).expand_as(T)  # no motion: the photometric part does not see depth
    loss = SelfSupervisedLoss(disparity_smoothness=1.0, automasking=False)
    one = loss(disps, still, (), color, K).total
    half = loss(tuple(d / 2 for d in disps), still, (), color, K).total
    torch.testing.assert_close(one, half, atol=1e-5, rtol=0)
