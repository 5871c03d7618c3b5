"""Real NYUv2 pieces, where they are at hand, through the code that reads the whole data set."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from scripts import TINY, run

from datasets import Frame, NYUv2, NYUv2Raw
from datasets.images import read_depth_image
from datasets.kinect import COLOUR_K, read_raw_depth, register, undistort
from layers import backproject, project, warp
from tools.nyuv2_mat import write_labelled_mat


@pytest.fixture(scope="module")
def pieces(real_data):
    if not (real_data / "nyuv2").is_dir():
        pytest.skip("no real NYUv2 pieces here")
    return real_data / "nyuv2"


@pytest.fixture(scope="module")
def pairs(pieces):
    """Colour and depth pairs: three of a basement, five with poses of a dining room."""
    basement = [
        (pieces / f"sync_pairs/rgb/rgb_{n}.jpg", pieces / f"sync_pairs/depth/sync_depth_{n}.png")
        for n in ("00000", "00050", "00100")
    ]
    dining = [
        (pieces / f"poses5/color/{i}.png", pieces / f"poses5/depth/{i}.pgm") for i in range(1, 6)
    ]
    return basement + dining


@pytest.fixture(scope="module")
def labelled(pairs, tmp_path_factory):
    """The pairs as a labelled set, through its MATLAB file."""
    root = tmp_path_factory.mktemp("real")

    def samples():
        for colour, depth in pairs:
            depth_m = read_depth_image(depth, 1e-3)
            yield np.asarray(Image.open(colour).convert("RGB")), depth_m, depth_m

    scenes = ["basement_0001"] * 3 + ["dining_room_0001"] * 5
    write_labelled_mat(root / "real.mat", samples(), scenes)
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "tools.prepare_nyuv2", "labelled", root / "real.mat", root / "nyuv2")
    return root / "nyuv2"


def test_labelled_pairs_load_in_metres(labelled, pairs):
    frames = [Frame("images", i, "l") for i in range(1, 9)]
    data = NYUv2(labelled, frames, 480, 640, with_depth=True)
    for sample, (colour, depth) in zip(map(data.__getitem__, range(8)), pairs, strict=True):
        assert sample["color"].shape == (1, 3, 480, 640)
        image = np.asarray(Image.open(colour).convert("RGB"), float)
        assert np.abs(sample["color"][0].permute(1, 2, 0).numpy() - image).mean() < 3
        np.testing.assert_allclose(sample["depth_gt"], read_depth_image(depth, 1e-3), atol=6e-4)
        known = sample["depth_gt"][sample["depth_gt"] > 0]
        assert 1 < np.median(known) < 5 and known.max() <= 10
    assert len(NYUv2(labelled, frames, 64, 64, (0, -1, 1))) == 4  # 2, and 5 to 7


def test_labelled_pairs_train_and_are_scored(monkeypatch, capsys, labelled, tmp_path):
    for part in ("train", "val", "test"):
        (tmp_path / f"{part}_files.txt").write_text("images 1-8 l\n")
    own = ("--dataset", "nyuv2", "--data_path", labelled)
    run(monkeypatch, "train", *own, "--split", tmp_path, *TINY, "--num_epochs", 1, "--log_dir",
        tmp_path)  # fmt: skip
    run(monkeypatch, "export_gt_depth", *own, "--split", tmp_path)
    run(monkeypatch, "evaluate_depth", *own, "--eval_split", tmp_path, "--no_cuda",
        "--load_weights_folder", tmp_path / "mdp/models/weights_0")  # fmt: skip
    assert "images: 8 of 8" in capsys.readouterr().out


def test_depth_and_camera_warp_one_posed_frame_into_another(pieces):
    """Frames 2 and 3 of the dining room, half a metre apart, by their recorded poses."""
    rows = np.loadtxt(pieces / "poses5/pose.txt")

    def frame(i):
        world = np.eye(4)
        world[:3, 3], world[:3, :3] = rows[i, :3], Rotation.from_quat(rows[i, 3:]).as_matrix()
        image = np.array(Image.open(pieces / f"poses5/color/{i + 1}.png").convert("RGB"))
        depth_m = read_depth_image(pieces / f"poses5/depth/{i + 1}.pgm", 1e-3)
        color = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        return world, color, depth_m

    (here, target, depth_m), (there, source, _) = frame(3), frame(4)
    T = torch.from_numpy(np.linalg.inv(there) @ here).float()[None]
    K = torch.from_numpy(COLOUR_K).float()[None]
    depth = torch.from_numpy(depth_m)[None, None]
    known = depth_m > 0

    def error(T, K):
        grid = project(backproject(depth, torch.linalg.inv(K)), K, T, 480, 640)
        inside = known & (grid[0].abs() < 0.98).all(-1).numpy()
        difference = (warp(source, grid) - target).abs().mean((0, 1)).numpy()
        return np.median(difference[inside])

    right = error(T, K)
    assert right < 0.6 * error(torch.eye(4)[None], K)
    assert right < 0.8 * error(torch.linalg.inv(T), K)
    shifted = K.clone()
    shifted[:, 0, 2] += 60
    assert right < error(T, shifted)


def test_the_single_pair_has_the_kinects_camera(pieces):
    K = np.load(pieces / "unidepth_demo/intrinsics.npy")
    np.testing.assert_allclose(K, COLOUR_K, atol=0.5)
    depth_m = read_depth_image(pieces / "unidepth_demo/depth.png", 1e-3)
    assert 1 < np.median(depth_m[depth_m > 0]) < 5


def test_the_raw_pair_is_decoded_undistorted_and_registered(pieces):
    """Depth edges lie on colour edges, and not if the cameras are put the other way round."""
    raw = read_raw_depth(pieces / "raw_kinect/NYU_depth.pgm")
    assert 0.9 < (raw > 0).mean() < 1 and 2 < np.median(raw[raw > 0]) < 4
    image = undistort(np.asarray(Image.open(pieces / "raw_kinect/NYU_color.ppm")))
    assert not image[0].any() and image[16:-16, 16:-16].mean() > 30  # a black margin inside 16
    assert (image[16:-16, 16:-16].max(2) > 0).mean() > 0.99
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    gradient = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))

    def on_edges(depth_m):
        smooth = cv2.medianBlur(depth_m, 5)
        near = cv2.erode(np.where(smooth > 0, smooth, 99).astype(np.float32), np.ones((3, 3)))
        edge = (smooth > 0) & (cv2.dilate(smooth, np.ones((3, 3))) - near > 0.08 * smooth)
        return np.minimum(gradient, 200)[edge].mean()

    registered = register(raw)
    shifts = range(-12, 13, 3)
    for axis in (0, 1):
        fit = {shift: on_edges(np.roll(registered, shift, axis)) for shift in shifts}
        assert max(fit, key=fit.get) == 0, fit
    assert on_edges(registered) > 1.5 * on_edges(raw)


def test_the_raw_pair_goes_through_the_tool(monkeypatch, capsys, pieces, tmp_path):
    """Three copies with shifted content as a scene, since one pair is no sequence."""
    scene = tmp_path / "dump" / "basement_0001a"
    scene.mkdir(parents=True)
    image = np.asarray(Image.open(pieces / "raw_kinect/NYU_color.ppm"))
    for i in range(3):
        moved = np.concatenate([image[:240], np.roll(image[240:], -12 * i, axis=1)])
        Image.fromarray(moved).save(scene / f"r-{1000 + i / 25:.6f}-{i}.ppm")
        shutil.copy(pieces / "raw_kinect/NYU_depth.pgm", scene / f"d-{1000 + i / 25:.6f}-{i}.pgm")
    out = tmp_path / "out"
    with pytest.raises(SystemExit):  # too little for training and validation
        run(monkeypatch, "tools.prepare_nyuv2", "raw", tmp_path / "dump", out)
    assert "3 of 3 frames kept" in capsys.readouterr().out
    data = NYUv2Raw(out, [Frame("basement_0001a", 1, "l")], 288, 384, (0, -1, 1), with_depth=True)
    sample = data[0]
    assert sample["color"].shape == (3, 3, 288, 384)
    known = sample["depth_gt"][sample["depth_gt"] > 0]
    assert sample["depth_gt"].shape == (448, 608) and 2 < np.median(known) < 4


def test_the_colour_clip_is_a_sequence(pieces, tmp_path):
    clip = pieces / "deepv2d_clips/nyu_0"
    fx, fy, cx, cy = np.loadtxt(clip / "intrinsics.txt")
    np.testing.assert_allclose([fx, fy, cx, cy], COLOUR_K[[0, 1, 0, 1], [0, 1, 2, 2]], atol=0.01)
    scene = tmp_path / "clip"
    scene.mkdir()
    for i in range(8):
        shutil.copy(clip / f"{i:03d}.png", scene / f"{i:06d}.png")
    text = f'{{"fx":{fx},"fy":{fy},"cx":{cx},"cy":{cy},"width":640,"height":480}}'
    (scene / "intrinsics.json").write_text(text)
    frames = [Frame("clip", i, "l") for i in range(8)]
    data = NYUv2Raw(tmp_path, frames, 288, 384, (0, -1, 1), intrinsics="calib")
    assert len(data) == 6
    sample = data[2]
    for image, i in zip(sample["color"], (3, 2, 4), strict=True):
        expected = Image.open(clip / f"{i:03d}.png").resize((384, 288), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(expected))
    assert sample["K"][0, 0].item() == pytest.approx(fx * 0.6, rel=1e-5)
