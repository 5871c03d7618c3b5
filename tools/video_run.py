"""Several clips side by side: checked, made into sequences, reported, and split."""

import contextlib
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from camera import FOCAL
from datasets.folder import CAMERA_FILE, find_sequences, read_sequence
from doctor.cameras import check_intrinsics
from doctor.report import Finding
from tools.make_split import renew_split, split_of, summary
from tools.prepared import NAME, claim
from tools.video_camera import Known, Lens
from tools.video_clip import prepare_clip
from tools.video_sequence import Made, Settings, read_made
from tools.video_source import Clip, Images, open_clip
from tools.video_view import View
from utils import UserError, count_workers, remove_unfinished

SPLIT = "video"
RESERVED = ("splits", NAME)  # names in the folder that are no clip's
TOO_FAST = 1.01  # a clock by so much faster than the clip is refused
TRAINED = 640  # pixels of the longer side that training is proposed with, at most
STEP, LEAST = 32, 64  # what the network's sides are multiples of, and not below


class Job(NamedTuple):
    """A clip, the folder that it becomes, its camera, and what has become of it."""

    clip: Clip
    folder: Path
    lens: Lens
    made: Made | None = None


def prepare(
    inputs: list[Path],
    out: Path,
    settings: Settings,
    known: Known,
    source_fps: float | None = None,
    num_workers: int = -1,
) -> None:
    """Write a sequence of each clip, and the split `video` of all that are in the folder.

    Args:
        known: camera of the clips' frames.
        source_fps: of folders of images.

    Raises:
        UserError: settings that cannot be or another content of `out`, at once; clips of which
            nothing can be made, when the others are done.
    """
    named = safe_names(inputs, out)
    clips, failed = open_all(named, source_fps)
    jobs = [job_of(clip, out / name, known) for name, clip in clips.items()]
    if source_fps is not None and not any(isinstance(job.clip, Images) for job in jobs):
        raise UserError("--source_fps is the rate of folders of images; videos say theirs")
    for job in jobs:
        demand_sense(job, settings)
    sizes = {job.clip.size for job in jobs} | (sizes_before(out) if jobs else set())
    if known.camera.fx is not None and len(sizes) > 1:
        raise UserError(
            f"--fx {known.camera.fx:g}: is in pixels of clips of one size, these have "
            f"{' and '.join(f'{w}x{h}' for w, h in sorted(sizes))}; give each size an --out of its "
            "own, or --fov_deg"
        )
    for doubt in dict.fromkeys(finding.message for job in jobs for finding in doubts(job.lens)):
        print(f"WARNING: {doubt}")
    if jobs:
        claim(out, settings.content | known.content | {"source_fps": source_fps})
        remove_unfinished(out)
        jobs = [job._replace(made=read_made(job.folder, job.clip)) for job in jobs]
        jobs, lines = make_all(jobs, settings, num_workers)
        failed += lines
    done = [job for job in jobs if job.made is not None]
    if done:
        report(done)
        try:
            finish(out, done)
        except UserError as error:
            failed.append(str(error))
    if failed:
        raise UserError(failed[-1], "\n".join(failed[:-1]))


def safe_names(inputs: list[Path], out: Path) -> dict[str, Path]:
    """Clips by the names of their sequences, which lines of a split can hold.

    Raises:
        UserError: two of one name, or one inside the folder to write.
    """
    named: dict[str, Path] = {}
    for path in inputs:
        where = path.resolve()
        if where.is_relative_to(out.resolve()):
            raise UserError(f"{path}: lies in {out}, which is written; choose another --out")
        stem = where.name if where.is_dir() else where.stem
        name = re.sub(r"[^\w.-]+", "_", stem).strip("._-") or "clip"
        name += "_clip" if name in RESERVED else ""
        if name in named:
            raise UserError(
                f"{path}: makes a sequence {name}, as {named[name]} does; rename one of them"
            )
        named[name] = path
    return named


def open_all(named: dict[str, Path], source_fps: float | None) -> tuple[dict[str, Clip], list[str]]:
    """The clips that can be opened, and a line about each of the others."""
    clips, failed = {}, []
    for name, path in named.items():
        try:
            clips[name] = open_clip(path, source_fps)
        except UserError as error:
            failed.append(str(error))
    return clips, failed


def job_of(clip: Clip, folder: Path, known: Known) -> Job:
    """What is to be done with a clip.

    Raises:
        UserError: its camera does not fit the frames.
    """
    photo = clip.paths[0] if isinstance(clip, Images) else None
    try:
        return Job(clip, folder, known.lens(clip.size, photo))
    except UserError as error:
        raise UserError(f"{clip.path}: {error}") from None


