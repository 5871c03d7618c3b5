"""Write images and depth as NYUv2's labelled MATLAB file: the official layout for other content."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from utils import atomic_write

HEADER = b"MATLAB 7.3 MAT-file, the layout of nyu_depth_v2_labeled.mat"
TILE = (160, 120)  # pixels of a compressed block
USERBLOCK = 512  # bytes before the HDF5 part, as MATLAB leaves them


def write_labelled_mat(
    path: Path,
    samples: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    scenes: list[str],
    images_per_chunk: int = 1,
) -> None:
    """Write one sample for each scene's name, a sample at a time.

    Args:
        samples: image [480 640 3] uint8, filled and raw depth [480 640] float32 in metres.
        scenes: the scene of each sample.
        images_per_chunk: a compressed block of the file reaches over so many.
    """
    n = len(scenes)
    with atomic_write(path, "w+b") as file:
        held = images_per_chunk * 4 * 640 * 480 + (1 << 20)  # bytes, or chunks are packed again
        with h5py.File(file, "w", userblock_size=USERBLOCK, rdcc_nbytes=held) as hdf:
            packed = {"chunks": (min(images_per_chunk, n), *TILE), "compression": "gzip"}
            depths = [
                _matlab(hdf, name, "single", (n, 640, 480), np.float32, **packed)
                for name in ("depths", "rawDepths")
            ]
            packed["chunks"] = (packed["chunks"][0], 3, *TILE)
            images = _matlab(hdf, "images", "uint8", (n, 3, 640, 480), np.uint8, **packed)
            for i, sample in enumerate(samples):
                for array, value in zip((images, *depths), sample, strict=True):
                    array[i] = value.T
            cells = _matlab(hdf, "scenes", "cell", (1, n), h5py.ref_dtype)
            for i, scene in enumerate(scenes):
                units = np.frombuffer(scene.encode("utf-16-le"), "<u2")[:, None]
                text = _matlab(hdf, f"#refs#/{i}", "char", units.shape, np.uint16)
                text[...] = units
                cells[0, i] = text.ref
        file.seek(0)
        file.write(HEADER.ljust(USERBLOCK - 12) + bytes(8) + b"\x00\x02IM")


def _matlab(
    hdf: h5py.File, name: str, kind: str, shape: tuple, dtype: Any, **storage: Any
) -> h5py.Dataset:
    """An array with the attribute by which MATLAB knows its class."""
    array = hdf.create_dataset(name, shape, dtype, **storage)
    array.attrs["MATLAB_class"] = np.bytes_(kind)
    return array
