"""Time and memory of preparing NYUv2's labelled set, on a file of the official layout and size.

    python benchmarks/prepare_nyuv2.py --work /tmp/nyuv2_benchmark

The file's content is made up: smooth images and depth with sensor-like noise and holes.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.nyuv2_mat import write_labelled_mat  # noqa: E402
from utils import OneLineParser, UserError, readable_size, run_script  # noqa: E402

DISTINCT = 16  # samples that are made; the others are these, rolled sideways


def samples(count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Image, filled and raw depth of a made-up room, over and over."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        if i < DISTINCT:
            coarse = rng.uniform(0, 255, (24, 32, 3)).astype(np.float32)
            image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
            image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
            coarse = rng.uniform(1, 8, (6, 8)).astype(np.float32)
            depth = np.clip(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC), 0.7, 10)
            readings = np.round(1092.5 - 351.3 / depth)  # as coarse as the sensor's
            raw = (351.3 / (1092.5 - readings)).astype(np.float32)
            holes = cv2.resize(rng.uniform(0, 1, (30, 40)), (640, 480)) < 0.25
            made.append((image, depth, np.where(holes, np.float32(0), raw)))
        yield tuple(np.roll(array, 7 * i, axis=1) for array in made[i % DISTINCT])


def peak_memory(pid: int) -> int:
    """Most bytes that a process has held in memory so far (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(lines[0][1]) if lines else 0


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="new folder for file and output")
    parser.add_argument("--images", type=int, default=1449)
    parser.add_argument(
        "--chunk", type=int, default=1, help="images a compressed chunk of the file reaches over"
    )
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    args = parser.parse_args()
    if args.images < 1 or not 1 <= args.chunk <= args.images:
        raise UserError("--images and --chunk must be positive, and no chunk larger than the file")
    mat, out = args.work / "nyu_depth_v2_labeled.mat", args.work / "nyuv2"
    if out.exists():
        raise UserError(f"{out}: exists already; give a new folder by --work")
    scenes = [f"room_{i // 3:04d}" for i in range(args.images)]
    if not mat.exists():
        write_labelled_mat(mat, samples(args.images), scenes, args.chunk)
    start = time.perf_counter()
    command = [sys.executable, ROOT / "tools/prepare_nyuv2.py", "labelled", mat, out]
    with subprocess.Popen(command) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.05)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise UserError("the tool failed")
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    result = {
        "images": args.images,
        "file_bytes": mat.stat().st_size,
        "written_bytes": written,
        "seconds": seconds,
        "peak_memory_bytes": peak,
    }
    print(
        f"{args.images} images, file of {readable_size(result['file_bytes'])}: {seconds:.0f} s, "
        f"peak memory {readable_size(peak)}, wrote {readable_size(written)}"
    )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    run_script(main)