def demand_sense(job: Job, settings: Settings) -> None:
    """Refuse settings that do not fit a clip, before anything is written.

    Raises:
        UserError: naming the flag and the clip.
    """
    clip, mask = job.clip, settings.mask
    timed = {
        "--fps": settings.fps is not None,
        "--start and --end": settings.span != Settings().span,
    }
    for flag, given in timed.items():
        if given and clip.fps is None:
            way_out = "add --source_fps" if isinstance(clip, Images) else f"leave {flag} out"
            raise UserError(f"{clip.path}: its rate is not known, which {flag} needs; {way_out}")
    if settings.fps is not None and settings.fps > TOO_FAST * clip.rate:
        raise UserError(f"--fps {settings.fps:g}: {clip.path} has only {clip.rate:g} a second")
    if mask is not None and mask.shape[::-1] != clip.size:
        raise UserError(
            f"--mask: has {mask.shape[1]}x{mask.shape[0]} pixels, the frames of {clip.path} "
            f"{clip.size[0]}x{clip.size[1]}"
        )
    try:
        view = View(job.lens, settings.margins, settings.size)
    except UserError as error:
        raise UserError(f"{clip.path}: {error}") from None
    if mask is not None and not view.of_mask(mask).any():
        raise UserError(f"--mask: is black wherever frames of {clip.path} are kept")


def sizes_before(out: Path) -> set[tuple[int, int]]:
    """(width, height) of the clips that earlier runs have made sequences of."""
    sizes = set()
    for name in find_sequences(out):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            content = json.loads((out / name / CAMERA_FILE).read_text(encoding="utf-8"))
            before = content["about"]["camera"]
            sizes.add((int(before["width"]), int(before["height"])))
    return sizes


def doubts(lens: Lens) -> list[Finding]:
    """What is odd about the camera that was given."""
    return [] if lens.guessed else check_intrinsics(lens.K, lens.size, lens.reshaped)


def make_all(jobs: list[Job], settings: Settings, workers: int) -> tuple[list[Job], list[str]]:
    """The jobs with what has become of them, and a line about each clip that nothing came of.

    What an earlier run made stays. Any other error ends it: clips that are being read stop.
    """
    todo = [job for job in jobs if job.made is None]
    made, lines = {}, []
    stopping = threading.Event()
    total = sum(job.clip.count for job in todo)
    bar = tqdm(total=total or None, unit="frame", dynamic_ncols=True, disable=not todo)
    cv2.setNumThreads(1)  # clips run side by side instead
    with bar, ThreadPoolExecutor(max(count_workers(workers), 1)) as pool:
        try:
            running = {
                pool.submit(
                    prepare_clip, job.clip, job.lens, job.folder, settings, stopping, bar.update
                ): job.folder
                for job in todo
            }
            for future in as_completed(running):
                try:
                    made[running[future]] = future.result()
                except UserError as error:
                    lines.append(str(error))
        except BaseException:
            stopping.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [job._replace(made=job.made or made.get(job.folder)) for job in jobs], sorted(lines)


def report(jobs: list[Job]) -> None:
    """Print what became of the clips, and what their cameras are now."""
    for job in jobs:
        print(f"{job.folder.name}: {sentence(job.made)}")
    if len(jobs) > 1:
        together = Made(*np.sum([job.made for job in jobs], 0).tolist())
        print(f"together: {sentence(together)}")
    for line in dict.fromkeys(map(camera_line, jobs)):
        print(line)
    if any(job.lens.guessed for job in jobs):
        print(
            f"camera not given (--fov_deg, --fx or --camera): assuming a focal length of {FOCAL:g} "
            "of the frames' width; calibrate it where you can, or let train.py --learn_intrinsics "
            "come nearer (docs/own_data.md)"
        )


def sentence(made: Made) -> str:
    """Counts in words."""
    parts = [f"{made.kept} of {made.read} frames kept, sequences: {made.sequences}"]
    for count, words in (
        (made.still, "without motion"),
        (made.unlinked, "that motion links to too few others"),
        (made.unreadable, "that cannot be decoded or have another size than the first"),
    ):
        parts += [f"{count} {words}"] * (count > 0)
    return ", ".join(parts)


def camera_line(job: Job) -> str:
    """The camera of what was written of a clip."""
    sequence = read_sequence(job.folder)
    (fx, fy), (cx, cy) = sequence.K[[0, 1], [0, 1]], sequence.K[:2, 2]
    return (
        f"camera of {sequence.size[0]}x{sequence.size[1]}: fx {fx:.1f} fy {fy:.1f} cx {cx:.1f} "
        f"cy {cy:.1f}, from {job.lens.origin}"
    )


def finish(out: Path, jobs: list[Job]) -> None:
    """The split of all sequences in the folder, and what to do next.

    Raises:
        UserError: too few frames to train and to validate on.
    """
    folder, files = out / "splits" / SPLIT, split_of(out)
    if renew_split(folder, files):
        print(f"split {SPLIT} in {out}: {summary(files)}")
    else:
        print(
            f"split {SPLIT} in {out} was made otherwise and stays; tools/make_split.py {out} "
            "--overwrite makes it of all sequences"
        )
    width, height = training_size(read_sequence(jobs[0].folder).size)
    data = f"--dataset folder --data_path {out}"
    print(f"python tools/check_data.py {data}")
    print(f"python train.py {data} --height {height} --width {width}")


def training_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) to train at: multiples that come nearest to the aspect of pictures of `size`,
    not larger than these where they are large enough."""
    longer = max(min(TRAINED, max(size)) // STEP * STEP, LEAST)
    sides = (max(round(longer * side / max(size) / STEP) * STEP, LEAST) for side in size)
    return tuple(sides)
