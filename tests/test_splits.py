import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets import BENCHMARKS, KITTIRaw, benchmark
from datasets.splits import SPLITS, Frame, parse_line, read_split, split_folder
from utils import UserError

folders = st.text("abcdefghijklmnopqrstuvwxyz0123456789_/-.", min_size=1, max_size=30).filter(
    lambda f: not f.startswith("/") and ".." not in f.split("/") and not f.startswith("#")
)


@given(folders, st.integers(0, 9_999_999_999), st.sampled_from("lr"))
def test_a_frame_reads_back_as_itself(folder, index, side):
    frame = Frame(folder, index, side)
    assert parse_line(str(frame)) == [frame]


@given(st.integers(0, 10_000), st.integers(0, 300), st.sampled_from(["l", "r", "lr"]))
def test_a_run_is_its_frames(first, more, sides):
    frames = parse_line(f"a/b {first}-{first + more} {sides}")
    single = [parse_line(f"a/b {i} {s}")[0] for i in range(first, first + more + 1) for s in sides]
    assert frames == single


def test_published_lines_keep_their_meaning():
    line = "2011_09_26/2011_09_26_drive_0002_sync 0000000069 l"
    assert parse_line(line) == [Frame("2011_09_26/2011_09_26_drive_0002_sync", 69, "l")]


@given(st.text(max_size=60))
def test_any_line_is_read_or_refused_in_words(line):
    try:
        frames = parse_line(line)
    except ValueError as error:
        assert str(error)
    else:
        assert frames and all(f.side in "lr" and f.index >= 0 for f in frames)


@pytest.mark.parametrize(
    "line, words",
    [
        ("drive 5", "2 fields"),
        ("drive 5 l extra", "4 fields"),
        ("drive five l", "'five'"),
        ("drive -5 l", "'-5'"),
        ("drive 5.0 l", "'5.0'"),
        ("drive ٥ l", "'٥'"),
        ("drive 9-5 l", "'9-5'"),
        ("drive 0-9999999999 l", "'0-9999999999'"),
        ("drive 5 x", "'x'"),
        ("drive 5 rl", "'rl'"),
        ("../drive 5 l", "'../drive'"),
        ("/drive 5 l", "'/drive'"),
    ],
)
def test_bad_lines_are_named_with_file_and_number(tmp_path, line, words):
    path = tmp_path / "train_files.txt"
    path.write_text(f"# good lines first\n\ndrive 1-3 lr\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_split(path)
    assert f"{path}:4: " in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"\xff\xfe\x00"])
def test_files_without_frames_are_refused(tmp_path, content):
    path = tmp_path / "val_files.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="val_files.txt"):
        read_split(path)


def test_a_byte_order_mark_is_no_part_of_the_folder(tmp_path):
    path = tmp_path / "train_files.txt"
    path.write_bytes(b"\xef\xbb\xbfdrive 3 l\r\n")
    assert read_split(path) == [Frame("drive", 3, "l")]


def test_a_dot_is_the_folder_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert split_folder(".").resolve() == tmp_path / "inner"
    assert split_folder("..").resolve() == tmp_path


def test_missing_splits_name_those_that_exist():
    with pytest.raises(UserError, match="eigen_zhou"):
        split_folder("eigen_zuh")
    with pytest.raises(UserError, match="no such split file"):
        read_split(SPLITS / "eigen" / "train_files.txt")


@pytest.mark.parametrize(
    "name, part, count",
    [
        ("eigen_zhou", "train", 39810),
        ("eigen_zhou", "val", 4424),
        ("eigen", "test", 697),
        ("eigen_benchmark", "test", 652),
    ],
)
def test_published_splits_have_their_sizes(name, part, count):
    frames = read_split(split_folder(name) / f"{part}_files.txt")
    assert len(frames) == len(set(frames)) == count


def test_a_benchmark_is_known_by_its_folder_however_it_is_named(tmp_path):
    for name in ("eigen_benchmark", "eigen_benchmark/", str(SPLITS / "eigen_benchmark")):
        assert benchmark(name, "kitti") is BENCHMARKS["eigen_benchmark"]
    (tmp_path / "eigen_benchmark").mkdir()
    assert benchmark(str(tmp_path / "eigen_benchmark"), "kitti").protocol is KITTIRaw.protocol


def test_no_frame_is_trained_and_validated():
    parts = [read_split(split_folder("eigen_zhou") / f"{p}_files.txt") for p in ("train", "val")]
    assert not set(parts[0]) & set(parts[1])
    drives = {f.folder for f in read_split(split_folder("eigen") / "test_files.txt")}
    assert not drives & {f.folder for part in parts for f in part}
