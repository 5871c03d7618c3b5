"""The doctor of data: healthy data pass, and planted faults are named."""

import shutil

import numpy as np
import planted
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from planted import Video, kitti_video, redwood_video, room_video, street_video
from scipy.spatial.transform import Rotation

from datasets import KITTIDepth, KITTIOdom, KITTIRaw, read_split
from datasets.intrinsics import pinhole
from doctor import Finding, examine
from doctor.cameras import check_intrinsics
from doctor.fitting import Observations, solve
from doctor.frames import spread
from doctor.report import SEVERITIES, summed_up
from motion import Reference
from tools import scenery

K = np.array([[300.0, 0, 200], [0, 300, 64], [0, 0, 1]])


@pytest.fixture(scope="module")
def street(sample, tmp_path_factory):
    return street_video(sample, tmp_path_factory.mktemp("street") / "video")


@pytest.fixture(scope="module")
def kitti(real_data, tmp_path_factory):
    return kitti_video(real_data, tmp_path_factory.mktemp("kitti") / "video", frames=13)


@pytest.fixture(scope="module")
def redwood(real_data, tmp_path_factory):
    return redwood_video(real_data, tmp_path_factory.mktemp("redwood") / "video")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return room_video(tmp_path_factory.mktemp("room") / "video")


@pytest.fixture(params=["street", "kitti", "redwood", "room"])
def video(request, tmp_path):
    """A copy of each world, to plant faults in."""
    return request.getfixturevalue(request.param).copy(tmp_path / "video")


@pytest.fixture(params=["street", "kitti"])
def pair(request, tmp_path):
    """A copy of each world with stereo."""
    return request.getfixturevalue(request.param).copy(tmp_path / "video")


@pytest.fixture(params=["street", "redwood", "room"])
def deep(request, tmp_path):
    """A copy of each world with depth."""
    return request.getfixturevalue(request.param).copy(tmp_path / "video")


def reorder(video: Video, order) -> None:
    """Frames with their partners and depth in another order."""
    for part in ("images", "stereo", "depth"):
        if part in video.camera:
            video.shuffle(order, part)


def without(video: Video, *parts: str) -> None:
    video.write_camera(**{name: v for name, v in video.camera.items() if name not in parts})


def found(video: Video, check: str, seconds: float | None = 60.0, **kind) -> str:
    """The message of the one fault."""
    report = examine(video.data(**kind), seconds=seconds)
    assert [fault.check for fault in report.faults] == [check], report.lines()
    assert report.faults[0].fix
    return report.faults[0].message


def demand_nothing(report) -> None:
    assert not report.lines()
    assert "not checked" not in [finding.check for finding in report.findings]


# Healthy data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_healthy_data_pass(video, seconds):
    has_stereo = "stereo" in video.camera
    demand_nothing(examine(video.data(use_stereo=has_stereo), seconds=seconds))


@pytest.mark.parametrize(
    "kind, intrinsics", [(KITTIRaw, "nominal"), (KITTIDepth, "calib"), (KITTIOdom, "nominal")]
)
def test_a_made_up_street_passes(sample, kind, intrinsics):
    name = "sample_odom" if kind is KITTIOdom else "sample"
    frames = read_split(sample / "splits" / name / "train_files.txt")
    options = {"use_stereo": True, "intrinsics": intrinsics, "augment": True}
    dataset = kind(sample, frames, 128, 416, (0, -1, 1), **options)
    demand_nothing(examine(dataset, seconds=60.0))


def test_the_whole_real_sequence_passes(real_data, tmp_path):
    video = kitti_video(real_data, tmp_path / "video", frames=51)
    demand_nothing(examine(video.data(use_stereo=True)))


def test_single_stereo_images_pass(pair):
    demand_nothing(examine(pair.data(use_stereo=True, frame_ids=(0,))))


def test_one_camera_that_answers_for_both_sides_is_no_pair(street, tmp_path):
    video = street.copy(tmp_path / "video")
    video.change(stereo=video.camera["stereo"] | {"images": video.camera["images"]})
    demand_nothing(examine(video.data()))


