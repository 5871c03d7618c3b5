import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import hsv2rgb, rgb2hsv
from skimage.metrics import peak_signal_noise_ratio
from torchvision.transforms.functional import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
)

from datasets import (
    Frame,
    GroundTruth,
    KITTIDepth,
    KITTIOdom,
    KITTIRaw,
    collate,
    jitter,
    write_ground_truth,
)
from datasets.images import read_depth_image, read_image, read_pixels, resize_fast
from datasets.intrinsics import resize_K
from datasets.jitter import ColorJitter
from datasets.kitti import METRES_PER_UNIT, read_poses
from datasets.velodyne import project_scan, read_calibration, read_scan
from tools.sample_files import VELODYNE_IN_CAMERA
from utils import UserError

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"
HEIGHT, WIDTH = 64, 96


def frames(*indices, side="l"):
    return [Frame(DRIVE, i, side) for i in indices]


def dataset(path, indices=(3,), side="l", kind=KITTIRaw, **options):
    return kind(path, frames(*indices, side=side), HEIGHT, WIDTH, **options)


def image_file(path, frame, camera="image_02"):
    return path / DRIVE / camera / "data" / f"{frame:010d}.jpg"


# Samples


def test_a_sample_is_uint8_frames_in_order_with_pixel_intrinsics(sample):
    data = dataset(sample, frame_ids=(0, -1, 1), use_stereo=True)
    one = data[0]
    assert one["color"].dtype == torch.uint8 and one["color"].shape == (4, 3, HEIGHT, WIDTH)
    files = [image_file(sample, i) for i in (3, 2, 4)] + [image_file(sample, 3, "image_03")]
    for got, file in zip(one["color"], files, strict=True):
        expected = Image.open(file).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(got.permute(1, 2, 0), np.asarray(expected))
    assert torch.equal(one["color"], one["color_aug"])
    expected = [[0.58 * WIDTH, 0, 0.5 * WIDTH], [0, 1.92 * HEIGHT, 0.5 * HEIGHT], [0, 0, 1]]
    np.testing.assert_allclose(one["K"], expected, rtol=1e-6)


@pytest.mark.parametrize("side, baseline", [("l", -0.1), ("r", 0.1)])
def test_flips_mirror_images_camera_and_baseline(sample, side, baseline):
    plain = dataset(sample, side=side, use_stereo=True)[0]
    assert plain["stereo_T"][0, 3].item() == pytest.approx(baseline)
    augmented = dataset(sample, side=side, use_stereo=True, augment=True)
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        one = augmented[0]
        flipped = torch.equal(one["color"], plain["color"].flip(-1))
        seen.add(flipped)
        if flipped:
            assert one["K"][0, 2].item() == pytest.approx(WIDTH - 1 - plain["K"][0, 2].item())
            assert one["stereo_T"][0, 3] == -plain["stereo_T"][0, 3]
        else:
            assert torch.equal(one["color"], plain["color"])
            assert torch.equal(one["K"], plain["K"])
            assert torch.equal(one["stereo_T"], plain["stereo_T"])
        assert torch.equal(one["K"][1:], plain["K"][1:])
        assert torch.equal(one["stereo_T"][:, :3], plain["stereo_T"][:, :3])
    assert seen == {True, False}


def test_jitter_is_one_for_all_frames_and_only_the_networks_see_it(sample):
    image = image_file(sample, 3).read_bytes()
    twin = image_file(sample, 4)
    before = twin.read_bytes()
    twin.write_bytes(image)  # two equal frames must stay equal
    try:
        data = dataset(sample, frame_ids=(0, 1), augment=True)
        changed = 0
        for seed in range(20):
            torch.manual_seed(seed)
            one = data[0]
            assert torch.equal(one["color_aug"][0], one["color_aug"][1])
            assert torch.equal(one["color"][0], one["color"][1])
            changed += not torch.equal(one["color"], one["color_aug"])
        assert 4 <= changed <= 16
    finally:
        twin.write_bytes(before)


def test_jitter_has_the_published_ranges(sample):
    ranges = [(low, high) for _, low, high in dataset(sample).jitter.steps]
    np.testing.assert_allclose(ranges, [(0.8, 1.2)] * 3 + [(-0.1, 0.1)])


