"""Make training sequences of NYUv2's raw recordings, and a split of them."""

import math
import os
import re
import threading
import time
import zlib
from pathlib import Path

import cv2

from datasets import SPLITS, read_split
from datasets.nyuv2 import PAGE, SCENES_FILE, labelled_places, place, read_scenes
from tools.nyuv2_scene import Scene, Settings, prepare_scene, read_scene
from tools.prepared import claim
from utils import UserError, atomic_write, in_parallel

HELD_OUT = 20  # one place in so many validates
Run = tuple[str, int, int]  # a scene, and its first and last frame


def raw(
    scenes: Path,
    out: Path,
    labelled: Path | None,
    crop: int,
    size: tuple[int, int],
    min_parallax: float,
    no_depth: bool,
    num_workers: int,
) -> None:
    """Write sequences of all scenes and the split `nyuv2_raw`, going on where a run stopped.

    Args:
        scenes: the raw recordings, or any part of them: folders of r-*.ppm, d-*.pgm, INDEX.txt.
        out: folder to write.
        labelled: the prepared labelled set; rooms of its official test images are left out.
        crop, size, min_parallax, no_depth: see `Settings`.
        num_workers: threads; -1 for one per core.

    Raises:
        UserError: no scenes, nothing of use in them, or `out` was made otherwise.
    """
    settings = Settings(crop, size, min_parallax, not no_depth)
    demand_sense(settings)
    folders = find_scenes(scenes)
    if out.resolve().is_relative_to(scenes.resolve()):
        raise UserError(f"{out}: lies among the recordings; give a folder outside")
    tested = set() if labelled is None else official_test_places(labelled)
    wanted = [folder for folder in folders if place(folder.name) not in tested]
    claim(out, {"recordings": "NYUv2 raw", **settings._asdict(), "size": list(size)})
    start = time.perf_counter()
    cv2.setNumThreads(1)  # scenes run side by side instead
    stopping = threading.Event()  # a scene takes a while: one that is stopped ends between frames
    done = in_parallel(
        lambda folder: prepare_scene(folder, out, settings, stopping),
        wanted,
        num_workers,
        "scene",
        stopping,
    )
    report(done, len(folders) - len(wanted), time.perf_counter() - start)
    if labelled is None:
        print(
            "Rooms of the official test images are not left out: for scores that count, give "
            "--labelled with the prepared labelled set."
        )
    kept = [scene for scene in finished_scenes(out) if place(scene.name) not in tested]
    write_split(out, kept)


def demand_sense(settings: Settings) -> None:
    """Refuse settings that cannot be.

    Raises:
        UserError: naming the flag.
    """
    if not 0 <= settings.crop <= 200:
        raise UserError(f"--crop {settings.crop}: pixels of a 640x480 frame's margin, 0 to 200")
    if not 0 <= settings.min_parallax < math.inf:
        raise UserError(f"--min_parallax {settings.min_parallax}: a number of pixels, 0 or more")


