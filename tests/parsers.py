"""Everything that reads a stranger's file, with a good file to damage, for tests and fuzzing.

A reader returns what it promises or raises UserError in one line: never another exception, never
without end. `attempt` holds it to that.
"""

import contextlib
import io
import json
import signal
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import checkpoint
from camera import LONGEST_FOCAL
from datasets import Frame, GroundTruth, read_sequence, write_ground_truth
from datasets.images import read_depth_image, read_image, read_pixels
from datasets.kinect import read_raw_depth
from datasets.kitti import read_poses
from datasets.nyuv2 import read_intrinsics, read_scenes
from datasets.splits import read_split
from datasets.velodyne import calibration_matrix, project_scan, read_scan, velodyne_to_image
from options import TrainOptions, parse
from states import read_state
from tools.nyuv2_labelled import LabelledFile
from tools.nyuv2_mat import write_labelled_mat
from tools.video_camera import exif_focal, read_camera
from utils import UserError

LONGEST_S = 20  # for a small file
CAM_TO_CAM = """calib_time: 09-Jan-2012 13:57:47
S_rect_02: 1.242000e+03 3.750000e+02
R_rect_00: 9.999239e-01 9.837760e-03 -7.445048e-03 -9.869795e-03 9.999421e-01 -4.278459e-03 \
7.402527e-03 4.351614e-03 9.999631e-01
P_rect_02: 7.215377e+02 0 6.095593e+02 4.485728e+01 0 7.215377e+02 1.728540e+02 2.163791e-01 \
0 0 1 2.745884e-03
"""
VELO_TO_CAM = "R: 0 -1 0 0 0 -1 1 0 0\nT: -4e-03 -7.6e-02 -2.7e-01\n"
POSES = "1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 0.1 0 1 0 0 0 0 1 1.5\n"
SPLIT = "# a comment\n2011_09_26/2011_09_26_drive_0001_sync 5 l\n\nscene 0-12 lr\nsequence 3 0\n"
OWN = {
    "images": "left",
    "stereo": {"images": "right", "baseline_m": 0.12},
    "depth": {"images": "depth", "metres_per_unit": 0.001},
    "mask": "mask.png",
    "camera": "one",
}
BENT = {"distortion": [0.1, -0.2, 0, 0.01, 0.3]}
COLMAP = "# Camera list\n1 OPENCV 640 480 500.5 501 320.5 240 0.1 -0.05 0.001 0.0002\n"
OPENCV = """%YAML:1.0
---
image_width: 640
image_height: 480
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 500., 0., 320., 0., 501., 240., 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: [ 0.1, -0.05, 0.001, 0., 0. ]
"""
SCENES = "1 kitchen_0001a\n2 office_0002b\n"
FLAGS = """# as in experiments/
--height 192 --width 640 --frame_ids 0 -1 1
--learning_rate 1e-4 --scales 0 1 2 3
--model_name 'a name' --png --split eigen_zhou --save_steps 10 --resume
"""


class Parser(NamedTuple):
    """A reader of files.

    Attributes:
        file: name that the file goes by.
        good: what a right file holds.
        read: reads a file, and asserts what it promises of the result.
        mend: makes checksums right again, so that damage gets behind them.
    """

    file: str
    good: bytes
    read: Callable[[Path], None]
    mend: Callable[[bytes], bytes] = bytes


def split(path: Path) -> None:
    for frame in read_split(path):
        assert not frame.folder.startswith("/") and ".." not in Path(frame.folder).parts
        assert frame.index >= 0 and frame.side in "lr"


def calib(path: Path) -> None:
    (path.parent / "calib_velo_to_cam.txt").write_text(VELO_TO_CAM)
    P = velodyne_to_image(path.parent, 2)
    assert P.shape == (3, 4)
    calibration_matrix(path, "S_rect_02", 2)
    scan = np.array([[10, 1, 0, 0.5], [20, -1, 1, 0.1]], np.float32)
    with np.errstate(over="ignore"):  # numbers may be huge, and no pixel is hit then
        demand_depth(project_scan(scan, P, 20, 30))


def poses(path: Path) -> None:
    values = read_poses(path)
    assert values.shape[1:] == (4, 4) and np.isfinite(values).all()


