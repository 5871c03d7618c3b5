"""The scripts as their users run them, on the sample street."""

import functools
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import TINY, fails, run

import checkpoint
import evaluate_depth
import evaluate_pose
import inference
import released
from datasets import Frame, GroundTruth
from datasets.kitti import read_poses
from metric_scale import Scale, write_scale
from metrics import Protocol

EVALUATE = ("--num_workers", 0, "--no_cuda")


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory):
    """A trained model, exported ground truth, and where they are."""
    folder = tmp_path_factory.mktemp("work")
    splits = folder / "splits"
    shutil.copytree(sample / "splits/sample", splits)
    (splits / "test_files.txt").write_text("2011_09_26/2011_09_26_drive_0003_sync 2-5 l\n")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "train", *TINY, "--data_path", sample, "--split", splits, "--log_dir", folder,
            "--model_name", "run", "--num_epochs", 1, "--log_frequency", 5)  # fmt: skip
        run(patch, "export_gt_depth", "--data_path", sample, "--split", splits)
    return folder


@pytest.fixture
def weights(trained):
    return trained / "run" / "models" / "weights_0"


def test_training_leaves_weights_options_and_a_log(trained, weights):
    names = ["adam.pth", "depth.pth", "encoder.pth", "pose.pth", "pose_encoder.pth"]
    assert sorted(path.name for path in weights.iterdir()) == names
    assert json.loads((trained / "run/models/opt.json").read_text())["height"] == 64
    assert checkpoint.load_depth_model(weights).height == 64
    for part, wanted in (
        ("train", {"loss", "loss/0", "loss/3", "learning_rate", "waiting_share", "disp_0/0"}),
        (
            "val",
            {"loss", "psnr", "abs_rel", "a1", "color_0/0", "color_pred_-1_2/0", "automask_3/0"},
        ),
    ):
        (events,) = (trained / "run" / part).iterdir()
        content = events.read_bytes()
        missing = [tag for tag in wanted if tag.encode() not in content]
        assert not missing, missing


def test_exported_ground_truth_is_the_projected_scans(trained, sample):
    gt = GroundTruth(trained / "splits" / "gt_depths.npz")
    assert len(gt) == 4 and gt[0].shape == (128, 416)
    assert "forward coordinate" in gt.source and 0 < np.median(gt[0][gt[0] > 0]) < 80


def test_evaluation_prints_the_table_and_writes_the_same(
    monkeypatch, capsys, trained, weights, sample
):
    out = trained / "result.json"
    common = (*EVALUATE, "--data_path", sample, "--eval_split", trained / "splits")
    run(monkeypatch, "evaluate_depth", *common, "--eval_mono", "--load_weights_folder", weights,
        "--save_pred_disps", "--json", out)  # fmt: skip
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    latex = "& " + " & ".join(f"{v:.3f}" for v in result["metrics"].values()) + r" \\"
    assert latex in printed and "KITTI Eigen" in printed and "images: 4 of 4" in printed
    assert f"median {result['ratio']['median']:.3f}" in printed
    mean = np.mean([[image[k] for k in result["metrics"]] for image in result["per_image"]], 0)
    np.testing.assert_allclose(list(result["metrics"].values()), mean)

    saved = weights / "disps_splits_split.npy"
    assert np.load(saved).shape == (4, 64, 64)
    run(monkeypatch, "evaluate_depth", "--eval_mono", "--eval_split", trained / "splits",
        "--ext_disp_to_eval", saved)  # fmt: skip
    assert latex in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--eval_stereo"], ["--eval_mono", "--post_process"],
    ["--eval_mono", "--disable_median_scaling", "--pred_depth_scale_factor", "5.4"]])  # fmt: skip
