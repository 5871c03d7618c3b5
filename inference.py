"""Disparities to score: predicted by weights for every image of a data set, or read from a file."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoint import training_options
from datasets import (
    Frame,
    MonoDataset,
    collate,
    in_unit_range,
    read_split,
    recordings,
    split_folder,
)
from layers import disp_to_depth
from metrics import flip_disagreement, flip_post_process
from networks import Monodepth
from released import RELEASED, fetch_released
from utils import Stopwatch, UserError, ahead, atomic_write, count_workers

USUAL_RANGE = {"min_depth": 0.1, "max_depth": 100.0}
CPU_BATCH = 1  # images at once: what a layer makes of more does not fit a CPU's caches
Disparities = Iterator[Float[np.ndarray, "h w"]]
Unsure = tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]


def find_weights(
    folder: Path | None, model_name: str | None, models_url: str | None
) -> Path | None:
    """The folder of weights that the flags name: the user's own, or a released model's.

    Raises:
        UserError: as `fetch_released`.
    """
    return folder if model_name is None else fetch_released(model_name, base_url=models_url)


def known_options(weights: Path) -> dict[str, Any]:
    """What is known of the options that weights were trained with."""
    released = RELEASED.get(weights.resolve().name)
    if released is None:
        return training_options(weights)
    return {"split": released.split} | USUAL_RANGE


def trained_depth_range(weights: Path) -> tuple[float, float]:
    """Least and greatest depth that weights were trained to span, as far as that is known.

    Raises:
        UserError: their options say something that is no range.
    """
    known = known_options(weights)
    least, greatest = (known.get(name, usual) for name, usual in USUAL_RANGE.items())
    plain = all(isinstance(value, int | float) for value in (least, greatest))
    if not (plain and 0 < least < greatest < math.inf):
        raise UserError(
            f"{weights.resolve().parent / 'opt.json'}: depth from {least} to {greatest} is no "
            "range; correct min_depth and max_depth"
        )
    return float(least), float(greatest)


def seen_in_training(
    weights: Path, scored: list[Frame], data_path: Path
) -> tuple[str | None, set[str]]:
    """The split that weights were trained on, if known, and the scored recordings that it has."""
    options = known_options(weights)
    split, trained_at = (options.get(name) for name in ("split", "data_path"))
    there = isinstance(trained_at, str) and Path(trained_at).is_dir()
    trained_at = Path(trained_at) if there else data_path
    if not isinstance(split, str):
        return None, set()
    try:
        folder = split_folder(split, trained_at)
        trained_on = read_split(folder / "train_files.txt")
    except UserError:  # a split that is not here any more
        return split, set()
    split = folder.resolve().name
    return split, recordings(trained_on, trained_at) & recordings(scored, data_path)


def predict_disparities(
    model: Monodepth,
    dataset: MonoDataset,
    batch_size: int,
    num_workers: int,
    min_depth: float,
    max_depth: float,
    post_process: bool = False,
    uncertainty: bool = False,
) -> Disparities | Iterator[Unsure]:
    """Scaled disparity (1 / depth) of each sample's target, at the network's size.

    Runs where the model is, with a progress bar, and says at the end where the time went. A GPU
    works in a thread of its own, some images ahead of what is done with them.

    Args:
        min_depth, max_depth: of the disparity's range, see `disp_to_depth`.
        post_process: average with the prediction of the mirrored image.
        uncertainty: yield pairs of a disparity and its `flip_disagreement`.

    Raises:
        UserError: the predictions are not finite.
    """
    device = next(model.parameters()).device
    loader = DataLoader(
        dataset,
        batch_size,
        num_workers=count_workers(num_workers),
        collate_fn=collate,
        pin_memory=device.type == "cuda",
    )

    @torch.no_grad()
    def scaled_disparity(images: Tensor) -> np.ndarray:
        pieces = images.split(CPU_BATCH if device.type == "cpu" else len(images))
        disp = torch.cat([model.disparity(piece)[:, 0] for piece in pieces])
        return disp_to_depth(disp, min_depth, max_depth)[0].cpu().numpy()

    def predictions() -> Disparities:
        watch = Stopwatch("waiting for images", "network", "waiting for what follows")
        with tqdm(total=len(dataset), unit="frame", dynamic_ncols=True) as bar:
            for batch in loader:
                watch.ended("waiting for images")
                images = in_unit_range(batch["color"][:, 0].to(device, non_blocking=True))
                disps = scaled_disparity(images)
                if post_process or uncertainty:
                    mirrored = scaled_disparity(images.flip(-1))[..., ::-1]
                unsure = flip_disagreement(disps, mirrored) if uncertainty else None
                if post_process:
                    disps = flip_post_process(disps, mirrored)
                if not np.isfinite(disps).all():
                    raise UserError("these weights predict NaN: choose others")
                watch.ended("network")
                bar.update(len(images))
                yield from disps if unsure is None else zip(disps, unsure, strict=True)
                watch.ended("waiting for what follows")
        print(f"{len(dataset)} frames in {watch}")

    # On a CPU two threads would only get into each other's way.
    return predictions() if device.type == "cpu" else ahead(predictions(), 2 * batch_size)


def read_disparities(path: Path) -> Disparities:
    """Scaled disparities [N h w] saved by this or another program.

    Raises:
        UserError: missing, no such array, or negative or non-finite values.
    """
    try:
        disps = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file of disparities") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as an array ({error})") from None
    if disps.dtype.kind != "f" or disps.ndim != 3 or 0 in disps.shape:
        raise UserError(f"{path}: does not hold float disparities [N h w]")
    for i, disp in enumerate(disps):
        if not (np.isfinite(disp).all() and (disp >= 0).all()):
            raise UserError(f"{path}: disparity {i} has negative or non-finite values")
        yield np.asarray(disp, np.float32)


def chosen_disparities(
    disps: Disparities, frames: list[Frame], chosen: list[Frame], path: Path
) -> Disparities:
    """Of one disparity per frame, read from `path`, those of the chosen frames, in their order.

    Raises:
        UserError: there are more or fewer disparities than frames.
    """
    wanted = set(chosen)
    count = 0
    for count, disp in enumerate(disps, start=1):
        if count <= len(frames) and frames[count - 1] in wanted:
            yield disp
    if count != len(frames):
        raise UserError(f"{path}: holds {count} disparities for {len(frames)} frames")


def saved_disparities(disps: Iterable[Float[np.ndarray, "h w"]], path: Path) -> Disparities:
    """Hand disparities on, and write them all to `path` as [N h w] at the end."""
    kept = []
    for disp in disps:
        kept.append(disp)
        yield disp
    shape = (len(kept), *kept[0].shape)
    header = {"descr": kept[0].dtype.str, "fortran_order": False, "shape": shape}
    with atomic_write(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for disp in kept:  # not stacked: that would take the memory twice
            file.write(np.ascontiguousarray(disp).data)
    print(f"{len(kept)} scaled disparities in {path}")
