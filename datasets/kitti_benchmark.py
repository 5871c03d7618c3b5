"""KITTI's depth-prediction benchmark: its selected images, and what its server takes."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from metrics import Protocol
from utils import UserError, atomic_write, read_lines

from .images import read_depth_image, read_image
from .intrinsics import demand_camera
from .kitti import (
    CAMERA,
    IMPROVED_SOURCE,
    METRES_PER_UNIT,
    STEREO_SCALE,
    KITTIDepth,
)
from .mono_dataset import MonoDataset
from .splits import Frame

SELECTION = "val_selection_cropped"
COMPLETION = "test_depth_completion_anonymous"
PREDICTION = "test_depth_prediction_anonymous"
OFFICIAL_IMAGES = {SELECTION: 1000, COMPLETION: 1000, PREDICTION: 500}

SERVER = Protocol(
    "KITTI depth benchmark (validation selection)",
    (0.0, np.inf),
    (1e-3, 80.0),
    scaling="global_median",
    stereo_scale=STEREO_SCALE,
    server_metrics=True,
)
REPORT = Protocol(
    "KITTI depth completion images, SCORED AGAINST THEIR INPUT LIDAR (no benchmark result)",
    (0.0, np.inf),
    (1e-3, 80.0),
    stereo_scale=STEREO_SCALE,
)


class KITTIBenchmark(MonoDataset):
    """Single images of 1216x352, each with its own camera: the archive `depth_selection`.

    `--data_path` is that folder, or the one it lies in. A frame's folder names the subset:
    `val_selection_cropped/<drive>` with the improved ground truth,
    `test_depth_completion_anonymous` with its sparse input LiDAR in place of ground truth,
    `test_depth_prediction_anonymous` without any.
    """

    # KITTI's nominal focal lengths, which are for 1242x375, on the crop
    nominal_K = (0.58 * 1242 / 1216, 1.92 * 375 / 352, 0.5, 0.5)
    protocol = SERVER
    one_camera_per_recording = False

    @classmethod
    def listed(cls, data_path: Path, subset: str) -> list[Frame]:
        """All images of a subset that are there, sorted by name.

        Raises:
            UserError: there are none.
        """
        folder = _subset_folder(data_path, subset) / "image"
        stems = sorted(path.stem for path in folder.glob("*.png"))
        frames = [frame for stem in stems if (frame := _frame(subset, stem)) is not None]
        if not frames:
            raise UserError(
                f"{folder}: holds no images; unpack data_depth_selection.zip into --data_path"
            )
        return frames

    def image_stem(self, frame: Frame) -> Path:
        return self._path(frame, "image").with_suffix("")

    def calibrated_K(self, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        path = self._path(frame, "intrinsics").with_suffix(".txt")
        lines = read_lines(path, "file of intrinsics", "data_depth_selection.zip has it")
        try:
            K = np.array(" ".join(lines).split(), np.float64).reshape(3, 3)
        except ValueError:
            raise UserError(f"{path}: does not hold the nine numbers of a camera") from None
        width, height = read_image(self.find_image(frame)).size
        demand_camera(path, K, width, height)
        return K, (width, height)

    def depth_path(self, frame: Frame) -> Path | None:
        kind = {SELECTION: "groundtruth_depth", COMPLETION: "velodyne_raw"}.get(_subset(frame))
        return None if kind is None else self._path(frame, kind)

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "H W"]:
        return read_depth_image(self.depth_path(frame), METRES_PER_UNIT)

    def depth_source(self) -> str:
        if all(_subset(frame) == SELECTION for frame in self.frames):
            return IMPROVED_SOURCE
        return "input LiDAR of the depth-completion benchmark: sparse, and no ground truth"

    def _path(self, frame: Frame, kind: str) -> Path:
        """A file of a frame: in `image`, `groundtruth_depth`, `velodyne_raw` or `intrinsics`."""
        subset, _, drive = frame.folder.partition("/")
        inner = "image" if kind == "intrinsics" else kind
        name = f"{frame.index:010d}.png"
        if drive:
            name = f"{drive}_{inner}_{frame.index:010d}_image_{CAMERA[frame.side]:02d}.png"
        return _subset_folder(self.data_path, subset) / kind / name


def benchmark_crop(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a raw image that the benchmark's images keep; all of a smaller one."""
    left, top = max(width - 1216, 0) // 2, max(height - 352, 0)
    return slice(top, height), slice(left, left + min(width, 1216))


class KITTIDepthCrop(KITTIDepth):
    """Raw images with improved ground truth, cut to the 1216x352 of the benchmark's images.

    They lose the sky and a little on both sides: width in the middle, height at the top. A network
    sees such a cut larger, and its depth is another by some percent.
    """

    input_crop = staticmethod(benchmark_crop)

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "H W"]:
        depth_m = super().read_depth(frame)
        return depth_m[benchmark_crop(*depth_m.shape)]


def _subset(frame: Frame) -> str:
    return frame.folder.partition("/")[0]


def _subset_folder(data_path: Path, subset: str) -> Path:
    """Where a subset lies, whether or not `--data_path` names `depth_selection` itself."""
    folders = [data_path / subset, data_path / "depth_selection" / subset]
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def _frame(subset: str, stem: str) -> Frame | None:
    """The frame of an image's name; None for a name that is not the archive's."""
    if stem.isascii() and stem.isdecimal():
        return Frame(subset, int(stem), "l")
    drive, _, rest = stem.partition("_image_")
    index, _, camera = rest.partition("_image_")
    sides = {f"{number:02d}": side for side, number in CAMERA.items()}
    if not (drive and index.isascii() and index.isdecimal() and camera in sides):
        return None
    return Frame(f"{subset}/{drive}", int(index), sides[camera])


def depth_to_png(depth_m: Float[np.ndarray, "H W"]) -> Image.Image:
    """A depth map in metres as KITTI's 16-bit image; predictions never become 0 = missing."""
    units = np.round(depth_m / METRES_PER_UNIT)
    return Image.fromarray(np.clip(units, 1, 65535).astype(np.uint16))


def write_submission(
    path: Path, frames: list[Frame], maps: Iterable[Float[np.ndarray, "H W"]]
) -> None:
    """The zip that the server takes: 0000000000.png to 0000000499.png at its root.

    Args:
        frames: the test images, in any order.
        maps: their predicted depth in metres, at their size.

    Raises:
        UserError: not each of the test images once; nothing is written then.
    """
    wanted = OFFICIAL_IMAGES[PREDICTION]
    if sorted(frame.index for frame in frames) != list(range(wanted)):
        raise UserError(f"{path}: the server wants images 0 to {wanted - 1}, each once")
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for frame, depth_m in zip(frames, maps, strict=True):
            with archive.open(f"{frame.index:010d}.png", "w") as member:
                depth_to_png(depth_m).save(member, format="PNG")
