"""Every recipe in experiments/ parses, trains, and says what was published."""

import re
import shutil
from pathlib import Path

import pytest
from scripts import TINY, run

import released
from options import ROOT, TrainOptions, parse

RECIPES = {path.stem: path for path in sorted((ROOT / "experiments").glob("*.args"))}
PUBLISHED = sorted(released.RELEASED)


@pytest.fixture(scope="module")
def odometry(sample, tmp_path_factory):
    """Three stereo frames as odometry sequence 00."""
    root = tmp_path_factory.mktemp("odometry")
    for camera in (2, 3):
        images = root / "sequences" / "00" / f"image_{camera}"
        images.mkdir(parents=True)
        for i in range(3):
            drive = sample / "2011_09_26/2011_09_26_drive_0001_sync" / f"image_{camera:02d}/data"
            shutil.copy(drive / f"{i:010d}.jpg", images / f"{i:06d}.jpg")
    return root


def split(folder: Path, line: str) -> Path:
    folder.mkdir()
    for part in ("train", "val"):
        (folder / f"{part}_files.txt").write_text(f"{line}\n")
    return folder


def train(monkeypatch, name, data, lines, out, *flags):
    """One step of a recipe on tiny images."""
    run(monkeypatch, "train", f"@{RECIPES[name]}", *TINY, "--batch_size", 1, "--num_epochs", 1,
        "--data_path", data, "--split", lines, "--log_dir", out, *flags)  # fmt: skip
    return out / name / "models" / "weights_0"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_parse(name):
    loaded = ["--load_weights_folder", "w"] if "1024" in name else []
    options = parse(TrainOptions, [f"@{RECIPES[name]}", *loaded])
    assert options.model_name == name
    size = re.search(r"(\d+)x(\d+)", name)
    if size:
        assert (options.width, options.height) == tuple(map(int, size.groups()))
        assert options.use_stereo == ("stereo" in name)
        assert (len(options.frame_ids) == 3) == ("mono" in name)
        assert options.num_layers == (50 if "resnet50" in name else 18)
        assert (options.weights_init == "scratch") == ("no_pt" in name)
        split_name = "odom" if "odom" in name else "eigen_full" if name[0] == "s" else "eigen_zhou"
        assert options.split == split_name


def test_every_released_model_has_a_recipe_with_its_figures():
    assert len(PUBLISHED) == 13 and set(PUBLISHED) <= set(RECIPES)
    for name, model in released.RELEASED.items():
        text = RECIPES[name].read_text()
        assert "Published" in text and ("Evaluate" in text or "evaluate_pose.py" in text)
        if model.abs_rel is not None:
            assert f"abs_rel {model.abs_rel:.3f}, a1 {model.a1:.3f}" in text


@pytest.mark.parametrize("name", [n for n in PUBLISHED if "1024" not in n])
def test_recipes_train(monkeypatch, capsys, sample, odometry, tmp_path, name):
    if "odom" in name:
        data, line = odometry, "0 1 l"
    else:
        data, line = sample, "2011_09_26/2011_09_26_drive_0001_sync 3 l"
    weights = train(monkeypatch, name, data, split(tmp_path / "split", line), tmp_path)
    assert "saved weights_0" in capsys.readouterr().out
    high = name.replace("640x192", "1024x320")
    if high in RECIPES:
        loaded = ("--load_weights_folder", weights)
        train(monkeypatch, high, data, tmp_path / "split", tmp_path, *loaded)
        printed = capsys.readouterr().out
        assert f"from {weights}" in printed and "saved weights_0" in printed
