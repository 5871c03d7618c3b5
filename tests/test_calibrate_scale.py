"""The factor to metres, found in each way, against worlds whose metres are known."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation
from scripts import fails, run

import checkpoint
from camera import Camera, camera_of
from datasets import Frame, KITTIDepth, KITTIRaw
from datasets.kitti import STEREO_SCALE, read_poses
from metric_scale import FILE, Scale, read_scale, write_scale
from networks import Monodepth
from predictor import DepthPredictor
from tools.calibrate_scale import distance
from tools.ground_plane import camera_height
from tools.sample_files import BASELINE_M, drive_name, nominal_K
from tools.scenery import EYE_M
from utils import UserError

TOOL = "tools.calibrate_scale"
K = camera_of(128, 96, focal=100.0)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Untrained weights, as a run leaves them."""
    folder = tmp_path_factory.mktemp("run") / "models" / "weights_0"
    torch.manual_seed(0)
    checkpoint.save_weights(folder, Monodepth(18, frame_ids=(0,)), 64, 64, use_stereo=True)
    (folder.parent / "opt.json").write_text(json.dumps({"min_depth": 0.5, "max_depth": 80.0}))
    return folder


@pytest.fixture
def weights(network):
    """The same without a scale."""
    yield network
    (network / FILE).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "hall.png"
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def true_depths(sample, number):
    """Depth in metres of a drive's frames, and how high the camera is in each."""
    heights_m = -read_poses(sample / drive_name(number) / "poses.txt")[:, 1, 3]
    frames = [Frame(drive_name(number), i, "l") for i in range(len(heights_m))]
    data = KITTIDepth(sample, frames, 0, 0, frame_ids=())
    return [data.ground_truth(i) for i in range(len(data))], heights_m


def plane_depth(height, pitch_deg, roll_deg, shape=(96, 128)):
    """Depth of a plane below a camera that looks down by `pitch_deg`; 0 above the horizon."""
    normal = Rotation.from_euler("xz", [pitch_deg, roll_deg], degrees=True).apply([0, 1, 0])
    v, u = np.indices(shape)
    rays = np.stack([u, v, np.ones(shape)], -1) @ np.linalg.inv(K).T
    with np.errstate(divide="ignore"):
        depth = height / (rays @ normal)
    return np.where((depth > 0) & (depth < 200 * height), depth, 0)


# The height of the camera