def test_every_kind_of_evaluation_runs(monkeypatch, capsys, trained, weights, sample, flags):
    run(monkeypatch, "evaluate_depth", *EVALUATE, *flags, "--data_path", sample, "--eval_split",
        trained / "splits", "--load_weights_folder", weights)  # fmt: skip
    printed = capsys.readouterr().out
    assert ("no median scaling" in printed) == (flags != ["--eval_mono", "--post_process"])
    assert ("depth x 5.4" in printed) == ("no median scaling" in printed)


def test_metres_come_from_the_scale_beside_the_weights(
    monkeypatch, capsys, trained, weights, sample, tmp_path
):
    folder = tmp_path / "weights"
    shutil.copytree(weights, folder)
    argv = [*EVALUATE, "--data_path", sample, "--eval_split", trained / "splits"]
    argv += ["--load_weights_folder", folder, "--metric"]
    line = fails(monkeypatch, capsys, "evaluate_depth", *argv)
    assert f"{folder}: --metric needs its scale.json" in line
    write_scale(folder, Scale(2.5, 0.031, "camera height"))
    result = tmp_path / "result.json"
    run(monkeypatch, "evaluate_depth", *argv, "--json", result)
    printed = capsys.readouterr().out
    assert "depth x 2.5 (camera height, spread 3.1%)" in printed
    assert "no median scaling" in printed
    run(monkeypatch, "evaluate_depth", *argv[:-1], "--eval_mono", "--disable_median_scaling",
        "--pred_depth_scale_factor", 2.5, "--json", tmp_path / "same.json")  # fmt: skip
    first, second = (json.loads(p.read_text())["metrics"] for p in (result, tmp_path / "same.json"))
    assert first == second
    for more in (["--eval_stereo"], ["--pred_depth_scale_factor", 2]):
        line = fails(monkeypatch, capsys, "evaluate_depth", *argv, *more)
        assert "choose one of" in line or "give one" in line


def test_uncertainty_is_ranked_and_changes_no_metric(
    monkeypatch, capsys, trained, weights, sample, tmp_path
):
    argv = [*EVALUATE, "--data_path", sample, "--eval_split", trained / "splits"]
    argv += ["--load_weights_folder", weights, "--eval_mono", "--json"]
    run(monkeypatch, "evaluate_depth", *argv, tmp_path / "plain.json")
    assert "AUSE" not in capsys.readouterr().out
    run(monkeypatch, "evaluate_depth", *argv, tmp_path / "ranked.json", "--uncertainty")
    plain, ranked = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("plain", "ranked"))
    assert plain["metrics"] == ranked["metrics"] and plain["uncertainty"] is None
    ause = ranked["uncertainty"]["ause"]
    assert ause >= 0 and f"AUSE {ause:.4f} (0 is perfect)" in capsys.readouterr().out


def test_predicting_without_evaluating_needs_no_ground_truth(
    monkeypatch, capsys, trained, weights, sample, tmp_path
):
    shutil.copy(trained / "splits" / "test_files.txt", tmp_path)
    run(monkeypatch, "evaluate_depth", *EVALUATE, "--eval_mono", "--no_eval", "--save_pred_disps",
        "--eval_out_dir", tmp_path / "out", "--data_path", sample, "--eval_split", tmp_path,
        "--load_weights_folder", weights)  # fmt: skip
    (path,) = (tmp_path / "out").iterdir()
    assert np.load(path).shape == (4, 64, 64) and "abs_rel" not in capsys.readouterr().out


def test_fine_tuning_keeps_frozen_networks(monkeypatch, capsys, trained, weights, sample, tmp_path):
    run(monkeypatch, "train", *TINY, "--data_path", sample, "--split", trained / "splits",
        "--log_dir", tmp_path, "--model_name", "tuned", "--num_epochs", 1,
        "--load_weights_folder", weights, "--freeze", "encoder", "pose")  # fmt: skip
    assert "continuing Adam's moments" in capsys.readouterr().out
    tuned = tmp_path / "tuned" / "models" / "weights_0"
    for name in ("encoder", "depth", "pose_encoder", "pose"):
        old, new = (checkpoint.read(folder / f"{name}.pth") for folder in (weights, tuned))
        same = all(torch.equal(old[k], new[k]) for k in old if isinstance(old[k], torch.Tensor))
        assert same == (name in ("encoder", "pose")), name


