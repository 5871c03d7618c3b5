"""Pictures in, depth out: every kind of file is predicted or refused in one line."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plyfile import PlyData
from scripts import fails, run

import checkpoint
from camera import camera_of
from datasets import read_image
from datasets.images import read_depth_image
from media import VideoReader, VideoWriter, find_images, is_output, open_image
from metric_scale import Scale, read_scale, write_scale
from networks import Monodepth
from pictures import SteadyRange, colour_map
from pointcloud import points_of_depth, write_ply
from predictor import DepthPredictor
from utils import UserError

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    checkpoint.save_weights(folder, Monodepth(frame_ids=(0,)), 64, 96, False)
    return folder


@pytest.fixture
def flags(weights):
    return ["--load_weights_folder", weights, "--no_cuda"]


@pytest.fixture
def photos(sample, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in (1, 2, 3):
        source = sample / DRIVE / f"image_02/data/{i:010d}.jpg"
        (folder / f"photo {i}.jpg").write_bytes(source.read_bytes())
    return folder


def film(path, frames=12, size=(90, 64)):
    with VideoWriter(path, 10.0) as writer:
        for i in range(frames):
            picture = np.full((size[1], size[0], 3), 20 * i % 256, np.uint8)
            picture[10:30, 5 * i % 60 : 5 * i % 60 + 20] = (200, 30, 90)
            writer.add(picture)
    return path


def names(folder):
    return {path.name for path in folder.iterdir()}


# Files


def test_the_published_files_are_found(monkeypatch, flags, photos, weights):
    """One picture: beside it the disparity at the network's size, and its colours at its own."""
    path = photos / "photo 1.jpg"
    run(monkeypatch, "predict", *flags, "--image_path", path)
    assert names(photos) == {f"photo {i}.jpg" for i in (1, 2, 3)} | {
        "photo 1_disp.npy", "photo 1_disp.jpeg",
    }  # fmt: skip
    disp = np.load(photos / "photo 1_disp.npy")
    assert disp.shape == (1, 1, 64, 96) and disp.dtype == np.float32
    assert 1 / 100 <= disp.min() and disp.max() <= 1 / 0.1
    expected = DepthPredictor.load(weights).predict([Image.open(path)]).disps
    np.testing.assert_allclose(disp[0], expected, rtol=1e-5)
    assert read_image(photos / "photo 1_disp.jpeg").size == read_image(path).size


def test_a_folder_is_predicted_again_without_its_outputs(monkeypatch, capsys, flags, photos):
    for _ in range(2):
        run(monkeypatch, "predict", *flags, "--image_path", photos, "--uncertainty", "--save",
            "npy", "picture", "side_by_side", "png16", "ply")  # fmt: skip
        assert "3 of 3 images predicted" in capsys.readouterr().out
    assert len(names(photos)) == 3 * (1 + 7)
    both = read_image(photos / "photo 1_side_by_side.jpeg")
    one = read_image(photos / "photo 1.jpg")
    assert both.size == (one.width, 2 * one.height)


def test_pictures_that_only_look_like_outputs_are_inputs(photos):
    (photos / "photo 1.jpg").rename(photos / "my_disp.jpg")
    assert photos / "my_disp.jpg" in find_images(str(photos))
    (photos / "photo 2_disp.jpeg").write_bytes(b"")
    assert is_output(photos / "photo 2_disp.jpeg")
    assert find_images(str(photos / "photo*.jpg")) == [photos / f"photo {i}.jpg" for i in (2, 3)]
    with pytest.raises(UserError, match="holds no images ending in .png"):
        find_images(str(photos), "png")


def test_depth_images_and_clouds_hold_the_same_depth(monkeypatch, capsys, flags, photos, tmp_path):
    out = tmp_path / "out"
    path = photos / "photo 1.jpg"
    run(monkeypatch, "predict", *flags, "--image_path", path, "--out", out, "--save", "npy",
        "png16", "ply", "--fov_deg", 90, "--cloud_depth", 1000)  # fmt: skip
    assert "the network's units, not metres" in capsys.readouterr().out
    width, height = read_image(path).size
    depth = read_depth_image(out / "photo 1_depth.png", 1 / 256)
    disp = np.load(out / "photo 1_disp.npy")[0, 0]
    np.testing.assert_allclose(depth, 1 / cv2.resize(disp, (width, height)), atol=1 / 256)
    vertices = PlyData.read(out / "photo 1.ply")["vertex"]
    assert len(vertices) == width * height
    np.testing.assert_allclose(vertices["z"], depth.ravel(), atol=1 / 256)
    K = camera_of(width, height, width / 2)  # 90 degrees
    u = vertices["x"] / vertices["z"] * K[0, 0] + K[0, 2]
    np.testing.assert_allclose(u.reshape(height, width)[0], np.arange(width), atol=1e-3)
    colours = np.stack([vertices[c] for c in ("red", "green", "blue")], -1)
    assert np.array_equal(colours.reshape(height, width, 3), np.asarray(read_image(path)))


