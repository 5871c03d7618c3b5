"""The made-up world: what is seen, and what its files say, fit together."""

import filecmp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation
from scripts import fails, run

from datasets import Frame, KITTIDepth, KITTIOdom, KITTIRaw, NYUv2, NYUv2Raw, read_split
from datasets.kitti import read_poses
from datasets.velodyne import read_calibration
from layers import backproject, project, warp
from tools import sample_files, scenery
from tools.make_sample import make_room
from tools.render import SKY, Thing, cast, make_world, pixel_rays, pulse, render, shade
from tools.sample_files import (
    BASELINE_M,
    EAST_NORTH_UP,
    VELODYNE_IN_CAMERA,
    drive_name,
    nominal_K,
)
from tools.scenery import EYE_M, Setting, place

CPU = torch.device("cpu")
WIDTH, HEIGHT = 320, 96
K = nominal_K(WIDTH, HEIGHT)
RAYS = pixel_rays(K, HEIGHT, WIDTH)


def film(frames=12, seed=0, **setting):
    return scenery.street(np.random.default_rng(seed), frames, Setting(**setting), CPU)


def see(film, frame, offset=None):
    pose = film.poses[frame] if offset is None else film.poses[frame] @ offset
    return render(film.at(frame), pose, K, RAYS)


# The ray caster


def plain_distance(thing, origin, ray):
    """First crossing of one ray with one thing, by its definition."""
    into = np.linalg.inv(thing.pose)
    start, along = into[:3, :3] @ origin + into[:3, 3], into[:3, :3] @ ray
    distances = []
    if thing.is_round:
        a, b = along / thing.half, start / thing.half
        roots = np.roots([a @ a, 2 * a @ b, b @ b - 1])
        distances = [root.real for root in roots if abs(root.imag) < 1e-12]
    else:
        for axis in range(3):
            for side in (-1, 1):
                at = (side * thing.half[axis] - start[axis]) / along[axis]
                inside = np.abs(start + at * along) <= thing.half + 1e-9
                if np.delete(inside, axis).all():
                    distances.append(at)
    if not distances or min(distances) <= 0:  # behind, or the ray begins inside
        return np.inf
    return min(distances)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_rays_meet_what_a_plain_search_finds(seed):
    rng = np.random.default_rng(seed)
    things = []
    for _ in range(12):
        pose = place(*rng.uniform((-8, -4, 3), (8, 4, 20)))
        pose[:3, :3] = Rotation.random(random_state=int(rng.integers(1000))).as_matrix()
        round_ = bool(rng.random() < 0.5)
        things.append(Thing(pose, rng.uniform(0.2, 2, 3), np.ones(3), is_round=round_))
    rays = np.column_stack([rng.uniform(-0.6, 0.6, (60, 2)), np.ones(60)])
    origin = rng.normal(0, 0.5, 3)
    world = make_world(rng, things, CPU)
    hit = cast(world, torch.tensor(origin).float(), torch.tensor(rays).float())
    distance, thing, point, normal = (part.numpy() for part in hit)
    each = np.array([[plain_distance(thing, origin, ray) for thing in things] for ray in rays])
    expected = each.min(1)
    np.testing.assert_array_equal(np.isinf(distance), thing == SKY)
    # float32 may miss or meet a silhouette that the search meets or misses
    same = np.isfinite(distance) & np.isclose(distance, expected, rtol=2e-3)
    assert (same | (np.isinf(distance) & np.isinf(expected))).mean() > 0.95
    alone = same & (np.sort(each, 1)[:, 1] > expected + 1e-2)
    np.testing.assert_array_equal(thing[alone], each.argmin(1)[alone])
    for i in np.flatnonzero(alone):
        own = np.linalg.inv(things[thing[i]].pose) @ [*(origin + distance[i] * rays[i]), 1]
        np.testing.assert_allclose(point[i], own[:3], atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(normal[same], axis=1), 1, atol=1e-4)
    assert ((normal[same] * rays[same]).sum(1) < 1e-3).all()  # what is seen faces the eye


def test_a_ray_that_grazes_a_surface_has_a_colour():
    """Its normal may come out as exactly across the ray, at a box's edge."""
    rng = np.random.default_rng(0)
    world = make_world(rng, [Thing(place(0, 0, 5), np.ones(3), np.full(3, 0.5), contrast=0.4)], CPU)
    ray = torch.tensor([[0.0, 0.0, 1.0]])
    hit = cast(world, torch.zeros(3), ray)
    aside = torch.tensor([[1.0, 0.0, 0.0]])  # the surface's, were it seen along its side
    step = torch.tensor([0.01, 0.0, 0.0])
    colour = shade(world, hit._replace(normal=aside), ray, step, step.roll(1))
    assert colour.isfinite().all()


