"""The files of KITTI and NYU Depth V2, of a film: what tools/make_sample.py writes."""

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets import KITTIRaw, read_image
from datasets.intrinsics import in_pixels, pinhole
from datasets.kinect import (
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
from datasets.kitti import METRES_PER_UNIT
from media import VideoWriter
from tools.render import cast, look, pixel_rays, render
from tools.scenery import Film
from utils import atomic_write, count_workers

DATE = "2011_09_26"
START = datetime(2011, 9, 26, 13, 0, 0)
FRAME_S = 0.1
BASELINE_M = 0.54
RIGHT_IN_LEFT = np.eye(4)  # pose of the right camera in the left one's frame
RIGHT_IN_LEFT[0, 3] = BASELINE_M
VELODYNE_IN_CAMERA = np.array([[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1.0]])
REACH_M = 100.0  # of the scanner
EAST_NORTH_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # of x right, y down, z ahead
EARTH_M = 6378137.0
HOME_DEG = 49.0, 8.4  # latitude and longitude of the world's origin
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
    return in_pixels(pinhole(*KITTIRaw.nominal_K), (width, height))


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
        units = np.round(np.where(depth_m < 65535 * METRES_PER_UNIT, depth_m, 0) / METRES_PER_UNIT)
        true_depth = folder / f"proj_depth/groundtruth/image_{camera:02d}/{frame:010d}.png"
        with atomic_write(true_depth) as file:
            Image.fromarray(units.astype(np.uint16)).save(file, "PNG", compress_level=1)
    with atomic_write(folder / f"velodyne_points/data/{frame:010d}.bin") as file:
        file.write(scan(film, frame).tobytes())


def oxts(poses: np.ndarray) -> np.ndarray:
    """What the navigation system, which sits at the scanner, notes at each pose [N 4 4]: [N 30].

    There must be two poses or more.
    """
    places = poses @ VELODYNE_IN_CAMERA
    enu = places[:, :3, 3] @ EAST_NORTH_UP.T
    scale = np.cos(np.radians(HOME_DEG[0]))
    home = np.log(np.tan(np.radians(90 + HOME_DEG[0]) / 2))
    latitude = 2 * np.degrees(np.arctan(np.exp(home + enu[:, 1] / (scale * EARTH_M)))) - 90
    longitude = HOME_DEG[1] + np.degrees(enu[:, 0] / (scale * EARTH_M))
    turn = Rotation.from_matrix(EAST_NORTH_UP @ places[:, :3, :3])
    yaw, pitch, roll = turn.as_euler("ZYX").T

    def rate(values: np.ndarray) -> np.ndarray:
        return np.gradient(values, FRAME_S, axis=0)

    velocity = rate(enu)
    acceleration = turn.inv().apply(rate(velocity))
    steps = (turn[:-1].inv() * turn[1:]).as_rotvec() / FRAME_S
    spin = np.concatenate([steps, steps[-1:]])
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


def write_video(out: Path, number: int, frames: int, suffix: str) -> None:
    """What the left camera of a drive saw as a video, unless it is there."""
    path = out / f"videos/drive_{number:04d}.mp4"
    if path.exists():
        return
    folder = out / drive_name(number) / "image_02/data"
    with VideoWriter(path, 1 / FRAME_S) as video:
        for frame in range(frames):
            video.add(np.asarray(read_image(folder / f"{frame:010d}.{suffix}")))


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


# NYU Depth V2 -------------------------------------------------------------------------------------


def readings(depth_m: np.ndarray) -> np.ndarray:
    """The 11-bit numbers that the Kinect has for depth in metres; 2047 is none."""
    with np.errstate(divide="ignore"):
        raw = np.round(1092.5 - 351.3 / depth_m)
    return np.where((depth_m > 0.4) & (depth_m < MAX_DEPTH_M), raw, 2047).astype(np.uint16)


def sensor_depth(film: Film, frame: int) -> np.ndarray:
    """Depth [480 640] in metres as the Kinect's depth camera sees it."""
    rays = pixel_rays(DEPTH_K, HEIGHT, WIDTH, DEPTH_DISTORTION)
    return look(film.at(frame), film.poses[frame] @ DEPTH_IN_COLOUR, rays)[0]


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
