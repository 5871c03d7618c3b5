from .benchmarks import (
    BENCHMARKS,
    DATASETS,
    Benchmark,
    benchmark,
    demand_same_frames,
    exported,
    known_benchmark,
    read_ground_truth,
    recordings,
)
from .folder import VideoFolder, find_sequences, read_sequence
from .ground_truth import GroundTruth, export_ground_truth, write_ground_truth
from .images import in_unit_range, read_image
from .kitti import KITTIDepth, KITTIOdom, KITTIRaw
from .kitti_benchmark import KITTIBenchmark, depth_to_png, write_submission
from .mono_dataset import MonoDataset, collate
from .nyuv2 import NYUv2, NYUv2Raw, NYUv2Report
from .splits import SPLITS, Frame, read_split, split_folder

__all__ = [
    "BENCHMARKS",
    "DATASETS",
    "Benchmark",
    "Frame",
    "GroundTruth",
    "KITTIBenchmark",
    "KITTIDepth",
    "KITTIOdom",
    "KITTIRaw",
    "MonoDataset",
    "NYUv2",
    "NYUv2Raw",
    "NYUv2Report",
    "SPLITS",
    "VideoFolder",
    "benchmark",
    "collate",
    "demand_same_frames",
    "depth_to_png",
    "export_ground_truth",
    "exported",
    "find_sequences",
    "in_unit_range",
    "known_benchmark",
    "read_ground_truth",
    "read_image",
    "read_sequence",
    "read_split",
    "recordings",
    "split_folder",
    "write_ground_truth",
    "write_submission",
]
