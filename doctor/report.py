"""What an examination finds, in words and numbers."""

import dataclasses
from typing import Any, Literal, NamedTuple

from jaxtyping import UInt8
from numpy import ndarray

Severity = Literal["fault", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "notice")
NAMED = 3  # sequences that a line names
LISTED = 20  # frames that a finding lists


class Finding(NamedTuple):
    """Something to know about data before it is trained on.

    severity: a fault spoils training; a warning may; a notice is good to know.
    check:    the name of what was looked at.
    message:  what was found; fix: what to do about it, empty where there is nothing to do.
    frames:   where it was found, as in split files.
    """

    severity: Severity
    check: str
    message: str
    fix: str = ""
    frames: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """All of it in one line, but for the frames."""
        return f"{self.check}: {self.message}" + (f"; {self.fix}" if self.fix else "")


class Picture(NamedTuple):
    """An image with what it shows."""

    caption: str
    image: UInt8[ndarray, "H W *C"]


@dataclasses.dataclass
class SequenceReport:
    """What was measured of one sequence and side.

    motion: for each pair of neighbours looked at, number of the first frame, median shift and
            parallax in pixels of an image 640 wide, share of points found again.
    """

    name: str
    frames: int
    looked_at: int = 0
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)
    motion: list[tuple[int, float, float, float]] = dataclasses.field(default_factory=list)
    pictures: list[Picture] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Report:
    """The findings of an examination, the worst first."""

    findings: list[Finding]
    sequences: list[SequenceReport]
    seconds: float

    def of(self, *severities: Severity) -> list[Finding]:
        """The findings of these severities."""
        return [finding for finding in self.findings if finding.severity in severities]

    @property
    def faults(self) -> list[Finding]:
        return self.of("fault")

    @property
    def warnings(self) -> list[Finding]:
        return self.of("warning")

    def lines(self) -> list[str]:
        """One line for each fault and warning."""
        return [finding.line for finding in self.of("fault", "warning")]

    def as_json(self) -> dict[str, Any]:
        """Findings and numbers as plain values, without pictures."""
        return {
            "findings": [finding._asdict() for finding in self.findings],
            "sequences": [
                {"name": s.name, "frames": s.frames, "looked_at": s.looked_at} | s.numbers
                for s in self.sequences
            ],
            "seconds": round(self.seconds, 2),
        }


def summed_up(
    found: dict[str, list[Finding]], weights: dict[str, int], may_differ: frozenset[str]
) -> list[Finding]:
    """One finding for each check and severity, of the findings of each sequence.

    Args:
        found: by the name of the sequence.
        weights: frames of each sequence.
        may_differ: checks of what may well be otherwise in some sequences, so that faults in the
            lesser half of all frames are only a warning.
    """
    groups: dict[tuple[Severity, str], dict[str, Finding]] = {}
    for name, findings in found.items():
        for finding in findings:
            groups.setdefault((finding.severity, finding.check), {}).setdefault(name, finding)
    merged = []
    for (severity, check), by_name in groups.items():
        share = sum(weights[name] for name in by_name) / max(sum(weights.values()), 1)
        if severity == "fault" and check in may_differ and share < 0.5:
            severity = "warning"
        first = next(iter(by_name.values()))
        where = ", ".join(list(by_name)[:NAMED]) + (", ..." if len(by_name) > NAMED else "")
        if len(weights) > 1:
            where = f"{len(by_name)} of {len(weights)} sequences ({where})"
            first = first._replace(message=f"{first.message} [{where}]")
        frames = [frame for finding in by_name.values() for frame in finding.frames]
        merged.append(first._replace(severity=severity, frames=tuple(frames[:LISTED])))
    return sorted(merged, key=lambda finding: SEVERITIES.index(finding.severity))
