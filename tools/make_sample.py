"""Make a small world with exact depth and motion, in the files of KITTI or NYU Depth V2.

    python tools/make_sample.py street sample     # KITTI raw and odometry
    python tools/make_sample.py room sample_room  # NYUv2's labelled .mat and raw recordings

It needs no download, and data sets, export, training and evaluation take it for the real thing.
"""

import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.kinect import (  # noqa: E402
    COLOUR_DISTORTION,
    COLOUR_K,
    DEPTH_DISTORTION,
    DEPTH_K,
    DEPTH_TO_COLOUR_R,
    DEPTH_TO_COLOUR_T_M,
    HEIGHT,
    MAX_DEPTH_M,
    WIDTH,
    metres,
    register,
)
from tools.commands import Commands, add_workers, size  # noqa: E402
from tools.nyuv2_mat import write_labelled_mat  # noqa: E402
from tools.prepared import claim  # noqa: E402
from tools.render import cast, pixel_rays, render  # noqa: E402
from tools.scenery import Film, Setting, room, street  # noqa: E402
from utils import (  # noqa: E402
    UserError,
    atomic_write,
    count_workers,
    in_parallel,
    pick_device,
    run_script,
)

DATE = "2011_09_26"
START = datetime(2011, 9, 26, 13, 0, 0)
FRAME_S = 0.1
SHORTEST = 8  # frames of a drive
BASELINE_M = 0.54
RIGHT_IN_LEFT = np.eye(4)  # pose of the right camera in the left one's frame
RIGHT_IN_LEFT[0, 3] = BASELINE_M
VELODYNE_IN_CAMERA = np.array([[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1.0]])
REACH_M = 100.0  # of the scanner
DEPTH_UNITS = 256  # of a metre, in depth images
EAST_NORTH_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # of x right, y down, z ahead
EARTH_M = 6378137.0
HOME_DEG = 49.0, 8.4  # latitude and longitude of the world's origin
NOMINAL_K = (0.58, 1.92, 0.5, 0.5)  # fx, fy, cx, cy over the image's size
DEPTH_IN_COLOUR = np.eye(4)  # of the Kinect; its constants move points, which here is the pose
DEPTH_IN_COLOUR[:3, :3], DEPTH_IN_COLOUR[:3, 3] = DEPTH_TO_COLOUR_R, DEPTH_TO_COLOUR_T_M


