"""Make a small street with exact geometry, in the layout of KITTI's raw recordings.

A ray-cast world of textured boxes on a ground plane, seen by a moving stereo rig and a 64-beam
LiDAR. It needs no download, and data set, export, training and evaluation take it for KITTI.

    python tools/make_sample.py sample            # about half a minute; then, for example
    python train.py --data_path sample --split sample/splits --intrinsics calib ...
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils import OneLineParser, UserError, atomic_write, run_script  # noqa: E402

DATE = "2011_09_26"
BASELINE_M = 0.54
CAMERA_HEIGHT_M = 1.65
FAR_M = 1000.0
GROUND, SKY = -1, -2  # surfaces that are no box
WAVES = 20  # of a texture
PERIOD_M = np.geomspace(10.0, 0.08, WAVES)  # from coarse to fine
STRENGTH = PERIOD_M**0.6 / np.linalg.norm(PERIOD_M**0.6)  # as in nature, coarse is stronger
CHUNK = 4096  # rays that are cast at once, so that they fit the cache
VELODYNE_IN_CAMERA = np.array([[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1.0]])


class World(NamedTuple):
    """Axis-aligned boxes [M 3] in metres (x right, y down, z along the street), and textures.

    Texture t of box b is at b + 1; 0 is the ground's.
    """

    low: np.ndarray
    high: np.ndarray
    colour: np.ndarray  # [M+1 3]
    waves: np.ndarray  # [M+1 WAVES 3], wave vectors in cycles per metre
    phase: np.ndarray  # [M+1 WAVES]


class Hit(NamedTuple):
    """What rays meet: distance in units of the ray's length, surface, face axis, point."""

    distance: np.ndarray
    surface: np.ndarray
    axis: np.ndarray
    point: np.ndarray