@given(
    x=st.floats(-50, 50), width=st.floats(0.01, 20), period=st.floats(0.5, 9),
    share=st.floats(0.1, 0.9),
)  # fmt: skip
def test_pulses_are_filtered_exactly(x, width, period, share):
    at = np.linspace(x - width / 2, x + width / 2, 20001)
    expected = (np.mod(at, period) < share * period).mean()
    got = pulse(torch.tensor([x]).double(), torch.tensor([width]).double(), period, share)
    assert got.item() == pytest.approx(expected, abs=2e-3)


def test_textures_are_band_limited_and_have_detail_at_every_distance():
    """Fewer pixels see the mean of more pixels, and a step nearer shows as much contrast again."""
    rng = np.random.default_rng(1)
    wall = Thing(place(0, 0, 0), np.array([2000.0, 2000, 1]), np.full(3, 0.5), contrast=0.4)
    world = make_world(rng, [wall], CPU)
    contrasts = []
    for metres in (3, 10, 30, 100):
        pose = place(5, 3, -1 - metres)
        fine, *_ = render(
            world, pose, nominal_K(640, 192), pixel_rays(nominal_K(640, 192), 192, 640)
        )
        half = nominal_K(320, 96)
        half[:2, 2] -= 0.25  # centres of pixels lie at whole numbers
        coarse, *_ = render(world, pose, half, pixel_rays(half, 96, 320))
        means = fine.reshape(96, 2, 320, 2, 3).mean((1, 3))
        assert np.abs(means - coarse).mean() < 0.1 * coarse.std()
        steps = np.abs(np.diff(coarse[..., 0], axis=1))
        contrasts.append(np.median(steps))
    assert min(contrasts) > 0.003 and max(contrasts) < 12 * min(contrasts)


# What is seen


