"""Make KITTI ready for training: what to download, PNG to JPEG, a look into every image.

    python tools/prepare_kitti.py archives --split eigen_zhou --data_path kitti_data
    python tools/prepare_kitti.py archives --split eigen_zhou --data_path kitti_data --urls \\
        | wget -c -i -
    python tools/prepare_kitti.py convert --data_path kitti_data
    python tools/prepare_kitti.py verify --split eigen_zhou --data_path kitti_data

`<command> -h` explains each.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.commands import Commands, add_workers, size  # noqa: E402
from tools.kitti_archives import SERVER, archives  # noqa: E402
from tools.kitti_convert import convert  # noqa: E402
from tools.kitti_verify import verify  # noqa: E402
from utils import run_script  # noqa: E402


def main() -> None:
    commands = Commands(__doc__.splitlines()[0], "archives | convert | verify")

    one = commands.add(
        archives,
        "which official archives a split needs, and which are missing",
        "Which official archives a split needs and which are missing. Sizes are estimates from the "
        "number of frames.",
    )
    one.add_argument("--split", required=True, help="name of a folder in splits/, or a path")
    one.add_argument(
        "--data_path",
        type=Path,
        default=ROOT / "kitti_data",
        help="where they are unpacked (default: kitti_data beside the code)",
    )
    one.add_argument("--url", default=SERVER, help="of a mirror (default: KITTI's own server)")
    style = one.add_mutually_exclusive_group()
    style.add_argument("--sizes", action="store_true", help="ask the server for exact sizes")
    style.add_argument(
        "--urls", action="store_true", help="only the URLs to fetch, as for wget -c -i -"
    )

    one = commands.add(
        convert,
        "make JPEGs of the colour PNGs",
        "Make JPEGs (4:2:0) of the colour PNGs of raw recordings and odometry sequences. "
        "A second run goes on where the first ended. Where both are, training takes the JPEG "
        "(with --png the PNG). With --out, calibration, times and poses come along; "
        "velodyne_points/, proj_depth/ and the grey cameras do not: export the ground truth from "
        "the original tree.",
    )
    one.add_argument("--data_path", type=Path, required=True)
    one.add_argument("--out", type=Path, help="other folder (default: beside each PNG)")
    one.add_argument(
        "--size",
        type=size,
        metavar="WxH",
        help="also resize (LANCZOS), images that are JPEG already too; needs --out, and the "
        "odometry calibration is resized alike",
    )
    one.add_argument("--quality", type=int, default=92, help="of the JPEGs, 1 to 95 (default: 92)")
    one.add_argument(
        "--delete_originals",
        action="store_true",
        help="delete each PNG once its JPEG has been read back whole; not with --size",
    )
    add_workers(one)

    one = commands.add(
        verify,
        "decode every image of a split",
        "Decode every image of a split's files. Missing, corrupt and wrong-size files are named.",
    )
    one.add_argument("--split", required=True, help="name of a folder in splits/, or a path")
    one.add_argument("--data_path", type=Path, required=True)
    one.add_argument(
        "--dataset", choices=("kitti", "kitti_odom"), help="default: by the folders' names"
    )
    one.add_argument("--png", action="store_true", help="PNG images only")
    one.add_argument(
        "--frame_ids", type=int, nargs="+", default=[0], help="neighbours too, where they exist"
    )
    one.add_argument("--use_stereo", action="store_true", help="stereo partners too")
    add_workers(one)

    commands.run()


if __name__ == "__main__":
    run_script(main)