def velodyne(path: Path) -> None:
    P = np.array([[7.0, -10, 0, 0], [3.0, 0, -10, 0], [1.0, 0, 0, 0]])
    for axis in ("velodyne_x", "camera_z"):
        demand_depth(project_scan(read_scan(path), P, 20, 30, axis))


def depth_png(path: Path) -> None:
    demand_depth(read_depth_image(path, 1 / 256))


def raw_depth(path: Path) -> None:
    demand_depth(read_raw_depth(path))


def image(path: Path) -> None:
    pixels = read_pixels(path)
    assert pixels.dtype == torch.uint8 and pixels.dim() == 3 and len(pixels) == 3
    read_image(path)


def labelled_mat(path: Path) -> None:
    file = LabelledFile(path)
    assert all(file.scenes())
    picture, *depths = file.read(1)
    assert picture.shape == (480, 640, 3)
    assert all(depth.shape == (480, 640) for depth in depths)


def flags_file(path: Path) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            parse(TrainOptions, [f"@{path}"])
        except SystemExit as ended:
            line = err.getvalue()
            if ended.code:
                assert ended.code == 2 and line.count("\n") == 1 and "error: " in line, line
                raise UserError(line.strip()) from None


def intrinsics(path: Path) -> None:
    K, (width, height) = read_intrinsics(path)
    assert np.isfinite(K).all() and min(K[0, 0], K[1, 1], width, height) > 0


def sequence(path: Path) -> None:
    one = read_sequence(path.parent)
    assert np.isfinite(one.K).all() and min(*one.size, one.K[0, 0], one.K[1, 1]) > 0
    assert all(p is None or p.is_relative_to(path.parent) for p in (one.images, one.partner))
    assert np.isfinite([one.baseline_m, one.metres_per_unit]).all()


def camera_file(path: Path) -> None:
    lens = read_camera(path, (640, 480))
    assert np.isfinite(lens.K).all() and np.isfinite(lens.distortion).all()


def photo(path: Path) -> None:
    focal = exif_focal(path, (64, 48))
    assert focal is None or 0 < focal < LONGEST_FOCAL


def scenes(path: Path) -> None:
    assert all(number >= 0 and scene for number, scene in read_scenes(path.parent).items())


def ground_truth(path: Path) -> None:
    gt = GroundTruth(path)
    for depth in (gt[i] for i in range(min(len(gt), 3))):
        assert depth.ndim == 2 and depth.dtype.kind == "f"


def weights(path: Path) -> None:
    assert all(isinstance(key, str) for key in checkpoint.read(path))
    checkpoint.load_network(torch.nn.Linear(2, 2), path)


def training_options(path: Path) -> None:
    (path.parent / "weights").mkdir(exist_ok=True)
    assert isinstance(checkpoint.training_options(path.parent / "weights"), dict)


def state(path: Path) -> None:
    assert read_state(path)["identity"] is not None


def demand_depth(depth: np.ndarray) -> None:
    assert depth.ndim == 2 and depth.dtype == np.float32
    assert np.isfinite(depth).all() and depth.min() >= 0


# Good files -----------------------------------------------------------------------------------


def picture_bytes(array: np.ndarray, kind: str) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(array).save(memory, kind)
    return memory.getvalue()


def photo_bytes(array: np.ndarray) -> bytes:
    """A JPEG that says its focal length, on two ways."""
    exif, memory = Image.Exif(), io.BytesIO()
    exif.get_ifd(0x8769).update({37386: 5.0, 41486: 1000.0, 41488: 3, 40962: 384, 41989: 28})
    Image.fromarray(array).save(memory, "JPEG", exif=exif)
    return memory.getvalue()


def torch_bytes(content: object) -> bytes:
    memory = io.BytesIO()
    torch.save(content, memory)
    return memory.getvalue()


def written(write: Callable[[Path], None], folder: Path) -> bytes:
    """What a function writes to a file."""
    path = folder / "written"
    write(path)
    content = path.read_bytes()
    path.unlink()
    return content


