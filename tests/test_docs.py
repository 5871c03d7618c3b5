"""Every command in README and docs is one that its script accepts; links lead somewhere."""

import re
import shlex

import pytest

from options import ROOT, EvalDepthOptions, EvalPoseOptions, ExportOptions, TrainOptions, parse

OPTIONS = {
    "train.py": TrainOptions,
    "evaluate_depth.py": EvalDepthOptions,
    "evaluate_pose.py": EvalPoseOptions,
    "export_gt_depth.py": ExportOptions,
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, line)
    for page in PAGES
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith("python ")
]


@pytest.mark.parametrize("page, line", COMMANDS, ids=[f"{p}: {line}" for p, line in COMMANDS])
def test_commands_are_accepted(monkeypatch, page, line):
    monkeypatch.chdir(ROOT)
    _, script, *argv = shlex.split(line.partition("|")[0].replace("...", "path"))
    if script == "-c" or script == "-m":
        return
    assert (ROOT / script).is_file()
    if script in OPTIONS:
        parse(OPTIONS[script], argv)


def test_some_commands_are_shown():
    shown = {line.split()[1] for _, line in COMMANDS}
    assert set(OPTIONS) | {"tools/prepare_kitti.py", "tools/list_split.py"} <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target
