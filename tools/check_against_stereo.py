"""Compare a model's depth with stereo matching: a check on real frames that have no LiDAR.

OpenCV's semi-global matching on the two views of each frame of a KITTI odometry sequence gives
depth = f * baseline / disparity. The model's depth, median-scaled per image, is scored against it
between 1 and 80 m, below a given row.

    python tools/check_against_stereo.py --data_path kitti_odometry --sequence 06 \\
        --load_weights_folder runs/real_check/models/weights_47
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpoint import load_depth_model  # noqa: E402
from datasets import Frame, KITTIOdom, in_unit_range, read_image  # noqa: E402
from doctor.warps import stereo_matcher  # noqa: E402
from layers import disp_to_depth  # noqa: E402
from metrics import Protocol, score_depth, summarise  # noqa: E402
from utils import OneLineParser, run_script  # noqa: E402

BASELINE_M = 0.54


def stereo_depth(left: np.ndarray, right: np.ndarray, focal: float) -> np.ndarray:
    """Depth [H W] in metres of the left view, 0 where the matching is not sure."""
    disparity = stereo_matcher(128).compute(left, right).astype(np.float32) / 16
    depth = np.zeros_like(disparity)
    depth[disparity > 0] = focal * BASELINE_M / disparity[disparity > 0]
    return depth


@torch.no_grad()
def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--sequence", default="06")
    parser.add_argument("--load_weights_folder", type=Path, required=True)
    parser.add_argument("--first_row", type=int, default=150, help="rows above do not count")
    arguments = parser.parse_args()

    def below(height: int, width: int) -> tuple[slice, slice]:
        return slice(arguments.first_row, height), slice(0, width)

    protocol = Protocol("stereo matching", (1.0, 80.0), (1e-3, 80.0), below)
    loaded = load_depth_model(arguments.load_weights_folder)
    model = loaded.model.eval()
    poses = KITTIOdom.read_poses(arguments.data_path, arguments.sequence)
    frames = [Frame(arguments.sequence, i, "l") for i in range(len(poses))]
    data = KITTIOdom(arguments.data_path, frames, loaded.height, loaded.width, use_stereo=True)
    scores = []
    for i, frame in enumerate(frames):
        paths = [data.find_image(f) for f in (frame, frame._replace(side="r"))]
        left, right = (np.asarray(read_image(path).convert("L")) for path in paths)
        gt = stereo_depth(left, right, focal=data.calibrated_K(frame)[0][0, 0])
        disp = model.disparity(in_unit_range(data[i]["color"][:1]))[0, 0]
        scaled, _ = disp_to_depth(disp, 0.1, 100.0)
        scores.append(score_depth(scaled.numpy(), gt, protocol))
    summary = summarise([score for score in scores if score is not None])
    print(f"{summary.images} frames of sequence {arguments.sequence}, {protocol.describe()}")
    print(", ".join(f"{k} {v:.3f}" for k, v in summary.errors._asdict().items()))


if __name__ == "__main__":
    run_script(main)