def test_metres_come_from_the_scale_beside_the_weights(
    monkeypatch, capsys, photos, weights, tmp_path
):
    folder = tmp_path / "weights"
    folder.mkdir()
    for path in weights.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    argv = ["--load_weights_folder", folder, "--no_cuda", "--image_path", photos / "photo 1.jpg"]
    line = fails(monkeypatch, capsys, "predict", *argv, "--metric")
    assert f"{folder}: --metric needs its scale.json" in line
    write_scale(folder, Scale(2.5, 0.03, "camera height"))
    out = tmp_path / "out"
    argv += ["--save", "png16", "npy", "--out", out]
    run(monkeypatch, "predict", *argv, "--metric")
    assert "metres x 2.5 (camera height, spread 3.0%)" in capsys.readouterr().out
    metres = read_depth_image(out / "photo 1_depth.png", 1 / 256)
    run(monkeypatch, "predict", *argv)
    units = read_depth_image(out / "photo 1_depth.png", 1 / 256)
    np.testing.assert_allclose(metres, 2.5 * units, atol=0.01)
    assert np.allclose(DepthPredictor.load(folder)(Image.open(photos / "photo 1.jpg")), metres,
                       atol=0.01)  # fmt: skip


def test_the_published_flag_for_metres_keeps_working(monkeypatch, capsys, flags, photos):
    argv = [*flags, "--image_path", photos, "--ext", "jpg", "--pred_metric_depth"]
    run(monkeypatch, "predict", *argv)
    assert "0.54 m" in capsys.readouterr().out
    run(monkeypatch, "predict", *flags, "--image_path", photos)
    depth, disp = (np.load(photos / f"photo 2_{kind}.npy") for kind in ("depth", "disp"))
    np.testing.assert_allclose(depth, 5.4 / disp, rtol=1e-6)


@given(
    st.floats(1e-6, 1e6),
    st.one_of(st.just(float("nan")), st.floats(0, 10)),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
)
def test_scales_come_back_as_they_were(tmp_path_factory, factor, spread, source):
    folder = tmp_path_factory.mktemp("scale")
    write_scale(folder, Scale(factor, spread, source))
    assert str(read_scale(folder)) == str(Scale(factor, spread, source))


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"factor": -1, "spread": 0, "source": ""}',
                                     '{"factor": %s, "spread": 0, "source": "x"}' % ("9" * 400),
                                     '{"factor": NaN, "spread": 0, "source": "x"}'])  # fmt: skip
def test_damaged_scales_are_refused(tmp_path, content):
    assert read_scale(tmp_path) is None
    (tmp_path / "scale.json").write_text(content)
    with pytest.raises(UserError, match="scale.json: holds no scale"):
        read_scale(tmp_path)


@pytest.mark.parametrize("least, greatest", [("a", 100), (1, 0.5), (-1, 9), (0.1, None), (0, 9)])
def test_weights_of_no_range_of_depth_are_refused(weights, tmp_path, least, greatest):
    shutil.copytree(weights, tmp_path / "weights")
    known = json.dumps({"min_depth": least, "max_depth": greatest})
    (tmp_path / "opt.json").write_text(known)
    with pytest.raises(UserError, match="opt.json: depth from .* is no range"):
        DepthPredictor.load(tmp_path / "weights")


# Kinds of pictures