def test_loading_some_networks_starts_the_others_anew(
    monkeypatch, capsys, trained, weights, sample, tmp_path
):
    run(monkeypatch, "train", *TINY, "--data_path", sample, "--split", trained / "splits",
        "--log_dir", tmp_path, "--num_epochs", 1, "--pose_model_type", "posecnn", "--use_stereo",
        "--load_weights_folder", weights, "--models_to_load", "encoder", "depth")  # fmt: skip
    printed = capsys.readouterr().out
    assert "loaded encoder depth from" in printed and "Adam's moments" not in printed


def test_released_models_are_evaluated_by_name(
    monkeypatch, capsys, trained, weights, sample, tmp_path
):
    """From a zip put there by hand, as a machine without network would have it."""
    with zipfile.ZipFile(tmp_path / "mono_odom_640x192.zip", "w") as archive:
        for path in weights.iterdir():
            archive.write(path, path.name)
    fetch = functools.partial(released.fetch_released, folder=tmp_path)
    monkeypatch.setattr(inference, "fetch_released", fetch)
    base = (*EVALUATE, "--eval_mono", "--data_path", sample, "--eval_split", trained / "splits")
    run(monkeypatch, "evaluate_depth", *base, "--load_weights_folder", weights)
    own = capsys.readouterr().out.splitlines()[-1]
    run(monkeypatch, "evaluate_depth", *base, "--model_name", "mono_odom_640x192")
    assert capsys.readouterr().out.splitlines()[-1] == own
    assert "'nosuch' is no released model" in fails(
        monkeypatch, capsys, "evaluate_depth", *base, "--model_name", "nosuch"
    )


def test_odometry_is_scored(monkeypatch, capsys, weights, odometry, tmp_path):
    out = tmp_path / "ate.json"
    run(monkeypatch, "evaluate_pose", *EVALUATE, "--data_path", odometry, "--eval_split", "odom_9",
        "--load_weights_folder", weights, "--json", out)  # fmt: skip
    result, printed = json.loads(out.read_text()), capsys.readouterr().out
    ate, whole = result["ate"], result["trajectory"]
    assert ate["strict"]["windows"] == 2 and ate["with tail windows"]["windows"] == 5
    assert f"{ate['strict']['mean']:.4f}" in printed
    assert (result["sequence"], result["frames"], result["length_m"]) == ("09", 6, 250)
    assert list(whole) == ["none", "scale", "6dof", "7dof"]
    for row in whole.values():
        assert row.pop("segments") == 2  # of 100 m and of 200 m
        assert len(row) == 5 and all(f"{figure:.3f}" in printed for figure in row.values())
    assert whole["none"]["rpe_m"] == pytest.approx(50, rel=0.01)  # it barely moves
    assert sorted(path.name for path in weights.glob("odom_*")) == [
        "odom_09.png", "odom_09_kitti.txt", "odom_09_tum.txt"]  # fmt: skip


def test_true_motion_is_scored_as_such(monkeypatch, weights, odometry, tmp_path):
    """The script chains in the right direction: the true transforms have no error."""
    poses = read_poses(odometry / "poses" / "09.txt")
    poses[:, 0, 3] = [0, 3, 1, 4, 1, 5]  # not symmetric: backwards is another drive
    true = np.linalg.inv(poses[1:]) @ poses[:-1]
    monkeypatch.setattr(evaluate_pose, "predict", lambda *_: true)
    monkeypatch.setattr(evaluate_pose, "true_poses", lambda *_: poses)
    out = tmp_path / "result.json"
    run(monkeypatch, "evaluate_pose", "--data_path", odometry, "--load_weights_folder", weights,
        "--eval_out_dir", tmp_path, "--json", out)  # fmt: skip
    result = json.loads(out.read_text())
    for row in result["trajectory"].values():
        for figure in ("t_rel_percent", "r_rel_deg_per_100m", "ate_rmse_m", "rpe_m", "rpe_deg"):
            assert row[figure] == pytest.approx(0, abs=1e-6)
    assert result["ate"]["strict"]["mean"] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(read_poses(tmp_path / "odom_09_kitti.txt"), poses, atol=1e-6)


