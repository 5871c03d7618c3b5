"""Make training sequences of your own videos, or of folders of images.

    python tools/prepare_video.py clip.mp4 --fov_deg 70
    python tools/prepare_video.py *.mp4 --out drives --camera cameras.txt --fps 10 --size 640x192
    python tools/prepare_video.py photos --out walk --source_fps 5 --crop 0 0 0 80

Every clip becomes a folder of frames that moved on, with its camera in intrinsics.json; the split
`video` is of all clips and validates on the end of each. A second run goes on with the clips that
are missing.
"""

import math
import os
import re
import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from camera import Camera  # noqa: E402
from datasets.folder import not_black  # noqa: E402
from media import open_image  # noqa: E402
from tools.commands import add_camera, add_workers, size  # noqa: E402
from tools.video_camera import Known  # noqa: E402
from tools.video_run import prepare  # noqa: E402
from tools.video_sequence import Settings  # noqa: E402
from utils import OneLineParser, UserError, run_script  # noqa: E402

DISTORTIONS = (2, 4, 5)  # how many of k1 k2 p1 p2 k3


def parser() -> OneLineParser:
    """The command line."""
    parser = OneLineParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("inputs", type=Path, nargs="+", metavar="CLIP", help="videos, or folders of images")
    add("--out", type=Path, default=Path("video"), help="folder to write (default: video)")
    add_workers(parser)
    group = parser.add_argument_group("which frames")
    add = group.add_argument
    add("--fps", type=float, help="frames per second to keep (default: all)")
    add("--source_fps", type=float, help="what folders of images have of them")
    add("--start", type=float, default=0.0, metavar="SECONDS", help="leave out what is before")
    add("--end", type=float, default=math.inf, metavar="SECONDS", help="leave out what is after")
    add(
        "--min_motion",
        type=float,
        default=Settings().min_motion,
        metavar="PIXELS",
        help="shift of the most shifted quarter of points against the frame kept before that no "
        "turn of the camera explains, in pixels of pictures 640 long; frames with less are passed "
        "over (default: 1.5); 0 keeps all frames, cuts included",
    )
    group = parser.add_argument_group(
        "camera, in pixels of the clip's frames, upright",
        "Photos that say their focal length need none.",
    )
    add_camera(group)
    add = group.add_argument
    add(
        "--camera",
        type=Path,
        metavar="FILE",
        help="in place of all others: intrinsics.json, COLMAP's cameras.txt, OpenCV's or ROS's "
        "calibration (.yaml, .json)",
    )
    add(
        "--distortion",
        type=float,
        nargs="+",
        default=(),
        metavar="K",
        help="OpenCV's k1 k2 [p1 p2 [k3]]: frames are straightened, and cut to what is not black",
    )
    group = parser.add_argument_group("what is written")
    add = group.add_argument
    add("--size", type=size, metavar="WxH", help="(default: as it comes, 1280 long at most)")
    add(
        "--crop",
        type=int,
        nargs=4,
        default=(0, 0, 0, 0),
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="pixels of the frames to cut off",
    )
    add("--crop_borders", action="store_true", help="cut off black borders")
    add(
        "--mask",
        type=Path,
        metavar="FILE",
        help="image of a frame's size that is black where the own vehicle is seen",
    )
    return parser


def chosen(given: dict) -> tuple[Settings, Known]:
    """Settings and camera of a command line.

    Raises:
        UserError: values that cannot be, or do not go together.
    """
    for name in ("fps", "source_fps"):
        if given[name] is not None and not 0 < given[name] < math.inf:
            raise UserError(f"--{name} {given[name]:g}: give a number above 0")
    span = given["start"], given["end"]
    if not (0 <= span[0] < span[1] and span[0] < math.inf):
        raise UserError(f"--start {span[0]:g} --end {span[1]:g}: are no seconds of a clip")
    if not 0 <= given["min_motion"] < math.inf:
        raise UserError(f"--min_motion {given['min_motion']:g}: give pixels, 0 or more")
    margins = tuple(given["crop"])
    if min(margins) < 0:
        raise UserError(f"--crop {' '.join(map(str, margins))}: give pixels, 0 or more")
    camera = Camera(*(given[name] for name in Camera._fields))
    if fault := camera.fault():
        raise UserError(fault)
    distortion = tuple(given["distortion"])
    flags = [f"--{name}" for name, value in camera._asdict().items() if value is not None]
    flags += ["--distortion"] * bool(distortion)
    if given["camera"] is not None and flags:
        raise UserError(f"--camera is a file that has it all: leave out {flags[0]}")
    if distortion and (len(distortion) not in DISTORTIONS or not np.isfinite(distortion).all()):
        raise UserError("--distortion: give the numbers k1 k2, k1 k2 p1 p2 or k1 k2 p1 p2 k3")
    if flags == ["--distortion"]:
        raise UserError("--distortion needs the camera that it belongs to: add --fx or --fov_deg")
    settings = Settings(
        given["size"], given["fps"], span, margins, given["crop_borders"], given["min_motion"],
        given["mask"] and read_mask(given["mask"]),
    )  # fmt: skip
    return settings, Known(camera, given["camera"], distortion)


def read_mask(path: Path) -> Bool[ndarray, "H W"]:
    """A mask: false where it is black.

    Raises:
        UserError: it is no image, or black all over.
    """
    mask = not_black(open_image(path))
    if not mask.any():
        raise UserError(f"{path}: is black all over; black is what is left out")
    return mask


def plain(word: str) -> str:
    """-1e-3 as -0.001, for argparse takes the former for a flag."""
    number = re.fullmatch(r"-(\d+\.?\d*|\.\d+)e[+-]?\d{1,2}", word, re.I)
    return f"{float(word):.20f}" if number else word


def main() -> None:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # clips that are damaged get our line
    given = vars(parser().parse_args([plain(word) for word in sys.argv[1:]]))
    settings, known = chosen(given)
    others = {name: given[name] for name in ("inputs", "out", "source_fps", "num_workers")}
    prepare(settings=settings, known=known, **others)


if __name__ == "__main__":
    run_script(main)
