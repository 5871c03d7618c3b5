"""Export the ground truth of a split, from LiDAR scans or improved depth images, to one .npz."""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from datasets import (
    KITTIDepth,
    MonoDataset,
    benchmark,
    read_split,
    split_folder,
    write_ground_truth,
)
from options import ExportOptions, parse
from utils import UserError, demand_writable, run_script

SOURCES = {
    "velodyne_x": "LiDAR, depth = forward coordinate of the scanner",
    "camera_z": "LiDAR, depth = z of the camera",
    "improved": "improved KITTI depth images (accumulated LiDAR)",
}


def depth_maps(dataset: MonoDataset) -> Iterator[np.ndarray]:
    """Every frame's ground truth, with a progress bar."""
    for i in tqdm(range(len(dataset)), unit="frame", dynamic_ncols=True):
        yield dataset.ground_truth(i)


def main() -> None:
    options = parse(ExportOptions)
    folder = split_folder(options.split)
    frames = read_split(folder / "test_files.txt")
    path = options.gt_file or folder / "gt_depths.npz"
    demand_writable(path)
    kind, _ = benchmark(options.split, options.dataset)
    dataset = kind(options.data_path, frames, height=0, width=0, frame_ids=())
    paths = [dataset.depth_path(frame) for frame in frames]
    if None in paths:
        raise UserError(f"--dataset {options.dataset} has no ground truth")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]}: no ground truth for {len(missing)} of {len(frames)} frames of split "
            f"'{options.split}': complete the data, or correct --data_path"
        )
    source = options.depth_axis
    if kind is KITTIDepth:
        if source != "velodyne_x":
            raise UserError("--depth_axis is about LiDAR scans; these are improved depth images")
        source = "improved"
    else:
        dataset.depth_axis = options.depth_axis
    write_ground_truth(path, frames, depth_maps(dataset), SOURCES[source], kind.__name__)
    print(f"{len(frames)} depth maps ({SOURCES[source]}) in {path}")


if __name__ == "__main__":
    run_script(main)
