"""Anyone's sequences of frames: folders of numbered images, each with an intrinsics.json."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from metrics import Protocol
from utils import UserError, read_lines

from .images import NO_IMAGE, read_depth_image, read_image
from .intrinsics import demand_camera, in_pixels, pinhole
from .mono_dataset import EXTENSIONS, MonoDataset
from .splits import Frame

CAMERA_FILE = "intrinsics.json"
NUMBERED = re.compile(r"(?:.*\D)?(\d+)", re.ASCII | re.DOTALL)  # stems of frames
LARGEST_NUMBER = 9_999_999_999  # what split lines can say
CAMERA_KEYS = ("fx", "fy", "cx", "cy")
WAY_OUT = "tools/prepare_video.py writes it, docs/own_data.md says what is in it"
BLACK = 128  # of 255: what is darker in a mask is black; JPEG and brushes make soft edges
METRIC = Protocol("own depth", (0.0, np.inf), (1e-3, 80.0), stereo_scale=1.0)


class Sequence(NamedTuple):
    """What the intrinsics.json of a sequence says.

    Attributes:
        K: intrinsics in pixels of images of `size`, which is (width, height).
        camera: sequences of one name were filmed by one camera, which `--learn_intrinsics` learns;
            None is a camera of its own.
        guessed: nobody measured the camera.
        reshaped: the images were cut, or resized to another shape, since it took them.
        images: the folder of its frames.
        partner: the folder of the stereo partner's frames, which have the same K; or None.
        baseline_m: metres from the camera to its partner, above 0 if that is to the right.
        depth: the folder of 16-bit depth images, in `metres_per_unit`; or None.
        mask: image that is black where frames of either side show their own vehicle; or None.
    """

    K: Float[np.ndarray, "3 3"]
    size: tuple[int, int]
    camera: str | None
    guessed: bool
    reshaped: bool
    images: Path
    partner: Path | None
    baseline_m: float
    depth: Path | None
    metres_per_unit: float
    mask: Path | None


class VideoFolder(MonoDataset):
    """Sequences `<folder>/intrinsics.json` with frames whose names end in their number.

    The camera is that of each sequence. The baseline of stereo partners is taken as it is, so that
    what is trained on them predicts metres.
    """

    nominal_K = None
    protocol = METRIC
    how_to_get = """\
Sequences of your own:
  1. python tools/prepare_video.py clip.mp4 --out video --fov_deg 70
     (or, where frames and intrinsics.json are there already: python tools/make_split.py video)
  2. python tools/check_data.py --dataset folder --data_path video
