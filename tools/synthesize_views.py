"""New views of a scene from one image and its depth: a small tour around where it was taken.

    python tools/synthesize_views.py --image photo.jpg --model_name mono_640x192 --out views.gif
    python tools/synthesize_views.py --image photo.jpg --depth photo_depth.png --fov_deg 80 \\
        --motion translate --distance 0.5 --holes fill --out views.mp4

Depth-image-based rendering: pixels are lifted by paper eq. 2 and seen by another camera. What the
image does not show, behind its things and beyond its borders, is left black or filled.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from camera import Camera  # noqa: E402
from datasets.images import read_depth_image  # noqa: E402
from datasets.kitti import METRES_PER_UNIT, read_poses  # noqa: E402
from inference import find_weights  # noqa: E402
from media import VideoWriter, open_image  # noqa: E402
from predictor import DepthPredictor  # noqa: E402
from tools.commands import add_camera  # noqa: E402
from tools.view_rendering import render_view, sharpened  # noqa: E402
from utils import (  # noqa: E402
    OneLineParser,
    UserError,
    atomic_write,
    demand_writable,
    pick_device,
    run_script,
)

SHARE_OF_DEPTH = 1 / 30  # the camera's usual way, of the median depth
FASTEST_GIF = 50  # frames a second
Motion = Literal["rotate", "translate", "general"]


# Where the virtual camera goes --------------------------------------------------------------------


def camera_path(
    motion: Motion,
    phases: Float[ndarray, " N"],
    amplitude: float,
    direction: tuple[float, float, float] | None = None,
    focus: float = 1.0,
) -> Float[ndarray, "N 4 4"]:
    """Poses of the virtual camera, camera to world, the world being the image's camera.

    Every motion is a closed loop that starts and ends at the image's own camera.

    Args:
        motion: rotate turns without moving, right, left and back, nodding twice; translate moves
            without turning, right, left and back, going ahead in between; general moves on a circle
            and keeps looking at the same point.
        phases: in turns of the loop: 0 starts it and 1 ends it.
        amplitude: radians for rotate, else in units of depth.
        direction: that translate moves to and fro along instead.
        focus: depth of the point that general looks at.
    """
    sway, away = np.sin(2 * np.pi * phases), (1 - np.cos(2 * np.pi * phases)) / 2
    poses = np.tile(np.eye(4), (len(phases), 1, 1))
    if motion == "rotate":
        nod = 0.5 * np.sin(4 * np.pi * phases)
        poses[:, :3, :3] = looking(np.tan(amplitude * sway), np.tan(amplitude * nod), 1.0)
    elif motion == "translate" and direction is not None:
        poses[:, :3, 3] = amplitude * np.outer(sway, direction) / np.linalg.norm(direction)
    elif motion == "translate":
        poses[:, :3, 3] = amplitude * np.stack([sway, 0 * sway, away], 1)
    else:
        poses[:, :3, 3] = amplitude * np.stack([sway, -away, 0 * sway], 1)  # y points down
        poses[:, :3, :3] = looking(*-poses[:, :2, 3].T, focus)
    return poses


def looking(
    right: Float[ndarray, " N"], down: Float[ndarray, " N"], ahead: float
) -> Float[ndarray, "N 3 3"]:
    """Camera to world of level cameras that look along these directions."""
    z = np.stack([right, down, np.full_like(right, ahead)], 1)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], 2)


# What is asked for --------------------------------------------------------------------------------


def parsed() -> argparse.Namespace:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--load_weights_folder", type=Path, help="predicts the image's depth")
    source.add_argument("--model_name", help="a released model that does so")
    source.add_argument(
        "--depth", type=Path, help="16-bit .png (depth in m x 256) or .npy [H W]; 0 is unknown"
    )
    parser.add_argument(
        "--missing",
        choices=("hole", "far"),
        help="what pixels of unknown --depth are: left out, or far away as the sky",
    )
    parser.add_argument("--no_cuda", action="store_true", help="predict on the CPU")
    add_camera(parser)
    parser.add_argument(
        "--motion", default="general", choices=("rotate", "translate", "general", "poses"),
        help="turn, move, move around what is looked at, or follow --poses",
    )  # fmt: skip
    parser.add_argument("--angle_deg", type=float, help="of rotate, to each side (default: 5)")
    parser.add_argument(
        "--distance", type=float, help="in units of depth (default: a 30th of the median depth)"
    )
    parser.add_argument(
        "--direction", type=float, nargs=3, metavar=("X", "Y", "Z"),
        help="of translate: right, down, ahead",
    )  # fmt: skip
    parser.add_argument("--poses", type=Path, help="camera to world, a line of 3x4 numbers a view")
    parser.add_argument("--frames", type=int, help="of the loop (default: 30)")
    parser.add_argument("--holes", default="show", choices=("show", "fill"))
    parser.add_argument("--fps", type=float, help="of a .gif or .mp4 (default: 15)")
    parser.add_argument(
        "--out", type=Path, default=Path("views.gif"), help=".gif, .mp4 or a folder for PNGs"
    )
    return parser.parse_args()


def demand_sense(arguments: argparse.Namespace, camera: Camera) -> None:
    """Refuse flags that do not go together or make no view.

    Raises:
        UserError: naming the flag.
    """
    motion = arguments.motion
    meant_for = {
        "angle_deg": ("rotate",), "distance": ("translate", "general"),
        "direction": ("translate",), "poses": ("poses",),
        "frames": ("rotate", "translate", "general"),
    }  # fmt: skip
    for name, motions in meant_for.items():
        if getattr(arguments, name) is not None and motion not in motions:
            raise UserError(f"--{name} is for --motion {' or '.join(motions)}, not {motion}")
    if motion == "poses" and arguments.poses is None:
        raise UserError("--motion poses needs --poses, a file of them")
    if arguments.missing is not None and arguments.depth is None:
        raise UserError("--missing needs --depth: a network predicts depth everywhere")
    if arguments.no_cuda and arguments.depth is not None:
        raise UserError("--no_cuda: with --depth nothing is predicted; leave one out")
    if arguments.depth is not None and arguments.depth.suffix.lower() not in (".npy", ".png"):
        raise UserError(f"--depth {arguments.depth}: give a .npy or 16-bit .png file")
    for name, low, high in (
        ("angle_deg", 0, 80), ("distance", 0, math.inf), ("frames", 1, 10_000), ("fps", 0.1, 1000),
    ):  # fmt: skip
        value = getattr(arguments, name)
        if value is not None and not low < value < high:
            below = "" if high == math.inf else f" and below {high}"
            raise UserError(f"--{name} {value:g}: give a number above {low}{below}")
    if arguments.direction is not None:
        length = np.linalg.norm(arguments.direction)
        if not 0 < length < math.inf:
            raise UserError("--direction: give three numbers, not all of them 0")
    if (fault := camera.fault()) is not None:
        raise UserError(fault)
    demand_output(arguments.out, arguments.fps)


def demand_output(out: Path, fps: float | None) -> None:
    """Refuse what cannot be written.

    Raises:
        UserError: unknown ending, no place to write to, or a folder with other files.
    """
    ending = out.suffix.lower()
    if ending not in ("", ".gif", ".mp4"):
        raise UserError(f"--out {out}: give a name that ends in .gif or .mp4, or a folder's")
    if ending == ".gif" and fps is not None and fps > FASTEST_GIF:
        raise UserError(f"--fps {fps:g}: a GIF shows {FASTEST_GIF} frames a second at most")
    if ending:
        return demand_writable(out)
    if fps is not None:
        raise UserError(f"--fps {fps:g}: --out {out} is a folder of PNGs, which have no speed")
    demand_writable(out / "any")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty; give a new folder")


def read_depth(path: Path) -> Float[ndarray, "H W"]:
    """A depth map from a file; 0 where unknown.

    Raises:
        UserError: missing, damaged, of other numbers than depths, or all unknown.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such depth file")
    if path.suffix.lower() == ".png":
        depth = read_depth_image(path, METRES_PER_UNIT)
    else:
        try:
            depth = np.load(path, allow_pickle=False)
            if not isinstance(depth, np.ndarray):
                raise ValueError("several arrays")
        except (OSError, ValueError, EOFError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: cannot be read as a .npy array ({reason})") from None
        if depth.ndim != 2 or depth.dtype.kind != "f":
            kind = f"{depth.dtype} {list(depth.shape)}"
            raise UserError(f"{path}: holds {kind}; give an array of floats [height width]")
    depth = np.nan_to_num(depth.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-1.0)
    if depth.size == 0 or depth.min() < 0:
        raise UserError(f"{path}: depth must be positive, or 0 where unknown")
    if not (np.isfinite(depth) & (depth > 0)).any():
        raise UserError(f"{path}: no pixel has a depth; give another file")
    return depth


def fitted(depth: Float[ndarray, "h w"], size: tuple[int, int], path: Path) -> ndarray:
    """A depth map at the (width, height) of its image, by the nearest pixel.

    Raises:
        UserError: it has another shape, so that it must be of another image.
    """
    width, height = size
    old_height, old_width = depth.shape
    if abs(old_width * height - old_height * width) > max(width, height, old_width, old_height):
        raise UserError(
            f"{path}: {old_width}x{old_height} is not the shape of the image, {width}x{height}; "
            "give the depth of this image"
        )
    rows = (np.arange(height) + 0.5) * old_height // height
    columns = (np.arange(width) + 0.5) * old_width // width
    return depth[np.ix_(rows.astype(int), columns.astype(int))]


def depth_of(arguments: argparse.Namespace, image: Image.Image) -> Float[ndarray, "H W"]:
    """The image's depth by file or network; says in which unit."""
    if arguments.depth is not None:
        depth = fitted(read_depth(arguments.depth), image.size, arguments.depth)
        return np.where(depth > 0, depth, np.inf) if arguments.missing == "far" else depth
    weights = find_weights(arguments.load_weights_folder, arguments.model_name, None)
    predictor = DepthPredictor.load(weights, pick_device(arguments.no_cuda, mps=True))
    depth = sharpened(predictor(image))
    unit = "metres" if predictor.scale else "the network's units, not metres"
    print(f"depth {depth.min():.3g} to {depth.max():.3g}, in {unit}")
    return depth


def chosen_poses(
    arguments: argparse.Namespace, depth: Float[ndarray, "H W"]
) -> Float[ndarray, "N 4 4"]:
    """Poses of the views, camera to world of the image's camera.

    Raises:
        UserError: the file of poses is none or empty.
    """
    if arguments.motion == "poses":
        poses = read_poses(arguments.poses)
        if not len(poses):
            raise UserError(f"{arguments.poses}: holds no poses; write a line of twelve numbers")
        return poses
    frames = 30 if arguments.frames is None else arguments.frames
    phases = np.arange(frames) / frames
    focus = float(np.median(depth[np.isfinite(depth) & (depth > 0)]))
    if arguments.motion == "rotate":
        amplitude = math.radians(5 if arguments.angle_deg is None else arguments.angle_deg)
    else:
        amplitude = arguments.distance or SHARE_OF_DEPTH * focus
    return camera_path(arguments.motion, phases, amplitude, arguments.direction, focus)


# Pictures on disk ---------------------------------------------------------------------------------


def write_views(out: Path, views: Iterable[UInt8[ndarray, "H W 3"]], fps: float) -> None:
    """Write views as the ending of the name says: .gif, .mp4, or PNGs in a folder."""
    if out.suffix.lower() == ".mp4":
        with VideoWriter(out, fps) as writer:
            for view in views:
                writer.add(view)
    elif out.suffix.lower() == ".gif":
        first, *others = map(dithered, views)
        more = {"save_all": True, "append_images": others, "loop": 0}
        with atomic_write(out) as file:
            first.save(file, format="GIF", duration=10 * round(100 / fps), **more)
    else:
        for i, view in enumerate(views):
            with atomic_write(out / f"{i:06d}.png") as file:
                Image.fromarray(view).save(file, format="PNG")


def dithered(view: UInt8[ndarray, "H W 3"]) -> Image.Image:
    """A view in the 256 colours that a GIF has for it, mixed so that gradients show no bands."""
    image = Image.fromarray(view)
    palette = image.quantize(256)
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def main() -> None:
    arguments = parsed()
    camera = Camera(*(getattr(arguments, name) for name in Camera._fields))
    demand_sense(arguments, camera)
    picture = open_image(arguments.image)
    K = camera.K(picture.size)
    camera.announce()
    depth = depth_of(arguments, picture)
    poses = chosen_poses(arguments, depth)
    image = np.asarray(picture)
    fill, missing = arguments.holes == "fill", []

    def views() -> Iterator[UInt8[ndarray, "H W 3"]]:
        for pose in tqdm(poses, unit="view", dynamic_ncols=True):
            view = render_view(image, depth, K, np.linalg.inv(pose), *image.shape[:2], fill)
            missing.append(1 - view.seen.mean())
            yield view.image

    write_views(arguments.out, views(), 15.0 if arguments.fps is None else arguments.fps)
    holes = f"{np.mean(missing):.1%} holes{', filled' * fill}"
    print(f"{len(poses)} views, motion {arguments.motion}, {holes}, in {arguments.out}")


if __name__ == "__main__":
    run_script(main)
