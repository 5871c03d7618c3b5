"""From NYUv2's official files, made up here, to training data and a scored model."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time

import cv2
import h5py
import numpy as np
import pytest
from nyuv2_world import BOARD_M, WALL_M, pose, see, write_mat, write_raw_scene
from PIL import Image
from scipy.spatial.transform import Rotation
from scripts import TINY, fails, run

import checkpoint
from datasets import (
    BENCHMARKS,
    Frame,
    GroundTruth,
    NYUv2Raw,
    read_image,
    read_split,
    write_ground_truth,
)
from datasets.images import read_depth_image
from datasets.intrinsics import resize_K
from datasets.kinect import (
    COLOUR_DISTORTION,
    COLOUR_K,
    DEPTH_TO_COLOUR_R,
    metres,
    read_raw_depth,
    register,
)
from motion import Reference
from options import ROOT
from tools.nyuv2_raw import divided
from tools.nyuv2_scene import Scene, Settings, prepare_scene, select, write_depth
from utils import UserError

SCENES = ["kitchen_0001"] * 4 + ["office_0002"] * 3
TOOL = "tools.prepare_nyuv2"


def prepare(monkeypatch, *argv):
    run(monkeypatch, TOOL, *argv)


def refused(monkeypatch, capsys, *argv):
    return fails(monkeypatch, capsys, TOOL, *argv)


def contents(folder):
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# The labelled set


@pytest.fixture(scope="module")
def mat(tmp_path_factory):
    path = tmp_path_factory.mktemp("mat") / "nyu_depth_v2_labeled.mat"
    write_mat(path, SCENES)
    return path


@pytest.fixture(scope="module")
def labelled(mat, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled") / "nyuv2"
    with pytest.MonkeyPatch.context() as patch:
        run(patch, TOOL, "labelled", mat, out)
    return out


def test_the_made_up_file_has_the_official_layout(mat):
    with h5py.File(mat) as file:
        assert (file["images"].dtype, file["images"].shape) == (np.uint8, (7, 3, 640, 480))
        for name in ("depths", "rawDepths"):
            assert (file[name].dtype, file[name].shape) == (np.float32, (7, 640, 480))
        assert file["scenes"].dtype == h5py.ref_dtype and file["scenes"].shape == (1, 7)
        text = file[file["scenes"][0, 6]]
        assert text.dtype == np.uint16 and "".join(map(chr, text[:, 0])) == "office_0002"
        assert file.userblock_size == 512
    assert mat.read_bytes()[:10] == b"MATLAB 7.3"


def test_images_depths_and_scenes_come_out_upright_and_in_metres(labelled):
    assert (labelled / "scenes.txt").read_text().split() == [
        word for i, scene in enumerate(SCENES, start=1) for word in (str(i), scene)
    ]
    for i in (1, 4, 7):
        image, depth = see(pose(0.05 * (i - 1)))
        got = np.asarray(Image.open(labelled / "images" / f"img_{i}.jpg"))
        assert got.shape == (480, 640, 3) and np.abs(got.astype(int) - image).mean() < 4
        with Image.open(labelled / "depths" / f"gt_{i}.png") as file:
            assert file.mode.startswith("I;16")
            filled = np.asarray(file)
        np.testing.assert_allclose(filled, 1000 * depth, atol=0.51)
        raw = np.asarray(Image.open(labelled / "raw_depths" / f"gt_{i}.png"))
        assert not raw[100:160, 200:300].any() and not raw[:, :40].any()
        np.testing.assert_array_equal(raw[200:, 40:], filled[200:, 40:])
    assert len(list((labelled / "images").iterdir())) == 7


def test_lossless_images_are_the_files_own(monkeypatch, mat, tmp_path):
    prepare(monkeypatch, "labelled", mat, tmp_path / "out", "--png")
    np.testing.assert_array_equal(read_image(tmp_path / "out/images/img_2.png"), see(pose(0.05))[0])
    assert not list((tmp_path / "out").rglob("*.jpg"))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_goes_on_where_one_stopped(monkeypatch, capsys, mat, labelled, tmp_path, workers):
    out = tmp_path / "out"
    prepare(monkeypatch, "labelled", mat, out, "--num_workers", workers)
    assert contents(out) == contents(labelled)  # however many threads
    for name in ("images/img_2.jpg", "depths/gt_5.png", "raw_depths/gt_7.png"):
        (out / name).unlink()
    kept = out / "images" / "img_1.jpg"
    before = kept.stat().st_mtime_ns
    capsys.readouterr()
    prepare(monkeypatch, "labelled", mat, out)
    assert "4 of them from an earlier run" in capsys.readouterr().out
    assert contents(out) == contents(labelled) and kept.stat().st_mtime_ns == before


def test_a_killed_run_leaves_whole_files_and_goes_on(monkeypatch, mat, labelled, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "tools/prepare_nyuv2.py"), "labelled", str(mat), str(out)]
    with subprocess.Popen([*command, "--num_workers", "1"], stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while not (out / "images").is_dir() and time.monotonic() < until:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    whole = contents(labelled)
    half = {name: data for name, data in contents(out).items() if "/." not in name}
    assert half and all(whole[name] == data for name, data in half.items())
    prepare(monkeypatch, "labelled", mat, out)
    finished = {name: data for name, data in contents(out).items() if "/." not in name}
    assert finished == whole


def test_another_source_or_format_is_not_mixed_in(monkeypatch, capsys, mat, labelled, tmp_path):
    before = contents(labelled)
    line = refused(monkeypatch, capsys, "labelled", mat, labelled, "--png")
    assert "format" in line and "choose another folder" in line
    other = tmp_path / "nyu_depth_v2_labeled.mat"
    write_mat(other, SCENES[:2])
    assert "bytes" in refused(monkeypatch, capsys, "labelled", other, labelled)
    assert contents(labelled) == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "img_1.jpg").write_bytes(b"mine")
    assert "did not make" in refused(monkeypatch, capsys, "labelled", mat, tmp_path / "own")


def damaged(path, out, change):
    """A copy of the file after `change(h5py file)`."""
    out.write_bytes(path.read_bytes())
    with h5py.File(out, "r+") as file:
        change(file)
    return out


def without(name):
    return lambda file: file.__delitem__(name)


def replaced(name, array):
    def change(file):
        del file[name]
        file[name] = array

    return change


def spoilt_depth(file):
    file["depths"][2] = np.nan


def spoilt_scene(file):
    reference = file["scenes"][0, 3]
    file[reference][0] = ord("\n")


@pytest.mark.parametrize(
    "change, words",
    [
        (without("images"), "holds no 'images'"),
        (without("scenes"), "'scenes' cannot be read"),
        (replaced("depths", np.zeros((7, 480, 640), np.float32)), "'depths' are float32 (7, 480"),
        (replaced("depths", np.zeros((7, 640, 480), np.uint16)), "'depths' are uint16"),
        (replaced("images", np.zeros((6, 3, 640, 480), np.uint8)), "6 images, 7 depths"),
        (replaced("scenes", np.zeros((1, 7), np.uint8)), "'scenes' cannot be read"),
        (replaced("depths", h5py.Empty("f4")), "'depths' are float32 None"),
        (spoilt_scene, "not the names of 7 scenes"),
        (spoilt_depth, "depth of image 3 is not in metres"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(monkeypatch, capsys, mat, tmp_path, change, words):
    bad = damaged(mat, tmp_path / "bad.mat", change)
    line = refused(monkeypatch, capsys, "labelled", bad, tmp_path / "out")
    assert words in line and "bad.mat" in line and "fetch" in line


def test_files_of_another_kind_are_refused_in_one_line(monkeypatch, capsys, mat, tmp_path):
    data = mat.read_bytes()
    old = b"MATLAB 5.0 MAT-file" + bytes(500)
    for content, words in (
        (data[: len(data) // 2], "it is truncated"),
        (data[:300], "it is no HDF5"),
        (b"", "it is no HDF5"),
        (old, "of an older MATLAB"),
    ):
        path = tmp_path / "bad.mat"
        path.write_bytes(content)
        line = refused(monkeypatch, capsys, "labelled", path, tmp_path / "out")
        assert words in line and "bad.mat" in line and not (tmp_path / "out").exists()
    line = refused(monkeypatch, capsys, "labelled", tmp_path / "none.mat", tmp_path / "out")
    assert "no such file; fetch it from" in line
    (tmp_path / "file").write_text("")
    refused(monkeypatch, capsys, "labelled", mat, tmp_path / "file" / "out")
    line = refused(monkeypatch, capsys, "labelled", tmp_path, tmp_path / "out")
    assert "give nyu_depth_v2_labeled.mat" in line
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".prepared.json.x1").write_text("")  # killed while it was written
    prepare(monkeypatch, "labelled", mat, tmp_path / "begun")


def test_damage_in_the_middle_names_the_image(monkeypatch, capsys, mat, tmp_path):
    with h5py.File(mat) as file:
        info = file["images"].id.get_chunk_info_by_coord((4, 0, 160, 120))
    data = bytearray(mat.read_bytes())
    start = info.byte_offset + 512  # counted behind MATLAB's header
    data[start : start + info.size] = bytes(info.size)
    (tmp_path / "bad.mat").write_bytes(data)
    out = tmp_path / "out"
    line = refused(monkeypatch, capsys, "labelled", tmp_path / "bad.mat", out)
    assert "image 5 cannot be read" in line
    assert all(len(path.read_bytes()) > 1000 for path in out.rglob("*.png"))


def test_time_and_memory_are_measured(monkeypatch, capsys, tmp_path):
    work, out = tmp_path / "work", tmp_path / "result.json"
    argv = ("--work", work, "--images", 5, "--chunk", 2, "--json", out)
    run(monkeypatch, "benchmarks.prepare_nyuv2", *argv)
    result = json.loads(out.read_text())
    assert result["images"] == 5 and result["file_bytes"] > 5e6 and result["written_bytes"] > 1e6
    assert 1e8 < result["peak_memory_bytes"] < 4e9 or not sys.platform.startswith("linux")
    assert "5 images, file of" in capsys.readouterr().out
    assert len(list((work / "nyuv2" / "images").iterdir())) == 5
    assert "give a new folder" in fails(
        monkeypatch, capsys, "benchmarks.prepare_nyuv2", "--work", work
    )


# From prepared data to a score, by the command line


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    (folder / "train_files.txt").write_text("images 1-7 l\n")
    (folder / "val_files.txt").write_text("images/ 3 0\n")
    (folder / "test_files.txt").write_text("images 2 l\nimages 4-6 l\n")
    return folder


@pytest.fixture(scope="module")
def trained(labelled, split, tmp_path_factory):
    """Weights after two steps, the folder they are in, and what training printed."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "train.py", "--dataset", "nyuv2", "--data_path", labelled, "--split",
        split, *TINY, "--batch_size", 1, "--num_epochs", 1, "--frame_ids", 0, -1, 1,
        "--log_dir", folder]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    shutil.rmtree(folder / "mdp" / "states")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "export_gt_depth", "--dataset", "nyuv2", "--data_path", labelled, "--split",
            split)  # fmt: skip
    return folder / "mdp" / "models" / "weights_0", done.stdout