@pytest.mark.parametrize(
    "name, scored, seen",
    [
        ("mono_640x192", Frame("9", 0, "l"), True),
        ("mono_odom_640x192", Frame("9", 0, "l"), False),
        ("mono_odom_640x192", Frame("2011_09_30/2011_09_30_drive_0018_sync", 3, "l"), True),
        ("stereo_640x192", Frame("val/2011_09_26_drive_0005_sync", 5, "r"), True),
        ("own", Frame("9", 0, "l"), False),
    ],
)
def test_what_released_models_were_trained_on_is_known(tmp_path, name, scored, seen):
    split, shared = inference.seen_in_training(tmp_path / name, [scored], tmp_path)
    known = inference.known_options(tmp_path / name)
    assert known.get("max_depth") == (None if name == "own" else 100)
    assert bool(shared) == seen and (split is None) == (name == "own")


def test_models_trained_on_the_sequence_are_named(monkeypatch, capsys, weights, odometry, tmp_path):
    """Eigen's training drives include the odometry benchmark's test sequences."""
    own = tmp_path / "models" / "weights_0"
    shutil.copytree(weights, own)
    for split, warned in (("eigen_zhou", True), ("odom", False), ("gone", False), (3, False)):
        (own.parent / "opt.json").write_text(json.dumps({"split": split}))
        run(monkeypatch, "evaluate_pose", *EVALUATE, "--data_path", odometry, "--eval_split",
            "odom_9", "--load_weights_folder", own)  # fmt: skip
        printed = capsys.readouterr().out
        assert ("WARNING" in printed and "2011_09_30_drive_0033" in printed) == warned


def test_the_predicted_trajectory_is_written_in_both_formats(
    monkeypatch, weights, odometry, tmp_path
):
    def trajectory(name, *flags):
        run(monkeypatch, "evaluate_pose", *EVALUATE, "--data_path", odometry, "--eval_split",
            "odom_09", "--load_weights_folder", weights, "--eval_out_dir", tmp_path / name,
            *flags)  # fmt: skip
        assert (tmp_path / name / "odom_09.png").read_bytes().startswith(b"\x89PNG")
        tum = np.loadtxt(tmp_path / name / "odom_09_tum.txt")
        poses = read_poses(tmp_path / name / "odom_09_kitti.txt")
        np.testing.assert_allclose(tum[:, 1:4], poses[:, :3, 3], atol=1e-9)
        return poses, tum[:, 0]

    poses, times = trajectory("out")
    np.testing.assert_allclose(times, 0.1 * np.arange(6))
    assert len(poses) == 6 and (poses[0] == np.eye(4)).all()
    times_file = odometry / "sequences/09/times.txt"
    times_file.write_text("".join(f"{0.5 * i}\n" for i in range(7)))
    scaled, times = trajectory("scaled", "--pose_scale", 5.4)
    times_file.unlink()
    np.testing.assert_allclose(times, 0.5 * np.arange(6))
    np.testing.assert_allclose(scaled[:, :3, 3], 5.4 * poses[:, :3, 3], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled[:, :3, :3], poses[:, :3, :3])
    assert np.abs(poses[1:, :3, 3]).max() > 0


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_short_sequences_are_scored(monkeypatch, capsys, weights, sample, tmp_path, frames):
    out = tmp_path / "ate.json"
    make_odometry(sample, tmp_path, frames, step_m=1)
    run(monkeypatch, "evaluate_pose", *EVALUATE, "--data_path", tmp_path, "--eval_split", "odom_9",
        "--load_weights_folder", weights, "--eval_out_dir", tmp_path, "--json", out)  # fmt: skip
    result, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert set(result["ate"].values()) == {None} and "fewer than five poses" in printed
    for row in result["trajectory"].values():
        assert row["t_rel_percent"] is row["r_rel_deg_per_100m"] is None and row["segments"] == 0
        assert min(row["ate_rmse_m"], row["rpe_m"], row["rpe_deg"]) >= 0
    assert printed.count("n/a") == 3 + 2 * 4 + 1  # windows, table, what it means
    assert len(read_poses(tmp_path / "odom_09_kitti.txt")) == frames