def kinds_of_pictures(folder):
    """Name -> whether it can be predicted."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 70, 3)).astype(np.uint8)
    grey16 = (colours[..., 0].astype(np.uint16) << 8) + 7
    Image.fromarray(colours[..., 0]).save(folder / "grey.png")
    Image.fromarray(grey16).save(folder / "grey16.png")
    Image.fromarray(np.dstack([colours, colours[..., :1]])).save(folder / "rgba.png")
    Image.fromarray(colours).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(colours).convert("P").save(folder / "palette.png")
    Image.fromarray(colours[:1, :1]).save(folder / "one pixel.png")
    Image.fromarray(np.resize(colours, (8, 20_000, 3))).save(folder / "long.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(colours).save(folder / "turned.jpg", exif=exif)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes((folder / "rgba.png").read_bytes()[:900])
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    Image.new("F", (9, 9)).save(folder / "numbers.tiff")
    bad = {"empty.jpg", "text.png", "cut.png", "bomb.png", "numbers.tiff"}
    return {path.name: path.name not in bad for path in folder.iterdir()}


def test_odd_pictures_are_predicted_or_named_and_the_others_go_on(
    monkeypatch, capsys, flags, tmp_path
):
    expected = kinds_of_pictures(tmp_path)
    line = fails(monkeypatch, capsys, "predict", *flags, "--image_path", tmp_path, "--save", "npy",
                 "picture", "ply", "--batch_size", 3)  # fmt: skip
    assert "5 of 13 images could not be read" in line
    for name, good in expected.items():
        stem = name.rpartition(".")[0]
        assert (tmp_path / f"{stem}_disp.npy").exists() == good, name
        if good:
            size = read_image(tmp_path / f"{stem}_disp.jpeg").size
            assert size == open_image(tmp_path / name).size
    assert read_image(tmp_path / "turned_disp.jpeg").size == (40, 70)


def test_sixteen_bits_look_like_eight(tmp_path):
    kinds_of_pictures(tmp_path)
    grey, grey16 = (np.asarray(open_image(tmp_path / f"{n}.png")) for n in ("grey", "grey16"))
    assert np.array_equal(grey, grey16)


# Videos


@pytest.mark.parametrize("frames, size", [(12, (90, 64)), (1, (64, 64)), (7, (91, 65))])
def test_a_video_comes_back_with_as_many_frames(monkeypatch, capsys, flags, tmp_path, frames, size):
    path = film(tmp_path / "clip.mp4", frames, size)
    run(monkeypatch, "predict", *flags, "--image_path", path, "--batch_size", 5)
    assert f"{frames} frames, " in capsys.readouterr().out
    reader = VideoReader(str(tmp_path / "clip_disp.mp4"))
    shown = list(reader)
    assert len(shown) == frames == reader.count and reader.fps == pytest.approx(10)
    assert names(tmp_path) == {"clip.mp4", "clip_disp.mp4"}


def test_a_videos_frames_become_files_too(monkeypatch, flags, tmp_path):
    path = film(tmp_path / "clip.mp4")
    run(monkeypatch, "predict", *flags, "--image_path", path, "--save", "npy", "video",
        "side_by_side", "--max_frames", 3, "--out", tmp_path / "out")  # fmt: skip
    found = names(tmp_path / "out")
    assert {f"clip_{i:06d}_disp.npy" for i in range(3)} < found and "clip_disp.mp4" in found
    assert len(list(VideoReader(str(tmp_path / "out/clip_disp.mp4")))) == 3


def test_a_video_appears_whole_or_not_at_all(tmp_path):
    path = film(tmp_path / "clip.mp4")
    before = path.read_bytes()
    with pytest.raises(KeyError), VideoWriter(path, 10.0) as writer:
        writer.add(np.zeros((64, 64, 3), np.uint8))
        raise KeyError
    assert path.read_bytes() == before and names(tmp_path) == {"clip.mp4"}


def test_colours_of_a_video_do_not_flicker():
    """A frame that differs moves the range by a little; a lasting change is followed."""
    steady = SteadyRange(0.05)
    usual, bright = np.linspace(0, 1, 100)[None], 1 + np.linspace(0, 1, 100)[None]
    first = steady(usual)
    assert steady(bright)[1] - first[1] == pytest.approx(0.05)
    for _ in range(200):
        last = steady(bright)
    assert last == pytest.approx((1, 1.95), abs=0.01)


# Flags


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "give --image_path"),
        (["--image_path", "nowhere"], "nowhere: no such file or folder"),
        (["--image_path", "nowhere.mp4"], "nowhere.mp4: no such video"),
        (["--image_path", "99"], "webcam 99: cannot be read as a video"),
        (["--image_path", "{photo}", "--save", "video"], "--save video: {photo} is no video"),
        (["--image_path", "{photo}", "--max_frames", "3"], "--max_frames: {photo} is no video"),
        (["--image_path", "{photo}", "--fov_deg", "60"], "--fov_deg needs --save ply"),
        (
            ["--image_path", "{photo}", "--save", "ply", "--fov_deg", "180"],
            "from 0.1 and below 180",
        ),
        (["--image_path", "{photo}", "--save", "ply", "--cx", "3"], "--cx needs --fx"),
        (["--image_path", "{photo}", "--metric", "--pred_metric_depth"], "two ways to metres"),
        (["--image_path", "{photo}", "--onnx", "x.onnx"], "give one of --load_weights_folder"),
        (["--image_path", "{photo}", "--out", "{photo}"], "cannot be written"),
    ],
)
def test_what_cannot_be_predicted_says_why(monkeypatch, capfd, flags, photos, argv, words):
    photo = str(photos / "photo 1.jpg")
    argv = [each.format(photo=photo) for each in argv]
    line = fails(monkeypatch, capfd, "predict", *flags, *argv)
    assert words.format(photo=photo) in line
    assert names(photos) == {f"photo {i}.jpg" for i in (1, 2, 3)}


# Python


def test_torch_hub_gives_a_predictor(weights, photos):
    root = str(Path(__file__).parent.parent)
    predictor = torch.hub.load(root, "monodepth2", source="local", weights=str(weights))
    image = Image.open(photos / "photo 1.jpg")
    depth = predictor(image)
    assert depth.shape == image.size[::-1] and np.isfinite(depth).all() and depth.min() > 0
    points = points_of_depth(depth, predictor.camera(image.size))
    assert points.shape == (*depth.shape, 3)


# Points


@given(
    st.floats(50, 500), st.floats(-3, 3), st.floats(-3, 3), st.floats(0.5, 50), st.integers(0, 99)
)
@settings(max_examples=30)
def test_points_project_onto_their_pixels(focal, dx, dy, furthest, seed):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.1, furthest + 0.1, (9, 13)).astype(np.float32)
    K = camera_of(13, 9, focal, 6 + dx, 4 + dy)
    points = points_of_depth(depth, K).astype(np.float64)
    pixels = points @ K.T
    v, u = np.indices(depth.shape)
    np.testing.assert_allclose(pixels[..., 0] / pixels[..., 2], u, atol=1e-3)
    np.testing.assert_allclose(pixels[..., 1] / pixels[..., 2], v, atol=1e-3)
    np.testing.assert_array_equal(points[..., 2].astype(np.float32), depth)


def test_planes_of_the_made_up_street_are_planes(sample, tmp_path):
    """A cloud of true depth: the road is flat to 1 % of its depth, the camera 1.65 m above it."""
    from datasets import Frame, KITTIDepth

    data = KITTIDepth(sample, [Frame(DRIVE, 5, "l")], 64, 96)
    depth = data.ground_truth(0)
    K, size = data.calibrated_K(Frame(DRIVE, 5, "l"))
    assert size == depth.shape[::-1]
    points = points_of_depth(depth, K)
    image = np.asarray(read_image(data.find_image(Frame(DRIVE, 5, "l"))))
    assert write_ply(tmp_path / "street.ply", points, image, depth > 0) == (depth > 0).sum()
    vertices = PlyData.read(tmp_path / "street.ply")["vertex"]
    x, y, z = (np.asarray(vertices[name], np.float64) for name in "xyz")
    road = (np.abs(x) < 2) & (z < 20) & (y > 1)
    assert road.sum() > 200
    A = np.column_stack([x, z, np.ones_like(x)])[road]
    plane, *_ = np.linalg.lstsq(A, y[road], rcond=None)
    away = np.abs(A @ plane - y[road]) / np.sqrt(1 + plane[0] ** 2 + plane[1] ** 2)
    assert np.all(away < 0.01 * z[road])
    height = plane[2] / np.sqrt(1 + plane[0] ** 2 + plane[1] ** 2)
    assert height == pytest.approx(1.65, rel=0.02)


def test_colours_span_what_they_are_told():
    disp = np.array([[0.0, 0.5, 1.0, 2.0]])
    assert np.allclose(colour_map(disp, (0.0, 1.0))[0, 2], colour_map(disp, (0.0, 1.0))[0, 3])
    assert not np.allclose(colour_map(disp, (0.0, 2.0))[0, 2], colour_map(disp, (0.0, 2.0))[0, 3])
