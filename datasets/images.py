"""Images on disk: colour, 16-bit depth, and depth images made of points."""

import contextlib
import io
from pathlib import Path

import imagecodecs
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor

from utils import UserError

NO_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
FAST = {  # formats: how whole files end, and what decodes them
    "JPEG": (b"\xff\xd9", imagecodecs.jpeg8_decode),
    "PNG": (b"IEND\xaeB`\x82", imagecodecs.png_decode),
}


def read_image(path: Path) -> Image.Image:
    """An image as RGB.

    Raises:
        UserError: it is missing, damaged, no image, or has more than 8 bits a channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode}, not 8 bits a channel")
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except NO_IMAGE as error:
        raise UserError(
            f"{path}: cannot be read as an image ({' '.join(str(error).split())}): "
            "replace the file, or take its frame out of the split"
        ) from None


def read_pixels(path: Path) -> UInt8[Tensor, "3 H W"]:
    """An image as RGB, faster than `read_image`, which has the last word on what is no image.

    Raises:
        UserError: as `read_image`.
    """
    pixels = None
    with contextlib.suppress(*NO_IMAGE, imagecodecs.Jpeg8Error, imagecodecs.PngError):
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as header:
            if header.mode == "RGB" and header.format in FAST:
                end, decode = FAST[header.format]
                pixels = decode(content) if content.endswith(end) else None
    if pixels is None:
        pixels = np.array(read_image(path))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resize_fast(
    pixels: UInt8[Tensor, "3 H W"], height: int, width: int
) -> UInt8[Tensor, "3 {height} {width}"]:
    """An image at another size by antialiased bicubic interpolation, made for training.

    Several times faster than Pillow's LANCZOS, from which it differs little
    (`benchmarks/bench_loader.py` measures both); evaluation keeps to LANCZOS.
    """
    if pixels.shape[1:] == (height, width):
        return pixels
    one = pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # so that its strides say channels-last
    return F.interpolate(one, (height, width), mode="bicubic", antialias=True)[0]


def in_unit_range(images: UInt8[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
    """Images in [0, 1], colour planes one after the other in memory, whatever it was before."""
    return images.to(torch.float32, memory_format=torch.contiguous_format) / 255


def read_depth_image(path: Path, metres_per_unit: float) -> Float[np.ndarray, "H W"]:
    """A 16-bit depth image in metres, 0 = missing.

    Raises:
        UserError: damaged, or not 16-bit with one channel.
    """
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except NO_IMAGE as error:
        raise UserError(f"{path}: cannot be read as a depth image ({error})") from None
    if not mode.startswith("I"):
        raise UserError(f"{path}: is no 16-bit depth image (its mode is {mode})")
    return values.astype(np.float32) * np.float32(metres_per_unit)


def depth_of_points(
    pixels: Num[np.ndarray, "N 2"], depth_m: Float[np.ndarray, " N"], height: int, width: int
) -> Float[np.ndarray, "H W"]:
    """Depth image of points at whole pixels (u, v), 0 = no point.

    Points outside the image or not in front of it drop out; in a pixel the nearest wins.
    """
    inside = (pixels >= 0).all(1) & (pixels < (width, height)).all(1) & (depth_m > 0)
    u, v = pixels[inside].astype(np.int64).T
    image = np.full((height, width), np.inf, np.float32)
    np.minimum.at(image, (v, u), depth_m[inside].astype(np.float32))
    image[np.isinf(image)] = 0
    return image
