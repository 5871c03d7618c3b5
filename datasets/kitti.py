"""KITTI: raw recordings, the odometry sequences, and the improved ground truth."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from metrics import Protocol, garg_crop
from utils import UserError, read_lines

from .images import read_depth_image, read_image
from .intrinsics import demand_camera
from .mono_dataset import MonoDataset
from .splits import Frame
from .velodyne import (
    DepthAxis,
    calibration_matrix,
    project_scan,
    read_scan,
    velodyne_to_image,
)

CAMERA = {"l": 2, "r": 3}
METRES_PER_UNIT = 1 / 256  # of the 16-bit depth images
IMPROVED_SOURCE = "improved KITTI depth images (accumulated LiDAR)"
STEREO_SCALE = 5.4  # the rig's 0.54 m over the nominal baseline of 0.1
# The raw recordings that the odometry sequences with poses are made of (its development kit).
ODOMETRY_DRIVES = {
    "00": "2011_10_03_drive_0027_sync",
    "01": "2011_10_03_drive_0042_sync",
    "02": "2011_10_03_drive_0034_sync",
    "03": "2011_09_26_drive_0067_sync",
    "04": "2011_09_30_drive_0016_sync",
    "05": "2011_09_30_drive_0018_sync",
    "06": "2011_09_30_drive_0020_sync",
    "07": "2011_09_30_drive_0027_sync",
    "08": "2011_09_30_drive_0028_sync",
    "09": "2011_09_30_drive_0033_sync",
    "10": "2011_09_30_drive_0034_sync",
}

EIGEN = Protocol(
    "KITTI Eigen (LiDAR)", (1e-3, 80.0), (1e-3, 80.0), garg_crop, stereo_scale=STEREO_SCALE
)
IMPROVED = Protocol(
    "KITTI improved ground truth", (0.0, np.inf), (1e-3, 80.0), stereo_scale=STEREO_SCALE
)


class KITTIRaw(MonoDataset):
    """Raw recordings: `<date>/<drive>/image_0{2,3}/data/<frame>.{jpg,png}`, true depth by LiDAR.

    `depth_axis` chooses what the ground truth stores, see `project_scan`.
    """

    nominal_K = (0.58, 1.92, 0.5, 0.5)
    protocol = EIGEN
    depth_axis: DepthAxis = "velodyne_x"

    def image_stem(self, frame: Frame) -> Path:
        camera = f"image_{CAMERA[frame.side]:02d}"
        return self.data_path / frame.folder / camera / "data" / f"{frame.index:010d}"

    def calibrated_K(self, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        path = self._calibration(frame) / "calib_cam_to_cam.txt"
        K = calibration_matrix(path, f"P_rect_{CAMERA[frame.side]:02d}", 3, 4)[:, :3]
        size = calibration_matrix(path, f"S_rect_{CAMERA[frame.side]:02d}", 2)
        width, height = map(int, size)
        demand_camera(path, K, width, height)
        return K, (width, height)

    def depth_path(self, frame: Frame) -> Path | None:
        scans = self.data_path / frame.folder / "velodyne_points" / "data"
        return scans / f"{frame.index:010d}.bin"

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "H W"]:
        scan = read_scan(self.depth_path(frame))
        _, (width, height) = self.calibrated_K(frame)
        P = velodyne_to_image(self._calibration(frame), CAMERA[frame.side])
        return project_scan(scan, P, height, width, self.depth_axis)

    def depth_source(self) -> str:
        return {
            "velodyne_x": "LiDAR, depth = forward coordinate of the scanner",
            "camera_z": "LiDAR, depth = z of the camera",
        }[self.depth_axis]

    def _calibration(self, frame: Frame) -> Path:
        return (self.data_path / frame.folder).parent


class KITTIDepth(KITTIRaw):
    """Raw images with the improved, accumulated ground truth (Uhrig et al. 2017).

    Depth images lie in the drive's own folder, or as the official archive has them, below
    `train/` or `val/` of the data folder.
    """

    protocol = IMPROVED

    def depth_path(self, frame: Frame) -> Path | None:
        drive = Path(frame.folder).name
        roots = (frame.folder, f"train/{drive}", f"val/{drive}")
        inner = f"proj_depth/groundtruth/image_{CAMERA[frame.side]:02d}/{frame.index:010d}.png"
        paths = [self.data_path / root / inner for root in roots]
        return next((path for path in paths if path.is_file()), paths[0])

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "H W"]:
        return read_depth_image(self.depth_path(frame), METRES_PER_UNIT)

    def depth_source(self) -> str:
        return IMPROVED_SOURCE


class KITTIOdom(MonoDataset):
    """Odometry sequences: `sequences/<nn>/image_{2,3}/<frame>.{png,jpg}`, poses in `poses/`."""

    nominal_K = (0.58, 1.92, 0.5, 0.5)

    def image_stem(self, frame: Frame) -> Path:
        name = f"image_{CAMERA[frame.side]}/{frame.index:06d}"
        return self.data_path / "sequences" / sequence_name(frame.folder) / name

    def calibrated_K(self, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        path = self.data_path / "sequences" / sequence_name(frame.folder) / "calib.txt"
        K = calibration_matrix(path, f"P{CAMERA[frame.side]}", 3, 4)[:, :3]
        width, height = read_image(self.find_image(frame)).size
        demand_camera(path, K, width, height)
        return K, (width, height)

    @staticmethod
    def read_poses(data_path: Path, sequence: str) -> Float[np.ndarray, "N 4 4"]:
        """True camera-to-world poses of a sequence, one per frame."""
        return read_poses(data_path / "poses" / f"{sequence_name(sequence)}.txt")


def sequence_name(folder: str) -> str:
    """`9` or `09` as the two digits of KITTI's folders.

    Raises:
        UserError: no number.
    """
    if not (folder.isascii() and folder.isdecimal()):
        raise UserError(f"'{folder}' is no odometry sequence; write its number, as in '9 0-1590 l'")
    return f"{int(folder):02d}"


def read_poses(path: Path) -> Float[np.ndarray, "N 4 4"]:
    """Poses from lines of twelve numbers, the rows of a 3x4 matrix.

    The number of the line, counted from 0, may stand before them.

    Raises:
        UserError: missing file or a line that is no pose (named with its number).
    """
    lines = read_lines(path, "file of poses", "KITTI's odometry archive has them")
    while lines and not lines[-1].strip():
        lines.pop()
    poses = np.tile(np.eye(4), (len(lines), 1, 1))
    for number, line in enumerate(lines, start=1):
        try:
            numbers = np.array(line.split(), np.float64)
            if len(numbers) == 13 and numbers[0] == number - 1:
                numbers = numbers[1:]
            poses[number - 1, :3] = numbers.reshape(3, 4)
            good = np.isfinite(poses[number - 1]).all()
            good = good and abs(np.linalg.det(poses[number - 1, :3, :3]) - 1) < 0.1
        except ValueError:
            good = False
        if not good:
            raise UserError(f"{path}:{number}: not the twelve numbers of a pose [R t]")
    return poses
