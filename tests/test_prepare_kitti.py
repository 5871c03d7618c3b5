"""tools/prepare_kitti.py: archives, conversion to JPEG, a look into every image."""

import errno
import http.server
import os
import re
import shutil
import threading
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import get_sampling
from scripts import fails, run

import utils
from datasets import SPLITS, Frame, KITTIOdom, KITTIRaw, read_image, read_split
from datasets.velodyne import calibration_matrix
from tools import kitti_archives, kitti_convert

TOOL = "tools.prepare_kitti"
DATE = "2011_09_26"
DRIVE = f"{DATE}/{DATE}_drive_0001_sync"
SIZE = (64, 48)
NETWORK = (32, 96)  # height, width of some network's input


def picture(seed, mode="RGB", size=SIZE):
    """A smooth random image, as JPEG likes it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC).convert(mode)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def raw(tmp_path, sample):
    """A raw drive of PNGs with everything that lies beside its colour images."""
    root = tmp_path / "raw"
    for camera in ("image_02", "image_03"):
        for i in range(4):
            save(root / DRIVE / camera / "data" / f"{i:010d}.png", picture(i))
    deep = Image.fromarray(np.full(SIZE[::-1], 700, np.uint16))
    for name in (
        "image_00/data/0000000000.png",
        "proj_depth/groundtruth/image_02/0000000000.png",
        "proj_depth/velodyne_raw/image_02/0000000000.png",
    ):
        save(root / DRIVE / name, deep)
    save(root / "train" / "drive" / "proj_depth" / "groundtruth" / "image_02" / "5.png", deep)
    scan = root / DRIVE / "velodyne_points" / "data" / "0000000000.bin"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(bytes(32))
    text = (sample / DATE / "calib_cam_to_cam.txt").read_text()
    text = re.sub(r"(S_rect_0\d): .*", rf"\1: {SIZE[0]} {SIZE[1]}", text)
    (root / DATE / "calib_cam_to_cam.txt").write_text(text)
    shutil.copy(sample / DATE / "calib_velo_to_cam.txt", root / DATE)
    return root


@pytest.fixture
def odometry(tmp_path):
    """Sequence 06 with colour and grey frames, depth and poses."""
    root = tmp_path / "odometry"
    folder = root / "sequences" / "06"
    for i in range(3):
        save(folder / "image_2" / f"{i:06d}.png", picture(i))
        save(folder / "image_3" / f"{i:06d}.png", picture(i, "L"))
    deep = Image.fromarray(np.full(SIZE[::-1], 700, np.uint16))
    save(folder / "image_depth_annotated" / "000000.png", deep)
    save(folder / "image_0" / "000000.png", picture(0, "L"))
    rows = [f"P{i}: 70 0 30 {-4.5 * i} 0 71 20 0.2 0 0 1 {0.003 * i}" for i in range(4)]
    rows.append("Tr: " + " ".join(map(str, range(12))))
    (folder / "calib.txt").write_text("\n".join(rows) + "\n")
    (folder / "times.txt").write_text("0\n0.1\n0.2\n")
    (root / "poses").mkdir()
    (root / "poses" / "06.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 3)
    return root


def content(root):
    """Every file below a folder."""
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def times(root, pattern="*.jpg"):
    return {path: path.stat().st_mtime_ns for path in root.rglob(pattern)}


def split(folder, **files):
    """A split of files `<part>_files.txt` with the given lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, lines in files.items():
        (folder / f"{part}_files.txt").write_text("\n".join(lines) + "\n")
    return folder


def convert(monkeypatch, root, *flags):
    run(monkeypatch, TOOL, "convert", "--data_path", root, *flags)


# convert


def test_colour_pngs_become_jpegs_and_nothing_else_changes(monkeypatch, capsys, raw):
    before = content(raw)
    convert(monkeypatch, raw)
    after = content(raw)
    assert {path: after[path] for path in before} == before
    made = set(after) - set(before)
    colour = {p.relative_to(raw) for p in (raw / DRIVE).glob("image_0[23]/data/*.png")}
    assert made == {path.with_suffix(".jpg") for path in colour} and len(made) == 8
    sizes = [sum(len(after[p.with_suffix(s)]) for p in made) for s in (".png", ".jpg")]
    shown = " -> ".join(utils.readable_size(size) for size in sizes)
    assert f"8 images converted: {shown}" in capsys.readouterr().out
    for path in made:
        with Image.open(raw / path) as image:
            assert (image.format, image.size, get_sampling(image)) == ("JPEG", SIZE, 2)  # 4:2:0
        error = np.asarray(read_image(raw / path), float) - read_image(
            raw / path.with_suffix(".png")
        )
        assert np.abs(error).mean() < 4


