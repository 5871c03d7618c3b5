"""Focal lengths that are learnt with depth and motion (--learn_intrinsics)."""

import json

import numpy as np
import pytest
import torch
from folders import as_folder, write_camera
from scripts import TINY, run

from datasets import Frame, VideoFolder
from datasets.intrinsics import resize_K
from doctor import examine
from layers import backproject, pose_matrix, project, warp
from losses import photometric_error
from networks import Monodepth
from networks.cameras import PACE, LearnedCameras


def test_cameras_begin_as_given_and_have_one_factor_each():
    cameras = LearnedCameras(3)
    K = torch.tensor([[300.0, 0, 100], [0, 310, 50], [0, 0, 1]]).repeat(4, 1, 1)
    numbers = torch.tensor([0, 1, 1, -1])
    assert torch.equal(cameras(K, numbers), K)
    with torch.no_grad():
        cameras.log_zoom += torch.tensor([0.1, -0.1, 5.0]) / PACE
    zoomed = cameras(K, numbers)
    for row, factor in enumerate(torch.tensor([0.1, -0.1, -0.1, 0.0]).exp()):
        expected = K[row] * torch.tensor([[1.0], [1.0], [1.0]])
        expected[0, 0] *= factor
        expected[1, 1] *= factor
        torch.testing.assert_close(zoomed[row], expected)


def test_a_model_without_learned_cameras_takes_k_as_it_is():
    K = torch.eye(3)[None]
    assert Monodepth(frame_ids=(0,)).intrinsics(K, torch.tensor([0])) is K


def test_a_turning_camera_tells_its_focal_length():
    """With the true motion, a turn without translation, the loss alone leads to the true K."""
    torch.manual_seed(0)
    H, W = 48, 96
    coarse = torch.rand(1, 3, 12, 24)
    target = torch.nn.functional.interpolate(coarse, (H, W), mode="bicubic").clamp(0, 1)
    true = torch.tensor([[[60.0, 0, 47.5], [0, 60, 23.5], [0, 0, 1]]])
    depth = torch.full((1, 1, H, W), 5.0)
    turns = torch.tensor([[0.0, 0.2, 0.0], [0.15, 0.0, 0.0], [0.0, -0.2, 0.1]])
    poses = pose_matrix(turns, torch.zeros(3, 3))

    def seen(image, K, T):
        return warp(image, project(backproject(depth, torch.linalg.inv(K)), K, T, H, W))

    sources = [seen(target, true, torch.linalg.inv(T[None])) for T in poses]
    cameras = LearnedCameras(1)
    adam = torch.optim.Adam(cameras.parameters(), 1e-3)
    for _ in range(60):
        K = cameras(true * torch.tensor([[1.2], [1.2], [1.0]]), torch.tensor([0]))
        errors = [
            photometric_error(seen(source, K, T[None]), target)[..., 8:-8, 24:-24].mean()
            for source, T in zip(sources, poses, strict=True)
        ]
        adam.zero_grad()
        sum(errors).backward()
        adam.step()
    assert 1.2 * cameras.zoom.item() == pytest.approx(1, abs=0.05)


def test_sequences_with_one_camera_name_share_it(sample, tmp_path):
    own = as_folder(sample, tmp_path / "own")
    frames = [Frame(f"drive_{n:04d}", 4, "l") for n in (1, 2, 3)]
    assert VideoFolder(own, frames, 64, 96).cameras == [f"drive_{n:04d}" for n in (1, 2, 3)]
    for n in (1, 3):
        write_camera(own / f"drive_{n:04d}", camera="gopro")
    data = VideoFolder(own, frames, 64, 96)
    assert data.cameras == ["drive_0002", "gopro"]
    assert [data[i]["camera"] for i in range(3)] == [1, 0, 1]
    K, size = data.camera_of("gopro")
    assert size == (416, 128)
    np.testing.assert_allclose(resize_K(K, size, (96, 64)), data[0]["K"], rtol=1e-6)
    data.cameras = ["gopro"]  # those of a training that has not seen the other
    assert [data[i]["camera"] for i in range(3)] == [0, -1, 0]


def test_training_learns_says_saves_and_resumes(monkeypatch, capsys, sample, tmp_path):
    own = as_folder(sample, tmp_path / "own")
    base = ("--dataset", "folder", "--data_path", own, *TINY, "--learn_intrinsics", "--log_dir",
            tmp_path, "--learning_rate", 1e-3, "--batch_size", 14)  # fmt: skip
    run(monkeypatch, "train", *base, "--num_epochs", 1)
    out = capsys.readouterr().out
    assert "camera drive_0001: focal length" in out and "of the one given)" in out
    weights = tmp_path / "mdp/models/weights_0"
    learned = json.loads((weights / "cameras.json").read_text())
    assert learned.keys() == {"drive_0001", "drive_0002"}
    one = learned["drive_0001"]
    given = 0.58 * 416  # in pixels of the images
    assert one["fx"] != pytest.approx(given, rel=1e-4)
    assert one["fx"] == pytest.approx(given, rel=0.5)
    saved = torch.load(weights / "cameras.pth", weights_only=True)["log_zoom"]
    assert (PACE * saved).exp()[0].item() * given == pytest.approx(one["fx"], rel=1e-5)
    run(monkeypatch, "train", *base, "--num_epochs", 2, "--resume")
    assert json.loads((tmp_path / "mdp/models/weights_1/cameras.json").read_text()) != learned
    folder = own / "drive_0001"
    write_camera(folder, **one)  # it is what intrinsics.json takes
    data = VideoFolder(own, [Frame("drive_0001", i, "l") for i in range(3, 9)], 64, 64, (0, -1, 1))
    assert data[0]["K"][0, 0].item() == pytest.approx(one["fx"] * 64 / 416)
    assert "image size" not in {finding.check for finding in examine(data).findings}
