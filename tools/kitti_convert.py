"""Make JPEGs of KITTI's colour PNGs, in place or as another tree, resized if asked for."""

import io
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datasets import read_image
from datasets.intrinsics import resize_K
from datasets.velodyne import calibration_matrix
from utils import (
    UserError,
    atomic_write,
    demand_writable,
    in_parallel,
    read_lines,
    readable_size,
)

COLOUR_FOLDERS = (  # below the data folder; depth, grey cameras and scans lie elsewhere
    "[0-9][0-9][0-9][0-9]_[0-9][0-9]_[0-9][0-9]/*/image_0[23]/data",
    "sequences/[0-9][0-9]/image_[23]",
)
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class Outcome(NamedTuple):
    """What became of an image; bytes of source and output if it was converted in this run."""

    before: int = 0
    after: int = 0
    deleted: bool = False
    error: str = ""


def convert(
    data_path: Path,
    out: Path | None,
    size: tuple[int, int] | None,
    quality: int,
    delete_originals: bool,
    num_workers: int,
) -> None:
    """Convert what has not been converted yet, and print what became of it.

    Args:
        out: root of the new tree, to which calibration, times and poses are copied;
            None: each JPEG lies beside its PNG.
        size: new (width, height), which JPEGs that have no PNG get too; only with `out`.
        quality: of the JPEGs, 1 to 95.
        delete_originals: delete each PNG once its JPEG has been read back; not with `size`.

    Raises:
        UserError: arguments that exclude each other, no images, a calibration that cannot be
            resized, an output that cannot be written; after all others are done, a bad image.
    """
    demand_sense(data_path, out, size, quality, delete_originals)
    pngs, jpegs = colour_images(data_path)
    sources, left = (sorted(pngs + jpegs), 0) if size else (pngs, len(jpegs))
    if not sources and (out is not None or not left):
        raise UserError(
            f"{data_path}: no PNG in <date>/<drive>/image_0[23]/data or sequences/<nn>/image_[23]"
            + (f", {left} images are JPEG already" if left else "; correct --data_path")
        )
    jobs = [
        (source, (out or data_path) / source.relative_to(data_path).with_suffix(".jpg"))
        for source in sources
    ]
    demand_outputs(jobs, in_place=out is None)
    uncarried = [] if out is None else carry_texts(data_path, sources, out, size)
    start = time.perf_counter()
    outcomes = in_parallel(
        lambda job: convert_image(*job, size, quality, delete_originals), jobs, num_workers, "image"
    )
    seconds = time.perf_counter() - start
    report(outcomes, seconds, left, in_place=out is None)
    for path in uncarried:
        print(f"{path}: not there to be carried along; --intrinsics calib will miss it")
    if errors := [outcome.error for outcome in outcomes if outcome.error]:
        raise UserError(
            f"{len(errors)} of {len(jobs)} images failed, all others are done; first: {errors[0]}"
        )


def demand_sense(
    data_path: Path, out: Path | None, size: tuple[int, int] | None, quality: int, delete: bool
) -> None:
    """Refuse arguments that are wrong or exclude each other.

    Raises:
        UserError: naming the flag.
    """
    if not 1 <= quality <= 95:
        raise UserError(f"--quality {quality}: JPEG's is 1 to 95")
    if not data_path.is_dir():
        raise UserError(f"{data_path}: no such data folder; give the right one by --data_path")
    if size and delete:
        raise UserError(
            "--delete_originals: never with --size, which keeps less than the originals"
        )
    if size and out is None:
        raise UserError("--size needs --out: calibration and scans are for the originals' size")
    if out is not None and out.resolve() == data_path.resolve():
        raise UserError(f"--out {out}: is --data_path; without --out JPEGs lie beside the PNGs")


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


def demand_outputs(jobs: list[tuple[Path, Path]], in_place: bool) -> None:
    """Refuse pairs of source and output before any is worked on.

    Raises:
        UserError: an output cannot be written, or would replace what it is made from.
    """
    for source, output in {output.parent: (source, output) for source, output in jobs}.values():
        folder = output.parent
        if not in_place and folder.is_dir() and folder.samefile(source.parent):
            raise UserError(f"{folder}: is the folder of the originals; give another --out")
        demand_writable(output)