def evaluate(monkeypatch, labelled, split, *flags):
    run(monkeypatch, "evaluate_depth", "--dataset", "nyuv2", "--data_path", labelled,
        "--eval_split", split, "--num_workers", 0, "--no_cuda", *flags)  # fmt: skip


def test_training_says_what_it_does(trained):
    weights, printed = trained
    assert "max_depth 10.0" in printed and "weights_init scratch" in printed
    assert "4 of 7 frames lack a neighbour" in printed and "train: 3 samples" in printed
    assert "val abs_rel" in printed and "val log10" in printed
    assert checkpoint.load_depth_model(weights).height == 64
    adam = checkpoint.read(weights / "adam.pth")
    assert {float(state["step"]) for state in adam["state"].values()} == {3.0}


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_weights_are_scored_under_every_protocol(
    monkeypatch, capsys, labelled, split, trained, tmp_path, name
):
    out = tmp_path / "result.json"
    flags = [] if name == "A" else ["--nyuv2_protocol", name]
    evaluate(monkeypatch, labelled, split, *flags, "--load_weights_folder", trained[0], "--json",
        out, "--save_pred_disps")  # fmt: skip
    printed, result = capsys.readouterr().out, json.loads(out.read_text())
    assert f"NYUv2 protocol {name}" in printed and f"NYUv2 protocol {name}" in result["protocol"]
    assert ("images cut to toolbox crop" in printed) == (name == "A")
    assert ("no median scaling" in printed) == (name == "C")
    assert "filled depth" in printed and "filled depth" in result["ground_truth"]
    assert list(result["metrics"])[-1] == "log10" and "log10" in printed
    assert result["images"] == 4 and "WARNING" in printed and "kitchen_0001" in printed
    saved = trained[0] / f"disps_{split.name}_split.npy"
    evaluate(monkeypatch, labelled, split, *flags, "--ext_disp_to_eval", saved)
    again = capsys.readouterr().out
    assert again.splitlines()[-1] == printed.splitlines()[-1] and "WARNING" not in again