def test_a_sequence_without_poses_is_predicted(monkeypatch, capsys, weights, sample, tmp_path):
    images = make_odometry(sample, tmp_path, 4, poses=False)
    flags = (*EVALUATE, "--data_path", tmp_path, "--eval_split", "odom_9", "--load_weights_folder",
             weights, "--eval_out_dir", tmp_path / "out")  # fmt: skip
    line = fails(monkeypatch, capsys, "evaluate_pose", *flags)
    assert "09.txt: no such file of poses" in line and "--no_eval" in line
    run(monkeypatch, "evaluate_pose", *flags, "--no_eval")
    assert "t_rel" not in capsys.readouterr().out
    assert len(read_poses(tmp_path / "out/odom_09_kitti.txt")) == 4
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert "nothing to write to --json" in fails(
        monkeypatch, capsys, "evaluate_pose", *flags, "--no_eval", "--json", tmp_path / "x.json"
    )
    for gone, words in ((1, "000001: no such image, though they go on to 000003"), (0, "000000")):
        (images / f"{gone:06d}.jpg").unlink()
        assert words in fails(monkeypatch, capsys, "evaluate_pose", *flags, "--no_eval")


@pytest.fixture(scope="module")
def odometry(sample, tmp_path_factory):
    """Six frames as odometry sequence 09, 50 m apart."""
    root = tmp_path_factory.mktemp("odometry")
    make_odometry(sample, root, 6)
    return root


def make_odometry(sample, root, frames, step_m=50, poses=True):
    """Odometry sequence 09 on a straight road; returns the folder of its images."""
    images = root / "sequences" / "09" / "image_2"
    images.mkdir(parents=True)
    for i in range(frames):
        drive = sample / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
        shutil.copy(drive / f"{i:010d}.jpg", images / f"{i:06d}.jpg")
    if poses:
        (root / "poses").mkdir()
        lines = [f"1 0 0 0 0 1 0 0 0 0 1 {i * step_m}\n" for i in range(frames)]
        (root / "poses" / "09.txt").write_text("".join(lines))
    return images


# What users get wrong: one line, status 2, nothing half-written


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--data_path", "nowhere"], "nowhere: no such data folder"),
        (["--split", "nosuch"], "split 'nosuch' is neither"),
        (["--png"], "no PNG image"),
        (["--batch_size", "500"], "usable samples, fewer than the 500 of a step"),
        (["--frame_ids", "0", "-50"], "nothing remains"),
        (["--load_weights_folder", "nowhere"], "encoder.pth: no such weights"),
    ],
)
def test_training_that_cannot_start_writes_nothing(
    monkeypatch, capsys, trained, sample, tmp_path, flags, words
):
    line = fails(monkeypatch, capsys, "train", *TINY, "--data_path", sample, "--split",
        trained / "splits", "--log_dir", tmp_path / "log", *flags)  # fmt: skip
    assert words in line
    assert not (tmp_path / "log").exists()


