"""Split sequences of your own into frames to train, to validate and to test on.

    python tools/make_split.py video
    python tools/make_split.py video --split by_place --test garden/first garden/second

Every folder below the data folder with an intrinsics.json is a sequence. The end of each run of
consecutive frames validates; no frame is in samples of both parts. Sequences with a stereo partner
train with both views.
"""

import json
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets import SPLITS  # noqa: E402
from datasets.folder import CAMERA_FILE, find_sequences, numbered_files, read_sequence  # noqa: E402
from datasets.mono_dataset import EXTENSIONS  # noqa: E402
from datasets.splits import LONGEST_RUN  # noqa: E402
from tools.prepared import NAME  # noqa: E402
from utils import OneLineParser, UserError, atomic_write, run_script  # noqa: E402

PARTS = ("train", "val", "test")
Files = dict[str, list[str]]  # lines of each part that has any


class Run(NamedTuple):
    """Frames of consecutive numbers, and whether both views of them are there."""

    sequence: str
    first: int
    last: int
    stereo: bool = False

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    def lines(self, sides: str) -> list[str]:
        """As lines of a split."""
        return [
            f"{self.sequence} {first}-{min(first + LONGEST_RUN - 1, self.last)} {sides}"
            for first in range(self.first, self.last + 1, LONGEST_RUN)
        ]


def runs_of(sequence: str, numbers: Iterable[int], stereo: bool = False) -> list[Run]:
    """Runs of consecutive numbers."""
    runs: list[Run] = []
    for number in sorted(numbers):
        if runs and runs[-1].last == number - 1:
            runs[-1] = runs[-1]._replace(last=number)
        else:
            runs.append(Run(sequence, number, number, stereo))
    return runs


def divided(runs: list[Run], val_share: float, stride: int = 1) -> tuple[list[Run], list[Run]]:
    """Runs of frames to train and to validate on, which all have their neighbours.

    The last `val_share` of each run validates; of runs too short for that, now and then a whole
    one. Between the two, frames are left out whose samples would share a frame.

    Args:
        runs: all frames.
        stride: from a frame to its neighbours.

    Raises:
        UserError: there are too few.
    """
    targets = [run._replace(first=run.first + stride, last=run.last - stride) for run in runs]
    targets = [run for run in targets if run.length > 0]
    gap = 2 * stride
    train, val, owed = [], [], 0.0
    for run in targets:
        owed += val_share * run.length
        part = round(owed)
        if part < run.length:
            part = min(part, run.length - gap - 1)
        if part < 1:
            train.append(run)
            continue
        part = min(part, run.length)
        owed -= part
        val.append(run._replace(first=run.last - part + 1))
        if part < run.length:
            train.append(run._replace(last=run.last - part - gap))
    if not val and train:
        longest = max(train, key=lambda run: run.length)
        train.remove(longest)
        if longest.length > gap + 1:
            train.append(longest._replace(last=longest.last - 1 - gap))
            longest = longest._replace(first=longest.last)
        val.append(longest)
    if not train or not val:
        raise UserError(
            f"{sum(run.length for run in runs)} frames in {len(runs)} runs are too few to train "
            f"and to validate on, with neighbours at {stride}"
        )
    return train, val


def sequence_runs(data_path: Path, name: str) -> list[Run]:
    """Runs of a sequence's frames, of a stereo pair's those that both cameras have.

    Raises:
        UserError: no split line can hold its name, its intrinsics.json is bad, or it has no images.
    """
    if len(name.split()) != 1:
        raise UserError(f"{data_path / name}: no split can name a folder with spaces; rename it")
    if name.startswith("#"):
        raise UserError(f"{data_path / name}: a split takes a line with # for a remark; rename it")
    sequence = read_sequence(data_path / name)
    numbers = set(numbered_files(sequence.images, EXTENSIONS))
    if not numbers:
        raise UserError(f"{sequence.images}: holds no JPEG or PNG whose name ends in a number")
    if sequence.partner is not None:
        numbers &= set(numbered_files(sequence.partner, EXTENSIONS))
        if not numbers:
            raise UserError(f"{sequence.partner}: has no frame of the numbers in {sequence.images}")
    return runs_of(name, numbers, sequence.partner is not None)


def test_runs(data_path: Path, name: str) -> list[Run]:
    """Runs of the frames of a sequence that can be scored: those with depth, where it has any."""
    sequence = read_sequence(data_path / name)
    numbers = set(numbered_files(sequence.images, EXTENSIONS))
    if sequence.depth is not None:
        numbers &= set(numbered_files(sequence.depth, (".png",))) or numbers
    return runs_of(name, numbers)