def make_world(rng: np.random.Generator, length_m: float) -> World:
    """Houses on both sides, parked cars and poles along a street."""
    boxes = []
    for side in (-1, 1):
        z = -20.0
        while z < length_m + 120:
            depth, gap = rng.uniform(6, 16), rng.uniform(0, 4)
            near, height = rng.uniform(6.5, 11), rng.uniform(4, 12)
            boxes.append((side * near, side * (near + 10), -height, 0, z, z + depth))
            z += depth + gap
        z = rng.uniform(0, 8)
        while z < length_m + 100:
            near = rng.uniform(3.2, 3.8)
            boxes.append((side * near, side * (near + 1.8), -1.5, 0, z, z + rng.uniform(3.5, 4.6)))
            z += rng.uniform(7, 20)
        for z in np.arange(rng.uniform(0, 15), length_m + 100, 18.0):
            x = side * rng.uniform(5.6, 6.2)
            boxes.append((x - 0.12, x + 0.12, -5.5, 0, z, z + 0.24))
    edges = np.array(boxes).reshape(-1, 3, 2)
    edges[:, 1] += CAMERA_HEIGHT_M
    count = len(edges) + 1
    direction = rng.normal(size=(count, WAVES, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    colour = rng.uniform(0.25, 0.75, (count, 3))
    colour[0] = (0.42, 0.42, 0.44)
    return World(
        edges.min(2),
        edges.max(2),
        colour,
        direction / PERIOD_M[:, None] * rng.uniform(0.8, 1.25, (count, WAVES, 1)),
        rng.uniform(0, 2 * np.pi, (count, WAVES)),
    )


def cast(world: World, origin: np.ndarray, rays: np.ndarray) -> Hit:
    """First surface on each ray [N 3] from `origin` [3]."""
    parts = np.array_split(rays.astype(np.float32), max(1, len(rays) // CHUNK))
    return Hit(
        *map(np.concatenate, zip(*(_cast(world, origin, part) for part in parts), strict=True))
    )


def _cast(world: World, origin: np.ndarray, rays: np.ndarray) -> Hit:
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(rays[:, 1] > 0, (CAMERA_HEIGHT_M - origin[1]) / rays[:, 1], np.inf)
        near_enough = (world.high[:, 2] > origin[2] - 5) & (world.low[:, 2] < origin[2] + 120)
        boxes = np.flatnonzero(near_enough)
        enter = np.full((len(rays), len(boxes)), -np.inf, np.float32)
        leave = np.full_like(enter, np.inf)
        axes = np.zeros(enter.shape, np.int8)
        for axis in range(3):
            inverse = 1 / rays[:, axis, None]
            a = (world.low[boxes, axis] - origin[axis]).astype(np.float32) * inverse
            b = (world.high[boxes, axis] - origin[axis]).astype(np.float32) * inverse
            first = np.minimum(a, b)
            axes[first > enter] = axis
            enter = np.maximum(enter, first)
            leave = np.minimum(leave, np.maximum(a, b))
    distance = np.where((enter <= leave) & (enter > 0), enter, np.inf)
    best = distance.argmin(1)
    each = np.arange(len(rays))
    box = distance[each, best]
    surface = np.where(box < ground, boxes[best], GROUND)
    axis = np.where(box < ground, axes[each, best], 1)
    distance = np.minimum(box, ground)
    surface[distance > FAR_M] = SKY
    distance = np.minimum(distance, FAR_M)
    return Hit(distance, surface, axis, origin + distance[:, None] * rays)


def shade(world: World, hit: Hit, rays: np.ndarray, pixel_angle: float) -> np.ndarray:
    """Colours [N 3] in [0, 1]: sums of waves, each faded out before a pixel could alias it."""
    texture = np.maximum(hit.surface, GROUND) + 1
    facing = np.abs(rays[np.arange(len(rays)), hit.axis]) / np.linalg.norm(rays, axis=1)
    footprint = hit.distance * pixel_angle / np.maximum(facing, 0.02)
    waves = world.waves[texture]
    angle = 2 * np.pi * np.einsum("nwc,nc->nw", waves, hit.point) + world.phase[texture]
    blur = np.exp(-4 * (np.linalg.norm(waves, axis=-1) * footprint[:, None]) ** 2)
    pattern = (np.sin(angle) * blur) @ STRENGTH
    light = np.array([0.85, 1.0, 0.7])[hit.axis] * (1 + 0.45 * pattern)
    colours = world.colour[texture] * light[:, None]
    road_mark = (hit.surface == GROUND) & (np.abs(hit.point[:, 0]) < 0.12)
    colours[road_mark & (hit.point[:, 2] % 6 < 3)] = 0.85
    height = -rays[:, 1] / np.linalg.norm(rays, axis=1)
    sky = np.array([0.75, 0.82, 0.9]) - np.array([0.35, 0.25, 0.05]) * height[:, None]
    return np.clip(np.where((hit.surface == SKY)[:, None], sky, colours), 0, 1)


def camera_rays(K: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rays [H*W 3] through pixel centres, of unit depth, so that distance is depth."""
    v, u = np.mgrid[:height, :width]
    return np.stack([u.ravel(), v.ravel(), np.ones(u.size)], 1) @ np.linalg.inv(K).T


def render(
    world: World, pose: np.ndarray, K: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image [H W 3] in [0, 1] and depth [H W] in metres of a camera at `pose` (camera to world).

    One ray per pixel: textures are blurred as seen from afar, edges are not.
    """
    rays = camera_rays(K, height, width) @ pose[:3, :3].T
    hit = cast(world, pose[:3, 3], rays)
    colours = shade(world, hit, rays, 1 / K[0, 0])
    return colours.reshape(height, width, 3), hit.distance.reshape(height, width)


def scan(world: World, pose: np.ndarray) -> np.ndarray:
    """A 64-beam LiDAR scan [N 4] of the front, x forward, y left, z up, reflectance 0."""
    elevation, azimuth = np.meshgrid(
        np.radians(np.linspace(2, -24.8, 64)), np.radians(np.arange(-45, 45, 0.2)), indexing="ij"
    )
    rays = np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ],
        -1,
    ).reshape(-1, 3)
    place = pose @ VELODYNE_IN_CAMERA
    hit = cast(world, place[:3, 3], rays @ place[:3, :3].T)
    seen = hit.distance < 100
    points = rays[seen] * hit.distance[seen, None]
    return np.column_stack([points, np.zeros(len(points))]).astype(np.float32)


def drive(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Smooth camera-to-world poses [N 4 4] along the street, swaying and looking round."""
    t = np.arange(frames)
    phases = rng.uniform(0, 2 * np.pi, 4)
    z = np.cumsum(0.95 + 0.2 * np.sin(0.11 * t + phases[0]))
    x = 0.6 * np.sin(0.09 * t + phases[1])
    y = 0.02 * np.sin(0.5 * t + phases[3])
    yaw = 0.06 * np.sin(0.13 * t + phases[2])
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(yaw)
    poses[:, 0, 2], poses[:, 2, 0] = np.sin(yaw), -np.sin(yaw)
    poses[:, :3, 3] = np.stack([x, y, z], 1)
    return poses


def write_drive(folder: Path, world: World, poses: np.ndarray, K: np.ndarray, size: tuple) -> None:
    """Images of both cameras and scans of every pose."""
    width, height = size
    right = np.eye(4)
    right[0, 3] = BASELINE_M
    for sub in ("image_02/data", "image_03/data", "velodyne_points/data"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    for i, pose in enumerate(tqdm(poses, desc=folder.name, unit="frame", dynamic_ncols=True)):
        for camera, offset in (("image_02", np.eye(4)), ("image_03", right)):
            image, _ = render(world, pose @ offset, K, height, width)
            picture = Image.fromarray((255 * image + 0.5).astype(np.uint8))
            with atomic_write(folder / camera / "data" / f"{i:010d}.jpg") as file:
                picture.save(file, "JPEG", quality=95)
        with atomic_write(folder / "velodyne_points" / "data" / f"{i:010d}.bin") as file:
            file.write(scan(world, pose).tobytes())


def write_calibration(folder: Path, K: np.ndarray, size: tuple[int, int]) -> None:
    """KITTI's calibration files for the rig."""

    def line(name: str, numbers: np.ndarray) -> str:
        return f"{name}: " + " ".join(f"{x:.6e}" for x in np.ravel(numbers)) + "\n"

    lines = line("R_rect_00", np.eye(3))
    for camera, offset in ((2, 0.0), (3, BASELINE_M)):
        P = np.column_stack([K, [-K[0, 0] * offset, 0, 0]])
        lines += line(f"S_rect_{camera:02d}", np.array(size)) + line(f"P_rect_{camera:02d}", P)
    with atomic_write(folder / "calib_cam_to_cam.txt", "w") as file:
        file.write(lines)
    with atomic_write(folder / "calib_velo_to_cam.txt", "w") as file:
        velodyne = VELODYNE_IN_CAMERA
        file.write(line("R", velodyne[:3, :3]) + line("T", velodyne[:3, 3]))


def make_sample(
    out: Path, drives: int = 4, frames: int = 40, width: int = 416, height: int = 128, seed: int = 0
) -> None:
    """Write drives, each in a street of its own, and splits; the last drive is the test."""
    K = np.array([[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]])
    names = [f"{DATE}/{DATE}_drive_{i + 1:04d}_sync" for i in range(drives)]
    write_calibration(out / DATE, K, (width, height))
    for i, name in enumerate(names):
        rng = np.random.default_rng([seed, i])
        poses = drive(rng, frames)
        world = make_world(rng, poses[-1, 2, 3])
        write_drive(out / name, world, poses, K, (width, height))
    last_train = frames - 1 - max(1, frames // 10)
    splits = {
        "train": [f"{name} 1-{last_train - 1} lr" for name in names[:-1]],
        "val": [f"{name} {last_train}-{frames - 2} l" for name in names[:-1]],
        "test": [f"{names[-1]} 0-{frames - 1} l"],
    }
    for part, lines in splits.items():
        with atomic_write(out / "splits" / f"{part}_files.txt", "w") as file:
            file.write("\n".join(lines) + "\n")


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--drives", type=int, default=4, help="the last one is the test split's")
    parser.add_argument("--frames", type=int, default=40, help="of each drive, 8 or more")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.drives < 2 or arguments.frames < 8 or arguments.seed < 0:
        raise UserError("at least --drives 2, --frames 8 and --seed 0")
    make_sample(arguments.out, arguments.drives, arguments.frames, seed=arguments.seed)
    print(f"{arguments.drives} drives in {arguments.out}, split in {arguments.out / 'splits'}")


if __name__ == "__main__":
    run_script(main)
