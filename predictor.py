"""A depth network for pictures of any size, for scripts and for Python: weights in, depth out."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from PIL import Image
from torch import Tensor

from camera import Camera
from checkpoint import load_depth_model
from inference import trained_depth_range
from layers import disp_to_depth
from metric_scale import Scale, read_scale
from metrics import flip_disagreement, flip_post_process, resized_depth
from released import RELEASED, fetch_released
from utils import UserError


class Predicted(NamedTuple):
    """What the network says of some pictures, at its own size.

    Attributes:
        disps: scaled disparities, 1 / depth in the network's units.
        uncertainty: their `flip_disagreement`; None unless asked for.
    """

    disps: Float[ndarray, "B h w"]
    uncertainty: Float[ndarray, "B h w"] | None


class DepthPredictor:
    """Depth of pictures.

    Args:
        network: images [B 3 h w] in [0, 1] to sigmoid disparities [B 1 h w], on `device`.
        height, width: of its input in pixels.
        min_depth, max_depth: the depths of disparities 1 and 0.
        scale: how its depths become metres; None where that is unknown.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        height: int,
        width: int,
        min_depth: float = 0.1,
        max_depth: float = 100.0,
        scale: Scale | None = None,
        device: torch.device | str = "cpu",
    ):
        self.network = network
        self.height, self.width = height, width
        self.min_depth, self.max_depth = min_depth, max_depth
        self.scale = scale
        self.device = torch.device(device)

    @classmethod
    def load(
        cls, weights: Path | str, device: torch.device | str = "cpu", scaled: bool = True
    ) -> "DepthPredictor":
        """From a folder of weights, or a released model by its name (downloaded once).

        Args:
            scaled: with the scale beside the weights, if there is one; else it is not looked at.

        Raises:
            UserError: missing, damaged, or no depth weights.
        """
        folder = Path(weights)
        if str(weights) in RELEASED and not folder.is_dir():
            folder = fetch_released(str(weights))
        loaded = load_depth_model(folder)
        model = loaded.model.to(device).eval()
        scale = read_scale(folder) if scaled else None
        size, depth_range = (loaded.height, loaded.width), trained_depth_range(folder)
        return cls(model.disparity, *size, *depth_range, scale, device)

    def __call__(self, image: Image.Image) -> Float[ndarray, "H W"]:
        """Depth of each pixel, in metres where the scale is known."""
        return self.depth(self.predict([image]).disps[0], image.size)

    @torch.no_grad()
    def predict(
        self, images: list[Image.Image], post_process: bool = False, uncertainty: bool = False
    ) -> Predicted:
        """Scaled disparities of pictures of any size, as one batch.

        Args:
            post_process: blend with the prediction of the mirrored pictures.

        Raises:
            UserError: the network predicts no numbers.
        """
        size = (self.width, self.height)
        small = [
            np.asarray(i.convert("RGB").resize(size, Image.Resampling.LANCZOS)) for i in images
        ]
        batch = torch.from_numpy(np.stack(small)).to(self.device).permute(0, 3, 1, 2)
        batch = batch.contiguous().float() / 255
        disps = self._scaled(batch)
        if post_process or uncertainty:
            mirrored = self._scaled(batch.flip(-1))[..., ::-1]
        unsure = flip_disagreement(disps, mirrored) if uncertainty else None
        if post_process:
            disps = flip_post_process(disps, mirrored)
        if not np.isfinite(disps).all():
            raise UserError("these weights predict NaN: choose others")
        return Predicted(disps, unsure)

    def depth(self, disp: Float[ndarray, "h w"], size: tuple[int, int]) -> Float[ndarray, "H W"]:
        """Depth at the (width, height) of a picture, in metres where the scale is known."""
        factor = 1.0 if self.scale is None else self.scale.factor
        return factor * resized_depth(disp, size[::-1])

    @staticmethod
    def camera(size: tuple[int, int]) -> Float[ndarray, "3 3"]:
        """Intrinsics to assume for a picture of (width, height) where nothing is known."""
        return Camera().K(size)

    def _scaled(self, batch: Float[Tensor, "B 3 h w"]) -> Float[ndarray, "B h w"]:
        disp = self.network(batch)[:, 0].float()
        return disp_to_depth(disp, self.min_depth, self.max_depth)[0].cpu().numpy()