def test_odometry_is_converted_and_grey_frames_stay_grey(monkeypatch, odometry):
    before = content(odometry)
    convert(monkeypatch, odometry)
    after = content(odometry)
    assert {path: after[path] for path in before} == before and len(after) == len(before) + 6
    for camera, mode in (("image_2", "RGB"), ("image_3", "L")):
        with Image.open(odometry / "sequences" / "06" / camera / "000001.jpg") as image:
            assert image.mode == mode


def test_quality_is_what_was_asked_for(monkeypatch, raw, tmp_path):
    tables = []
    for quality in (20, 92):
        convert(monkeypatch, raw, "--out", tmp_path / str(quality), "--quality", quality)
        expected = BytesIO()
        picture(1).save(expected, "JPEG", quality=quality)
        path = tmp_path / str(quality) / DRIVE / "image_02" / "data" / "0000000001.jpg"
        with Image.open(path) as image, Image.open(expected) as ours:
            assert image.quantization == ours.quantization
            tables.append(image.quantization)
    convert(monkeypatch, raw)
    with Image.open(raw / DRIVE / "image_02" / "data" / "0000000001.jpg") as image:
        assert image.quantization == tables[1] != tables[0]


def test_a_second_run_does_only_what_is_missing_or_outdated(monkeypatch, capsys, raw):
    convert(monkeypatch, raw)
    first = times(raw)
    convert(monkeypatch, raw)
    assert "nothing to do: all 8 images" in capsys.readouterr().out
    assert times(raw) == first
    folder = raw / DRIVE / "image_02" / "data"
    absent, outdated, damaged = (folder / f"{i:010d}.jpg" for i in range(3))
    absent.unlink()
    newer = outdated.stat().st_mtime_ns + 10**9
    os.utime(outdated.with_suffix(".png"), ns=(newer, newer))
    damaged.write_bytes(b"")
    convert(monkeypatch, raw)
    second = times(raw)
    assert {p for p in first if second[p] != first[p]} == {absent, outdated, damaged}
    out = capsys.readouterr().out
    assert "3 images converted" in out and "5 had been converted before" in out


@pytest.mark.parametrize(
    "error, status, words",
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "jpg: No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_interrupted_run_leaves_whole_files_and_the_next_goes_on(
    monkeypatch, capsys, raw, error, status, words
):
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 4:
            raise error

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(utils.os, "fsync", fsync)
        convert(patch, raw, "--num_workers", 1)
    assert caught.value.code == status
    assert words in capsys.readouterr().err.rstrip().splitlines()[-1]
    made = [path for path in content(raw) if path.suffix not in (".png", ".bin", ".txt")]
    assert 3 <= len(made) < 8  # no temporary file either
    assert all(read_image(raw / path).size == SIZE for path in made)
    convert(monkeypatch, raw)
    assert len(times(raw)) == 8


def test_corrupt_pngs_do_not_stop_the_others(monkeypatch, capsys, raw):
    folder = raw / DRIVE / "image_02" / "data"
    whole = (folder / "0000000001.png").read_bytes()
    (folder / "0000000001.png").write_bytes(whole[:-60])
    (folder / "0000000002.png").write_bytes(b"")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(folder / "0000000003.png")  # depth
    (folder / ".0000000000.png").write_bytes(b"what some systems leave")
    before = content(raw)
    line = fails(
        monkeypatch, capsys, TOOL, "convert", "--data_path", raw, "--delete_originals",
    )  # fmt: skip
    assert "3 of 8 images failed, all others are done; first: " in line
    assert f"{folder / '0000000001.png'}: cannot be read as an image" in line
    after = content(raw)
    assert len(times(raw)) == 5
    gone = {raw / path for path in set(before) - set(after)}
    assert gone == {path.with_suffix(".png") for path in times(raw)}


def test_originals_go_only_when_asked_for_and_read_back(monkeypatch, capsys, raw, odometry):
    convert(monkeypatch, raw)
    bad = raw / DRIVE / "image_02" / "data" / "0000000002.jpg"
    bad.write_bytes(bad.read_bytes()[:-200])  # its header is whole
    os.utime(bad)
    convert(monkeypatch, raw, "--delete_originals")
    assert "8 originals deleted" in capsys.readouterr().out
    kept = [path for path in raw.rglob("*.png") if path.parent.parent.name in ("image_02", "3")]
    assert all("proj_depth" in path.parts for path in kept)
    assert len(times(raw)) == 8 and all(read_image(path).size == SIZE for path in times(raw))
    convert(monkeypatch, raw, "--delete_originals")
    assert "nothing to do: all 8 images" in capsys.readouterr().out
    before = content(odometry)
    monkeypatch.setattr(kitti_convert, "is_jpeg", lambda *a, **k: False)
    line = fails(
        monkeypatch, capsys, TOOL, "convert", "--data_path", odometry, "--delete_originals"
    )
    assert "6 of 6 images failed" in line and "does not read back" in line
    after = content(odometry)
    assert {path: after[path] for path in before} == before