def find_scenes(root: Path) -> list[Path]:
    """Folders of colour frames at or below `root`, by name.

    Raises:
        UserError: there are none, two of one name, or a name that no split line can hold.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; fetch the raw recordings from {PAGE}")
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            inner.clear()  # a link that leads back
            continue
        seen.add(real)
        if any(name.startswith("r-") and name.endswith(".ppm") for name in files):
            path = Path(folder)
            if not re.fullmatch(r"\w[\w.-]*", path.name, re.ASCII):
                raise UserError(f"{path}: a scene's name has letters, digits, _ . - only")
            if path.name in found:
                raise UserError(f"{path}: another scene of this name is {found[path.name]}")
            found[path.name] = path
    if not found:
        raise UserError(
            f"{root}: holds no folder of r-<time>-<n>.ppm; fetch the raw recordings from {PAGE}"
        )
    return [found[name] for name in sorted(found)]


def official_test_places(labelled: Path) -> set[str]:
    """The rooms that the official test images show.

    Raises:
        UserError: `labelled` is no prepared labelled set, or not a whole one.
    """
    scenes = read_scenes(labelled)
    frames = read_split(SPLITS / "nyuv2_official" / "test_files.txt")
    unknown = sum(frame.index not in scenes for frame in frames)
    if unknown:
        raise UserError(
            f"{labelled / SCENES_FILE}: names no scene of {unknown} of the {len(frames)} official "
            "test images; prepare the whole labelled set"
        )
    return labelled_places(frames, labelled)


def finished_scenes(out: Path) -> list[Scene]:
    """All scenes in `out`, of this run and earlier ones, by name."""
    scenes = (read_scene(folder) for folder in sorted(out.iterdir()) if folder.is_dir())
    return [scene for scene in scenes if scene is not None and scene.sequences]


def report(scenes: list[Scene], left_out: int, seconds: float) -> None:
    """Print what became of the scenes."""
    frames, kept, unreadable, absent, bad_depth = (
        sum(getattr(scene, name) for scene in scenes) for name in Scene._fields[2:]
    )
    sequences = sum(len(scene.sequences) for scene in scenes)
    print(
        f"{len(scenes)} scenes: {kept} of {frames} frames kept, in {sequences} sequences "
        f"({seconds:.0f} s)"
    )
    if unreadable:
        print(f"{unreadable} frames are truncated or damaged: skipped")
    if bad_depth:
        print(f"{bad_depth} depth images are truncated or damaged: their frames stay without")
    if absent:
        print(f"{absent} frames that INDEX.txt names are not there")
    if left_out:
        print(f"{left_out} scenes left out: they show rooms of the official test images")


def write_split(out: Path, scenes: list[Scene]) -> None:
    """The split nyuv2_raw in `out`: every frame with both neighbours; some places validate.

    Raises:
        UserError: no frame is left to train or to validate on.
    """
    train, val = divided(scenes)
    for name, frames in (("train", train), ("val", val)):
        if not frames:
            raise UserError(f"{out}: no frames to {name} on; more recordings are needed")
    for name, runs in (("train", train), ("val", val)):
        with atomic_write(out / "splits" / "nyuv2_raw" / f"{name}_files.txt", "w") as file:
            file.writelines(f"{folder} {first}-{last} l\n" for folder, first, last in runs)
    counts = [sum(last - first + 1 for _, first, last in runs) for runs in (train, val)]
    print(f"split nyuv2_raw in {out}: {counts[0]} frames to train on, {counts[1]} to validate on")
    print(f"python train.py @experiments/nyuv2_raw.args --data_path {out}")


Run = tuple[str, int, int]


def divided(scenes: list[Scene]) -> tuple[list[Run], list[Run]]:
    """Frames with two neighbours, as (scene, first, last), to train and to validate on.

    Whole places validate, chosen by the checksums of their names, so that recordings added later
    move nothing; if that chooses none or all, the last place; of a single place, the last tenth.
    """
    places = sorted({place(scene.name) for scene in scenes})
    held_out = {name for name in places if zlib.crc32(name.encode()) % HELD_OUT == 0}
    if len(held_out) in (0, len(places)):
        held_out = set(places[-1:])
    train, val = [], []
    for scene in scenes:
        runs = [(scene.name, first + 1, last - 1) for first, last in scene.sequences]
        (val if place(scene.name) in held_out else train).extend(runs)
    return (train, val) if len(places) > 1 else without_end(val)


def without_end(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Runs of frames, parted before the last tenth of all frames."""
    end = math.ceil(sum(last - first + 1 for _, first, last in runs) / 10)
    before, after = [], []
    for name, first, last in reversed(runs):
        middle = max(last - end, first - 1)  # the last frame that stays
        before += [(name, first, middle)] * (middle >= first)
        after += [(name, middle + 1, last)] * (middle < last)
        end -= last - middle
    return before[::-1], after[::-1]
