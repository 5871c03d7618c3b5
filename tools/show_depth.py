"""One picture of what a model makes of a frame: input, predicted depth, true depth, error.

    python tools/show_depth.py --data_path sample --eval_split sample/splits --frame 20 \\
        --load_weights_folder runs/demo/models/weights_9 --out result.png
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpoint import load_depth_model  # noqa: E402
from datasets import benchmark, in_unit_range  # noqa: E402
from inference import trained_depth_range  # noqa: E402
from layers import disp_to_depth  # noqa: E402
from metrics import resized_depth, score_depth  # noqa: E402
from utils import OneLineParser, UserError, atomic_write, run_script  # noqa: E402


@torch.no_grad()
def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--dataset", default="kitti", choices=("kitti", "kitti_depth", "nyuv2"))
    parser.add_argument("--eval_split", default="eigen")
    parser.add_argument("--frame", type=int, default=0, help="position in the split")
    parser.add_argument("--load_weights_folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("result.png"))
    arguments = parser.parse_args()

    bench = benchmark(arguments.eval_split, arguments.dataset, data_path=arguments.data_path)
    frames = bench.frames(arguments.data_path)
    if not 0 <= arguments.frame < len(frames):
        raise UserError(f"--frame {arguments.frame}: the split has frames 0 to {len(frames) - 1}")
    loaded = load_depth_model(arguments.load_weights_folder)
    frame = frames[arguments.frame]
    cut = {"input_crop": bench.input_crop}
    data = bench.dataset(arguments.data_path, [frame], loaded.height, loaded.width, **cut)
    gt = data.ground_truth(0)
    if gt is None:
        what = data.depth_path(frame) or bench.name
        raise UserError(f"{what}: no ground truth to compare with; choose another --eval_split")
    disp = loaded.model.eval().disparity(in_unit_range(data[0]["color"][:1]))[0, 0]
    depth_range = trained_depth_range(arguments.load_weights_folder)
    scaled = disp_to_depth(disp, *depth_range)[0].numpy()
    score = score_depth(scaled, gt, bench.protocol)
    gt = bench.protocol.seen(gt)
    if score is None:
        raise UserError(f"{data.depth_path(frame)}: no pixel of the ground truth counts")
    pred = np.clip(resized_depth(scaled, gt.shape) * score.ratio, *bench.protocol.pred_range_m)

    rows, columns = np.nonzero(gt)
    truth = gt[rows, columns]
    error = np.abs(pred[rows, columns] - truth) / truth
    near, far = np.percentile(truth, [2, 98])
    wide = gt.shape[1] > 2 * gt.shape[0]
    grid, size = ((4, 1), (10, 13)) if wide else ((2, 2), (12, 10.5))
    figure, axes = plt.subplots(*grid, figsize=size, layout="constrained")
    axes = axes.ravel()
    whole = bench.dataset(arguments.data_path, [frame], *gt.shape, **cut)  # the image as it was cut
    axes[0].imshow(whole[0]["color"][0].permute(1, 2, 0).numpy())
    axes[0].set_title(f"input: {frame}", loc="left")
    inverse = {"cmap": "magma", "vmin": 1 / far, "vmax": 1 / near}
    shown = axes[1].imshow(1 / pred, **inverse)
    axes[1].set_title(
        f"prediction, median-scaled: abs_rel {score.errors.abs_rel:.3f}, a1 {score.errors.a1:.3f}",
        loc="left",
    )
    dot = {"s": 5 * (1242 / gt.shape[1]), "marker": "s", "linewidths": 0}
    axes[2].scatter(columns, rows, c=1 / truth, **inverse, **dot)
    axes[2].set_title(f"truth ({data.depth_source().partition(',')[0]})", loc="left")
    wrong = axes[3].scatter(columns, rows, c=error, cmap="viridis", vmin=0, vmax=0.5, **dot)
    axes[3].set_title("error |prediction - truth| / truth", loc="left")
    for axis in axes:
        axis.set(xlim=(0, gt.shape[1] - 1), ylim=(gt.shape[0] - 1, 0), xticks=[], yticks=[])
        axis.set_aspect("equal")
    for axis in axes[2:]:
        axis.set_facecolor("0.15")
    below, place = (axes[1:3], "right") if wide else (axes[2], "bottom")
    figure.colorbar(shown, ax=below, location=place, label="1 / depth, 1/m", shrink=0.8)
    figure.colorbar(wrong, ax=axes[3], location=place, label="relative error", shrink=0.8)
    with atomic_write(arguments.out) as file:
        figure.savefig(file, format="png", dpi=100)
    print(f"picture of frame {arguments.frame} in {arguments.out}")


if __name__ == "__main__":
    run_script(main)