def test_an_output_that_is_the_original_by_another_name_is_no_jpeg(monkeypatch, raw, tmp_path):
    folder = tmp_path / "out" / DRIVE / "image_02" / "data"
    folder.mkdir(parents=True)
    original = raw / DRIVE / "image_02" / "data" / "0000000000.png"
    (folder / "0000000000.jpg").symlink_to(original)
    convert(monkeypatch, raw, "--out", tmp_path / "out", "--delete_originals")
    with Image.open(folder / "0000000000.jpg") as image:
        image.load()
        assert image.format == "JPEG"


# convert --out: the tree serves training


def raw_dataset(root, **options):
    frames = [Frame(DRIVE, i, side) for i in (1, 2) for side in "lr"]
    return KITTIRaw(
        root, frames, *NETWORK, frame_ids=(0, -1, 1), use_stereo=True, intrinsics="calib", **options
    )


def odometry_dataset(root, **options):
    frames = [Frame("6", 1, side) for side in "lr"]
    return KITTIOdom(
        root, frames, *NETWORK, frame_ids=(0, -1, 1), use_stereo=True, intrinsics="calib", **options
    )


def assert_alike(old, new, tolerance):
    """Same camera, and images that differ by no more than JPEG and resizing make them."""
    assert len(old) == len(new) > 0
    for a, b in zip(old, new, strict=True):
        torch.testing.assert_close(a["K"], b["K"])
        torch.testing.assert_close(a["stereo_T"], b["stereo_T"])
        assert (a["color"].float() - b["color"].float()).abs().mean() < tolerance


@pytest.mark.parametrize("flags", [[], ["--size", "48x32"], ["--size", "96x96"]])
@pytest.mark.parametrize("kind", ["raw", "odometry"])
def test_training_finds_the_same_camera_in_the_converted_tree(
    monkeypatch, raw, odometry, tmp_path, kind, flags
):
    root, dataset = {"raw": (raw, raw_dataset), "odometry": (odometry, odometry_dataset)}[kind]
    old = dataset(root, png=True)
    before = content(root)
    out = tmp_path / "out"
    convert(monkeypatch, root, "--out", out, *flags)
    assert content(root) == before
    assert_alike(list(old), list(dataset(out)), 6)
    size = tuple(map(int, flags[1].split("x"))) if flags else SIZE
    assert all(read_image(path).size == size for path in out.rglob("*.jpg"))
    others = {str(path) for path in content(out) if path.suffix != ".jpg"}
    assert others == {
        "raw": {f"{DATE}/calib_cam_to_cam.txt", f"{DATE}/calib_velo_to_cam.txt"},
        "odometry": {"sequences/06/calib.txt", "sequences/06/times.txt", "poses/06.txt"},
    }[kind]  # fmt: skip
    for name in others:
        resized = flags and name.endswith("06/calib.txt")
        assert ((out / name).read_bytes() == (root / name).read_bytes()) != bool(resized)


def test_jpegs_can_be_resized_too(monkeypatch, capsys, sample, tmp_path):
    convert(monkeypatch, sample, "--out", tmp_path / "out", "--size", "208x64")
    assert "144 images converted" in capsys.readouterr().out
    assert_alike(list(raw_dataset(sample)), list(raw_dataset(tmp_path / "out")), 6)
    png = tmp_path / "out" / DRIVE / "image_02" / "data" / "0000000003.jpg"
    assert np.asarray(read_image(png)).shape == (64, 208, 3)


@given(
    name=st.sampled_from(["P0", "P1", "P2", "P3"]),
    numbers=st.lists(st.floats(-1000, 1000), min_size=12, max_size=12),
    size=st.tuples(st.integers(2, 1500), st.integers(2, 1500)),
    new_size=st.tuples(st.integers(2, 1500), st.integers(2, 1500)),
)
def test_a_resized_projection_moves_pixels_as_the_image(
    tmp_path_factory, name, numbers, size, new_size
):
    """Any world point: the pixel's place, counted from the outer edge, scales with the image."""
    path = tmp_path_factory.getbasetemp() / "calib.txt"
    path.write_text(f"{name}: " + " ".join(map(str, numbers)) + "\nTr: 1 2 3\nnote\n")
    P = np.array(numbers).reshape(3, 4)
    text = kitti_convert.resized_calibration(path, size, new_size)
    assert text.endswith("Tr: 1 2 3\nnote\n")
    path.write_text(text)
    small = calibration_matrix(path, name, 3, 4)
    x, y, z = P @ (0.3, -2.0, 5.0, 1.0)
    x2, y2, z2 = small @ (0.3, -2.0, 5.0, 1.0)
    scale = np.array(new_size) / size
    np.testing.assert_allclose(z2, z)
    moved = (np.array([x, y]) + 0.5 * z) * scale - 0.5 * z
    np.testing.assert_allclose([x2, y2], moved, rtol=1e-9, atol=1e-7 * scale.max())