def test_a_prediction_is_shown_beside_the_truth(
    monkeypatch, capsys, labelled, split, trained, tmp_path
):
    run(monkeypatch, "tools.show_depth", "--dataset", "nyuv2", "--data_path", labelled,
        "--eval_split", split, "--load_weights_folder", trained[0], "--frame", 2, "--out",
        tmp_path / "shown.png")  # fmt: skip
    width, height = read_image(tmp_path / "shown.png").size
    assert 1 < width / height < 1.5  # two by two
    assert "picture of frame 2" in capsys.readouterr().out


def test_raw_depth_is_another_ground_truth(monkeypatch, capsys, labelled, split, trained, tmp_path):
    gt = tmp_path / "raw.npz"
    run(monkeypatch, "export_gt_depth", "--dataset", "nyuv2", "--data_path", labelled, "--split",
        split, "--nyuv2_depth", "raw", "--gt_file", gt)  # fmt: skip
    raw, filled = GroundTruth(gt), GroundTruth(split / "gt_depths.npz")
    assert (raw[0][200:, 40:] == filled[0][200:, 40:]).all() and not raw[0][:, :40].any()
    evaluate(monkeypatch, labelled, split, "--load_weights_folder", trained[0], "--gt_file", gt)
    assert "only what the sensor measured" in capsys.readouterr().out


