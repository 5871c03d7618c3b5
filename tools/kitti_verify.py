"""Decode every image of a split; name those that are missing, corrupt or of a wrong size."""

from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

from datasets import DATASETS, Frame, KITTIBenchmark, MonoDataset, read_image
from datasets.mono_dataset import OTHER_SIDE
from tools.kitti_split import layout, split_frames
from utils import UserError, in_parallel

NAMED = 10  # bad images that are named; the others are counted


def verify(
    split: str,
    data_path: Path,
    dataset: str | None,
    png: bool,
    frame_ids: list[int],
    use_stereo: bool,
    num_workers: int,
) -> None:
    """Print that all images of a split decode, or which do not.

    Args:
        dataset: `kitti` or `kitti_odom`; None: by the folders' names.
        png: PNG images only.
        frame_ids: offsets of neighbours, which are looked at where they exist.
        use_stereo: stereo partners too.

    Raises:
        UserError: an image is missing or bad, or the split cannot be read.
    """
    frames = split_frames(split, data_path)
    images, missing = find_images(frames, data_path, dataset, png, frame_ids, use_stereo)
    corrupt, odd = bad_images(images, num_workers)
    bad = missing + corrupt + odd
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


def find_images(
    frames: list[Frame],
    data_path: Path,
    dataset: str | None,
    png: bool,
    frame_ids: list[int],
    use_stereo: bool,
) -> tuple[dict[Path, str], list[str]]:
    """Images with the recording that each belongs to, and a line on each that is missing.

    Raises:
        UserError: no data folder, or a frame that cannot be of the data set.
    """

    @cache  # it lists a folder once
    def data_set(kind: type[MonoDataset]) -> MonoDataset:
        return kind(data_path, [], 1, 1, png=png)

    images: dict[Path, str] = {}
    missing: dict[Path, None] = {}
    for frame in frames:
        data = data_set(DATASETS[dataset] if dataset else layout(frame.folder))
        needed = [frame]
        if use_stereo:
            if isinstance(data, KITTIBenchmark):
                raise UserError(f"'{frame}': a single image; leave --use_stereo out")
            needed.append(frame._replace(side=OTHER_SIDE[frame.side]))
        neighbours = [frame._replace(index=frame.index + k) for k in frame_ids]
        for one in needed + neighbours:
            path = data.find_image(one)
            if path is not None:
                images[path] = frame.folder
            elif one in needed:
                missing[data.image_stem(one)] = None
    return images, [f"missing: {stem}" for stem in missing]


def bad_images(images: dict[Path, str], num_workers: int) -> tuple[list[str], list[str]]:
    """A line on each image that does not decode, and on each unlike most of its recording."""
    sizes = in_parallel(image_size, list(images), num_workers, "image")
    looked_at = list(zip(images.items(), sizes, strict=True))
    by_recording = defaultdict(Counter)
    for (_, folder), size in looked_at:
        if not isinstance(size, str):
            by_recording[folder][size] += 1
    usual = {folder: counter.most_common(1)[0][0] for folder, counter in by_recording.items()}
    corrupt, odd = [], []
    for (path, folder), size in looked_at:
        if isinstance(size, str):
            corrupt.append(f"corrupt: {size}")
        elif size != usual[folder]:
            seen, expected = ("{}x{}".format(*one) for one in (size, usual[folder]))
            odd.append(f"wrong size: {path}: {seen}, the recording has {expected}")
    return corrupt, odd


def image_size(path: Path) -> tuple[int, int] | str:
    """(width, height) of a fully decoded image, or what is wrong with it."""
    try:
        return read_image(path).size
    except UserError as error:
        return str(error)
