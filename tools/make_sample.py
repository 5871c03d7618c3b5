"""Make a small world with exact depth and motion, in the files of KITTI or NYU Depth V2.

    python tools/make_sample.py street sample     # KITTI raw and odometry
    python tools/make_sample.py room sample_room  # NYUv2's labelled .mat and raw recordings

It needs no download, and data sets, export, training and evaluation take it for the real thing.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.commands import Commands, add_workers, size  # noqa: E402
from tools.nyuv2_mat import write_labelled_mat  # noqa: E402
from tools.prepared import claim  # noqa: E402
from tools.render import pixel_rays  # noqa: E402
from tools.sample_files import (  # noqa: E402
    labelled_samples,
    nominal_K,
    raw_frames,
    write_calibration,
    write_journey,
    write_moment,
    write_raw_scene,
    write_splits,
    write_text,
    write_video,
)
from tools.scenery import Setting, room, street  # noqa: E402
from utils import UserError, in_parallel, pick_device, run_script  # noqa: E402

SHORTEST = 8  # frames of a drive


def make_street(
    out: Path,
    frames: Sequence[int] = (40,) * 6,
    test_drives: int = 2,
    image_size: tuple[int, int] = (416, 128),
    png: bool = False,
    seed: int = 0,
    setting: Setting | None = None,
    num_workers: int = -1,
    video: bool = False,
) -> None:
    """Write drives, each in a street of its own; the last ones are held out as the test.

    Args:
        frames: how many of each drive.
        image_size: width and height in pixels.
        setting: what the streets and journeys have; None is the usual.
        video: write what the left cameras saw as videos too.
    """
    width, height = image_size
    setting = setting or Setting()
    lengths = dict(enumerate(frames, start=1))
    first_test = len(frames) - test_drives + 1
    about = {"world": "street", "image_size": image_size, "png": png, "seed": seed}
    about |= {"frames": frames, "test_drives": test_drives} | setting._asdict()
    claim(out, json.loads(json.dumps(about)))
    device = pick_device()
    films = {
        n: street(np.random.default_rng([seed, n]), length, setting, device)
        for n, length in lengths.items()
    }
    K = nominal_K(width, height)
    write_calibration(out, K, image_size, len(frames))
    for number, film in films.items():
        write_journey(out, number, film.poses)
    view = {"rays": pixel_rays(K, height, width), "kind": "PNG", "suffix": "png", "quality": {}}
    if not png:
        view |= {"kind": "JPEG", "suffix": "jpg", "quality": {"quality": 95}}

    def write(moment: tuple[int, int]) -> None:
        number, frame = moment
        write_moment(out, number, films[number], frame, K, view)

    moments = [
        (number, frame) for number, film in films.items() for frame in range(len(film.poses))
    ]
    in_parallel(write, moments, num_workers, "frame")
    for number, length in lengths.items() if video else ():
        write_video(out, number, length, view["suffix"])
    train = {number: length for number, length in lengths.items() if number < first_test}
    write_splits(out, train, {n: length for n, length in lengths.items() if n not in train})


def make_room(
    out: Path,
    scenes: int = 6,
    frames: int = 12,
    raw_scenes: int = 0,
    seed: int = 0,
    setting: Setting | None = None,
    num_workers: int = -1,
) -> None:
    """Write `nyu_depth_v2_labeled.mat`, a room for each scene, and a split `sample` of it that
    validates on the last scene but one and tests on the last; raw recordings of more rooms in
    `raw/`."""
    setting = setting or Setting()
    about = {"world": "room", "scenes": scenes, "frames": frames, "raw_scenes": raw_scenes}
    claim(out, about | {"seed": seed} | setting._asdict())
    device = pick_device()
    films = [
        room(np.random.default_rng([seed, i]), frames, setting, device)
        for i in range(scenes + raw_scenes)
    ]
    labelled = films[:scenes]
    names = [f"room_{i + 1:04d}" for i in range(scenes) for _ in range(frames)]
    samples = tqdm(
        labelled_samples(labelled, num_workers),
        total=scenes * frames,
        unit="image",
        dynamic_ncols=True,
    )
    write_labelled_mat(out / "nyu_depth_v2_labeled.mat", samples, names)
    for i, film in enumerate(films[scenes:], start=1):
        write_raw_scene(out / "raw" / f"room_{scenes + i:04d}", raw_frames(film))
    first = 1
    for part, count in (("train", scenes - 2), ("val", 1), ("test", 1)):
        last = first + count * frames - 1
        write_text(out / f"splits/sample/{part}_files.txt", [f"images {first}-{last} l"])
        first = last + 1


# The command --------------------------------------------------------------------------------------


def add_setting(command: Any) -> None:
    """The flags that every world has."""
    add_workers(command)
    command.add_argument("out", type=Path, help="folder to fill")
    command.add_argument("--seed", type=int, default=0, help="another world for each number")
    usual = Setting()
    command.add_argument(
        "--rotation",
        type=float,
        default=usual.rotation,
        help="bends of the street, turns of the camera; 1: usual, 0: none",
    )
    command.add_argument(
        "--standing", type=float, default=usual.standing, help="share of the time it stands"
    )
    command.add_argument(
        "--exposure", type=float, default=usual.exposure, help="brightness changes by this share"
    )
    command.add_argument(
        "--textureless", type=float, default=usual.textureless, help="share of plain things"
    )


def chosen_setting(arguments: dict[str, Any]) -> Setting:
    """The setting among a command's arguments, which it is taken out of.

    Raises:
        UserError: a number that makes no world.
    """
    setting = Setting(**{n: arguments.pop(n) for n in Setting._fields if n in arguments})
    limits = Setting(rotation=5, moving_cars=20, standing=0.9, exposure=1, textureless=1)
    for name, value, limit in zip(Setting._fields, setting, limits, strict=True):
        if not 0 <= value <= limit:
            raise UserError(f"--{name} {value:g}: give 0 to {limit:g}")
    return setting


def demand_counts(least: dict[str, int], given: dict[str, Any]) -> None:
    """Refuse counts below the least that make sense."""
    for name, value in least.items():
        if given[name] < value:
            raise UserError(f"--{name} {given[name]}: give {value} or more")


def street_command(out: Path, **given: Any) -> None:
    setting = chosen_setting(given)
    demand_counts({"test_drives": 1, "seed": 0}, given)
    if min(given["frames"]) < SHORTEST:
        raise UserError(f"--frames {min(given['frames'])}: give {SHORTEST} or more for each drive")
    if given["test_drives"] >= len(given["frames"]):
        raise UserError(
            f"--test_drives {given['test_drives']} leaves none of {len(given['frames'])} drives to "
            "train on: give a number to --frames for each drive"
        )
    make_street(out=out, image_size=size(given.pop("size")), setting=setting, **given)
    print(
        f"{len(given['frames'])} drives, the last {given['test_drives']} held out, in {out}\n"
        "train with --data_path of this folder and --split sample --intrinsics calib"
    )


def room_command(out: Path, **given: Any) -> None:
    setting = chosen_setting(given)
    demand_counts({"scenes": 3, "frames": 3, "raw_scenes": 0, "seed": 0}, given)
    make_room(out=out, setting=setting, **given)
    print(f"{given['scenes']} rooms in {out / 'nyu_depth_v2_labeled.mat'}, split in {out}/splits")
    if given["raw_scenes"]:
        print(f"{given['raw_scenes']} raw recordings in {out / 'raw'}")


def main() -> None:
    torch.set_num_threads(1)  # the frames are what is done in parallel
    commands = Commands(__doc__.partition("\n")[0], "street | room")
    one = commands.add(
        street_command, "a street: KITTI raw and odometry", "Streets in KITTI's files.", "street"
    )
    add_setting(one)
    one.add_argument("--moving_cars", type=int, default=0, help="that drive in each street")
    one.add_argument(
        "--frames", type=int, nargs="+", default=[40] * 6, help="of each drive, which has a street"
    )
    one.add_argument("--test_drives", type=int, default=2, help="so many, the last, are held out")
    one.add_argument("--size", default="416x128", help="of the images")
    one.add_argument("--png", action="store_true", help="images as PNG instead of JPEG")
    one.add_argument("--video", action="store_true", help="each drive also as videos/drive_*.mp4")
    one = commands.add(
        room_command, "a room: NYUv2's labelled file and raw recordings",
        "Rooms in the files of NYU Depth V2.", "room",
    )  # fmt: skip
    add_setting(one)
    one.add_argument(
        "--scenes",
        type=int,
        default=6,
        help="rooms; the last is the test's, the one before it validates",
    )
    one.add_argument("--frames", type=int, default=12, help="of each room")
    one.add_argument("--raw_scenes", type=int, default=0, help="rooms as raw recordings")
    commands.run()


if __name__ == "__main__":
    run_script(main)
