"""What is written of a clip: numbered frames, the camera, and what became of the others."""

import json
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from datasets.folder import CAMERA_FILE
from media import Margins, encoded
from tools.video_camera import Lens
from tools.video_source import Clip, Picture
from tools.video_view import View
from utils import UserError

MASK_FILE = "mask.png"
SHORTEST = 3  # frames of a sequence: a target and its neighbours


class Settings(NamedTuple):
    """How clips become sequences.

    Attributes:
        size: (width, height) of what is written; None as it comes, within limits.
        fps: frames per second to keep; None for all.
        span: seconds of the clip to read.
        margins: pixels cut off at left, top, right and bottom.
        crop_borders: cut off black borders too.
        min_motion: least parallax of neighbours in pixels of pictures 640 long; 0 keeps all.
        mask: false where frames show what moves with the camera.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    span: tuple[float, float] = (0.0, math.inf)
    margins: Margins = (0, 0, 0, 0)
    crop_borders: bool = False
    min_motion: float = 1.5
    mask: Bool[ndarray, "H W"] | None = None

    @property
    def content(self) -> dict[str, Any]:
        """As JSON has it, the mask by its checksum."""
        content = self._asdict()
        content["size"] = self.size and list(self.size)
        content["margins"] = list(self.margins)
        content["span"] = [None if math.isinf(seconds) else seconds for seconds in self.span]
        if self.mask is not None:
            content["mask"] = zlib.crc32(np.packbits(self.mask).tobytes())
        return content


class Made(NamedTuple):
    """What became of a clip: counts of frames read, kept, without motion, that motion links to no
    two others, and that cannot be decoded; and of the sequences that the kept ones make."""

    read: int
    kept: int
    still: int
    unlinked: int
    unreadable: int
    sequences: int


class SequenceWriter:
    """Numbered JPEGs in a folder; a number that is missing parts two sequences.

    Attributes:
        kept: pictures of the sequences that are long enough to be written.
        sequences: how many these are.
    """

    def __init__(self, folder: Path):
        self._folder, self._number = folder, 0
        self._waiting: list[bytes] = []  # until the sequence is long enough
        self._length = 0
        self.kept, self.sequences = 0, 0

    def add(self, picture: Picture) -> None:
        """One more picture of the sequence."""
        self._length += 1
        self._waiting.append(encoded(picture, png=False))
        if self._length < SHORTEST:
            return
        for content in self._waiting:
            (self._folder / f"{self._number:06d}.jpg").write_bytes(content)
            self._number += 1
        self._waiting = []

    def cut(self) -> None:
        """The next picture begins another sequence."""
        if self._length >= SHORTEST:
            self.kept += self._length
            self.sequences += 1
            self._number += 1
        self._waiting, self._length = [], 0


def camera_file(
    clip: Clip, lens: Lens, view: View, settings: Settings, made: Made
) -> dict[str, Any]:
    """What the intrinsics.json of a sequence says."""
    content = numbers_of(view.K, view.size)
    content |= {"guessed": True} if lens.guessed else {"camera": view.camera}
    content |= {"reshaped": True} if view.reshaped else {}
    content |= {"mask": MASK_FILE} if settings.mask is not None else {}
    before = numbers_of(lens.K, lens.size) | {"distortion": lens.distortion.tolist()}
    about = origin(clip) | {"camera": before | {"from": lens.origin}}
    about |= {"frames_per_second": settings.fps or clip.fps}
    return content | {"about": about | {"settings": settings.content, **made._asdict()}}


def numbers_of(K: Float[ndarray, "3 3"], size: tuple[int, int]) -> dict[str, float]:
    """A camera as intrinsics.json has it."""
    return {
        "fx": float(K[0, 0]), "fy": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2]),
        "width": size[0], "height": size[1],
    }  # fmt: skip


def origin(clip: Clip) -> dict[str, Any]:
    """What tells a clip from another of its name."""
    return {"source": clip.path.resolve().name, "bytes": clip.bytes}


def read_made(folder: Path, clip: Clip) -> Made | None:
    """What an earlier run made of a clip; None if it did not.

    Raises:
        UserError: it made the folder of another clip of this name.
    """
    try:
        about = json.loads((folder / CAMERA_FILE).read_text(encoding="utf-8"))["about"]
        made = Made(*(int(about[name]) for name in Made._fields))
        before = {name: about[name] for name in origin(clip)}
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
    if before != origin(clip):
        raise UserError(
            f"{folder}: was made of another {before['source']}; remove it, or rename {clip.path}"
        )
    return made
