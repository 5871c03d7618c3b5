"""NYU Depth V2: the labelled images, the raw recordings, and the rules they are scored by."""

import io
import json
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from metrics import Protocol
from utils import UserError, read_lines

from .images import read_depth_image
from .intrinsics import demand_camera, pinhole
from .kinect import COLOUR_K, HEIGHT, MAX_DEPTH_M, WIDTH
from .mono_dataset import MonoDataset
from .splits import Frame

LABELLED_IMAGES = 1449
LABELLED_FOLDER = "images"  # of their frames
SCENES_FILE = "scenes.txt"
WRITTEN_BY = "tools/prepare_nyuv2.py labelled writes it"
WAY_OUT = f"{WRITTEN_BY}; training does without by --nyuv2_neighbours any"
METRES_PER_UNIT = 1e-3  # of the 16-bit depth images that tools/prepare_nyuv2.py writes
Neighbours = Literal["scene", "any"]
DepthKind = Literal["filled", "raw"]
DEPTH_FOLDERS: dict[DepthKind, str] = {"filled": "depths", "raw": "raw_depths"}
DEPTH_SOURCES: dict[DepthKind, str] = {
    "filled": "NYUv2 labelled set, filled depth (in-painted where the sensor saw nothing)",
    "raw": "NYUv2 labelled set, raw depth (only what the sensor measured)",
}
PAGE = "https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html"


def toolbox_crop(height: int, width: int) -> tuple[slice, slice]:
    """The valid region of the data set's toolbox: 427 x 561 pixels, MATLAB's 45:471, 41:601."""
    demand_full_size(height, width)
    return slice(44, 471), slice(40, 601)


def eigen_crop(height: int, width: int) -> tuple[slice, slice]:
    """The crop that supervised work made usual: 426 x 560 pixels, one row and column fewer."""
    demand_full_size(height, width)
    return slice(45, 471), slice(41, 601)


def demand_full_size(height: int, width: int) -> None:
    """Refuse images that the crops, given in pixels, are not of.

    Raises:
        UserError: not 640x480.
    """
    if (height, width) != (HEIGHT, WIDTH):
        raise UserError(f"NYUv2's crops are of 640x480 images, not {width}x{height}; {WRITTEN_BY}")


PROTOCOLS = {
    "A": Protocol(
        "NYUv2 protocol A (as P2Net)",
        (0.0, np.inf),
        (0.1, MAX_DEPTH_M),
        input_crop=toolbox_crop,
        log10=True,
    ),
    "B": Protocol(
        "NYUv2 protocol B (as SC-Depth)",
        (0.1, MAX_DEPTH_M),
        (0.1, MAX_DEPTH_M),
        eigen_crop,
        log10=True,
    ),
    "C": Protocol(
        "NYUv2 protocol C (as supervised work)",
        (1e-3, MAX_DEPTH_M),
        (1e-3, MAX_DEPTH_M),
        eigen_crop,
        scaling="none",
        log10=True,
    ),
}
REPORT = Protocol(
    "NYUv2 as the report scored it, ON GREY VALUES STRETCHED PER IMAGE (not metric)",
    (0.0, np.inf),
    (1e-3, 80.0),
)
VIDEO = Protocol("NYUv2 raw video", (0.0, np.inf), (0.1, MAX_DEPTH_M), log10=True)


class NYUv2(MonoDataset):
    """The 1449 labelled images as tools/prepare_nyuv2.py writes them, frames `images <i> l`.

    `images/img_<i>.{jpg,png}` counted from 1, depth in millimetres in `depths/gt_<i>.png` (filled)
    and `raw_depths/`, and the scene of each image in `scenes.txt`. `depth_kind` chooses the ground
    truth.

    Args:
        neighbours: which images are a frame's neighbours: those of the same `scene`, or `any`
            with the next number, which may show another room, as the report had it.
    """

    nominal_K = (
        COLOUR_K[0, 0] / WIDTH,
        COLOUR_K[1, 1] / HEIGHT,
        COLOUR_K[0, 2] / WIDTH,
        COLOUR_K[1, 2] / HEIGHT,
    )
    protocols = PROTOCOLS
    protocol = PROTOCOLS["B"]  # of validation, which predicts whole images
    depth_kind: DepthKind = "filled"
    how_to_get = f"""\
NYU Depth V2's labelled images:
  1. fetch nyu_depth_v2_labeled.mat (2.8 GB) from {PAGE}
  2. python tools/prepare_nyuv2.py labelled nyu_depth_v2_labeled.mat nyuv2"""

    def __init__(self, *args: Any, neighbours: Neighbours = "scene", **kwargs: Any):
        self.neighbours = neighbours
        super().__init__(*args, **kwargs)

    def image_stem(self, frame: Frame) -> Path:
        return self.data_path / frame.folder / f"img_{frame.index}"

    def calibrated_K(self, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        return COLOUR_K, (WIDTH, HEIGHT)

    def same_recording(self, frame: Frame, other: Frame) -> bool:
        if self.neighbours == "any":
            return True
        if frame.index not in self._scenes:
            raise UserError(
                f"{self.data_path / SCENES_FILE}: names no scene of image {frame.index}; {WAY_OUT}"
            )
        return self._scenes[frame.index] == self._scenes.get(other.index)

    def depth_path(self, frame: Frame) -> Path | None:
        return self.data_path / DEPTH_FOLDERS[self.depth_kind] / f"gt_{frame.index}.png"

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "480 640"]:
        path = self.depth_path(frame)
        depth_m = read_depth_image(path, METRES_PER_UNIT)
        if depth_m.shape != (HEIGHT, WIDTH):
            raise UserError(f"{path}: is not 640x480 as the labelled set's depth; {WRITTEN_BY}")
        return depth_m

    def depth_source(self) -> str:
        return DEPTH_SOURCES[self.depth_kind]

    @cached_property
    def _scenes(self) -> dict[int, str]:
        return read_scenes(self.data_path, WAY_OUT)