def mended_zip(content: bytes) -> bytes:
    """An archive's entries packed again with the right checksums, where they can be unpacked."""
    memory = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(memory, "w") as new:
            for entry in old.infolist():
                start = entry.header_offset
                name, extra = struct.unpack("<HH", content[start + 26 : start + 30])
                start += 30 + name + extra
                new.writestr(entry.filename, content[start : start + entry.file_size])
    except Exception:  # it is an archive no more
        return content
    return memory.getvalue()


def mended_png(content: bytes) -> bytes:
    """A PNG's chunks with the right checksums, as far as there are whole ones."""
    out, at = content[:8], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        body = content[at + 4 : at + 8 + length]
        if len(body) < 4 + length:
            break
        out += content[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return out + content[at:]


def all_parsers(folder: Path) -> dict[str, Parser]:
    """Every parser by its name; `folder` is for making the good files."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (9, 13, 3)).astype(np.uint8)
    depth = rng.integers(0, 2**16, (9, 13)).astype(np.uint16)
    kinect = np.full((480, 640), 700, np.uint16).byteswap()
    room = np.zeros((480, 640, 3), np.uint8), *2 * [np.full((480, 640), 2, np.float32)]
    camera = {"fx": 500, "fy": 501.5, "cx": 320, "cy": 240, "width": 640, "height": 480}
    linear = torch.nn.Linear(2, 2).state_dict()
    gt = written(
        lambda path: write_ground_truth(
            path, [Frame("a", i, "l") for i in (0, 1)], np.ones((2, 3, 4)), "made up", "KITTIRaw"
        ),
        folder,
    )
    mat = written(lambda path: write_labelled_mat(path, 2 * [room], ["den_0001a"] * 2), folder)
    return {
        "split": Parser("train_files.txt", SPLIT.encode(), split),
        "calib": Parser("calib_cam_to_cam.txt", CAM_TO_CAM.encode(), calib),
        "poses": Parser("09.txt", POSES.encode(), poses),
        "velodyne": Parser("0.bin", np.float32([[9, 1, -1, 0], [9, 0, 0, 1]]).tobytes(), velodyne),
        "depth_png": Parser("0.png", picture_bytes(depth, "PNG"), depth_png, mended_png),
        "mat": Parser("labelled.mat", mat, labelled_mat),
        "options": Parser("some.args", FLAGS.encode(), flags_file),
        "png": Parser("1.png", picture_bytes(colours, "PNG"), image, mended_png),
        "jpg": Parser("1.jpg", picture_bytes(colours, "JPEG"), image),
        "raw_depth": Parser("d-1-1.pgm", picture_bytes(kinect, "PPM"), raw_depth),
        "intrinsics": Parser("camera.json", json.dumps(camera).encode(), intrinsics),
        "sequence": Parser("intrinsics.json", json.dumps(camera | OWN).encode(), sequence),
        "colmap": Parser("cameras.txt", COLMAP.encode(), camera_file),
        "opencv": Parser("camera.yaml", OPENCV.encode(), camera_file),
        "own_camera": Parser("c.json", json.dumps(camera | BENT).encode(), camera_file),
        "photo": Parser("photo.jpg", photo_bytes(colours), photo),
        "scenes": Parser("scenes.txt", SCENES.encode(), scenes),
        "ground_truth": Parser("gt_depths.npz", gt, ground_truth, mended_zip),
        "weights": Parser("depth.pth", torch_bytes(linear), weights, mended_zip),
        "opt_json": Parser("opt.json", json.dumps({"height": 192}).encode(), training_options),
        "state": Parser(
            "state_00000001.pth",
            torch_bytes({"identity": {}, "parts": {"model": linear}, "counts": {"step": 1}}),
            state,
            mended_zip,
        ),
    }


with tempfile.TemporaryDirectory() as place:
    PARSERS = all_parsers(Path(place))


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """TimeoutError when the block takes longer."""

    def late(*_):
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(parser: Parser, content: bytes, folder: Path) -> bool:
    """Whether a file with that content is read; False where it is refused as it should be."""
    path = folder / parser.file
    path.write_bytes(content)
    with at_most(LONGEST_S), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            parser.read(path)
        except UserError as error:
            message = str(error)
            assert message and "\n" not in message and "Traceback" not in message, message
            return False
    return True
