"""Make KITTI ready for training: what to download, PNG to JPEG, a look into every image.

    python tools/prepare_kitti.py archives --split eigen_zhou --data_path kitti_data
    python tools/prepare_kitti.py archives --split eigen_zhou --data_path kitti_data --urls | wget -c -i -
    python tools/prepare_kitti.py convert --data_path kitti_data
    python tools/prepare_kitti.py verify --split eigen_zhou --data_path kitti_data

`<command> -h` explains each.
"""  # noqa: E501

import argparse
import http.client
import io
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from datasets import (  # noqa: E402
    BENCHMARKS,
    SPLITS,
    Frame,
    KITTIBenchmark,
    KITTIDepth,
    KITTIOdom,
    KITTIRaw,
    MonoDataset,
    read_image,
    read_split,
    split_folder,
)
from datasets.kitti import sequence_name  # noqa: E402
from datasets.kitti_benchmark import IMAGES  # noqa: E402
from datasets.mono_dataset import OTHER_SIDE, resize_K  # noqa: E402
from datasets.velodyne import calibration_matrix  # noqa: E402
from utils import (  # noqa: E402
    OneLineParser,
    UserError,
    atomic_write,
    demand_writable,
    in_parallel,
    read_lines,
    run_script,
)

SERVER = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
DRIVE = re.compile(r"(\d{4}_\d\d_\d\d)/(\1_drive_\d{4})_sync", re.ASCII)
ANNOTATED = "data_depth_annotated.zip"
SELECTION = "data_depth_selection.zip"
RAW_CALIBRATION = ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt")
POSES = range(11)  # sequences that have true poses

# Estimates in bytes, from KITTI's own files as they lie unpacked (PNGs do not get smaller in an
# archive). Means of 40 colour PNGs and 8 scans of drives 0001 and 0002 of 2011_09_26; grey frames
# are these colour PNGs turned grey and saved as PNG by Pillow.
COLOUR, GREY, SCAN = 858_513, 254_463, 1_943_704
RAW_FRAME = 2 * COLOUR + 2 * GREY + SCAN
RAW_CALIBRATION_SIZE = 3_500  # its three text files
# Odometry: 22 sequences with 43552 stereo frames, 23201 of them with poses; 8 colour PNGs and the
# texts of sequence 07. Annotated depth: about 93000 maps, 12 of drive 0001. Selection: 1000 frames
# with both depths, 500 without and 1000 with scans; three of them.
ODOMETRY_COLOUR = 43_552 * 2 * 780_758
ODOMETRY_CALIBRATION = 22 * 1_172 + 43_552 * 13
ODOMETRY_POSES = 23_201 * 160
ANNOTATED_SIZE = 93_000 * 186_139
SELECTION_SIZE = 2_500 * 728_434 + 1_000 * 123_027 + 2_000 * 52_789

COLOUR_FOLDERS = (  # below the data folder; depth, grey cameras and scans lie elsewhere
    "[0-9][0-9][0-9][0-9]_[0-9][0-9]_[0-9][0-9]/*/image_0[23]/data",
    "sequences/[0-9][0-9]/image_[23]",
)
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
NAMED = 10  # bad files that are named; the others are counted


# What a split names ---------------------------------------------------------------------------


def layout(folder: str) -> type[MonoDataset]:
    """The data set that a split's folder belongs to, by its name."""
    if folder.isascii() and folder.isdecimal():
        return KITTIOdom
    return KITTIBenchmark if folder.partition("/")[0] in IMAGES else KITTIRaw


def listed_subset(split: str) -> str | None:
    """The subset of the depth benchmark's archive whose images are a split without a list."""
    known = BENCHMARKS.get(split.rstrip("/"))
    return known.subset if known is not None and known.lists_images else None


def split_frames(split: str, data_path: Path) -> list[Frame]:
    """All frames of all files of a split, each once.

    Raises:
        UserError: no such split, no split file in it, or a bad one.
    """
    if subset := listed_subset(split):
        return KITTIBenchmark.listed(data_path, subset)
    folder = split_folder(split)
    files = sorted(folder.glob("*_files*.txt"))
    if not files:
        raise UserError(f"{folder}: holds no train_files.txt, val_files.txt or test_files.txt")
    return list(dict.fromkeys(frame for file in files for frame in read_split(file)))


