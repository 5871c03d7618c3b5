"""Cameras as people have them: intrinsics.json, COLMAP's cameras.txt, OpenCV's and ROS's
calibration files, what a photo's EXIF says."""

import contextlib
import json
import math
import re
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from camera import FOCAL, LONGEST_FOCAL, Camera, camera_of
from datasets.folder import Given
from datasets.intrinsics import demand_camera, pinhole, resize_K
from media import BAD
from utils import UserError, read_lines

COLMAP = {  # models: parameters; the distortion follows the principal point
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
}
COLMAP_CORNER = 0.5  # its pixel centres are there, ours are whole numbers
OPENCV_COUNTS = (0, 4, 5, 8, 12, 14)  # numbers of its distortion models
OPENCV_ENDS = (".yml", ".yaml", ".json")
DISTORTIONS = ("distortioncoefficients", "distcoeffs", "distcoeff", "distortion", "dist", "d")
MODEL = "distortionmodel"
SAYS_DISTORTION = re.compile("dist|(?:k[1-6]|p[12])$")
MOST_NUMBERS = 20  # of a matrix or vector
KNOWN = "give an intrinsics.json, COLMAP's cameras.txt, or OpenCV's or ROS's .yaml or .json"
SAME_ASPECT = 0.01
DIAGONAL_35MM = math.hypot(36, 24)
EXIF_IFD, EQUIVALENT, FOCAL_LENGTH = 0x8769, 41989, 37386
PLANE_RESOLUTION, PLANE_UNIT, SENSOR_WIDTH, SENSOR_HEIGHT = 41486, 41488, 40962, 40963
MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # EXIF's units


class Parameters(NamedTuple):
    """What a file says: K for images of `size`, (width, height), OpenCV's distortion, and whether
    these were cut or resized to another shape."""

    K: Float[ndarray, "3 3"]
    size: tuple[int, int]
    distortion: Float[ndarray, " N"]
    reshaped: bool = False


class Lens(NamedTuple):
    """The camera of a clip's frames as they are, before anything is done to them.

    Attributes:
        K: intrinsics in pixels of frames of `size`, (width, height).
        distortion: OpenCV's coefficients k1 k2 p1 p2 k3 ...; none for straight lenses.
        origin: who says so, in words.
        guessed: nobody measured it.
        reshaped: the frames were cut, or resized to another shape, before.
    """

    K: Float[ndarray, "3 3"]
    size: tuple[int, int]
    distortion: Float[ndarray, " N"]
    origin: str
    guessed: bool = False
    reshaped: bool = False

    @property
    def bends(self) -> bool:
        """Whether straight lines are not straight in the frames."""
        return bool(np.any(self.distortion != 0))


class Known(NamedTuple):
    """What the user says of the camera: a file has it all, otherwise some numbers or nothing."""

    camera: Camera = Camera()
    file: Path | None = None
    distortion: tuple[float, ...] = ()

    @property
    def content(self) -> dict[str, Any]:
        """What tells it from another."""
        content = {**self.camera._asdict(), "distortion": list(self.distortion)}
        return content | {"camera": self.file and zlib.crc32(self.file.read_bytes())}

    def lens(self, size: tuple[int, int], photo: Path | None) -> Lens:
        """The camera of frames of a size: as given, as a photo's EXIF says, or assumed.

        Raises:
            UserError: it does not fit the frames.
        """
        if self.file is not None:
            return read_camera(self.file, size)
        distortion = np.array(self.distortion + (0.0,) * (4 - len(self.distortion)))
        if self.camera.fx is not None or self.camera.fov_deg is not None:
            flag = "--fx" if self.camera.fov_deg is None else f"--fov_deg {self.camera.fov_deg:g}"
            return Lens(self.camera.K(size), size, distortion, flag)
        focal = None if photo is None else exif_focal(photo, size)
        if focal is not None:
            return Lens(camera_of(*size, focal), size, distortion, "EXIF")
        return Lens(camera_of(*size, FOCAL * size[0]), size, distortion, "a guess", guessed=True)