def test_jitter_draws_factors_from_its_ranges_in_any_order():
    seen, orders = {}, set()

    def noting(name):
        def note(frames, factor):
            order.append(name)
            seen.setdefault(name, []).append(factor)
            return frames

        return note

    jitter = ColorJitter(0.2, 0.2, 0.2, 0.1)
    jitter.steps = [(noting(i), low, high) for i, (_, low, high) in enumerate(jitter.steps)]
    for _ in range(300):
        order = []
        jitter(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
        orders.add(tuple(order))
    assert len(orders) == 24
    for i, (low, high) in enumerate([(0.8, 1.2)] * 3 + [(-0.1, 0.1)]):
        assert low <= min(seen[i]) < low + 0.02 and high - 0.02 < max(seen[i]) <= high


@pytest.mark.parametrize(
    "ours, theirs, factors",
    [
        (jitter.adjust_brightness, adjust_brightness, (0.8, 1.0, 1.2)),
        (jitter.adjust_contrast, adjust_contrast, (0.8, 1.0, 1.2)),
        (jitter.adjust_saturation, adjust_saturation, (0.8, 1.0, 1.2)),
    ],
)
def test_jitter_steps_are_torchvisions(ours, theirs, factors):
    for factor in factors:
        for image in smooth_colours():
            expected = np.asarray(theirs(Image.fromarray(image), factor))
            got = ours(image, factor)
            assert np.abs(got.astype(int) - expected).max() <= 1  # Pillow cuts where we round


@pytest.mark.parametrize("turn", [-0.1, -0.03, 0.0, 0.07, 0.1])
def test_hues_turn_as_in_real_numbers(turn):
    """8-bit hues are coarse, so single colours are off by up to a step of the circle."""
    for image in smooth_colours():
        hsv = rgb2hsv(image)
        hsv[..., 0] = (hsv[..., 0] + turn) % 1
        difference = np.abs(jitter.adjust_hue(image, turn) - 255 * hsv2rgb(hsv))
        assert difference.mean() < 1.5 and difference.max() < 15


def smooth_colours():
    """Two images of all kinds of colours, uint8 [2 60 80 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((80, 60), 3)) for c in coarse])


def test_the_fast_resize_of_training_is_close_to_lanczos(sample):
    slow, fast = (dataset(sample, fast_resize=fast)[0]["color"] for fast in (False, True))
    assert not torch.equal(slow, fast)
    assert peak_signal_noise_ratio(slow.numpy(), fast.numpy()) > 40
    pixels = read_pixels(image_file(sample, 3))
    assert torch.equal(resize_fast(pixels, *pixels.shape[1:]), pixels)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("kind", ["png", "jpg", "bmp"])
def test_pixels_are_those_of_pillow_whatever_the_file(tmp_path, mode, kind):
    image = Image.fromarray(smooth_colours()[0]).convert(mode)
    try:
        image.save(tmp_path / f"image.{kind}")
    except OSError:
        pytest.skip(f"no {kind} of mode {mode}")
    expected = np.asarray(read_image(tmp_path / f"image.{kind}")).astype(int)
    got = read_pixels(tmp_path / f"image.{kind}").permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() <= 3  # JPEG libraries round differently


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_image_bombs_are_refused_before_they_unfold(tmp_path, monkeypatch, kind):
    Image.fromarray(smooth_colours()[0]).save(tmp_path / f"image.{kind}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # more than twice that is a bomb
    with pytest.raises(UserError, match="could be decompression bomb"):
        read_pixels(tmp_path / f"image.{kind}")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "cannot be read as an image"),
        (b"not an image at all", "cannot be read as an image"),
        ("half", "cannot be read as an image"),
        ("16 bit", "not 8 bits a channel"),
        (None, "no such image"),
    ],
)
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_pixels_of_bad_files_are_refused_as_by_pillow(tmp_path, content, words, kind):
    path = tmp_path / f"image.{kind}"
    if content == "16 bit":
        Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(path, format="png")
    elif content == "half":
        Image.fromarray(smooth_colours()[0]).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_pixels(path)


@pytest.mark.parametrize("which", [[], [1], [0, 2], [0, 1, 2]])
def test_a_batch_holds_jittered_images_once_and_says_whose_they_are(sample, which):
    data = dataset(sample, (3, 4, 5), frame_ids=(0, -1, 1), augment=True)
    samples = [data[i] for i in range(3)]
    for i, one in enumerate(samples):
        one["color_aug"] = data.jitter(one["color"]) if i in which else one["color"]
    batch = collate(samples)
    assert batch["jittered"].tolist() == which
    assert batch["color_aug"].shape == (len(which), 3, 3, HEIGHT, WIDTH)
    for i, one in enumerate(samples):
        assert torch.equal(batch["color"][i], one["color"])
        if i in which:
            assert torch.equal(batch["color_aug"][which.index(i)], one["color_aug"])
    assert "color" in samples[0]  # as they were


def test_batches_stack_tensors_and_list_ground_truth(sample):
    data = dataset(sample, (3, 4), with_depth=True)
    batch = collate([data[0], data[1]])
    assert batch["color"].shape == (2, 1, 3, HEIGHT, WIDTH)
    assert [depth.shape for depth in batch["depth_gt"]] == [(128, 416), (128, 416)]


# The camera


def test_resizing_keeps_rays():
    """A world point's pixel moves as the image does: the outer edges stay where they are."""
    K = np.array([[700.0, 0, 600], [0, 710, 180], [0, 0, 1]])
    small = resize_K(K, (1240, 376), (310, 94))
    for point in ([1.0, 0.5, 3.0], [-2.0, 0.1, 9.0]):
        u, v, _ = K @ point / point[2]
        u2, v2, _ = small @ point / point[2]
        assert (u2 + 0.5) * 4 - 0.5 == pytest.approx(u)
        assert (v2 + 0.5) * 4 - 0.5 == pytest.approx(v)


def test_calibrated_intrinsics_are_read_per_camera(sample):
    data = dataset(sample, intrinsics="calib")
    K, size = data.calibrated_K(data.frames[0])
    assert size == (416, 128)
    np.testing.assert_allclose(data[0]["K"], resize_K(K, size, (WIDTH, HEIGHT)), rtol=1e-6)


# Missing and damaged files


def test_frames_without_neighbours_are_left_out_with_count_and_example(sample):
    data = dataset(sample, range(12), frame_ids=(0, -1, 2))
    assert [f.index for f in data.frames] == list(range(1, 10))
    assert "3 of 12 frames lack a neighbour at -1 +2" in data.left_out
    assert f"'{DRIVE} 0 l'" in data.left_out
    assert dataset(sample, range(1, 11), frame_ids=(0, -1, 1)).left_out == ""


@pytest.mark.parametrize(
    "options, words",
    [
        ({"indices": (3, 99)}, "1 of 2 frames"),
        ({"indices": (3,), "png": True}, "no PNG image"),
        ({"indices": (3,), "frame_ids": (0, 50)}, "nothing remains"),
        ({"indices": (3,), "kind": KITTIOdom}, "no odometry sequence"),
    ],
)
def test_missing_frames_stop_at_the_start(sample, options, words):
    with pytest.raises(UserError, match=words):
        dataset(sample, **options)


def test_missing_folder_and_calibration_are_named(sample, tmp_path):
    with pytest.raises(UserError, match="--data_path"):
        dataset(tmp_path / "nowhere")
    (tmp_path / DRIVE).mkdir(parents=True)
    (tmp_path / DRIVE / "image_02").symlink_to(sample / DRIVE / "image_02")
    dataset(tmp_path)
    with pytest.raises(UserError, match="calib_cam_to_cam.txt: no such calibration"):
        dataset(tmp_path, intrinsics="calib")
    (tmp_path / "2011_09_26" / "calib_cam_to_cam.txt").write_text("P_rect_02: 1 2 3\n")
    with pytest.raises(UserError, match="no 3x4 entry 'P_rect_02'"):
        dataset(tmp_path, intrinsics="calib")


def test_odometry_takes_the_camera_of_its_calibration_and_the_size_of_its_images(tmp_path):
    for camera in (2, 3):
        images = tmp_path / "sequences" / "06" / f"image_{camera}"
        images.mkdir(parents=True)
        Image.new("L", (310, 94)).save(images / "000000.png")
    (tmp_path / "sequences/06/calib.txt").write_text(
        "P2: 700 0 150 0 0 710 50 0 0 0 1 0\nP3: 700 0 150 -380 0 710 50 0 0 0 1 0\n"
    )
    data = KITTIOdom(tmp_path, [Frame("6", 0, "l")], 64, 96, use_stereo=True, intrinsics="calib")
    expected = resize_K(np.array([[700.0, 0, 150], [0, 710, 50], [0, 0, 1]]), (310, 94), (96, 64))
    np.testing.assert_allclose(data[0]["K"], expected, rtol=1e-6)
    assert data[0]["color"].shape == (2, 3, 64, 96)


@pytest.mark.parametrize("entry", ["P_rect_02: " + "0 " * 12, "S_rect_02: 0 0"])
def test_a_calibration_that_is_no_camera_is_named(sample, tmp_path, entry):
    (tmp_path / DRIVE).mkdir(parents=True)
    (tmp_path / DRIVE / "image_02").symlink_to(sample / DRIVE / "image_02")
    lines = (sample / "2011_09_26" / "calib_cam_to_cam.txt").read_text().splitlines()
    name = entry.split(":")[0]
    lines = [entry if line.startswith(name) else line for line in lines]
    (tmp_path / "2011_09_26" / "calib_cam_to_cam.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match="calib_cam_to_cam.txt: describes no camera"):
        dataset(tmp_path, intrinsics="calib")


def test_images_of_any_8_bit_mode_are_read_and_deeper_ones_refused(tmp_path):
    for mode in ("L", "LA", "RGBA", "P", "1"):
        Image.new(mode, (4, 3)).save(tmp_path / "image.png")
        assert read_image(tmp_path / "image.png").mode == "RGB"
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(tmp_path / "image.png")
    with pytest.raises(UserError, match="not 8 bits"):
        read_image(tmp_path / "image.png")


def test_jpeg_or_png_is_found_by_itself(sample, tmp_path):
    folder = tmp_path / DRIVE / "image_02" / "data"
    folder.mkdir(parents=True)
    Image.open(image_file(sample, 3)).save(folder / "0000000003.png")
    pngs = dataset(tmp_path)
    assert torch.equal(pngs[0]["color"], dataset(sample)[0]["color"])
    assert torch.equal(dataset(tmp_path, png=True)[0]["color"], pngs[0]["color"])


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_truncated_images_are_named(sample, tmp_path, keep, kind):
    path = tmp_path / f"image.{kind}"
    Image.open(image_file(sample, 3)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep == 10 else keep * len(content))])
    with pytest.raises(UserError, match=f"image.{kind}: cannot be read"):
        read_image(path)


