"""From a network's units to metres: the factor, written as `scale.json` beside the weights.

    python tools/calibrate_scale.py stereo --load_weights_folder weights_19 --baseline_m 0.54
    python tools/calibrate_scale.py ground_truth --load_weights_folder weights_19 \\
        --data_path kitti_data --split benchmark_scale
    python tools/calibrate_scale.py camera_height --load_weights_folder weights_19 \\
        --images drive/image_02/data --height_m 1.65 --fx 721.5
    python tools/calibrate_scale.py distance --load_weights_folder weights_19 \\
        --image hall.jpg --pixel 320 400 --distance_m 4.2

Whatever is predicted for it counts in the network's own units: a scale that is there already is
neither used nor in the way.
"""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from camera import Camera  # noqa: E402
from checkpoint import load_depth_model, read, training_options  # noqa: E402
from datasets import (  # noqa: E402
    Benchmark,
    GroundTruth,
    MonoDataset,
    benchmark,
    demand_same_frames,
    exported,
    read_ground_truth,
)
from inference import predict_disparities, trained_depth_range  # noqa: E402
from media import find_images, open_image  # noqa: E402
from metric_scale import FILE, Scale, write_scale  # noqa: E402
from metrics import score_depth, summarise  # noqa: E402
from pointcloud import points_of_depth  # noqa: E402
from predictor import DepthPredictor  # noqa: E402
from released import RELEASED  # noqa: E402
from tools.commands import Commands, add_camera, workers  # noqa: E402
from tools.ground_plane import camera_height  # noqa: E402
from utils import UserError, demand_writable, pick_device, run_script  # noqa: E402

BASELINE_M = 0.54  # of KITTI's stereo rig


# A known distance ---------------------------------------------------------------------------------


def distance(
    depth: Float[ndarray, "H W"], K: Float[ndarray, "3 3"], pixels: list[tuple[int, int]]
) -> float:
    """The straight line from the camera to what a pixel (column, row) shows, in the depth's unit;
    of two pixels, the straight line between what they show."""
    points = points_of_depth(depth, K)
    *start, end = (points[v, u] for u, v in pixels)
    return float(np.linalg.norm(end - start[0] if start else end))


def nearest_pixel(u: float, v: float, size: tuple[int, int]) -> tuple[int, int]:
    """Column and row of the pixel of a picture of (width, height) whose centre is nearest.

    Raises:
        UserError: it lies outside.
    """
    if not (-0.5 <= u < size[0] - 0.5 and -0.5 <= v < size[1] - 0.5):
        raise UserError(
            f"--pixel {u:g} {v:g}: lies outside the image; give column 0 to {size[0] - 1} and "
            f"row 0 to {size[1] - 1}"
        )
    return math.floor(u + 0.5), math.floor(v + 0.5)


# Weights ------------------------------------------------------------------------------------------


def demand_stereo(weights: Path) -> None:
    """Refuse weights that are known to be trained without stereo.

    Raises:
        UserError: they are; or they are unreadable.
    """
    used = read(weights / "encoder.pth").get("use_stereo")
    name = weights.resolve().name
    if name in RELEASED:
        used = "stereo" in name
    if used is None:
        print("WARNING: these weights do not say whether they were trained with stereo")
    elif not used:
        raise UserError(
            f"{weights}: trained without stereo, which leaves the scale open; use ground_truth, "
            "camera_height or distance"
        )


def save(weights: Path, scale: Scale) -> None:
    """Write the scale, and say what and where.

    Raises:
        UserError: the factor is beyond all numbers.
    """
    if not 0 < scale.factor < math.inf:
        raise UserError(
            f"a factor of {scale.factor:g} ({scale.source}) is no scale: correct the lengths given"
        )
    path = write_scale(weights, scale)
    print(f"metres = network's depth {scale}\nwritten to {path}")


# The ways -----------------------------------------------------------------------------------------


