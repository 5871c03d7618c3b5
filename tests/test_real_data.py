"""Real KITTI frames, where they are at hand: recorded figures, and the scripts on them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import golden
from golden import recipe
from scipy.spatial import cKDTree
from scripts import TINY, fails, run

import checkpoint
from datasets import Frame, KITTIRaw, read_image
from datasets.kitti import read_poses
from datasets.velodyne import read_scan, velodyne_to_image
from pointcloud import points_of_depth, write_ply

TAG = "gold-a"
DATE = "2011_09_26"
FIGURES = golden("evaluation")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The recorded figures' weights, as files."""
    folder = tmp_path_factory.mktemp("gold")
    keys = golden("keys")
    names = {
        "encoder": "encoder18",
        "depth": "depth18",
        "pose_encoder": "pose_encoder",
        "pose": "pose",
    }
    for file, name in names.items():
        arrays = recipe.state_dict(keys[name], f"{TAG}/{name}")
        state = {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}
        if file == "encoder":
            state |= {"height": 192, "width": 640, "use_stereo": False}
        checkpoint.save(folder / f"{file}.pth", state)
    return folder


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    lines = [f"{DATE}/{FIGURES['drive']} {i} l\n" for i in FIGURES["frames"]]
    (folder / "test_files.txt").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("axis", ["velodyne_x", "camera_z"])
@pytest.mark.parametrize("frame", FIGURES["frames"])
def test_lidar_maps_are_the_recorded_ones(real_data, frame, axis):
    data = KITTIRaw(
        real_data / "kitti_raw", [Frame(f"{DATE}/{FIGURES['drive']}", frame, "l")], 0, 0, ()
    )
    data.depth_axis = axis
    depth = data.ground_truth(0)
    figures = FIGURES["velodyne"][str(frame)][axis]
    assert list(depth.shape) == figures["shape"]
    assert np.count_nonzero(depth) == figures["count"]
    assert depth.sum(dtype=np.float64) == pytest.approx(figures["sum"], rel=1e-6)
    for row, column, metres in figures["at"]:
        assert depth[row, column] == pytest.approx(metres, abs=1e-4)


@pytest.mark.parametrize(
    "name, flags",
    [
        ("mono", ["--eval_mono"]),
        ("mono_pp", ["--eval_mono", "--post_process"]),
        ("stereo", ["--eval_stereo"]),
        ("no_scaling", ["--eval_mono", "--disable_median_scaling"]),
    ],
)
def test_metrics_are_the_recorded_ones(
    monkeypatch, real_data, weights, split, tmp_path, name, flags
):
    data = real_data / "kitti_raw"
    if not (split / "gt_depths.npz").exists():
        run(monkeypatch, "export_gt_depth", "--data_path", data, "--split", split)
    out = tmp_path / "result.json"
    run(monkeypatch, "evaluate_depth", *flags, "--data_path", data, "--eval_split", split,
        "--load_weights_folder", weights, "--json", out, "--num_workers", 0, "--no_cuda",
        "--save_pred_disps")  # fmt: skip
    result, figures = json.loads(out.read_text()), FIGURES["eval"][name]
    np.testing.assert_allclose(list(result["metrics"].values()), figures["mean"], rtol=1e-4)
    for image, expected in zip(result["per_image"], figures["per_image"], strict=True):
        got = [image[key] for key in result["metrics"]]
        np.testing.assert_allclose(got, expected, rtol=1e-4)
    if figures["ratio"]:
        ratio, spread = figures["ratio"]
        assert result["ratio"]["median"] == pytest.approx(ratio, abs=6e-4)
        assert result["ratio"]["spread"] == pytest.approx(spread, abs=6e-4)
    disps = np.load(weights / f"disps_{split.name}_split.npy").astype(np.float64)
    for disp, summary in zip(disps, figures.get("disp", []), strict=False):
        values = [disp.mean(), disp.std(ddof=1), *(disp.flat[int(i)] for i in summary["at"])]
        expected = [summary["mean"], summary["std"], *summary["at"].values()]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4)


def test_odometry_is_the_recorded_one(monkeypatch, real_data, weights, tmp_path):
    out = tmp_path / "ate.json"
    run(monkeypatch, "evaluate_pose", "--data_path", real_data / "kitti_odometry", "--eval_split",
        "odom_6", "--load_weights_folder", weights, "--json", out, "--num_workers", 0,
        "--no_cuda", "--eval_out_dir", tmp_path)  # fmt: skip
    whole = json.loads(out.read_text())
    result, figures = whole["ate"], golden("odometry")
    for name, prefix, windows in (
        ("strict", "strict_", "strict_windows"),
        ("with tail windows", "ate_", "windows"),
    ):
        assert result[name]["mean"] == pytest.approx(figures[f"{prefix}mean"], abs=1e-4)
        assert result[name]["std"] == pytest.approx(figures[f"{prefix}std"], abs=1e-4)
        assert result[name]["windows"] == figures[windows]
    assert result["strict, geometric"]["mean"] == pytest.approx(1.0231, abs=1e-4)
    pred = read_poses(tmp_path / "odom_06_kitti.txt")
    np.testing.assert_allclose(np.linalg.inv(pred[1]), figures["pose0"], atol=1e-4)
    assert len(pred) == whole["frames"] == figures["frames"]