def test_an_image_that_vanishes_later_is_named(sample, tmp_path):
    folder = tmp_path / DRIVE / "image_02" / "data"
    folder.mkdir(parents=True)
    path = folder / "0000000003.jpg"
    path.write_bytes(image_file(sample, 3).read_bytes())
    data = dataset(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="0000000003: the image has gone"):
        data[0]


# LiDAR


def plain_projection(scan, P, height, width, axis):
    """Point by point."""
    image = np.zeros((height, width))
    for x, y, z, _ in scan.astype(np.float64):
        if x < 0:
            continue
        a, b, c = P @ (x, y, z, 1)
        depth = x if axis == "velodyne_x" else c
        if depth <= 0:
            continue
        u, v = int(np.round(a / c)) - 1, int(np.round(b / c)) - 1
        if 0 <= u < width and 0 <= v < height and (image[v, u] == 0 or depth < image[v, u]):
            image[v, u] = depth
    return image


@pytest.mark.parametrize("axis", ["velodyne_x", "camera_z"])
def test_projection_is_the_plain_one(axis):
    rng = np.random.default_rng(1)
    scan = rng.uniform([-5, -20, -3, 0], [40, 20, 3, 1], (4000, 4)).astype(np.float32)
    P = np.array([[20.0, 0, 16, 5], [0, 20, 8, 0.2], [0, 0, 1, 0.003]])
    P = P @ VELODYNE_IN_CAMERA
    expected = plain_projection(scan, P, 16, 32, axis)
    np.testing.assert_allclose(project_scan(scan, P, 16, 32, axis), expected, atol=1e-4)
    assert (expected > 0).sum() > 300
    shuffled = project_scan(rng.permutation(scan), P, 16, 32, axis)
    np.testing.assert_array_equal(shuffled, project_scan(scan, P, 16, 32, axis))


