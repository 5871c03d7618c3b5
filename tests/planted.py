"""Folders of frames for the doctor: good ones, and the same with a fault planted."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from datasets import VideoFolder, read_image, read_split
from tools.render import pixel_rays, render
from tools.sample_files import developed
from tools.scenery import Setting, room

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


class Video:
    """A folder of one sequence `one`, to be changed: the camera, and images by number."""

    def __init__(self, root: Path):
        self.root, self.folder = root, root / "one"
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def camera(self) -> dict:
        return json.loads((self.folder / "intrinsics.json").read_text())

    def write_camera(self, **values) -> None:
        (self.folder / "intrinsics.json").write_text(json.dumps(values))

    def change(self, **values) -> None:
        self.write_camera(**(self.camera | values))

    def files(self, part: str = "images") -> list[Path]:
        camera = self.camera
        name = camera["images"] if part == "images" else camera[part]["images"]
        return sorted((self.folder / name).iterdir())

    def copy(self, root: Path) -> "Video":
        shutil.copytree(self.root, root)
        return Video(root)

    def shuffle(self, order, part: str = "images") -> None:
        """Give the frames another order; a number may come several times."""
        files = self.files(part)
        content = [path.read_bytes() for path in files]
        for path in files:
            path.unlink()
        for number, old in enumerate(order):
            path = files[0].with_name(f"{number:06d}{files[0].suffix}")
            path.write_bytes(content[old])

    def write_images(self, images, part: str = "images") -> None:
        files = self.files(part)
        for path in files:
            path.unlink()
        for number, image in enumerate(images):
            Image.fromarray(image).save(files[0].with_name(f"{number:06d}.png"))

    def images(self, part: str = "images") -> list[np.ndarray]:
        return [np.asarray(read_image(path)) for path in self.files(part)]

    def data(self, use_stereo: bool = False, frame_ids=(0, -1, 1)) -> VideoFolder:
        last = len(self.files()) - 1
        split = self.root / "splits/video/train_files.txt"
        split.parent.mkdir(parents=True, exist_ok=True)
        split.write_text(f"one 0-{last} l\n")
        kind = {"use_stereo": use_stereo, "intrinsics": "calib"}
        return VideoFolder(self.root, read_split(split), 192, 640, frame_ids, **kind)


def street_video(sample: Path, root: Path) -> Video:
    """The made-up street's first drive, with stereo and depth."""
    video = Video(root)
    sequence, depth = sample / "sequences/01", sample / DRIVE / "proj_depth/groundtruth/image_02"
    for camera in (2, 3):
        shutil.copytree(sequence / f"image_{camera}", video.folder / f"image_{camera}")
    (video.folder / "depth").mkdir()
    for path in sorted(depth.iterdir()):
        shutil.copy(path, video.folder / "depth" / path.name[4:])
    P = calibration(sequence / "calib.txt")
    width, height = read_image(next((video.folder / "image_2").iterdir())).size
    video.write_camera(
        **of_matrix(P["P2"]),
        width=width,
        height=height,
        images="image_2",
        stereo={"images": "image_3", "baseline_m": baseline(P)},
        depth={"images": "depth", "metres_per_unit": 1 / 256},
    )
    return video


def room_video(root: Path, frames: int = 8) -> Video:
    """A made-up room with depth in millimetres."""
    video, K = Video(root), np.array([[260.0, 0, 159.5], [0, 260, 119.5], [0, 0, 1]])
    film = room(np.random.default_rng(1), frames, Setting(), torch.device("cpu"))
    rays = pixel_rays(K, 240, 320)
    for name in ("color", "depth"):
        (video.folder / name).mkdir()
    for i, pose in enumerate(film.poses):
        image, depth_m, _ = render(film.world, pose, K, rays)
        developed(image).save(video.folder / f"color/{i:06d}.png")
        units = np.round(1000 * depth_m).astype(np.uint16)
        Image.fromarray(units).save(video.folder / f"depth/{i:06d}.png")
    video.write_camera(
        **of_matrix(K), width=320, height=240, images="color",
        depth={"images": "depth", "metres_per_unit": 0.001},
    )  # fmt: skip
    return video


def kitti_video(real_data: Path, root: Path, frames: int) -> Video:
    """The beginning of KITTI's odometry sequence 06: grey stereo pairs."""
    video, sequence = Video(root), real_data / "kitti_odometry/sequences/06"
    for camera in (2, 3):
        (video.folder / f"image_{camera}").mkdir()
        for path in sorted((sequence / f"image_{camera}").iterdir())[:frames]:
            shutil.copy(path, video.folder / f"image_{camera}" / path.name)
    P = calibration(sequence / "calib.txt")
    video.write_camera(
        **of_matrix(P["P2"]),
        width=1226,
        height=370,
        images="image_2",
        stereo={"images": "image_3", "baseline_m": baseline(P)},
    )
    return video