def test_the_report_is_scored_on_grey_values(monkeypatch, capsys, labelled, trained, tmp_path):
    """The whole benchmark under its own name, on images that stand for its 290."""
    data = tmp_path / "nyuv2"
    for folder in ("images", "depths"):
        (data / folder).mkdir(parents=True)
    for frame in read_split(ROOT / "splits/nyuv2_report/test_files.txt"):
        i = frame.index
        (data / f"images/img_{i}.jpg").symlink_to(labelled / f"images/img_{i % 7 + 1}.jpg")
        (data / f"depths/gt_{i}.png").symlink_to(labelled / f"depths/gt_{i % 7 + 1}.png")
    gt = tmp_path / "gt.npz"
    run(monkeypatch, "export_gt_depth", "--split", "nyuv2_report", "--data_path", data, "--gt_file",
        gt)  # fmt: skip
    assert "NOT METRES" in capsys.readouterr().out
    run(monkeypatch, "evaluate_depth", "--eval_split", "nyuv2_report", "--data_path", data,
        "--gt_file", gt, "--load_weights_folder", trained[0], "--no_cuda",
        "--num_workers", 0, "--max_depth", 100)  # fmt: skip
    printed = capsys.readouterr().out
    assert "not metric" in printed and "NOT METRES" in printed and "images: 290 of 290" in printed
    assert "trained with --max_depth 10.0, evaluated with 100" in printed


@pytest.mark.parametrize("folder", ["images", "depths"])
def test_a_file_of_another_size_is_named(
    monkeypatch, capsys, labelled, split, trained, tmp_path, folder
):
    data = tmp_path / "nyuv2"
    for name in ("images", "depths"):
        (data / name).mkdir(parents=True)
        for path in (labelled / name).iterdir():
            (data / name / path.name).symlink_to(path)
    bad = next((data / folder).glob("*_5.*"))
    with Image.open(bad) as image:
        small = image.resize((320, 240), Image.Resampling.NEAREST)
    bad.unlink()
    small.save(bad)
    own = ("--dataset", "nyuv2", "--data_path", data)
    if folder == "depths":
        line = fails(monkeypatch, capsys, "export_gt_depth", *own, "--split", split, "--gt_file",
            tmp_path / "gt.npz")  # fmt: skip
    else:
        line = fails(monkeypatch, capsys, "evaluate_depth", *own, "--eval_split", split,
            "--load_weights_folder", trained[0], "--no_cuda", "--num_workers", 0)  # fmt: skip
    assert str(bad) in line and "640x480" in line


def test_grey_values_scale_no_metres(monkeypatch, capsys, labelled, split, trained, tmp_path):
    known = BENCHMARKS["nyuv2_report"]
    frames = known.frames(labelled)
    known = known._replace(folder=tmp_path)
    maps = (np.ones((480, 640), np.float32) for _ in frames)
    write_ground_truth(known.gt_file, frames, maps, "grey", "NYUv2Report")
    monkeypatch.setitem(BENCHMARKS, "nyuv2_report", known)
    line = fails(monkeypatch, capsys, "evaluate_depth", "--dataset", "nyuv2", "--data_path",
        labelled, "--eval_split", split, "--load_weights_folder", trained[0], "--scale_split",
        "nyuv2_report", "--no_cuda")  # fmt: skip
    assert "not both in metres" in line


def test_what_was_trained_on_is_known_from_any_folder(
    monkeypatch, capsys, labelled, split, trained, tmp_path
):
    options = checkpoint.training_options(trained[0])
    assert options["data_path"] == str(labelled.resolve())
    monkeypatch.chdir(tmp_path)
    evaluate(monkeypatch, labelled, split, "--load_weights_folder", trained[0])
    assert "WARNING: trained on split" in capsys.readouterr().out


def test_flags_that_nyuv2_has_no_use_for_are_refused(
    monkeypatch, capsys, labelled, split, trained, tmp_path
):
    for flags, words in (
        (["--eval_stereo"], "NYUv2 has one camera"),
        (["--nyuv2_protocol", "D"], "D"),
    ):
        with pytest.raises(SystemExit) as caught:
            evaluate(monkeypatch, labelled, split, "--load_weights_folder", trained[0], *flags)
        assert caught.value.code == 2 and words in capsys.readouterr().err
    for flags, words in (
        (["--split", "nyuv2_report", "--nyuv2_depth", "raw"], "--nyuv2_depth raw"),
        (["--split", "eigen", "--nyuv2_depth", "raw"], "--nyuv2_depth raw"),
        (["--split", "nyuv2", "--depth_axis", "camera_z"], "--depth_axis"),
    ):
        line = fails(monkeypatch, capsys, "export_gt_depth", *flags, "--gt_file", tmp_path / "g")
        assert words in line
    line = fails(monkeypatch, capsys, "evaluate_depth", "--eval_split", "eigen", "--eval_mono",
        "--load_weights_folder", trained[0], "--nyuv2_protocol", "B")  # fmt: skip
    assert "--nyuv2_protocol B: is for" in line


