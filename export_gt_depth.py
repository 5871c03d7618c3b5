"""Export the ground truth of a split, from LiDAR scans or depth images, to one .npz."""

import time

from datasets import KITTIRaw, benchmark, export_ground_truth
from options import ExportOptions, parse
from utils import UserError, demand_writable, run_script


def main() -> None:
    options = parse(ExportOptions)
    bench = benchmark(options.split, options.dataset)
    if bench.dataset is not KITTIRaw and options.depth_axis != "velodyne_x":
        raise UserError("--depth_axis is about LiDAR scans; these are depth images")
    path = options.gt_file or bench.gt_file
    demand_writable(path)
    if path.exists() and not options.overwrite:
        raise UserError(f"{path}: exists already; --overwrite makes it anew")
    frames = bench.frames(options.data_path)
    dataset = bench.dataset(options.data_path, frames, height=0, width=0, frame_ids=())
    paths = [dataset.depth_path(frame) for frame in frames]
    if None in paths:
        raise UserError(f"split '{options.split}' of {bench.dataset.__name__} has no ground truth")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]}: no ground truth for {len(missing)} of {len(frames)} frames of split "
            f"'{options.split}': complete the data, or correct --data_path"
        )
    if bench.dataset is KITTIRaw:
        dataset.depth_axis = options.depth_axis
    start = time.perf_counter()
    found = export_ground_truth(
        path,
        frames,
        dataset.ground_truth,
        dataset.depth_source(),
        bench.dataset.__name__,
        options.data_path,
        options.num_workers,
        options.overwrite,
    )
    print(f"{len(frames)} depth maps ({dataset.depth_source()}) in {path}")
    earlier = f", {found} of them found from an earlier run" if found else ""
    print(f"{time.perf_counter() - start:.1f} s{earlier}")


if __name__ == "__main__":
    run_script(main)
