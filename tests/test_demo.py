"""The demos' recipes learn on worlds made by chance: slow, some minutes each on two cores."""

import json
from pathlib import Path

import pytest
from scripts import run

from tools.make_sample import make_room, make_street
from tools.scenery import Setting

RECIPES = Path(__file__).parent.parent / "experiments"
STREETS, SETTING = (16,) * 10 + (30, 135), Setting(rotation=0.4)  # as in the Makefile
ROOMS = {"scenes": 10, "frames": 12}


def metrics(path):
    return json.loads(path.read_text())["metrics"]


@pytest.mark.slow
def test_the_street_is_learnt_in_metres(monkeypatch, tmp_path):
    """The promises of make demo, on held-out drives."""
    data, gt, weights = (
        tmp_path / "street",
        tmp_path / "gt.npz",
        tmp_path / "demo/models/weights_13",
    )
    make_street(data, STREETS, setting=SETTING)
    run(monkeypatch, "train", f"@{RECIPES / 'demo.args'}", "--data_path", data, "--split", "sample",
        "--log_dir", tmp_path)  # fmt: skip
    base = ("--data_path", data, "--split", "sample")
    run(monkeypatch, "export_gt_depth", *base, "--gt_file", gt)
    run(monkeypatch, "tools.mean_depth", *base, "--out", tmp_path / "mean.npy")
    for name, flags in (
        ("scaled", ("--eval_mono", "--min_depth", 0.5, "--load_weights_folder", weights)),
        ("metric", ("--eval_stereo", "--min_depth", 0.5, "--load_weights_folder", weights)),
        ("mean", ("--eval_mono", "--ext_disp_to_eval", tmp_path / "mean.npy")),
    ):
        run(monkeypatch, "evaluate_depth", "--data_path", data, "--eval_split", "sample",
            "--gt_file", gt, "--json", tmp_path / f"{name}.json", *flags)  # fmt: skip
    scaled, metric, mean = (metrics(tmp_path / f"{n}.json") for n in ("scaled", "metric", "mean"))
    assert scaled["abs_rel"] <= 0.25 and scaled["a1"] >= 0.68
    assert scaled["abs_rel"] < 0.85 * mean["abs_rel"] and scaled["a1"] > mean["a1"] + 0.05
    assert metric["abs_rel"] <= 0.25
    ratio = json.loads((tmp_path / "scaled.json").read_text())["ratio"]["median"]
    assert ratio == pytest.approx(5.4, rel=0.1)  # so few steps leave it 5 % off
    out = tmp_path / "odometry.json"
    run(monkeypatch, "evaluate_pose", "--data_path", data, "--eval_split", "odom_12",
        "--load_weights_folder", weights, "--pose_scale", 5.4, "--json", out)  # fmt: skip
    row = json.loads(out.read_text())["trajectory"]
    assert row["7dof"]["t_rel_percent"] < 25 and row["none"]["ate_rmse_m"] < 15


@pytest.mark.slow
def test_rooms_are_learnt_from_one_camera(monkeypatch, tmp_path):
    """The promise of make demo-nyuv2: better than the mean depth in a room never seen."""
    made, data, gt = tmp_path / "made", tmp_path / "nyuv2", tmp_path / "gt.npz"
    split, weights = made / "splits/sample", tmp_path / "demo_nyuv2/models/weights_29"
    make_room(made, **ROOMS)
    run(monkeypatch, "tools.prepare_nyuv2", "labelled", made / "nyu_depth_v2_labeled.mat", data)
    run(monkeypatch, "train", f"@{RECIPES / 'demo_nyuv2.args'}", "--data_path", data, "--split",
        split, "--log_dir", tmp_path)  # fmt: skip
    base = ("--dataset", "nyuv2", "--data_path", data)
    run(monkeypatch, "export_gt_depth", *base, "--split", split, "--gt_file", gt)
    run(monkeypatch, "tools.mean_depth", *base, "--split", split, "--out", tmp_path / "mean.npy")
    for name, flags in (
        ("trained", ("--load_weights_folder", weights)),
        ("mean", ("--ext_disp_to_eval", tmp_path / "mean.npy")),
    ):
        run(monkeypatch, "evaluate_depth", *base, "--eval_split", split, "--gt_file", gt, "--json",
            tmp_path / f"{name}.json", *flags)  # fmt: skip
    trained, mean = (metrics(tmp_path / f"{name}.json") for name in ("trained", "mean"))
    assert trained["abs_rel"] < mean["abs_rel"] and trained["a1"] > mean["a1"]
