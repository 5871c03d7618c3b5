"""A report of tools/check_data.py as one HTML file, with its pictures inside."""

import base64
import html
import io
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from doctor.motion_checks import FEWEST_FOUND, TOO_FAST_PX, TOO_SLOW_PX  # noqa: E402
from doctor.report import Picture, Report, SequenceReport  # noqa: E402
from utils import atomic_write  # noqa: E402

ILLUSTRATED = 12  # sequences with pictures: more make files that browsers are slow with
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
h3 { margin: 1.8em 0 .3em; } .about { color: #666; }
.verdict { padding: .8em 1em; border-radius: 6px; font-size: 1.2em; font-weight: 600; }
.bad { background: #fbe3e1; color: #8c1d15; } .soso { background: #fdf1d6; color: #7a5200; }
.good { background: #e2f3e5; color: #1c6328; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top;
       padding: .4em .7em; border-bottom: 1px solid #ddd; }
.fault { color: #b3261e; font-weight: 600; } .warning { color: #a06a00; font-weight: 600; }
.notice { color: #666; } .frames { color: #888; font-size: .85em; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr));
       gap: .8em; } figure { margin: 0; } img { width: 100%; display: block; border-radius: 3px; }
figcaption { font-size: .85em; color: #555; }
"""


def write_report(path: Path, about: str, verdict: str, reports: dict[str, Report]) -> None:
    """Write the page: verdict, findings of each part, and pictures of its sequences."""
    faults = any(report.faults for report in reports.values())
    warnings = any(report.warnings for report in reports.values())
    mood = "bad" if faults else "soso" if warnings else "good"
    advice = "correct these before training" if faults else "ready for training"
    body = [
        "<h1>Data for self-supervised training</h1>",
        f'<p class="about">{html.escape(about)}</p>',
        f'<p class="verdict {mood}">{html.escape(verdict)}: {advice}</p>',
    ]
    for part, report in reports.items():
        body.append(f"<h2>{part}</h2>")
        body.append(findings_table(report))
        for sequence in report.sequences[:ILLUSTRATED]:
            body += sequence_part(sequence)
        left = len(report.sequences) - ILLUSTRATED
        if left > 0:
            body.append(f'<p class="about">{left} more sequences without pictures</p>')
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data check</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )
    with atomic_write(path, "w") as file:
        file.write(page)


def findings_table(report: Report) -> str:
    """What was found, and what to do."""
    if not report.findings:
        return "<p>Nothing to say against it.</p>"
    rows = ["<tr><th></th><th>check</th><th>finding</th><th>what to do</th></tr>"]
    for finding in report.findings:
        frames = ""
        if finding.frames:
            shown = ", ".join(finding.frames[:6]) + (", ..." if len(finding.frames) > 6 else "")
            frames = f'<div class="frames">{html.escape(shown)}</div>'
        rows.append(
            f'<tr><td class="{finding.severity}">{finding.severity}</td>'
            f"<td>{html.escape(finding.check)}</td>"
            f"<td>{html.escape(finding.message)}{frames}</td>"
            f"<td>{html.escape(finding.fix)}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def sequence_part(sequence: SequenceReport) -> list[str]:
    """Numbers, motion and pictures of a sequence."""
    parts = [
        f"<h3>{html.escape(sequence.name)}</h3>",
        f'<p class="about">{sequence.looked_at} of {sequence.frames} frames looked at',
    ]
    if sequence.numbers:
        n = sequence.numbers
        parts.append(
            f": points move by {n['flow_px']:.1f} px from frame to frame (of images 640 wide), "
            f"{n['parallax_px']:.1f} px of it by parallax; {n['found']:.0%} are found again"
        )
    parts.append("</p>")
    if sequence.motion:
        parts.append(f'<img alt="motion" src="{source_of(motion_plot(sequence))}">')
    figures = "".join(map(figure, sequence.pictures))
    return [*parts, f'<div class="pictures">{figures}</div>']


def figure(picture: Picture) -> str:
    caption = html.escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="{source_of(picture.image)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def source_of(image: UInt8[ndarray, "H W *C"]) -> str:
    """An image as an address that holds it."""
    memory = io.BytesIO()
    Image.fromarray(image).save(memory, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(memory.getvalue()).decode()}"


def motion_plot(sequence: SequenceReport) -> UInt8[ndarray, "H W 3"]:
    """Shift, parallax and share of points found again over the frames."""
    number, flow, parallax, found = np.array(sequence.motion).T
    figure, axes = plt.subplots(2, 1, figsize=(11, 3.6), sharex=True, height_ratios=(2, 1))
    axes[0].plot(number, flow, ".-", label="shift")
    axes[0].plot(number, parallax, ".-", label="parallax", alpha=0.7)
    for limit in (TOO_SLOW_PX, TOO_FAST_PX):
        if limit < 1.5 * max(flow.max(), parallax.max(), TOO_SLOW_PX):
            axes[0].axhline(limit, color="#b3261e", lw=1, ls=":")
    axes[0].set_ylabel("px of 640")
    axes[0].set_ylim(0)
    axes[0].legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, frameon=False)
    axes[1].plot(number, found, ".-", color="#4a8a4f")
    axes[1].axhline(FEWEST_FOUND, color="#b3261e", lw=1, ls=":")
    axes[1].set_ylim(0, 1.05)
    axes[1].set_ylabel("found again")
    axes[1].set_xlabel("frame")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return drawn
