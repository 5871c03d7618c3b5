"""Take NYUv2's labelled images, their depth and their scenes out of the official MATLAB file."""

import contextlib
import math
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from datasets.nyuv2 import (
    DEPTH_FOLDERS,
    LABELLED_FOLDER,
    LABELLED_IMAGES,
    METRES_PER_UNIT,
    PAGE,
    SCENES_FILE,
)
from media import encoded
from tools.prepared import claim
from utils import UserError, atomic_write, in_parallel

LAYOUT = {  # as HDF5 sees it: MATLAB's axes in reverse
    "images": (np.uint8, (3, 640, 480)),
    "depths": (np.float32, (640, 480)),
    "rawDepths": (np.float32, (640, 480)),
}
LARGEST_CACHE = 64 << 20  # bytes, per array
FURTHEST_M = 65.0  # what 16 bits of millimetres hold


def labelled(mat: Path, out: Path, png: bool, num_workers: int) -> None:
    """Write every image, both depths and the scenes, going on where an earlier run stopped.

    Args:
        mat: nyu_depth_v2_labeled.mat.
        out: folder that gets images/, depths/, raw_depths/ and scenes.txt.
        png: lossless images instead of JPEGs.
        num_workers: threads; -1 for one per core.

    Raises:
        UserError: the file is not the official one, truncated or damaged; `out` was made of
            another, or cannot be written.
    """
    start = time.perf_counter()
    source = LabelledFile(mat)
    scenes = source.scenes()
    extension = ".png" if png else ".jpg"
    content = {"source": mat.name, "bytes": mat.stat().st_size, "format": extension}
    claim(out, content)
    with atomic_write(out / SCENES_FILE, "w") as file:
        file.writelines(f"{number} {scene}\n" for number, scene in enumerate(scenes, start=1))

    def paths(number: int) -> list[Path]:
        depth = [out / folder / f"gt_{number}.png" for folder in DEPTH_FOLDERS.values()]
        return [out / LABELLED_FOLDER / f"img_{number}{extension}", *depth]

    def write(number: int) -> None:
        image, filled, raw = source.read(number)
        contents = [encoded(image, png), *(depth_png(d, mat, number) for d in (filled, raw))]
        for path, data in zip(paths(number), contents, strict=True):
            with atomic_write(path) as file:
                file.write(data)

    numbers = range(1, len(scenes) + 1)
    missing = [number for number in numbers if not all(path.is_file() for path in paths(number))]
    in_parallel(write, missing, num_workers, "image")
    found = f", {len(scenes) - len(missing)} of them from an earlier run"
    print(
        f"{len(scenes)} images of {len(set(scenes))} scenes with their depth in {out}"
        + found * (len(missing) < len(scenes))
        + f" ({time.perf_counter() - start:.0f} s)"
    )
    if len(scenes) != LABELLED_IMAGES:
        print(f"(the official file has {LABELLED_IMAGES} images: the splits need them all)")


class LabelledFile:
    """The labelled set's MATLAB 7.3 (HDF5) file, read an image at a time.

    Raises:
        UserError: missing, truncated, of another kind or layout.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        try:
            with path.open("rb") as file:
                head = file.read(8)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; fetch it from {PAGE}") from None
        except OSError as error:
            reason = (error.strerror or "unreadable").lower()
            raise UserError(f"{path}: {reason}; give nyu_depth_v2_labeled.mat") from None
        try:
            self._file = h5py.File(path, "r", rdcc_nbytes=chunk_bytes(path), rdcc_nslots=100_003)
        except OSError as error:
            reason = "it is truncated" if "truncated" in str(error) else "it is no HDF5"
            if head.startswith(b"MATLAB 5"):
                reason = "it is of an older MATLAB"
            raise UserError(
                f"{path}: is not the labelled set's MATLAB 7.3 file ({reason}); fetch "
                f"nyu_depth_v2_labeled.mat again from {PAGE}"
            ) from None
        except Exception as error:
            raise self._unreadable("its arrays", error) from None
        with self._reading("its arrays"):
            self._arrays = {name: self._array(name, *LAYOUT[name]) for name in LAYOUT}
            counts = {name: len(array) for name, array in self._arrays.items()}
        if len(set(counts.values())) > 1 or not all(counts.values()):
            listed = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise self._wrong(f"holds {listed}")

    def read(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image [480 640 3] uint8, filled and raw depth [480 640] in metres, counted from 1."""
        with self._reading(f"image {number}"), self._lock:
            image, *depths = (array[number - 1] for array in self._arrays.values())
        return image.transpose(2, 1, 0), *(depth.T for depth in depths)

    def scenes(self) -> list[str]:
        """Name of the scene of each image."""
        with self._reading("its 'scenes'"):
            references = self._file["scenes"][()].ravel()
            names = [
                np.asarray(self._file[reference]).astype("<u2").tobytes().decode("utf-16-le")
                for reference in references
            ]
        count = len(self._arrays["images"])
        if len(names) != count or not all(re.fullmatch(r"\S+", name) for name in names):
            raise self._wrong(f"its 'scenes' are not the names of {count} scenes")
        return names

    def _array(self, name: str, kind: type, shape: tuple[int, ...]) -> h5py.Dataset:
        array = self._file.get(name)
        if not isinstance(array, h5py.Dataset):
            raise self._wrong(f"holds no '{name}'")
        if array.dtype != kind or array.shape is None or array.shape[1:] != shape:
            wanted = f"{np.dtype(kind)} (n, {', '.join(map(str, shape))})"
            raise self._wrong(f"its '{name}' are {array.dtype} {array.shape}, not {wanted}")
        return array

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Whatever h5py makes of a damaged file, for which it has no one error, as UserError."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise self._unreadable(what, error) from None

    def _unreadable(self, what: str, error: Exception) -> UserError:
        return self._wrong(f"{what} cannot be read ({' '.join(str(error).split())})")

    def _wrong(self, what: str) -> UserError:
        return UserError(
            f"{self.path}: {what}: not the official file, or damaged; fetch "
            f"nyu_depth_v2_labeled.mat again from {PAGE}"
        )


def chunk_bytes(path: Path) -> int:
    """Bytes of an array's chunks that reach over one image: kept, they are unpacked only once.

    Raises:
        OSError: no HDF5 file.
    """
    with h5py.File(path, "r") as file:
        arrays = [file[name] for name in LAYOUT if isinstance(file.get(name), h5py.Dataset)]
        sizes = [
            array.chunks[0] * array.dtype.itemsize * math.prod(array.shape[1:])
            for array in arrays
            if array.chunks and array.shape
        ]
    return min(max(sizes, default=0), LARGEST_CACHE) + (1 << 20)


def depth_png(depth_m: np.ndarray, mat: Path, number: int) -> bytes:
    """Depth as a 16-bit PNG in millimetres, 0 = missing.

    Raises:
        UserError: it is no depth in metres.
    """
    if not (np.isfinite(depth_m).all() and 0 <= depth_m.min() and depth_m.max() <= FURTHEST_M):
        raise UserError(f"{mat}: the depth of image {number} is not in metres; fetch it again")
    return encoded(np.round(depth_m / METRES_PER_UNIT).astype(np.uint16), png=True)