class NYUv2Report(NYUv2):
    """The labelled images with the ground truth of a report that had lost the metres.

    Each depth image is stretched from its minimum to its maximum over grey values 0 to 255 and has
    been through a JPEG, as MATLAB's `imwrite(mat2gray(depth), 'gt.jpg')` writes it; grey 255 is 1.
    """

    protocols = {}
    protocol = REPORT

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "H W"]:
        depth_m = super().read_depth(frame)
        low, high = depth_m.min(), depth_m.max()
        grey = np.round(255 * (depth_m - low) / max(high - low, 1e-6)).astype(np.uint8)
        memory = io.BytesIO()
        Image.fromarray(grey).save(memory, "JPEG", quality=75)
        return np.asarray(Image.open(memory)).astype(np.float32) / 255

    def depth_source(self) -> str:
        return "NYUv2 filled depth as grey values 0-1, stretched per image: NOT METRES"


class NYUv2Raw(MonoDataset):
    """Sequences that tools/prepare_nyuv2.py makes of the raw recordings, frames `<scene> <i> l`.

    `<scene>/<i>.jpg` with six digits, where numbers that follow each other are neighbours; the
    camera in `<scene>/intrinsics.json`; for some frames depth in millimetres in
    `<scene>/depth/<i>.png`.
    """

    nominal_K = None
    protocol = VIDEO
    how_to_get = f"""\
NYU Depth V2's raw recordings:
  1. fetch the raw data set (about 400 GB, or some scenes of it) from {PAGE}
  2. python tools/prepare_nyuv2.py raw FOLDER_OF_SCENES nyuv2_raw --labelled nyuv2"""

    def image_stem(self, frame: Frame) -> Path:
        return self.data_path / frame.folder / f"{frame.index:06d}"

    def calibrated_K(self, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        return read_intrinsics(self.data_path / frame.folder / "intrinsics.json")

    def same_recording(self, frame: Frame, other: Frame) -> bool:
        first, last = sorted((frame.index, other.index))
        between = (frame._replace(index=number) for number in range(first + 1, last))
        return all(self.find_image(one) is not None for one in between)

    def depth_path(self, frame: Frame) -> Path | None:
        return self.data_path / frame.folder / "depth" / f"{frame.index:06d}.png"

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "H W"]:
        return read_depth_image(self.depth_path(frame), METRES_PER_UNIT)

    def depth_source(self) -> str:
        return "NYUv2 raw recordings, the Kinect's depth as the colour camera sees it"


def read_intrinsics(path: Path) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
    """A pinhole camera in pixels, and the (width, height) of its images.

    Raises:
        UserError: missing, or not the six numbers fx, fy, cx, cy, width, height.
    """
    names = ("fx", "fy", "cx", "cy", "width", "height")
    lines = read_lines(path, "camera", "tools/prepare_nyuv2.py raw writes it")
    try:
        values = json.loads("\n".join(lines))
        fx, fy, cx, cy = (float(values[name]) for name in names[:4])
        width, height = (int(values[name]) for name in names[4:])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise UserError(
            f"{path}: does not hold the numbers of a camera: {', '.join(names)}"
        ) from None
    K = pinhole(fx, fy, cx, cy)
    demand_camera(path, K, width, height)
    return K, (width, height)


def read_scenes(data_path: Path, way_out: str = WRITTEN_BY) -> dict[int, str]:
    """The scene of each labelled image, by its number, from `scenes.txt`.

    Raises:
        UserError: no such file, named with the way out, or a line that is not `<number> <scene>`.
    """
    path = data_path / SCENES_FILE
    scenes = {}
    for number, line in enumerate(read_lines(path, "list of scenes", way_out), start=1):
        index, _, scene = line.strip().partition(" ")
        if not (re.fullmatch(r"\d{1,9}", index, re.ASCII) and scene):
            raise UserError(f"{path}:{number}: write '<number of the image> <scene>'")
        scenes[int(index)] = scene
    return scenes


def place(scene: str) -> str:
    """`kitchen_0028` of `kitchen_0028a`: recordings of one place differ by a letter."""
    match = re.fullmatch(r"([A-Za-z_]+_\d{4})[a-z]", scene, re.ASCII)
    return match[1] if match else scene


def labelled_places(frames: Iterable[Frame], data_path: Path) -> set[str]:
    """Where labelled images were filmed; empty if `scenes.txt` is not there."""
    try:
        scenes = read_scenes(data_path)
    except UserError:
        scenes = {}
    return {place(scenes[frame.index]) for frame in frames if frame.index in scenes}
