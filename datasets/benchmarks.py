"""Which data set and which rules belong to a benchmark's name."""

from typing import NamedTuple

from metrics import Protocol

from .kitti import EIGEN, IMPROVED, KITTIDepth, KITTIOdom, KITTIRaw
from .mono_dataset import MonoDataset

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
    """The benchmark of that name; any other split is scored as its data set usually is."""
    kind = DATASETS[dataset]
    return BENCHMARKS.get(split, Benchmark(kind, kind.protocol))