def test_training_without_data_says_where_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for dataset, words in (
        ("nyuv2", "python tools/prepare_nyuv2.py labelled nyu_depth_v2_labeled.mat nyuv2"),
        ("nyuv2_raw", "python tools/prepare_nyuv2.py raw"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(monkeypatch, "train", "--dataset", dataset)
        lines = capsys.readouterr().err.splitlines()
        assert caught.value.code == 2 and len(lines) == 4
        assert words in lines[2] and "https://" in lines[1]
        assert lines[3] == (
            f"train.py: error: {dataset}: no such data folder; give the right one by --data_path"
        )
    (tmp_path / "nyuv2_raw").mkdir()
    line = fails(monkeypatch, capsys, "train", "--dataset", "nyuv2_raw")
    assert "nyuv2_raw/train_files.txt: no such split file" in line


# The raw recordings


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Three recordings: two that move on, one that only turns."""
    root = tmp_path_factory.mktemp("dump")
    along = [pose(0.04 * i, 0.2 * i) for i in range(14)]
    write_raw_scene(root / "part1" / "kitchen_0001a", along)
    write_raw_scene(root / "part1" / "office_0002", [pose(0, i) for i in range(8)])
    write_raw_scene(root / "part2" / "study_0003", along[::-1])
    return root


@pytest.fixture(scope="module")
def sequences(recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("raw") / "nyuv2_raw"
    with pytest.MonkeyPatch.context() as patch:
        run(patch, TOOL, "raw", recordings, out, "--num_workers", 2)
    return out


def test_parallax_is_what_no_turn_explains():
    K = resize_K(COLOUR_K, (640, 480), (320, 240))

    def grey(where):
        image, _ = see(where, COLOUR_K, COLOUR_DISTORTION)
        image = cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)

    reference = Reference(grey(pose()), K, COLOUR_DISTORTION)
    measured = [reference.motion_to(grey(pose(x))).parallax_px for x in (0, 0.02, 0.04, 0.08)]
    assert measured == sorted(measured) and measured[0] < 0.02 and measured[-1] > 1
    for yaw in (0.5, 2, 4):
        turned = reference.motion_to(grey(pose(0, yaw)))
        assert turned.parallax_px < 0.25 and turned.found > 0.7
        both = reference.motion_to(grey(pose(0.08, yaw)))
        assert both.parallax_px == pytest.approx(measured[-1], rel=0.25)
    assert reference.motion_to(grey(pose(0, 80))).found < 0.3
    flat = np.full((240, 320), 128, np.uint8)
    assert Reference(flat, K, COLOUR_DISTORTION).motion_to(flat) == (0, 0)


def test_frames_are_kept_where_the_camera_has_moved_on(sequences):
    made = {folder.name for folder in sequences.iterdir() if (folder / "000000.jpg").exists()}
    assert made == {"kitchen_0001a", "study_0003"}  # a turn alone teaches no depth
    scene = json.loads((sequences / "kitchen_0001a" / "scene.json").read_text())
    assert scene["frames"] == 14 and 4 <= scene["kept"] <= 8
    assert scene["sequences"] == [[0, scene["kept"] - 1]]


def test_a_sequence_frame_is_the_undistorted_cut_resized_view(sequences):
    """The written camera describes the written image: seen anew by it, the room looks the same."""
    data = NYUv2Raw(sequences, [Frame("kitchen_0001a", 0, "l")], 288, 384, intrinsics="calib")
    sample = data[0]
    K = sample["K"].double().numpy()
    enlarged = resize_K(K, (384, 288), (640, 480))  # `see` draws 640x480
    expected, _ = see(pose(), enlarged)
    expected = np.asarray(
        Image.fromarray(expected).resize((384, 288), Image.Resampling.LANCZOS), float
    )
    got = sample["color"][0].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).mean() < 6
    shifted = np.abs(got[:, 1:] - expected[:, :-1]).mean()
    assert np.abs(got - expected).mean() < shifted / 2


def test_depth_is_that_of_the_colour_camera(sequences):
    depth = read_depth_image(sequences / "kitchen_0001a" / "depth" / "000000.png", 1e-3)
    assert depth.shape == (448, 608)
    _, truth = see(pose())
    truth = truth[16:-16, 16:-16]
    known = depth > 0
    assert known.mean() > 0.85
    wrong = np.abs(depth - truth)[known] > 0.03  # its steps are 2.6 cm at 3 m
    assert wrong.mean() < 0.01
    middle = depth[150:300]
    assert set(np.round(np.median(middle[:, [120, 500]], 0), 1)) == {BOARD_M, WALL_M}


def test_raw_readings_are_metres():
    raw = np.array([[0, 840, 1040, 1057, 1058, 1092, 1093, 2047]], np.uint16)
    got = metres(raw)[0]
    np.testing.assert_allclose(got[1:4], [351.3 / 252.5, 351.3 / 52.5, 351.3 / 35.5], rtol=1e-6)
    assert not got[[0, 4, 5, 6, 7]].any()  # none, too far to trust, behind, no reading


def test_the_cameras_stand_as_the_toolbox_projects_them():
    """R is a rotation, and the colour camera is the one to the right."""
    np.testing.assert_allclose(DEPTH_TO_COLOUR_R @ DEPTH_TO_COLOUR_R.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(DEPTH_TO_COLOUR_R) == pytest.approx(1)
    assert Rotation.from_matrix(DEPTH_TO_COLOUR_R).magnitude() < np.radians(0.5)
    depth = np.zeros((480, 640), np.float32)
    depth[200:280, 280:360] = 1.0
    assert np.nonzero(register(depth))[1].mean() < 320 + 12.5 - 0.025 * 518  # 13 px to the left


@pytest.mark.parametrize("content", [b"", b"P5 640 480 65535\n" + bytes(1000), b"no image"])
def test_a_bad_depth_file_is_named(tmp_path, content):
    (tmp_path / "d-1.0-1.pgm").write_bytes(content)
    with pytest.raises(UserError, match="d-1.0-1.pgm"):
        read_raw_depth(tmp_path / "d-1.0-1.pgm")


def test_depth_in_the_usual_byte_order_is_no_raw_depth(tmp_path):
    path = tmp_path / "d-1.0-1.pgm"
    Image.fromarray(np.full((480, 640), 900, np.uint16)).save(path)
    with pytest.raises(UserError, match="no raw depth image"):
        read_raw_depth(path)


def test_the_split_trains_with_its_name_and_recipe(monkeypatch, capsys, sequences, tmp_path):
    train, val = (
        read_split(sequences / "splits" / "nyuv2_raw" / f"{part}_files.txt")
        for part in ("train", "val")
    )
    assert {f.folder for f in train} == {"kitchen_0001a"}
    assert {f.folder for f in val} == {"study_0003"}
    run(monkeypatch, "train", f"@{ROOT / 'experiments/nyuv2_raw.args'}", *TINY, "--batch_size", 1,
        "--num_epochs", 1, "--data_path", sequences, "--log_dir", tmp_path)  # fmt: skip
    printed = capsys.readouterr().out
    assert f"train: {len(train)} samples" in printed and f"val: {len(val)} samples" in printed
    assert "left out" not in printed and "val abs_rel" in printed
    assert "scheduler_step_size 26 36" in printed and "scales 0," in printed
    weights = tmp_path / "nyuv2_raw" / "models" / "weights_0"
    options = checkpoint.training_options(weights)
    assert options["max_depth"] == 10 and options["intrinsics"] == "calib"


def test_training_rooms_in_the_test_are_named(
    monkeypatch, capsys, sequences, labelled, split, trained, tmp_path
):
    models = tmp_path / "run" / "models"
    models.mkdir(parents=True)
    (models / "weights_0").symlink_to(trained[0])
    weights = models / "copy"
    weights.mkdir()
    for path in trained[0].glob("*.pth"):
        (weights / path.name).write_bytes(path.read_bytes())
    options = {"split": "nyuv2_raw", "data_path": str(sequences), "max_depth": 10.0}
    (models / "opt.json").write_text(json.dumps(options))
    evaluate(monkeypatch, labelled, split, "--load_weights_folder", weights)
    assert "split nyuv2_raw, which has 1 of the recordings" in capsys.readouterr().out


def test_rooms_of_the_official_test_are_left_out(
    monkeypatch, capsys, recordings, labelled, tmp_path
):
    """Images 1 and 2 are in the official test, of kitchen_0001: so is kitchen_0001a."""
    out = tmp_path / "out"
    argv = ("raw", recordings, out, "--no_depth", "--labelled")
    line = refused(monkeypatch, capsys, *argv, tmp_path)
    assert "scenes.txt" in line and "nyuv2_neighbours" not in line
    line = refused(monkeypatch, capsys, *argv, labelled)  # which has seven images
    assert "names no scene of 652 of the 654 official test images" in line and not out.exists()
    lines = [f"{i} {SCENES[i - 1] if i < 8 else 'elsewhere_0099'}\n" for i in range(1, 1450)]
    (tmp_path / "scenes.txt").write_text("".join(lines))
    prepare(monkeypatch, *argv, tmp_path)
    printed = capsys.readouterr().out
    assert "1 scenes left out" in printed and "--labelled" not in printed
    assert not (out / "kitchen_0001a").exists() and not (out / "study_0003" / "depth").exists()
    lists = [(out / "splits/nyuv2_raw" / f"{p}_files.txt").read_text() for p in ("train", "val")]
    assert all(text.startswith("study_0003 ") for text in lists)


def test_a_second_run_finds_the_scenes_and_takes_new_ones(
    monkeypatch, capsys, recordings, sequences, tmp_path
):
    out = tmp_path / "out"
    prepare(monkeypatch, "raw", recordings / "part1", out)
    first = contents(out / "kitchen_0001a")
    assert first == contents(sequences / "kitchen_0001a")
    (out / "office_0002" / "scene.json").unlink()  # as if killed in it
    (out / "office_0002" / "000007.jpg").write_bytes(b"half of another run")
    before = (out / "kitchen_0001a" / "000000.jpg").stat().st_mtime_ns
    prepare(monkeypatch, "raw", recordings, out)
    assert contents(out) == contents(sequences)
    assert (out / "kitchen_0001a" / "000000.jpg").stat().st_mtime_ns == before
    line = refused(monkeypatch, capsys, "raw", recordings, out, "--crop", 0)
    assert "crop" in line and contents(out) == contents(sequences)


def test_a_scene_that_has_grown_is_made_anew(monkeypatch, capsys, recordings, tmp_path):
    dump, out = tmp_path / "dump", tmp_path / "out"
    source = recordings / "part1" / "kitchen_0001a"
    colour = sorted(source.glob("r-*.ppm"))
    half = dump / "kitchen_0001a"
    half.mkdir(parents=True)
    for path in colour[:10]:
        (half / path.name).symlink_to(path)
    prepare(monkeypatch, "raw", dump, out)
    assert "of 10 frames" in capsys.readouterr().out
    (dump / "linked").symlink_to(dump)  # leads back, and is not followed for ever
    for path in colour[10:]:
        (half / path.name).symlink_to(path)
    prepare(monkeypatch, "raw", dump, out)
    assert "of 14 frames" in capsys.readouterr().out
    before = contents(out)
    for path in colour[5:]:
        (half / path.name).unlink()  # as who makes room: what was made of them stays
    prepare(monkeypatch, "raw", dump, out)
    assert contents(out) == before


@pytest.mark.parametrize(
    "content", ["", "[]", '{"sequences": [[0]]}', '{"sequences": [["a", "b"]], "frames": "x"}']
)
def test_a_spoilt_account_of_a_scene_is_made_anew(monkeypatch, recordings, tmp_path, content):
    out = tmp_path / "out"
    prepare(monkeypatch, "raw", recordings / "part2", out, "--no_depth")
    whole = contents(out)
    (out / "study_0003" / "scene.json").write_text(content)
    prepare(monkeypatch, "raw", recordings / "part2", out, "--no_depth")
    assert contents(out) == whole


def test_being_stopped_ends_a_scene_between_frames(recordings, tmp_path):
    stopping = threading.Event()
    stopping.set()
    settings = Settings(16, (384, 288), 3.0, True)
    with pytest.raises(UserError, match="run again to go on"):
        prepare_scene(recordings / "part2" / "study_0003", tmp_path, settings, stopping)
    assert not (tmp_path / "study_0003").exists()


def test_frames_that_are_lost_for_a_moment_or_a_pause(tmp_path):
    """One blank frame ends nothing; three do; so does a pause, however smooth the way."""

    def selected(blank=(), pause_after=99):
        frames = []
        for i in range(9):
            image, _ = see(pose(0.08 * i), COLOUR_K, COLOUR_DISTORTION)
            path = tmp_path / f"{i}.ppm"
            Image.fromarray(np.full_like(image, 90) if i in blank else image).save(path)
            frames.append((i / 25 + 5.0 * (i > pause_after), path))
        sequences, unreadable = select(frames, 1.5)
        assert unreadable == 0
        return [[int(path.stem) for _, path in sequence] for sequence in sequences]

    assert selected() == [list(range(9))]
    assert selected(blank=[4]) == [[0, 1, 2, 3, 5, 6, 7, 8]]
    assert selected(pause_after=4) == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    assert selected(blank=[3, 4, 5]) == [[0, 1, 2], [6, 7, 8]]


def test_depth_of_another_moment_is_not_taken(tmp_path):
    write_raw_scene(tmp_path / "office_0002", [pose()])
    (path,) = (tmp_path / "office_0002").glob("d-*.pgm")
    settings = Settings(16, (384, 288), 3.0, True)
    for number, (seconds, taken) in enumerate(((10.04, True), (10.06, False), (9.9, False))):
        assert write_depth(tmp_path, number, seconds, [(10.0, path)], settings)
        assert (tmp_path / "depth" / f"{number:06d}.png").exists() == taken
    path.write_bytes(path.read_bytes()[:900])
    assert not write_depth(tmp_path, 9, 10.0, [(10.0, path)], settings)


def test_samples_reach_over_no_gap(tmp_path):
    """Two sequences with one number between them, whatever the offsets of neighbours."""
    scene = tmp_path / "office_0002"
    scene.mkdir()
    for i in (*range(10), *range(11, 21)):
        Image.new("RGB", (64, 64)).save(scene / f"{i:06d}.jpg")
    (scene / "intrinsics.json").write_text(
        '{"fx":60,"fy":60,"cx":32,"cy":32,"width":64,"height":64}'
    )
    for k in range(1, 5):
        frames = [Frame("office_0002", i, "l") for i in range(21) if i != 10]
        kept = {f.index for f in NYUv2Raw(tmp_path, frames, 64, 64, (0, -k, k)).frames}
        assert kept == {*range(k, 10 - k), *range(11 + k, 21 - k)}


def test_truncated_missing_and_late_frames(monkeypatch, capsys, tmp_path):
    """What the real dump has: half files, gaps in INDEX.txt, pauses."""
    scene = tmp_path / "dump" / "bedroom_0004"
    seconds = [i / 25 for i in range(12)] + [10 + i / 25 for i in range(12)]
    write_raw_scene(scene, [pose(0.08 * (i % 12)) for i in range(24)], seconds)
    colour = sorted(scene.glob("r-*.ppm"))
    colour[2].write_bytes(colour[2].read_bytes()[:5000])
    colour[3].write_bytes(b"")
    Image.new("RGB", (320, 240)).save(colour[4])
    colour[14].unlink()
    depth = sorted(scene.glob("d-*.pgm"))
    depth[0].write_bytes(depth[0].read_bytes()[:5000])
    (scene / "notes.txt").write_text("not a frame")
    out = tmp_path / "out"
    prepare(monkeypatch, "raw", tmp_path / "dump", out, "--min_parallax", 1.5)
    printed = capsys.readouterr().out
    assert "3 frames are truncated or damaged: skipped" in printed
    assert "1 frames that INDEX.txt names are not there" in printed
    assert "1 depth images are truncated or damaged" in printed
    (first, last), (again, end) = json.loads((out / "bedroom_0004/scene.json").read_text())[
        "sequences"
    ]
    assert first == 0 and again == last + 2  # the missing number parts what the pause parted
    assert not (out / "bedroom_0004" / f"{last + 1:06d}.jpg").exists()
    assert not (out / "bedroom_0004/depth/000000.png").exists()
    assert (out / "bedroom_0004/depth/000001.png").exists()
    data = NYUv2Raw(
        out, [Frame("bedroom_0004", i, "l") for i in range(end + 1) if i != last + 1], 64, 64,
        (0, -1, 1),
    )  # fmt: skip
    assert {f.index for f in data.frames}.isdisjoint({first, last, again, end})


def test_bad_recordings_are_refused_in_one_line(monkeypatch, capsys, recordings, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for argv, words in (
        ([tmp_path / "none", out], "no such folder"),
        ([tmp_path / "empty", out], "holds no folder of r-<time>-<n>.ppm"),
        ([recordings, recordings / "out"], "lies among the recordings"),
        ([recordings, out, "--crop", 300], "--crop 300"),
        ([recordings, out, "--min_parallax", "nan"], "--min_parallax"),
        ([recordings, out, "--size", "640"], "--size"),
    ):
        assert words in refused(monkeypatch, capsys, "raw", *argv)
    two = tmp_path / "two"
    for part in ("a", "b"):
        (two / part / "kitchen_0001a").mkdir(parents=True)
        (two / part / "kitchen_0001a" / "r-1.0-1.ppm").write_bytes(b"")
    assert "another scene of this name" in refused(monkeypatch, capsys, "raw", two, out)
    odd = tmp_path / "odd" / "my kitchen"
    odd.mkdir(parents=True)
    (odd / "r-1.0-1.ppm").write_bytes(b"")
    assert "letters, digits" in refused(monkeypatch, capsys, "raw", odd, out)
    assert not out.exists()
    turns = tmp_path / "turns" / "office_0002"
    write_raw_scene(turns, [pose(0, i) for i in range(3)])
    line = refused(monkeypatch, capsys, "raw", turns, out)
    assert "no frames to train on" in line and not (out / "splits").exists()


def scene(name, *runs):
    return Scene(name, list(runs), 0, 0, 0, 0, 0)


def test_whole_places_validate():
    many = [scene(f"room_{i:04d}{letter}", (0, 9)) for i in range(200) for letter in "ab"]
    train, val = divided(many)
    rooms = [{name[:-1] for name, _, _ in part} for part in (train, val)]
    assert not rooms[0] & rooms[1] and len(train) + len(val) == 400
    assert 2 <= len(rooms[1]) <= 25  # about one in twenty
    fewer = divided(many[:200])
    assert set(fewer[1]) <= set(val) and set(fewer[0]) <= set(train)
    assert (train[0][1], train[0][2]) == (1, 8)  # frames with both neighbours


def test_of_one_place_the_last_tenth_validates():
    train, val = divided([scene("room_0001", (0, 21), (23, 34), (36, 43))])
    assert train == [("room_0001", 1, 20), ("room_0001", 24, 33), ("room_0001", 37, 38)]
    assert val == [("room_0001", 39, 42)]
    train, val = divided([scene("room_0001", (0, 50), (52, 54), (56, 58), (60, 62))])
    assert val == [("room_0001", 49, 49)] + [("room_0001", i, i) for i in (53, 57, 61)] or (
        sum(b - a + 1 for _, a, b in val) == 6
    )
    frames = [(n, i) for n, a, b in train + val for i in range(a, b + 1)]
    assert len(frames) == len(set(frames)) == 52