def read_camera(path: Path, size: tuple[int, int]) -> Lens:
    """The camera of a file, for frames of `size`.

    Raises:
        UserError: missing, of no known kind, no camera, or one of another aspect ratio.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; {KNOWN}")
    if path.suffix == ".bin":
        raise UserError(f"{path}: is binary; colmap model_converter --output_type TXT makes a text")
    if path.suffix.lower() not in (".txt", *OPENCV_ENDS):
        raise UserError(f"{path}: is no camera file by its name; {KNOWN}")
    text = "\n".join(read_lines(path, "camera file", KNOWN))
    if path.suffix.lower() == ".txt":
        found = colmap_camera(path, text)
    else:
        found = own_camera(path, text, size) or opencv_camera(path, text, size)
    K, own_size, distortion, reshaped = found
    demand_camera(path, K, *own_size)
    if not np.isfinite(distortion).all():
        raise UserError(f"{path}: its distortion is no number")
    ratio = (size[0] / own_size[0]) / (size[1] / own_size[1])
    if abs(ratio - 1) > SAME_ASPECT:
        raise UserError(
            f"{path}: is the camera of images of {own_size[0]}x{own_size[1]}, which frames of "
            f"{size[0]}x{size[1]} are no smaller or larger copy of; calibrate frames as they are"
        )
    K = resize_K(K, own_size, size)
    return Lens(K, size, distortion, str(path.name), reshaped=reshaped)


def own_camera(path: Path, text: str, size: tuple[int, int]) -> Parameters | None:
    """K, size and distortion of an intrinsics.json; None if this is none.

    Raises:
        UserError: a number is missing, or it says something of distortion that is not understood.
    """
    values = json_of(text)
    if not isinstance(values, dict) or "fx" not in values:
        return None
    given = Given(path, values)
    return Parameters(
        *given.camera(lambda: size), distortion_of(path, values), given.flag("reshaped")
    )


def json_of(text: str) -> Any:
    """What a text of JSON says; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def colmap_camera(path: Path, text: str) -> Parameters:
    """K, size and distortion of the only camera of a cameras.txt.

    Raises:
        UserError: there is none or several, or one of a model that OpenCV's does not cover.
    """
    lines = [line.split() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    cameras = {tuple(words[1:]) for words in lines}
    if len(cameras) != 1:
        raise UserError(
            f"{path}: holds {len(cameras) or 'no'} cameras; leave the line of the one that took "
            "these frames"
        )
    model, *fields = cameras.pop() or ("",)
    if model not in COLMAP:
        raise UserError(
            f"{path}: camera model '{model[:30]}' is none of {', '.join(COLMAP)}; undistort the "
            "images with COLMAP's image_undistorter, or choose one of these models"
        )
    names = COLMAP[model].split()
    try:
        width, height = (int(field) for field in fields[:2])
        values = dict(zip(names, (float(field) for field in fields[2:]), strict=True))
    except ValueError:
        raise UserError(
            f"{path}: a camera reads '<id> {model} <width> <height> {' '.join(names)}'"
        ) from None
    fx = values.get("f", values.get("fx", 0.0))
    K = camera_of(width, height, fx, values["cx"] - COLMAP_CORNER, values["cy"] - COLMAP_CORNER)
    K[1, 1] = values.get("fy", fx)
    distortion = [values.get(name, 0.0) for name in ("k1", "k2", "p1", "p2")]
    distortion += [values.get(name, 0.0) for name in ("k3", "k4", "k5", "k6")]
    return Parameters(K, (width, height), np.array(distortion))


def opencv_camera(path: Path, text: str, size: tuple[int, int]) -> Parameters:
    """K, size and distortion of a file of OpenCV's FileStorage, or of ROS's camera_info.

    Not read by OpenCV, which damaged files can crash.

    Raises:
        UserError: it is no such file, lacks a part, or describes a fisheye.
    """
    text = re.sub(r"\A%YAML:?[^\n]*\n", "", text.lstrip()).replace("!!opencv-matrix", "")
    values = json_of(text)
    if values is None:
        with contextlib.suppress(Exception):  # PyYAML's are of all kinds where tags do not fit
            values = yaml.safe_load(text)  # JSON with numbers as OpenCV once wrote them, too
    if not isinstance(values, dict):
        raise UserError(f"{path}: cannot be read as a camera file; {KNOWN}")
    found = plainly_named(values)
    K = numbers(found, "cameramatrix", "k")
    if len(K) != 9:
        raise UserError(f"{path}: holds no camera_matrix of 3 x 3 numbers; {KNOWN}")
    distortion = distortion_of(path, values)
    sizes = numbers(found, "imagewidth", "width") + numbers(found, "imageheight", "height")
    if len(sizes) == 2 and np.isfinite(sizes).all():
        size = (int(sizes[0]), int(sizes[1]))
    fx, _, cx, _, fy, cy = K[:6]  # without skew
    return Parameters(pinhole(fx, fy, cx, cy), size, distortion)


def plainly_named(values: dict[Any, Any]) -> dict[str, Any]:
    """The same without regard to capitals and underscores in names."""
    return {str(name).lower().replace("_", ""): value for name, value in values.items()}


def distortion_of(path: Path, values: dict[Any, Any]) -> Float[ndarray, " N"]:
    """OpenCV's coefficients k1 k2 p1 p2 k3 ..., none where a file says nothing of them.

    Raises:
        UserError: they are of a fisheye, of no other model of OpenCV's, or under a name that is
            not known.
    """
    found = plainly_named(values)
    if found.get(MODEL) in ("equidistant", "fisheye"):
        raise UserError(f"{path}: is the camera of a fisheye lens; undistort the frames before")
    odd = [
        name
        for name, value in found.items()
        if value is not None and name not in (*DISTORTIONS, MODEL) and SAYS_DISTORTION.match(name)
    ]
    if odd:
        raise UserError(
            f"{path}: '{odd[0][:30]}' is not understood; write distortion_coefficients: "
            "[k1, k2, p1, p2, k3], or take it out where the frames are straight"
        )
    distortion = numbers(found, *DISTORTIONS)
    if len(distortion) not in OPENCV_COUNTS:
        raise UserError(
            f"{path}: has {len(distortion)} distortion_coefficients; OpenCV's models have "
            f"{', '.join(map(str, OPENCV_COUNTS[1:]))}"
        )
    return np.array(distortion, np.float64)


def numbers(values: dict[str, Any], *names: str) -> list[float]:
    """Numbers of the first of these names that is there, or of its `data`; NaN for what is none."""
    value = next((values[name] for name in names if name in values), [])
    value = value.get("data", []) if isinstance(value, dict) else value
    items = [value]
    for _ in range(2):  # rows of a matrix may be lists of their own
        items = [one for item in items for one in (item if isinstance(item, list) else [item])]
        items = items[:MOST_NUMBERS]
    return [number(item) for item in items]


def number(item: Any) -> float:
    """A number of a file, 5e-3 and 5. too, which YAML 1.1 takes for words; NaN where it is none."""
    try:
        return math.nan if isinstance(item, bool) else float(item)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def exif_focal(path: Path, size: tuple[int, int]) -> float | None:
    """Focal length in pixels of an upright photo of (width, height), as its EXIF has it; or None.

    It says the length that would show as much on 35 mm film, or the length and how fine the
    sensor is.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF
            with Image.open(path) as image:
                exif = image.getexif().get_ifd(EXIF_IFD)
        equivalent = float(exif.get(EQUIVALENT) or 0)
        length = float(exif.get(FOCAL_LENGTH) or 0)
        per_unit = float(exif.get(PLANE_RESOLUTION) or 0)
        unit_mm = MILLIMETRES.get(int(exif.get(PLANE_UNIT) or 2), 0.0)
        sensor = max(int(exif.get(which) or 0) for which in (SENSOR_WIDTH, SENSOR_HEIGHT))
    except (*BAD, TypeError, ZeroDivisionError):
        return None
    focal = math.nan
    if equivalent > 0:
        focal = equivalent / DIAGONAL_35MM * math.hypot(*size)
    elif min(length, per_unit, unit_mm) > 0:
        focal = length * per_unit / unit_mm * max(size) / (sensor or max(size))
    return focal if 0 < focal < LONGEST_FOCAL else None
