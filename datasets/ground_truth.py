"""Exported ground truth: an .npz of plain arrays, one per frame, written and read one at a time."""

import json
import shutil
import weakref
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from utils import UserError, atomic_write, in_parallel

from .splits import Frame


def write_ground_truth(
    path: Path, frames: list[Frame], maps: Iterable[np.ndarray], source: str, dataset: str
) -> None:
    """Write depth maps [H W] in metres (sizes may differ) with the frames they belong to.

    Args:
        dataset: name of the data set's class, which decides how they may be scored.
        source: one line that says where the depth comes from; evaluation prints it.
    """
    names = np.array([str(frame) for frame in frames])
    head = {"source": np.array(source), "dataset": np.array(dataset), "frames": names}
    _write_arrays(path, head, (depth.astype(np.float32) for depth in maps))


def export_ground_truth(
    path: Path,
    frames: list[Frame],
    depth_map: Callable[[int], np.ndarray],
    source: str,
    dataset: str,
    data_path: Path,
    workers: int,
    overwrite: bool = False,
) -> int:
    """Write `depth_map(i)` of every frame, computed in parallel, so that it can be continued.

    Finished maps wait in the folder `<path>.parts` until all are there. Returns how many were
    found there, finished by an earlier run.

    Args:
        source, dataset: as `write_ground_truth`.
        data_path: where the data lies; parts made from other data are of another export.
        workers: threads; -1 for one per core.
        overwrite: throw away parts that lie there, unless an earlier run with it made them.

    Raises:
        UserError: the parts that lie there are of another export.
    """
    folder = path.with_name(f"{path.name}.parts")
    about = folder / "export.json"
    content = {
        "source": source,
        "dataset": dataset,
        "data_path": str(data_path.resolve()),
        "frames": [str(frame) for frame in frames],
    }
    begun = [json.dumps({**content, "overwrite": was}) for was in (True, False)]
    if folder.exists():
        left = about.read_text(encoding="utf-8") if about.is_file() else ""
        if left not in begun[: 1 if overwrite else 2]:
            if not overwrite:
                raise UserError(
                    f"{folder}: left by another export; continue that, or add --overwrite"
                )
            shutil.rmtree(folder)
    if not folder.exists():
        with atomic_write(about, "w") as file:
            file.write(begun[0 if overwrite else 1])
    parts = [folder / f"{i:06d}.npz" for i in range(len(frames))]
    missing = [i for i, part in enumerate(parts) if not part.is_file()]

    def finish(i: int) -> None:
        _write_arrays(parts[i], {}, [depth_map(i).astype(np.float32)])

    in_parallel(finish, missing, workers, "frame")
    write_ground_truth(path, frames, map(_read_part, parts), source, dataset)
    shutil.rmtree(folder)
    return len(frames) - len(missing)


def _write_arrays(path: Path, head: Mapping[str, np.ndarray], maps: Iterable[np.ndarray]) -> None:
    """An .npz of the named arrays and numbered depth maps, which may be more than memory holds."""
    with (
        atomic_write(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):

        def add(name: str, array: np.ndarray) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)

        for name, array in head.items():
            add(name, array)
        for i, depth in enumerate(maps):
            add(f"depth_{i:06d}", depth)


def _read_part(path: Path) -> Float[np.ndarray, "H W"]:
    try:
        with open(path, "rb") as file:
            depth = np.load(file, allow_pickle=False)["depth_000000"]
        if not isinstance(depth, np.ndarray):  # bytes, where it does not begin as an array does
            raise ValueError("no array")
    except Exception as error:  # np.load has no one error for a bad file
        raise UserError(f"{path}: is damaged ({error}); remove it and run again") from None
    return depth


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
        except Exception as error:
            raise UserError(f"{path}: cannot be read as ground truth ({error}); {again}") from None
        if names == ["data"]:
            raise UserError(
                f"{path}: an older export of pickled objects, which are never loaded; {again} "
                "--overwrite"
            )
        self.source = str(self._read("source", "U", 0))
        self.dataset = str(self._read("dataset", "U", 0))
        self.frames = self._read("frames", "U", 1).tolist()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> Float[np.ndarray, "H W"]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self._read(f"depth_{i:06d}", "f", 2)

    def _read(self, name: str, kind: str, dimensions: int) -> np.ndarray:
        """An entry, which must be text (U) or float (f) with that many dimensions."""
        try:
            entry = self._archive[name]
        except Exception:
            entry = None
        good = isinstance(entry, np.ndarray)
        if not good or (entry.dtype.kind, entry.ndim) != (kind, dimensions):
            raise UserError(
                f"{self.path}: '{name}' is missing or damaged; make it with export_gt_depth.py"
            )
        return entry
