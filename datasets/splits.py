"""The split grammar: a folder of text files, one line per frame or run of frames.

    <folder> <frame | first-last> <l | r | lr>

Every published list is made of such lines with a single frame and side. Empty lines and lines that
begin with # are passed over. A run with both sides gives the left, then the right view of each
frame. Lists of data with one camera may say 0 for its side, which is read as l.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from utils import UserError, read_lines

SPLITS = Path(__file__).resolve().parent.parent / "splits"
SIDES = {"l": "l", "r": "r", "lr": "lr", "0": "l"}
LONGEST_RUN = 1_000_000  # frames: a day of film
MOST_FRAMES = 5_000_000  # of a file; every published list has fewer than 100,000
GRAMMAR = "<folder> <frame | first-last> <l | r | lr>"


class Frame(NamedTuple):
    """One view of one moment: camera `l` (left) or `r` (right)."""

    folder: str
    index: int
    side: str

    def __str__(self) -> str:
        return f"{self.folder} {self.index} {self.side}"


def parse_line(line: str) -> list[Frame]:
    """The frames of one line.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    fields = line.split()
    if len(fields) != 3:
        raise ValueError(f"{len(fields)} fields instead of 3")
    folder, frames, sides = fields
    if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts:
        raise ValueError(f"folder '{folder}' leads out of the data folder")
    run = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", frames, re.ASCII)
    if not run:
        raise ValueError(f"frame '{frames}' is neither a number nor first-last")
    first = int(run[1])
    last = int(run[2] or first)
    if not first <= last < first + LONGEST_RUN:
        raise ValueError(f"run '{frames}' ends before it begins, or never")
    if sides not in SIDES:
        raise ValueError(f"side '{sides}' is none of l, r, lr")
    return [Frame(folder, index, s) for index in range(first, last + 1) for s in SIDES[sides]]


def read_split(path: Path) -> list[Frame]:
    """All frames of a split file, in its order.

    Raises:
        UserError: the file is missing, empty, not text, or has a bad line (named with its number).
    """
    frames = []
    lines = read_lines(path, "split file", f"its lines read '{GRAMMAR}'")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            frames += parse_line(line)
            if len(frames) > MOST_FRAMES:
                raise ValueError(f"more than {MOST_FRAMES:,} frames in all")
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}; write '{GRAMMAR}'") from None
    if not frames:
        raise UserError(f"{path}: holds no frames; lines read '{GRAMMAR}'")
    return frames


def split_folder(name: str, data_path: Path | None = None) -> Path:
    """Folder of a split: a name in splits/ or in the data's own splits/, or the path of any folder.

    Raises:
        UserError: there is none; the names that exist are listed.
    """
    places = [Path(name)]
    if name.rstrip("/") == Path(name).name not in ("", ".", ".."):
        own = [] if data_path is None else [data_path / "splits" / name]
        places = [SPLITS / name, *own, *places]
    for folder in places:
        if os.path.isdir(folder):  # Path.is_dir raises where a name is too long
            return folder
    known = ", ".join(sorted(path.name for path in SPLITS.iterdir() if path.is_dir()))
    raise UserError(f"split '{name}' is neither a folder nor one of: {known}")
