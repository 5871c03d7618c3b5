"""Where the time of exporting LiDAR ground truth goes: reading, projecting, writing.

python benchmarks/export_ground_truth.py --data_path kitti_data --split eigen
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets import KITTIRaw, read_split, split_folder, write_ground_truth
from datasets.kitti import CAMERA
from datasets.velodyne import project_scan, read_scan, velodyne_to_image
from utils import OneLineParser, UserError, run_script

COLD = "read, from the disk"


def forget(path: Path) -> None:
    """Ask the system to drop a file from its cache, so that the next read is from the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        raise UserError(f"{path}: no such scan; is --data_path right?") from None
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def main() -> None:
    parser = OneLineParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--split", default="eigen", help="name or path; its test_files.txt is used")
    args = parser.parse_args()
    frames = read_split(split_folder(args.split) / "test_files.txt")
    data = KITTIRaw(args.data_path, frames, height=0, width=0, frame_ids=())
    seconds = {COLD: 0.0, "read, cached": 0.0, "project": 0.0, "write": 0.0}
    if not hasattr(os, "posix_fadvise"):
        del seconds[COLD]  # no way to ask for it

    def timed(what: str, function, *args):
        start = time.perf_counter()
        result = function(*args)
        seconds[what] += time.perf_counter() - start
        return result

    with tempfile.TemporaryDirectory() as folder:
        for i, frame in enumerate(tqdm(frames, unit="frame", dynamic_ncols=True)):
            path = data.depth_path(frame)
            if COLD in seconds:
                forget(path)
                timed(COLD, read_scan, path)
            scan = timed("read, cached", read_scan, path)
            P = velodyne_to_image((args.data_path / frame.folder).parent, CAMERA[frame.side])
            _, (width, height) = data.calibrated_K(frame)
            depth = timed("project", project_scan, scan, P, height, width)
            target = Path(folder) / f"{i}.npz"
            timed("write", write_ground_truth, target, [frame], [depth], "LiDAR", "KITTIRaw")
    print(f"{len(frames)} scans of about {len(scan)} points, one thread")
    for what, total in seconds.items():
        print(f"{what:<20} {1000 * total / len(frames):6.1f} ms a frame")


if __name__ == "__main__":
    run_script(main)