def stereo_command(
    load_weights_folder: Path, baseline_m: float | None, baseline_units: float | None
) -> None:
    own = training_options(load_weights_folder).get("dataset") == "folder"
    usual = (1.0, 1.0) if own else (BASELINE_M, MonoDataset.baseline)  # own ones are metres already
    baseline_m = usual[0] if baseline_m is None else baseline_m
    baseline_units = usual[1] if baseline_units is None else baseline_units
    demand_positive(baseline_m=baseline_m, baseline_units=baseline_units)
    demand_stereo(load_weights_folder)
    source = f"stereo, baseline {baseline_m:g} m for {baseline_units:g}"
    save(load_weights_folder, Scale(baseline_m / baseline_units, math.nan, source))


def ground_truth_command(
    load_weights_folder: Path,
    data_path: Path,
    split: str,
    dataset: str | None,
    batch_size: int,
    num_workers: int,
    no_cuda: bool,
) -> None:
    demand_positive(batch_size=batch_size)
    demand_writable(load_weights_folder / FILE)
    bench, gt = scored(split, dataset, data_path)
    loaded = load_depth_model(load_weights_folder)
    frames = bench.frames(data_path)
    data = bench.dataset(
        data_path, frames, loaded.height, loaded.width, input_crop=bench.input_crop
    )
    model = loaded.model.to(pick_device(no_cuda)).eval()
    disps = predict_disparities(
        model, data, batch_size, num_workers, *trained_depth_range(load_weights_folder)
    )
    each = [score_depth(disp, gt[i], bench.protocol) for i, disp in enumerate(disps)]
    scores = [score for score in each if score is not None]
    if not scores:
        raise UserError(f"{gt.path}: no pixel of the ground truth counts; choose another --split")
    summary = summarise(scores)
    spread = summary.ratio_spread if summary.images > 1 else math.nan
    source = f"ground truth of {summary.images} images of {bench.name}"
    save(load_weights_folder, Scale(summary.ratio, spread, source))


def scored(split: str, dataset: str | None, data_path: Path) -> tuple[Benchmark, GroundTruth]:
    """A split and its exported ground truth, in metres.

    Raises:
        UserError: there is none, or it is of other frames or not in metres.
    """
    if dataset is None:
        bench, gt = exported(split, data_path=data_path)
    else:
        bench = benchmark(split, dataset, data_path=data_path)
        gt = read_ground_truth(bench, bench.gt_file)
    if not bench.is_metric:
        raise UserError(f"--split {split}: its depth is not in metres; choose another")
    demand_same_frames(gt, bench, data_path)
    return bench, gt


def camera_height_command(
    load_weights_folder: Path,
    images: list[str],
    height_m: float,
    no_cuda: bool,
    **camera: float | None,
) -> None:
    demand_positive(height_m=height_m)
    known = Camera(**camera)
    demand_sense(known)
    demand_writable(load_weights_folder / FILE)
    paths = [path for given in images for path in find_images(given)]
    predictor = DepthPredictor.load(load_weights_folder, pick_device(no_cuda), scaled=False)
    known.announce()
    heights = []
    for path in tqdm(paths, unit="image", dynamic_ncols=True):
        image = open_image(path)
        height = camera_height(predictor(image), known.K(image.size))
        if height is not None:
            heights.append(height)
    if not heights:
        raise UserError(
            f"{images[0]}: no level ground in any of {len(paths)} images; give some where road or "
            "floor fills the lower middle, and the right camera"
        )
    middle = float(np.median(heights))
    spread = float(np.std(heights) / middle) if len(heights) > 1 else math.nan
    count = f"{len(heights)} of {len(paths)} images"
    if len(heights) < len(paths):
        print(f"level ground is seen in {count}: the others are left out")
    source = f"camera {height_m:g} m above the ground in {count}"
    save(load_weights_folder, Scale(height_m / middle, spread, source))


