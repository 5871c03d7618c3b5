"""Every command in README and docs is one that its script accepts; links lead somewhere."""

import argparse
import functools
import re
import shlex

import pytest
from scripts import run

import evaluate_depth
from datasets import benchmark
from options import (
    ROOT,
    EvalDepthOptions,
    EvalPoseOptions,
    ExportOptions,
    PredictOptions,
    TrainOptions,
    parse,
)
from tools import (
    calibrate_scale,
    make_sample,
    make_split,
    prepare_kitti,
    prepare_nyuv2,
    prepare_video,
)
from tools.check_data import CheckOptions
from utils import OneLineParser

OPTIONS = {
    "train.py": TrainOptions,
    "evaluate_depth.py": EvalDepthOptions,
    "evaluate_pose.py": EvalPoseOptions,
    "export_gt_depth.py": ExportOptions,
    "predict.py": PredictOptions,
    "tools/check_data.py": CheckOptions,
}
BENCHMARKS = (
    "ablations",
    "objective",
    "learned_camera",
    "bench_loader",
    "bench_step",
    "bench_eval",
    "bench_ddp",
)
OTHERS = {
    "tools/check_against_stereo.py",
    "tools/export_onnx.py",
    "tools/mean_depth.py",
    "tools/synthesize_views.py",
    *(f"benchmarks/{name}.py" for name in BENCHMARKS),
}
WAYS = ("stereo_command", "ground_truth_command", "camera_height_command", "distance_command")
TOOLS = {
    "tools/calibrate_scale.py": (calibrate_scale, WAYS),
    "tools/prepare_kitti.py": (prepare_kitti, ("archives", "convert", "verify")),
    "tools/prepare_video.py": (prepare_video, ("prepare",)),
    "tools/make_split.py": (make_split, ("make_split",)),
    "tools/prepare_nyuv2.py": (prepare_nyuv2, ("labelled", "raw")),
    "tools/make_sample.py": (make_sample, ("make_street", "make_room")),
}
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
COMMANDS = [
    (page.name, line)
    for page in PAGES
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith(("python ", "torchrun "))
]


@pytest.mark.parametrize("page, line", COMMANDS, ids=[f"{p}: {line}" for p, line in COMMANDS])
def test_commands_are_accepted(monkeypatch, page, line):
    monkeypatch.chdir(ROOT)
    if line.startswith("torchrun "):
        line = "python train.py" + line.partition("train.py")[2]
    _, script, *argv = shlex.split(line.partition("|")[0].replace("...", "path"))
    if script == "-c" or script == "-m":
        return
    assert (ROOT / script).is_file()
    if script == "evaluate_depth.py":
        options = parse(EvalDepthOptions, argv)
        made = "demo" in f"{options.data_path} {options.eval_split}"
        if not (made or options.eval_split in ("video", "sample")):  # which come with the data
            bench = benchmark(options.eval_split, options.dataset, options.nyuv2_protocol)
            evaluate_depth.refuse_idle_flags(options, bench)
            evaluate_depth.chosen_protocol(options, bench)
    elif script in OPTIONS:
        parse(OPTIONS[script], argv)
    elif script == "tools/list_split.py":
        run(monkeypatch, "tools.list_split", *argv)
    elif script in TOOLS:
        tool, commands = TOOLS[script]
        called: list[dict] = []
        for name in commands:
            stub = functools.wraps(getattr(tool, name))(lambda **given: called.append(given))
            monkeypatch.setattr(tool, name, stub)
        monkeypatch.setattr(prepare_video, "read_mask", lambda path: None)
        run(monkeypatch, tool.__name__, *argv)
        assert len(called) == 1
    else:
        assert script in OTHERS
        monkeypatch.setattr(OneLineParser, "parse_args", parse_only)
        with pytest.raises(Parsed):
            run(monkeypatch, script.removesuffix(".py").replace("/", "."), *argv)


class Parsed(Exception):
    """A command line was accepted."""


def parse_only(parser):
    argparse.ArgumentParser.parse_args(parser)
    raise Parsed


def test_some_commands_are_shown():
    shown = {line.split()[1] for _, line in COMMANDS}
    assert {*OPTIONS, *TOOLS, "tools/list_split.py"} <= shown


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
