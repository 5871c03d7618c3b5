import pytest
from conftest import golden
from hypothesis import given
from hypothesis import strategies as st
from scripts import fails, run

from datasets import BENCHMARKS, KITTIRaw, benchmark, recordings
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


FACTS = golden("splits")


def runs(recorded, side="lr"):
    """The (folder, frame, side) set of a record {folder: [[first, last], ...]}."""
    return {
        Frame(folder, index, s)
        for folder, ranges in recorded.items()
        for first, last in ranges
        for index in range(first, last + 1)
        for s in side
    }


def part(name, which):
    frames = read_split(split_folder(name) / f"{which}.txt")
    assert len(frames) == len(set(frames))
    return frames


@pytest.mark.parametrize("name", ["eigen_zhou", "eigen_full", "odom"])
def test_training_splits_hold_the_published_frames_and_counts(name):
    train, val = part(name, "train_files"), part(name, "val_files")
    published = FACTS[name]["published"]
    assert (len(train), len(val)) == (published["train"], published["val"])
    assert not set(train) & set(val)
    assert set(train) | set(val) == runs(FACTS[name]["frames"])


@pytest.mark.parametrize("name", ["eigen_zhou", "eigen_full", "odom"])
def test_validation_is_the_end_of_each_run(name):
    """No validation frame lies among training frames: neighbours would leak."""
    train = {(f.folder, f.index) for f in part(name, "train_files")}
    val = {(f.folder, f.index) for f in part(name, "val_files")}
    for folder, ranges in FACTS[name]["frames"].items():
        for first, last in ranges:
            of_run = [(folder, i) in train for i in range(first, last + 1)]
            assert of_run == sorted(of_run, reverse=True)
    assert len(train & val) <= 1  # an odd count parts the two views of one moment


def test_the_test_split_has_the_published_order():
    recorded = [
        Frame(folder, index, FACTS["eigen_test"]["side"])
        for folder, indices in FACTS["eigen_test"]["frames_in_order"].items()
        for index in indices
    ]
    assert part("eigen", "test_files") == recorded and len(recorded) == 697
    left_out = FACTS["eigen_benchmark_test"]["left_out"]
    kept = [frame for i, frame in enumerate(recorded) if i not in left_out]
    assert part("eigen_benchmark", "test_files") == kept and len(kept) == 652


def test_the_depth_benchmark_has_the_published_frames():
    facts = FACTS["benchmark"]
    for which in ("train", "val"):
        frames = part("benchmark", f"{which}_files")
        assert set(frames) == runs(facts[which]["frames"])
        assert len(frames) == facts[which]["published"]
    test = part("benchmark", "test_files")
    assert [f.index for f in test] == list(range(facts["test"]["published"]))
    scale = part("benchmark_scale", "test_files")
    assert len(scale) == 1000 and set(scale) <= set(part("benchmark", "train_files"))


def test_odometry_is_tested_on_the_published_pairs():
    for sequence, (first, last) in FACTS["odom"]["test"].items():
        frames = part("odom", f"test_files_{sequence}")
        assert frames == [Frame(str(int(sequence)), i, "l") for i in range(first, last + 1)]


def test_test_recordings_train_nothing_within_a_benchmark_but_across():
    """The leakage that the depth benchmark forbids: eigen's training drives are in its test."""
    eigen, zhou, full = (
        recordings(part(name, which), SPLITS)
        for name, which in (
            ("eigen", "test_files"),
            ("eigen_zhou", "train_files"),
            ("eigen_full", "train_files"),
        )
    )
    train, val = (recordings(part("benchmark", f"{w}_files"), SPLITS) for w in ("train", "val"))
    odom = recordings(part("odom", "train_files"), SPLITS)
    assert not zhou & eigen and not full & eigen and not train & val
    assert "2011_09_26_drive_0005_sync" in zhou & val
    assert len(train & eigen) > 10  # and the other way round
    assert len(odom & eigen) == 4  # a sequence is a drive by another name
    assert not odom & recordings(part("odom", "test_files_09"), SPLITS)
    assert recordings(part("odom", "test_files_09"), SPLITS) <= zhou


@pytest.mark.parametrize("name", ["eigen_zhou", "odom", "eigen", "benchmark"])
def test_plain_lists_are_the_same_split(monkeypatch, capsys, tmp_path, name):
    run(monkeypatch, "tools.list_split", name, "--write", tmp_path)
    printed = capsys.readouterr().out
    for path in sorted(split_folder(name).glob("*_files*.txt")):
        frames = read_split(path)
        assert read_split(tmp_path / path.name) == frames
        assert len((tmp_path / path.name).read_text().splitlines()) == len(frames)
        assert str(len(frames)) in printed


def test_listing_a_split_says_what_is_wrong(monkeypatch, capsys, tmp_path):
    (tmp_path / "own").mkdir()
    for argv, words in (
        (["nosuch"], "'nosuch' is neither"),
        ([tmp_path / "own"], "holds no train_files.txt"),
        (["eigen", "--write", SPLITS / "eigen"], "is the split itself"),
    ):
        assert words in fails(monkeypatch, capsys, "tools.list_split", *argv)


def test_a_benchmark_is_known_by_its_folder_however_it_is_named(tmp_path):
    for known in BENCHMARKS:
        for name in (known, f"{known}/", str(SPLITS / known)):
            assert benchmark(name, "kitti") is BENCHMARKS[known]
    for name in ("eigen_benchmark", "eigen_benchmark/", str(SPLITS / "eigen_benchmark")):
        assert benchmark(name, "kitti") is BENCHMARKS["eigen_benchmark"]
    (tmp_path / "eigen_benchmark").mkdir()
    assert benchmark(str(tmp_path / "eigen_benchmark"), "kitti").protocol is KITTIRaw.protocol
