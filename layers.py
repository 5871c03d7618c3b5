"""Geometry of the view synthesis (paper sec. 3.1) and the convolution blocks of the decoder.

Conventions, stated once: pixel centres are integers, so the image spans [0, W-1] x [0, H-1];
`K` is in pixels of the image it is used with; a transform `T` maps points of the target camera into
the source camera; grids are normalised as `grid_sample(..., align_corners=True)` expects.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPS = 1e-7


class Conv3x3(nn.Module):
    """3x3 convolution with reflection padding, for the depth decoder (paper sec. 3.3)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Float[Tensor, "B Cin H W"]) -> Float[Tensor, "B Cout H W"]:
        return self.conv(x)


class ConvBlock(nn.Module):
    """`Conv3x3` followed by an ELU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = Conv3x3(in_channels, out_channels)

    def forward(self, x: Float[Tensor, "B Cin H W"]) -> Float[Tensor, "B Cout H W"]:
        return F.elu(self.conv(x), inplace=True)


def full_precision(x: Tensor) -> torch.autocast:
    """A context that keeps autocast off where `x` is: digits count here, and time does not."""
    return torch.autocast(x.device.type, enabled=False)


def upsample(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H2 W2"]:
    """Twice the height and width, by nearest neighbour."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


def disp_to_depth(
    disp: Float[Tensor, "*shape"], min_depth: float, max_depth: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """The sigmoid output as (scaled disparity, depth); depth = 1 / (a disp + b), paper sec. 3.1.

    `disp` in [0, 1] spans 1/max_depth to 1/min_depth, so depth lies in [min_depth, max_depth].
    """
    scaled_disp = 1 / max_depth + (1 / min_depth - 1 / max_depth) * disp
    return scaled_disp, 1 / scaled_disp


def rotation_matrix(axis_angle: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rodrigues' formula; the direction is the axis, the length the angle in radians."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    x, y, z = (axis_angle / (angle + EPS)).unbind(-1)
    angle = angle.squeeze(-1)
    cos, sin = angle.cos(), angle.sin()
    rest = 1 - cos
    rows = (
        x * x * rest + cos, x * y * rest - z * sin, z * x * rest + y * sin,
        x * y * rest + z * sin, y * y * rest + cos, y * z * rest - x * sin,
        z * x * rest - y * sin, y * z * rest + x * sin, z * z * rest + cos,
    )  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def pose_matrix(
    axis_angle: Float[Tensor, "*B 3"], translation: Float[Tensor, "*B 3"], invert: bool = False
) -> Float[Tensor, "*B 4 4"]:
    """Rigid transform [R t; 0 1], or its exact inverse [R' -R't; 0 1] for a preceding frame."""
    R, t = rotation_matrix(axis_angle), translation.unsqueeze(-1)
    if invert:
        R = R.transpose(-1, -2)
        t = -(R @ t)
    bottom = torch.zeros_like(R[..., :1, :])
    one = torch.ones_like(t[..., :1, :])
    return torch.cat([torch.cat([R, t], -1), torch.cat([bottom, one], -1)], -2)


def backproject(
    depth: Float[Tensor, "B 1 H W"], inv_K: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "B 4 HW"]:
    """Homogeneous 3D points D(p) K^-1 p of every pixel, row by row (paper eq. 2)."""
    B, _, H, W = depth.shape
    options = {"dtype": depth.dtype, "device": depth.device}
    v, u = torch.meshgrid(torch.arange(H, **options), torch.arange(W, **options), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1)
    points = depth.flatten(2) * (inv_K @ pixels)
    return torch.cat([points, torch.ones_like(points[:, :1])], 1)


def project(
    points: Float[Tensor, "B 4 HW"],
    K: Float[Tensor, "B 3 3"],
    T: Float[Tensor, "B 4 4"],
    height: int,
    width: int,
) -> Float[Tensor, "B {height} {width} 2"]:
    """Sampling grid in [-1, 1] of points seen by a camera at T: proj(D, T, K) of paper eq. 2."""
    camera = (K @ T[:, :3]) @ points
    pixels = camera[:, :2] / (camera[:, 2:] + EPS)
    size = torch.tensor([[width - 1], [height - 1]], dtype=points.dtype, device=points.device)
    return (2 * pixels / size - 1).unflatten(2, (height, width)).permute(0, 2, 3, 1)


def warp(
    image: Float[Tensor, "B C Hin Win"], grid: Float[Tensor, "B H W 2"]
) -> Float[Tensor, "B C H W"]:
    """Bilinear sampling of `image` at `grid` (paper sec. 3.1); outside, the border repeats."""
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)