def rebuilt(target, source, depth, source_depth, T):
    """The target as the source shows it, and where the source sees the same point."""
    target, source = (torch.tensor(a).permute(2, 0, 1)[None].float() for a in (target, source))
    camera, T = torch.tensor(K)[None].float(), torch.tensor(T)[None].float()
    flat = np.where(np.isfinite(depth), depth, 1e4)
    points = backproject(torch.tensor(flat)[None, None].float(), torch.linalg.inv(camera))
    grid = project(points, camera, T, HEIGHT, WIDTH)
    there = (T[:, 2:3] @ points).view(1, HEIGHT, WIDTH)
    far = torch.tensor(np.where(np.isfinite(source_depth), source_depth, 1e4))[None, None].float()
    seen_depth = torch.nn.functional.grid_sample(far, grid, mode="nearest", align_corners=False)
    visible = (grid.abs() < 1).all(-1)[0] & ((seen_depth[0, 0] / there[0] - 1).abs() < 0.02)
    error = (warp(source, grid) - target).abs().mean(1)[0]
    return error, visible.numpy(), (source - target).abs().mean(1)[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("source", ["before", "after", "right"])
def test_true_depth_and_motion_rebuild_the_target(source, seed):
    """The conventions of geometry, stereo sign and world, in pictures."""
    world = film(seed=seed)
    frame = {"before": 5, "after": 7, "right": 6}[source]
    offset = place(BASELINE_M, 0, 0) if source == "right" else np.eye(4)
    T = np.linalg.inv(world.poses[frame] @ offset) @ world.poses[6]
    image, depth, _ = see(world, 6)
    other, other_depth, _ = see(world, frame, offset)
    error, visible, unmoved = rebuilt(image, other, depth, other_depth, T)
    assert visible.mean() > 0.6
    assert error[visible].mean() < 0.02 < unmoved[visible].mean()


def test_the_ground_is_where_it_should_be_and_the_sky_is_nowhere():
    world = film(rotation=0)
    _, depth, things = see(world, 0)
    rows = np.arange(HEIGHT)[:, None] - K[1, 2]
    ground = things == 0
    height = (np.where(ground, depth, 0) * rows / K[1, 1])[ground]
    np.testing.assert_allclose(height, EYE_M, rtol=1e-3)
    assert ground.mean() > 0.15 and (np.isinf(depth) == (things == SKY)).all()
    assert 0.02 < (things == SKY).mean() < 0.4


def test_images_and_motion_turn_with_the_road():
    headings = [np.arctan2(*film(100, seed).poses[:, [0, 2], 2].T) for seed in range(6)]
    assert max(np.ptp(h) for h in headings) > 0.25
    steps = [np.linalg.norm(np.diff(film(100, s).poses[:, :3, 3], axis=0), axis=1) for s in (0, 1)]
    assert all(0.4 < s.min() and s.max() < 1.3 and np.abs(np.diff(s)).max() < 0.1 for s in steps)


# What a world may have


def test_a_camera_that_stands_sees_the_same_and_smoothly_goes_on():
    world = film(90, standing=0.4)
    still = np.abs(np.diff(world.poses, axis=0)).max((1, 2)) == 0
    assert 0.2 < still.mean() < 0.6
    i = int(np.flatnonzero(still)[0])
    np.testing.assert_array_equal(see(world, i)[0], see(world, i + 1)[0])
    steps = np.linalg.norm(np.diff(world.poses[:, :3, 3], axis=0), axis=1)
    assert np.abs(np.diff(steps)).max() < 0.45


def test_one_car_keeps_its_distance_and_the_next_comes_nearer():
    world = film(40, moving_cars=2)
    parts = len(world.movers) // 2
    bodies = world.places[:, [0, parts]][..., :3, 3]
    away = np.linalg.norm(bodies - world.poses[:, None, :3, 3], axis=-1)
    assert np.ptp(away[:, 0]) < 2 and 8 < away[:, 0].min()
    assert np.abs(np.diff(bodies[:, 0], axis=0)).sum() > 20  # it does drive
    assert np.diff(bodies[:, 1, 2]).max() < 0
    _, _, things = see(world, 20)
    assert np.isin(things, world.movers).any()
    assert not np.array_equal(see(world, 0)[2], see(world._replace(movers=[]), 0)[2])


def test_rotation_exposure_and_plainness_do_what_they_say():
    def turning(**setting):
        R = Rotation.from_matrix(film(60, **setting).poses[:, :3, :3])
        return (R[1:] * R[:-1].inv()).magnitude().mean()

    assert turning(rotation=0) < turning() < turning(rotation=2)
    assert film(30).gain.tolist() == [1] * 30
    gain = film(30, exposure=0.2).gain
    assert gain.max() / gain.min() > 1.3 and np.abs(np.diff(np.log(gain))).max() < 0.4
    plain, usual = (film(textureless=t).world.contrast for t in (1, 0))
    assert (plain[:1] == 0).all() and (plain == 0).float().mean() > 0.3 > (
        usual == 0
    ).float().mean()
    assert (
        np.abs(np.diff(see(film(textureless=1), 3)[0], axis=1)).mean()
        < np.abs(np.diff(see(film(), 3)[0], axis=1)).mean()
    )


def test_one_number_makes_one_world():
    np.testing.assert_array_equal(see(film(seed=4), 2)[0], see(film(seed=4), 2)[0])
    assert not np.array_equal(see(film(seed=4), 2)[0], see(film(seed=5), 2)[0])


# KITTI's files


@pytest.fixture(scope="module")
def drive(sample):
    return sample / drive_name(1)


def test_files_hold_a_consistent_world(sample, drive):
    """Image, depth, pose and camera as the data sets read them."""
    poses = read_poses(drive / "poses.txt")
    frames = [Frame(drive_name(1), 5, "l"), Frame(drive_name(1), 6, "l")]
    raw = KITTIRaw(sample, frames, 128, 416, intrinsics="calib")
    depth = KITTIDepth(sample, frames, 128, 416)
    target, source = (raw[i]["color"][0].float()[None] / 255 for i in (0, 1))
    camera = raw[0]["K"][None]
    T = torch.tensor(np.linalg.inv(poses[6]) @ poses[5]).float()[None]
    gt = depth.ground_truth(0)
    points = backproject(torch.tensor(gt)[None, None], torch.linalg.inv(camera))
    grid = project(points, camera, T, 128, 416)
    counts = torch.tensor(gt > 0) & (grid.abs() < 1).all(-1)[0]
    error = (warp(source, grid) - target).abs().mean(1)[0][counts]
    assert error.median() < 0.02 < (source - target).abs().mean(1)[0][counts].mean()


def test_scans_agree_with_true_depth(sample):
    frames = [Frame(drive_name(2), 3, "l")]
    raw = KITTIRaw(sample, frames, 0, 0, frame_ids=())
    raw.depth_axis = "camera_z"
    lidar, truth = raw.ground_truth(0), KITTIDepth(sample, frames, 0, 0).ground_truth(0)
    assert lidar.max() > 20
    seen = np.zeros_like(lidar, bool)
    seen[:-1, :-1] = lidar[:-1, :-1] > 0  # the devkit's pixels count from one
    truth = np.roll(truth, (-1, -1), (0, 1))
    seen &= truth > 0
    error = np.abs(truth[seen] / lidar[seen] - 1)
    assert seen.sum() > 3000 and np.median(error) < 0.01 and (error < 0.05).mean() > 0.85


def test_calibration_gives_the_camera_and_the_rig(sample):
    rig = read_calibration(sample / sample_files.DATE / "calib_cam_to_cam.txt")
    K = nominal_K(416, 128)
    for camera in range(4):
        P = rig[f"P_rect_{camera:02d}"].reshape(3, 4)
        np.testing.assert_allclose(P[:, :3], K)
        np.testing.assert_allclose(-P[0, 3] / K[0, 0], BASELINE_M * (camera % 2))
        assert rig[f"S_rect_{camera:02d}"].tolist() == [416, 128]
    velo = read_calibration(sample / sample_files.DATE / "calib_velo_to_cam.txt")
    np.testing.assert_allclose(velo["R"].reshape(3, 3), VELODYNE_IN_CAMERA[:3, :3])
    odometry = read_calibration(sample / "sequences/01/calib.txt")
    np.testing.assert_allclose(odometry["P2"], rig["P_rect_02"])
    np.testing.assert_allclose(odometry["P3"], rig["P_rect_03"])


def test_navigation_decodes_to_the_poses(drive):
    """As KITTI's development kit turns it into poses: Mercator, then roll, pitch, yaw."""
    poses = read_poses(drive / "poses.txt")
    notes = np.array([np.loadtxt(p) for p in sorted((drive / "oxts/data").iterdir())])
    assert notes.shape == (12, 30)
    scale, earth = np.cos(np.radians(notes[0, 0])), 6378137.0
    x = scale * earth * np.radians(notes[:, 1])
    y = scale * earth * np.log(np.tan(np.radians(90 + notes[:, 0]) / 2))
    places = np.tile(np.eye(4), (12, 1, 1))
    places[:, :3, :3] = Rotation.from_euler("ZYX", notes[:, [5, 4, 3]]).as_matrix()
    places[:, :3, 3] = np.stack([x, y, notes[:, 2]], 1)
    back = np.eye(4)
    back[:3, :3] = EAST_NORTH_UP.T
    cameras = back @ places @ np.linalg.inv(VELODYNE_IN_CAMERA)
    got, expected = (np.linalg.inv(p[0]) @ p for p in (cameras, poses))
    np.testing.assert_allclose(got, expected, atol=2e-4)
    ahead = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1) / 0.1
    np.testing.assert_allclose(notes[1:-1, 8], (ahead[1:] + ahead[:-1]) / 2, rtol=0.02)


