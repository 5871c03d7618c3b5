"""The command that examines data: verdicts, exit status, report."""

import json
import re
from html.parser import HTMLParser

import pytest
from planted import halve, street_video
from scripts import fails, run

from tools.check_data import FAULTY

NAME = "tools.check_data"


@pytest.fixture(scope="module")
def street(sample, tmp_path_factory):
    video = street_video(sample, tmp_path_factory.mktemp("street") / "video")
    video.data()  # writes the split
    return video


@pytest.fixture
def video(street, tmp_path):
    return street.copy(tmp_path / "video")


def check(monkeypatch, capsys, video, *argv) -> tuple[int, str]:
    """Exit status and what the command says about a folder."""
    status = 0
    try:
        run(monkeypatch, NAME, "--dataset", "folder", "--data_path", video.root, *argv)
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().out


def test_healthy_data_get_a_good_verdict(monkeypatch, capsys, video):
    status, said = check(monkeypatch, capsys, video, "--use_stereo")
    assert status == 0
    assert said.endswith("0 faults, 0 warnings\n")
    assert "train: 12 frames of split video" in said


def test_faults_are_named_with_what_to_do(monkeypatch, capsys, video):
    halve(video)
    status, said = check(monkeypatch, capsys, video)
    assert status == FAULTY
    assert re.search(r"FAULT image size: .*208x64.*; write width, height, and K times 0\.5", said)
    assert said.endswith("1 fault, 0 warnings\n")


def test_missing_images_are_a_fault(monkeypatch, capsys, video):
    video.files()[5].unlink()
    status, said = check(monkeypatch, capsys, video)
    assert status == FAULTY
    assert "FAULT files:" in said


def test_all_parts_of_a_split_are_examined(monkeypatch, capsys, sample, tmp_path):
    where = ("--data_path", sample, "--split", "sample", "--height", 128, "--width", 416)
    out, numbers = tmp_path / "report.html", tmp_path / "report.json"
    run(monkeypatch, NAME, *where, "--use_stereo", "--frames", 6, "--out", out, "--json", numbers)
    said = capsys.readouterr().out
    assert all(f"{part}: " in said for part in ("train", "val", "test"))
    content = json.loads(numbers.read_text())
    assert content["verdict"] == "0 faults, 0 warnings"
    assert set(content["parts"]) == {"train", "val", "test"}
    drive = content["parts"]["train"]["sequences"][0]
    assert 2 < drive["flow_px"] < 20
    assert drive["looked_at"] <= 12
    Page(out.read_text()).demand("0 faults, 0 warnings", "train", "val", "test")


def test_the_report_holds_pictures_and_findings(monkeypatch, capsys, video, tmp_path):
    halve(video)
    video.change(about={"note": "<b>"})
    out = tmp_path / "report.html"
    check(monkeypatch, capsys, video, "--out", out)
    page = Page(out.read_text())
    page.demand("1 fault, 0 warnings", "image size", "points move by", "warped into", "what to do")
    assert len(page.images) > 5
    assert all(image.startswith("data:image/jpeg;base64,") for image in page.images)


class Page(HTMLParser):
    """Texts and images of a page whose tags must be closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.texts: list[str] = []
        self.images: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def demand(self, *texts: str) -> None:
        whole = " ".join(self.texts)
        assert all(text in whole for text in texts)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--data_path", "nowhere"], "no such data folder"),
        (["--split", "nowhere"], "neither a folder"),
        (["--out", "."], "--out .: give a name that ends in .html"),
        (["--out", "video.html"], "is a folder"),
        (["--json", "report.html"], "--json report.html: give a name that ends in .json"),
        (["--intrinsics", "nominal"], "leave the flag out"),
        (["--nyuv2_neighbours", "any"], "is about --dataset nyuv2"),
    ],
)
def test_mistakes_end_in_a_line(monkeypatch, capsys, video, tmp_path, argv, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "video.html").mkdir()
    given = ["--dataset", "folder", "--data_path", video.root, *argv]
    assert words in fails(monkeypatch, capsys, NAME, *given)


@pytest.mark.parametrize("argv", [["--frames", 0], ["--frame_ids", 1], ["--num_workers", -2]])
def test_bad_numbers_are_refused(monkeypatch, capsys, video, argv):
    fails(monkeypatch, capsys, NAME, "--dataset", "folder", "--data_path", video.root, *argv)


def test_a_split_without_parts_is_refused(monkeypatch, capsys, video):
    (video.root / "splits/video/train_files.txt").unlink()
    line = fails(monkeypatch, capsys, NAME, "--dataset", "folder", "--data_path", video.root)
    assert "train_files.txt" in line