def frame_counts(frames: Iterable[Frame]) -> dict[str, int]:
    """Frames that each recording has at least: by the highest that this or our splits name."""
    known = list(frames)
    for file in SPLITS.glob("*/*_files*.txt"):
        try:
            known += read_split(file)
        except UserError:  # some other split is no reason to stop
            continue
    counts: dict[str, int] = {}
    for frame in known:
        counts[frame.folder] = max(counts.get(frame.folder, 0), frame.index + 1)
    return counts


# archives -------------------------------------------------------------------------------------


class Archive(NamedTuple):
    """An archive on the server, and how much of what the split needs of it is here."""

    path: str  # below the server's URL
    size: int  # bytes
    here: int
    wanted: int
    what: str

    @property
    def state(self) -> str:
        if self.here >= self.wanted:
            return "here"
        return f"incomplete: {self.here} of {self.wanted} {self.what}" if self.here else "missing"


def needed_archives(frames: list[Frame], data_path: Path, with_annotated: bool) -> list[Archive]:
    """The official archives that hold frames.

    Args:
        with_annotated: add the improved ground truth of the raw recordings.

    Raises:
        UserError: a frame that is in none of KITTI's archives.
    """
    drives, sequences = defaultdict(list), defaultdict(list)
    selected = []
    for frame in frames:
        kind = layout(frame.folder)
        if kind is KITTIOdom:
            sequences[sequence_name(frame.folder)].append(frame)
        elif kind is KITTIBenchmark:
            selected.append(frame)
        elif match := DRIVE.fullmatch(frame.folder):
            drives[match.groups()].append(frame)
        else:
            raise UserError(
                f"'{frame}': in no archive of KITTI; folders are <date>/<date>_drive_<nnnn>_sync, "
                f"the number of an odometry sequence, {', '.join(IMAGES)}"
            )

    def files(archive: str, size: int, names: list[str]) -> Archive:
        here = sum((data_path / name).is_file() for name in names)
        return Archive(archive, size, here, len(names), "files")

    def images(archive: str, size: int, kind: type[MonoDataset], some: list[Frame]) -> Archive:
        here = 0
        if data_path.is_dir():
            data = kind(data_path, [], 1, 1)
            here = sum(data.find_image(frame) is not None for frame in some)
        return Archive(archive, size, here, len(some), "images")

    needed = []
    counts = frame_counts(frames) if drives else {}
    for date in sorted({date for date, _ in drives}):
        names = [f"{date}/{name}" for name in RAW_CALIBRATION]
        needed.append(files(f"raw_data/{date}_calib.zip", RAW_CALIBRATION_SIZE, names))
        for drive, some in sorted((key[1], some) for key, some in drives.items() if key[0] == date):
            size = counts[some[0].folder] * RAW_FRAME
            needed.append(images(f"raw_data/{drive}/{drive}_sync.zip", size, KITTIRaw, some))
    if sequences:
        some = [frame for some in sequences.values() for frame in some]
        needed.append(images("data_odometry_color.zip", ODOMETRY_COLOUR, KITTIOdom, some))
        names = [f"sequences/{sequence}/calib.txt" for sequence in sequences]
        needed.append(files("data_odometry_calib.zip", ODOMETRY_CALIBRATION, names))
        if names := [f"poses/{name}.txt" for name in sequences if int(name) in POSES]:
            needed.append(files("data_odometry_poses.zip", ODOMETRY_POSES, names))
    if drives and with_annotated:
        some = [frame for some in drives.values() for frame in some]
        data = KITTIDepth(data_path, [], 1, 1) if data_path.is_dir() else None
        here = sum(data is not None and data.depth_path(frame).is_file() for frame in some)
        needed.append(Archive(ANNOTATED, ANNOTATED_SIZE, here, len(some), "depth maps"))
    if selected:
        needed.append(images(SELECTION, SELECTION_SIZE, KITTIBenchmark, selected))
    return needed


def selection_archive(data_path: Path, subset: str) -> Archive:
    """The depth benchmark's archive, for one of its subsets."""
    try:
        here = len(KITTIBenchmark.listed(data_path, subset))
    except UserError:
        here = 0
    return Archive(SELECTION, SELECTION_SIZE, here, IMAGES[subset], "images")