# The camera ---------------------------------------------------------------------------------------


def test_images_that_were_resized_without_their_camera(video):
    planted.halve(video)
    message = found(video, "image size")
    assert "resized by 0.5" in message


def test_a_K_that_was_not_scaled(video):
    planted.halve(video)
    camera = video.camera
    width, height = camera["width"] // 2, camera["height"] // 2
    point = {name: min(camera[name], s - 1) for name, s in (("cx", width), ("cy", height))}
    video.change(width=width, height=height, **point)
    report = examine(video.data(), seconds=60.0)
    assert report.faults[0].check == "camera"
    assert "not scaled" in report.faults[0].message


def test_a_K_that_was_scaled_by_the_width_alone(street, tmp_path):
    video = street.copy(tmp_path / "video")
    video.change(fy=video.camera["fy"] / 2)
    report = examine(video.data(), seconds=60.0)  # of 3.3:1, so perhaps reshaped
    assert any("square" in finding.message for finding in report.warnings)
    for aspect, severity in ((4 / 3, "fault"), (3.3, "warning")):
        K = pinhole(500.0, 260.0, 319.5, 640 / aspect / 2 - 0.5)
        (finding,) = check_intrinsics(K, (640, round(640 / aspect)))
        assert finding.severity == severity and "'reshaped': true" in finding.fix


@pytest.mark.parametrize("factor", [0.1, 9.0])
def test_a_field_of_view_that_no_lens_has(street, tmp_path, factor):
    video = street.copy(tmp_path / "video")
    video.change(fx=factor * video.camera["fx"], fy=factor * video.camera["fy"])
    faults = examine(video.data(), seconds=60.0).faults
    assert any("field of view" in fault.message for fault in faults)