@settings(max_examples=60)
@given(
    height=st.floats(0.01, 100), pitch=st.floats(-4, 15), roll=st.floats(-8, 8),
    noise=st.floats(0, 0.03), wrong=st.floats(0, 0.3), missing=st.floats(0, 0.5),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_the_height_over_a_plane_is_found(height, pitch, roll, noise, wrong, missing, seed):
    rng = np.random.default_rng(seed)
    depth = plane_depth(height, pitch, roll)
    depth *= 1 + noise * rng.standard_normal(depth.shape)
    stray = rng.random(depth.shape) < wrong
    depth[stray] *= rng.uniform(0.2, 3, stray.sum())
    depth[rng.random(depth.shape) < missing] = rng.choice([0, np.inf, np.nan])
    assert camera_height(depth, K) == pytest.approx(height, rel=0.02)
    assert camera_height(depth, K) == camera_height(depth, K)


@settings(max_examples=20)
@given(unit=st.floats(0.01, 100), seed=st.integers(0, 2**32 - 1))
def test_the_height_is_in_the_unit_of_the_depth(unit, seed):
    depth = plane_depth(1.0, 3, 2)
    depth *= np.random.default_rng(seed).uniform(0.95, 1.05, depth.shape)
    assert camera_height(unit * depth, K) == pytest.approx(unit * camera_height(depth, K), rel=1e-3)


def cluttered():
    depth = plane_depth(1.65, 0, 0)
    depth[60:, 40:88] = 4.0
    return depth


@pytest.mark.parametrize(
    "depth",
    [
        np.zeros((96, 128)),
        np.full((96, 128), np.nan),
        np.full((96, 128), 7.0),
        np.ascontiguousarray(plane_depth(1.65, 0, 0)[::-1]),
        plane_depth(1.65, 30, 0),
        plane_depth(1.65, 0, 40),
        np.random.default_rng(0).uniform(1, 50, (96, 128)),
        cluttered(),
        np.where(np.arange(96 * 128).reshape(96, 128) % 499 == 0, plane_depth(1.65, 0, 0), 0),
    ],
    ids=["nothing", "NaN", "wall", "ceiling", "ramp", "slope", "noise", "car", "few points"],
)
def test_what_is_no_level_ground_has_no_height(depth):
    assert camera_height(depth, K) is None


def test_a_wall_seen_by_any_lens_is_no_ground():
    for focal in (50.0, 100.0, 300.0, 1000.0):
        assert camera_height(np.full((96, 128), 7.0), camera_of(128, 96, focal)) is None


def test_the_height_over_the_made_up_street_is_the_true_one(sample):
    for number in (1, 2, 3):
        depths, heights_m = true_depths(sample, number)
        camera = nominal_K(*depths[0].shape[::-1])
        found = [camera_height(depth, camera) for depth in depths]
        np.testing.assert_allclose(found, heights_m, rtol=0.01)


@pytest.mark.parametrize("side", ["l", "r"])
@pytest.mark.parametrize("drive, indices", [("0001", (2, 5, 25, 85)), ("0002", (0, 3, 6, 9))])
def test_the_height_over_a_real_road_is_that_of_the_rig(real_data, drive, indices, side):
    frames = [Frame(f"2011_09_26/2011_09_26_drive_{drive}_sync", i, side) for i in indices]
    data = KITTIRaw(real_data / "kitti_raw", frames, 0, 0, frame_ids=())
    data.depth_axis = "camera_z"
    camera = data.calibrated_K(frames[0])[0] - [[0, 0, 1], [0, 0, 1], [0, 0, 0]]  # counts from one
    heights_m = [camera_height(data.ground_truth(i), camera) for i in range(len(data))]
    assert np.median(heights_m) == pytest.approx(EYE_M, rel=0.03)
    np.testing.assert_allclose(heights_m, EYE_M, rtol=0.05)


def predicting(monkeypatch, depths):
    """Let the tool's network predict these depths."""
    coming = iter(depths)
    load = classmethod(lambda cls, *_, scaled: lambda image: next(coming))
    monkeypatch.setattr(DepthPredictor, "load", load)


def test_images_of_a_street_give_the_factor_to_metres(
    monkeypatch, capsys, sample, weights, tmp_path
):
    depths, heights_m = true_depths(sample, 2)
    depths[3] = np.full_like(depths[3], 7)
    images = sample / drive_name(2) / "image_02/data"
    predicting(monkeypatch, [depth / STEREO_SCALE for depth in depths])
    fx, fy, cx, cy = nominal_K(416, 128)[[0, 1, 0, 1], [0, 1, 2, 2]]
    run(monkeypatch, TOOL, "camera_height", "--load_weights_folder", weights, "--images", images,
        "--height_m", EYE_M, "--fx", fx, "--fy", fy, "--cx", cx, "--cy", cy)  # fmt: skip
    scale = read_scale(weights)
    assert scale.factor == pytest.approx(STEREO_SCALE, rel=0.02)
    others = np.delete(heights_m, 3)
    assert scale.spread == pytest.approx(np.std(others) / np.median(others), abs=2e-3)
    printed = capsys.readouterr().out
    assert f"x {scale.factor:.4g} " in printed and f"spread {scale.spread:.1%}" in printed
    assert "11 of 12 images" in scale.source and scale.source in printed
    assert str(weights / FILE) in printed and "camera not given" not in printed


def test_one_image_of_an_unknown_camera_has_no_spread(monkeypatch, capsys, sample, weights):
    depths, _ = true_depths(sample, 1)
    predicting(monkeypatch, depths)
    image = next((sample / drive_name(1) / "image_02/data").iterdir())
    run(monkeypatch, TOOL, "camera_height", "--load_weights_folder", weights, "--images", image,
        "--height_m", EYE_M)  # fmt: skip
    scale = read_scale(weights)
    assert math.isnan(scale.spread) and scale.factor == pytest.approx(1, rel=0.05)
    assert "assuming a focal length of 0.58" in capsys.readouterr().out


def test_images_without_ground_give_no_factor(monkeypatch, capsys, weights, picture):
    write_scale(weights, Scale(2.0, 0.1, "before"))
    predicting(monkeypatch, [np.full((96, 128), 7.0)] * 2)
    line = fails(monkeypatch, capsys, TOOL, "camera_height", "--load_weights_folder", weights,
        "--images", picture, picture, "--height_m", 1.65)  # fmt: skip
    assert "no level ground in any of 2 images" in line
    assert read_scale(weights).source == "before"


# The camera


@given(width=st.integers(2, 4000), height=st.integers(2, 4000), fov=st.floats(1, 179))
def test_an_angle_of_view_spans_the_image(width, height, fov):
    camera = Camera(None, None, None, None, fov).K((width, height))
    edges = np.linalg.inv(camera) @ [[-0.5, width - 0.5], [0, 0], [1, 1]]
    left, right = np.degrees(np.arctan(edges[0]))
    assert right == pytest.approx(fov / 2) and left == pytest.approx(-fov / 2)


def test_a_camera_is_what_the_flags_say():
    given_all = Camera(500.0, 510.0, 60.0, 40.0, None).K((128, 96))
    np.testing.assert_array_equal(given_all, [[500, 0, 60], [0, 510, 40], [0, 0, 1]])
    only_fx = Camera(500.0, None, None, None, None).K((128, 96))
    np.testing.assert_array_equal(only_fx, [[500, 0, 63.5], [0, 500, 47.5], [0, 0, 1]])
    nothing = Camera(None, None, None, None, None).K((128, 96))
    np.testing.assert_array_equal(nothing, DepthPredictor.camera((128, 96)))


# The stereo rig


def test_the_rig_gives_the_factor_of_stereo(monkeypatch, sample, weights):
    """What the depths of a network trained with stereo are multiplied by to be true ones."""
    run(monkeypatch, TOOL, "stereo", "--load_weights_folder", weights)
    scale = read_scale(weights)
    assert scale.factor == pytest.approx(STEREO_SCALE) and math.isnan(scale.spread)
    assert scale.factor == pytest.approx(BASELINE_M / KITTIRaw.baseline)
    depths, heights_m = true_depths(sample, 3)
    camera = nominal_K(*depths[0].shape[::-1])
    units = [camera_height(depth / STEREO_SCALE, camera) for depth in depths]
    np.testing.assert_allclose(scale.factor * np.array(units), heights_m, rtol=0.05)


def test_a_rig_of_ones_own_is_metres_already(monkeypatch, weights, tmp_path, capsys):
    """In --dataset folder the baseline is in metres, and KITTI's scale would be wrong."""
    copy = shutil.copytree(weights, tmp_path / "models/weights_0")
    (copy / "scale.json").unlink(missing_ok=True)
    (tmp_path / "models/opt.json").write_text(json.dumps({"dataset": "folder"}))
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    line = fails(monkeypatch, capsys, "predict", "--image_path", tmp_path / "a.png", "--no_cuda",
                 "--load_weights_folder", copy, "--pred_metric_depth")  # fmt: skip
    assert "is the scale of KITTI's rig" in line and "give --metric" in line
    run(monkeypatch, TOOL, "stereo", "--load_weights_folder", copy)
    assert read_scale(copy).factor == 1


def test_another_rig_gives_another_factor(monkeypatch, weights):
    run(monkeypatch, TOOL, "stereo", "--load_weights_folder", weights, "--baseline_m", 0.12,
        "--baseline_units", 0.5)  # fmt: skip
    assert read_scale(weights).factor == pytest.approx(0.24)


@pytest.mark.parametrize(
    "name, used, accepted",
    [
        ("weights_0", True, True),
        ("weights_0", False, False),
        ("weights_0", None, True),
        ("mono+stereo_640x192", False, True),
        ("mono_640x192", None, False),
    ],
)
def test_weights_trained_without_stereo_are_refused(
    monkeypatch, capsys, weights, tmp_path, name, used, accepted
):
    folder = tmp_path / name
    state = checkpoint.read(weights / "encoder.pth")
    state.pop("use_stereo")
    checkpoint.save(folder / "encoder.pth", state | ({} if used is None else {"use_stereo": used}))
    if accepted:
        run(monkeypatch, TOOL, "stereo", "--load_weights_folder", folder)
        unknown = "do not say whether" in capsys.readouterr().out
        assert unknown == (used is None)
    else:
        line = fails(monkeypatch, capsys, TOOL, "stereo", "--load_weights_folder", folder)
        assert "trained without stereo" in line
    assert (read_scale(folder) is not None) == accepted


# Ground truth


@pytest.fixture(scope="module")
def split(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    (folder / "test_files.txt").write_text(f"{drive_name(3)} 2-6 l\n")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "export_gt_depth", "--data_path", sample, "--split", folder)
    return folder


@pytest.mark.parametrize("dataset", [(), ("--dataset", "kitti")], ids=["found", "said"])
def test_ground_truth_gives_the_ratio_of_the_evaluation(
    monkeypatch, capsys, sample, weights, split, tmp_path, dataset
):
    same = ("--data_path", sample, "--num_workers", 0, "--no_cuda", "--load_weights_folder")
    run(monkeypatch, "evaluate_depth", "--eval_mono", *same, weights, "--eval_split", split,
        "--min_depth", 0.5, "--max_depth", 80, "--json", tmp_path / "result.json")  # fmt: skip
    printed = capsys.readouterr().out
    write_scale(weights, Scale(7.0, 0.1, "an older one, which must not count"))
    run(monkeypatch, TOOL, "ground_truth", *same, weights, "--split", split, *dataset)
    scale = read_scale(weights)
    ratio = json.loads((tmp_path / "result.json").read_text())["ratio"]
    assert scale.factor == pytest.approx(ratio["median"], rel=1e-5)
    assert scale.spread == pytest.approx(ratio["spread"], rel=1e-4)
    assert f"median {scale.factor:.3f}, spread {scale.spread:.3f}" in printed
    assert scale.source == f"ground truth of 5 images of {split.name}"


def test_ground_truth_of_other_frames_is_refused(
    monkeypatch, capsys, sample, weights, split, tmp_path
):
    other = tmp_path / "split"
    shutil.copytree(split, other)
    (other / "test_files.txt").write_text(f"{drive_name(3)} 3-7 l\n")
    common = ("ground_truth", "--load_weights_folder", weights, "--data_path", sample)
    line = fails(monkeypatch, capsys, TOOL, *common, "--split", other)
    assert "belongs to other frames" in line
    (other / "gt_depths.npz").unlink()
    line = fails(monkeypatch, capsys, TOOL, *common, "--split", other)
    assert "gt_depths.npz" in line
    line = fails(monkeypatch, capsys, TOOL, *common, "--split", split, "--dataset", "kitti_depth")
    assert "give --dataset kitti here too" in line
    line = fails(monkeypatch, capsys, TOOL, *common, "--split", "nowhere")
    assert "split 'nowhere'" in line
    line = fails(monkeypatch, capsys, TOOL, *common, "--split", split, "--batch_size", 0)
    assert "--batch_size 0" in line


# A known distance


@given(
    depth=st.floats(0.1, 100), first=st.tuples(st.integers(0, 127), st.integers(0, 95)),
    second=st.tuples(st.integers(0, 127), st.integers(0, 95)),
)  # fmt: skip
def test_distances_on_a_wall_across_the_view_are_those_of_its_points(depth, first, second):
    assume(first != second)
    wall = np.full((96, 128), depth)
    ray = (np.array(first) - (63.5, 47.5)) / 100
    assert distance(wall, K, [first]) == pytest.approx(depth * math.hypot(1, *ray), rel=1e-4)
    apart = depth / 100 * math.dist(first, second)
    assert distance(wall, K, [first, second]) == pytest.approx(apart, rel=1e-3)


@pytest.mark.parametrize("pixels", [[(100, 70)], [(3, 90), (127, 0)]], ids=["one", "two"])
@pytest.mark.parametrize("before", [None, b"", b'{"factor": 3, "spread": null, "source": "x"}'])
def test_with_the_scale_the_distance_is_the_known_one(
    monkeypatch, capsys, weights, picture, pixels, before
):
    """Whatever scale lay there before, a damaged one too."""
    if before is not None:
        (weights / FILE).write_bytes(before)
    flags = [word for u, v in pixels for word in ("--pixel", u, v)]
    run(monkeypatch, TOOL, "distance", "--load_weights_folder", weights, "--image", picture, *flags,
        "--distance_m", 4.2, "--fov_deg", 60, "--no_cuda")  # fmt: skip
    scale = read_scale(weights)
    assert math.isnan(scale.spread) and "4.2 m" in scale.source
    assert scale.source in capsys.readouterr().out
    predictor = DepthPredictor.load(weights)
    with Image.open(picture) as image:
        depth_m = predictor(image)
    camera = camera_of(128, 96, 64 / math.tan(math.radians(30)))
    assert distance(depth_m, camera, pixels) == pytest.approx(4.2, rel=1e-5)


# Files and flags


@given(
    factor=st.floats(0, exclude_min=True, allow_infinity=False),
    spread=st.one_of(st.floats(0, 10), st.just(math.nan)),
    source=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_scales_come_back_as_they_were_written(tmp_path_factory, factor, spread, source):
    folder = tmp_path_factory.getbasetemp()
    write_scale(folder, Scale(factor, spread, source))
    got = read_scale(folder)
    assert (got.factor, got.source) == (factor, source)
    assert got.spread == spread or math.isnan(got.spread) == math.isnan(spread) is True
    (folder / FILE).unlink()
    assert read_scale(folder) is None


@settings(max_examples=50)
@given(data=st.data())
def test_damaged_scales_are_refused(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    whole = write_scale(folder, Scale(5.4, 0.01, "stereo")).read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    (folder / FILE).write_bytes(data.draw(st.sampled_from([whole[:cut], whole[cut + 1 :]])))
    with pytest.raises(UserError, match="calibrate_scale"):
        read_scale(folder)
    (folder / FILE).unlink()


HEIGHT = ("camera_height", "--images", "PICTURE", "--height_m", 1.65)
DISTANCE = ("distance", "--image", "PICTURE", "--distance_m", 4)
ONE = ("--pixel", 5, 5)


@pytest.mark.parametrize(
    "flags, words",
    [
        (("stereo", "--baseline_m", 0), "--baseline_m 0: give a number above 0"),
        (("stereo", "--baseline_m", "nan"), "--baseline_m nan"),
        (("stereo", "--baseline_units", "inf"), "--baseline_units inf"),
        (("stereo", "--baseline_m", 1e300, "--baseline_units", 1e-300), "a factor of inf"),
        (("stereo", "--baseline_m", 1e-300, "--baseline_units", 1e300), "a factor of 0"),
        ((*HEIGHT[:-1], -1), "--height_m -1"),
        ((*HEIGHT, "--fx", 0), "--fx 0"),
        ((*HEIGHT, "--fx", 100, "--fy", "inf"), "--fy inf"),
        ((*HEIGHT, "--fx", 100, "--cx", 128), "--cx 128: lies outside a picture of 128x96"),
        ((*HEIGHT, "--fx", 100, "--cy", "nan"), "--cy nan"),
        ((*HEIGHT, "--cx", 60), "--cx needs --fx"),
        ((*HEIGHT, "--fy", 60), "--fy needs --fx"),
        ((*HEIGHT, "--fov_deg", 180), "--fov_deg 180"),
        ((*HEIGHT, "--fov_deg", 60, "--fx", 100), "give one of them"),
        ((*HEIGHT[:2], "nowhere", *HEIGHT[3:]), "nowhere: no such file or folder"),
        ((*HEIGHT[:2], "EMPTY", *HEIGHT[3:]), "holds no images"),
        ((*HEIGHT[:2], "WEIGHTS/depth.pth", *HEIGHT[3:]), "cannot be read as an image"),
        ((*DISTANCE[:-1], 0, *ONE), "--distance_m 0"),
        ((*DISTANCE, "--pixel", 128, 5), "--pixel 128 5: lies outside the image"),
        ((*DISTANCE, "--pixel", 5, -1), "--pixel 5 -1"),
        ((*DISTANCE, "--pixel", "nan", 5), "--pixel nan 5"),
        ((*DISTANCE, *ONE, *ONE), "give two different pixels"),
        ((*DISTANCE, *ONE, "--pixel", 5.2, 4.9), "give two different pixels"),
        ((*DISTANCE, *ONE, "--pixel", 1, 1, "--pixel", 2, 2), "given 3 times"),
        (("distance", "--image", "nowhere", *ONE, "--distance_m", 4), "nowhere: no such image"),
    ],
)
def test_bad_values_end_in_one_line(monkeypatch, capsys, weights, picture, tmp_path, flags, words):
    places = {"PICTURE": picture, "EMPTY": tmp_path, "WEIGHTS/depth.pth": weights / "depth.pth"}
    flags = [places.get(word, word) for word in flags]
    line = fails(monkeypatch, capsys, TOOL, *flags, "--load_weights_folder", weights)
    assert words in line and not (weights / FILE).exists()


@pytest.mark.parametrize("way", [("stereo",), HEIGHT, (*DISTANCE, *ONE)], ids=lambda way: way[0])
def test_a_folder_without_weights_is_named(monkeypatch, capsys, picture, tmp_path, way):
    flags = [picture if word == "PICTURE" else word for word in way]
    for folder in (tmp_path, tmp_path / "absent"):
        line = fails(monkeypatch, capsys, TOOL, *flags, "--load_weights_folder", folder)
        assert str(folder) in line and not (folder / FILE).exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "required"),
        (("guess",), "invalid choice: 'guess'"),
        (("stereo",), "--load_weights_folder"),
        (("stereo", "--load_weights_folder", "w", "--baseline_m", "wide"), "--baseline_m"),
        (("stereo", "--load_weights_folder", "w", "--fx", 1), "--fx"),
        (("ground_truth", "--load_weights_folder", "w"), "--data_path, --split"),
        (("camera_height", "--load_weights_folder", "w", "--images"), "--images"),
        (("distance", "--load_weights_folder", "w", "--image", "i"), "--pixel, --distance_m"),
        (("distance", "--load_weights_folder", "w", "--pixel", 1), "--pixel"),
    ],
)
def test_bad_flags_end_in_one_line(monkeypatch, capsys, flags, words):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, TOOL, *flags)
    err = capsys.readouterr().err
    assert caught.value.code == 2 and err.count("\n") == 1 and words in err and "error: " in err
