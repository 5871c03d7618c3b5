"""Count the frames of a split, and write it with one frame a line as published lists are.

python tools/list_split.py eigen_zhou
python tools/list_split.py eigen_zhou --write plain/eigen_zhou
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets import Frame, read_split, split_folder
from utils import OneLineParser, UserError, atomic_write, run_script


def plain_line(frame: Frame) -> str:
    """A frame as published lists of KITTI write it."""
    index = f"{frame.index:010d}" if "drive" in frame.folder else f"{frame.index}"
    return f"{frame.folder} {index} {frame.side}"


def main() -> None:
    parser = OneLineParser(description=__doc__.partition("\n")[0])
    parser.add_argument("split", help="name of a folder in splits/, or the path of one")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write the plain lists there")
    args = parser.parse_args()
    folder = split_folder(args.split)
    paths = sorted(folder.glob("*_files*.txt"))
    if not paths:
        raise UserError(f"{folder}: holds no train_files.txt, val_files.txt or test_files.txt")
    if args.write is not None and args.write.resolve() == folder.resolve():
        raise UserError(f"{args.write}: is the split itself; write the plain lists elsewhere")
    print(f"{'list':<20} {'frames':>7} {'left':>7} {'right':>7} {'recordings':>11}")
    for path in paths:
        frames = read_split(path)
        left = sum(frame.side == "l" for frame in frames)
        recordings = len({frame.folder for frame in frames})
        counts = f"{len(frames):>7} {left:>7} {len(frames) - left:>7} {recordings:>11}"
        print(f"{path.stem:<20} {counts}")
        if args.write is not None:
            with atomic_write(args.write / path.name, "w") as file:
                file.writelines(f"{plain_line(frame)}\n" for frame in frames)
    if args.write is not None:
        print(f"written to {args.write}")


if __name__ == "__main__":
    run_script(main)
