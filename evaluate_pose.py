"""Predict the camera's trajectory on a KITTI odometry sequence; write, draw and score it."""

import itertools
import json
import typing
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy import ndarray
from torch.utils.data import DataLoader
from tqdm import tqdm

from checkpoint import load_pose_model
from datasets import Frame, KITTIOdom, collate, in_unit_range
from datasets.kitti import STEREO_SCALE, sequence_name
from inference import find_weights, seen_in_training
from options import EvalPoseOptions, parse, to_json
from trajectory import (
    Alignment,
    TrajectoryErrors,
    WindowError,
    align,
    chain,
    five_frame_ate,
    path_length,
    score_trajectory,
    write_kitti,
    write_tum,
)
from utils import (
    UserError,
    atomic_write,
    count_workers,
    demand_writable,
    pick_device,
    read_lines,
    run_script,
)

ALIGNMENTS: tuple[Alignment, ...] = typing.get_args(Alignment)
VARIANTS = {
    "strict": {"strict": True, "as_published": True},
    "with tail windows": {"strict": False, "as_published": True},
    "strict, geometric": {"strict": True, "as_published": False},
}


def true_poses(data_path: Path, sequence: str) -> Float[ndarray, "N 4 4"]:
    """Two poses or more."""
    path = data_path / "poses" / f"{sequence}.txt"
    if not path.exists():
        raise UserError(
            f"{path}: no such file of poses; KITTI's odometry archive has those of 00 to 10, and "
            "--no_eval needs none"
        )
    poses = KITTIOdom.read_poses(data_path, sequence)
    if len(poses) < 2:
        raise UserError(f"{path}: {len(poses)} poses make no motion; give two or more")
    return poses


def count_images(data_path: Path, sequence: str, png: bool) -> int:
    """Frames of a sequence by its images, which must be complete from 0 on; two or more."""
    dataset = KITTIOdom(data_path, [Frame(sequence, 0, "l")], 0, 0, png=png)
    frames = (Frame(sequence, i, "l") for i in itertools.count())
    gap = next(frame for frame in frames if dataset.find_image(frame) is None)
    folder = dataset.image_stem(gap).parent
    names = [path.stem for path in folder.iterdir() if path.suffix in dataset.extensions]
    last = max(int(name) for name in names if name.isdecimal() and len(name) == 6)
    if last > gap.index:
        raise UserError(
            f"{dataset.image_stem(gap)}: no such image, though they go on to {last:06d}: complete "
            "the data"
        )
    if gap.index < 2:
        raise UserError(f"{folder}: one image makes no motion; give two or more")
    return gap.index


def read_times(path: Path, count: int) -> Float[ndarray, " N"]:
    """Seconds of the first `count` frames; ten frames a second if the file does not exist."""
    if not path.exists():
        return np.arange(count) / 10
    way_out = "mend it, or take it away for ten frames a second"
    lines = read_lines(path, "file of times", way_out)
    if len(lines) < count:
        raise UserError(f"{path}: {len(lines)} times for {count} frames; {way_out}")
    times = np.zeros(count)
    for i, line in enumerate(lines[:count]):
        try:
            times[i] = float(line)
        except ValueError:
            times[i] = np.nan
        if not np.isfinite(times[i]):
            raise UserError(f"{path}:{i + 1}: not a time in seconds; {way_out}")
    return times


@torch.no_grad()
def predict(
    options: EvalPoseOptions, weights: Path, sequence: str, count: int
) -> Float[ndarray, "n 4 4"]:
    """Transforms of points of camera i into camera i+1, for the first `count` frames."""
    model, height, width = load_pose_model(weights)
    device = pick_device(options.no_cuda)
    model.to(device).eval()
    frames = [Frame(sequence, i, "l") for i in range(count - 1)]
    dataset = KITTIOdom(options.data_path, frames, height, width, (0, 1), png=options.png)
    if len(dataset) < len(frames):
        raise UserError(f"sequence {sequence}: {count} poses, but {dataset.left_out}")
    if dataset.find_image(Frame(sequence, count, "l")) is not None:
        print(f"WARNING: sequence {sequence} has more images than poses; the first {count} count")
    loader = DataLoader(
        dataset,
        options.batch_size,
        num_workers=count_workers(options.num_workers),
        collate_fn=collate,
    )
    batches: list[ndarray] = []
    for batch in tqdm(loader, unit="batch", dynamic_ncols=True):
        first, second = in_unit_range(batch["color"].to(device)).unbind(1)
        relative = model.relative_pose(first, second).double().cpu().numpy()
        relative[:, :3, 3] *= options.pose_scale
        if not (np.abs(relative) < 1e100).all():  # so that squares are finite, too
            raise UserError(f"{weights}: these weights predict NaN")
        batches.append(relative)
    return np.concatenate(batches)


