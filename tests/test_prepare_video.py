"""From someone's clips, made up here, to sequences that training reads."""

import json
import math
import shutil
import struct
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from scripts import fails, run

from datasets import read_image, read_split
from datasets.folder import VideoFolder, read_sequence
from doctor import examine
from doctor.cameras import check_intrinsics
from media import VideoWriter, black_borders
from tools import video_clip, video_run, video_source
from tools.video_camera import Lens, exif_focal, read_camera
from tools.video_run import training_size
from tools.video_sequence import SequenceWriter
from tools.video_source import Images, Video, natural, on_clock
from tools.video_view import View, unbent
from utils import UserError

TOOL = "tools.prepare_video"
WIDTH, HEIGHT = 192, 96
ALL = ("--min_motion", 0)


def paint(seed, width=1600):
    """Blots of two sizes."""
    rng = np.random.default_rng(seed)
    image = np.full((HEIGHT, width, 3), 20, np.float32)
    for cell, strength in ((24, 110), (8, 100)):
        coarse = rng.uniform(0, 1, (HEIGHT // cell, width // cell, 3)).astype(np.float32)
        image += strength * cv2.resize(coarse, (width, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


WORLDS = {seed: (paint(2 * seed), paint(2 * seed + 1)) for seed in (0, 1)}


def see(x, seed=0):
    """A frame [96 192 3] from a place: the lower half is three times nearer than the upper."""
    far, near = WORLDS[seed]
    image = far[:, 100 + x : 100 + x + WIDTH].copy()
    image[HEIGHT // 2 :] = near[HEIGHT // 2 :, 100 + 3 * x : 100 + 3 * x + WIDTH]
    return image


def write_clip(path, frames, fps=10.0):
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.add(frame)
    return path


def write_images(folder, frames, name="photo_{}.png"):
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(i))
    return folder


def contents(folder):
    """Every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def numbers(folder):
    return sorted(int(path.stem) for path in folder.glob("*.jpg"))


def about(folder):
    return json.loads((folder / "intrinsics.json").read_text())["about"]


def place_of(image, seed=0):
    """From where a picture was taken, by comparing it with all places."""
    errors = [np.abs(image.astype(int) - see(x, seed)).mean() for x in range(0, 120)]
    assert min(errors) < 12
    return int(np.argmin(errors))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Forty frames of a camera that goes sideways."""
    return write_clip(tmp_path_factory.mktemp("clips") / "walk.mp4", [see(x) for x in range(40)])


# From clips to what training reads


def test_a_clip_becomes_a_data_set(monkeypatch, capsys, clip, tmp_path):
    out = tmp_path / "video"
    run(monkeypatch, TOOL, clip, "--out", out, "--fov_deg", 60)
    printed = capsys.readouterr().out
    assert "walk: 40 of 40 frames kept, sequences: 1" in printed and "guess" not in printed
    assert f"python train.py --dataset folder --data_path {out} --height 96 --width 192" in printed
    assert numbers(out / "walk") == list(range(40))
    assert all(place_of(np.asarray(read_image(out / f"walk/{i:06d}.jpg"))) == i for i in (0, 39))
    sequence = read_sequence(out / "walk")
    focal = WIDTH / 2 / math.tan(math.radians(30))
    np.testing.assert_allclose(
        sequence.K, [[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1]]
    )
    assert about(out / "walk")["frames_per_second"] == 10 and not sequence.guessed
    assert (out / "splits/video/train_files.txt").read_text() == "walk 1-32 l\n"
    assert (out / "splits/video/val_files.txt").read_text() == "walk 35-38 l\n"
    frames = read_split(out / "splits/video/train_files.txt")
    data = VideoFolder(out, frames, 32, 64, (0, -1, 1))
    assert len(data) == 32 and data[3]["color"].shape == (3, 3, 32, 64)


def test_a_camera_of_which_nothing_is_known_is_assumed_and_said(
    monkeypatch, capsys, clip, tmp_path
):
    other = shutil.copy(clip, tmp_path / "again.mp4")
    run(monkeypatch, TOOL, clip, other, "--out", tmp_path / "video")
    printed = capsys.readouterr().out
    assert "assuming a focal length of 0.58" in printed and "--learn_intrinsics" in printed
    assert "together: 80 of 80" in printed and printed.count("camera of 192x96") == 1
    sequences = [read_sequence(tmp_path / "video" / name) for name in ("walk", "again")]
    assert all(one.guessed and one.camera is None for one in sequences)  # perhaps not one device
    assert sequences[0].K[0, 0] == pytest.approx(0.58 * WIDTH)


def test_a_folder_of_images_is_a_clip_in_the_order_of_its_numbers(monkeypatch, capsys, tmp_path):
    folder = write_images(tmp_path / "my photos", [see(2 * x) for x in range(12)])
    out = tmp_path / "video"
    run(monkeypatch, TOOL, folder, "--out", out, "--source_fps", 5)
    kept = [place_of(np.asarray(read_image(out / f"my_photos/{i:06d}.jpg"))) for i in range(12)]
    assert kept == list(range(0, 24, 2))
    assert about(out / "my_photos")["frames_per_second"] == 5
    shutil.rmtree(out)
    run(monkeypatch, TOOL, folder, "--out", out)
    assert about(out / "my_photos")["frames_per_second"] is None


@given(st.lists(st.integers(0, 2000), min_size=1, unique=True))
def test_names_are_sorted_by_their_numbers(values):
    paths = [Path(f"a_{value}_of_9.png") for value in values]
    assert [p.name for p in sorted(paths, key=natural)] == [
        f"a_{value}_of_9.png" for value in sorted(values)
    ]


# What is done to a frame, and to its camera


def lens_of(fx, fy, cx, cy, *distortion, size=(320, 200)):
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], float)
    return Lens(K, size, np.array(distortion, float), "the test")


@st.composite
def lenses(draw):
    """Cameras of frames of 320x200 pixels, with usual distortion."""
    numbers = [draw(st.floats(a, b)) for a, b in (
        (150, 400), (150, 400), (150, 170), (90, 110), (-0.2, 0.15), (-0.03, 0.03),
        (-0.004, 0.004), (-0.004, 0.004),
    )]  # fmt: skip
    return lens_of(*numbers)


@settings(max_examples=25)
@given(
    lens=lenses(),
    margins=st.tuples(*[st.integers(0, 30)] * 4),
    size=st.none() | st.tuples(st.integers(120, 400), st.integers(100, 300)),
    seed=st.integers(0, 99),
)
def test_points_are_seen_where_the_written_camera_sees_them(lens, margins, size, seed):
    """A bright spot through the lens, then cut, straightened and resized, against the spot through
    the camera that is written."""
    try:
        view = View(lens, margins, size)
    except UserError:
        assume(False)
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[: lens.size[1], : lens.size[0]]
    pixels = np.mgrid[: view.size[1], : view.size[0]][::-1].reshape(2, -1)
    sources = seen_at(lens, view.K, pixels.T)
    for aim in rng.uniform(14, np.array(view.size) - 15, (6, 2)):
        at = seen_at(lens, view.K, aim[None])[0]
        spot = 250 * np.exp(-((u - at[0]) ** 2 + (v - at[1]) ** 2) / (2 * 2.5**2))
        picture = view.of(np.uint8(np.round(spot))[..., None].repeat(3, 2))[..., 0].ravel()
        expected = 250 * np.exp(-((sources - at) ** 2).sum(1) / (2 * 2.5**2))
        near = np.abs(pixels - aim[:, None]).max(0) < 14
        if expected[~near].max() > 1:
            continue  # not all of the spot is in the window
        assert picture[~near].max() <= 2
        centres = [(pixels * weights)[:, near].sum(1) / weights[near].sum()
                   for weights in (picture.astype(float), expected)]  # fmt: skip
        assert np.abs(centres[0] - centres[1]).max() < 0.05


def seen_at(lens, K, pixels):
    """Where the lens shows what a straight camera shows at these pixels [N 2]."""
    rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(K).T
    return cv2.projectPoints(rays, np.zeros(3), np.zeros(3), lens.K, lens.distortion)[0][:, 0]


@settings(max_examples=40)
@given(lens=lenses(), margins=st.tuples(*[st.integers(0, 30)] * 4))
def test_straightened_pictures_have_no_black_corner_and_waste_little(lens, margins):
    try:
        view = View(lens, margins, None)
    except UserError:
        assume(False)
    width, height = view.size
    left, top, right, bottom = margins
    assert width <= 320 - left - right and height <= 200 - top - bottom
    x, y = np.arange(width), np.arange(height)
    border = [
        *[(a, b) for a in x for b in (0, height - 1)],
        *[(a, b) for a in (0, width - 1) for b in y],
    ]
    seen = seen_at(lens, view.K, border)
    low, high = np.array([left, top]), np.array([319 - right, 199 - bottom])
    assert (seen >= low - 0.01).all() and (seen <= high + 0.01).all()
    room = np.minimum(seen - low, high - seen).reshape(-1, 2).min(0)
    assert (room < 1.5).all()  # the frame's border is touched


def test_straight_lines_come_out_straight():
    lens = lens_of(100, 100, 80, 50, -0.25, 0.04, 0, 0, size=(160, 100))
    v, u = np.mgrid[:100, :160].astype(np.float64)
    flat = unbent(np.column_stack([u.ravel(), v.ravel()]), lens.K, lens.distortion)

    def picture(x, y):  # of the pixels of a straight camera
        return np.uint8(127.5 + 100 * np.sin(x / 9) * np.cos(y / 7))

    bent = picture(*flat.T).reshape(100, 160)[..., None].repeat(3, 2)
    view = View(lens, (0, 0, 0, 0), None)
    y, x = np.mgrid[: view.size[1], : view.size[0]]
    into = lens.K @ np.linalg.inv(view.K)
    expected = picture(into[0, 0] * x + into[0, 2], into[1, 1] * y + into[1, 2])
    assert np.abs(view.of(bent)[..., 0].astype(int) - expected).mean() < 1.5


def test_distortion_that_folds_the_picture_is_refused():
    lens = lens_of(120, 120, 160, 100, -0.5, 0, 0, 0)
    with pytest.raises(UserError, match="folds the picture before its border"):
        View(lens, (0, 0, 0, 0), None)
    assert View(lens, (110, 70, 110, 70), None).size[0] > 80


def test_large_frames_are_written_at_a_usual_size():
    lens = lens_of(3000, 3000, 1080, 1920, size=(2160, 3840))
    view = View(lens, (0, 0, 0, 0), None)
    assert view.size == (720, 1280) and view.K[0, 0] == pytest.approx(1000)
    assert View(lens, (0, 0, 0, 0), (2160, 3840)).size == (2160, 3840)


@given(st.tuples(*[st.integers(0, 20)] * 4), st.integers(0, 25))
def test_black_borders_are_found(margins, noise):
    left, top, right, bottom = margins
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(3):
        frame = rng.integers(0, noise + 1, (80, 100, 3)).astype(np.uint8)
        frame[top : 80 - bottom, left : 100 - right] = 120
        frames.append(frame)
    frames[0][:] = 0  # it begins in the dark
    expected = tuple(m + 2 * (m > 0) for m in margins)
    assert black_borders(frames) == expected
    assert black_borders(frames[:1]) == (0, 0, 0, 0)


def test_borders_margins_and_mask_are_cut_together(monkeypatch, tmp_path):
    frames = [np.pad(see(x), ((12, 12), (0, 0), (0, 0))) for x in range(8)]
    folder = write_images(tmp_path / "film", frames)
    mask = np.full((120, 192), 255, np.uint8)
    mask[90:] = 3  # near enough to black
    Image.fromarray(mask).save(tmp_path / "m.png")
    out = tmp_path / "video"
    run(monkeypatch, TOOL, folder, "--out", out, "--crop_borders", "--crop", 10, 0, 22, 0,
        "--size", "80x46", "--mask", tmp_path / "m.png", "--fx", 100, *ALL)  # fmt: skip
    sequence = read_sequence(out / "film")
    assert sequence.size == (80, 46)
    assert sequence.K[0] == pytest.approx([50, 0, (95.5 - 10 + 0.5) / 2 - 0.5])
    assert sequence.K[1] == pytest.approx([0, 50, (59.5 - 14 + 0.5) / 2 - 0.5])
    written = np.asarray(Image.open(sequence.mask))
    assert set(np.unique(written)) == {0, 255}
    assert (written[:38] == 255).all() and (written[38:] == 0).all()  # (90 - 14) / 2
    expected = Image.fromarray(see(3)[2:-2, 10:-22]).resize((80, 46), Image.Resampling.LANCZOS)
    got = np.asarray(read_image(out / "film/000003.jpg")).astype(int)
    assert np.abs(got - np.asarray(expected)).mean() < 6
    data = VideoFolder(out, read_split(out / "splits/video/train_files.txt"), 32, 64, (0, -1, 1))
    assert sequence.reshaped and "camera" not in {one.check for one in examine(data).findings}


@pytest.mark.parametrize(
    "flags", [["--size", "96x96"], ["--crop", 0, 0, 0, 40], ["--crop", 90, 0, 0, 0]], ids=str
)
def test_the_doctor_knows_what_was_done_to_the_frames(monkeypatch, clip, tmp_path, flags):
    """An off-centre principal point and oblong pixels are right there, and doubtful elsewhere."""
    out = tmp_path / "video"
    run(monkeypatch, TOOL, clip, "--out", out, "--fov_deg", 60, *flags, *ALL)
    sequence = read_sequence(out / "walk")
    camera = sequence.K, sequence.size
    frames, again = shutil.copytree(out / "walk", tmp_path / "frames"), tmp_path / "again"
    camera_file = shutil.move(frames / "intrinsics.json", tmp_path / "camera.json")
    run(monkeypatch, TOOL, frames, "--out", again, "--camera", camera_file, *ALL)
    assert read_sequence(again / "frames").reshaped
    assert sequence.reshaped and check_intrinsics(*camera, sequence.reshaped) == []
    (doubt,) = check_intrinsics(*camera)
    assert "'reshaped': true" in doubt.fix


def test_borders_are_those_of_the_span(monkeypatch, tmp_path):
    film = [see(x) for x in range(8)]
    film += [np.pad(see(x)[12:-12], ((12, 12), (0, 0), (0, 0))) for x in range(8, 20)]
    clip = write_clip(tmp_path / "film.mp4", film)
    out = tmp_path / "video"
    run(monkeypatch, TOOL, clip, "--out", out, "--start", 0.85, "--crop_borders", *ALL)
    assert 60 <= read_sequence(out / "film").size[1] <= 72


# Which frames are kept


@given(
    rate=st.floats(5, 60), jitter=st.floats(0, 0.4), count=st.integers(1, 80),
    slower=st.floats(0.05, 1), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_clock_takes_the_frame_nearest_to_each_tick(rate, jitter, count, slower, seed):
    rng = np.random.default_rng(seed)
    times = [3 + (i + jitter * rng.uniform(-1, 1)) / rate for i in range(count)]
    fps, image = slower * rate, np.zeros((1, 1, 3), np.uint8)
    taken = [seconds for seconds, _ in on_clock(((t, image) for t in times), fps)]
    assert taken == sorted(set(taken)) and taken[0] == times[0] and set(taken) <= set(times)
    tick = times[0]
    while tick <= times[-1]:
        nearest = min(abs(t - tick) for t in times)
        assert min(abs(t - tick) for t in taken) <= nearest + 1e-9
        tick += 1 / fps
    assert len(taken) <= (times[-1] - times[0]) * fps + 2


def test_a_slower_clock_and_a_span_choose_frames(monkeypatch, capsys, clip, tmp_path):
    out = tmp_path / "video"
    run(monkeypatch, TOOL, clip, "--out", out, "--fps", 5, "--start", 1, "--end", 3.05)
    kept = [place_of(np.asarray(read_image(path))) for path in sorted((out / "walk").glob("*.jpg"))]
    assert kept == list(range(10, 31, 2)) and about(out / "walk")["frames_per_second"] == 5
    assert "11 of 11 frames kept" in capsys.readouterr().out
    line = fails(monkeypatch, capsys, TOOL, clip, "--out", tmp_path / "fast", "--fps", 10.2)
    assert "--fps 10.2" in line and "has only 10 a second" in line
    run(monkeypatch, TOOL, clip, "--out", tmp_path / "fast", "--fps", 10.05)
    assert numbers(tmp_path / "fast/walk") == list(range(40))


def turned(degrees):
    """A frame of a camera that turns on the spot."""
    focal = 0.58 * WIDTH
    K = np.array([[focal, 0, (WIDTH - 1) / 2], [0, focal, (HEIGHT - 1) / 2], [0, 0, 1]])
    R = cv2.Rodrigues(np.array([0.0, math.radians(degrees), 0]))[0]
    wide = np.concatenate([see(0), see(64)[:, ::-1]], 1)
    shift = np.array([[1, 0, 60], [0, 1, 0], [0, 0, 1.0]])
    H = shift @ K @ R @ np.linalg.inv(K)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (WIDTH, HEIGHT)
    return cv2.warpPerspective(wide, H, size, flags=flags, borderMode=cv2.BORDER_REFLECT)


def test_frames_without_parallax_are_dropped(monkeypatch, capsys, tmp_path):
    """Standing, turning on the spot, then going: the last alone teaches depth."""
    waiting = write_images(tmp_path / "waiting", [see(5)] * 10 + [see(5 + x) for x in range(1, 9)])
    turning = write_images(tmp_path / "turning", [turned(0.5 * i) for i in range(12)])
    out = tmp_path / "video"
    line = fails(monkeypatch, capsys, TOOL, waiting, turning, "--out", out)
    assert f"{turning}: 11 of 12 frames show no motion" in line and "--min_motion 0" in line
    made = about(out / "waiting")
    assert made["kept"] == 9 and made["still"] == 9
    run(monkeypatch, TOOL, waiting, turning, "--out", tmp_path / "all", *ALL)
    assert numbers(tmp_path / "all/waiting") == list(range(18))
    assert numbers(tmp_path / "all/turning") == list(range(12))


def test_more_motion_is_fewer_frames(monkeypatch, clip, tmp_path):
    counts = []
    for pixels in (1.5, 6, 12):
        out = tmp_path / str(pixels)
        run(monkeypatch, TOOL, clip, "--out", out, "--min_motion", pixels)
        counts.append(len(numbers(out / "walk")))
    assert 40 == counts[0] > counts[1] > counts[2] > 5


def test_a_cut_leaves_a_gap_that_no_sample_straddles(monkeypatch, tmp_path):
    frames = [see(x) for x in range(10)] + [see(x, 1) for x in range(20, 32)]
    out = tmp_path / "video"
    run(monkeypatch, TOOL, write_images(tmp_path / "film", frames), "--out", out)
    there = numbers(out / "film")
    assert there == [*range(10), *range(11, 21)]  # two frames until it is sure
    place_of(np.asarray(read_image(out / "film/000009.jpg")), 0)
    place_of(np.asarray(read_image(out / "film/000011.jpg")), 1)
    targets = [
        frame.index
        for part in ("train", "val")
        for frame in read_split(out / f"splits/video/{part}_files.txt")
    ]
    assert all({i - 1, i, i + 1} <= set(there) for i in targets)
    assert about(out / "film")["sequences"] == 2 and about(out / "film")["unlinked"] == 2


def test_a_blurred_frame_and_a_blank_one_end_no_scene_or_one(monkeypatch, tmp_path):
    frames = [see(x) for x in range(20)]
    frames[5] = np.random.default_rng(0).integers(0, 255, frames[0].shape).astype(np.uint8)
    out = tmp_path / "video"
    run(monkeypatch, TOOL, write_images(tmp_path / "film", frames), "--out", out)
    assert about(out / "film")["sequences"] == 1 and about(out / "film")["kept"] == 19
    grey = np.full_like(frames[0], 90)
    dark = [*frames[6:14], grey, grey, *frames[14:20]]
    run(monkeypatch, TOOL, write_images(tmp_path / "dark", dark), "--out", tmp_path / "other")
    assert about(tmp_path / "other/dark")["kept"] >= 13


@given(st.lists(st.integers(0, 7), max_size=12))
def test_sequences_are_numbered_with_gaps_of_one(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("numbers")
    writer = SequenceWriter(folder)
    expected, number = [], 0
    for length in lengths:
        for _ in range(length):
            writer.add(np.zeros((8, 8, 3), np.uint8))
        writer.cut()
        if length >= 3:
            expected += range(number, number + length)
            number += length + 1
    assert numbers(folder) == expected
    assert (writer.kept, writer.sequences) == (len(expected), sum(n >= 3 for n in lengths))
    shutil.rmtree(folder)


# Videos as they are


def turn_video(path, degrees):
    """Say in the header of an MP4 that it is to be shown turned, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes
    a = round(math.cos(math.radians(degrees)))
    b = round(math.sin(math.radians(degrees)))
    matrix = [a, b, 0, -b, a, 0, 0, 0, 1]
    units = [1 << 16] * 2 + [1 << 30]
    data[at : at + 36] = struct.pack(
        ">9i", *(value * units[i % 3] for i, value in enumerate(matrix))
    )
    path.write_bytes(data)


def test_a_video_that_a_phone_turned_is_read_upright(monkeypatch, clip, tmp_path):
    turned_clip = tmp_path / "phone.mp4"
    shutil.copy(clip, turned_clip)
    turn_video(turned_clip, 90)
    out = tmp_path / "video"
    run(monkeypatch, TOOL, turned_clip, "--out", out, "--fov_deg", 40, *ALL)
    sequence = read_sequence(out / "phone")
    assert sequence.size == (HEIGHT, WIDTH) == Video(turned_clip).size
    assert sequence.K[0, 0] == pytest.approx(HEIGHT / 2 / math.tan(math.radians(20)))
    picture = np.asarray(read_image(out / "phone/000007.jpg"))
    assert picture.shape == (WIDTH, HEIGHT, 3) and place_of(np.rot90(picture)) == 7


def test_frames_that_cannot_be_decoded_are_counted(monkeypatch, capsys, clip, tmp_path):
    damaged, end = tmp_path / "damaged.mp4", tmp_path / "end.mp4"
    data = bytearray(clip.read_bytes())
    for path, stop in ((damaged, len(data) // 2), (end, data.find(b"moov") - 4)):
        bad = bytearray(data)
        start = len(data) // 4
        bad[start:stop] = bytes(stop - start)
        path.write_bytes(bad)
    out = tmp_path / "video"
    run(monkeypatch, TOOL, damaged, end, "--out", out, *ALL)
    assert "that cannot be decoded" in capsys.readouterr().out
    for name in ("damaged", "end"):
        made = about(out / name)
        assert made["read"] == 40 and made["unreadable"] > 5
        assert made["kept"] == made["read"] - made["unreadable"] == len(numbers(out / name))
    photos = write_images(tmp_path / "photos", [see(x) for x in range(9)])
    (photos / "photo_4.png").write_bytes(b"no picture")
    Image.new("RGB", (50, 50)).save(photos / "photo_6.png")
    run(monkeypatch, TOOL, photos, "--out", tmp_path / "other")
    assert about(tmp_path / "other/photos")["unreadable"] == 2


def test_clips_that_cannot_be_opened_do_not_keep_the_others(monkeypatch, capsys, clip, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:3000])
    out = tmp_path / "video"
    line = fails(monkeypatch, capsys, TOOL, tmp_path / "none.mp4", cut, clip, "--out", out)
    assert f"{cut}: cannot be read as a video" in line
    assert len(numbers(out / "walk")) == 40 and (out / "splits/video/train_files.txt").is_file()
    with pytest.raises(SystemExit):
        run(monkeypatch, TOOL, tmp_path / "none.mp4", cut, "--out", tmp_path / "no")
    first = capsys.readouterr().err.splitlines()[0]
    assert first == f"{tmp_path}/none.mp4: no such video or folder of images"
    assert not (tmp_path / "no").exists()


# Going on


@pytest.fixture
def three(clip, tmp_path):
    """Three clips."""
    clips = [tmp_path / f"{name}.mp4" for name in "abc"]
    for i, path in enumerate(clips):
        write_clip(path, [see(x + 9 * i) for x in range(12)])
    return clips


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stopped_run_goes_on_to_the_same_bytes(monkeypatch, capsys, three, tmp_path, workers):
    whole, out = tmp_path / "whole", tmp_path / "video"
    run(monkeypatch, TOOL, *three, "--out", whole, "--num_workers", 2)
    real, calls = SequenceWriter.add, []

    def full(self, picture):
        calls.append(1)
        if len(calls) > 15:
            raise OSError(28, "No space left on device", "disk")
        real(self, picture)

    with monkeypatch.context() as patch:
        patch.setattr(SequenceWriter, "add", full)
        line = fails(patch, capsys, TOOL, *three, "--out", out, "--num_workers", workers)
    assert "disk: No space left on device" in line
    left = contents(out)
    assert not any(name.startswith(("b/", "c/")) for name in left if workers == 1)
    assert all(contents(whole)[name] == data for name, data in left.items())
    (out / ".b.abcd1234").mkdir()  # as a killed run leaves it
    before = {path: path.stat().st_mtime_ns for path in out.glob("a/*.jpg")}
    run(monkeypatch, TOOL, *three, "--out", out)
    assert contents(out) == contents(whole) and not (out / ".b.abcd1234").exists()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_an_interrupt_stops_the_clips_that_are_read(monkeypatch, three, tmp_path):
    stopping = threading.Event()
    clip = Video(three[0])
    lens = lens_of(90, 90, 90, 40, size=clip.size)
    seen = []

    def count():
        seen.append(1)
        if len(seen) == 4:
            stopping.set()

    with pytest.raises(UserError, match="run again to go on"):
        video_clip.prepare_clip(
            clip, lens, tmp_path / "out/a", video_clip.Settings(min_motion=0.0), stopping, count
        )
    assert len(seen) == 4 and not any((tmp_path / "out").iterdir())


def test_clips_that_come_later_join_and_other_settings_are_refused(
    monkeypatch, capsys, three, tmp_path
):
    out = tmp_path / "video"
    run(monkeypatch, TOOL, three[0], "--out", out)
    run(monkeypatch, TOOL, *three[1:], "--out", out)
    split = (out / "splits/video/train_files.txt").read_text()
    assert [line.split()[0] for line in split.splitlines()] == ["a", "b", "c"]
    before = contents(out)
    line = fails(monkeypatch, capsys, TOOL, *three, "--out", out, "--size", "96x48")
    assert "was prepared from other data or otherwise (size in its prepared.json)" in line
    assert "fov_deg" in fails(monkeypatch, capsys, TOOL, *three, "--out", out, "--fov_deg", 50)
    write_clip(three[1], [see(x) for x in range(5)])
    line = fails(monkeypatch, capsys, TOOL, *three, "--out", out)
    assert "b: was made of another b.mp4" in line and contents(out) == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mine.txt").write_text("")
    line = fails(monkeypatch, capsys, TOOL, three[0], "--out", tmp_path / "own")
    assert "holds files that this tool did not make" in line


def test_a_split_that_somebody_made_stays(monkeypatch, capsys, three, tmp_path):
    out = tmp_path / "video"
    run(monkeypatch, TOOL, *three[:2], "--out", out)
    run(monkeypatch, "tools.make_split", out, "--test", "b", "--overwrite")
    before = contents(out / "splits")
    run(monkeypatch, TOOL, *three, "--out", out)
    assert contents(out / "splits") == before and set(before) >= {"video/test_files.txt"}
    printed = capsys.readouterr().out
    assert "was made otherwise and stays" in printed and "make_split.py" in printed


def test_a_split_of_this_tool_follows_what_is_there(monkeypatch, three, tmp_path):
    """After a run that was stopped between clips and split, and after a sequence was taken out."""
    out = tmp_path / "video"
    run(monkeypatch, TOOL, three[0], "--out", out)
    with monkeypatch.context() as stopped:
        stopped.setattr(video_run, "finish", lambda *_: None)
        run(stopped, TOOL, *three[:2], "--out", out)
    run(monkeypatch, TOOL, *three, "--out", out)
    folders = {frame.folder for frame in read_split(out / "splits/video/train_files.txt")}
    assert folders == {"a", "b", "c"}
    shutil.rmtree(out / "b")
    run(monkeypatch, TOOL, three[0], "--out", out)
    folders = {frame.folder for frame in read_split(out / "splits/video/train_files.txt")}
    assert folders == {"a", "c"}


# Cameras of all kinds


def write_opencv(path):
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 400)
    storage.write("image_height", 200)
    storage.write("camera_matrix", np.array([[210.0, 0, 199], [0, 220, 101], [0, 0, 1]]))
    storage.write("distortion_coefficients", np.array([[0.1, -0.2, 0.001, 0.002, 0.03]]))
    storage.release()


ROS = """image_width: 400
image_height: 200
camera_name: front
camera_matrix:
  rows: 3
  cols: 3
  data: [210.0, 0.0, 199, 0.0, 220.0, 101.0, 0.0, 0.0, 1.0]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 1e-3, 0.002, 0.03]
"""
OWN = {"fx": 210, "fy": 220, "cx": 199, "cy": 101, "width": 400, "height": 200}
NORMALISED = {"fx": 0.525, "fy": 1.1, "cx": 0.4975, "cy": 0.505, "normalised": True}


@pytest.mark.parametrize(
    "name, text, distortion",
    [
        ("c.yaml", None, [0.1, -0.2, 0.001, 0.002, 0.03]),
        ("c.json", None, [0.1, -0.2, 0.001, 0.002, 0.03]),
        ("ros.yaml", ROS, [0.1, -0.2, 0.001, 0.002, 0.03]),
        ("ros.yml", "---\n" + ROS, [0.1, -0.2, 0.001, 0.002, 0.03]),
        ("intrinsics.json", json.dumps(OWN), []),
        ("old.json", '{"image_width": 400, "image_height": 200, "camera_matrix": {"rows": 3, '
         '"cols": 3, "data": [210., 0., 199., 0., 220., 101., 0., 0., 1.]}}', []),
        ("tabs.json", json.dumps(OWN | {"distortion": [1, 2, 3, 4]}, indent="\t"), [1, 2, 3, 4]),
        ("rows.yaml", "camera_matrix: [[210, 0, 199], [0, 220, 101], [0, 0, 1]]\n"
         "image_width: 400\nimage_height: 200\ndist_coeff: [[0.1, -0.2, 0, 0, 0.3]]\n",
         [0.1, -0.2, 0, 0, 0.3]),
        ("other.json", json.dumps(NORMALISED), []),
        ("cameras.txt", "# list\n\n1 PINHOLE 400 200 210 220 199.5 101.5\n", []),
        ("c.txt", "7 OPENCV 400 200 210 220 199.5 101.5 4 3 2 1\n", [4, 3, 2, 1]),
        ("c.txt", "7 FULL_OPENCV 400 200 210 220 199.5 101.5 1 2 3 4 5 6 7 8\n", range(1, 9)),
    ],
)  # fmt: skip
def test_camera_files_say_the_same(tmp_path, name, text, distortion):
    path = tmp_path / name
    write_opencv(path) if text is None else path.write_text(text)
    for scale in (1, 2):
        lens = read_camera(path, (400 * scale, 200 * scale))
        shift = (scale - 1) / 2  # centres of pixels are whole numbers
        expected = [[210 * scale, 0, 199 * scale + shift], [0, 220 * scale, 101 * scale + shift]]
        if "normalised" in (text or ""):
            expected = [[210 * scale, 0, 199 * scale], [0, 220 * scale, 101 * scale]]
        np.testing.assert_allclose(lens.K, [*expected, [0, 0, 1]])
        count = len(distortion)
        np.testing.assert_allclose(lens.distortion[:count], list(distortion))
        assert not lens.distortion[count:].any() and not lens.guessed


@pytest.mark.parametrize(
    "line, focal, distortion",
    [
        ("1 SIMPLE_PINHOLE 400 200 210 200 100", 210, (0, 0)),
        ("1 SIMPLE_RADIAL 400 200 210 200 100 0.1", 210, (0.1, 0)),
        ("1 RADIAL 400 200 21 200 100 3 4\n2 RADIAL 400 200 21 200 100 3 4", 21, (3, 4)),
    ],
)  # fmt: skip
def test_models_of_colmap_with_one_focal_length(tmp_path, line, focal, distortion):
    path = tmp_path / "cameras.txt"
    path.write_text(line + "\n")
    lens = read_camera(path, (400, 200))
    assert lens.K[0, 0] == lens.K[1, 1] == focal and lens.K[:2, 2].tolist() == [199.5, 99.5]
    assert tuple(lens.distortion[:2]) == distortion and not lens.distortion[2:].any()


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("c.txt", "", "holds no cameras"),
        ("c.txt", "1 PINHOLE 4 4 1 1 1 1\n2 PINHOLE 4 4 2 2 1 1\n", "holds 2 cameras"),
        ("c.txt", "1 OPENCV_FISHEYE 4 4 1 1 1 1 0 0 0 0\n", "model 'OPENCV_FISHEYE' is none"),
        ("c.txt", "1\n", "camera model '' is none"),
        ("c.txt", "1 PINHOLE 400 200 1 1 1\n", "a camera reads '<id> PINHOLE"),
        ("c.txt", "1 PINHOLE 400 200 0 0 1 1\n", "describes no camera"),
        ("c.txt", "1 PINHOLE 300 200 9 9 1 1\n", "is the camera of images of 300x200"),
        ("c.txt", "1 RADIAL 400 200 9 9 1 nan 0\n", "its distortion is no number"),
        ("c.yaml", "hello", "cannot be read as a camera file"),
        ("c.yaml", "a: [", "cannot be read as a camera file"),
        ("c.xml", "<a>", "is no camera file by its name"),
        ("c.json", "{", "cannot be read as a camera file"),
        ("c.json", '{"fx": 1}', "lacks 'fy'"),
        ("c.yaml", "image_width: 3\n", "holds no camera_matrix"),
        ("c.yaml", ROS.replace("plumb_bob", "equidistant"), "a fisheye lens"),
        ("c.yaml", ROS.replace("0.1, -0.2, ", ""), "has 3 distortion"),
        ("c.yaml", ROS.replace("210.0", "text"), "describes no camera"),
        ("c.yaml", ROS.replace("distortion_coefficients", "distortions"), "not understood"),
        ("c.json", json.dumps(OWN | {"k1": 0.1}), "'k1' is not understood"),
        ("c.json", json.dumps(OWN | {"distortion_model": "fisheye"}), "a fisheye lens"),
        ("c.yaml", "a: !!timestamp x", "cannot be read as a camera file"),
        ("c.yaml", "a: !!bool x", "cannot be read as a camera file"),
        ("c.bin", "", "is binary; colmap model_converter"),
        ("c.mat", "", "is no camera file by its name"),
    ],
)  # fmt: skip
def test_files_that_are_no_camera_are_refused(monkeypatch, capsys, tmp_path, name, text, words):
    folder = write_images(tmp_path / "film", [np.zeros((200, 400, 3), np.uint8)] * 3)
    path = tmp_path / name
    path.write_text(text)
    line = fails(monkeypatch, capsys, TOOL, folder, "--out", tmp_path / "out", "--camera", path)
    assert words in line and name in line and not (tmp_path / "out").exists()


def test_photos_that_say_their_focal_length(monkeypatch, capsys, tmp_path):
    frames = [see(x) for x in range(6)]
    folder = write_images(tmp_path / "walk", frames, "{}.jpg")
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({41989: 28})  # on 35 mm film
    exif[0x0112] = 6  # turned
    Image.fromarray(frames[0]).save(folder / "0.jpg", exif=exif)
    focal = 28 / math.hypot(36, 24) * math.hypot(WIDTH, HEIGHT)
    assert exif_focal(folder / "0.jpg", (HEIGHT, WIDTH)) == pytest.approx(focal)
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({37386: 5.0, 41486: 1000.0, 41488: 3, 40962: 384, 40963: 192})
    Image.fromarray(frames[0]).save(folder / "0.jpg", exif=exif)
    run(monkeypatch, TOOL, folder, "--out", tmp_path / "out", *ALL)
    sequence = read_sequence(tmp_path / "out/walk")
    assert sequence.K[0, 0] == pytest.approx(5 * 100 / 2) and not sequence.guessed
    assert "from EXIF" in capsys.readouterr().out
    assert exif_focal(folder / "1.jpg", (WIDTH, HEIGHT)) is None
    exif.get_ifd(0x8769).update({41486: IFDRational(0, 0)})
    Image.fromarray(frames[1]).save(folder / "1.jpg", exif=exif)
    assert exif_focal(folder / "1.jpg", (WIDTH, HEIGHT)) is None
    (folder / "1.jpg").write_bytes(b"")
    assert exif_focal(folder / "1.jpg", (WIDTH, HEIGHT)) is None


def test_a_camera_file_and_its_distortion_reach_what_is_written(monkeypatch, clip, tmp_path):
    (tmp_path / "cameras.txt").write_text("1 SIMPLE_RADIAL 384 192 220 192 96 -0.05\n")
    out = tmp_path / "out"
    run(monkeypatch, TOOL, clip, "--out", out, "--camera", tmp_path / "cameras.txt", *ALL)
    by_file = read_sequence(out / "walk")
    flags = ("--fx", 110, "--cx", 95.5, "--cy", 47.5, "--distortion", "-5e-2", 0)
    run(monkeypatch, TOOL, clip, "--out", tmp_path / "other", *flags, *ALL)
    by_flags = read_sequence(tmp_path / "other/walk")
    np.testing.assert_allclose(by_file.K, by_flags.K)
    assert by_file.size == by_flags.size and by_file.K[0, 0] < 110
    for name in ("000000.jpg", "000020.jpg"):
        assert (out / "walk" / name).read_bytes() == (tmp_path / "other/walk" / name).read_bytes()


# What users get wrong


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--fps", 0], "--fps 0: give a number above 0"),
        (["--source_fps", "nan"], "--source_fps nan"),
        (["--source_fps", 5], "is the rate of folders of images"),
        (["--start", 3, "--end", 2], "--start 3 --end 2"),
        (["--start", 50], "no frame between --start and --end can be decoded"),
        (["--min_motion", -1], "--min_motion -1"),
        (["--crop", -1, 0, 0, 0], "--crop -1 0 0 0: give pixels"),
        (["--crop", 100, 0, 80, 0], "leaves 12x96 of frames of 192x96"),
        (["--crop", 0, 50, 0, 0], "principal point 96, 48 lies outside what is left"),
        (["--size", "8"], "write width x height"),
        (["--fov_deg", 200], "--fov_deg 200: give degrees"),
        (["--fov_deg", 1e-8], "--fov_deg 1e-08: give degrees"),
        (["--fx", 1e12], "--fx 1e+12: give pixels"),
        (["--fps", 1e-9], "of 1 that --start, --end and --fps leave"),
        (["--fx", 90, "--distortion", "-1.2.3e-3", 0], "argument --distortion"),
        (["--fx", 100, "--fov_deg", 50], "say the same"),
        (["--fx", 100, "--cx", 500], "walk.mp4: --cx 500: lies outside"),
        (["--camera", "nowhere.json"], "nowhere.json: no such camera file"),
        (["--camera", "nowhere.json", "--fx", 3], "leave out --fx"),
        (["--distortion", 0.1, 0.2], "add --fx or --fov_deg"),
        (["--fx", 90, "--distortion", 0.1], "--distortion: give the numbers k1 k2"),
        (["--fx", 90, "--distortion", -3, 0], "walk.mp4: distortion -3 0 0 0: folds"),
        (["--mask", "nowhere.png"], "nowhere.png: no such image"),
    ],
)
def test_flags_that_cannot_work_write_nothing(monkeypatch, capsys, clip, tmp_path, flags, words):
    out = tmp_path / "out"
    line = fails(monkeypatch, capsys, TOOL, clip, "--out", out, *flags)
    assert words in line
    assert not out.exists() or [path.name for path in out.iterdir()] == ["prepared.json"]


def test_inputs_that_cannot_be_are_named(monkeypatch, capsys, clip, tmp_path):
    out = tmp_path / "out"

    def line(*argv):
        return fails(monkeypatch, capsys, TOOL, *argv, "--out", out)

    folder = write_images(tmp_path / "walk", [see(x) for x in range(4)])
    assert "makes a sequence walk, as" in line(clip, folder)
    assert "--fps needs; add --source_fps" in line(folder, "--fps", 3)
    assert "--start and --end needs; add --source_fps" in line(folder, "--end", 3)
    assert "is a single image" in line(folder / "photo_0.png")
    assert "holds videos; give the videos themselves" in line(clip.parent)
    (tmp_path / "empty").mkdir()
    assert "holds no images" in line(tmp_path / "empty")
    (tmp_path / "empty/1.png").write_text("")
    assert "none of its 1 images can be read" in line(tmp_path / "empty")
    Image.new("L", (10, 10), 255).save(tmp_path / "m.png")
    assert "--mask: has 10x10 pixels, the frames of" in line(clip, "--mask", tmp_path / "m.png")
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "m.png")
    assert "is black all over" in line(clip, "--mask", tmp_path / "m.png")
    half = np.zeros((HEIGHT, WIDTH), np.uint8)
    half[:10] = 255
    Image.fromarray(half).save(tmp_path / "m.png")
    crop = ("--crop", 0, 20, 0, 0, "--mask", tmp_path / "m.png")
    assert "--mask: is black wherever frames" in line(clip, *crop)
    assert not out.exists()
    short = write_clip(tmp_path / "short.mp4", [see(x) for x in range(4)])
    assert f"{out}: 4 frames in 1 runs are too few" in line(short)
    inside = shutil.copytree(folder, out / "photos")
    assert "which is written" in line(inside)


@pytest.mark.parametrize(
    "given, name",
    [
        ("my clip (1).mp4", "my_clip_1"),
        ("splits.mp4", "splits_clip"),
        ("прогулка.mp4", "прогулка"),
        ("....mp4", "clip"),
    ],
)
def test_names_of_clips_are_made_fit_for_a_split(monkeypatch, clip, tmp_path, given, name):
    path = tmp_path / given
    shutil.copy(clip, path)
    run(monkeypatch, TOOL, path, "--out", tmp_path / "out", "--end", 1.2)
    frames = read_split(tmp_path / "out/splits/video/train_files.txt")
    assert {frame.folder for frame in frames} == {name}
    assert read_sequence(tmp_path / "out" / name).size == (WIDTH, HEIGHT)


@given(st.integers(2, 5000), st.integers(2, 5000))
def test_training_is_proposed_at_sizes_that_networks_take(width, height):
    got = training_size((width, height))
    assert all(side % 32 == 0 and side >= 64 for side in got) and max(got) <= 640
    assert max(got) <= max(width, height, 64)
    assert got[0] >= got[1] if width >= height else got[0] <= got[1]
    exact = max(got) * min(width, height) / max(width, height)
    assert abs(min(got) - exact) <= 16 or min(got) == 64


def test_a_clip_is_read_as_a_stream(monkeypatch, clip, tmp_path):
    """No more than a few frames are read before the first is used."""
    read, used = [], []
    real = video_source.Video.moments

    def moments(self, span):
        for moment in real(self, span):
            read.append(len(used))
            yield moment

    monkeypatch.setattr(video_source.Video, "moments", moments)
    add = SequenceWriter.add
    monkeypatch.setattr(SequenceWriter, "add", lambda *a: (used.append(1), add(*a)))
    run(monkeypatch, TOOL, clip, "--out", tmp_path / "out", *ALL)
    assert max(i - n for i, n in enumerate(read)) <= video_clip.AHEAD + 2


def test_clips_of_the_street_show_what_its_images_show(monkeypatch, tmp_path):
    flags = ("--frames", 8, 8, "--test_drives", 1, "--size", "160x64", "--video")
    run(monkeypatch, "tools.make_sample", "street", tmp_path / "street", *flags)
    for number in (1, 2):
        video = Video(tmp_path / f"street/videos/drive_{number:04d}.mp4")
        assert (video.size, video.fps, video.count) == ((160, 64), 10, 8)
        folder = tmp_path / f"street/2011_09_26/2011_09_26_drive_{number:04d}_sync/image_02/data"
        pairs = zip(video.moments(), Images(folder).moments(), strict=True)
        errors = [np.mean((a.astype(float) - b) ** 2) for (_, a), (_, b) in pairs]
        assert 10 * np.log10(255**2 / np.mean(errors)) > 33


def test_one_focal_length_in_pixels_is_not_that_of_clips_of_two_sizes(
    monkeypatch, capsys, clip, tmp_path
):
    small = write_clip(tmp_path / "small.mp4", [see(x)[::2, ::2] for x in range(6)])
    line = fails(monkeypatch, capsys, TOOL, clip, small, "--out", tmp_path / "v", "--fx", 100)
    assert "96x48 and 192x96" in line and "--fov_deg" in line and not (tmp_path / "v").exists()
    run(monkeypatch, TOOL, clip, small, "--out", tmp_path / "v", "--fov_deg", 60, *ALL)
    run(monkeypatch, TOOL, clip, "--out", tmp_path / "w", "--fx", 100, *ALL)
    assert "an --out of its own" in fails(
        monkeypatch, capsys, TOOL, small, "--out", tmp_path / "w", "--fx", 100, *ALL
    )


def test_a_camera_that_cannot_be_is_doubted(monkeypatch, capsys, clip, tmp_path):
    run(monkeypatch, TOOL, clip, "--out", tmp_path / "v", "--fx", 5000, *ALL)
    assert "WARNING: fx 5000.0 for 192 columns means a field" in capsys.readouterr().out
