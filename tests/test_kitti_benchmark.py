"""The depth-prediction benchmark: its files, its metrics, its submission."""

import io
import json
import math
import shutil
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripts import fails, run

import checkpoint
from datasets import (
    BENCHMARKS,
    SPLITS,
    Frame,
    KITTIBenchmark,
    benchmark,
    exported,
    write_ground_truth,
)
from datasets.kitti_benchmark import (
    COMPLETION,
    PREDICTION,
    SELECTION,
    SERVER,
    KITTIDepthCrop,
    depth_to_png,
    write_submission,
)
from inference import seen_in_training
from metrics import score_depth, server_errors
from networks import Monodepth
from utils import UserError

DRIVE = "2011_09_26_drive_0002_sync"
HEIGHT, WIDTH = 44, 152  # an eighth of the real ones
EVALUATE = ("--num_workers", 0, "--no_cuda")
K = "90 0 75.5 0 90 {cy} 0 0 1\n"


def smooth_image(seed):
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 19, 3), np.uint8)
    return Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def put(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def sparse_depth(seed):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(4, 60, (HEIGHT, WIDTH)) * (rng.random((HEIGHT, WIDTH)) < 0.2)
    return Image.fromarray((depth * 256).astype(np.uint16))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Some files of data_depth_selection.zip, under their official names."""
    root = tmp_path_factory.mktemp("kitti")
    folder = root / "depth_selection" / SELECTION
    for i, camera in ((5, "02"), (5, "03"), (23, "02")):
        stem = f"{DRIVE}_{{}}_{i:010d}_image_{camera}"
        put(folder / "image" / f"{stem.format('image')}.png", smooth_image(i))
        for kind in ("groundtruth_depth", "velodyne_raw"):
            put(folder / kind / f"{stem.format(kind)}.png", sparse_depth(i))
        intrinsics = folder / "intrinsics" / f"{stem.format('image')}.txt"
        intrinsics.parent.mkdir(exist_ok=True)
        intrinsics.write_text(K.format(cy=17 + i / 10))
    (folder / "image" / "notes.png").write_bytes(b"")  # no frame's name
    for i in range(3):
        folder = root / "depth_selection" / COMPLETION
        put(folder / "image" / f"{i:010d}.png", smooth_image(i))
        put(folder / "velodyne_raw" / f"{i:010d}.png", sparse_depth(i))
    for i in range(500):
        path = root / "depth_selection" / PREDICTION / "image" / f"{i:010d}.png"
        if i < 2:
            put(path, smooth_image(i))
        else:
            shutil.copy(path.with_name("0000000001.png"), path)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_0"
    checkpoint.save_weights(folder, Monodepth(18, frame_ids=(0,)), 64, 64, use_stereo=False)
    return folder


# Files


def test_official_names_and_frames_correspond(archive):
    frames = KITTIBenchmark.listed(archive, SELECTION)
    folder = f"{SELECTION}/{DRIVE}"
    assert frames == [Frame(folder, 5, "l"), Frame(folder, 5, "r"), Frame(folder, 23, "l")]
    data = KITTIBenchmark(archive, frames, 64, 64)
    for i, frame in enumerate(frames):
        stem = f"{DRIVE}_{{}}_{frame.index:010d}_image_0{'23'[frame.side == 'r']}.png"
        base = archive / "depth_selection" / SELECTION
        assert data.find_image(frame) == base / "image" / stem.format("image")
        truth = base / "groundtruth_depth" / stem.format("groundtruth_depth")
        assert data.depth_path(frame) == truth
        np.testing.assert_array_equal(data.ground_truth(i), np.asarray(Image.open(truth)) / 256)


def test_the_folder_itself_may_be_the_data_path(archive):
    inner = archive / "depth_selection"
    frames = KITTIBenchmark.listed(inner, COMPLETION)
    assert frames == KITTIBenchmark.listed(archive, COMPLETION)
    assert frames == [Frame(COMPLETION, i, "l") for i in range(3)]
    data = KITTIBenchmark(inner, frames, 64, 64)
    assert data.depth_path(frames[1]) == inner / COMPLETION / "velodyne_raw" / "0000000001.png"


def test_every_image_has_its_own_camera(archive):
    frames = KITTIBenchmark.listed(archive, SELECTION)
    data = KITTIBenchmark(archive, frames, 2 * HEIGHT, 2 * WIDTH, intrinsics="calib")
    centres = [data[i]["K"][1, 2].item() for i in range(3)]
    assert centres == pytest.approx([2 * 17.5 + 0.5, 2 * 17.5 + 0.5, 2 * 19.3 + 0.5], abs=1e-4)
    broken = archive / "depth_selection" / SELECTION / "intrinsics"
    path = broken / f"{DRIVE}_image_0000000005_image_02.txt"
    for content, words in (
        ("1 2 3\n", "nine numbers"),
        (K.format(cy=17.5).replace("90", "0"), "no camera"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=words):
            data.calibrated_K(data.frames[0])
    path.write_text(K.format(cy=17.5))


def test_images_for_the_scale_are_cut_as_the_benchmarks(tmp_path):
    """A raw frame whose pixels say where they were; image, depth and camera agree on the cut."""
    height, width = 375, 1242
    drive = "2011_09_26/2011_09_26_drive_0001_sync"
    rows, columns = np.mgrid[:height, :width]
    place = np.stack([rows % 256, columns % 256, columns // 256], -1).astype(np.uint8)
    put(tmp_path / drive / "image_02/data/0000000005.png", Image.fromarray(place))
    depth = Image.fromarray((256 * (1 + rows % 100)).astype(np.uint16))
    put(tmp_path / drive / "proj_depth/groundtruth/image_02/0000000005.png", depth)
    (tmp_path / "2011_09_26/calib_cam_to_cam.txt").write_text(
        "S_rect_02: 1242 375\nP_rect_02: 720 0 610 45 0 720 173 0.2 0 0 1 0.003\n"
    )
    frame = Frame(drive, 5, "l")
    data = KITTIDepthCrop(tmp_path, [frame], 352, 1216, intrinsics="calib")
    cut = data[0]["color"][0]
    assert cut[:, 0, 0].tolist() == [375 - 352, 13, 0]
    assert cut[:, -1, -1].tolist() == [374 % 256, (13 + 1215) % 256, (13 + 1215) // 256]
    gt = data.ground_truth(0)
    assert gt.shape == (352, 1216) and (gt[0] == 1 + 23).all()
    assert data[0]["K"][:2, 2].tolist() == [610 - 13, 173 - 23]
    assert benchmark("benchmark_scale", "kitti").dataset is KITTIDepthCrop


def test_missing_archives_are_named(tmp_path):
    with pytest.raises(UserError, match="data_depth_selection.zip"):
        benchmark("benchmark_val", "kitti").frames(tmp_path)


def test_a_list_in_the_split_folder_is_used_instead_of_the_images(tmp_path):
    bench = benchmark("benchmark_val", "kitti")._replace(folder=tmp_path)
    (tmp_path / "test_files.txt").write_text(f"{SELECTION}/{DRIVE} 23 l\n")
    assert bench.frames(tmp_path) == [Frame(f"{SELECTION}/{DRIVE}", 23, "l")]


# The server's metrics


def test_server_metrics_of_two_pixels_by_hand():
    errors = server_errors(np.array([2.0, 4.0]), np.array([2.0, 5.0]))
    log = math.log(1.25)
    assert errors.silog == pytest.approx(100 * math.sqrt(log**2 / 2 - (log / 2) ** 2))
    assert errors.sq_error_rel == pytest.approx(100 * (0.25**2) / 2)
    assert errors.abs_error_rel == pytest.approx(12.5)
    assert errors.irmse == pytest.approx(1000 * math.sqrt(0.05**2 / 2))


@given(st.floats(0.1, 10), st.integers(0, 100))
def test_silog_alone_forgives_a_scale(scale, seed):
    gt = np.random.default_rng(seed).uniform(2, 60, 50)
    pred = gt * np.random.default_rng(seed + 1).uniform(0.8, 1.2, 50)
    one, scaled = server_errors(gt, pred), server_errors(gt, scale * pred)
    assert scaled.silog == pytest.approx(one.silog, rel=1e-6)
    perfect = server_errors(gt, scale * gt)
    assert perfect.silog == pytest.approx(0, abs=1e-5)
    assert perfect.abs_error_rel == pytest.approx(100 * abs(scale - 1), abs=1e-6)
    assert perfect.sq_error_rel == pytest.approx(100 * (scale - 1) ** 2, abs=1e-6)


def test_one_factor_for_all_images_is_not_one_for_each():
    gt = np.random.default_rng(0).uniform(5, 30, (8, 8)).astype(np.float32)
    halved = score_depth(2 / gt, gt, SERVER)
    assert halved.ratio == pytest.approx(2)
    assert halved.server.abs_error_rel == pytest.approx(50, abs=1e-3)
    assert score_depth(2 / gt, gt, SERVER, 2.0).server.abs_error_rel == pytest.approx(0, abs=1e-3)


# Scripts


def export(monkeypatch, archive, split, out):
    run(monkeypatch, "export_gt_depth", "--data_path", archive, "--split", split, "--gt_file", out)


def evaluate(monkeypatch, archive, weights, split, gt_file, *flags):
    run(monkeypatch, "evaluate_depth", *EVALUATE, "--data_path", archive, "--eval_split", split,
        "--load_weights_folder", weights, "--gt_file", gt_file, *flags)  # fmt: skip


def test_the_validation_selection_is_scored_as_by_the_server(
    monkeypatch, capsys, archive, weights, tmp_path
):
    gt_file, out = tmp_path / "gt.npz", tmp_path / "result.json"
    export(monkeypatch, archive, "benchmark_val", gt_file)
    evaluate(monkeypatch, archive, weights, "benchmark_val", gt_file, "--eval_mono", "--json", out)
    printed = capsys.readouterr().out
    assert "images: 3 of 3 (the benchmark has 1000)" in printed
    assert "the median ratio of these very images" in printed and "silog" in printed
    result = json.loads(out.read_text())
    assert set(result["server_metrics"]) == {"silog", "sq_error_rel", "abs_error_rel", "irmse"}
    mean = np.mean([image["silog"] for image in result["per_image"]])
    assert result["server_metrics"]["silog"] == pytest.approx(mean)
    evaluate(monkeypatch, archive, weights, "benchmark_val", gt_file, "--eval_mono",
        "--pred_depth_scale_factor", result["depth_scale"]["value"])  # fmt: skip
    again = capsys.readouterr().out
    assert printed.splitlines()[-2:] == again.splitlines()[-2:]
    assert "no median scaling" in again


def test_the_reports_setting_is_labelled_as_what_it_is(
    monkeypatch, capsys, archive, weights, tmp_path
):
    gt_file = tmp_path / "gt.npz"
    export(monkeypatch, archive, "benchmark_report", gt_file)
    evaluate(monkeypatch, archive, weights, "benchmark_report", gt_file, "--eval_mono")
    printed = capsys.readouterr().out
    assert "SCORED AGAINST THEIR INPUT LIDAR" in printed and "no ground truth" in printed
    assert "images: 3 of 3 (the benchmark has 1000)" in printed and "silog" not in printed


def test_a_submission_is_what_the_server_takes(monkeypatch, capsys, archive, weights, tmp_path):
    flags = (*EVALUATE, "--data_path", archive, "--eval_split", "benchmark", "--batch_size", 50)
    run(monkeypatch, "evaluate_depth", *flags, "--load_weights_folder", weights, "--eval_stereo",
        "--save_pred_disps", "--eval_out_dir", tmp_path)  # fmt: skip
    printed = capsys.readouterr().out
    assert "depth x 5.4 (the stereo rig's)" in printed and "500 depth images" in printed
    disps = np.load(tmp_path / "disps_benchmark_split.npy")
    with zipfile.ZipFile(tmp_path / "benchmark_submission.zip") as content:
        assert content.namelist() == [f"{i:010d}.png" for i in range(500)]
        for i in (0, 1, 499):
            image = Image.open(io.BytesIO(content.read(f"{i:010d}.png")))
            assert image.size == (WIDTH, HEIGHT) and image.mode.startswith("I;16")
            depth = np.asarray(image) / 256
            small = np.asarray(Image.fromarray(disps[i]).resize((WIDTH, HEIGHT), 2))
            assert np.median(depth) == pytest.approx(5.4 / np.median(small), rel=0.05)
            assert depth.min() > 0
    # the same zip from the saved disparities, with the factor by flag
    first = (tmp_path / "benchmark_submission.zip").read_bytes()
    run(monkeypatch, "evaluate_depth", *flags, "--ext_disp_to_eval",
        tmp_path / "disps_benchmark_split.npy", "--eval_mono", "--pred_depth_scale_factor", 5.4,
        "--eval_out_dir", tmp_path / "again")  # fmt: skip
    second = (tmp_path / "again" / "benchmark_submission.zip").read_bytes()
    a, b = (zipfile.ZipFile(io.BytesIO(x)) for x in (first, second))
    assert all(a.read(name) == b.read(name) for name in ("0000000000.png", "0000000499.png"))


def test_submissions_that_would_be_refused_are_not_written(
    monkeypatch, capsys, archive, weights, tmp_path
):
    def line(*flags, data=archive):
        return fails(monkeypatch, capsys, "evaluate_depth", *EVALUATE, "--data_path", data,
            "--eval_split", "benchmark", "--eval_out_dir", tmp_path / "out", *flags)  # fmt: skip

    own = ("--load_weights_folder", weights)
    for name in ("benchmark", "benchmark/", SPLITS / "benchmark"):
        spelt = ("--eval_split", name)
        assert "takes metres" in line(*own, "--eval_mono", *spelt)
        for idle in ("--json", "--gt_file"):
            assert f"{idle}: benchmark is scored by its server" in line(
                *own, "--eval_stereo", *spelt, idle, tmp_path / "file"
            )
    partial = tmp_path / "partial"
    shutil.copytree(archive / "depth_selection" / PREDICTION, partial / PREDICTION, symlinks=True)
    (partial / PREDICTION / "image" / "0000000499.png").unlink()
    assert "1 of 500 frames" in line(*own, "--eval_stereo", data=partial)
    for count, words in ((499, "d.npy: fewer than 500"), (501, "d.npy: more than 500")):
        np.save(tmp_path / "d.npy", np.ones((count, 4, 4), np.float32))
        given = ("--ext_disp_to_eval", tmp_path / "d.npy", "--eval_stereo")
        assert words in line(*given)
    assert not list((tmp_path / "out").glob("*"))


def test_the_global_factor_comes_from_another_split(
    monkeypatch, capsys, archive, weights, sample, tmp_path
):
    """A network of a hidden scale: the factor found on a split with truth is that scale."""
    root = tmp_path / "data"
    root.mkdir()
    for path in (archive / "depth_selection", sample / "2011_09_26"):
        (root / path.name).symlink_to(path)
    split = tmp_path / "factor"
    split.mkdir()
    (split / "test_files.txt").write_text("2011_09_26/2011_09_26_drive_0003_sync 2-5 l\n")
    run(monkeypatch, "export_gt_depth", "--data_path", root, "--split", split)
    gt_file, out = tmp_path / "gt.npz", tmp_path / "result.json"
    export(monkeypatch, root, "benchmark_val", gt_file)
    evaluate(
        monkeypatch, root, weights, split, split / "gt_depths.npz", "--eval_mono", "--json", out
    )
    ratio = json.loads(out.read_text())["ratio"]["median"]
    evaluate(monkeypatch, root, weights, "benchmark_val", gt_file, "--eval_mono", "--json", out,
        "--scale_split", split)  # fmt: skip
    result = json.loads(out.read_text())
    assert result["depth_scale"]["value"] == pytest.approx(ratio, rel=1e-5)
    assert "4 images of factor" in result["depth_scale"]["origin"]
    assert "no median scaling" in result["protocol"]
    (split / "test_files.txt").write_text("2011_09_26/2011_09_26_drive_0003_sync 3-6 l\n")
    line = fails(monkeypatch, capsys, "evaluate_depth", *EVALUATE, "--data_path", root,
        "--eval_split", "benchmark_val", "--gt_file", gt_file, "--eval_mono",
        "--load_weights_folder", weights, "--scale_split", split)  # fmt: skip
    assert "belongs to other frames than factor" in line


def test_known_benchmarks_take_ground_truth_of_their_own_kind_only(monkeypatch, tmp_path):
    """Whole images would give benchmark_scale another factor than its cut ones."""
    monkeypatch.setattr("datasets.benchmarks.SPLITS", tmp_path)
    folder = tmp_path / "benchmark_scale"
    folder.mkdir()
    (folder / "test_files.txt").write_text(f"2011_09_26/{DRIVE} 5 l\n")
    known = BENCHMARKS["benchmark_scale"]._replace(folder=folder)
    monkeypatch.setitem(BENCHMARKS, "benchmark_scale", known)
    frames, depth = known.frames(tmp_path), [np.ones((2, 2), np.float32)]
    write_ground_truth(known.gt_file, frames, depth, "made up", "KITTIDepth")
    with pytest.raises(UserError, match="holds depth of KITTIDepth; export that of"):
        exported(str(folder))
    write_ground_truth(known.gt_file, frames, depth, "made up", "KITTIDepthCrop")
    bench, gt = exported(str(folder))
    assert bench is known and gt.frames == [str(frames[0])]
    own = tmp_path / "elsewhere" / "own"
    own.mkdir(parents=True)
    for kind, taken in (("KITTIDepth", True), ("KITTIRaw", True), ("KITTIDepthCrop", False)):
        write_ground_truth(own / "gt_depths.npz", frames, depth, "made up", kind)
        if taken:
            assert exported(str(own))[0].dataset.__name__ == kind
        else:
            with pytest.raises(UserError, match="holds depth of KITTIDepthCrop; export"):
                exported(str(own))


def test_depth_in_metres_is_submitted_as_it_is(monkeypatch, capsys, archive, tmp_path):
    np.save(tmp_path / "d.npy", np.full((500, 2, 2), 1 / 20, np.float32))
    run(monkeypatch, "evaluate_depth", "--eval_mono", "--disable_median_scaling", "--eval_split",
        "benchmark", "--data_path", archive, "--ext_disp_to_eval", tmp_path / "d.npy",
        "--eval_out_dir", tmp_path)  # fmt: skip
    assert "depth as predicted" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "benchmark_submission.zip") as content:
        image = np.asarray(Image.open(io.BytesIO(content.read("0000000007.png"))))
    assert (image == 20 * 256).all()


def test_models_trained_on_scored_recordings_are_named(
    monkeypatch, capsys, archive, weights, tmp_path
):
    gt_file = tmp_path / "gt.npz"
    export(monkeypatch, archive, "benchmark_val", gt_file)
    options = weights.parent / "opt.json"
    own = tmp_path / "own"
    own.mkdir()
    (own / "train_files.txt").write_text(f"2011_09_26/{DRIVE} 1-50 lr\n")
    try:
        for split, warned in ((str(own), True), ("eigen_zhou", False), ("gone", False)):
            options.write_text(json.dumps({"split": split}))
            evaluate(monkeypatch, archive, weights, "benchmark_val", gt_file, "--eval_mono")
            printed = capsys.readouterr().out
            assert ("1 of the recordings" in printed and DRIVE in printed) == warned
        options.write_text(json.dumps({"split": "eigen_zhou"}))
        run(monkeypatch, "evaluate_depth", *EVALUATE, "--data_path", archive, "--eval_split",
            "benchmark", "--eval_mono", "--no_eval", "--save_pred_disps", "--batch_size", 100,
            "--eval_out_dir", tmp_path, "--load_weights_folder", weights)  # fmt: skip
        assert "only 'benchmark' leaves out" in capsys.readouterr().out
        for split in ("benchmark", "benchmark/", str(SPLITS / "benchmark")):
            options.write_text(json.dumps({"split": split}))
            shown = seen_in_training(weights, [Frame(PREDICTION, 0, "l")], archive)
            assert shown == ("benchmark", set())
    finally:
        options.unlink(missing_ok=True)


def test_depth_images_are_rounded_and_never_say_missing():
    depth = np.array([[0.0, 1e-3, 1.0, 10.7 / 256, 80.0, 300.0]], np.float32)
    units = np.asarray(depth_to_png(depth))
    assert units.dtype == np.uint16
    assert units.tolist() == [[1, 1, 256, 11, 20480, 65535]]


@pytest.mark.parametrize("numbers", [range(499), [0, *range(499)], range(1, 501), range(501)])
def test_submissions_have_each_image_once(tmp_path, numbers):
    depth = np.ones((1, 1), np.float32)
    with pytest.raises(UserError, match="images 0 to 499, each once"):
        frames = [Frame(PREDICTION, i, "l") for i in numbers]
        write_submission(tmp_path / "s.zip", frames, [depth] * len(frames))
    assert not list(tmp_path.iterdir())


def test_submissions_name_images_by_their_number(tmp_path):
    frames = [Frame(PREDICTION, i, "l") for i in range(499, -1, -1)]
    maps = (np.full((1, 1), 1 + frame.index / 16, np.float32) for frame in frames)
    write_submission(tmp_path / "s.zip", frames, maps)
    with zipfile.ZipFile(tmp_path / "s.zip") as content:
        image = Image.open(io.BytesIO(content.read("0000000020.png")))
        assert np.asarray(image).item() == 256 + 20 * 16


def test_real_samples_export_and_score(monkeypatch, capsys, real_data, weights, tmp_path):
    """The three samples at hand, under the official names."""
    source = real_data / "kitti_depth_selection"
    root = tmp_path / "depth_selection"
    for number in (3, 4, 5):
        files = {
            root / COMPLETION / "image" / f"{number:010d}.png": "rgb",
            root / COMPLETION / "velodyne_raw" / f"{number:010d}.png": "sparse_depth",
            root / SELECTION / "image" / f"{DRIVE}_image_{number:010d}_image_02.png": "rgb",
            root
            / SELECTION
            / "groundtruth_depth"
            / f"{DRIVE}_groundtruth_depth_{number:010d}_image_02.png": "gt_depth",
        }
        for target, name in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / str(number) / f"{name}.png", target)
    for split, words in (("benchmark_val", "silog"), ("benchmark_report", "INPUT LIDAR")):
        export(monkeypatch, tmp_path, split, tmp_path / f"{split}.npz")
        evaluate(monkeypatch, tmp_path, weights, split, tmp_path / f"{split}.npz", "--eval_mono")
        printed = capsys.readouterr().out
        assert "images: 3 of 3" in printed and words in printed