def test_the_odometry_layout_shows_the_same(sample, drive):
    for camera in (2, 3):
        for i in (0, 11):
            assert filecmp.cmp(
                drive / f"image_{camera:02d}/data/{i:010d}.jpg",
                sample / f"sequences/01/image_{camera}/{i:06d}.jpg",
                shallow=False,
            )
    poses = KITTIOdom.read_poses(sample, "1")
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-9)
    own = read_poses(drive / "poses.txt")
    np.testing.assert_allclose(np.linalg.inv(own[0]) @ own, poses, atol=1e-9)
    assert len((sample / "sequences/01/times.txt").read_text().split()) == 12
    stamps = (drive / "image_02/timestamps.txt").read_text().splitlines()
    assert stamps == sorted(stamps) and len(set(stamps)) == 12


def test_held_out_drives_are_held_out(sample):
    parts = {
        p: read_split(sample / f"splits/sample/{p}_files.txt") for p in ("train", "val", "test")
    }
    seen = {part: {frame.folder for frame in frames} for part, frames in parts.items()}
    assert seen["test"] == {drive_name(3)} and not seen["test"] & (seen["train"] | seen["val"])
    assert not set(parts["train"]) & set(parts["val"])
    for part in ("train", "val"):
        odometry = read_split(sample / f"splits/sample_odom/{part}_files.txt")
        assert [(int(f.folder), f.index, f.side) for f in odometry] == [
            (int(f.folder[-9:-5]), f.index, f.side) for f in parts[part]
        ]


# The command


