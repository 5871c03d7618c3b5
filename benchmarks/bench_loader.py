"""Time to load three-frame training samples, on one core, beside the textbook's.

    python benchmarks/bench_loader.py
    python benchmarks/bench_loader.py --frames kitti_data/2011_09_26/.../image_02/data

From JPEG and PNG frames of KITTI's size, and from JPEGs that already have the network's size, as
`tools/prepare_kitti.py convert --size` writes them. Without --frames they are made up.
"""

import argparse
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from skimage.metrics import peak_signal_noise_ratio
from torch.utils.data import default_collate

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.textbook import TextbookDataset  # noqa: E402
from benchmarks.timing import (  # noqa: E402
    alternate,
    machine,
    memory_taken,
    peak_memory,
    report,
    street_frames,
)
from datasets import Frame, KITTIRaw, collate  # noqa: E402
from datasets.images import read_pixels, resize_fast  # noqa: E402
from utils import OneLineParser, UserError, readable_size, run_script  # noqa: E402

CPU = torch.device("cpu")
DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"
BATCH = 12
KINDS = ("jpg", "png", "small")  # small: the network's size
QUALITY = 92  # of JPEG, as published for training


def write_frames(folder: Path, images: list[Image.Image], size: tuple[int, int]) -> None:
    """The frames as PNG, as JPEG, and as JPEG of the network's size, in KITTI's layout."""
    for kind in KINDS:
        place = folder / kind / DRIVE / "image_02/data"
        place.mkdir(parents=True)
        for i, image in enumerate(images):
            path = place / f"{i:010d}.{'png' if kind == 'png' else 'jpg'}"
            if kind == "small":
                image.resize(size, Image.Resampling.LANCZOS).save(path, quality=QUALITY)
            elif kind == "jpg":
                image.convert("RGB").save(path, quality=QUALITY)
            elif isinstance(image, PngImageFile):  # as it is: encoders differ in speed to decode
                path.write_bytes(Path(image.filename).read_bytes())
            else:
                image.save(path)


def loaders(folder: Path, kind: str, samples: int, height: int, width: int) -> dict:
    """Functions that load that many samples as batches: ours, the textbook's."""
    files = sorted((folder / kind / DRIVE / "image_02/data").iterdir())
    middle = range(1, len(files) - 1)
    frames = [Frame(DRIVE, i, "l") for i in middle]
    ours = KITTIRaw(
        folder / kind, frames, height, width, (0, -1, 1), augment=True, fast_resize=True
    )
    fx, fy, cx, cy = KITTIRaw.nominal_K
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    triples = [(files[i], files[i - 1], files[i + 1]) for i in middle]
    textbook = TextbookDataset(triples, K, height, width, augment=True)

    def load(data, into_batch) -> None:
        order = islice(cycle(range(len(data))), samples)
        for _ in range(samples // BATCH):
            into_batch([data[i] for i in islice(order, BATCH)])

    return {
        "ours": lambda: load(ours, collate),
        "textbook": lambda: load(textbook, default_collate),
    }


def resize_agreement(images: list[Image.Image], height: int, width: int) -> float:
    """Mean PSNR in dB of training's fast resize against LANCZOS."""
    values = []
    for image in images:
        slow = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        fast = resize_fast(pixels, height, width).permute(1, 2, 0).numpy()
        values.append(peak_signal_noise_ratio(slow, fast))
    return float(np.mean(values))


def main() -> None:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=Path, help="folder of image files of one recording")
    parser.add_argument("--samples", type=int, default=48, help="of each turn, in batches of 12")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--only", nargs=3, metavar=("KIND", "WHOSE", "FOLDER"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if min(arguments.samples // BATCH, arguments.rounds) < 1:
        raise UserError(f"--samples must be {BATCH} or more, --rounds 1 or more")
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    size = arguments.height, arguments.width
    if arguments.only:  # one loader alone, for the memory that it takes
        kind, whose, folder = arguments.only
        loaders(Path(folder), kind, arguments.samples, *size)[whose]()
        print(memory_taken(CPU))
        return
    if arguments.frames is None:
        images = street_frames(8)
    else:
        files = sorted(p for p in arguments.frames.glob("*") if p.suffix in (".png", ".jpg"))
        if len(files) < 3:
            raise UserError(f"{arguments.frames}: holds fewer than three .png or .jpg frames")
        images = [Image.open(path) for path in files]
    print(f"{machine(CPU)}\n{len(images)} frames of {images[0].width}x{images[0].height}, one core")
    result = {"machine": machine(CPU), "loaders": {}}
    with tempfile.TemporaryDirectory() as folder:
        write_frames(Path(folder), images, size[::-1])
        print(f"{'':8}{'ours':>22}{'textbook':>22}{'ratio':>8}{'ours, decoding':>16}")
        for kind in KINDS:
            files = sorted((Path(folder) / kind / DRIVE / "image_02/data").iterdir())
            runs = loaders(Path(folder), kind, arguments.samples, *size)
            decode = {"decoding": lambda files=files: [read_pixels(path) for path in files]}
            seconds = alternate(runs | decode, arguments.rounds, CPU)
            decoding = 3 * 1000 * seconds.pop("decoding") / len(files)
            samples = arguments.samples // BATCH * BATCH
            ms = {name: 1000 * s / samples for name, s in seconds.items()}
            ratio = ms["textbook"] / ms["ours"]
            cells = [f"{ms[name]:.1f} ms, {1000 / ms[name]:.0f}/s" for name in ms]
            print(f"{kind:8}{cells[0]:>22}{cells[1]:>22}{ratio:8.2f}{decoding:13.1f} ms")
            result["loaders"][kind] = {
                "ms_per_sample": ms, "ratio": ratio, "ours_decoding_ms": decoding
            }  # fmt: skip
        memory = {
            name: peak_memory(__file__, "--samples", BATCH, "--only", "jpg", name, folder)
            for name in runs
        }
    result["peak_memory_bytes"] = memory
    taken = ", ".join(f"{name} {readable_size(held)}" for name, held in memory.items())
    print(f"peak memory of a process that loads JPEGs: {taken}")
    result["resize_psnr_db"] = resize_agreement(images, *size)
    print(f"fast resize against LANCZOS: {result['resize_psnr_db']:.1f} dB")
    report(result, arguments.json)


if __name__ == "__main__":
    run_script(main)