docs/own_data.md says what makes such a folder."""

    def __init__(self, data_path: Path, *args: Any, **kwargs: Any):
        self._sequences: dict[str, Sequence] = {}
        self._numbered: dict[Path, dict[int, str]] = {}
        self._masks: dict[str, Bool[np.ndarray, "H W"]] = {}
        super().__init__(data_path, *args, **kwargs)
        self._numbered.clear()  # as the listings: who looks again finds what is there then
        for folder in self.folders:
            self._read_mask(folder)
        self.has_masks = bool(self._masks)

    @property
    def folders(self) -> list[str]:
        """Folders of the sequences that the frames are of."""
        return list(dict.fromkeys(frame.folder for frame in self.frames))

    def sequence(self, folder: str) -> Sequence:
        """What is known of a sequence.

        Raises:
            UserError: as `read_sequence`.
        """
        if folder not in self._sequences:
            self._sequences[folder] = read_sequence(self.data_path / folder)
        return self._sequences[folder]

    def image_stem(self, frame: Frame) -> Path:
        return self._images(frame) / f"{frame.index:06d}"

    def find_image(self, frame: Frame) -> Path | None:
        folder = self._images(frame)
        if folder not in self._numbered:
            self._numbered[folder] = numbered_files(folder, self.extensions)
        name = self._numbered[folder].get(frame.index)
        return None if name is None else folder / name

    def calibrated_K(self, frame: Frame) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        sequence = self.sequence(frame.folder)
        return sequence.K, sequence.size

    def baseline_of(self, frame: Frame) -> float:
        return self.sequence(frame.folder).baseline_m

    def camera_name(self, frame: Frame) -> str:
        return self.sequence(frame.folder).camera or frame.folder

    def valid_pixels(self, frame: Frame) -> Bool[np.ndarray, "H W"] | None:
        return self._masks.get(frame.folder)

    def same_recording(self, frame: Frame, other: Frame) -> bool:
        first, last = sorted((frame.index, other.index))
        between = (frame._replace(index=number) for number in range(first + 1, last))
        return all(self.find_image(one) is not None for one in between)

    def depth_path(self, frame: Frame) -> Path | None:
        folder = self.sequence(frame.folder).depth
        if folder is None or frame.side == "r":
            return None
        if folder not in self._numbered:
            self._numbered[folder] = numbered_files(folder, (".png",))
        name = self._numbered[folder].get(frame.index)
        return folder / (name or f"{frame.index:06d}.png")

    def read_depth(self, frame: Frame) -> Float[np.ndarray, "H W"]:
        per_unit = self.sequence(frame.folder).metres_per_unit
        return read_depth_image(self.depth_path(frame), per_unit)

    def depth_source(self) -> str:
        return "depth images of the data folder"

    def _images(self, frame: Frame) -> Path:
        """The folder that holds a frame."""
        sequence = self.sequence(frame.folder)
        if frame.side == "l":
            return sequence.images
        if sequence.partner is None:
            raise UserError(
                f"{self.data_path / frame.folder / CAMERA_FILE}: names no stereo partner; add "
                "'stereo', or train without --use_stereo and with l in the split"
            )
        return sequence.partner

    def _read_mask(self, folder: str) -> None:
        """Keep the static mask of a sequence, which must have the size of its camera."""
        sequence = self.sequence(folder)
        if sequence.mask is None:
            return
        try:
            with Image.open(sequence.mask) as image:
                pixels = not_black(image)
        except FileNotFoundError:
            raise UserError(
                f"{sequence.mask}: no such mask; make it, or take it out of {CAMERA_FILE}"
            ) from None
        except NO_IMAGE as error:
            raise UserError(f"{sequence.mask}: cannot be read as a mask ({error})") from None
        size = pixels.shape[::-1]
        if size != sequence.size:
            raise UserError(
                f"{sequence.mask}: has {size[0]}x{size[1]} pixels, its camera "
                f"{sequence.size[0]}x{sequence.size[1]}"
            )
        if not pixels.any():
            raise UserError(f"{sequence.mask}: is black all over; white is what is learnt from")
        self._masks[folder] = pixels


def not_black(mask: Image.Image) -> Bool[np.ndarray, "H W"]:
    """Where a mask lets the world through: where it is bright, or 1 in one of zeros and ones."""
    grey = np.asarray(mask.convert("L"))
    return grey >= (1 if grey.max() == 1 else BLACK)


def numbered_files(folder: Path, extensions: tuple[str, ...]) -> dict[int, str]:
    """Names of a folder's images by the number that they end in; empty where there is no folder.

    Of one number, the extension that comes first is taken.

    Raises:
        UserError: two images of one kind have the same number.
    """
    found: dict[int, str] = {}
    ranks: dict[int, int] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return {}
    for name in names:
        stem, extension = os.path.splitext(name)
        match = NUMBERED.fullmatch(stem)
        extension = extension.lower()
        if extension not in extensions or not match or int(match[1]) > LARGEST_NUMBER:
            continue
        number, rank = int(match[1]), extensions.index(extension)
        if ranks.get(number) == rank:
            raise UserError(
                f"{folder}: {found[number]} and {name} have the same number; "
                "tools/prepare_video.py numbers frames anew"
            )
        if number not in ranks or rank < ranks[number]:
            found[number], ranks[number] = name, rank
    return found


def find_sequences(data_path: Path) -> list[str]:
    """Folders below `data_path` that hold an intrinsics.json, by name; hidden ones are none, and
    what links lead to is found as well."""
    root, found, seen = Path(data_path).resolve(), [], set()

    def leads_back(path: Path) -> bool:
        return path.is_symlink() and path.resolve().is_relative_to(root)

    for folder, inner, names in os.walk(data_path, followlinks=True):
        where = os.path.realpath(folder)
        if where in seen:  # links outside that go round
            inner.clear()
            continue
        seen.add(where)
        inner[:] = [n for n in inner if n[0] != "." and not leads_back(Path(folder, n))]
        if CAMERA_FILE in names:
            found.append(Path(folder).relative_to(data_path))
    return [str(path) for path in sorted(found)]


def read_sequence(folder: Path) -> Sequence:
    """What the intrinsics.json of a folder says.

    Raises:
        UserError: it is missing, is no JSON, or says something odd: named.
    """
    path = folder / CAMERA_FILE
    lines = read_lines(path, "camera", WAY_OUT)
    try:
        values = json.loads("\n".join(lines))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}); {WAY_OUT}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no names with values; {WAY_OUT}")
    given = Given(path, values)
    images = given.folder("images", ".")
    K, size = given.camera(lambda: first_size(images))
    demand_camera(path, K, *size)
    if not (0 <= K[0, 2] < size[0] and 0 <= K[1, 2] < size[1]):
        raise UserError(
            f"{path}: the principal point {K[0, 2]:g}, {K[1, 2]:g} lies outside images of "
            f"{size[0]}x{size[1]}: is K of another size, or normalised ('normalised': true)?"
        )
    stereo, depth = given.part("stereo"), given.part("depth")
    sequence = Sequence(
        K,
        size,
        given.text("camera") if "camera" in values else None,
        given.flag("guessed"),
        given.flag("reshaped"),
        images,
        stereo and stereo.folder("images"),
        stereo.number("baseline_m") if stereo else 0.0,
        depth and depth.folder("images"),
        depth.number("metres_per_unit") if depth else 0.0,
        given.folder("mask") if "mask" in values else None,
    )
    for name in ("about", "camera", "mask"):
        given.passed(name)
    for part in filter(None, (given, stereo, depth)):
        part.demand_known()
    if stereo and sequence.baseline_m == 0:
        raise UserError(f"{path}: a baseline_m of 0 is no stereo pair")
    if depth and sequence.metres_per_unit <= 0:
        raise UserError(f"{path}: metres_per_unit {sequence.metres_per_unit:g} must be above 0")
    return sequence


class Given:
    """Values of a JSON object, checked as they are taken.

    Raises:
        UserError: from all its methods, naming the file and the value.
    """

    def __init__(self, path: Path, values: dict[str, Any], inside: str = ""):
        self.path, self.values, self.inside = path, values, inside
        self._taken: set[str] = set()

    def _take(self, name: str, default: Any = None) -> Any:
        self._taken.add(name)
        value = self.values.get(name, default)
        if value is None:
            raise UserError(f"{self.path}: lacks '{self.inside}{name}'; {WAY_OUT}")
        return value

    def _demand(self, good: bool, name: str, what: str) -> None:
        if not good:
            shown = json.dumps(self.values[name])[:60]
            raise UserError(f"{self.path}: '{self.inside}{name}' is {shown}, not {what}")

    def number(self, name: str, default: float | None = None) -> float:
        value = self._take(name, default)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good = good and abs(value) < 1e9  # which NaN is not, either
        self._demand(good, name, "a number")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._take(name, False)
        self._demand(isinstance(value, bool), name, "true or false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self._take(name, default)
        self._demand(isinstance(value, str) and value != "", name, "a text")
        return value

    def folder(self, name: str, default: str | None = None) -> Path:
        """A path inside the folder of the file."""
        value = self.text(name, default)
        parts = PurePosixPath(value)
        good = not parts.is_absolute() and ".." not in parts.parts and "\0" not in value
        self._demand(good, name, "a path inside the folder of the sequence")
        return self.path.parent / value

    def camera(
        self, size: Callable[[], tuple[int, int]]
    ) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
        """K in pixels of images of the (width, height) beside it.

        Args:
            size: finds out that of a normalised camera that does not say it.
        """
        K = pinhole(*(self.number(name) for name in CAMERA_KEYS))
        if not self.flag("normalised"):
            return K, (int(self.number("width")), int(self.number("height")))
        given = tuple(int(self.number(name, 0.0)) for name in ("width", "height"))
        given = given if all(given) else size()
        return in_pixels(K, given), given

    def part(self, name: str) -> "Given | None":
        """An object inside, if it is there."""
        self._taken.add(name)
        if name not in self.values:
            return None
        value = self.values[name]
        self._demand(isinstance(value, dict), name, "an object of names and values")
        return Given(self.path, value, f"{name}.")

    def passed(self, name: str) -> None:
        """A name that may be there; `about` holds anything."""
        self._taken.add(name)

    def demand_known(self) -> None:
        """Refuse names that nothing asked for: they are misspelt."""
        unknown = sorted(self.values.keys() - self._taken)
        if unknown:
            raise UserError(
                f"{self.path}: '{self.inside}{unknown[0]}' means nothing here; known are "
                f"{', '.join(sorted(self._taken))}"
            )


def first_size(folder: Path) -> tuple[int, int]:
    """(width, height) of the first image of a folder.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    names = numbered_files(folder, EXTENSIONS)
    if not names:
        raise UserError(f"{folder}: holds no JPEG or PNG whose name ends in a number; {WAY_OUT}")
    return read_image(folder / names[min(names)]).size
