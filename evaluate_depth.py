"""Score predicted depth against exported ground truth with the seven standard metrics."""

import dataclasses
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoint import load_depth_model
from datasets import GroundTruth, benchmark, collate, read_split, split_folder
from layers import disp_to_depth
from metrics import DepthSummary, Protocol, flip_post_process, score_depth, summarise
from options import EvalDepthOptions, parse, to_json
from utils import (
    UserError,
    atomic_write,
    count_workers,
    demand_writable,
    pick_device,
    run_script,
)


@torch.no_grad()
def predict(options: EvalDepthOptions) -> Iterator[Float[np.ndarray, "h w"]]:
    """Scaled disparity (1 / depth) of every frame of the split, at the network's size."""
    loaded = load_depth_model(options.load_weights_folder)
    if options.num_layers not in (None, loaded.num_layers):
        raise UserError(
            f"{options.load_weights_folder}: weights of another architecture: ResNet "
            f"{loaded.num_layers}, not --num_layers {options.num_layers}"
        )
    device = pick_device(options.no_cuda)
    model = loaded.model.to(device).eval()
    frames = read_split(split_folder(options.eval_split) / "test_files.txt")
    kind, _ = benchmark(options.eval_split, options.dataset)
    dataset = kind(options.data_path, frames, loaded.height, loaded.width, png=options.png)
    loader = DataLoader(
        dataset,
        options.batch_size,
        num_workers=count_workers(options.num_workers),
        collate_fn=collate,
    )

    def scaled_disparity(images: Tensor) -> np.ndarray:
        disp = model.disparity(images)[:, 0]
        return disp_to_depth(disp, options.min_depth, options.max_depth)[0].cpu().numpy()

    print(f"predicting {len(frames)} frames at {loaded.width}x{loaded.height} on {device}")
    with tqdm(total=len(frames), unit="frame", dynamic_ncols=True) as bar:
        for batch in loader:
            images = batch["color"][:, 0].to(device).float() / 255
            disps = scaled_disparity(images)
            if options.post_process:
                mirrored = scaled_disparity(images.flip(-1))[..., ::-1]
                disps = flip_post_process(disps, mirrored)
            if not np.isfinite(disps).all():
                raise UserError(f"{options.load_weights_folder}: these weights predict NaN")
            bar.update(len(images))
            yield from disps


def read_disparities(path: Path) -> Iterator[Float[np.ndarray, "h w"]]:
    """Scaled disparities saved by this or another program."""
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


def score(
    disps: Iterator[np.ndarray], gt: GroundTruth, protocol: Protocol, depth_scale: float
) -> tuple[DepthSummary, list[dict[str, Any]]]:
    """Mean metrics and those of each image that has ground truth which counts."""
    scores, per_image = [], []
    count = 0
    for count, disp in enumerate(disps, start=1):
        if count > len(gt):
            break
        one = score_depth(disp, gt[count - 1], protocol, depth_scale)
        if one is not None:
            if not 0 < one.ratio < math.inf:
                raise UserError(f"'{gt.frames[count - 1]}': the median prediction is no depth")
            scores.append(one)
            frame = {"frame": gt.frames[count - 1], "ratio": one.ratio}
            per_image.append(frame | one.errors._asdict())
    if count != len(gt):
        more = "more" if count > len(gt) else f"only {count}"
        raise UserError(f"{gt.path}: holds {len(gt)} depth maps, but there are {more} predictions")
    if not scores:
        raise UserError(f"{gt.path}: no pixel of the ground truth counts")
    return summarise(scores), per_image


def chosen_protocol(options: EvalDepthOptions) -> tuple[Protocol, float]:
    """The benchmark's rules with the asked scaling, and the factor for predicted depths."""
    protocol = benchmark(options.eval_split, options.dataset).protocol
    if protocol is None:
        raise UserError(
            f"--dataset {options.dataset} has no depth benchmark: choose --dataset kitti"
        )
    if options.eval_stereo and protocol.stereo_scale is None:
        raise UserError(f"{protocol.name} has no stereo scale: evaluate with --eval_mono")
    if options.eval_stereo or options.disable_median_scaling:
        protocol = dataclasses.replace(protocol, scaling="none")
    scale = protocol.stereo_scale if options.eval_stereo else options.pred_depth_scale_factor
    return protocol, scale


def table(summary: DepthSummary) -> str:
    """The metrics for people and for LaTeX."""
    names, values = summary.errors._fields, summary.errors
    return "\n".join(
        (
            " | ".join(f"{name:>8}" for name in names),
            " | ".join(f"{value:8.3f}" for value in values),
            "& " + " & ".join(f"{value:.3f}" for value in values) + r" \\",
        )
    )


def saving(disps: Iterator[np.ndarray], path: Path) -> Iterator[np.ndarray]:
    """Hand disparities on and write them all to `path` at the end."""
    kept = []
    for disp in disps:
        kept.append(disp)
        yield disp
    with atomic_write(path) as file:
        np.save(file, np.stack(kept))
    print(f"{len(kept)} scaled disparities in {path}")


def main() -> None:
    options = parse(EvalDepthOptions)
    folder = split_folder(options.eval_split)
    out = options.eval_out_dir or options.load_weights_folder
    saved = out / f"disps_{folder.resolve().name}_split.npy" if options.save_pred_disps else None
    for path in filter(None, (saved, options.json)):
        demand_writable(path)
    gt = None
    if not options.no_eval:
        protocol, depth_scale = chosen_protocol(options)
        gt = GroundTruth(options.gt_file or folder / "gt_depths.npz")
        if gt.frames != [str(frame) for frame in read_split(folder / "test_files.txt")]:
            raise UserError(f"{gt.path}: belongs to other frames than {folder}; export it again")
        if gt.dataset != benchmark(options.eval_split, options.dataset).dataset.__name__:
            raise UserError(f"{gt.path}: holds depth of {gt.dataset}: give its --dataset here too")
    if options.ext_disp_to_eval is not None:
        disps = read_disparities(options.ext_disp_to_eval)
    else:
        disps = predict(options)
    if saved is not None:
        disps = saving(disps, saved)
    if gt is None:
        for _ in disps:
            pass
        return

    summary, per_image = score(disps, gt, protocol, depth_scale)
    factor = "" if depth_scale == 1 else f", depth x {depth_scale:g}"
    print(f"\nprotocol: {protocol.describe()}{factor}\nground truth: {gt.source}")
    print(f"images: {summary.images} of {len(gt)}")
    print(f"ratio gt / prediction: median {summary.ratio:.3f}, spread {summary.ratio_spread:.3f}")
    print(f"\n{table(summary)}")
    if options.json is not None:
        result = {
            "metrics": summary.errors._asdict(),
            "ratio": {"median": summary.ratio, "spread": summary.ratio_spread},
            "images": summary.images,
            "protocol": protocol.describe(),
            "depth_scale": depth_scale,
            "ground_truth": gt.source,
            "options": to_json(options),
            "per_image": per_image,
        }
        with atomic_write(options.json, "w") as file:
            json.dump(result, file, indent=2, allow_nan=False)
        print(f"\nwritten to {options.json}", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