def test_the_command_makes_png_streets_and_goes_on_with_its_own_only(monkeypatch, capsys, tmp_path):
    out = tmp_path / "street"
    flags = ("street", out, "--frames", 8, 9, "--test_drives", 1, "--size", "64x32",
             "--png", "--moving_cars", 2, "--standing", 0.2)  # fmt: skip
    run(monkeypatch, "tools.make_sample", *flags)
    assert "--split sample" in capsys.readouterr().out
    with Image.open(out / drive_name(2) / "image_03/data/0000000007.png") as image:
        assert image.size == (64, 32)
    before = (out / drive_name(1) / "image_02/data/0000000003.png").read_bytes()
    run(monkeypatch, "tools.make_sample", *flags)
    assert (out / drive_name(1) / "image_02/data/0000000003.png").read_bytes() == before
    line = fails(monkeypatch, capsys, "tools.make_sample", *flags, "--seed", 1)
    assert "was prepared from other data or otherwise (seed" in line


@pytest.mark.parametrize(
    "flags, words",
    [
        (("street", "--frames", 30, 3), "--frames 3: give 8 or more"),
        (("street", "--frames", 9, 9), "--test_drives 2 leaves none of 2 drives"),
        (("street", "--standing", 2), "--standing 2: give 0 to 0.9"),
        (("street", "--rotation", "nan"), "--rotation nan: give 0 to 5"),
        (("street", "--size", "big"), "write width x height"),
        (("street", "--seed", -1), "--seed -1"),
        (("room", "--scenes", 2), "--scenes 2: give 3 or more"),
        (("room", "--textureless", -1), "--textureless -1: give 0 to 1"),
        (("lake",), "invalid choice: 'lake'"),
    ],
)
def test_worlds_that_cannot_be_are_refused(monkeypatch, capsys, tmp_path, flags, words):
    kind, *rest = flags
    line = fails(monkeypatch, capsys, "tools.make_sample", kind, tmp_path / "out", *rest)
    assert words in line and not (tmp_path / "out").exists()


# NYUv2's files


@pytest.mark.slow
def test_rooms_come_out_of_the_preparing_tool_as_they_went_in(monkeypatch, tmp_path):
    """The labelled file and the raw recordings, through tools/prepare_nyuv2.py."""
    made, labelled, raw = tmp_path / "made", tmp_path / "nyuv2", tmp_path / "raw"
    make_room(made, scenes=3, frames=3)
    run(monkeypatch, "tools.prepare_nyuv2", "labelled", made / "nyu_depth_v2_labeled.mat", labelled)
    frames = [Frame("images", 1, "l")]
    data = NYUv2(labelled, frames, 0, 0, frame_ids=())
    film = scenery.room(np.random.default_rng([0, 0]), 3, Setting(), CPU)
    K = sample_files.COLOUR_K
    _, truth, _ = render(film.world, film.poses[0], K, pixel_rays(K, 480, 640))
    np.testing.assert_allclose(data.ground_truth(0), truth, atol=6e-4)
    data.depth_kind = "raw"
    measured = data.ground_truth(0)
    there = measured > 0
    assert 0.6 < there.mean() < 0.999
    assert np.median(np.abs(measured[there] / truth[there] - 1)) < 0.01
    names = ["room_0001"] * 3 + ["room_0002"] * 3 + ["room_0003"] * 3
    assert (labelled / "scenes.txt").read_text().split()[1::2] == names
    for part, expected in (("train", [1, 2, 3]), ("val", [4, 5, 6]), ("test", [7, 8, 9])):
        lines = read_split(made / f"splits/sample/{part}_files.txt")
        assert [frame.index for frame in lines] == expected

    for i in (1, 2):
        video = scenery.room(np.random.default_rng(i), 7, Setting(), CPU)
        sample_files.write_raw_scene(made / f"raw/room_{i:04d}", sample_files.raw_frames(video))
    run(monkeypatch, "tools.prepare_nyuv2", "raw", made / "raw", raw)
    frames = read_split(raw / "splits/nyuv2_raw/train_files.txt")
    video = NYUv2Raw(raw, frames, 96, 128, (0, -1, 1), intrinsics="calib")
    assert len(video) == len(frames) and video[0]["color"].shape == (3, 3, 96, 128)


def test_rooms_are_filmed_from_inside():
    film = scenery.room(np.random.default_rng(5), 40, Setting(), CPU)
    K = nominal_K(160, 120)
    for i in range(0, 40, 8):
        _, depth, _ = render(film.at(i), film.poses[i], K, pixel_rays(K, 120, 160))
        assert np.isfinite(depth).all() and 0.3 < np.median(depth) < 9
