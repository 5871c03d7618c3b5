"""The way of docs/own_data.md from clips to points, by its own commands: slow."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/own_data.md"
ROW = re.compile(r"abs_rel \|.*\n *(0\.\d{3}) \|")  # of the printed table


def commands():
    """The blocks of commands before the page's first heading."""
    beginning = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    return re.findall(r"```\n(.*?)```", beginning, re.DOTALL)


def snippets():
    """Lines of Python of docs/files.md."""
    text = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_clips_teach_what_the_same_frames_teach_in_kittis_files(tmp_path):
    project = tmp_path / "project"
    kept_out = shutil.ignore_patterns(".git", ".venv", "demo", "work", "models", "*_cache")
    shutil.copytree(ROOT, project, ignore=kept_out)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    way, scored, beside = commands()
    printed = [
        subprocess.run(
            ["bash", "-ec", block],
            cwd=project,
            env=os.environ | {"PATH": path},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        for block in (way, scored, beside)
    ]
    assert "0 faults" in printed[0]
    for name in ("report.html", "drive_0011_disp.mp4", "000008.ply", "000008_side_by_side.jpeg"):
        assert (project / name).stat().st_size > 1000
    own, kitti = (float(ROW.search(text)[1]) for text in printed[1:])
    assert own < 0.30 and abs(own - kitti) <= 0.03
    names = {
        "WEIGHTS": str(project / "runs/own_video/models/weights_39"),
        "STATE": str(max((project / "runs/own_video/states").glob("*.pth"))),
        "GT_FILE": str(project / "street/splits/sample/gt_depths.npz"),
    }
    for snippet in snippets():  # those about files that are there
        if any(name in snippet for name in names):
            exec(snippet, dict(names))
