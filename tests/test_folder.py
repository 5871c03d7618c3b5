"""Sequences of one's own: --dataset folder."""

import json

import numpy as np
import pytest
import torch
from folders import as_folder, write_camera
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripts import TINY, fails, run

from datasets import Frame, KITTIDepth, VideoFolder, find_sequences, read_sequence
from datasets.folder import not_black, numbered_files
from tools.sample_files import BASELINE_M, drive_name
from utils import UserError

CAMERA = {"fx": 200.0, "fy": 210.0, "cx": 150.5, "cy": 60.0, "width": 320, "height": 120}
KITTI = "2011_09_26/2011_09_26_drive_0001_sync"


@pytest.fixture
def own(sample, tmp_path):
    """The street as a folder of one's own."""
    return as_folder(sample, tmp_path / "own")


def sequence(folder, **changes):
    folder.mkdir(exist_ok=True)
    write_camera(folder, **CAMERA | changes)
    return read_sequence(folder)


def test_samples_are_those_of_the_kitti_layout_but_for_metres(sample, own):
    options = {"frame_ids": (0, -1, 1), "use_stereo": True, "with_depth": True}
    for side in "lr":
        mine = VideoFolder(own, [Frame("drive_0001", 4, side)], 64, 96, **options)
        kitti = KITTIDepth(sample, [Frame(KITTI, 4, side)], 64, 96, intrinsics="calib", **options)
        a, b = mine[0], kitti[0]
        assert torch.equal(a["color"], b["color"])
        torch.testing.assert_close(a["K"], b["K"])
        factor = BASELINE_M / kitti.baseline
        assert a["stereo_T"][0, 3] == pytest.approx(factor * b["stereo_T"][0, 3].item())
        if side == "l":
            np.testing.assert_allclose(a["depth_gt"], b["depth_gt"], rtol=1e-6)
        else:
            assert a["depth_gt"] is None


def test_a_flip_mirrors_the_mask_with_the_image(own):
    mask = np.full((128, 416), 255, np.uint8)
    mask[100:, :200] = 0
    Image.fromarray(mask).save(own / "drive_0001/mask.png")
    write_camera(own / "drive_0001", mask="mask.png")
    frames = [Frame("drive_0001", 4, "l"), Frame("drive_0002", 4, "l")]
    data = VideoFolder(own, frames, 64, 208, augment=True)
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        one = data[0]
        left, right = one["valid"][-8:, :90].any().item(), one["valid"][-8:, -90:].any().item()
        assert left != right and one["valid"][:48].all()
        assert left == (one["K"][0, 2].item() < 103.5)
        seen.add(left)
    assert seen == {True, False}
    assert data[1]["valid"].all()  # another sequence, without a mask
    assert "valid" not in VideoFolder(own, frames[1:], 64, 208)[0]


@given(
    st.dictionaries(st.integers(0, 10**6), st.sampled_from([".jpg", ".png", ".jpeg"]), max_size=8),
    st.sampled_from(["", "frame_", "img-", "GOPR01_2x_"]),
    st.integers(1, 9),
)
def test_frames_are_found_by_the_number_that_ends_their_name(
    tmp_path_factory, files, before, digits
):
    folder = tmp_path_factory.mktemp("frames")
    for number, extension in files.items():
        (folder / f"{before}{number:0{digits}d}{extension}").touch()
    (folder / "notes.txt").touch()
    (folder / "cover.jpg").touch()
    found = numbered_files(folder, (".jpg", ".png", ".jpeg"))
    expected = {n: f"{before}{n:0{digits}d}{extension}" for n, extension in files.items()}
    assert found == expected


def test_of_one_number_the_first_extension_is_taken_and_twins_are_refused(tmp_path):
    for name in ("a_1.png", "a_1.jpg", "a_2.png"):
        (tmp_path / name).touch()
    assert numbered_files(tmp_path, (".jpg", ".png")) == {1: "a_1.jpg", 2: "a_2.png"}
    (tmp_path / "b_2.png").touch()
    with pytest.raises(UserError, match="a_2.png and b_2.png have the same number"):
        numbered_files(tmp_path, (".jpg", ".png"))


def test_a_gap_parts_two_recordings(own):
    frames = [Frame("drive_0001", i, "l") for i in range(12)]
    assert len(VideoFolder(own, frames, 64, 96, (0, -2, 2))) == 8
    (own / "drive_0001/left").unlink()
    folder = own / "drive_0001/left"
    folder.mkdir()
    for i in (0, 1, 2, 3, 5, 6, 7, 8):  # the film was cut after 3
        Image.new("RGB", (416, 128)).save(folder / f"{i}.jpg")
    frames = [f for f in frames if f.index in (0, 1, 2, 3, 5, 6, 7, 8)]
    assert [f.index for f in VideoFolder(own, frames, 64, 96, (0, -1, 1)).frames] == [1, 2, 6, 7]
    with pytest.raises(UserError, match="nothing remains"):
        VideoFolder(own, frames, 64, 96, (0, -2, 2))


def test_normalised_cameras_are_monodepths_numbers(own):
    folder = own / "drive_0001"
    K = read_sequence(folder).K
    numbers = {"fx": K[0, 0] / 416, "fy": K[1, 1] / 128, "cx": K[0, 2] / 416, "cy": K[1, 2] / 128}
    write_camera(folder, normalised=True, **numbers, width=None, height=None)
    one = read_sequence(folder)
    np.testing.assert_allclose(one.K, K)
    assert one.size == (416, 128)  # of the first image
    write_camera(folder, width=832, height=256)
    np.testing.assert_allclose(read_sequence(folder).K[:2], 2 * K[:2])


