"""The least that a network must beat: the mean depth map of the training frames, for every image.

    python tools/mean_depth.py --data_path sample --split sample --out mean_depth.npy
    python evaluate_depth.py --eval_mono --data_path sample --eval_split sample \\
        --ext_disp_to_eval mean_depth.npy
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets import DATASETS, benchmark, read_split  # noqa: E402
from utils import OneLineParser, UserError, atomic_write, demand_writable, run_script  # noqa: E402

ROWS, COLUMNS = 96, 320  # of the map, whatever the size of the images


def mean_depth(depths: Iterable[np.ndarray]) -> np.ndarray:
    """Mean [ROWS COLUMNS] in metres of depth maps of any size, of their pixels above 0.

    A cell that no pixel falls into gets the mean of the nearest one.

    Raises:
        ValueError: no pixel is above 0.
    """
    total, count = np.zeros(ROWS * COLUMNS), np.zeros(ROWS * COLUMNS)
    for depth_m in depths:
        v, u = np.nonzero(depth_m > 0)
        height, width = depth_m.shape
        cell = v * ROWS // height * COLUMNS + u * COLUMNS // width
        total += np.bincount(cell, depth_m[v, u], minlength=total.size)
        count += np.bincount(cell, minlength=count.size)
    if not count.any():
        raise ValueError("no depth")
    mean = (total / np.maximum(count, 1)).reshape(ROWS, COLUMNS)
    nearest = distance_transform_edt(
        count.reshape(ROWS, COLUMNS) == 0, return_distances=False, return_indices=True
    )
    return mean[tuple(nearest)]


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--dataset", default="kitti", choices=("kitti", "kitti_depth", "nyuv2"))
    parser.add_argument("--split", required=True, help="trains and tests")
    parser.add_argument("--out", type=Path, default=Path("mean_depth.npy"))
    arguments = parser.parse_args()
    demand_writable(arguments.out)
    bench = benchmark(arguments.split, arguments.dataset, data_path=arguments.data_path)
    count = len(bench.frames(arguments.data_path))
    frames = read_split(bench.folder / "train_files.txt")
    data = DATASETS[arguments.dataset](arguments.data_path, frames, 0, 0, frame_ids=())
    known = (data.ground_truth(i) for i in range(len(data)))
    try:
        mean_m = mean_depth(depth_m for depth_m in known if depth_m is not None)
    except ValueError:
        raise UserError(
            f"{arguments.data_path}: the training frames of split '{arguments.split}' have no "
            "ground truth"
        ) from None
    disp = (1 / mean_m).astype(np.float32)
    with atomic_write(arguments.out) as file:
        np.save(file, np.repeat(disp[None], count, 0))
    print(f"mean of {len(frames)} depth maps, for each of {count} test images, in {arguments.out}")


if __name__ == "__main__":
    run_script(main)