def size_on_server(url: str) -> int:
    """Bytes of a file, by its server.

    Raises:
        UserError: no answer, a refusal, or no size in it.
    """
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=20) as response:
            return int(response.headers.get("Content-Length", ""))
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answers {error.code} {error.reason}"
    except urllib.error.URLError as error:
        reason = f"no answer ({error.reason})"
    except ValueError:
        reason = "the server does not tell the size"
    except (OSError, http.client.HTTPException) as error:
        reason = f"no answer ({str(error) or type(error).__name__})"
    raise UserError(f"{url}: {' '.join(reason.split())}; try again, or leave --sizes out")


def readable(size: int) -> str:
    """A size as people read it: 4.2 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB" if value < 10 else f"{value:.0f} GB"


def archives(arguments: argparse.Namespace) -> None:
    """The command: a table of archives, or the URLs of those to fetch."""
    server = arguments.url.rstrip("/")
    if not re.fullmatch(r"https?://[^\s/]\S*", server):
        raise UserError(f"--url '{arguments.url}': write it as https://host/folder")
    data_path = arguments.data_path
    if data_path.exists() and not data_path.is_dir():
        raise UserError(f"{data_path}: is a file; --data_path is a folder")
    if subset := listed_subset(arguments.split):
        needed = [selection_archive(data_path, subset)]
        count = needed[0].wanted
    else:
        frames = split_frames(arguments.split, data_path)
        name = split_folder(arguments.split).resolve().name
        with_annotated = name.startswith("benchmark") or name == "eigen_benchmark"
        needed = needed_archives(frames, data_path, with_annotated)
        count = len(frames)
    if arguments.sizes:
        urls = [f"{server}/{archive.path}" for archive in needed]
        sizes = in_parallel(size_on_server, urls, 4, "archive")
        needed = [a._replace(size=size) for a, size in zip(needed, sizes, strict=True)]
    fetch = [archive for archive in needed if archive.state != "here"]
    if not arguments.urls:
        about = "" if arguments.sizes else "about "
        rows = [("archive", "state", "size")]
        for archive in needed:
            size = f"{archive.size:,} B" if arguments.sizes else about + readable(archive.size)
            rows.append((PurePosixPath(archive.path).name, archive.state, size))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, state, size in rows:
            print(f"{name:{widths[0]}}  {state:{widths[1]}}  {size:>{widths[2]}}")
        total = about + readable(sum(archive.size for archive in needed))
        rest = about + readable(sum(archive.size for archive in fetch))
        print(
            f"\nsplit {arguments.split}: {count} frames; archives: {len(needed)}, {total}; "
            f"in {data_path}: {len(needed) - len(fetch)}; to fetch: {len(fetch)}, {rest}"
        )
        if fetch:
            odometry = any("odometry" in archive.path for archive in fetch)
            inner = " (of odometry archives, the content of their folder dataset/)"
            print(f"To fetch and to unpack in {data_path}{inner if odometry else ''}:")
    for archive in fetch:
        print(f"{server}/{archive.path}")


# convert --------------------------------------------------------------------------------------


class Job(NamedTuple):
    source: Path
    output: Path


class Outcome(NamedTuple):
    """What became of an image; bytes of source and output if it was converted in this run."""

    before: int = 0
    after: int = 0
    deleted: bool = False
    error: str = ""


def colour_images(data_path: Path) -> tuple[list[Path], list[Path]]:
    """Colour PNGs, and JPEGs that have no PNG beside them."""
    pngs, jpegs = [], []
    for pattern in COLOUR_FOLDERS:
        for folder in sorted(data_path.glob(pattern)):
            names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
            own = [name for name in names if name.endswith(".png")]
            stems = {name.removesuffix(".png") for name in own}
            pngs += [folder / name for name in own]
            for name in names:
                stem, extension = os.path.splitext(name)
                if extension in (".jpg", ".jpeg") and stem not in stems:
                    jpegs.append(folder / name)
                    stems.add(stem)
    return pngs, jpegs


def is_jpeg(path: Path, size: tuple[int, int], decode: bool = False) -> bool:
    """Whether a file is a JPEG of that (width, height); fully decoded only if asked for."""
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            return image.format == "JPEG" and image.size == size
    except UNREADABLE:
        return False


def header(path: Path) -> tuple[str, tuple[int, int]]:
    """Mode and (width, height) of an image that may be damaged further down.

    Raises:
        UserError: it is no image.
    """
    try:
        with Image.open(path) as image:
            return image.mode, image.size
    except UNREADABLE:
        read_image(path)  # says what is wrong
        raise


def convert_image(job: Job, size: tuple[int, int] | None, quality: int, delete: bool) -> Outcome:
    """Write the JPEG of an image unless it is there; with `delete`, remove the image then.

    Raises:
        OSError, UserError: the output cannot be written. A bad source is an outcome instead.
    """
    outcome = Outcome()
    try:
        mode, old_size = header(job.source)
        new_size = size or old_size
        status = job.source.stat()
        newer = not job.output.exists() or status.st_mtime_ns > job.output.stat().st_mtime_ns
        done = not newer and is_jpeg(job.output, new_size, decode=delete)
        if not done:
            image = read_image(job.source)
            image = image.getchannel(0) if mode == "L" else image
            if image.size != new_size:
                image = image.resize(new_size, Image.Resampling.LANCZOS)
            memory = io.BytesIO()  # to a file, Pillow would not say that a disk is full
            image.save(memory, "JPEG", quality=quality, subsampling="4:2:0")
    except (UserError, *UNREADABLE) as error:
        return Outcome(error=str(error))
    if not done:
        with atomic_write(job.output) as file:
            file.write(memory.getvalue())
        outcome = Outcome(status.st_size, len(memory.getvalue()))
    if delete:
        if not (done or is_jpeg(job.output, new_size, decode=True)):
            return outcome._replace(error=f"{job.output}: does not read back; {job.source} stays")
        job.source.unlink()
    return outcome._replace(deleted=delete)


def resized_calibration(path: Path, size: tuple[int, int], new_size: tuple[int, int]) -> str:
    """An odometry `calib.txt` for resized images: P0 to P3 become A P, all else stays.

    Raises:
        UserError: one of them is no 3x4 matrix.
    """
    A = resize_K(np.eye(3), size, new_size)
    lines = read_lines(path, "calibration file", "KITTI's calib archive has it")
    for i, line in enumerate(lines):
        name = line.partition(":")[0].strip()
        if name in ("P0", "P1", "P2", "P3"):
            P = A @ calibration_matrix(path, name, 3, 4)
            lines[i] = f"{name}: " + " ".join(f"{x:.12e}" for x in P.ravel())
    return "\n".join(lines) + "\n"


def carried_files(
    data_path: Path, images: list[Path], size: tuple[int, int] | None
) -> tuple[dict[Path, bytes], list[Path]]:
    """Content of the texts that belong to images, by their place below the data folder, and the
    calibration files that are missing.

    Raises:
        UserError: a calibration that cannot be resized.
    """
    content, missing = {}, []
    recordings = defaultdict(list)
    for path in images:
        recordings[path.relative_to(data_path).parts[:2]].append(path)
    for date in sorted({first for first, _ in recordings if first != "sequences"}):
        files = sorted((data_path / date).glob("calib_*.txt"))
        content |= {file.relative_to(data_path): file.read_bytes() for file in files}
        if not (data_path / date / RAW_CALIBRATION[0]).is_file():
            missing.append(data_path / date / RAW_CALIBRATION[0])
    for sequence in sorted(second for first, second in recordings if first == "sequences"):
        folder = Path("sequences") / sequence
        for name in (folder / "calib.txt", folder / "times.txt", Path(f"poses/{sequence}.txt")):
            if (data_path / name).is_file():
                content[name] = (data_path / name).read_bytes()
        name = folder / "calib.txt"
        if name not in content:
            missing.append(data_path / name)
        elif size is not None:
            for path in recordings["sequences", sequence]:  # the first that can be read
                try:
                    old_size = header(path)[1]
                except UserError:
                    continue
                content[name] = resized_calibration(data_path / name, old_size, size).encode()
                break
    return content, missing


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of `640x192`.

    Raises:
        UserError: anything else.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (2 <= min(size) and max(size) <= 65_500):
        raise UserError(f"--size '{text}': write width x height in pixels, as 640x192")
    return size


def plan(arguments: argparse.Namespace, sources: list[Path]) -> list[Job]:
    """Where each image goes.

    Raises:
        UserError: it cannot be written there, or would replace what it is made from.
    """
    data_path, out = arguments.data_path, arguments.out or arguments.data_path
    jobs = [Job(path, out / path.relative_to(data_path).with_suffix(".jpg")) for path in sources]
    for job in {job.output.parent: job for job in jobs}.values():
        folder = job.output.parent
        if arguments.out and folder.is_dir() and folder.samefile(job.source.parent):
            raise UserError(f"{folder}: is the folder of the originals; give another --out")
        demand_writable(job.output)
    return jobs


def convert(arguments: argparse.Namespace) -> None:
    """The command: PNGs of the colour cameras become JPEGs."""
    data_path, out = arguments.data_path, arguments.out
    size = None if arguments.size is None else parse_size(arguments.size)
    if not 1 <= arguments.quality <= 95:
        raise UserError(f"--quality {arguments.quality}: JPEG's is 1 to 95")
    if not data_path.is_dir():
        raise UserError(f"{data_path}: no such data folder; give the right one by --data_path")
    if size and arguments.delete_originals:
        raise UserError(
            "--delete_originals: never with --size, which keeps less than the originals"
        )
    if size and out is None:
        raise UserError("--size needs --out: calibration and scans are for the originals' size")
    if out is not None and out.resolve() == data_path.resolve():
        raise UserError(f"--out {out}: is --data_path; without --out JPEGs lie beside the PNGs")
    pngs, jpegs = colour_images(data_path)
    sources = sorted(pngs + jpegs) if size else pngs
    if not sources and (out is not None or not jpegs):
        raise UserError(
            f"{data_path}: no PNG in <date>/<drive>/image_0[23]/data or sequences/<nn>/image_[23]"
            + (f", {len(jpegs)} images are JPEG already" if jpegs else "; correct --data_path")
        )
    jobs = plan(arguments, sources)
    carried, missing = ({}, []) if out is None else carried_files(data_path, sources, size)
    for name, content in carried.items():
        path = out / name
        if not path.is_file() or path.read_bytes() != content:
            with atomic_write(path) as file:
                file.write(content)

    def work(job: Job) -> Outcome:
        return convert_image(job, size, arguments.quality, arguments.delete_originals)

    start = time.perf_counter()
    outcomes = in_parallel(work, jobs, arguments.num_workers, "image")
    seconds = time.perf_counter() - start
    made = [outcome for outcome in outcomes if outcome.after]
    errors = [outcome.error for outcome in outcomes if outcome.error]
    deleted = sum(outcome.deleted for outcome in outcomes)
    before, after = sum(o.before for o in made), sum(o.after for o in made)
    if made:
        print(
            f"{len(made)} images converted: {readable(before)} -> {readable(after)} "
            f"({after / before:.0%}) in {seconds:.1f} s ({1000 * seconds / len(made):.1f} ms each)"
        )
    elif not errors and not deleted:
        old = len(jobs) + (0 if size else len(jpegs))
        print(f"nothing to do: all {old} images have been converted (anew: remove the JPEGs)")
    old = sum(not (outcome.after or outcome.error) for outcome in outcomes)
    if made and old:
        print(f"{old} had been converted before")
    if jpegs and made and not size:
        left = "left where they are" if out else "left as they are"
        print(f"{len(jpegs)} images without a PNG are JPEG already: {left}")
    if deleted:
        print(f"{deleted} originals deleted")
    for path in missing:
        print(f"{path}: not there to be carried along; --intrinsics calib will miss it")
    if errors:
        raise UserError(
            f"{len(errors)} of {len(jobs)} images failed, all others are done; first: {errors[0]}"
        )


# verify ---------------------------------------------------------------------------------------


def image_size(path: Path) -> tuple[int, int] | str:
    """(width, height) of a fully decoded image, or what is wrong with it."""
    try:
        return read_image(path).size
    except UserError as error:
        return str(error)


def verify(arguments: argparse.Namespace) -> None:
    """The command: decode every image of a split."""
    kinds = {"kitti": KITTIRaw, "kitti_odom": KITTIOdom}
    data: dict[type[MonoDataset], MonoDataset] = {}
    images: dict[Path, str] = {}  # to recordings, whose images have one size
    missing: dict[Path, None] = {}
    for frame in split_frames(arguments.split, arguments.data_path):
        kind = kinds.get(arguments.dataset) or layout(frame.folder)
        if kind not in data:
            data[kind] = kind(arguments.data_path, [], 1, 1, png=arguments.png)
        needed = [frame]
        if arguments.use_stereo:
            needed.append(frame._replace(side=OTHER_SIDE[frame.side]))
        neighbours = [frame._replace(index=frame.index + k) for k in arguments.frame_ids]
        for one in needed + neighbours:
            path = data[kind].find_image(one)
            if path is not None:
                images[path] = frame.folder
            elif one in needed:
                missing[data[kind].image_stem(one)] = None
    sizes = in_parallel(image_size, list(images), arguments.num_workers, "image")
    by_recording = defaultdict(Counter)
    for folder, size in zip(images.values(), sizes, strict=True):
        if not isinstance(size, str):
            by_recording[folder][size] += 1
    usual = {folder: counter.most_common(1)[0][0] for folder, counter in by_recording.items()}
    corrupt, odd = [], []
    for (path, folder), size in zip(images.items(), sizes, strict=True):
        if isinstance(size, str):
            corrupt.append(f"corrupt: {size}")
        elif size != usual[folder]:
            width, height = usual[folder]
            odd.append(
                f"wrong size: {path}: {size[0]}x{size[1]}, the recording has {width}x{height}"
            )
    bad = [f"missing: {stem}" for stem in missing] + corrupt + odd
    total = len(images) + len(missing)
    if not bad:
        print(f"all {total} images decode")
        return
    print(*bad[:NAMED], sep="\n")
    if len(bad) > NAMED:
        print(f"and {len(bad) - NAMED} more")
    raise UserError(
        f"{len(bad)} of {total} images are of no use: {len(missing)} missing, "
        f"{len(corrupt)} corrupt, {len(odd)} of a wrong size"
    )


# The command line -----------------------------------------------------------------------------


def workers(text: str) -> int:
    if int(text) < -1:
        raise ValueError
    return int(text)


def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="archives | convert | verify")

    def command(
        function: Callable[[argparse.Namespace], None], summary: str, details: str
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(function.__name__, help=summary, description=details)
        one.set_defaults(run=function)
        return one

    def add_workers(one: argparse.ArgumentParser) -> None:
        one.add_argument(
            "--num_workers", type=workers, default=-1, help="threads; -1: as many as cores"
        )

    one = command(
        archives,
        "which official archives a split needs, and which are missing",
        "Which official archives a split needs and which are missing. Sizes are estimates from the "
        "number of frames.",
    )
    one.add_argument("--split", required=True, help="name of a folder in splits/, or a path")
    one.add_argument(
        "--data_path",
        type=Path,
        default=ROOT / "kitti_data",
        help="where they are unpacked (default: kitti_data beside the code)",
    )
    one.add_argument("--url", default=SERVER, help="of a mirror (default: KITTI's own server)")
    style = one.add_mutually_exclusive_group()
    style.add_argument("--sizes", action="store_true", help="ask the server for exact sizes")
    style.add_argument(
        "--urls", action="store_true", help="only the URLs to fetch, as for wget -c -i -"
    )

    one = command(
        convert,
        "make JPEGs of the colour PNGs",
        "Make JPEGs (4:2:0) of the colour PNGs of raw recordings and odometry sequences. "
        "A second run goes on where the first ended. Where both are, training takes the JPEG "
        "(with --png the PNG). With --out, calibration, times and poses come along; "
        "velodyne_points/, proj_depth/ and the grey cameras do not: export the ground truth from "
        "the original tree.",
    )
    one.add_argument("--data_path", type=Path, required=True)
    one.add_argument("--out", type=Path, help="other folder (default: beside each PNG)")
    one.add_argument(
        "--size",
        metavar="WxH",
        help="also resize (LANCZOS), images that are JPEG already too; needs --out, and the "
        "odometry calibration is resized alike",
    )
    one.add_argument("--quality", type=int, default=92, help="of the JPEGs, 1 to 95 (default: 92)")
    one.add_argument(
        "--delete_originals",
        action="store_true",
        help="delete each PNG once its JPEG has been read back whole; not with --size",
    )
    add_workers(one)

    one = command(
        verify,
        "decode every image of a split",
        "Decode every image of a split's files. Missing, corrupt and wrong-size files are named.",
    )
    one.add_argument("--split", required=True, help="name of a folder in splits/, or a path")
    one.add_argument("--data_path", type=Path, required=True)
    one.add_argument(
        "--dataset", choices=("kitti", "kitti_odom"), help="default: by the folders' names"
    )
    one.add_argument("--png", action="store_true", help="PNG images only")
    one.add_argument(
        "--frame_ids", type=int, nargs="+", default=[0], help="neighbours too, where they exist"
    )
    one.add_argument("--use_stereo", action="store_true", help="stereo partners too")
    add_workers(one)

    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    run_script(main)
