"""The examination of a data set: what is looked at, in which order, within which time."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from datasets import Frame, MonoDataset
from utils import in_parallel

from . import cameras, depth_checks, motion_checks, stereo_checks
from .fitting import check_fit
from .frames import Place, Reader, runs, sequences, spread, stride_of
from .order import CHECK, check_order
from .pictures import motion_pictures
from .report import SEVERITIES, Finding, Picture, Report, SequenceReport, summed_up
from .steps import Run, measure

RUN = 12  # frames in a row: enough to see their order and rhythm
QUICK_PAIRS, PAIRS = 4, 48  # with depth, of a sequence
QUICK_VIEWS, VIEWS = 2, 6  # frames whose stereo partner or depth is looked at
MOTION_SHARE = 0.6  # of the time given, which motion may take
MAY_DIFFER = frozenset({"frame rate", "standing camera", "turning camera", "exposure"})
Checked = tuple[list[Finding], list[Picture]]


class Deadline:
    """Time that was given, None for all that it takes."""

    def __init__(self, seconds: float | None):
        self.start, self.seconds = time.perf_counter(), seconds

    @property
    def spent(self) -> float:
        return time.perf_counter() - self.start

    def passed(self, share: float = 1.0) -> bool:
        return self.seconds is not None and self.spent > share * self.seconds


class Watched(NamedTuple):
    """A sequence that is examined: its place, all its frames' numbers, and what was found."""

    place: Place
    numbers: list[int]
    plan: list[list[Frame]]
    measured: list[Run]
    findings: list[Finding]
    report: SequenceReport

    @property
    def seen(self) -> list[Run]:
        """Runs in the order of their frames."""
        return sorted(self.measured, key=lambda run: run.frames[0].index)


def examine(
    dataset: MonoDataset,
    seconds: float | None = None,
    frames: int = 200,
    num_workers: int = 0,
    illustrated: int = 0,
) -> Report:
    """Look for what spoils self-supervised training on a data set.

    Args:
        seconds: look at as much as fits into so long, from all over the data; None looks at
            up to `frames` frames of each sequence, with threads and a progress bar.
        num_workers: threads, -1 for one per core.
        illustrated: so many sequences get pictures of what was looked at.

    It does not raise for odd data, which become findings, and uses no random numbers.
    """
    deadline = Deadline(seconds)
    stride = stride_of(dataset.frame_ids)
    reader = Reader(dataset)
    watched = [
        Watched(place, numbers, [], [], [], SequenceReport(" ".join(place), len(numbers)))
        for place, numbers in sequences(dataset).items()
    ]
    for one in watched:
        plan = guarded(
            one.findings,
            lambda one=one: runs(reader.dataset, one.place, one.numbers, stride, frames, RUN),
        )
        one.plan.extend((plan or [])[i] for i in spread(len(plan or [])))

    def look(job: tuple[Watched, list[Frame]]) -> None:
        one, run = job
        measured = guarded(one.findings, lambda: measure(reader, run))
        if measured is not None and measured.frames:
            one.measured.append(measured)

    jobs = list(interleaved(watched))
    if seconds is None:
        in_parallel(look, jobs, num_workers, "run")
    else:
        for job in jobs:
            if deadline.passed(MOTION_SHARE):
                break
            look(job)

    def judge(one: Watched) -> None:
        if one.measured and not deadline.passed():
            pictures = any(one is some for some in watched[:illustrated])
            examine_sequence(reader, one, stride, deadline, pictures)

    order = [watched[i] for i in spread(len(watched))]
    if seconds is None and len(order) > 1:
        in_parallel(judge, order, num_workers, "sequence")
    else:
        for one in order:
            judge(one)
    found = {one.report.name: one.findings for one in watched}
    weights = {one.report.name: one.report.frames for one in watched}
    findings = cameras.check_files(reader) + summed_up(found, weights, MAY_DIFFER)
    if dataset.left_out:
        findings.append(Finding("notice", "neighbours", dataset.left_out))
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(findings, [one.report for one in watched], deadline.spent)


