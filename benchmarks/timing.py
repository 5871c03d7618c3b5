"""What the benchmarks share: taking turns, medians, the machine, frames to work on."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from tools.render import pixel_rays, render
from tools.sample_files import developed, nominal_K
from tools.scenery import Setting, street
from utils import UserError, atomic_write

KITTI_SIZE = 1242, 375


def alternate(
    runs: Mapping[str, Callable[[], Any]],
    rounds: int,
    device: torch.device,
    warm_up: bool = True,
) -> dict[str, float]:
    """Median seconds of each, which take turns so that a slow moment of the machine meets all."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(0 if warm_up else 1, rounds + 1):
        for name, run in runs.items():
            settle(device)
            start = time.perf_counter()
            run()
            settle(device)
            if turn > 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def settle(device: torch.device) -> None:
    """Wait until a GPU has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> str:
    """Processor, or GPU, and the versions that decide about speed."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    parts = [f"{name}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads"]
    if device.type == "cuda":
        parts.insert(0, torch.cuda.get_device_name(device))
    versions = f"torch {torch.__version__}, Pillow {Image.__version__}, OpenCV {cv2.__version__}"
    return "; ".join([*parts, versions])


def peak_memory(script: str, *flags: Any) -> int:
    """Bytes that a benchmark script, run anew with these flags, says it has taken at most."""
    command = [sys.executable, script, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(done.stdout.split()[-1])


def memory_taken(device: torch.device) -> int:
    """The most bytes that this process has held so far, on the GPU where it works there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows, where only GPUs can be asked

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def street_frames(count: int, size: tuple[int, int] = KITTI_SIZE) -> list[Image.Image]:
    """Frames of a drive through a made-up street, with the grain that a real sensor adds."""
    width, height = size
    K = nominal_K(width, height)
    rays = pixel_rays(K, height, width)
    film = street(np.random.default_rng(0), count, Setting(), torch.device("cpu"))
    noise = np.random.default_rng(0)
    frames = []
    for i, pose in enumerate(film.poses):
        image, _, _ = render(film.at(i), pose, K, rays)
        grain = noise.normal(0, 0.01, (height, width, 1))
        frames.append(developed(np.clip(np.asarray(image) + grain, 0, 1)))
    return frames


def report(result: dict[str, Any], path: Path | None) -> None:
    """Write a benchmark's figures to a file, if one was asked for."""
    if path is not None:
        with atomic_write(path, "w") as file:
            json.dump(result, file, indent=2, allow_nan=False)
        print(f"written to {path}", file=sys.stderr)
