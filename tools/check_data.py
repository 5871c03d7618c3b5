"""Look for what spoils self-supervised training, before any: camera, motion, order, stereo, depth.

    python tools/check_data.py --dataset folder --data_path video --out report.html

Parts train, val and test of the split are examined as training would read them. Exit status: 0
without faults, 1 with some, 2 after a mistake on the command line.
"""

import dataclasses
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets import DATASETS, Frame, MonoDataset, read_split, split_folder  # noqa: E402
from doctor import Finding, Report, examine  # noqa: E402
from options import SampleOptions, WorkersOptions, flag, parse  # noqa: E402
from tools.check_report import ILLUSTRATED, write_report  # noqa: E402
from utils import UserError, atomic_write, demand_writable, run_script  # noqa: E402

PARTS = ("train", "val", "test")
FAULTY = 1  # exit status
ENDS = {"out": (".html", ".htm"), "json": (".json",)}


@dataclasses.dataclass(frozen=True)
class CheckOptions(WorkersOptions, SampleOptions):
    """Look for what spoils self-supervised training on a data set."""

    frames: int = flag(200, "frames of each sequence that are looked at, at most")
    out: Path | None = flag(None, "write a report with pictures to this HTML file")
    json: Path | None = flag(None, "also write findings and numbers to this file")

    def check(self) -> None:
        self._demand_positive("frames")
        for name in ("out", "json"):
            path, ends = getattr(self, name), ENDS[name]
            good = path is None or path.suffix.lower() in ends
            self._demand(good, f"--{name} {path}: give a name that ends in {ends[0]}")


def read_parts(options: CheckOptions) -> dict[str, list[Frame]]:
    """Frames of the parts of the split that exist.

    Raises:
        UserError: no such data or split, or a bad line in it.
    """
    kind = DATASETS[options.dataset]
    kind.demand_data(options.data_path)
    try:
        folder = split_folder(options.split, options.data_path)
    except UserError as error:
        raise UserError(str(error), kind.how_to_get) from None
    files = {part: folder / f"{part}_files.txt" for part in PARTS}
    parts = {part: read_split(path) for part, path in files.items() if path.is_file()}
    if not parts:
        raise UserError(
            f"{folder}: holds none of {', '.join(path.name for path in files.values())}"
        )
    return parts


def dataset_of(options: CheckOptions, part: str, frames: list[Frame]) -> MonoDataset:
    """A part as training has it; a test has single images.

    Raises:
        UserError: data that is missing or cannot be read.
    """
    own = {"neighbours": options.nyuv2_neighbours} if options.dataset == "nyuv2" else {}
    alone = part == "test"
    return DATASETS[options.dataset](
        options.data_path,
        frames,
        options.height,
        options.width,
        (0,) if alone else options.frame_ids,
        use_stereo=options.use_stereo and not alone,
        png=options.png,
        intrinsics=options.intrinsics,
        **own,
    )


def examine_part(options: CheckOptions, part: str, frames: list[Frame]) -> Report:
    """What is found in a part; data that training refuses is a fault of it."""
    try:
        dataset = dataset_of(options, part, frames)
    except UserError as error:
        return Report([Finding("fault", "files", str(error))], [], 0.0)
    return examine(
        dataset,
        frames=options.frames,
        num_workers=options.num_workers,
        illustrated=0 if options.out is None else ILLUSTRATED,
    )


def counted(reports: dict[str, Report]) -> str:
    """As `2 faults, 1 warning`."""
    faults = sum(len(report.faults) for report in reports.values())
    warnings = sum(len(report.warnings) for report in reports.values())
    return ", ".join(
        f"{n} {what}" + "s" * (n != 1) for n, what in ((faults, "fault"), (warnings, "warning"))
    )


def main() -> None:
    options = parse(CheckOptions)
    for path in filter(None, (options.out, options.json)):
        demand_writable(path)
    reports = {}
    for part, frames in read_parts(options).items():
        print(f"{part}: {len(frames)} frames of split {options.split}", flush=True)
        report = reports[part] = examine_part(options, part, frames)
        for finding in report.findings:
            print(f"  {finding.severity.upper()} {finding.line}", flush=True)
    verdict = counted(reports)
    if options.json is not None:
        content = {"verdict": verdict, "parts": {p: r.as_json() for p, r in reports.items()}}
        with atomic_write(options.json, "w") as file:
            json.dump(content, file, indent=2)
    if options.out is not None:
        about = f"{options.dataset}, {options.data_path}, split {options.split}"
        write_report(options.out, about, verdict, reports)
        print(f"report with pictures in {options.out}")
    print(verdict)
    if any(report.faults for report in reports.values()):
        sys.exit(FAULTY)


if __name__ == "__main__":
    run_script(main)