def split_of(
    data_path: Path,
    val_share: float = 0.1,
    stride: int = 1,
    test: Iterable[str] = (),
) -> Files:
    """Lines of the split's files.

    Args:
        test: sequences that are all test.

    Raises:
        UserError: no sequences, too few frames, or no such sequence to test on.
    """
    names = find_sequences(data_path)
    if not names:
        raise UserError(
            f"{data_path}: holds no folder with an {CAMERA_FILE}; tools/prepare_video.py writes "
            "such, docs/own_data.md says what is in it"
        )
    tested = list(dict.fromkeys(str(Path(name)) for name in test))
    for name in tested:
        if name not in names:
            raise UserError(
                f"--test {name}: no such sequence in {data_path}; there are {', '.join(names[:8])}"
                f"{' ...' if len(names) > 8 else ''}"
            )
    runs = [run for n in names if n not in tested for run in sequence_runs(data_path, n)]
    try:
        train, val = divided(runs, val_share, stride)
    except UserError as error:
        raise UserError(f"{data_path}: {error}") from None
    files = {
        "train": [line for run in train for line in run.lines("lr" if run.stereo else "l")],
        "val": [line for run in val for line in run.lines("l")],
    }
    if tested:
        files["test"] = [
            line for n in tested for run in test_runs(data_path, n) for line in run.lines("l")
        ]
    return files


def texts_of(folder: Path, files: Files) -> dict[Path, str]:
    """What the files of a split hold."""
    return {folder / f"{part}_files.txt": "\n".join(files[part]) + "\n" for part in files}


def other_files(folder: Path, files: Files) -> list[Path]:
    """Files of another split than this in a folder."""
    wanted = texts_of(folder, files)
    paths = [folder / f"{part}_files.txt" for part in PARTS]
    there = [path for path in paths if path.exists()]
    return [p for p in there if p.read_text(encoding="utf-8", errors="replace") != wanted.get(p)]


def write_split(folder: Path, files: Files, overwrite: bool = False) -> None:
    """Write the files of a split, and take away those of another that was there.

    Raises:
        UserError: another is there, and `overwrite` is false.
    """
    wanted, other = texts_of(folder, files), other_files(folder, files)
    if other and not overwrite:
        raise UserError(f"{other[0]}: is there with other frames; add --overwrite, or --split NAME")
    for path in other:
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        with atomic_write(path, "w") as file:
            file.write(text)


def renew_split(folder: Path, files: Files) -> bool:
    """Write a split that a tool keeps up to date; false where the one that is there was made or
    changed by somebody since, and stays."""
    note = folder / NAME
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        noted = None
    if other_files(folder, files) and checksums(folder) != noted:
        return False
    write_split(folder, files, overwrite=True)
    with atomic_write(note, "w") as file:
        json.dump(checksums(folder), file)
    return True


def checksums(folder: Path) -> dict[str, int]:
    """Of the files of a split."""
    return {path.name: zlib.crc32(path.read_bytes()) for path in sorted(folder.glob("*.txt"))}


def summary(files: Files) -> str:
    """How many frames each part has, views of both cameras counted."""
    counts = {}
    for part, lines in files.items():
        spans = [(line.split()[-1], *map(int, line.split()[-2].split("-"))) for line in lines]
        counts[part] = sum(len(sides) * (last - first + 1) for sides, first, last in spans)
    words = {"train": "to train on", "val": "to validate on", "test": "to test on"}
    return ", ".join(f"{count} frames {words[part]}" for part, count in counts.items())


def demand_name(name: str) -> None:
    """Refuse names of splits that no --split would find.

    Raises:
        UserError: naming the flag.
    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"--split '{name}': a name has letters, digits, _ and - only")
    if (SPLITS / name).is_dir():
        raise UserError(f"--split {name}: is a split of {SPLITS}; choose another name")


def make_split(
    data_path: Path, split: str, val_share: float, stride: int, test: list[str], overwrite: bool
) -> None:
    """Write a split of the sequences in `data_path`, see `split_of`.

    Raises:
        UserError: values that cannot be, no sequences, or another split of this name is there.
    """
    demand_name(split)
    if not 0 < val_share < 1:
        raise UserError(f"--val_share {val_share:g}: give a number between 0 and 1")
    if not 1 <= stride <= 1000:
        raise UserError(f"--stride {stride}: give 1 or more")
    if not data_path.is_dir():
        raise UserError(f"{data_path}: no such data folder")
    files = split_of(data_path, val_share, stride, test)
    write_split(data_path / "splits" / split, files, overwrite)
    print(f"split {split} in {data_path}: {summary(files)}")


def main() -> None:
    parser = OneLineParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data_path", type=Path, help="folder of sequences")
    parser.add_argument("--split", default="video", help="name (default: video)")
    parser.add_argument(
        "--val_share", type=float, default=0.1, help="that validates of all frames (default: 0.1)"
    )
    parser.add_argument(
        "--stride", type=int, default=1, help="N for --frame_ids 0 -N N (default: 1)"
    )
    parser.add_argument(
        "--test", nargs="+", default=[], metavar="SEQUENCE", help="folders that are held out"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a split of this name")
    make_split(**vars(parser.parse_args()))


if __name__ == "__main__":
    run_script(main)
