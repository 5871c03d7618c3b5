"""The made-up street's KITTI sequences as folders of one's own, for --dataset folder."""

import json

from datasets.velodyne import calibration_matrix
from tools.sample_files import BASELINE_M, drive_name


def write_camera(folder, **changes):
    """Change values of a folder's intrinsics.json; None takes one out."""
    path = folder / "intrinsics.json"
    values = (json.loads(path.read_text()) if path.is_file() else {}) | changes
    path.write_text(json.dumps({name: v for name, v in values.items() if v is not None}))


def as_folder(street, out, drives=(1, 2, 3), last=11, **changes):
    """A link to each drive's images and true depth, its camera, and the split `video`."""
    for number in drives:
        name = f"drive_{number:04d}"
        folder, drive = out / name, street / drive_name(number)
        folder.mkdir(parents=True)
        calib = street / f"sequences/{number:02d}/calib.txt"
        P = calibration_matrix(calib, "P2", 3, 4)
        for link, target in (
            ("left", drive / "image_02/data"),
            ("right", drive / "image_03/data"),
            ("depth", drive / "proj_depth/groundtruth/image_02"),
        ):
            (folder / link).symlink_to(target)
        write_camera(
            folder, fx=P[0, 0], fy=P[1, 1], cx=P[0, 2], cy=P[1, 2], width=416, height=128,
            images="left", stereo={"images": "right", "baseline_m": BASELINE_M},
            depth={"images": "depth", "metres_per_unit": 1 / 256}, **changes,
        )  # fmt: skip
    split = out / "splits/video"
    split.mkdir(parents=True)
    lines = {
        "train": [f"drive_{n:04d} 1-{last - 4} lr" for n in drives[:-1]],
        "val": [f"drive_{n:04d} {last - 2}-{last - 1} l" for n in drives[:-1]],
        "test": [f"drive_{drives[-1]:04d} 0-{last} l"],
    }
    for part, text in lines.items():
        (split / f"{part}_files.txt").write_text("\n".join(text) + "\n")
    return out
