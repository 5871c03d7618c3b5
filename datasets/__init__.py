from .benchmarks import BENCHMARKS, DATASETS, Benchmark, benchmark
from .ground_truth import GroundTruth, write_ground_truth
from .kitti import KITTIDepth, KITTIOdom, KITTIRaw
from .mono_dataset import MonoDataset, collate, read_image
from .splits import Frame, read_split, split_folder

__all__ = [
    "BENCHMARKS",
    "DATASETS",
    "Benchmark",
    "Frame",
    "GroundTruth",
    "KITTIDepth",
    "KITTIOdom",
    "KITTIRaw",
    "MonoDataset",
    "benchmark",
    "collate",
    "read_image",
    "read_split",
    "split_folder",
    "write_ground_truth",
]