def write_text(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path, "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def numbers(values: Any, digits: int = 12) -> str:
    return " ".join(f"{x:.{digits}e}" for x in np.ravel(values))


def developed(image: np.ndarray, gain: float = 1.0) -> Image.Image:
    """The picture of linear colours in [0, 1]."""
    return Image.fromarray((255 * np.clip(gain * image, 0, 1) + 0.5).astype(np.uint8))


# KITTI --------------------------------------------------------------------------------------------


def nominal_K(width: int, height: int) -> np.ndarray:
    fx, fy, cx, cy = np.array(NOMINAL_K) * (width, height, width, height)
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def drive_name(number: int) -> str:
    return f"{DATE}/{DATE}_drive_{number:04d}_sync"


def scan(film: Film, frame: int) -> np.ndarray:
    """The part of a 64-beam scan [N 4] that the cameras look at: x forward, y left, z up in metres,
    reflectance 0."""
    azimuth, elevation = np.meshgrid(
        np.radians(np.arange(-45, 45, 0.2)), np.radians(np.linspace(2, -24.8, 64)), indexing="ij"
    )
    ahead = np.cos(elevation)
    rays = np.stack([ahead * np.cos(azimuth), ahead * np.sin(azimuth), np.sin(elevation)], -1)
    rays = rays.reshape(-1, 3)
    world, pose = film.at(frame), film.poses[frame] @ VELODYNE_IN_CAMERA
    origin, turned = (torch.tensor(a).to(world.into) for a in (pose[:3, 3], rays @ pose[:3, :3].T))
    distance = cast(world, origin, turned).distance.cpu().numpy()
    seen = distance < REACH_M
    points = rays[seen] * distance[seen, None]
    return np.column_stack([points, np.zeros(len(points))]).astype(np.float32)


def write_moment(out: Path, number: int, film: Film, frame: int, K: np.ndarray, view: dict) -> None:
    """Images and true depth of both cameras and the scan, once as raw drive, once as sequence."""
    rays, kind = view["rays"], view["kind"]
    folder = out / drive_name(number)
    for camera, offset in ((2, np.eye(4)), (3, RIGHT_IN_LEFT)):
        image, depth_m, _ = render(film.at(frame), film.poses[frame] @ offset, K, rays)
        memory = io.BytesIO()
        developed(image, film.gain[frame]).save(memory, kind, **view["quality"])
        for path in (
            folder / f"image_{camera:02d}/data/{frame:010d}.{view['suffix']}",
            out / f"sequences/{number:02d}/image_{camera}/{frame:06d}.{view['suffix']}",
        ):
            with atomic_write(path) as file:
                file.write(memory.getvalue())
        units = np.round(np.where(depth_m < 65535 / DEPTH_UNITS, depth_m, 0) * DEPTH_UNITS)
        true_depth = folder / f"proj_depth/groundtruth/image_{camera:02d}/{frame:010d}.png"
        with atomic_write(true_depth) as file:
            Image.fromarray(units.astype(np.uint16)).save(file, "PNG", compress_level=1)
    with atomic_write(folder / f"velodyne_points/data/{frame:010d}.bin") as file:
        file.write(scan(film, frame).tobytes())


def oxts(poses: np.ndarray) -> np.ndarray:
    """What the navigation system, which sits at the scanner, notes at each pose [N 4 4]: [N 30]."""
    places = poses @ VELODYNE_IN_CAMERA
    enu = places[:, :3, 3] @ EAST_NORTH_UP.T
    scale = np.cos(np.radians(HOME_DEG[0]))
    home = np.log(np.tan(np.radians(90 + HOME_DEG[0]) / 2))
    latitude = 2 * np.degrees(np.arctan(np.exp(home + enu[:, 1] / (scale * EARTH_M)))) - 90
    longitude = HOME_DEG[1] + np.degrees(enu[:, 0] / (scale * EARTH_M))
    turn = Rotation.from_matrix(EAST_NORTH_UP @ places[:, :3, :3])
    yaw, pitch, roll = turn.as_euler("ZYX").T

    def rate(values: np.ndarray) -> np.ndarray:
        return np.gradient(values, FRAME_S, axis=0) if len(values) > 1 else 0 * values

    velocity = rate(enu)
    acceleration = turn.inv().apply(rate(velocity))
    steps = (turn[:-1].inv() * turn[1:]).as_rotvec() / FRAME_S
    spin = np.concatenate([steps, steps[-1:]]) if len(steps) else 0 * enu
    own = turn.inv().apply(velocity)
    notes = np.zeros((len(poses), 30))
    notes[:, :3] = np.stack([latitude, longitude, enu[:, 2]], 1)
    notes[:, 3:6] = np.stack([roll, pitch, yaw], 1)
    notes[:, 6:8] = velocity[:, [1, 0]]  # north, east
    notes[:, 8:11] = own
    notes[:, 11:14] = notes[:, 14:17] = acceleration
    notes[:, 17:20] = notes[:, 20:23] = spin
    notes[:, 23:25] = 0.01  # accuracies
    notes[:, 25:] = 4, 10, 4, 4, 4  # modes of the receiver
    return notes


def write_journey(out: Path, number: int, poses: np.ndarray) -> None:
    """Times, navigation and true poses of a drive; as a sequence it begins at the identity."""
    folder = out / drive_name(number)
    times = [START + timedelta(minutes=number, seconds=FRAME_S * i) for i in range(len(poses))]
    stamps = [f"{time:%Y-%m-%d %H:%M:%S.%f}000" for time in times]
    for part in ("image_02", "image_03", "velodyne_points", "oxts"):
        write_text(folder / part / "timestamps.txt", stamps)
    for i, notes in enumerate(oxts(poses)):
        fields = [f"{x:.15g}" for x in notes[:25]] + [f"{x:.0f}" for x in notes[25:]]
        write_text(folder / f"oxts/data/{i:010d}.txt", [" ".join(fields)])
    write_text(folder / "poses.txt", [numbers(pose[:3]) for pose in poses])
    from_start = np.linalg.inv(poses[0]) @ poses
    write_text(out / f"poses/{number:02d}.txt", [numbers(pose[:3]) for pose in from_start])
    sequence = out / f"sequences/{number:02d}"
    write_text(sequence / "times.txt", [f"{FRAME_S * i:.6e}" for i in range(len(poses))])


def write_calibration(out: Path, K: np.ndarray, image_size: tuple[int, int], drives: int) -> None:
    """The rig in KITTI's files: cameras 0 and 2 are one left camera, 1 and 3 the right one."""
    lines = ["calib_time: 26-Sep-2011 13:00:00", f"corner_dist: {numbers(0.1)}"]
    projections = {}
    for camera in range(4):
        offset = BASELINE_M * (camera % 2)
        P = np.column_stack([K, K @ [-offset, 0, 0]])
        projections[camera] = P
        for name, values in (
            ("S", image_size), ("K", K), ("D", np.zeros(5)), ("R", np.eye(3)),
            ("T", [-offset, 0, 0]), ("S_rect", image_size), ("R_rect", np.eye(3)), ("P_rect", P),
        ):  # fmt: skip
            lines.append(f"{name}_{camera:02d}: {numbers(values)}")
    write_text(out / DATE / "calib_cam_to_cam.txt", lines)
    for name, pose in (("velo_to_cam", VELODYNE_IN_CAMERA), ("imu_to_velo", np.eye(4))):
        lines = [f"R: {numbers(pose[:3, :3])}", f"T: {numbers(pose[:3, 3])}"]
        write_text(out / DATE / f"calib_{name}.txt", lines)
    lines = [f"P{camera}: {numbers(P)}" for camera, P in projections.items()]
    lines.append(f"Tr: {numbers(VELODYNE_IN_CAMERA[:3])}")
    for number in range(1, drives + 1):
        write_text(out / f"sequences/{number:02d}/calib.txt", lines)


def write_splits(out: Path, train: dict[int, int], test: dict[int, int]) -> None:
    """`sample` and `sample_odom`: frames by the number of each drive; validation is the end of each
    training drive."""
    for name, folder in (("sample", drive_name), ("sample_odom", str)):
        parts: dict[str, list[str]] = {"train": [], "val": []}
        for number, frames in train.items():
            last = frames - 1 - max(1, frames // 10)
            parts["train"].append(f"{folder(number)} 1-{last - 1} lr")
            parts["val"].append(f"{folder(number)} {last}-{frames - 2} l")
        if name == "sample":
            parts["test"] = [f"{folder(n)} 0-{frames - 1} l" for n, frames in test.items()]
        for part, lines in parts.items():
            write_text(out / "splits" / name / f"{part}_files.txt", lines)


def make_street(
    out: Path,
    frames: Sequence[int] = (40,) * 6,
    test_drives: int = 2,
    image_size: tuple[int, int] = (416, 128),
    png: bool = False,
    seed: int = 0,
    setting: Setting | None = None,
    num_workers: int = -1,
) -> None:
    """Write drives, each in a street of its own; the last ones are held out as the test.

    Args:
        frames: how many of each drive.
        image_size: width and height in pixels.
        setting: what the streets and journeys have; None is the usual.
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
    train = {number: length for number, length in lengths.items() if number < first_test}
    write_splits(out, train, {n: length for n, length in lengths.items() if n not in train})


# NYU Depth V2 -------------------------------------------------------------------------------------


def readings(depth_m: np.ndarray) -> np.ndarray:
    """The 11-bit numbers that the Kinect has for depth in metres; 2047 is none."""
    with np.errstate(divide="ignore"):
        raw = np.round(1092.5 - 351.3 / depth_m)
    return np.where((depth_m > 0.4) & (depth_m < MAX_DEPTH_M), raw, 2047).astype(np.uint16)


def sensor_depth(film: Film, frame: int) -> np.ndarray:
    """Depth [480 640] in metres as the Kinect's depth camera sees it."""
    rays = pixel_rays(DEPTH_K, HEIGHT, WIDTH, DEPTH_DISTORTION)
    world, pose = film.at(frame), film.poses[frame] @ DEPTH_IN_COLOUR
    turned = torch.tensor(rays.transpose(1, 0, 2).reshape(-1, 3) @ pose[:3, :3].T).to(world.into)
    distance = cast(world, torch.tensor(pose[:3, 3]).to(world.into), turned).distance
    return distance.view(WIDTH, HEIGHT).T.cpu().numpy()


def labelled_samples(
    films: list[Film], num_workers: int = -1
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Image, true depth, and what the sensor measured of it, of all frames."""
    rays = pixel_rays(COLOUR_K, HEIGHT, WIDTH)

    def sample(moment: tuple[Film, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        film, frame = moment
        image, depth_m, _ = render(film.at(frame), film.poses[frame], COLOUR_K, rays)
        measured = register(metres(readings(sensor_depth(film, frame))))
        return np.asarray(developed(image, film.gain[frame])), depth_m, measured

    with ThreadPoolExecutor(max(count_workers(num_workers), 1)) as pool:
        for film in films:  # one after the other: samples wait in memory to be taken
            yield from pool.map(sample, [(film, frame) for frame in range(len(film.poses))])


def raw_frames(film: Film) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Colour image through the lens and depth in metres of the depth camera."""
    rays = pixel_rays(COLOUR_K, HEIGHT, WIDTH, COLOUR_DISTORTION)
    for frame, pose in enumerate(film.poses):
        image, _, _ = render(film.at(frame), pose, COLOUR_K, rays)
        yield developed(image, film.gain[frame]), sensor_depth(film, frame)


def write_raw_scene(
    folder: Path,
    frames: Iterable[tuple[Image.Image, np.ndarray]],
    seconds: list[float] | None = None,
) -> None:
    """A raw recording: INDEX.txt, a colour image `r-*.ppm` and a depth image `d-*.pgm` a frame.

    Args:
        frames: colour image, and depth [480 640] in metres of the depth camera.
        seconds: when; None is 25 frames a second.
    """
    names = []
    for i, (image, depth_m) in enumerate(frames):
        at = 1_300_000_000 + (i / 25 if seconds is None else seconds[i])
        colour = f"r-{at:.6f}-{1000 + i}.ppm"
        distance = f"d-{at + 0.01:.6f}-{2000 + i}.pgm"
        with atomic_write(folder / colour) as file:
            image.save(file, "PPM")
        with atomic_write(folder / distance) as file:
            # PGM's numbers are big-endian; the recordings hold them the other way round
            file.write(f"P5 {WIDTH} {HEIGHT} 65535\n".encode())
            file.write(readings(depth_m).astype("<u2").tobytes())
        names += [f"a-{at:.6f}-{i}.dump", distance, colour]
    write_text(folder / "INDEX.txt", names)


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
