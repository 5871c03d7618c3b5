"""Which data set and which rules belong to a benchmark's name."""

from typing import NamedTuple

from metrics import Protocol

from .kitti import EIGEN, IMPROVED, KITTIDepth, KITTIOdom, KITTIRaw
from .mono_dataset import MonoDataset
from .splits import SPLITS, split_folder

DATASETS: dict[str, type[MonoDataset]] = {
    "kitti": KITTIRaw,
    "kitti_odom": KITTIOdom,
    "kitti_depth": KITTIDepth,
}


class Benchmark(NamedTuple):
    dataset: type[MonoDataset]
    protocol: Protocol | None


BENCHMARKS = {
    "eigen": Benchmark(KITTIRaw, EIGEN),
    "eigen_benchmark": Benchmark(KITTIDepth, IMPROVED),
}


def benchmark(split: str, dataset: str) -> Benchmark:
    """The benchmark of a split in splits/; any other split is scored as its data set usually is.

    Raises:
        UserError: no such split.
    """
    folder = split_folder(split).resolve()
    kind = DATASETS[dataset]
    usual = Benchmark(kind, kind.protocol)
    return BENCHMARKS.get(folder.name, usual) if folder.parent == SPLITS else usual
