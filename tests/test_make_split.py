"""Splits of anyone's sequences: validation by time, and no frame in two parts."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from scripts import fails, run

from datasets import SPLITS, read_split
from tools.make_split import Run, divided, runs_of, split_of
from utils import UserError

TOOL = "tools.make_split"
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=12)
SHARES = st.floats(0.01, 0.9)
CAMERA = {"fx": 9, "fy": 9, "cx": 7.5, "cy": 3.5, "width": 16, "height": 8}


def add_sequence(root, name, numbers, **extra):
    """A sequence of tiny images of these numbers; extra: names of image folders, and a baseline."""
    folder = root / name
    for images in (".", *extra):
        (folder / images).mkdir(parents=True, exist_ok=True)
        for number in extra.get(images, numbers):
            Image.new("RGB", (16, 8)).save(folder / images / f"{number:06d}.png")
    parts = {
        "stereo": {"images": "right", "baseline_m": 0.5},
        "depth": {"images": "depth", "metres_per_unit": 0.001},
    }
    named = {"right": "stereo", "depth": "depth"}
    camera = CAMERA | {named[key]: parts[named[key]] for key in extra}
    (folder / "intrinsics.json").write_text(json.dumps(camera))


def lines(root, part, split="video"):
    return (root / "splits" / split / f"{part}_files.txt").read_text().splitlines()


def frames_used(runs, stride):
    """Frames that samples of these targets are made of."""
    return {
        (run.sequence, number + k)
        for run in runs
        for number in range(run.first, run.last + 1)
        for k in (-stride, 0, stride)
    }


def targets(runs):
    return {(run.sequence, number) for run in runs for number in range(run.first, run.last + 1)}


@given(st.sets(st.integers(0, 200), min_size=1))
def test_runs_are_the_numbers_in_order_and_as_few_as_can_be(numbers):
    runs = runs_of("a", numbers)
    flat = [n for run in runs for n in range(run.first, run.last + 1)]
    assert flat == sorted(numbers)
    assert all(a.last + 1 < b.first for a, b in zip(runs, runs[1:], strict=False))


@given(lengths=LENGTHS, share=SHARES, stride=st.integers(1, 4))
def test_no_frame_is_in_samples_of_both_parts_and_little_is_left_out(lengths, share, stride):
    runs = [Run(str(i), 5, 4 + length) for i, length in enumerate(lengths)]
    whole = {
        (run.sequence, n) for run in runs for n in range(run.first + stride, run.last - stride + 1)
    }
    try:
        train, val = divided(runs, share, stride)
    except UserError:
        assert len(whole) < 2 or sum(length > 2 * stride for length in lengths) < 2
        return
    assert train and val
    assert not frames_used(train, stride) & frames_used(val, stride)
    assert targets(train) | targets(val) <= whole
    assert frames_used(train, stride) | frames_used(val, stride) <= {
        (run.sequence, n) for run in runs for n in range(run.first, run.last + 1)
    }
    left_out = whole - targets(train) - targets(val)
    for one in runs:
        lost = [n for name, n in left_out if name == one.sequence]
        assert len(lost) <= 2 * stride  # between the parts, in one go
        assert not lost or max(lost) - min(lost) == len(lost) - 1
        mine = [r for r in train + val if r.sequence == one.sequence]
        assert bool(mine) == (one.length > 2 * stride)  # all runs are covered
        early = [r.last for r in train if r.sequence == one.sequence]
        late = [r.first for r in val if r.sequence == one.sequence]
        assert not early or not late or early[0] < late[0]  # by time


@given(lengths=st.lists(st.integers(3, 400), min_size=1, max_size=30), share=st.floats(0.05, 0.5))
def test_the_share_that_validates_is_kept_over_all_runs(lengths, share):
    assume(sum(lengths) > 300)
    _, val = divided([Run(str(i), 0, n - 1) for i, n in enumerate(lengths)], share)
    total = sum(length - 2 for length in lengths)
    assert abs(len(targets(val)) - share * total) < 5


def test_one_long_run_validates_on_its_last_tenth():
    train, val = divided([Run("a", 0, 101)], 0.1)
    assert train == [Run("a", 1, 88)] and val == [Run("a", 91, 100)]
    train, val = divided([Run("a", 0, 101)], 0.1, stride=3)
    assert train == [Run("a", 3, 82)] and val == [Run("a", 89, 98)]


def test_short_runs_train_and_now_and_then_one_validates():
    train, val = divided([Run(str(i), 0, 2) for i in range(40)], 0.1)
    assert len(train) == 36 and len(val) == 4
    train, val = divided([Run("a", 0, 2), Run("b", 0, 2)], 0.1)
    assert len(train) == len(val) == 1
    with pytest.raises(UserError, match="5 frames in 1 runs are too few"):
        divided([Run("a", 0, 4)], 0.1)


def test_a_tree_is_split_by_name(monkeypatch, capsys, tmp_path):
    add_sequence(tmp_path, "a/one", range(30))
    add_sequence(tmp_path, "a/two", [*range(10, 20), *range(21, 24), 40, 41])
    add_sequence(tmp_path, "b", range(12), right=range(2, 12))
    add_sequence(tmp_path, ".b.x1y2z3w4", range(30))  # being made
    run(monkeypatch, TOOL, tmp_path)
    assert lines(tmp_path, "train") == [
        "a/one 1-23 l", "a/two 11-15 l", "a/two 22-22 l", "b 3-7 lr"
    ]  # fmt: skip
    assert lines(tmp_path, "val") == ["a/one 26-28 l", "a/two 18-18 l", "b 10-10 l"]
    assert not (tmp_path / "splits/video/test_files.txt").exists()
    assert "39 frames to train on, 5 frames to validate on" in capsys.readouterr().out
    assert len(read_split(tmp_path / "splits/video/train_files.txt")) == 39


def test_sequences_that_are_held_out_are_tested_where_there_is_depth(monkeypatch, tmp_path):
    add_sequence(tmp_path, "a", range(20))
    add_sequence(tmp_path, "b", range(9), depth=[2, 3, 7])
    add_sequence(tmp_path, "c", range(3))
    run(monkeypatch, TOOL, tmp_path, "--split", "held", "--test", "b", "c/")
    assert lines(tmp_path, "test", "held") == ["b 2-3 l", "b 7-7 l", "c 0-2 l"]
    for part in ("train", "val"):
        assert {line.split()[0] for line in lines(tmp_path, part, "held")} == {"a"}


def test_another_split_is_replaced_on_demand_only(monkeypatch, capsys, tmp_path):
    add_sequence(tmp_path, "a", range(40))
    add_sequence(tmp_path, "b", range(40))
    run(monkeypatch, TOOL, tmp_path, "--test", "b")
    run(monkeypatch, TOOL, tmp_path, "--test", "b")  # the same once more
    before = lines(tmp_path, "train")
    line = fails(monkeypatch, capsys, TOOL, tmp_path)
    assert "is there with other frames; add --overwrite" in line
    assert lines(tmp_path, "train") == before and lines(tmp_path, "test")
    run(monkeypatch, TOOL, tmp_path, "--overwrite")
    assert lines(tmp_path, "train") != before
    assert not (tmp_path / "splits/video/test_files.txt").exists()


def test_the_longest_runs_are_cut_to_what_a_line_may_hold():
    texts = Run("a", 0, 2_500_000).lines("l")
    assert texts == ["a 0-999999 l", "a 1000000-1999999 l", "a 2000000-2500000 l"]


def test_the_data_folder_itself_may_be_a_sequence(tmp_path):
    add_sequence(tmp_path, ".", range(20))
    assert split_of(tmp_path)["val"] == [". 17-18 l"]


def test_what_cannot_be_split_is_named(monkeypatch, capsys, tmp_path):
    def line(*flags):
        return fails(monkeypatch, capsys, TOOL, tmp_path, *flags)

    assert "holds no folder with an intrinsics.json" in line()
    add_sequence(tmp_path, "a", range(4))
    assert f"{tmp_path}: 4 frames in 1 runs are too few" in line()
    assert "--val_share 1: give" in line("--val_share", 1)
    assert "--stride 0: give 1" in line("--stride", 0)
    assert "--test c: no such sequence" in line("--test", "c")
    assert "--split '../x': a name has" in line("--split", "../x")
    name = min(path.name for path in SPLITS.iterdir() if path.is_dir())
    assert f"--split {name}: is a split of" in line("--split", name)
    add_sequence(tmp_path, "with space", range(4))
    assert "rename it" in line()
    (tmp_path / "with space").rename(tmp_path / "empty")
    for image in (tmp_path / "empty").glob("*.png"):
        image.unlink()
    assert "empty: holds no JPEG or PNG" in line()
    add_sequence(tmp_path, "empty", range(4), right=[9])
    assert "right: has no frame of the numbers in" in line()
    assert "nowhere: no such data folder" in fails(monkeypatch, capsys, TOOL, "nowhere")
    assert not (tmp_path / "splits").exists()


def test_sequences_behind_links_are_found_and_loops_are_not_followed(monkeypatch, tmp_path):
    add_sequence(tmp_path / "disk", "far", range(30))
    add_sequence(tmp_path / "data", "near", range(30))
    (tmp_path / "data/far").symlink_to(tmp_path / "disk/far")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/again").symlink_to(tmp_path / "data/near")
    (tmp_path / "disk/far/round").symlink_to(tmp_path / "disk/far")
    run(monkeypatch, TOOL, tmp_path / "data")
    assert {line.split()[0] for line in lines(tmp_path / "data", "train")} == {"far", "near"}


def test_names_that_a_split_takes_for_remarks_are_refused(monkeypatch, capsys, tmp_path):
    add_sequence(tmp_path, "#walk", range(30))
    assert "#walk: a split takes a line with #" in fails(monkeypatch, capsys, TOOL, tmp_path)