def test_another_size_or_a_new_calibration_is_done_again(monkeypatch, capsys, odometry, tmp_path):
    out = tmp_path / "out"
    convert(monkeypatch, odometry, "--out", out, "--size", "32x24")
    first = times(out, "*")
    convert(monkeypatch, odometry, "--out", out, "--size", "32x24")
    assert "nothing to do" in capsys.readouterr().out and times(out, "*") == first
    (odometry / "sequences" / "06" / "calib.txt").write_text("P2: 70 0 30 0 0 70 20 0 0 0 1 0\n")
    convert(monkeypatch, odometry, "--out", out)
    assert "6 images converted" in capsys.readouterr().out
    assert all(read_image(path).size == SIZE for path in out.rglob("*.jpg"))
    assert (out / "sequences/06/calib.txt").read_text().startswith("P2: 70 0 30 ")


def test_the_first_readable_image_tells_the_old_size(monkeypatch, capsys, odometry, tmp_path):
    (odometry / "sequences" / "06" / "image_2" / "000000.png").write_bytes(b"")
    out = tmp_path / "out"
    line = fails(monkeypatch, capsys, TOOL, "convert", "--data_path", odometry, "--out", out,
                 "--size", "32x24")  # fmt: skip
    assert "1 of 6 images failed" in line
    fx = calibration_matrix(out / "sequences/06/calib.txt", "P3", 3, 4)[0, 0]
    assert fx == pytest.approx(35)


def test_missing_calibration_is_said(monkeypatch, capsys, raw, odometry, tmp_path):
    (raw / DATE / "calib_cam_to_cam.txt").unlink()
    (odometry / "sequences" / "06" / "calib.txt").unlink()
    for root, name in ((raw, "calib_cam_to_cam.txt"), (odometry, "06/calib.txt")):
        convert(monkeypatch, root, "--out", tmp_path / "out")
        assert f"{name}: not there to be carried along" in capsys.readouterr().out


def test_an_out_inside_the_data_folder_is_not_converted_itself(monkeypatch, capsys, raw):
    for _ in range(2):
        convert(monkeypatch, raw, "--out", raw / "small", "--size", "32x24")
        convert(monkeypatch, raw, "--out", raw / DATE / "small", "--size", "32x24")
    assert capsys.readouterr().out.count("nothing to do: all 8 images") == 2
    assert len(list(raw.rglob("*.jpg"))) == 16


def test_jpegs_without_a_png_are_left_and_said(monkeypatch, capsys, raw, tmp_path):
    png = raw / DRIVE / "image_02" / "data" / "0000000000.png"
    convert(monkeypatch, raw)
    png.unlink()
    capsys.readouterr()
    convert(monkeypatch, raw, "--out", tmp_path / "out")
    out = capsys.readouterr().out
    assert "7 images converted" in out and "1 images without a PNG are JPEG already: left" in out


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--size", "32x24"], "--size needs --out"),
        (["--out", "{out}", "--size", "32by24"], "--size '32by24': write width x height"),
        (["--out", "{out}", "--size", "0x24"], "--size '0x24'"),
        (["--out", "{out}", "--size", "70000x24"], "--size '70000x24'"),
        (["--quality", "0"], "--quality 0: JPEG's is 1 to 95"),
        (["--quality", "96"], "--quality 96"),
        (["--out", "{out}", "--size", "32x24", "--delete_originals"], "never with --size"),
        (["--out", "{raw}"], "is --data_path"),
        (["--out", "{raw}/.."], "is the folder of the originals"),
        (["--out", "{raw}/2011_09_26/calib_cam_to_cam.txt"], "cannot be written"),
        (["--out", "{raw}/../blocked"], "image_03 is not a folder open to you"),
        (["--data_path", "{out}"], "no such data folder"),
        (["--data_path", "{raw}/2011_09_26"], "no PNG in <date>"),
    ],
)
def test_wrong_flags_end_in_one_line_and_write_nothing(
    monkeypatch, capsys, raw, tmp_path, flags, words
):
    (tmp_path / DATE).symlink_to(raw / DATE)  # makes {raw}/.. lead to the originals
    (tmp_path / "blocked" / DRIVE).mkdir(parents=True)
    (tmp_path / "blocked" / DRIVE / "image_03").write_text("a file in the way")
    before = content(tmp_path)
    flags = [flag.format(raw=raw, out=tmp_path / "out") for flag in flags]
    line = fails(monkeypatch, capsys, TOOL, "convert", "--data_path", raw, *flags)
    assert words in line
    assert content(tmp_path) == before