def test_weights_of_another_architecture_stop_the_start(
    monkeypatch, capsys, trained, weights, sample, tmp_path
):
    line = fails(monkeypatch, capsys, "train", *TINY, "--data_path", sample, "--split",
        trained / "splits", "--log_dir", tmp_path / "log", "--load_weights_folder", weights,
        "--num_layers", "34")  # fmt: skip
    assert "encoder.pth: weights of another architecture" in line
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_stops_training_with_its_name(
    monkeypatch, capsys, sample, tmp_path, workers
):
    broken = tmp_path / "data"
    shutil.copytree(sample, broken)
    image = broken / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    line = fails(monkeypatch, capsys, "train", *TINY, "--num_workers", workers, "--data_path",
        broken, "--split", broken / "splits/sample", "--log_dir", tmp_path / "log")  # fmt: skip
    assert f"{image}: cannot be read as an image" in line
    written = list((tmp_path / "log").rglob("*.pth"))  # a state, if there was a step before it
    assert all(path.parent.name == "states" for path in written)


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--data_path", "nowhere"], "nowhere: no such data folder"),
        (["--split", "nosuch"], "split 'nosuch'"),
        (["--dataset", "kitti_odom"], "KITTIOdom has no ground truth"),
    ],
)
def test_exports_that_cannot_work_write_nothing(
    monkeypatch, capsys, trained, sample, tmp_path, flags, words
):
    out = tmp_path / "gt.npz"
    line = fails(monkeypatch, capsys, "export_gt_depth", "--data_path", sample, "--split",
        trained / "splits", "--gt_file", out, *flags)  # fmt: skip
    assert words in line and not out.exists()


def test_missing_depth_images_are_counted(monkeypatch, capsys, trained, sample, tmp_path):
    drive = "2011_09_26/2011_09_26_drive_0003_sync"
    (tmp_path / drive).mkdir(parents=True)
    (tmp_path / drive / "image_02").symlink_to(sample / drive / "image_02")
    line = fails(monkeypatch, capsys, "export_gt_depth", "--dataset", "kitti_depth", "--data_path",
        tmp_path, "--split", trained / "splits", "--gt_file", tmp_path / "gt.npz")  # fmt: skip
    assert "no ground truth for 4 of 4 frames" in line and not (tmp_path / "gt.npz").exists()


def test_a_missing_calibration_is_named_by_the_export(
    monkeypatch, capsys, trained, sample, tmp_path
):
    (tmp_path / "2011_09_26").mkdir()
    drive = "2011_09_26/2011_09_26_drive_0003_sync"
    (tmp_path / drive).symlink_to(sample / drive)
    line = fails(monkeypatch, capsys, "export_gt_depth", "--data_path", tmp_path, "--split",
        trained / "splits", "--gt_file", tmp_path / "gt.npz")  # fmt: skip
    assert "calib_cam_to_cam.txt: no such calibration file" in line
    assert not (tmp_path / "gt.npz").exists()


