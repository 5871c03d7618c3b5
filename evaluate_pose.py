"""Score predicted camera motion on a KITTI odometry sequence: five-frame trajectory error."""

import json

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoint import load_pose_model
from datasets import Frame, KITTIOdom, collate
from metrics import five_frame_ate
from options import EvalPoseOptions, parse, to_json
from utils import (
    UserError,
    atomic_write,
    count_workers,
    demand_writable,
    pick_device,
    run_script,
)

VARIANTS = {
    "strict": {"strict": True, "as_published": True},
    "with tail windows": {"strict": False, "as_published": True},
    "strict, geometric": {"strict": True, "as_published": False},
}


@torch.no_grad()
def predict(options: EvalPoseOptions, sequence: str) -> tuple[np.ndarray, np.ndarray]:
    """Relative transforms [N-1 4 4] of consecutive frames, and the true poses [N 4 4]."""
    model, height, width = load_pose_model(options.load_weights_folder)
    device = pick_device(options.no_cuda)
    model.to(device).eval()
    poses = KITTIOdom.read_poses(options.data_path, sequence)
    frames = [Frame(sequence, i, "l") for i in range(len(poses) - 1)]
    if len(frames) < 4:
        raise UserError(f"sequence {sequence}: five-frame errors need five poses or more")
    dataset = KITTIOdom(options.data_path, frames, height, width, (0, 1), png=options.png)
    if len(dataset) < len(frames):
        raise UserError(f"sequence {sequence}: {len(poses)} poses, but {dataset.left_out}")
    loader = DataLoader(
        dataset,
        options.batch_size,
        num_workers=count_workers(options.num_workers),
        collate_fn=collate,
    )
    relative: list[Float[np.ndarray, "b 4 4"]] = []
    for batch in tqdm(loader, unit="batch", dynamic_ncols=True):
        first, second = (batch["color"].to(device).float() / 255).unbind(1)
        relative.append(model.relative_pose(first, second).double().cpu().numpy())
    return np.concatenate(relative), poses


def main() -> None:
    options = parse(EvalPoseOptions)
    sequence = options.eval_split.partition("_")[2]
    if options.json is not None:
        demand_writable(options.json)
    relative, poses = predict(options, sequence)
    result = {}
    print(f"\nfive-frame absolute trajectory error of sequence {sequence}, metres")
    for name, rules in VARIANTS.items():
        error = five_frame_ate(relative, poses, **rules)
        result[name] = error._asdict()
        print(f"  {name:<18} {error.mean:.4f} +- {error.std:.4f} over {error.windows} windows")
    print(
        "'strict' and 'with tail windows' chain the transforms as published numbers do; tail\n"
        "windows are the shorter ones at the end. 'geometric' chains the inverses."
    )
    if options.json is not None:
        with atomic_write(options.json, "w") as file:
            json.dump({"ate": result, "options": to_json(options)}, file, indent=2)


if __name__ == "__main__":
    run_script(main)