@pytest.mark.parametrize("size", [0, 15, 20])
def test_broken_scans_are_named(tmp_path, size):
    path = tmp_path / "scan.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(UserError, match="scan.bin"):
        read_scan(path)


def test_calibration_skips_what_is_no_number(tmp_path):
    path = tmp_path / "calib.txt"
    path.write_text("calib_time: 09-Jan-2012 13:57:47\nR: 1 2 3\n\nodd line\n")
    assert read_calibration(path)["R"].tolist() == [1, 2, 3]


# Ground truth


def test_ground_truth_reads_back_with_its_frames(tmp_path):
    maps = [
        np.random.default_rng(i).uniform(0, 80, (3 + i, 5)).astype(np.float32) for i in range(3)
    ]
    path = tmp_path / "folder" / "gt.npz"
    write_ground_truth(path, frames(1, 2, 3), maps, "somewhere", "KITTIRaw")
    gt = GroundTruth(path)
    assert (gt.source, gt.dataset) == ("somewhere", "KITTIRaw") and gt.frames == [
        f"{DRIVE} {i} l" for i in (1, 2, 3)
    ]
    for i, depth in enumerate(maps):
        np.testing.assert_array_equal(gt[i], depth)


def test_a_failed_export_leaves_the_old_file(tmp_path):
    path = tmp_path / "gt.npz"
    write_ground_truth(path, frames(1), [np.ones((2, 2))], "old", "KITTIRaw")

    def broken():
        yield np.ones((2, 2))
        raise UserError("scan is broken")

    with pytest.raises(UserError, match="broken"):
        write_ground_truth(path, frames(1, 2), broken(), "new", "KITTIRaw")
    assert GroundTruth(path).source == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["gt.npz"]