def test_evaluations_that_cannot_work_say_why(
    monkeypatch, capsys, trained, weights, sample, tmp_path
):
    splits = trained / "splits"
    base = (*EVALUATE, "--eval_mono", "--data_path", sample, "--eval_split", splits)

    def line(*flags):
        return fails(monkeypatch, capsys, "evaluate_depth", *base, *flags)

    assert "no such weights" in line("--load_weights_folder", tmp_path)
    assert "ResNet 18, not --num_layers 50" in line(
        "--load_weights_folder", weights, "--num_layers", 50
    )
    assert "no such ground truth" in line("--load_weights_folder", weights, "--gt_file", "none.npz")
    own = ("--load_weights_folder", weights)
    assert "add --disable_median_scaling" in line(*own, "--pred_depth_scale_factor", 3)
    assert "needs --save_pred_disps" in line(*own, "--eval_out_dir", tmp_path)
    given = ("--ext_disp_to_eval", "d.npy", "--eval_eigen_to_benchmark")
    assert "needs --eval_split eigen_benchmark" in line(*given)
    other = tmp_path / "other"
    other.mkdir()
    (other / "test_files.txt").write_text("2011_09_26/2011_09_26_drive_0003_sync 3-6 l\n")
    gt_file = splits / "gt_depths.npz"
    assert "belongs to other frames" in line(
        "--load_weights_folder", weights, "--eval_split", other, "--gt_file", gt_file
    )
    assert "no such file of disparities" in line("--ext_disp_to_eval", tmp_path / "d.npy")
    for disps, words in (
        (np.ones((3, 8, 8), np.float32), "only 3 predictions"),
        (np.ones((5, 8, 8), np.float32), "more predictions"),
        (np.ones((8, 8), np.float32), "does not hold float disparities"),
        (np.ones((4, 8, 8), np.int64), "does not hold float disparities"),
        (np.full((4, 8, 8), np.nan, np.float32), "non-finite"),
        (-np.ones((4, 8, 8), np.float32), "negative"),
        (np.ones((4, 0, 8), np.float32), "does not hold float disparities"),
    ):
        np.save(tmp_path / "d.npy", disps)
        assert words in line("--ext_disp_to_eval", tmp_path / "d.npy")
    for content in (b"", b"PK\x03\x04 broken", b"text"):
        (tmp_path / "d.npy").write_bytes(content)
        assert "cannot be read as an array" in line("--ext_disp_to_eval", tmp_path / "d.npy")
    ragged = np.empty(2, object)
    np.save(tmp_path / "d.npy", ragged, allow_pickle=True)
    assert "cannot be read as an array" in line("--ext_disp_to_eval", tmp_path / "d.npy")


def test_predictions_without_depth_and_foreign_ground_truth_are_refused(
    monkeypatch, capsys, trained, weights, sample, tmp_path
):
    splits = trained / "splits"
    base = (*EVALUATE, "--eval_mono", "--data_path", sample, "--eval_split", splits)
    np.save(tmp_path / "d.npy", np.zeros((4, 8, 8), np.float32))
    out = tmp_path / "result.json"
    line = fails(monkeypatch, capsys, "evaluate_depth", *base, "--ext_disp_to_eval",
        tmp_path / "d.npy", "--json", out)  # fmt: skip
    assert "is no depth" in line and not out.exists()
    line = fails(monkeypatch, capsys, "evaluate_depth", *base, "--load_weights_folder", weights,
        "--dataset", "kitti_depth")  # fmt: skip
    assert "holds depth of KITTIRaw" in line
    line = fails(monkeypatch, capsys, "evaluate_depth", *base, "--load_weights_folder", weights,
        "--eval_split", "eigen", "--dataset", "kitti_odom")  # fmt: skip
    assert "'eigen' is not made of --dataset kitti_odom" in line


@pytest.mark.parametrize(
    "name, flag", [("evaluate_depth", "--json"), ("export_gt_depth", "--gt_file")]
)
def test_outputs_that_cannot_be_written_are_refused_at_the_start(
    monkeypatch, capsys, trained, weights, sample, tmp_path, name, flag
):
    splits = trained / "splits"
    own = {
        "evaluate_depth": ("--eval_mono", "--eval_split", splits, "--load_weights_folder", weights),
        "export_gt_depth": ("--split", splits),
    }[name]
    (tmp_path / "file").write_text("")
    base = (name, "--data_path", sample, *own)
    assert f"{tmp_path}: is a folder" in fails(monkeypatch, capsys, *base, flag, tmp_path)
    line = fails(monkeypatch, capsys, *base, flag, tmp_path / "file" / "x")
    assert f"{tmp_path / 'file'} is not a folder" in line


