"""Intrinsics that are learnt with depth and motion, for cameras that nobody calibrated."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

PACE = 30.0  # times the weights' learning rate: a focal length has far to go in small steps


class LearnedCameras(nn.Module):
    """One factor of the focal lengths of each camera, which begins at 1.

    Depth, motion and K together explain how a view changes (paper eq. 2), so the same loss tells K,
    too (Gordon et al., Depth from Videos in the Wild, ICCV 2019), where the camera turns. One that
    only moves straight on leaves its focal length open, as depth and motion make up for it. The
    shape of pixels and the principal point stay as given.

    Args:
        count: of cameras.
    """

    def __init__(self, count: int):
        super().__init__()
        self.log_zoom = nn.Parameter(torch.zeros(count))  # over PACE

    @property
    def zoom(self) -> Float[Tensor, " cameras"]:
        """The factor of each camera's focal lengths."""
        return (PACE * self.log_zoom).exp()

    def forward(
        self, K: Float[Tensor, "B 3 3"], camera: Int[Tensor, " B"]
    ) -> Float[Tensor, "B 3 3"]:
        """K with the focal lengths of cameras by their number; -1 is another, whose K stays."""
        known = camera >= 0
        zoom = torch.where(known, self.zoom[camera.clamp(min=0)], 1.0)
        factors = torch.ones_like(K)
        factors[:, 0, 0] = factors[:, 1, 1] = zoom
        return K * factors
