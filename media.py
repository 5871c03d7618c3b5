"""Pictures and videos that people give: found, opened whatever their kind, and written."""

import glob
import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from utils import UserError, demand_writable

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
USUAL_FPS = 30.0  # of videos that do not say theirs
OUTPUTS = ("_disp", "_side_by_side", "_depth", "_uncertainty")  # ends of our own files' names
Margins = tuple[int, int, int, int]  # left, top, right, bottom
DARK = 32  # of 255: black borders, with what compression makes of them
SOFT = 2  # pixels beside a black border that are darkened by it
LARGEST_BORDER = 0.4  # of a side; more is a dark picture
QUALITY = 95  # of JPEGs that are training data
BAD = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def find_images(given: str, ext: str | None = None) -> list[Path]:
    """The image, the images of a folder, or those that a pattern with * matches.

    Args:
        ext: only files that end in it; otherwise all that are images by their names.

    Raises:
        UserError: there is none.
    """
    path = Path(given).expanduser()
    if path.is_file():
        return [path]
    found = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    ends = IMAGES if ext is None else (f".{ext.lower().lstrip('.')}",)
    images = sorted(p for p in found if p.is_file() and p.suffix.lower() in ends)
    images = [p for p in images if not is_output(p)]
    if not images:
        if not path.exists() and not glob.has_magic(given):
            raise UserError(f"{given}: no such file or folder")
        raise UserError(f"{given}: holds no images ending in {', '.join(ends)}")
    return images


def is_output(path: Path) -> bool:
    """Whether a file is what a prediction wrote for another image of the same folder."""
    stems = (path.stem.removesuffix(end) for end in OUTPUTS if path.stem.endswith(end))
    return any(path.with_name(stem + end).is_file() for stem in stems for end in _any_case(IMAGES))


def is_video(given: str) -> bool:
    """Whether that is a video file, or the number of a webcam."""
    return given.isdecimal() or Path(given).suffix.lower() in VIDEOS


def open_image(path: Path) -> Image.Image:
    """A picture as RGB, upright as its EXIF says; 16-bit ones lose their lower 8 bits.

    Raises:
        UserError: missing, damaged, no picture, or too large to be one.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I"):
                values = np.asarray(image).astype(np.int64)
                image = Image.fromarray(np.uint8(np.clip(values >> 8, 0, 255)))
            elif image.mode == "F":
                raise ValueError("numbers instead of colours")
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except BAD as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image ({reason})") from None


def encoded(image: ndarray, png: bool) -> bytes:
    """A picture [H W 3] uint8, or depth [H W] uint16, as the bytes of a PNG or JPEG."""
    memory = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.save(memory, "PNG") if png else picture.save(memory, "JPEG", quality=QUALITY)
    return memory.getvalue()


def black_borders(pictures: list[UInt8[ndarray, "H W C"]]) -> Margins:
    """What to cut off of some pictures of one size whose margins are black in all of them; nothing
    where these are dark pictures."""
    if not pictures:
        return 0, 0, 0, 0
    height, width = pictures[0].shape[:2]
    margins = dark_margins(pictures)
    lengths = width, height, width, height
    return tuple(
        margin + SOFT if 0 < margin <= LARGEST_BORDER * length else 0
        for margin, length in zip(margins, lengths, strict=True)
    )


def dark_margins(pictures: list[UInt8[ndarray, "H W C"]]) -> Margins:
    """Columns and rows at the ends that are black in all of some pictures of one size."""
    brightest = np.max([picture.max(2) for picture in pictures], axis=0)
    (left, right), (top, bottom) = (dark_ends(brightest.max(axis)) for axis in (0, 1))
    return left, top, right, bottom


def dark_ends(line: ndarray) -> tuple[int, int]:
    """How many of a row's values are black at its beginning and at its end."""
    bright = np.flatnonzero(line > DARK)
    if not len(bright):
        return len(line), len(line)
    return int(bright[0]), len(line) - 1 - int(bright[-1])


class VideoReader:
    """Frames of a video file, or of a webcam until it is interrupted.

    Raises:
        UserError: it cannot be opened or has no frame.
    """

    def __init__(self, given: str):
        self.is_webcam = given.isdecimal()
        if not self.is_webcam and not Path(given).is_file():
            raise UserError(f"{given}: no such video")
        self._capture = cv2.VideoCapture(int(given) if self.is_webcam else given)
        self._first = self._capture.read() if self._capture.isOpened() else (False, None)
        if not self._first[0]:
            what = f"webcam {given}" if self.is_webcam else given
            raise UserError(f"{what}: cannot be read as a video")
        fps, count = rate_and_count(self._capture)
        self.fps = fps or USUAL_FPS
        self.count = None if self.is_webcam else count

    def __iter__(self) -> Iterator[UInt8[ndarray, "H W 3"]]:
        there, frame = self._first
        while there:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            there, frame = self._capture.read()

    def close(self) -> None:
        self._capture.release()


def rate_and_count(capture: cv2.VideoCapture) -> tuple[float | None, int | None]:
    """Frames per second and number of frames as a video says them, None for what is none."""
    fps, count = (capture.get(what) for what in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
    return fps if 0 < fps < 1000 else None, int(count) if 0 < count < 1e9 else None


class VideoWriter:
    """An MP4 that appears under its name when the block ends well, and not at all otherwise.

    Raises:
        UserError: it cannot be written.
    """

    def __init__(self, path: Path, fps: float):
        demand_writable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.fps, self.frames = path, fps, 0
        self._new = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, frame: UInt8[ndarray, "H W 3"]) -> None:
        """One more frame, of the size of the first; an odd last row or column is left out."""
        height, width = (size - size % 2 for size in frame.shape[:2])
        if self._writer is None:
            codec = cv2.VideoWriter_fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._new), codec, self.fps, (width, height))
            if not self._writer.isOpened():
                raise UserError(f"{self.path}: no MP4 of {width}x{height} can be written")
        self._writer.write(cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR))
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None and self._new.exists():
            os.replace(self._new, self.path)
        self._new.unlink(missing_ok=True)


def _any_case(ends: tuple[str, ...]) -> tuple[str, ...]:
    return (*ends, *(end.upper() for end in ends))
