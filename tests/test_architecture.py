"""Imports point down only, and the packages hand names on and do nothing else."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "layers": 0, "metrics": 0, "trajectory": 0, "utils": 0,
    "motion": 0, "pictures": 0, "media": 1, "camera": 1, "onnx_network": 3, "pointcloud": 1,
    "networks": 1, "losses": 1, "datasets": 1, "distributed": 1,
    "checkpoint": 2, "logger": 2, "options": 2, "released": 2, "speed": 2,
    "sampling": 2, "metric_scale": 2, "diagnosis": 2, "doctor": 2, "states": 3, "building": 3,
    "trainer": 4, "inference": 4, "predictor": 5,
    "train": 6, "evaluate_depth": 6, "evaluate_pose": 6, "export_gt_depth": 6, "predict": 6,
    "hubconf": 6, "tools": 6, "benchmarks": 7,
}  # fmt: skip
SEES_OPTIONS = 3  # from this floor up


def sources():
    files = [p for p in ROOT.glob("*.py") if p.stem != "setup"]
    for package in ("networks", "datasets", "doctor", "tools", "benchmarks"):
        files += (ROOT / package).rglob("*.py")
    return sorted(files)


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """Our own rooms that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
            assert all(alias.name != "*" for alias in node.names), path
        yield from (name.split(".")[0] for name in names if name.split(".")[0] in FLOORS)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    own = FLOORS[room(path)]
    for name in set(imported(path)) - {room(path)}:
        assert FLOORS[name] < own, f"{path.name} imports {name}, which is not below it"
        if name == "options":
            assert own >= SEES_OPTIONS, f"{path.name} must take plain values, not options"


@pytest.mark.parametrize("package", ["networks", "datasets", "doctor"])
def test_packages_only_hand_names_on(package):
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert all(isinstance(node, ast.ImportFrom | ast.Assign) for node in body)