def window_lines(errors: dict[str, WindowError | None], sequence: str) -> str:
    """The five-frame errors for people."""
    lines = [f"five-frame absolute trajectory error of sequence {sequence}, metres"]
    for name, error in errors.items():
        figures = "n/a: fewer than five poses"
        if error is not None:
            figures = f"{error.mean:.4f} +- {error.std:.4f} over {error.windows} windows"
        lines.append(f"  {name:<18} {figures}")
    return "\n".join(lines) + (
        "\n'strict' and 'with tail windows' chain the transforms as published numbers do; tail\n"
        "windows are the shorter ones at the end. 'geometric' chains the inverses."
    )


def trajectory_lines(errors: dict[Alignment, TrajectoryErrors], title: str) -> str:
    """The errors of the whole trajectory for people, a row for each alignment."""
    names = ("t_rel_percent", "r_rel_deg_per_100m", "ate_rmse_m", "rpe_m", "rpe_deg")
    rows = [("alignment", "t_rel %", "r_rel deg/100m", "ATE m", "RPE m", "RPE deg")]
    for alignment, row in errors.items():
        figures = [getattr(row, name) for name in names]
        rows.append((alignment, *("n/a" if f is None else f"{f:.3f}" for f in figures)))
    lines = [f"  {first:<9}" + "".join(f"{cell:>16}" for cell in cells) for first, *cells in rows]
    return "\n".join((title, *lines))


def draw(
    path: Path, title: str, pred: Float[ndarray, "N 4 4"], gt: Float[ndarray, "N 4 4"] | None
) -> None:
    """The trajectory from above: x to the right, z ahead at the start."""
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.add_subplot()
    if gt is not None:
        axes.plot(gt[:, 0, 3], gt[:, 2, 3], color="0.6", linewidth=3, label="ground truth")
    label = "estimate" if gt is None else "estimate, aligned (7dof)"
    axes.plot(pred[:, 0, 3], pred[:, 2, 3], color="tab:red", linewidth=1.5, label=label)
    start = pred[0] if gt is None else gt[0]
    axes.plot(start[0, 3], start[2, 3], "o", color="black", label="start")
    unit = "units of the prediction" if gt is None else "m"
    axes.set_title(title, pad=10)
    axes.set(xlabel=f"x, right ({unit})", ylabel=f"z, ahead ({unit})")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)


def main() -> None:
    options = parse(EvalPoseOptions)
    sequence = sequence_name(options.eval_split.partition("_")[2])
    weights = find_weights(options.load_weights_folder, options.model_name, options.models_url)
    stem = (options.eval_out_dir or weights) / f"odom_{sequence}"
    kitti, tum = (stem.with_name(f"{stem.name}_{kind}.txt") for kind in ("kitti", "tum"))
    picture = stem.with_suffix(".png")
    for path in filter(None, (kitti, tum, picture, options.json)):
        demand_writable(path)
    if options.no_eval:
        gt, count = None, count_images(options.data_path, sequence, options.png)
    else:
        gt = true_poses(options.data_path, sequence)
        count = len(gt)
    times_s = read_times(options.data_path / "sequences" / sequence / "times.txt", count)

    split, shared = seen_in_training(weights, [Frame(sequence, 0, "l")], options.data_path)
    if shared:
        print(f"WARNING: trained on split {split}, which has this sequence (as {min(shared)})")
    relative = predict(options, weights, sequence, count)
    pred = chain(relative)
    with atomic_write(kitti, "w") as file:
        write_kitti(file, pred)
    with atomic_write(tum, "w") as file:
        write_tum(file, pred, times_s)
    title = f"KITTI odometry {sequence}, {count} frames"
    if gt is None:
        draw(picture, title, pred, None)
        print(f"\ntrajectory of {count} frames in {kitti}, {tum} and {picture}")
        return

    errors = {name: score_trajectory(pred, gt, name) for name in ALIGNMENTS}
    windows = {
        name: five_frame_ate(relative, gt, **rules) if count >= 5 else None
        for name, rules in VARIANTS.items()
    }
    length_m = float(path_length(gt)[-1])
    segments = errors["7dof"].segments
    print(f"\n{window_lines(windows, sequence)}\n")
    heading = f"whole trajectory of sequence {sequence}: {count} frames, {length_m:.1f} m"
    print(trajectory_lines(errors, f"{heading}, {segments} segments of 100-800 m"))
    print(
        "Papers on monocular odometry report 7dof. t_rel and r_rel are KITTI's, n/a if no segment\n"
        "fits. Weights trained on stereo predict in nominal units: --pose_scale "
        f"{STEREO_SCALE:g} gives metres."
    )
    draw(picture, f"{title}, {length_m:.0f} m", *align(pred, gt, "7dof"))
    print(f"\ntrajectory in {kitti}, {tum} and {picture}")
    if options.json is not None:
        result = {
            "sequence": sequence,
            "frames": count,
            "length_m": length_m,
            "ate": {name: error and error._asdict() for name, error in windows.items()},
            "trajectory": {name: row._asdict() for name, row in errors.items()},
            "options": to_json(options),
        }
        with atomic_write(options.json, "w") as file:
            json.dump(result, file, indent=2, allow_nan=False)


if __name__ == "__main__":
    run_script(main)
