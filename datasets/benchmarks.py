"""Which frames, which data set and which rules belong to a benchmark's name."""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from metrics import Crop, Protocol
from utils import UserError

from .folder import VideoFolder
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
from .nyuv2 import (
    LABELLED_FOLDER,
    PROTOCOLS,
    NYUv2,
    NYUv2Raw,
    NYUv2Report,
    labelled_places,
    place,
)
from .splits import SPLITS, Frame, read_split, split_folder

DATASETS: dict[str, type[MonoDataset]] = {
    "kitti": KITTIRaw,
    "kitti_odom": KITTIOdom,
    "kitti_depth": KITTIDepth,
    "nyuv2": NYUv2,
    "nyuv2_raw": NYUv2Raw,
    "folder": VideoFolder,
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
    def is_metric(self) -> bool:
        """Whether its ground truth is in metres."""
        return self.dataset is not NYUv2Report

    @property
    def input_crop(self) -> Crop | None:
        """What the network sees of each image; None for all of it."""
        return None if self.protocol is None else self.protocol.input_crop

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
        Benchmark(SPLITS / "nyuv2", NYUv2, PROTOCOLS["A"]),
        Benchmark(SPLITS / "nyuv2_official", NYUv2, PROTOCOLS["A"]),
        Benchmark(SPLITS / "nyuv2_report", NYUv2Report, NYUv2Report.protocol),
    )
}


def benchmark(
    split: str, dataset: str, protocol: str | None = None, data_path: Path | None = None
) -> Benchmark:
    """The benchmark of a split in splits/; any other split is scored as its data set usually is.

    Args:
        data_path: the data, which may bring splits of its own.
        protocol: which of the data set's protocols, where it has several; None: the usual one.

    Raises:
        UserError: no such split or protocol, or the benchmark has another data set than the one
            asked for.
    """
    kind = DATASETS[dataset]
    folder = split_folder(split, data_path)
    bench = known_benchmark(folder)
    if bench is None:
        bench = Benchmark(folder, kind, usual_protocol(kind))
    elif kind is not KITTIRaw and not issubclass(bench.dataset, kind):  # KITTIRaw: the default
        raise UserError(
            f"benchmark '{bench.folder.name}' is not made of --dataset {dataset}: leave it out"
        )
    return bench if protocol is None else with_protocol(bench, protocol)


def with_protocol(bench: Benchmark, protocol: str) -> Benchmark:
    """A benchmark under another of its data set's protocols.

    Raises:
        UserError: it has no such protocol.
    """
    if protocol not in bench.dataset.protocols:
        raise UserError(
            f"--nyuv2_protocol {protocol}: is for the splits nyuv2 and nyuv2_official, or one of "
            f"--dataset nyuv2, not for {bench.name}"
        )
    return bench._replace(protocol=bench.dataset.protocols[protocol])


def usual_protocol(kind: type[MonoDataset]) -> Protocol | None:
    """How depth of a data set is scored unless its benchmark or a flag says otherwise."""
    return next(iter(kind.protocols.values()), kind.protocol)


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


def demand_same_frames(gt: GroundTruth, bench: Benchmark, data_path: Path) -> None:
    """Refuse ground truth of other frames than the benchmark's.

    Raises:
        UserError: naming its file.
    """
    if gt.frames != [str(frame) for frame in bench.frames(data_path)]:
        raise UserError(f"{gt.path}: belongs to other frames than {bench.name}; export it again")


def exported(
    split: str, protocol: str | None = None, data_path: Path | None = None
) -> tuple[Benchmark, GroundTruth]:
    """A split with its exported ground truth, which says for any split of one's own what data
    set it is of.

    Args:
        protocol, data_path: as `benchmark`.

    Raises:
        UserError: no such split or protocol, no ground truth in it, or one of another data set.
    """
    bench = benchmark(split, "kitti", data_path=data_path)
    own = GroundTruth(bench.gt_file).dataset
    if known_benchmark(bench.folder) is None:
        for kind in DATASETS.values():
            if kind.__name__ == own and kind.protocol is not None:
                bench = bench._replace(dataset=kind, protocol=usual_protocol(kind))
    if protocol is not None:
        bench = with_protocol(bench, protocol)
    return bench, read_ground_truth(bench, bench.gt_file)


def recordings(frames: list[Frame], data_path: Path) -> set[str]:
    """Names of the raw recordings (drives, rooms) of frames, whatever data set has them.

    Odometry sequences are given as the drives they were cut from, and NYUv2's labelled images as
    the rooms they show, where that is known.
    """
    names = {frame: PurePosixPath(frame.folder).name for frame in frames}
    labelled = [frame for frame, name in names.items() if name == LABELLED_FOLDER]
    known = labelled_places(labelled, data_path) if labelled else set()
    others = set(names.values()) - {LABELLED_FOLDER}
    return known | {place(ODOMETRY_DRIVES.get(name.zfill(2), name)) for name in others}
