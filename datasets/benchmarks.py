"""Which frames, which data set and which rules belong to a benchmark's name."""

from pathlib import Path
from typing import NamedTuple

from metrics import Protocol
from utils import UserError

from .kitti import EIGEN, IMPROVED, KITTIDepth, KITTIOdom, KITTIRaw
from .kitti_benchmark import (
    COMPLETION,
    IMAGES,
    PREDICTION,
    REPORT,
    SELECTION,
    SERVER,
    KITTIBenchmark,
)
from .mono_dataset import MonoDataset
from .splits import SPLITS, Frame, read_split, split_folder

DATASETS: dict[str, type[MonoDataset]] = {
    "kitti": KITTIRaw,
    "kitti_odom": KITTIOdom,
    "kitti_depth": KITTIDepth,
}


class Benchmark(NamedTuple):
    """A test set.

    folder:   its place in splits/, with test_files.txt (and exported ground truth) in it.
    protocol: how depth is scored; None where there is no ground truth.
    subset:   of KITTIBenchmark, whose images are the frames where the folder lists none.
    """

    folder: Path
    dataset: type[MonoDataset]
    protocol: Protocol | None
    subset: str | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def lists_images(self) -> bool:
        """Whether the images that are there make the list of frames."""
        return self.subset is not None and not (self.folder / "test_files.txt").is_file()

    @property
    def official_images(self) -> int | None:
        """How many images the official archive has, where that is known."""
        return IMAGES.get(self.subset)

    @property
    def is_submitted(self) -> bool:
        """Whether predictions go to KITTI's server, which has the ground truth."""
        return self.subset == PREDICTION

    def frames(self, data_path: Path) -> list[Frame]:
        """The frames in their order.

        Raises:
            UserError: no list of them, a bad one, or no images where those are the list.
        """
        if self.lists_images:
            return KITTIBenchmark.listed(data_path, self.subset)
        return read_split(self.folder / "test_files.txt")


BENCHMARKS = {
    known.folder.name: known
    for known in (
        Benchmark(SPLITS / "eigen", KITTIRaw, EIGEN),
        Benchmark(SPLITS / "eigen_benchmark", KITTIDepth, IMPROVED),
        Benchmark(SPLITS / "benchmark", KITTIBenchmark, SERVER, PREDICTION),
        Benchmark(SPLITS / "benchmark_scale", KITTIDepth, IMPROVED),
        Benchmark(SPLITS / "benchmark_val", KITTIBenchmark, SERVER, SELECTION),
        Benchmark(SPLITS / "benchmark_report", KITTIBenchmark, REPORT, COMPLETION),
    )
}


def benchmark(split: str, dataset: str) -> Benchmark:
    """The benchmark of a split in splits/; any other split is scored as its data set usually is.

    Raises:
        UserError: no such split, or the benchmark has another data set than the one asked for.
    """
    kind = DATASETS[dataset]
    known = BENCHMARKS.get(split.rstrip("/"))
    if known is None:
        folder = split_folder(split)
        path = folder.resolve()
        known = BENCHMARKS.get(path.name) if path.parent == SPLITS else None
        if known is None:
            return Benchmark(folder, kind, kind.protocol)
    if kind not in (known.dataset, KITTIRaw):  # KITTIRaw is the flag's default
        raise UserError(
            f"benchmark '{known.folder.name}' is not made of --dataset {dataset}: leave it out"
        )
    return known