def test_a_broken_calibration_stops_before_the_images(monkeypatch, capsys, odometry, tmp_path):
    (odometry / "sequences" / "06" / "calib.txt").write_text("P2: 1 2 3\n")
    line = fails(monkeypatch, capsys, TOOL, "convert", "--data_path", odometry,
                 "--out", tmp_path / "out", "--size", "32x24")  # fmt: skip
    assert "calib.txt: holds no 3x4 entry 'P2'" in line and not (tmp_path / "out").exists()


def test_only_jpegs_and_another_folder_is_an_error(monkeypatch, capsys, sample, tmp_path):
    line = fails(monkeypatch, capsys, TOOL, "convert", "--data_path", sample,
                 "--out", tmp_path / "out")  # fmt: skip
    assert "144 images are JPEG already" in line
    convert(monkeypatch, sample)
    assert "nothing to do: all 144 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, words",
    [
        ([], "required: archives | convert | verify"),
        (["convert"], "required: --data_path"),
        (["convert", "--data_path", ".", "--num_workers", "-2"], "invalid workers value: '-2'"),
        (["archives", "--split", "eigen", "--sizes", "--urls"], "not allowed with"),
    ],
)
def test_flags_that_do_not_parse_end_in_one_line(monkeypatch, capsys, flags, words):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, TOOL, *flags)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


# archives


def table(capsys):
    """State and size of each archive as printed, the line of totals, and the URLs."""
    out = capsys.readouterr().out
    rows = {}
    for line in out.splitlines():
        if ".zip " in line:
            name, state, size = re.split(r" {2,}", line)
            rows[name] = state, size
    totals = next((line for line in out.splitlines() if line.startswith("split ")), "")
    return rows, totals, [line for line in out.splitlines() if line.startswith("http")]


def test_archives_of_a_raw_split_are_here_incomplete_or_missing(monkeypatch, capsys, raw, tmp_path):
    other = "2011_10_03/2011_10_03_drive_0042_sync"
    lines = [f"{DRIVE} 0-3 lr"]
    folder = split(tmp_path / "mine", train=lines, val=[f"{DRIVE} 2 l"], test=[f"{other} 9 l"])
    flags = ("archives", "--split", folder, "--data_path", raw)
    run(monkeypatch, TOOL, *flags)
    rows, totals, urls = table(capsys)
    drive, absent = f"{DATE}_drive_0001_sync.zip", "2011_10_03_drive_0042_sync.zip"
    states = {name: state for name, (state, _) in rows.items()}
    assert states == {
        f"{DATE}_calib.zip": "here", drive: "here",
        "2011_10_03_calib.zip": "missing", absent: "missing",
    }  # fmt: skip
    base = "https://s3.eu-central-1.amazonaws.com/avg-kitti/raw_data/"
    expected = ["2011_10_03_calib.zip", "2011_10_03_drive_0042/2011_10_03_drive_0042_sync.zip"]
    assert urls == [base + name for name in expected]
    assert "9 frames; archives: 4" in totals and f"in {raw}: 2; to fetch: 2" in totals
    assert all(size.startswith("about ") for _, size in rows.values())

    (raw / DRIVE / "image_03" / "data" / "0000000002.png").unlink()
    (raw / DATE / "calib_velo_to_cam.txt").unlink()
    run(monkeypatch, TOOL, *flags)
    rows, _, _ = table(capsys)
    assert rows[drive][0] == "incomplete: 7 of 8 images"
    assert rows[f"{DATE}_calib.zip"][0] == "incomplete: 1 of 2 files"
    run(monkeypatch, TOOL, *flags, "--urls", "--url", "http://mirror/kitti/")
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 4 and all(line.startswith("http://mirror/kitti/raw_data/") for line in out)
    assert out[1] == f"http://mirror/kitti/raw_data/{DATE}_drive_0001/{drive}"
    run(monkeypatch, TOOL, "archives", "--split", folder, "--data_path", tmp_path / "nowhere")
    assert {state for state, _ in table(capsys)[0].values()} == {"missing"}