def test_a_mirrored_principal_point_shows_where_depth_is_known(deep):
    width = deep.camera["width"]
    planted.crop(deep, width // 8, width - width // 8)
    truth = deep.camera["cx"]
    demand_nothing(examine(deep.data()))
    planted.mirror_cx(deep)
    message = found(deep, "K against geometry", seconds=None)
    better = float(message.split("cx ")[1].split("about ")[1].split()[0])
    assert abs(better - truth) < 0.03 * width


def test_a_wrong_focal_length_shows_where_depth_is_known(deep):
    without(deep, "stereo")
    deep.change(fx=1.25 * deep.camera["fx"], fy=1.25 * deep.camera["fy"])
    assert "focal length" in found(deep, "K against geometry", seconds=None)


def test_a_mirrored_principal_point_shows_by_stereo(street, tmp_path):
    video = street.copy(tmp_path / "video")
    without(video, "depth")
    width = video.camera["width"]
    planted.crop(video, width // 8, width - width // 8)
    demand_nothing(examine(video.data(use_stereo=True)))
    planted.mirror_cx(video)
    assert "cx" in found(video, "K against geometry", seconds=None, use_stereo=True)


def test_black_bars_are_seen(street, tmp_path):
    video = street.copy(tmp_path / "video")
    views = [np.pad(image, ((20, 20), (0, 0), (0, 0))) for image in video.images()]
    planted.write_alone(video, views, cy=video.camera["cy"] + 20)
    report = examine(video.data(), seconds=60.0)
    assert [warning.check for warning in report.warnings] == ["borders"]


# Motion -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 2])
def test_shuffled_frames(pair, seed):
    order = np.random.default_rng(seed).permutation(len(pair.files()))
    reorder(pair, order)
    assert "order" in found(pair, "order of frames", use_stereo=True)


@pytest.mark.parametrize("times", [2, 3])
def test_frames_that_are_there_several_times(deep, times):
    order = np.repeat(np.arange(len(deep.files())), times)
    reorder(deep, order)
    report = examine(deep.data(), seconds=60.0)
    assert [fault.check for fault in report.faults] == ["repeated frames"]
    assert {2: "twice", 3: "3 times"}[times] in report.faults[0].message
    assert f"--frame_ids 0 -{times} {times}" in report.faults[0].fix
    demand_nothing(examine(deep.data(frame_ids=(0, -times, times)), seconds=60.0))


def test_doubled_frames_of_a_stereo_pair(kitti, tmp_path):
    video = kitti.copy(tmp_path / "video")
    reorder(video, np.repeat(np.arange(len(video.files())), 2))
    assert "twice" in found(video, "repeated frames", use_stereo=True)


def test_some_frames_that_are_repeated_in_a_rhythm(pair):
    count = len(pair.files())
    reorder(pair, [i for i in range(count) for _ in range(1 + (i % 4 == 3))])
    message = found(pair, "repeated frames")
    assert "of every 5 frames, 1" in message


def test_a_rate_that_is_too_high(street, tmp_path, monkeypatch):
    monkeypatch.setattr(scenery, "STEP_M", scenery.STEP_M / 10)
    rng, setting = np.random.default_rng([0, 1]), scenery.Setting()
    film = scenery.street(rng, 9, setting, torch.device("cpu"))
    video = street.copy(tmp_path / "video")
    planted.hardly_moving(video, film, frames=9)
    report = examine(video.data(), seconds=60.0)
    assert [fault.check for fault in report.faults] == ["frame rate"]
    stride = int(report.faults[0].fix.split("--frame_ids 0 -")[1].split()[0])
    assert 5 <= stride <= 20


def test_a_rate_that_is_too_high_on_a_real_image(redwood, tmp_path):
    video = redwood.copy(tmp_path / "video")
    planted.slide(video, metres=0.001)
    assert "too little" in found(video, "frame rate")


def test_frames_that_are_too_far_apart(kitti):
    assert "far apart" in found(kitti, "frame rate", frame_ids=(0, -5, 5))


def test_a_camera_that_stands(pair):
    count = len(pair.files())
    reorder(pair, [0] * count + list(range(count // 2)))
    report = examine(pair.data(), seconds=60.0)
    assert not report.faults
    assert [warning.check for warning in report.warnings] == ["standing camera"]
    reorder(pair, [0] * len(pair.files()))
    assert "100%" in found(pair, "standing camera")


def test_a_camera_that_only_turns(video):
    planted.turn_only(video)
    assert "turns" in found(video, "turning camera")


def test_brightness_that_jumps(street, tmp_path):
    video = street.copy(tmp_path / "video")
    images = video.images()
    planted.write_alone(video, [np.uint8(x * (0.7 if i % 3 else 1)) for i, x in enumerate(images)])
    report = examine(video.data(), seconds=60.0)
    assert "exposure" in [warning.check for warning in report.warnings]


# Stereo and depth ---------------------------------------------------------------------------------


def test_swapped_partners(pair):
    planted.swap_stereo(pair)
    assert "farther left" in found(pair, "stereo", use_stereo=True)


def test_a_baseline_of_the_wrong_sign(pair):
    planted.turn_sign(pair)
    assert "farther right" in found(pair, "stereo", use_stereo=True)


def test_partners_that_are_the_same_picture(pair):
    pair.change(stereo=pair.camera["stereo"] | {"images": pair.camera["images"]})
    assert "same picture" in found(pair, "stereo", use_stereo=True)


def test_partners_that_are_not_rectified(pair):
    lower = [np.roll(image, 9, axis=0) for image in pair.images("stereo")]
    pair.write_images(lower, "stereo")
    assert "rectified" in found(pair, "stereo", use_stereo=True)


@pytest.mark.parametrize("metres_per_unit", [1.0, 1e-6])
def test_depth_in_an_impossible_unit(deep, metres_per_unit):
    planted.set_unit(deep, metres_per_unit)
    assert "median depth" in found(deep, "depth")


@pytest.mark.parametrize(
    "factor, unit", [(0.256, "1/256 m read as milli"), (3.0, "what the stereo")]
)
def test_depth_in_another_unit_than_stereo(street, tmp_path, factor, unit):
    video = street.copy(tmp_path / "video")
    planted.set_unit(video, factor / 256)
    assert unit in found(video, "depth", use_stereo=True)


def test_depth_of_another_shape(deep):
    for path in deep.files("depth"):
        with Image.open(path) as image:
            image.crop((0, 0, image.width, image.height - 20)).save(path)
    report = examine(deep.data(), seconds=60.0)
    assert any("another shape" in fault.message for fault in report.faults)


@pytest.mark.parametrize("how", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM])
def test_depth_that_is_of_other_images(deep, how):
    without(deep, "stereo")
    for path in deep.files("depth"):
        with Image.open(path) as image:
            flipped = image.transpose(how)
        flipped.save(path)
    found(deep, "warp test")


def test_depth_that_is_inverse(deep):
    without(deep, "stereo")
    for path in deep.files("depth"):
        with Image.open(path) as image:
            units = np.asarray(image).astype(float)
        middle = np.median(units[units > 0])
        inverse = np.clip(middle**2 / np.maximum(units, 1), 1, 65535)
        Image.fromarray(np.where(units > 0, inverse, 0).astype(np.uint16)).save(path)
    found(deep, "warp test")


# What must hold whatever the data is --------------------------------------------------------------


def noise(seed: int, count: int = 9):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    "images",
    [
        noise(0),
        noise(1, 3),
        [np.zeros((64, 96, 3), np.uint8)] * 9,
        [np.full((9, 7, 3), 200, np.uint8)] * 4,
        [*noise(2, 4), np.zeros((32, 48, 3), np.uint8), *noise(3, 4)],
    ],
)
def test_odd_images_raise_nothing(street, tmp_path, images):
    video = street.copy(tmp_path / "video")
    planted.write_alone(video, images, cx=images[0].shape[1] / 2, cy=images[0].shape[0] / 2)
    for seconds in (None, 60.0):
        examine(video.data(), seconds=seconds).as_json()


def test_images_of_several_sizes_are_a_fault(video):
    path = video.files()[2]
    with Image.open(path) as image:
        image.resize((image.width // 2, image.height // 2)).save(path)
    assert "differ in size" in found(video, "image size")


def test_unreadable_images_are_a_fault(video):
    path = video.files()[2]
    path.write_bytes(path.read_bytes()[:1000])
    report = examine(video.data(), seconds=60.0)
    assert "files" in [fault.check for fault in report.faults]
    assert str(path) in " ".join(report.lines())


def test_folders_that_are_named_and_hold_nothing_are_faults(street, tmp_path):
    video = street.copy(tmp_path / "video")
    for path in video.files("depth")[3:]:
        path.unlink()  # of some frames only is as it should be
    assert not any("depth images" == f.check for f in examine(video.data(), seconds=60.0).faults)
    shutil.rmtree(video.files("depth")[0].parent)
    shutil.rmtree(video.files("stereo")[0].parent)
    faults = examine(video.data(), seconds=60.0).faults
    assert {"stereo images", "depth images"} <= {fault.check for fault in faults}


def test_unreadable_depth_is_a_fault(deep):
    for path in deep.files("depth"):
        path.write_bytes(b"nothing")
    assert "files" in [f.check for f in examine(deep.data(), seconds=60.0).faults]


def test_random_numbers_and_data_stay_as_they_are(street):
    data = street.data(use_stereo=True)
    before = {name: repr(value) for name, value in vars(data).items()}
    states = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    examine(data, seconds=60.0)
    after = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert states == after
    assert before == {name: repr(value) for name, value in vars(data).items()}


def test_time_that_is_up_ends_it(street):
    report = examine(street.data(use_stereo=True), seconds=0.0)
    assert report.seconds < 1
    assert not report.faults


def test_it_is_quick_on_little_data(sample):
    frames = read_split(sample / "splits/sample/train_files.txt")[:10]
    report = examine(KITTIRaw(sample, frames, 128, 416, (0, -1, 1)), seconds=60.0)
    assert report.seconds < 30  # a second, on a machine of one's own


def test_twice_the_same_says_the_same(street):
    first, second = (examine(street.data(use_stereo=True)) for _ in range(2))
    assert first.findings == second.findings
    assert first.sequences[0].numbers == second.sequences[0].numbers


# Its parts ----------------------------------------------------------------------------------------


@given(st.integers(0, 300))
def test_spread_is_an_order_of_all(count):
    order = spread(count)
    assert sorted(order) == list(range(count))
    if count > 4:
        assert max(order[:4]) > count // 2


@given(
    st.lists(st.tuples(st.integers(1, 50), st.sampled_from([*SEVERITIES, None])), min_size=1),
    st.booleans(),
)
def test_findings_are_summed_up(sequences, may_differ):
    found = {
        str(i): [Finding(severity, "check", "message")] if severity else []
        for i, (_, severity) in enumerate(sequences)
    }
    weights = {str(i): frames for i, (frames, _) in enumerate(sequences)}
    merged = summed_up(found, weights, frozenset({"check"} if may_differ else ()))
    severities = [finding.severity for finding in merged]
    assert severities == sorted(severities, key=SEVERITIES.index)
    faulty = sum(frames for frames, severity in sequences if severity == "fault")
    half = 2 * faulty >= sum(weights.values())
    assert ("fault" in severities) == (faulty > 0 and (half or not may_differ))


@settings(max_examples=5)
@given(
    st.floats(-0.2, 0.2), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.booleans(), st.integers(0)
)
def test_a_camera_that_turns_is_found(focal, cx, cy, by_stereo, seed):
    seen = moving_points(np.random.default_rng(seed), turn=0.1)
    wrong = K.copy()
    wrong[0, 0], wrong[1, 1] = K[0, 0] / (1 + focal), K[1, 1] / (1 + focal)
    wrong[:2, 2] -= 400 * np.array([cx, cy])
    depth = seen.depth / (1 + focal) if by_stereo else seen.depth
    best, error = solve(seen._replace(depth=depth), wrong, 400, by_stereo)
    np.testing.assert_allclose(best, [focal, cx, cy], atol=1e-3)
    assert error.max() < 1e-3


@settings(max_examples=5)
@given(st.booleans(), st.integers(0))
def test_a_camera_that_moves_straight_on_tells_nothing(by_stereo, seed):
    rng = np.random.default_rng(seed)
    seen = moving_points(rng, turn=0.0)
    seen = seen._replace(after=seen.after + rng.normal(0, 0.1, seen.after.shape))
    _, error = solve(seen, K, 400, by_stereo)
    assert error.max() > 0.04


def moving_points(rng, turn: float, pairs: int = 6, count: int = 60) -> Observations:
    """Points of a camera with `K` that moves forward and turns by about so many radians."""
    before = rng.uniform((0, 0), (400, 128), (pairs, count, 2))
    depth = rng.uniform(4, 30, (pairs, count))
    rays = np.concatenate([before, np.ones((pairs, count, 1))], 2) @ np.linalg.inv(K).T
    vectors = turn * rng.normal(size=(pairs, 3))
    ways = np.array([0, 0, -1.0]) + 0.1 * rng.normal(size=(pairs, 3)) * (turn > 0)
    points = rays * depth[..., None]
    moved = np.stack(
        [Rotation.from_rotvec(v).apply(p) for v, p in zip(vectors, points, strict=True)]
    )
    pixels = (moved + ways[:, None]) @ K.T
    after = pixels[..., :2] / pixels[..., 2:]
    pair = np.repeat(np.arange(pairs), count)
    motions = np.concatenate([vectors, ways], 1)
    flat = before.reshape(-1, 2), depth.ravel(), after.reshape(-1, 2)
    return Observations(*flat, pair, motions)


@given(st.integers(-6, 6), st.integers(-6, 6))
@settings(max_examples=5)
def test_points_are_tracked_where_they_go(x, y):
    image = np.asarray(Image.fromarray(noise(4)[0]).resize((384, 256), 3).convert("L"))
    moved = np.roll(image, (y, x), (0, 1))
    mask = np.zeros_like(image)
    mask[60:200, 60:300] = 255
    tracks = Reference(image, K, np.zeros(5), mask).track(moved)
    assert tracks.found > 0.5
    assert ((tracks.before >= (60, 60)) & (tracks.before < (300, 200))).all()
    np.testing.assert_allclose(np.median(tracks.shift, 0), [x, y], atol=0.1)
