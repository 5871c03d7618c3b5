"""What a split of KITTI names: its frames, and the data set that each belongs to."""

from pathlib import Path

from datasets import (
    Frame,
    KITTIBenchmark,
    KITTIOdom,
    KITTIRaw,
    MonoDataset,
    benchmark,
    read_split,
    split_folder,
)
from datasets.kitti_benchmark import OFFICIAL_IMAGES
from utils import UserError


def layout(folder: str) -> type[MonoDataset]:
    """The data set that a frame's folder belongs to, by its name."""
    if folder.isascii() and folder.isdecimal():
        return KITTIOdom
    return KITTIBenchmark if folder.partition("/")[0] in OFFICIAL_IMAGES else KITTIRaw


def listed_subset(split: str) -> str | None:
    """The subset of the depth benchmark's archive whose images are a split without a list."""
    bench = benchmark(split, "kitti")
    return bench.subset if bench.lists_images else None


def split_frames(split: str, data_path: Path) -> list[Frame]:
    """All frames of all files of a split, each once.

    Raises:
        UserError: no such split, no split file in it, or a bad one.
    """
    if subset := listed_subset(split):
        return KITTIBenchmark.listed(data_path, subset)
    folder = split_folder(split)
    files = sorted(folder.glob("*_files*.txt"))
    if not files:
        raise UserError(f"{folder}: holds no train_files.txt, val_files.txt or test_files.txt")
    return list(dict.fromkeys(frame for file in files for frame in read_split(file)))