def test_archives_of_odometry(monkeypatch, capsys, odometry, tmp_path):
    flags = ("archives", "--data_path", odometry, "--split")
    run(monkeypatch, TOOL, *flags, "odom_06_start")
    rows, _, urls = table(capsys)
    assert [state for state, _ in rows.values()] == ["incomplete: 2 of 49 images", "here", "here"]
    assert urls == [f"{kitti_archives.SERVER}/data_odometry_color.zip"]
    run(monkeypatch, TOOL, *flags, split(tmp_path / "both", test_09=["6 0 l", "06 1 r", "12 0 l"]))
    states = {name: state for name, (state, _) in table(capsys)[0].items()}
    assert states == {  # sequence 12 has no poses
        "data_odometry_color.zip": "incomplete: 2 of 3 images",
        "data_odometry_calib.zip": "incomplete: 1 of 2 files",
        "data_odometry_poses.zip": "here",
    }


def test_depth_benchmarks_need_their_ground_truth(monkeypatch, capsys, raw, tmp_path):
    deep = Image.new("I;16", SIZE)
    save(raw / "train" / f"{DATE}_drive_0001_sync/proj_depth/groundtruth/image_02/0000000001.png",
         deep)  # fmt: skip
    for name, wanted in (("benchmark_mine", True), ("mine", False)):
        folder = split(tmp_path / name, train=[f"{DRIVE} 0-2 l"])
        run(monkeypatch, TOOL, "archives", "--split", folder, "--data_path", raw)
        rows = table(capsys)[0]
        assert ("data_depth_annotated.zip" in rows) == wanted
        if wanted:  # frame 0 lies in the drive's own folder, frame 1 as in the archive
            assert rows["data_depth_annotated.zip"][0] == "incomplete: 2 of 3 depth maps"
    run(monkeypatch, TOOL, "archives", "--split", "eigen_benchmark", "--urls", "--data_path", raw)
    assert "data_depth_annotated.zip" in capsys.readouterr().out
    folder = split(tmp_path / "test", test=["test_depth_prediction_anonymous 0-2 l"])
    for i in range(2):
        save(
            raw / f"depth_selection/test_depth_prediction_anonymous/image/{i:010d}.png", picture(i)
        )
        run(monkeypatch, TOOL, "archives", "--split", folder, "--data_path", raw)
        rows = table(capsys)[0]
        assert [name for name in rows] == ["data_depth_selection.zip"]
        assert rows["data_depth_selection.zip"][0] == f"incomplete: {i + 1} of 3 images"
    run(monkeypatch, TOOL, "archives", "--split", "benchmark_val", "--data_path", raw)
    assert table(capsys)[0]["data_depth_selection.zip"][0] == "missing"


def test_published_splits_need_their_published_drives(monkeypatch, capsys, tmp_path):
    run(monkeypatch, TOOL, "archives", "--split", "eigen", "--urls", "--data_path", tmp_path)
    urls = capsys.readouterr().out.split()
    drives = {frame.folder for frame in read_split(SPLITS / "eigen" / "test_files.txt")}
    assert len(urls) == len(set(urls)) == len(drives) + 5  # dates
    assert sum(url.endswith("_calib.zip") for url in urls) == 5


def test_estimates_follow_the_highest_known_frame():
    counts = kitti_archives.frame_counts([Frame("mine", 3, "l"), Frame("mine", 7, "r")])
    assert counts["mine"] == 8
    for split_file in SPLITS.glob("eigen*/*_files.txt"):
        assert all(counts[frame.folder] > frame.index for frame in read_split(split_file))


@given(st.integers(0, 10**13))
def test_sizes_are_printed_within_five_percent(size):
    number, unit = utils.readable_size(size).split()
    assert float(number) * 1000 ** ["B", "kB", "MB", "GB"].index(unit) == pytest.approx(
        size, rel=0.05
    )


@pytest.fixture
def server(monkeypatch):
    """A local mirror: sizes by path, 404 for others; a HEAD request is all it answers."""
    sizes = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            size = sizes.get(self.path, sizes.get("*"))
            self.send_response(404 if size is None else 200)
            if isinstance(size, int):
                self.send_header("Content-Length", str(size))
            self.end_headers()

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever)
        thread.start()
        yield sizes, f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()
        thread.join()


