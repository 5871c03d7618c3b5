"""For torch.hub: `torch.hub.load(REPOSITORY, "monodepth2", weights="mono_640x192")`."""

import torch

from predictor import DepthPredictor

dependencies = ["torch", "torchvision", "numpy", "PIL", "cv2", "jaxtyping", "plyfile", "tqdm"]


def monodepth2(weights: str = "mono_640x192", device: torch.device | str = "cpu") -> DepthPredictor:
    """A predictor of depth for pictures of any size.

    Args:
        weights: a folder of weights, or a released model by its name (downloaded once; these come
            under Niantic's non-commercial licence).
    """
    return DepthPredictor.load(weights, device)
