"""Which of KITTI's official archives a split needs, their sizes, and which are missing."""

import http.client
import re
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datasets import (
    SPLITS,
    Frame,
    KITTIBenchmark,
    KITTIDepth,
    KITTIOdom,
    KITTIRaw,
    MonoDataset,
    read_split,
    split_folder,
)
from datasets.kitti import sequence_name
from datasets.kitti_benchmark import OFFICIAL_IMAGES
from tools.kitti_split import layout, listed_subset, split_frames
from utils import UserError, in_parallel, readable_size

SERVER = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
DRIVE = re.compile(r"(\d{4}_\d\d_\d\d)/(\1_drive_\d{4})_sync", re.ASCII)
CALIBRATION = ("calib_cam_to_cam.txt", "calib_velo_to_cam.txt")  # of a date
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


def archives(split: str, data_path: Path, url: str, sizes: bool, urls: bool) -> None:
    """Print the archives that a split needs and the URLs of those to fetch.

    Args:
        data_path: where archives are unpacked; need not exist.
        url: of the server or a mirror.
        sizes: ask the server for sizes instead of estimating them.
        urls: print the URLs only.

    Raises:
        UserError: a URL or data folder that is none, a split that cannot be read or names frames
            that KITTI lacks, a server that does not answer.
    """
    server = url.rstrip("/")
    if not re.fullmatch(r"https?://[^\s/]\S*", server):
        raise UserError(f"--url '{url}': write it as https://host/folder")
    if data_path.exists() and not data_path.is_dir():
        raise UserError(f"{data_path}: is a file; --data_path is a folder")
    count, needed = needed_archives(split, data_path)
    if sizes:
        places = [f"{server}/{archive.path}" for archive in needed]
        exact = in_parallel(size_on_server, places, 4, "archive")
        needed = [one._replace(size=size) for one, size in zip(needed, exact, strict=True)]
    if not urls:
        print_table(f"split {split}: {count} frames", needed, data_path, exact=sizes)
    for archive in missing(needed):
        print(f"{server}/{archive.path}")


def needed_archives(split: str, data_path: Path) -> tuple[int, list[Archive]]:
    """How many frames a split has, and the archives that hold them.

    Raises:
        UserError: a split that cannot be read, or with a frame that is in no archive.
    """
    if subset := listed_subset(split):
        try:
            here = len(KITTIBenchmark.listed(data_path, subset))
        except UserError:
            here = 0
        count = OFFICIAL_IMAGES[subset]
        return count, [Archive("data_depth_selection.zip", SELECTION_SIZE, here, count, "images")]
    frames = split_frames(split, data_path)
    name = split_folder(split).resolve().name
    with_annotated = name.startswith("benchmark") or name == "eigen_benchmark"
    return len(frames), frames_archives(frames, data_path, with_annotated)


def frames_archives(frames: list[Frame], data_path: Path, with_annotated: bool) -> list[Archive]:
    """The archives that hold frames.

    Args:
        with_annotated: add the improved ground truth of the raw recordings.

    Raises:
        UserError: a frame that is in none of KITTI's archives.
    """
    raw, odometry, selected = [], [], []
    dates = defaultdict(lambda: defaultdict(list))
    for frame in frames:
        kind = layout(frame.folder)
        if kind is KITTIOdom:
            odometry.append(frame)
        elif kind is KITTIBenchmark:
            selected.append(frame)
        elif match := DRIVE.fullmatch(frame.folder):
            raw.append(frame)
            dates[match[1]][match[2]].append(frame)
        else:
            raise UserError(
                f"'{frame}': in no archive of KITTI; folders are <date>/<date>_drive_<nnnn>_sync, "
                f"the number of an odometry sequence, {', '.join(OFFICIAL_IMAGES)}"
            )
    needed = []

    def add(path: str, size: int, what: str, here: list[bool]) -> None:
        needed.append(Archive(path, size, sum(here), len(here), what))

    def files(names: list[str]) -> list[bool]:
        return [(data_path / name).is_file() for name in names]

    def images(kind: type[MonoDataset], some: list[Frame]) -> list[bool]:
        data = kind(data_path, [], 1, 1) if data_path.is_dir() else None
        return [data is not None and data.find_image(frame) is not None for frame in some]

    counts = frame_counts(frames) if raw else {}
    for date, drives in sorted(dates.items()):
        here = files([f"{date}/{name}" for name in CALIBRATION])
        add(f"raw_data/{date}_calib.zip", RAW_CALIBRATION_SIZE, "files", here)
        for drive, some in sorted(drives.items()):
            size = counts[some[0].folder] * RAW_FRAME
            add(f"raw_data/{drive}/{drive}_sync.zip", size, "images", images(KITTIRaw, some))
    if odometry:
        names = {sequence_name(frame.folder) for frame in odometry}
        add("data_odometry_color.zip", ODOMETRY_COLOUR, "images", images(KITTIOdom, odometry))
        here = files([f"sequences/{name}/calib.txt" for name in names])
        add("data_odometry_calib.zip", ODOMETRY_CALIBRATION, "files", here)
        if here := files([f"poses/{name}.txt" for name in names if int(name) in POSES]):
            add("data_odometry_poses.zip", ODOMETRY_POSES, "files", here)
    if raw and with_annotated:
        data = KITTIDepth(data_path, [], 1, 1) if data_path.is_dir() else None
        here = [data is not None and data.depth_path(frame).is_file() for frame in raw]
        add("data_depth_annotated.zip", ANNOTATED_SIZE, "depth maps", here)
    if selected:
        here = images(KITTIBenchmark, selected)
        add("data_depth_selection.zip", SELECTION_SIZE, "images", here)
    return needed


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


def missing(needed: list[Archive]) -> list[Archive]:
    """Those of which not all is here."""
    return [archive for archive in needed if archive.state != "here"]


def print_table(heading: str, needed: list[Archive], data_path: Path, exact: bool) -> None:
    """State and size of each archive, the totals, and where to unpack the missing ones."""
    about = "" if exact else "about "
    rows = [("archive", "state", "size")]
    for archive in needed:
        size = f"{archive.size:,} B" if exact else about + readable_size(archive.size)
        rows.append((PurePosixPath(archive.path).name, archive.state, size))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, state, size in rows:
        print(f"{name:{widths[0]}}  {state:{widths[1]}}  {size:>{widths[2]}}")
    fetch = missing(needed)
    total, rest = (about + readable_size(sum(one.size for one in some)) for some in (needed, fetch))
    print(
        f"\n{heading}; archives: {len(needed)}, {total}; "
        f"in {data_path}: {len(needed) - len(fetch)}; to fetch: {len(fetch)}, {rest}"
    )
    if fetch:
        odometry = any("odometry" in archive.path for archive in fetch)
        inner = " (of odometry archives, the content of their folder dataset/)"
        print(f"To fetch and to unpack in {data_path}{inner if odometry else ''}:")
