"""NYUv2's data sets, and the rules by which it is scored."""

import io

import numpy as np
import pytest
import torch
from conftest import golden
from nyuv2_world import pose, see
from PIL import Image
from scripts import run
from sklearn.model_selection import train_test_split

from datasets import BENCHMARKS, SPLITS, Frame, NYUv2, NYUv2Raw, NYUv2Report, benchmark, read_split
from datasets.benchmarks import recordings
from datasets.kinect import COLOUR_K
from datasets.nyuv2 import PROTOCOLS, eigen_crop, place, toolbox_crop
from layers import backproject, project, warp
from metrics import DepthErrors, IndoorErrors, depth_errors, score_depth
from utils import UserError

SCENES = ["kitchen_0001a", "kitchen_0001a", "kitchen_0001a", "office_0002", "office_0002"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Five labelled images of two scenes, the camera 5 cm further right in each."""
    root = tmp_path_factory.mktemp("nyuv2")
    for folder in ("images", "depths", "raw_depths"):
        (root / folder).mkdir()
    for i in range(1, 6):
        image, depth_m = see(pose(0.05 * i))
        Image.fromarray(image).save(root / "images" / f"img_{i}.png")
        units = np.round(1000 * depth_m).astype(np.uint16)
        Image.fromarray(units).save(root / "depths" / f"gt_{i}.png")
        units[:100] = 0
        Image.fromarray(units).save(root / "raw_depths" / f"gt_{i}.png")
    lines = [f"{i} {scene}\n" for i, scene in enumerate(SCENES, start=1)]
    (root / "scenes.txt").write_text("".join(lines))
    return root


def frames(*numbers):
    return [Frame("images", number, "l") for number in numbers]


# Splits


def numbers(split, part):
    listed = read_split(SPLITS / split / f"{part}_files.txt")
    assert {(frame.folder, frame.side) for frame in listed} == {("images", "l")}
    return [frame.index for frame in listed]


def test_the_reports_partition_is_recomputed():
    facts = golden("splits")["nyuv2_report"]
    train, test = train_test_split(np.arange(1, 1449), test_size=0.2, random_state=31)
    train, val = train_test_split(train, test_size=0.2, random_state=31)
    for part, expected in (("train", train), ("val", val), ("test", test)):
        assert numbers("nyuv2", part) == expected.tolist()
        assert len(expected) == facts["sizes"][part]
    assert numbers("nyuv2", "train")[:3] == facts["train_begins"]
    assert numbers("nyuv2_report", "test") == numbers("nyuv2", "test")


def test_the_official_partition_is_counted_from_one():
    facts = golden("splits")["nyuv2_labelled"]
    test = [i for first, last in facts["test"] for i in range(first, last + 1)]
    assert numbers("nyuv2_official", "test") == test and len(test) == 654
    assert test[:4] == [1, 2, 9, 14]  # a second step to counting from zero would make it 0, 1, 8
    train = numbers("nyuv2_official", "train")
    assert sorted(train + test) == list(range(1, facts["images"] + 1)) and len(train) == 795
    assert set(numbers("nyuv2_official", "val")) < set(train)


def test_lines_of_the_report_are_the_same_frames(tmp_path):
    (tmp_path / "train_files.txt").write_text("images/ 506 0\nimages/ 988 0\n")
    data_folder = tmp_path / "images"
    data_folder.mkdir()
    listed = read_split(tmp_path / "train_files.txt")
    assert [frame.index for frame in listed] == [506, 988]
    for frame in listed:
        Image.new("RGB", (64, 48)).save(data_folder / f"img_{frame.index}.jpg")
    assert len(NYUv2(tmp_path, listed, 64, 64)) == 2


# Samples


def test_neighbours_are_of_the_same_scene(labelled):
    wanted = frames(1, 2, 3, 4, 5)
    data = NYUv2(labelled, wanted, 64, 64, (0, -1, 1))
    assert data.frames == frames(2)
    assert data.left_out.startswith("4 of 5 frames lack a neighbour at -1 +1")
    report = NYUv2(labelled, wanted, 64, 64, (0, -1, 1), neighbours="any")
    assert report.frames == frames(2, 3, 4)
    assert NYUv2(labelled, wanted, 64, 64, (0, 1)).frames == frames(1, 2, 4)


def test_a_sample_holds_the_neighbours_and_the_kinects_camera(labelled):
    data = NYUv2(labelled, frames(2), 480, 640, (0, -1, 1), with_depth=True)
    sample = data[0]
    for image, i in zip(sample["color"], (2, 1, 3), strict=True):
        expected = np.asarray(Image.open(labelled / "images" / f"img_{i}.png"))
        np.testing.assert_array_equal(image.permute(1, 2, 0), expected)
    np.testing.assert_allclose(sample["K"], COLOUR_K, rtol=1e-6)
    np.testing.assert_allclose(sample["depth_gt"], see(pose(0.1))[1], atol=6e-4)
    small = NYUv2(labelled, frames(2), 96, 128)[0]["K"]
    scale = np.diag([128 / 640, 96 / 480, 1])
    np.testing.assert_allclose(small, scale @ COLOUR_K, rtol=1e-6)
    mirrored = NYUv2(labelled, frames(2), 480, 640, augment=True)
    seen = set()
    for seed in range(10):
        torch.manual_seed(seed)
        seen.add(round(mirrored[0]["K"][0, 2].item(), 3))
    assert seen == {round(COLOUR_K[0, 2], 3), round(639 - COLOUR_K[0, 2], 3)}


def test_true_depth_and_camera_warp_one_image_into_the_next(labelled):
    """Metres, intrinsics, flips and neighbours agree: a wrong one of them moves the image."""
    torch.manual_seed(1)
    data = NYUv2(labelled, frames(2), 480, 640, (0, -1, 1), with_depth=True, augment=True)
    for _ in range(4):
        sample = data[0]
        color = sample["color"].float() / 255
        flipped = sample["K"][0, 2] != COLOUR_K[0, 2].astype(np.float32)
        depth = torch.from_numpy(sample["depth_gt"])[None, None]
        depth = depth.flip(-1) if flipped else depth
        K = sample["K"][None]
        points = backproject(depth, K.inverse())
        for source, step in ((1, -0.05), (2, 0.05)):
            T = torch.eye(4)[None]
            T[0, 0, 3] = step if flipped else -step
            warped = warp(color[source][None], project(points, K, T, 480, 640))[0]
            inside = (slice(None), slice(20, -20), slice(80, -80))
            error = (warped - color[0]).abs().mean(0)[inside[1:]]
            assert error.median() < 0.01
            still = (color[source] - color[0]).abs().mean(0)[inside[1:]]
            assert error.median() < still.median() / 4


def test_raw_depth_leaves_out_what_the_sensor_did_not_see(labelled):
    data = NYUv2(labelled, frames(2), 64, 64)
    assert (data.ground_truth(0) > 0).all() and "filled" in data.depth_source()
    data.depth_kind = "raw"
    assert not data.ground_truth(0)[:100].any() and data.ground_truth(0)[100:].all()
    assert "raw" in data.depth_source()


def test_a_crop_shifts_the_camera(labelled):
    """The same ray meets the same thing whether or not an image is cut before it is resized."""
    whole = NYUv2(labelled, frames(2), 480, 640, intrinsics="calib")[0]
    crop = NYUv2(labelled, frames(2), 427, 561, intrinsics="calib", input_crop=toolbox_crop)[0]
    np.testing.assert_array_equal(crop["color"], whole["color"][..., 44:471, 40:601])
    point = np.array([0.3, -0.2, 2.0])
    u, v, _ = whole["K"].double().numpy() @ point / 2
    u_cut, v_cut, _ = crop["K"].double().numpy() @ point / 2
    assert (u_cut + 40, v_cut + 44) == pytest.approx((u, v), abs=1e-4)
    nominal = NYUv2(labelled, frames(2), 427, 561, input_crop=toolbox_crop)[0]
    np.testing.assert_allclose(nominal["K"], crop["K"], rtol=1e-6)


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "no such list of scenes"),
        ("1 a\nkitchen\n", ":2: write"),
        ("x y\n", ":1: write"),
        (f"{'9' * 5000} kitchen\n", ":1: write"),
        ("", "names no scene of image 2"),
        ("1 a\n", "--nyuv2_neighbours any"),
    ],
)
def test_a_bad_list_of_scenes_is_named(labelled, tmp_path, content, words):
    (tmp_path / "images").symlink_to(labelled / "images")
    if content is not None:
        (tmp_path / "scenes.txt").write_text(content)
    with pytest.raises(UserError, match="scenes.txt") as caught:
        NYUv2(tmp_path, frames(2), 64, 64, (0, 1))
    assert words in str(caught.value)
    assert len(NYUv2(tmp_path, frames(2), 64, 64, (0, 1), neighbours="any")) == 1
    assert len(NYUv2(tmp_path, frames(2), 64, 64)) == 1  # alone it needs no scene


def test_missing_data_says_where_to_get_it(tmp_path):
    for kind, words in ((NYUv2, "labelled nyu_depth_v2_labeled.mat"), (NYUv2Raw, "raw FOLDER")):
        for root in (tmp_path / "none", tmp_path):
            with pytest.raises(UserError) as caught:
                kind(root, frames(1), 64, 64)
            assert words in caught.value.advice and str(root) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"fx": 1}',
        '{"fx":0,"fy":1,"cx":1,"cy":1,"width":9,"height":9}',
        '{"fx":1,"fy":NaN,"cx":1,"cy":1,"width":9,"height":9}',
        '{"fx":1,"fy":1,"cx":NaN,"cy":1,"width":9,"height":9}',
        '{"fx":1e999,"fy":1,"cx":1,"cy":1,"width":9,"height":9}',
        '{"fx":1,"fy":1,"cx":1,"cy":1,"width":1e999,"height":9}',
    ],
)
def test_a_bad_camera_file_is_named(tmp_path, content):
    (tmp_path / "office").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "office" / "000003.jpg")
    path = tmp_path / "office" / "intrinsics.json"
    path.write_text(content)
    with pytest.raises(UserError, match="intrinsics.json"):
        NYUv2Raw(tmp_path, [Frame("office", 3, "l")], 64, 64)
    path.write_text('{"fx":300,"fy":310,"cx":30,"cy":20,"width":64,"height":64}')
    K = NYUv2Raw(tmp_path, [Frame("office", 3, "l")], 64, 64)[0]["K"]
    assert K.tolist() == [[300, 0, 30], [0, 310, 20], [0, 0, 1]]


# Protocols


def room(seed=0):
    """True depth of a room [480 640] in metres, 0.5 to 9.5."""
    coarse = np.random.default_rng(seed).uniform(0.5, 9.5, (6, 8)).astype(np.float32)
    image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BILINEAR)
    return np.array(image)


def disparity(depth_m, protocol):
    """What a network that sees what the protocol shows it would predict."""
    return np.ascontiguousarray(1 / protocol.seen(depth_m))


@pytest.mark.parametrize("name", "ABC")
def test_a_perfect_prediction_is_perfect(name):
    gt = room()
    score = score_depth(disparity(gt, PROTOCOLS[name]), gt, PROTOCOLS[name])
    assert score.errors == pytest.approx((0, 0, 0, 0, 1, 1, 1, 0), abs=1e-6)
    assert score.ratio == pytest.approx(1)


@pytest.mark.parametrize("name", "ABC")
def test_what_is_outside_the_crop_does_not_count(name):
    gt, pred = room(), 3 * room(1)
    crop = toolbox_crop if name == "A" else eigen_crop
    pred[crop(480, 640)] = gt[crop(480, 640)]
    score = score_depth(disparity(pred, PROTOCOLS[name]), gt, PROTOCOLS[name])
    assert score.errors == pytest.approx((0, 0, 0, 0, 1, 1, 1, 0), abs=1e-6)


@pytest.mark.parametrize("name", "ABC")
def test_scale_vanishes_by_the_median_only(name):
    gt = room()
    errors = score_depth(disparity(1.3 * gt, PROTOCOLS[name]), gt, PROTOCOLS[name]).errors
    if name == "C":
        near = gt[eigen_crop(480, 640)]
        assert errors == pytest.approx(
            IndoorErrors(
                *depth_errors(near, np.minimum(1.3 * near, 10)),
                np.abs(np.log10(np.minimum(1.3 * near, 10) / near)).mean(),
            ),
            rel=1e-4,
        )
        assert errors.abs_rel > 0.2 and errors.a1 < 0.3
    else:
        assert errors == pytest.approx((0, 0, 0, 0, 1, 1, 1, 0), abs=1e-5)


@pytest.mark.parametrize(
    "row, column, seen",
    [
        (43, 300, ""), (44, 300, "A"), (45, 300, "ABC"), (470, 300, "ABC"), (471, 300, ""),
        (200, 39, ""), (200, 40, "A"), (200, 41, "ABC"), (200, 600, "ABC"), (200, 601, ""),
    ],
)  # fmt: skip
def test_crops_end_at_their_own_row_and_column(row, column, seen):
    """MATLAB's 45:471, 41:601 is Python's 44:471, 40:601, which is not the crop of B and C."""
    gt = np.full((480, 640), 2, np.float32)
    pred = gt.copy()
    pred[row, column] *= 2
    for name, protocol in PROTOCOLS.items():
        wrong = score_depth(disparity(pred, protocol), gt, protocol).errors.a1 < 1
        assert wrong == (name in seen), name


def test_crops_have_the_published_sizes_and_are_of_640x480_only():
    image = np.zeros((480, 640))
    assert image[toolbox_crop(480, 640)].shape == (427, 561)
    assert image[eigen_crop(480, 640)].shape == (426, 560)
    for crop in (toolbox_crop, eigen_crop):
        with pytest.raises(UserError, match="640x480 images, not 320x240"):
            crop(240, 320)


def test_ranges_are_those_of_the_protocol():
    gt = room()
    gt[100, 100], gt[100, 101], gt[100, 102], gt[100, 103] = 0, 0.05, 10, 12
    counted = {name: p.mask(p.seen(gt)).sum() for name, p in PROTOCOLS.items()}
    assert counted == {"A": 427 * 561 - 1, "B": 426 * 560 - 4, "C": 426 * 560 - 3}
    far = np.full((4, 4), 1e-3, np.float32)  # a kilometre, clipped to 10 m
    worst = score_depth(far, gt, PROTOCOLS["C"]).errors
    assert worst.abs_rel < 10 / 0.05 and np.isfinite(worst).all()


def test_log10_is_that_of_one_pixel_by_hand():
    gt = np.full((480, 640), 1.0, np.float32)
    errors = score_depth(np.full((2, 2), 0.1, np.float32), gt, PROTOCOLS["C"]).errors
    assert errors.log10 == pytest.approx(1) and errors._fields == (*DepthErrors._fields, "log10")


def test_the_protocol_is_chosen_by_name():
    for split in ("nyuv2", "nyuv2_official"):
        assert benchmark(split, "nyuv2").protocol is PROTOCOLS["A"]
        assert benchmark(split, "nyuv2", "C").protocol is PROTOCOLS["C"]
    for split in ("nyuv2_report", "eigen"):
        with pytest.raises(UserError, match="--nyuv2_protocol B: is for the splits nyuv2"):
            benchmark(split, "kitti", "B")
    with pytest.raises(UserError, match="not made of --dataset nyuv2"):
        benchmark("eigen", "nyuv2")


def test_a_split_of_ones_own_is_scored_by_protocol_a(tmp_path):
    assert benchmark(str(tmp_path), "nyuv2").protocol is PROTOCOLS["A"]
    assert benchmark(str(tmp_path), "nyuv2", "B").protocol is PROTOCOLS["B"]


# The report's scores


def test_the_reports_ground_truth_has_lost_its_metres(labelled):
    data = NYUv2Report(labelled, frames(1), 64, 64)
    grey = data.ground_truth(0)
    depth = NYUv2(labelled, frames(1), 64, 64).ground_truth(0)
    assert grey.min() < 0.03 and grey.max() > 0.97 and grey.dtype == np.float32
    stretched = (depth - depth.min()) / (depth.max() - depth.min())
    assert np.abs(grey - stretched).mean() < 0.02
    assert "NOT METRES" in data.depth_source()
    bench = benchmark("nyuv2_report", "nyuv2")
    assert bench.dataset is NYUv2Report and "not metric" in bench.protocol.describe()
    assert not bench.protocol.log10 and bench.protocol.input_crop is None


def test_the_reports_grey_values_are_those_of_its_jpegs(labelled, tmp_path):
    depth = np.linspace(0.7, 9.9, 480 * 640, dtype=np.float32).reshape(480, 640)
    (tmp_path / "images").symlink_to(labelled / "images")
    (tmp_path / "depths").mkdir()
    Image.fromarray(np.round(1000 * depth).astype(np.uint16)).save(tmp_path / "depths/gt_1.png")
    metres = np.round(1000 * depth).astype(np.float32) / 1000
    scaled = 255 * (metres - metres.min()) / (metres.max() - metres.min())
    memory = io.BytesIO()
    Image.fromarray(np.round(scaled).astype(np.uint8)).save(memory, "JPEG", quality=75)
    expected = np.asarray(Image.open(memory)) / 255
    np.testing.assert_allclose(
        NYUv2Report(tmp_path, frames(1), 64, 64).ground_truth(0), expected, atol=2 / 255
    )


# What was seen in training


def test_recordings_of_labelled_images_are_rooms(labelled, tmp_path):
    assert place("kitchen_0028a") == place("kitchen_0028") == "kitchen_0028"
    assert place("2011_09_26_drive_0001_sync") == "2011_09_26_drive_0001_sync"
    assert recordings(frames(1, 4), labelled) == {"kitchen_0001", "office_0002"}
    assert recordings([Frame("kitchen_0001b", 3, "l")], tmp_path) == {"kitchen_0001"}
    assert recordings(frames(1, 4), tmp_path) == set()  # no list of scenes: not known


def test_every_benchmark_of_nyuv2_is_listed_in_the_help(monkeypatch, capsys):
    for script in ("evaluate_depth", "export_gt_depth"):
        with pytest.raises(SystemExit):
            run(monkeypatch, script, "-h")
        text = capsys.readouterr().out
        assert all(name in text for name in BENCHMARKS if "nyuv2" in name)
