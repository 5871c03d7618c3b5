"""Time to evaluate a depth network on KITTI's 697 test images, beside the textbook's way.

    python benchmarks/bench_eval.py

Ours reads in worker processes and, with a GPU, scores while the network goes on; the textbook
reads, predicts and scores one image after the other. How much each adds to the time of the network
alone is printed, and for ours how the time splits. Images and ground truth are made up, of KITTI's
sizes and kinds. With --load_weights_folder and --data_path, also what training's fast resize would
change of a real evaluation.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.timing import (  # noqa: E402
    KITTI_SIZE,
    alternate,
    machine,
    report,
    street_frames,
)
from checkpoint import load_depth_model  # noqa: E402
from datasets import (  # noqa: E402
    Frame,
    GroundTruth,
    KITTIRaw,
    exported,
    read_image,
    write_ground_truth,
)
from evaluate_depth import score  # noqa: E402
from inference import CPU_BATCH, predict_disparities  # noqa: E402
from layers import disp_to_depth  # noqa: E402
from metrics import garg_crop  # noqa: E402
from networks import Monodepth  # noqa: E402
from utils import OneLineParser, UserError, pick_device, run_script  # noqa: E402

HEIGHT, WIDTH = 192, 640
RANGE = 0.1, 100.0
DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"
DISTINCT = 8  # frames that are made; the others are links to these
SEEN = 0.04  # share of pixels with LiDAR depth


def make_data(folder: Path, count: int) -> list[Frame]:
    """Frames in KITTI's layout and `gt.npz`, the ground truth of all."""
    place = folder / DRIVE / "image_02/data"
    place.mkdir(parents=True)
    for i, image in enumerate(street_frames(DISTINCT)):
        image.save(place / f"{i:010d}.jpg", quality=92)
    for i in range(DISTINCT, count):
        os.link(place / f"{i % DISTINCT:010d}.jpg", place / f"{i:010d}.jpg")
    frames = [Frame(DRIVE, i, "l") for i in range(count)]
    rng = np.random.default_rng(0)
    width, height = KITTI_SIZE
    maps = []
    for _ in range(DISTINCT):
        depth = rng.uniform(3, 75, (height, width)).astype(np.float32)
        depth[rng.random(depth.shape) > SEEN] = 0
        depth[: height // 3] = 0
        maps.append(depth)
    repeated = (maps[i % DISTINCT] for i in range(count))
    write_ground_truth(folder / "gt.npz", frames, repeated, "made up", "KITTIRaw")
    return frames


@torch.no_grad()
def textbook(model: Monodepth, data: KITTIRaw, gt: GroundTruth, device: torch.device) -> np.ndarray:
    """Mean of the seven metrics, one image after the other."""
    errors = []
    for i, frame in enumerate(data.frames):
        image = read_image(data.find_image(frame))
        image = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        image = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float().to(device) / 255
        disp, _ = disp_to_depth(model.disparity(image), *RANGE)
        true = gt[i]
        pred = 1 / cv2.resize(disp[0, 0].cpu().numpy(), true.shape[::-1])
        mask = np.zeros(true.shape, bool)
        mask[garg_crop(*true.shape)] = True
        mask &= (true > 1e-3) & (true < 80)
        true, pred = true[mask], pred[mask]
        pred = np.clip(pred * np.median(true) / np.median(pred), 1e-3, 80)
        worse = np.maximum(true / pred, pred / true)
        errors.append(
            [
                np.mean(np.abs(true - pred) / true),
                np.mean((true - pred) ** 2 / true),
                np.sqrt(np.mean((true - pred) ** 2)),
                np.sqrt(np.mean((np.log(true) - np.log(pred)) ** 2)),
                *(np.mean(worse < 1.25**n) for n in (1, 2, 3)),
            ]
        )
    return np.mean(errors, 0)


def effect_of_resize(weights: Path, data_path: Path, split: str, depths: Any) -> dict:
    """The metrics of a real evaluation, with LANCZOS and with training's fast resize."""
    bench, gt = exported(split, None, data_path)
    loaded = load_depth_model(weights)
    loaded.model.to(pick_device()).eval()
    result = {}
    for name, fast in (("LANCZOS", False), ("fast resize", True)):
        data = bench.dataset(
            data_path, bench.frames(data_path), loaded.height, loaded.width, fast_resize=fast
        )
        disps = predict_disparities(loaded.model, data, 16, -1, *depths)
        summary, _ = score(disps, gt, bench.protocol, 1.0)
        result[name] = summary.errors._asdict()
    return result


def main() -> None:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=697)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=-1)
    parser.add_argument("--rounds", type=int, default=1, help="turns of each")
    parser.add_argument("--no_cuda", action="store_true")
    parser.add_argument("--load_weights_folder", type=Path)
    parser.add_argument("--data_path", type=Path)
    parser.add_argument("--eval_split", default="eigen")
    parser.add_argument("--min_depth", type=float, default=RANGE[0])
    parser.add_argument("--max_depth", type=float, default=RANGE[1])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    a = parser.parse_args()
    if min(a.images, a.batch_size, a.rounds) < 1:
        raise UserError("--images, --batch_size and --rounds must be 1 or more")
    if (a.load_weights_folder is None) != (a.data_path is None):
        raise UserError("--load_weights_folder and --data_path belong together")
    device = pick_device(a.no_cuda)
    result: dict[str, Any] = {"machine": machine(device), "images": a.images}
    print(result["machine"])
    torch.manual_seed(0)
    model = Monodepth(frame_ids=(0,)).to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        frames = make_data(Path(folder), a.images)
        data = KITTIRaw(Path(folder), frames, HEIGHT, WIDTH)
        gt = GroundTruth(Path(folder) / "gt.npz")
        pieces = a.batch_size if device.type == "cuda" else CPU_BATCH
        images = torch.rand(pieces, 3, HEIGHT, WIDTH, device=device)
        means = {}

        @torch.no_grad()
        def network() -> None:
            for i in range(0, a.images, pieces):
                model.disparity(images[: a.images - i])

        def ours() -> None:
            disps = predict_disparities(model, data, a.batch_size, a.num_workers, *RANGE)
            means["ours"] = np.array(score(disps, gt, data.protocol, 1.0)[0].errors)

        def plain() -> None:
            means["textbook"] = textbook(model, data, gt, device)

        runs = {"network alone": network, "ours": ours, "textbook": plain}
        seconds = alternate(runs, a.rounds, device, warm_up=False)
    for name, value in seconds.items():
        added = value / seconds["network alone"] - 1
        print(f"{name:14} {value:6.1f} s, {a.images / value:5.1f} images/s, {added:+.0%}")
    off = np.abs(means["ours"] - means["textbook"]).max()
    ratio = seconds["textbook"] / seconds["ours"]
    print(f"ratio {ratio:.2f}; the metrics differ by {off:.1e} at most")
    result |= {"seconds": seconds, "ratio": ratio, "largest_difference": float(off)}
    result["added_share"] = seconds["ours"] / seconds["network alone"] - 1
    if a.data_path:
        depths = (a.min_depth, a.max_depth)
        both = effect_of_resize(a.load_weights_folder, a.data_path, a.eval_split, depths)
        for name, errors in both.items():
            print(f"{name:14}" + ", ".join(f"{k} {v:.4f}" for k, v in errors.items()))
        result["resize"] = both
    report(result, a.json)


if __name__ == "__main__":
    run_script(main)
