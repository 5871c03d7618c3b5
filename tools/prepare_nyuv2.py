"""Make NYU Depth V2 ready for training: the labelled images, and sequences of the raw recordings.

    python tools/prepare_nyuv2.py labelled nyu_depth_v2_labeled.mat nyuv2
    python tools/prepare_nyuv2.py raw nyu_depth_v2_raw nyuv2_raw --labelled nyuv2

`<command> -h` explains each.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.commands import Commands, add_workers, size  # noqa: E402
from tools.nyuv2_labelled import labelled  # noqa: E402
from tools.nyuv2_raw import raw  # noqa: E402
from utils import run_script  # noqa: E402


def main() -> None:
    commands = Commands(__doc__.splitlines()[0], "labelled | raw")
    one = commands.add(
        labelled,
        "images, depth and scenes out of the labelled set's MATLAB file",
        "Write images/img_<i>.jpg (JPEG of quality 95), depth in millimetres as 16-bit PNGs "
        "(depths/gt_<i>.png: filled; raw_depths/: as measured) and scenes.txt, counted from 1. "
        "A second run goes on where the first ended.",
    )
    one.add_argument("mat", type=Path, help="nyu_depth_v2_labeled.mat")
    one.add_argument("out", type=Path, help="folder to write, as nyuv2")
    one.add_argument("--png", action="store_true", help="lossless images instead of JPEGs")
    add_workers(one)

    one = commands.add(
        raw,
        "training sequences out of the raw recordings",
        "Write JPEG sequences of the raw recordings, undistorted, cut and resized, in which "
        "neighbours have parallax: <scene>/<i>.jpg with the camera in <scene>/intrinsics.json, "
        "depth as the colour camera sees it in <scene>/depth/, and the split nyuv2_raw. A second "
        "run goes on where the first ended, with scenes that have come too.",
    )
    one.add_argument("scenes", type=Path, help="the raw recordings, or a part of their scenes")
    one.add_argument("out", type=Path, help="folder to write, as nyuv2_raw")
    one.add_argument(
        "--labelled",
        type=Path,
        metavar="FOLDER",
        help="the prepared labelled set: leave out rooms of its official test images",
    )
    one.add_argument(
        "--size", type=size, default=(384, 288), metavar="WxH", help="(default: 384x288)"
    )
    one.add_argument(
        "--crop",
        type=int,
        default=16,
        metavar="PIXELS",
        help="cut off all round, where undistorted images are black (default: 16)",
    )
    one.add_argument(
        "--min_parallax",
        type=float,
        default=3.0,
        metavar="PIXELS",
        help="shift of the most shifted quarter of points against the frame kept before that no "
        "turn of the camera explains, in pixels of 640x480; frames with less are passed over "
        "(default: 3)",
    )
    one.add_argument("--no_depth", action="store_true", help="images only")
    add_workers(one)
    commands.run()


if __name__ == "__main__":
    run_script(main)