def test_stereo_evaluation_needs_a_benchmark_with_a_stereo_scale(
    monkeypatch, capsys, trained, weights
):
    indoors = Protocol("indoors", (0.0, 10.0), (0.1, 10.0))
    real = evaluate_depth.benchmark
    monkeypatch.setattr(
        evaluate_depth, "benchmark", lambda *names: real(*names)._replace(protocol=indoors)
    )
    line = fails(monkeypatch, capsys, "evaluate_depth", "--eval_stereo", "--load_weights_folder",
        weights, "--eval_split", trained / "splits")  # fmt: skip
    assert "indoors has no stereo scale" in line


def test_a_picture_of_a_prediction_is_made(monkeypatch, capsys, trained, weights, sample, tmp_path):
    out = tmp_path / "result.png"
    base = ("--data_path", sample, "--eval_split", trained / "splits", "--out", out)
    run(monkeypatch, "tools.show_depth", *base, "--frame", 1, "--load_weights_folder", weights)
    with Image.open(out) as picture:
        assert min(picture.size) > 500
    line = fails(monkeypatch, capsys, "tools.show_depth", *base, "--frame", 4,
        "--load_weights_folder", weights)  # fmt: skip
    assert "the split has frames 0 to 3" in line


def test_odometry_that_cannot_be_scored_says_why(monkeypatch, capsys, weights, odometry, tmp_path):
    def line(*flags):
        return fails(monkeypatch, capsys, "evaluate_pose", *EVALUATE, "--load_weights_folder",
            weights, "--data_path", odometry, "--eval_split", "odom_9", *flags)  # fmt: skip

    assert "no such weights" in line("--load_weights_folder", tmp_path)
    assert "poses/10.txt: no such file of poses" in line("--eval_split", "odom_10")
    image = odometry / "sequences/09/image_2/000005.jpg"
    image.rename(image.with_suffix(".gone"))
    assert "6 poses, but 1 of 5 frames lack" in line()
    image.with_suffix(".gone").rename(image)

    assert "--pose_scale must be a positive number" in line("--pose_scale", 0)
    poses, times = odometry / "poses/10.txt", odometry / "sequences/09/times.txt"
    for count in (0, 1):
        poses.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * count)
        assert f"10.txt: {count} poses make no motion" in line("--eval_split", "odom_10")
    poses.unlink()
    for content, words in (("0\n1\n", "2 times for 6"), ("0\nnan\n" * 3, ":2: not a time")):
        times.write_text(content)
        assert f"times.txt{words}" in line().replace("times.txt: ", "times.txt")
    times.unlink()


def test_weights_that_predict_no_motion_leave_no_trajectory(
    monkeypatch, capsys, weights, odometry, tmp_path
):
    shutil.copytree(weights, tmp_path / "nan", ignore=shutil.ignore_patterns("odom_*"))
    state = checkpoint.read(weights / "pose.pth")
    nan = {key: value * torch.nan for key, value in state.items()}
    checkpoint.save(tmp_path / "nan/pose.pth", nan)
    line = fails(monkeypatch, capsys, "evaluate_pose", *EVALUATE, "--data_path", odometry,
        "--load_weights_folder", tmp_path / "nan")  # fmt: skip
    assert "these weights predict NaN" in line
    assert not list((tmp_path / "nan").glob("odom_*"))


@pytest.mark.parametrize("name", ["odom_09_kitti.txt", "odom_09_tum.txt", "odom_09.png"])
def test_a_trajectory_that_cannot_be_written_is_refused_before_predicting(
    monkeypatch, capsys, weights, odometry, tmp_path, name
):
    monkeypatch.setattr(evaluate_pose, "predict", None)
    flags = ("evaluate_pose", "--data_path", odometry, "--load_weights_folder", weights)
    (tmp_path / name).mkdir()
    line = fails(monkeypatch, capsys, *flags, "--eval_out_dir", tmp_path)
    assert f"{tmp_path / name}: is a folder" in line
    (tmp_path / "file").write_text("")
    line = fails(monkeypatch, capsys, *flags, "--eval_out_dir", tmp_path / "file")
    assert f"{tmp_path / 'file'} is not a folder" in line
