"""Which frames, which data set and which rules belong to a benchmark's name."""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from metrics import Protocol
from utils import UserError

from .ground_truth import GroundTruth
from .kitti import EIGEN, IMPROVED, ODOMETRY_DRIVES, KITTIDepth, KITTIOdom, KITTIRaw
from .kitti_benchmark import (
    COMPLETION,
    OFFICIAL_IMAGES,
    PREDICTION,
    REPORT,
    SELECTION,
    SERVER,
    KITTIBenchmark,
    KITTIDepthCrop,
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
    def gt_file(self) -> Path:
        """Where its ground truth is exported to by default."""
        return self.folder / "gt_depths.npz"

    @property
    def lists_images(self) -> bool:
        """Whether the images that are there make the list of frames."""
        return self.subset is not None and not (self.folder / "test_files.txt").is_file()

    @property
    def official_images(self) -> int | None:
        """How many images the official archive has, where that is known."""
        return OFFICIAL_IMAGES.get(self.subset)

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
        Benchmark(SPLITS / "benchmark_scale", KITTIDepthCrop, IMPROVED),
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
    folder = split_folder(split)
    known = known_benchmark(folder)
    if known is None:
        return Benchmark(folder, kind, kind.protocol)
    if kind not in (known.dataset, KITTIRaw):  # KITTIRaw is the flag's default
        raise UserError(
            f"benchmark '{known.folder.name}' is not made of --dataset {dataset}: leave it out"
        )
    return known


def known_benchmark(folder: Path) -> Benchmark | None:
    """The benchmark that a folder is the place of, however its path is written."""
    path = folder.resolve()
    return BENCHMARKS.get(path.name) if path.parent == SPLITS else None


def read_ground_truth(bench: Benchmark, path: Path) -> GroundTruth:
    """Exported ground truth that a benchmark can be scored against.

    Raises:
        UserError: unreadable, or depth of another data set.
    """
    gt = GroundTruth(path)
    if gt.dataset != bench.dataset.__name__:
        way_out = f"export that of {bench.name} again with --overwrite"
        if known_benchmark(bench.folder) is None:  # of a split of one's own the flag decides
            for name, kind in DATASETS.items():
                if kind.__name__ == gt.dataset:
                    way_out = f"give --dataset {name} here too"
        raise UserError(f"{path}: holds depth of {gt.dataset}; {way_out}")
    return gt


def exported(split: str) -> tuple[Benchmark, GroundTruth]:
    """A split with its exported ground truth, which says for any split of one's own what data
    set it is of.

    Raises:
        UserError: no such split, no ground truth in it, or one of another data set.
    """
    bench = benchmark(split, "kitti")
    own = GroundTruth(bench.gt_file).dataset
    if known_benchmark(bench.folder) is None:
        for kind in DATASETS.values():
            if kind.__name__ == own and kind.protocol is not None:
                bench = bench._replace(dataset=kind, protocol=kind.protocol)
    return bench, read_ground_truth(bench, bench.gt_file)


def recordings(frames: list[Frame]) -> set[str]:
    """Names of the raw recordings (drives) of frames, whatever data set has them.

    Odometry sequences are given as the drives they were cut from, where that is known.
    """
    names = {PurePosixPath(frame.folder).name for frame in frames}
    return {ODOMETRY_DRIVES.get(name.zfill(2), name) for name in names}