def test_exact_sizes_come_from_the_server(monkeypatch, capsys, raw, tmp_path, server):
    sizes, url = server
    folder = split(tmp_path / "mine", train=[f"{DRIVE} 0-9 l"])
    flags = ("archives", "--split", folder, "--data_path", raw, "--sizes", "--url")
    sizes["/raw_data/2011_09_26_calib.zip"] = 4068
    drive = f"{DATE}_drive_0001"
    sizes[f"/raw_data/{drive}/{drive}_sync.zip"] = 458_643_963
    run(monkeypatch, TOOL, *flags, url)
    rows, totals, urls = table(capsys)
    assert [size for _, size in rows.values()] == ["4,068 B", "458,643,963 B"]
    assert "to fetch: 1, 459 MB" in totals and "about" not in totals
    assert urls == [f"{url}/raw_data/{drive}/{drive}_sync.zip"]

    sizes.clear()
    assert "answers 404 Not Found" in fails(monkeypatch, capsys, TOOL, *flags, url)
    sizes["*"] = "no length"
    assert "does not tell the size" in fails(monkeypatch, capsys, TOOL, *flags, url)
    closed = fails(monkeypatch, capsys, TOOL, *flags, "http://127.0.0.1:1")
    assert "no answer" in closed and "--sizes" in closed
    monkeypatch.setattr(kitti_archives.urllib.request, "urlopen", lambda *a, **k: slow())
    assert "no answer (timed out)" in fails(monkeypatch, capsys, TOOL, *flags, url)


def slow():
    raise TimeoutError("timed out")


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--split", "nowhere"], "split 'nowhere' is neither"),
        (["--split", "{empty}"], "holds no train_files.txt"),
        (["--split", "{other}"], "'street 0 l': in no archive of KITTI"),
        (["--split", "eigen", "--url", "file:///etc"], "write it as https://"),
        (["--split", "eigen", "--data_path", "{file}"], "is a file"),
        (["--split", "eigen", "--sizes", "--url", "http://a:b/c"], "no answer"),
    ],
)
def test_wrong_archives_flags_end_in_one_line(monkeypatch, capsys, tmp_path, flags, words):
    split(tmp_path / "empty")
    file = split(tmp_path / "other", train=["street 0 l"]) / "train_files.txt"
    names = {"empty": tmp_path / "empty", "other": tmp_path / "other", "file": file}
    flags = [flag.format(**names) for flag in flags]
    assert words in fails(monkeypatch, capsys, TOOL, "archives", *flags)


# verify


def test_a_whole_split_decodes(monkeypatch, capsys, raw, odometry, tmp_path):
    folder = split(tmp_path / "mine", train=[f"{DRIVE} 1 lr"], val=[f"{DRIVE} 1-2 l"])
    flags = ("verify", "--split", folder, "--data_path", raw)
    for more, count in (
        ([], 3),
        (["--frame_ids", 0, -1, 1], 7),
        (["--use_stereo"], 4),
        (["--frame_ids", 0, -2, 7, "--use_stereo", "--png", "--dataset", "kitti"], 5),
    ):
        run(monkeypatch, TOOL, *flags, *more)
        assert capsys.readouterr().out == f"all {count} images decode\n"
    folder = split(tmp_path / "odom", train=["6 1 l", "06 1 l"])
    run(monkeypatch, TOOL, "verify", "--split", folder, "--data_path", odometry, "--use_stereo")
    assert capsys.readouterr().out == "all 2 images decode\n"
    save(raw / "depth_selection/test_depth_completion_anonymous/image/0000000000.png", picture(0))
    run(monkeypatch, TOOL, "verify", "--split", "benchmark_report", "--data_path", raw)
    assert capsys.readouterr().out == "all 1 images decode\n"


def test_missing_corrupt_and_odd_images_are_named(monkeypatch, capsys, raw, tmp_path):
    left, right = (raw / DRIVE / camera / "data" for camera in ("image_02", "image_03"))
    (left / "0000000000.png").unlink()
    (right / "0000000001.png").unlink()
    whole = (left / "0000000001.png").read_bytes()
    (left / "0000000001.png").write_bytes(whole[:-60])
    picture(0, size=(48, 64)).save(right / "0000000002.png")
    folder = split(tmp_path / "mine", train=[f"{DRIVE} 0-3 l"])
    flags = ("verify", "--split", folder, "--data_path", raw)
    assert "2 of 4 images are of no use: 1 missing, 1 corrupt, 0 of a wrong size" in fails(
        monkeypatch, capsys, TOOL, *flags
    )
    with pytest.raises(SystemExit):
        run(monkeypatch, TOOL, *flags, "--use_stereo")
    out, err = capsys.readouterr()
    assert "4 of 8 images are of no use: 2 missing, 1 corrupt, 1 of a wrong size" in err
    missing, partner, corrupt, odd = out.splitlines()
    assert missing == f"missing: {left / '0000000000'}"
    assert partner == f"missing: {right / '0000000001'}"
    assert corrupt.startswith(f"corrupt: {left / '0000000001.png'}: cannot be read as an image")
    path = right / "0000000002.png"
    assert odd == f"wrong size: {path}: 48x64, the recording has 64x48"