def test_unreadable_ground_truth_is_refused(tmp_path):
    path = tmp_path / "gt.npz"
    with pytest.raises(UserError, match="no such ground truth"):
        GroundTruth(path)
    for content in (b"", b"PK\x03\x04 broken", b"plain text"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="gt.npz"):
            GroundTruth(path)
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros(2), np.zeros(3)]
    np.savez(path, data=ragged)
    with pytest.raises(UserError, match="pickled objects"):
        GroundTruth(path)
    for entries, name in (
        ({"other": np.zeros(3)}, "source"),
        ({"source": "x", "dataset": 3}, "dataset"),
        ({"source": "x", "dataset": "d", "frames": np.array(3)}, "frames"),
        (
            {"source": "x", "dataset": "d", "frames": ["a"], "depth_000000": np.zeros(3)},
            "depth_000000",
        ),
        (
            {"source": "x", "dataset": "d", "frames": ["a"], "depth_000000": np.eye(3, dtype=int)},
            "depth",
        ),
    ):
        np.savez(path, **entries)
        with pytest.raises(UserError, match=f"'{name}.*' is missing or damaged"):
            GroundTruth(path)[0]
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UserError, match="array.npy"):
        GroundTruth(tmp_path / "array.npy")


def test_improved_depth_is_found_in_both_layouts(sample, tmp_path):
    values = np.array([[0, 256], [512, 65535]], np.uint16)
    name = f"proj_depth/groundtruth/image_02/{3:010d}.png"
    for root in (DRIVE, "val/2011_09_26_drive_0001_sync"):
        path = tmp_path / root / name
        path.parent.mkdir(parents=True)
        Image.fromarray(values).save(path)
        data = KITTIDepth(tmp_path, frames(3), HEIGHT, WIDTH, frame_ids=())
        np.testing.assert_allclose(data.ground_truth(0), values / 256)
        path.unlink()
        assert data.ground_truth(0) is None


def test_depth_images_must_be_16_bit(tmp_path):
    path = tmp_path / "depth.png"
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(UserError, match="no 16-bit"):
        read_depth_image(path, METRES_PER_UNIT)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="cannot be read"):
        read_depth_image(path, METRES_PER_UNIT)


def test_poses_are_read_or_the_line_is_named(tmp_path):
    path = tmp_path / "00.txt"
    path.write_text("1 0 0 5 0 1 0 6 0 0 1 7\n" * 2)
    poses = read_poses(path)
    assert poses.shape == (2, 4, 4) and poses[1, :, 3].tolist() == [5, 6, 7, 1]
    good = "1 0 0 5 0 1 0 6 0 0 1 7\n"
    path.write_text(good + "\n\n")
    assert len(read_poses(path)) == 1
    path.write_text(f"0 {good}1 {good}")
    assert read_poses(path)[1, :, 3].tolist() == [5, 6, 7, 1]
    for bad in (
        f"7 {good.strip()}",
        "1 2 3",
        "nan " * 12,
        "0 " * 12,
        "1 0 0 inf 0 1 0 6 0 0 1 7",
        "a b",
        "",
    ):
        path.write_text(f"{good}{bad}\n{good}")
        with pytest.raises(UserError, match="00.txt:2"):
            read_poses(path)
    with pytest.raises(UserError, match="01.txt"):
        read_poses(tmp_path / "01.txt")
