"""Export the ground truth of a split, from LiDAR scans or depth images, to one .npz."""

import time

from datasets import KITTIRaw, MonoDataset, NYUv2, NYUv2Report, benchmark, export_ground_truth
from options import ExportOptions, parse
from utils import UserError, demand_writable, run_script


def refuse_idle_flags(options: ExportOptions, kind: type[MonoDataset]) -> None:
    """Refuse flags that this data set has no use for."""
    if kind is not KITTIRaw and options.depth_axis != "velodyne_x":
        raise UserError("--depth_axis is about LiDAR scans; these are depth images")
    if options.nyuv2_depth != "filled" and (kind is NYUv2Report or not issubclass(kind, NYUv2)):
        raise UserError(
            f"--nyuv2_depth {options.nyuv2_depth}: is for NYUv2's labelled images, as splits nyuv2 "
            "and nyuv2_official"
        )


def main() -> None:
    options = parse(ExportOptions)
    bench = benchmark(options.split, options.dataset, data_path=options.data_path)
    refuse_idle_flags(options, bench.dataset)
    path = options.gt_file or bench.gt_file
    demand_writable(path)
    if path.exists() and not options.overwrite:
        raise UserError(f"{path}: exists already; --overwrite makes it anew")
    frames = bench.frames(options.data_path)
    dataset = bench.dataset(options.data_path, frames, height=0, width=0, frame_ids=())
    if isinstance(dataset, NYUv2):
        dataset.depth_kind = options.nyuv2_depth
    elif isinstance(dataset, KITTIRaw):
        dataset.depth_axis = options.depth_axis
    paths = [dataset.depth_path(frame) for frame in frames]
    if None in paths:
        raise UserError(f"split '{options.split}' of {bench.dataset.__name__} has no ground truth")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]}: no ground truth for {len(missing)} of {len(frames)} frames of split "
            f"'{options.split}': complete the data, or correct --data_path"
        )
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