def redwood_video(real_data: Path, root: Path) -> Video:
    """Five indoor frames with depth in millimetres."""
    video = Video(root)
    for name in ("color", "depth"):
        shutil.copytree(real_data / "redwood_5frames" / name, video.folder / name)
    video.write_camera(
        fx=525.0, fy=525.0, cx=319.5, cy=239.5, width=640, height=480, images="color",
        depth={"images": "depth", "metres_per_unit": 0.001},
    )  # fmt: skip
    return video


def calibration(path: Path) -> dict[str, np.ndarray]:
    lines = (line.partition(":") for line in path.read_text().splitlines() if line.startswith("P"))
    return {name: np.array(text.split(), float).reshape(3, 4) for name, _, text in lines}


def of_matrix(P: np.ndarray) -> dict[str, float]:
    return {"fx": P[0, 0], "fy": P[1, 1], "cx": P[0, 2], "cy": P[1, 2]}


def baseline(P: dict[str, np.ndarray]) -> float:
    return (P["P2"][0, 3] - P["P3"][0, 3]) / P["P2"][0, 0]


# Faults -------------------------------------------------------------------------------------------


def halve(video: Video) -> None:
    """Images of half the size; the camera stays as it was."""
    for part in [name for name in ("images", "stereo") if name in video.camera or name == "images"]:
        for path in video.files(part):
            image = read_image(path)
            image.resize((image.width // 2, image.height // 2)).save(path)


def crop(video: Video, left: int, width: int) -> None:
    """Cut columns off images, partners and depth; the camera follows."""
    for part in [name for name in ("images", "stereo", "depth") if name in video.camera]:
        for path in video.files(part):
            with Image.open(path) as image:
                cut = image.crop((left, 0, left + width, image.height))
            cut.save(path)
    video.change(cx=video.camera["cx"] - left, width=width)


def mirror_cx(video: Video) -> None:
    video.change(cx=video.camera["width"] - 1 - video.camera["cx"])


def swap_stereo(video: Video) -> None:
    camera = video.camera
    partner = camera["stereo"] | {"images": camera["images"]}
    video.change(images=camera["stereo"]["images"], stereo=partner)


def turn_sign(video: Video) -> None:
    stereo = video.camera["stereo"]
    video.change(stereo=stereo | {"baseline_m": -stereo["baseline_m"]})


def set_unit(video: Video, metres_per_unit: float) -> None:
    video.change(depth=video.camera["depth"] | {"metres_per_unit": metres_per_unit})


def turn_only(video: Video, frames: int = 12, degrees: float = 0.6) -> None:
    """The first frame as a camera sees it that turns in its place."""
    image, camera = video.images()[0], video.camera
    K = np.array([[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]])
    height, width = image.shape[:2]
    inner = 3 * width // 4
    views = []
    for i in range(frames):
        angle = np.radians(degrees) * (i - frames / 2)
        R = cv2.Rodrigues(np.array([0.2 * angle, angle, 0]))[0]
        turned = cv2.warpPerspective(image, K @ R @ np.linalg.inv(K), (width, height))
        views.append(turned[height // 8 : -height // 8, width // 8 : width // 8 + inner])
    write_alone(video, views, cx=camera["cx"] - width // 8, cy=camera["cy"] - height // 8)


def write_alone(video: Video, views: list[np.ndarray], **camera) -> None:
    """The sequence with these images, without stereo and depth."""
    video.write_images(views)
    height, width = views[0].shape[:2]
    kept = {name: v for name, v in video.camera.items() if name not in ("stereo", "depth")}
    video.write_camera(**kept | {"width": width, "height": height} | camera)


def hardly_moving(video: Video, film, frames: int = 12) -> None:
    """The film's images instead."""
    camera = video.camera
    K = np.array([[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]])
    rays = pixel_rays(K, camera["height"], camera["width"])
    views = [render(film.at(i), film.poses[i], K, rays)[0] for i in range(frames)]
    write_alone(video, [np.asarray(developed(view)) for view in views])


def slide(video: Video, metres: float, frames: int = 12) -> None:
    """The first frame as a camera sees it that slides to the right, by its depth."""
    camera, image = video.camera, video.images()[0]
    with Image.open(video.files("depth")[0]) as file:
        depth = np.asarray(file).astype(np.float32) * camera["depth"]["metres_per_unit"]
    depth = cv2.medianBlur(np.where(depth > 0, depth, np.median(depth[depth > 0])), 5)
    v, u = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    shift = np.float32(camera["fx"] * metres) / depth
    views = [cv2.remap(image, u + i * shift, v, cv2.INTER_CUBIC) for i in range(frames)]
    write_alone(video, [view[:, 16:-16] for view in views], cx=camera["cx"] - 16)
