"""Which data set and which rules belong to a benchmark's name."""

from typing import NamedTuple

from metrics import Protocol
from utils import UserError

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
        UserError: no such split, or the benchmark has another data set than the one asked for.
    """
    folder = split_folder(split).resolve()
    kind = DATASETS[dataset]
    if folder.parent != SPLITS or folder.name not in BENCHMARKS:
        return Benchmark(kind, kind.protocol)
    known = BENCHMARKS[folder.name]
    if kind not in (known.dataset, KITTIRaw):  # KITTIRaw is the flag's default
        raise UserError(
            f"benchmark '{folder.name}' is not made of --dataset {dataset}: leave it out"
        )
    return known