@pytest.mark.parametrize(
    "flags",
    [[], ["--frame_ids", "0", "--use_stereo"], ["--use_stereo", "--intrinsics", "calib"]],
    ids=["mono", "stereo", "mono+stereo"],
)
def test_a_real_drive_trains_and_is_scored(monkeypatch, capsys, real_data, tmp_path, flags):
    drive = f"{DATE}/{DATE}_drive_0002_sync"
    split = tmp_path / "split"
    split.mkdir()
    for part, line in (("train", "0-9 lr"), ("val", "3-6 l")):
        (split / f"{part}_files.txt").write_text(f"{drive} {line}\n")
    (split / "test_files.txt").write_text(
        "".join(f"{drive} {i} l\n" for i in (0, 3, 6, 9))
        + "".join(f"{DATE}/{DATE}_drive_0001_sync {i} l\n" for i in (2, 5, 25, 85))
    )
    data = ("--data_path", real_data / "kitti_raw")
    run(monkeypatch, "train", *TINY, *data, *flags, "--split", split, "--log_dir", tmp_path,
        "--model_name", "run", "--num_epochs", 1)  # fmt: skip
    printed = capsys.readouterr().out
    assert ("4 of 20 frames lack a neighbour" in printed) == (flags[:1] != ["--frame_ids"])
    assert "val abs_rel" in printed and "saved weights_0" in printed
    run(monkeypatch, "export_gt_depth", *data, "--split", split)
    mode = "--eval_stereo" if "--use_stereo" in flags else "--eval_mono"
    run(monkeypatch, "evaluate_depth", *data, mode, "--eval_split", split, "--num_workers", 0,
        "--load_weights_folder", tmp_path / "run/models/weights_0", "--no_cuda")  # fmt: skip
    assert "images: 8 of 8" in capsys.readouterr().out


@pytest.mark.slow
def test_training_from_scratch_finds_motion_and_depth(monkeypatch, capsys, real_data, tmp_path):
    """The README's check on real frames, with its limits; about six minutes on two cores."""
    data = ("--data_path", real_data / "kitti_odometry")
    weights = ("--load_weights_folder", tmp_path / "real_check/models/weights_47")
    recipe_file = Path(__file__).parent.parent / "experiments/real_check.args"
    run(monkeypatch, "train", f"@{recipe_file}", *data, "--log_dir", tmp_path)
    out = tmp_path / "ate.json"
    run(monkeypatch, "evaluate_pose", *data, *weights, "--eval_split", "odom_6", "--json", out)
    result = json.loads(out.read_text())
    assert result["ate"]["strict"]["mean"] <= 0.03
    assert result["trajectory"]["scale"]["ate_rmse_m"] <= 3  # of 60 m driven, and not backwards
    capsys.readouterr()
    run(monkeypatch, "tools.check_against_stereo", *data, *weights)
    words = capsys.readouterr().out.replace(",", "").split()
    assert float(words[words.index("abs_rel") + 1]) <= 0.22


def test_improved_ground_truth_is_exported_and_scored(
    monkeypatch, capsys, real_data, weights, tmp_path
):
    """Five frames from both cameras, with images and depth images as their archives hold them."""
    for path in (real_data / "kitti_raw" / DATE, real_data / "kitti_depth_annotated" / "train"):
        (tmp_path / path.name).symlink_to(path)
    split = tmp_path / "split"
    split.mkdir()
    lines = [f"{DATE}/{FIGURES['drive']} {i} lr\n" for i in (5, 25, 45, 65, 85)]
    (split / "test_files.txt").write_text("".join(lines))
    flags = ("--data_path", tmp_path, "--dataset", "kitti_depth")
    run(monkeypatch, "export_gt_depth", *flags, "--split", split)
    assert "10 depth maps (improved KITTI depth images" in capsys.readouterr().out
    run(monkeypatch, "evaluate_depth", *flags, "--eval_split", split, "--eval_mono",
        "--load_weights_folder", weights, "--num_workers", 0, "--no_cuda")  # fmt: skip
    printed = capsys.readouterr().out
    assert "images: 10 of 10" in printed and "KITTI improved ground truth" in printed
    line = fails(monkeypatch, capsys, "export_gt_depth", *flags, "--split", split,
        "--depth_axis", "camera_z")  # fmt: skip
    assert "--depth_axis" in line


def test_a_cloud_of_lidar_depth_lies_on_the_scan(real_data, tmp_path):
    """To the pixel and a half that the benchmark's rounding takes away (one whole, one by half)."""
    frame = Frame(f"{DATE}/{FIGURES['drive']}", FIGURES["frames"][0], "l")
    data = KITTIRaw(real_data / "kitti_raw", [frame], 0, 0, ())
    data.depth_axis = "camera_z"
    depth = data.ground_truth(0)
    K, _ = data.calibrated_K(frame)
    image = np.asarray(read_image(data.find_image(frame)))
    points = points_of_depth(depth, K)
    assert write_ply(tmp_path / "scan.ply", points, image, depth > 0) == np.count_nonzero(depth)

    scan = read_scan(data.depth_path(frame))
    P = velodyne_to_image(real_data / "kitti_raw" / DATE, 2)
    seen = np.column_stack([scan[:, :3], np.ones(len(scan))]) @ (np.linalg.inv(K) @ P).T
    cloud = points[depth > 0]
    away, _ = cKDTree(seen).query(cloud)
    assert np.all(away < 1.6 * np.sqrt(2) * cloud[:, 2] / K[0, 0])
    assert np.median(away) < 0.05
