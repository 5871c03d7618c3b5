"""Exported ground truth: an .npz of plain arrays, one per frame, written and read one at a time."""

import weakref
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from utils import UserError, atomic_write

from .splits import Frame


def write_ground_truth(
    path: Path, frames: list[Frame], maps: Iterable[np.ndarray], source: str, dataset: str
) -> None:
    """Write depth maps [H W] in metres (sizes may differ) with the frames they belong to.

    Args:
        dataset: name of the data set's class, which decides how they may be scored.
        source: one line that says where the depth comes from; evaluation prints it.
    """
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:

        def add(name: str, array: np.ndarray) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

        add("source", np.array(source))
        add("dataset", np.array(dataset))
        add("frames", np.array([str(frame) for frame in frames]))
        for i, depth in enumerate(maps):
            add(f"depth_{i:06d}", depth.astype(np.float32))


class GroundTruth:
    """Depth maps of an exported file, decompressed when asked for.

    Raises:
        UserError: missing, damaged, or an older file that holds pickled objects.
    """

    def __init__(self, path: Path):
        again = "make it with export_gt_depth.py"
        self.path = path
        try:
            file = open(path, "rb")
        except FileNotFoundError:
            raise UserError(f"{path}: no such ground truth; {again}") from None
        weakref.finalize(self, file.close)
        try:
            self._archive = np.load(file, allow_pickle=False)
            names = self._archive.files
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: cannot be read as ground truth ({error}); {again}") from None
        if names == ["data"]:
            raise UserError(f"{path}: holds pickled objects, which are never loaded; {again}")
        self.source = str(self._read("source", "U", 0))
        self.dataset = str(self._read("dataset", "U", 0))
        self.frames = self._read("frames", "U", 1).tolist()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> Float[np.ndarray, "H W"]:
        return self._read(f"depth_{i:06d}", "f", 2)

    def _read(self, name: str, kind: str, dimensions: int) -> np.ndarray:
        """An entry, which must be text (U) or float (f) with that many dimensions."""
        try:
            entry = self._archive[name]
        except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
            entry = None
        if entry is None or (entry.dtype.kind, entry.ndim) != (kind, dimensions):
            raise UserError(
                f"{self.path}: '{name}' is missing or damaged; make it with export_gt_depth.py"
            )
        return entry
