"""From weights to disparities: every image of a data set through the depth network."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets import MonoDataset, collate
from layers import disp_to_depth
from metrics import flip_post_process
from networks import Monodepth
from utils import UserError, count_workers


def predict_disparities(
    model: Monodepth,
    dataset: MonoDataset,
    batch_size: int,
    num_workers: int,
    min_depth: float,
    max_depth: float,
    post_process: bool = False,
) -> Iterator[Float[np.ndarray, "H W"]]:
    """Scaled disparity (1 / depth) of each sample's target, at the network's size.

    Runs where the model is, with a progress bar.

    Args:
        min_depth, max_depth: of the disparity's range, see `disp_to_depth`.
        post_process: average with the prediction of the mirrored image.

    Raises:
        UserError: the predictions are not finite.
    """
    device = next(model.parameters()).device
    loader = DataLoader(
        dataset, batch_size, num_workers=count_workers(num_workers), collate_fn=collate
    )

    @torch.no_grad()
    def scaled_disparity(images: Tensor) -> np.ndarray:
        disp = model.disparity(images)[:, 0]
        return disp_to_depth(disp, min_depth, max_depth)[0].cpu().numpy()

    with tqdm(total=len(dataset), unit="frame", dynamic_ncols=True) as bar:
        for batch in loader:
            images = batch["color"][:, 0].to(device).float() / 255
            disps = scaled_disparity(images)
            if post_process:
                mirrored = scaled_disparity(images.flip(-1))[..., ::-1]
                disps = flip_post_process(disps, mirrored)
            if not np.isfinite(disps).all():
                raise UserError("these weights predict NaN: choose others")
            bar.update(len(images))
            yield from disps