def test_many_bad_images_are_counted(monkeypatch, capsys, raw, tmp_path):
    folder = split(tmp_path / "mine", train=[f"{DRIVE} 0-99 l"])
    with pytest.raises(SystemExit):
        run(monkeypatch, TOOL, "verify", "--split", folder, "--data_path", raw)
    out, err = capsys.readouterr()
    assert out.count("missing: ") == 10 and out.endswith("and 86 more\n")
    assert "96 of 100 images are of no use: 96 missing" in err


def test_the_image_that_training_takes_is_the_one_looked_at(monkeypatch, capsys, raw, tmp_path):
    convert(monkeypatch, raw)
    (raw / DRIVE / "image_02" / "data" / "0000000001.jpg").write_bytes(b"")
    flags = ("verify", "--data_path", raw, "--split", split(tmp_path / "a", val=[f"{DRIVE} 1 l"]))
    with pytest.raises(SystemExit):
        run(monkeypatch, TOOL, *flags)
    assert "corrupt: " in (out := capsys.readouterr().out) and "0000000001.jpg" in out
    run(monkeypatch, TOOL, *flags, "--png")
    assert "all 1 images decode" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--data_path", "/nowhere"], "no such data folder"),
        (["--dataset", "kitti_odom"], "no odometry sequence"),
        (["--split", "benchmark_val"], "holds no images"),
    ],
)
def test_wrong_verify_flags_end_in_one_line(monkeypatch, capsys, raw, flags, words):
    flags = ["--split", "eigen", "--data_path", raw, *flags]
    assert words in fails(monkeypatch, capsys, TOOL, "verify", *flags)


# Real frames


def test_real_frames_shrink_and_stay_what_they_are(monkeypatch, real_data, tmp_path):
    images = [f"{DRIVE}/image_0{c}/data/{i:010d}.png" for c in (2, 3) for i in (1, 2, 3)]
    for name in images:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(real_data / "kitti_raw" / name)
    shutil.copy(real_data / "kitti_raw" / DATE / "calib_cam_to_cam.txt", tmp_path / DATE)
    convert(monkeypatch, tmp_path, "--out", tmp_path / "full")
    for name in images:
        old, new = tmp_path / name, (tmp_path / "full" / name).with_suffix(".jpg")
        assert 0.1 < new.stat().st_size / old.stat().st_size < 0.3
        error = np.asarray(read_image(new).convert("L"), float) - read_image(old).convert("L")
        assert 10 * np.log10(255**2 / (error**2).mean()) > 40  # dB, of the brightness
    convert(monkeypatch, tmp_path, "--out", tmp_path / "small", "--size", "640x192")
    frames = [Frame(DRIVE, 2, side) for side in "lr"]
    old, new = (
        KITTIRaw(root, frames, 192, 640, (0, -1, 1), use_stereo=True, intrinsics="calib")
        for root in (tmp_path, tmp_path / "small")
    )
    assert_alike(list(old), list(new), 6)


def test_estimates_are_of_real_files(real_data):
    """The stated bytes are the means of the files that the comment names."""
    raw = real_data / "kitti_raw" / DATE
    mean = {
        "COLOUR": (raw, "*/image_0[23]/data/*.png"),
        "SCAN": (raw, "*/velodyne_points/data/*.bin"),
    }
    for name, (folder, pattern) in mean.items():
        sizes = [path.stat().st_size for path in folder.glob(pattern)]
        assert getattr(kitti_archives, name) == round(np.mean(sizes)), name
    grey = []
    for path in sorted(raw.glob("*/image_02/data/*.png"))[::5]:
        memory = BytesIO()
        read_image(path).convert("L").save(memory, "PNG")
        grey.append(len(memory.getvalue()))
    assert np.mean(grey) == pytest.approx(kitti_archives.GREY, rel=0.05)
    annotated = (real_data / "kitti_depth_annotated").glob("**/proj_depth/**/*.png")
    mean = np.mean([path.stat().st_size for path in annotated])
    assert kitti_archives.ANNOTATED_SIZE == pytest.approx(93_000 * mean, rel=0.05)
    colour = (real_data / "kitti_odometry" / "sequences" / "07").glob("image_[23]/*.png")
    mean = np.mean([path.stat().st_size for path in colour])
    assert kitti_archives.ODOMETRY_COLOUR == pytest.approx(2 * 43_552 * mean, rel=1e-4)