def distance_command(
    load_weights_folder: Path,
    image: Path,
    pixel: list[list[float]],
    distance_m: float,
    no_cuda: bool,
    **camera: float | None,
) -> None:
    demand_positive(distance_m=distance_m)
    known = Camera(**camera)
    demand_sense(known)
    if len(pixel) > 2:
        raise UserError(f"--pixel: given {len(pixel)} times; give one pixel, or two")
    demand_writable(load_weights_folder / FILE)
    picture = open_image(image)
    pixels = [nearest_pixel(u, v, picture.size) for u, v in pixel]
    if len(set(pixels)) < len(pixels):
        raise UserError("--pixel: the same twice; give two different pixels, or one")
    predictor = DepthPredictor.load(load_weights_folder, pick_device(no_cuda), scaled=False)
    known.announce()
    units = distance(predictor(picture), known.K(picture.size), pixels)
    where = " and ".join(f"({u}, {v})" for u, v in pixels)
    what = "between" if len(pixels) > 1 else "from the camera to"
    source = f"{distance_m:g} m {what} {where} of {image.name}"
    save(load_weights_folder, Scale(distance_m / units, math.nan, source))


def demand_sense(camera: Camera) -> None:
    """Refuse flags that make no camera.

    Raises:
        UserError: naming the flag.
    """
    if camera.fault() is not None:
        raise UserError(camera.fault())


def demand_positive(**values: float | None) -> None:
    """Refuse numbers of flags that are not above 0; None is a flag that was not given.

    Raises:
        UserError: naming the flag.
    """
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} {value:g}: give a number above 0")


# The command --------------------------------------------------------------------------------------


def add_weights(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--load_weights_folder", type=Path, required=True, help="weights; the scale goes there too"
    )


def main() -> None:
    commands = Commands(
        __doc__.partition("\n")[0], "stereo | ground_truth | camera_height | distance"
    )
    one = commands.add(
        stereo_command, "the rig's baseline, for networks trained with stereo",
        "Real baseline over the one that the network was trained with.", "stereo",
    )  # fmt: skip
    add_weights(one)
    one.add_argument(
        "--baseline_m",
        type=float,
        help=f"real baseline in metres (default: {BASELINE_M}; of --dataset folder: what it says)",
    )
    one.add_argument(
        "--baseline_units",
        type=float,
        help=f"the one in training (default: {MonoDataset.baseline}; the same)",
    )
    one = commands.add(
        ground_truth_command, "the median ratio to the exported ground truth of a split",
        "Median over the images of median(ground truth) / median(prediction).", "ground_truth",
    )  # fmt: skip
    add_weights(one)
    one.add_argument("--data_path", type=Path, required=True)
    one.add_argument("--split", required=True, help="its ground truth is exported already")
    one.add_argument(
        "--dataset",
        choices=("kitti", "kitti_depth", "nyuv2"),
        help="of the split (default: what the exported ground truth is of)",
    )
    one.add_argument("--batch_size", type=int, default=16, help="images per pass")
    one.add_argument(
        "--num_workers", type=workers, default=-1, help="loaders; -1: one per core, 12 at most"
    )
    one.add_argument("--no_cuda", action="store_true", help="stay on the CPU")
    one = commands.add(
        camera_height_command, "the known height of a level camera over road or floor",
        "The height of the camera over the ground plane that is found in the predicted depth.",
        "camera_height",
    )  # fmt: skip
    add_weights(one)
    one.add_argument(
        "--images", nargs="+", required=True, help="files, or folders or patterns of them"
    )
    one.add_argument("--height_m", type=float, required=True, help="of the camera, in metres")
    add_camera(one)
    one.add_argument("--no_cuda", action="store_true", help="stay on the CPU")
    one = commands.add(
        distance_command, "one known distance",
        "The straight line from the camera to what a pixel shows, or between what two show.",
        "distance",
    )  # fmt: skip
    add_weights(one)
    one.add_argument("--image", type=Path, required=True)
    one.add_argument(
        "--pixel", type=float, nargs=2, action="append", required=True, metavar=("U", "V"),
        help="column and row, from 0; give it again for a second point",
    )  # fmt: skip
    one.add_argument("--distance_m", type=float, required=True, help="in metres")
    add_camera(one)
    one.add_argument("--no_cuda", action="store_true", help="stay on the CPU")
    commands.run()


if __name__ == "__main__":
    run_script(main)