def interleaved(watched: list[Watched]) -> Iterator[tuple[Watched, list[Frame]]]:
    """The runs of all sequences: the first of each, the second of each, and so on."""
    order = [watched[i] for i in spread(len(watched))]
    for turn in range(max((len(one.plan) for one in order), default=0)):
        for one in order:
            if turn < len(one.plan):
                yield one, one.plan[turn]


def guarded(findings: list[Finding], function: Callable[[], object]) -> object:
    """What a check returns; where it fails on odd data, None and a notice of it."""
    try:
        return function()
    except Exception as error:  # whatever it is, training has the last word on its data
        text = " ".join(str(error).split()) or type(error).__name__
        findings.append(Finding("notice", "not checked", text))
        return None


def examine_sequence(
    reader: Reader,
    one: Watched,
    stride: int,
    deadline: Deadline,
    pictures: bool,
) -> None:
    """All checks of a sequence whose runs are measured."""
    seen, quick = one.seen, deadline.seconds is not None
    use_stereo = reader.dataset.use_stereo
    looked_at = list(dict.fromkeys(frame for run in seen for frame in run.frames))
    views = [looked_at[i] for i in spread(len(looked_at))][: QUICK_VIEWS if quick else VIEWS]

    def add(check: Callable[[], list[Finding]]) -> None:
        if not deadline.passed():
            one.findings.extend(guarded(one.findings, check) or [])

    def show(check: Callable[[], Checked]) -> None:
        if not deadline.passed():
            found, images = guarded(one.findings, check) or ([], [])
            one.findings.extend(found)
            one.report.pictures.extend(images if pictures else [])

    if pictures:
        show(lambda: ([], motion_pictures(reader, seen)))
    add(lambda: cameras.check_folders(reader.dataset, one.place[0]))
    add(lambda: cameras.check_sizes(reader, looked_at))
    add(lambda: cameras.check_camera(reader, looked_at[0]))
    add(lambda: cameras.check_borders(reader, views))
    in_order = True
    if stride:
        add(lambda: motion_checks.check_repeats(seen, stride))
        add(lambda: motion_checks.check_standing(seen, stride))
        add(lambda: check_order(reader, seen, stride))
        in_order = all(finding.check != CHECK for finding in one.findings)
        if in_order:
            add(lambda: motion_checks.check_rate(seen, stride))
        add(lambda: motion_checks.check_exposure(seen))
        add(lambda: motion_checks.check_turning(seen))
    describe(one, seen, len(looked_at))
    has_depth = any(map(reader.has_depth, views))
    has_partner = any(reader.partner(frame) is not None for frame in views)
    if has_partner and (use_stereo or not quick):
        show(lambda: stereo_checks.check_stereo(reader, views))
    sound = not any(f.severity == "fault" and f.check == "stereo" for f in one.findings)
    if has_depth:
        add(lambda: depth_checks.check_depth(reader, views))
        if has_partner and sound:
            add(lambda: depth_checks.check_scale(reader, views))
        else:
            what = "without a stereo pair, its unit can only be checked for plausibility"
            one.findings.append(Finding("notice", "depth", what))
    if not (has_depth or (has_partner and sound and (use_stereo or not quick))):
        what = "without depth or a good stereo pair, K was only checked for plausibility"
        one.findings.append(Finding("notice", "K against geometry", what))
    elif stride and in_order and not deadline.passed():
        geometry = guarded(
            one.findings,
            lambda: depth_checks.Geometry(reader, seen, QUICK_PAIRS if quick else PAIRS),
        )
        if geometry is not None:
            show(lambda: depth_checks.check_warp(geometry))
            if not quick:
                add(lambda: check_fit(geometry))


def describe(one: Watched, seen: list[Run], looked_at: int) -> None:
    """Enter what was measured into the sequence's report."""
    steps = motion_checks.steps_of(seen)
    one.report.looked_at = looked_at
    one.report.motion.extend(
        (step.first.index, step.flow_px, step.parallax_px, step.found) for step in steps
    )
    if steps:
        measured = {
            "flow_px": [step.flow_px for step in steps],
            "parallax_px": [step.parallax_px for step in steps],
            "found": [step.found for step in steps],
        }
        for name, values in measured.items():
            one.report.numbers[name] = round(statistics.median(values), 3)