def test_defaults_of_a_camera(tmp_path):
    one = sequence(tmp_path / "a")
    assert (one.partner, one.depth, one.mask) == (None,) * 3
    assert not one.guessed and one.images == tmp_path / "a"
    assert one.camera is None and sequence(tmp_path / "b").camera is None
    assert sequence(tmp_path / "c", camera="gopro").camera == "gopro"
    assert find_sequences(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"fx": None}, "lacks 'fx'"),
        ({"fx": "200"}, "'fx' is \"200\", not a number"),
        ({"fx": float("nan")}, "'fx' is NaN, not a number"),
        ({"fx": True}, "not a number"),
        ({"fx": -1}, "describes no camera"),
        ({"width": None}, "lacks 'width'"),
        ({"cx": 700}, "lies outside images of 320x120: is K of another size"),
        ({"focal": 1}, "'focal' means nothing here; known are about, camera, cx"),
        ({"images": "../b"}, "inside the folder of the sequence"),
        ({"images": "/etc"}, "inside the folder of the sequence"),
        ({"stereo": {"images": "right"}}, "lacks 'stereo.baseline_m'"),
        ({"stereo": {"images": "right", "baseline_m": 0}}, "a baseline_m of 0 is no stereo pair"),
        ({"stereo": "right"}, "not an object of names and values"),
        ({"depth": {"images": "depth", "metres_per_unit": 0}}, "metres_per_unit 0 must be above 0"),
        ({"depth": {"images": "d", "metres_per_unit": 1, "x": 1}}, "'depth.x' means nothing here"),
        ({"normalised": "yes"}, "not true or false"),
        ({"camera": ""}, "not a text"),
    ],
)
def test_a_bad_camera_is_named(tmp_path, changes, words):
    with pytest.raises(UserError) as caught:
        sequence(tmp_path / "a", **changes)
    line = str(caught.value)
    assert str(tmp_path / "a/intrinsics.json") in line and words in line


def test_bad_masks_are_refused_before_training(own):
    frames = [Frame("drive_0001", 4, "l")]
    write_camera(own / "drive_0001", mask="mask.png")
    for picture, words in (
        (None, "no such mask"),
        (np.zeros((64, 64), np.uint8), "has 64x64 pixels, its camera 416x128"),
        (np.zeros((128, 416), np.uint8), "black all over"),
        (np.full((128, 416), 9, np.uint8), "black all over"),  # nearly, as JPEG makes it
        (b"not an image", "cannot be read as a mask"),
    ):
        path = own / "drive_0001/mask.png"
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        elif picture is not None:
            Image.fromarray(picture).save(path)
        with pytest.raises(UserError, match=words):
            VideoFolder(own, frames, 64, 96)


def test_training_evaluation_and_export(monkeypatch, capsys, own, tmp_path):
    """Stereo gives metres at a factor of 1, and a mask goes all the way into the loss."""
    mask = np.full((128, 416), 255, np.uint8)
    mask[96:] = 0
    Image.fromarray(mask).save(own / "drive_0001/mask.png")
    write_camera(own / "drive_0001", mask="mask.png")
    base = ("--dataset", "folder", "--data_path", own)
    run(monkeypatch, "train", *base, *TINY, "--use_stereo", "--num_epochs", 1, "--log_dir",
        tmp_path, "--batch_size", 14)  # fmt: skip
    run(monkeypatch, "export_gt_depth", *base)
    masked = VideoFolder(own, [Frame("drive_0001", 4, "l")], 64, 96, with_depth=True)
    depth = masked[0]["depth_gt"]
    assert (depth[96:] == 0).all() and (depth[60:96] > 0).any()
    weights = tmp_path / "mdp/models/weights_0"
    run(monkeypatch, "evaluate_depth", *base, "--eval_stereo", "--load_weights_folder", weights,
        "--no_cuda", "--json", tmp_path / "result.json")  # fmt: skip
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["images"] == 12 and result["depth_scale"]["value"] == 1
    assert "WARNING: trained on" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, words",
    [
        (("--intrinsics", "nominal"), "--dataset folder is the one beside its frames"),
        (("--split", "none"), "split 'none' is neither"),
        (("--learn_intrinsics", "--frame_ids", "0", "--use_stereo"), "needs a moving camera"),
    ],
)
def test_training_refuses(monkeypatch, capsys, own, argv, words):
    base = ("--dataset", "folder", "--data_path", own)
    assert words in fails(monkeypatch, capsys, "train", *base, *TINY, *argv)


def test_a_missing_partner_is_named(monkeypatch, capsys, own):
    for number in (1, 2):
        write_camera(own / f"drive_{number:04d}", stereo=None)
    line = fails(monkeypatch, capsys, "train", "--dataset", "folder", "--data_path", own, *TINY)
    assert "drive_0001/intrinsics.json: names no stereo partner" in line


def test_no_split_yet_says_how_to_make_one(monkeypatch, capsys, tmp_path):
    sequence(tmp_path / "a")
    with pytest.raises(SystemExit):
        run(monkeypatch, "train", "--dataset", "folder", "--data_path", tmp_path, *TINY)
    assert "python tools/make_split.py" in capsys.readouterr().err


def test_kitti_drives_are_named_as_folders_are():
    assert drive_name(1) == KITTI


@pytest.mark.parametrize("white", [1, 200, 255])
def test_masks_of_zeros_and_ones_are_as_good(white):
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3] = white
    assert np.array_equal(not_black(Image.fromarray(mask)), mask > 0)
