"""Networks that predict camera motion (paper sec. 3.3), and the PoseCNN ablation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from layers import full_precision

POSE_SCALE = 0.01  # motions between frames are small: start near the identity


def six_numbers(x: Float[Tensor, "B C h w"], num_poses: int) -> Float[Tensor, "B P 6"]:
    """Spatial mean of the last layer as P x (axis-angle in radians, translation)."""
    return POSE_SCALE * x.mean((2, 3)).unflatten(1, (num_poses, 6))


class PoseDecoder(nn.Module):
    """Relative poses from the deepest features of one joint encoder pass, or of several images.

    Args:
        in_channels: channels of the deepest encoder features.
        num_inputs: feature maps joined after the squeeze: 1 for stacked images, else one per image.
        num_poses: poses predicted; the released pair networks predict two and use the first.
    """

    def __init__(self, in_channels: int, num_inputs: int = 1, num_poses: int = 2):
        super().__init__()
        self.num_poses = num_poses
        self.net = nn.ModuleList(
            [
                nn.Conv2d(in_channels, 256, 1),
                nn.Conv2d(num_inputs * 256, 256, 3, padding=1),
                nn.Conv2d(256, 256, 3, padding=1),
                nn.Conv2d(256, 6 * num_poses, 1),
            ]
        )

    def forward(self, features: list[Tensor]) -> Float[Tensor, "B P 6"]:
        """Float32 poses from `num_inputs` feature maps [B in_channels h w]."""
        squeeze, *middle, last = self.net
        with full_precision(features[0]):
            x = torch.cat([squeeze(feature.float()).relu() for feature in features], 1)
            for conv in middle:
                x = conv(x).relu()
            return six_numbers(last(x), self.num_poses)


class PoseCNN(nn.Module):
    """Pose network of earlier work (Zhou et al. 2017): seven strided convolutions, no encoder.

    Args:
        num_images: RGB images stacked on the channel axis; one pose fewer is predicted.
    """

    def __init__(self, num_images: int = 2):
        super().__init__()
        self.num_poses = num_images - 1
        channels = (3 * num_images, 16, 32, 64, 128, 256, 256, 256)
        kernels = (7, 5, 3, 3, 3, 3, 3)
        self.net = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], k, stride=2, padding=k // 2)
            for i, k in enumerate(kernels)
        )
        self.pose_conv = nn.Conv2d(256, 6 * self.num_poses, 1)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B P 6"]:
        """Float32 poses between the first of the stacked images in [0, 1] and the others."""
        x = images
        for conv in self.net:
            x = conv(x).relu()
        with full_precision(x):
            return six_numbers(self.pose_conv(x.float()), self.num_poses)