def carry_texts(
    data_path: Path, images: list[Path], out: Path, size: tuple[int, int] | None
) -> list[Path]:
    """Copy calibration, times and poses of images to `out`; returns missing calibration files.

    An odometry calibration is resized with its images.

    Raises:
        UserError: it cannot be (nothing is written then), or a text cannot be written.
    """
    content, missing = {}, []
    by_folder = defaultdict(list)  # of the calibration: <date>, sequences/<nn>
    for path in images:
        by_folder[path.parents[3 if path.parent.name == "data" else 1]].append(path)
    for folder, some in by_folder.items():
        odometry = folder.parent.name == "sequences"
        poses = data_path / "poses" / f"{folder.name}.txt"
        for path in (*folder.glob("calib*.txt"), folder / "times.txt", poses):
            if path.is_file():
                content[path] = path.read_bytes()
        calib = folder / ("calib.txt" if odometry else "calib_cam_to_cam.txt")
        if calib not in content:
            missing.append(calib)
        elif odometry and size and (old_size := first_size(some)):
            content[calib] = resized_calibration(calib, old_size, size).encode()
    for path, text in content.items():
        copy = out / path.relative_to(data_path)
        if not copy.is_file() or copy.read_bytes() != text:
            with atomic_write(copy) as file:
                file.write(text)
    return missing


def first_size(paths: list[Path]) -> tuple[int, int] | None:
    """(width, height) of the first image that can be read."""
    for path in paths:
        try:
            return header(path)[1]
        except UserError:
            continue
    return None


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


def convert_image(
    source: Path, output: Path, size: tuple[int, int] | None, quality: int, delete: bool
) -> Outcome:
    """Write the JPEG of an image unless it is there; with `delete`, remove the image then.

    Raises:
        OSError, UserError: the output cannot be written. A bad source is an outcome instead.
    """
    outcome = Outcome()
    try:
        mode, old_size = header(source)
        new_size = size or old_size
        status = source.stat()
        newer = not output.exists() or status.st_mtime_ns > output.stat().st_mtime_ns
        done = not newer and is_jpeg(output, new_size, decode=delete)
        if not done:
            image = read_image(source)
            image = image.getchannel(0) if mode == "L" else image
            if image.size != new_size:
                image = image.resize(new_size, Image.Resampling.LANCZOS)
            memory = io.BytesIO()  # to a file, Pillow would not say that a disk is full
            image.save(memory, "JPEG", quality=quality, subsampling="4:2:0")
    except (UserError, *UNREADABLE) as error:
        return Outcome(error=str(error))
    if not done:
        with atomic_write(output) as file:
            file.write(memory.getvalue())
        outcome = Outcome(status.st_size, len(memory.getvalue()))
    if delete:
        if not (done or is_jpeg(output, new_size, decode=True)):
            return outcome._replace(error=f"{output}: does not read back; {source} stays")
        source.unlink()
    return outcome._replace(deleted=delete)


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


def is_jpeg(path: Path, size: tuple[int, int], decode: bool) -> bool:
    """Whether a file is a JPEG of that (width, height); fully decoded only if asked for."""
    try:
        with Image.open(path) as image:
            if decode:
                image.load()
            return image.format == "JPEG" and image.size == size
    except UNREADABLE:
        return False


def report(outcomes: list[Outcome], seconds: float, left: int, in_place: bool) -> None:
    """Print what became of the images, and of `left` JPEGs that were no job."""
    made = [outcome for outcome in outcomes if outcome.after]
    old = sum(not (outcome.after or outcome.error) for outcome in outcomes)
    deleted = sum(outcome.deleted for outcome in outcomes)
    if made:
        before, after = sum(one.before for one in made), sum(one.after for one in made)
        print(
            f"{len(made)} images converted: {readable_size(before)} -> {readable_size(after)} "
            f"({after / before:.0%}) in {seconds:.1f} s ({1000 * seconds / len(made):.1f} ms each)"
        )
        if old:
            print(f"{old} had been converted before")
        if left:
            where = "left as they are" if in_place else "left where they are"
            print(f"{left} images without a PNG are JPEG already: {where}")
    elif old == len(outcomes) and not deleted:
        print(f"nothing to do: all {old + left} images are JPEG already")
        if old:
            print(f"{old} were made before: remove them to have them made anew")
    if deleted:
        print(f"{deleted} originals deleted")
