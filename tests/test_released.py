import contextlib
import errno
import gc
import hashlib
import inspect
import io
import os
import re
import stat
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import checkpoint
import released
from networks import Monodepth
from released import RELEASED, Released, fetch_released
from utils import UserError

NAME = "mono+stereo_640x192"  # the plus sign must be quoted in the URL
BODY = {"encoder.pth": b"encoder" * 40_000, "depth.pth": b"depth" * 40_000, "pose.pth": b"pose"}


class Handler(BaseHTTPRequestHandler):
    """Serves `server.site`, misbehaving as it says, and notes the requests."""

    def do_GET(self):  # noqa: N802
        site = self.server.site
        site.asked.append((self.path, self.headers.get("Range")))
        if site.redirect and self.path.startswith("/files/"):
            return self.answer(302, b"", Location=site.redirect)
        if site.status:
            return self.answer(site.status, b"sorry")
        start, total = 0, len(site.content)
        if site.ranges and "Range" in self.headers:
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if start >= total:
                return self.answer(416, b"", **{"Content-Range": f"bytes */{total}"})
        extra = {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
        self.answer(206 if start else 200, site.content[start:], **extra)

    def answer(self, status, body, **headers):
        site = self.server.site
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if site.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        body, site.cut = body[: site.cut], None
        with contextlib.suppress(ConnectionError):
            if site.stall:
                self.wfile.write(body[:1000])
                site.stall.wait(10)
            self.wfile.write(body[1000:] if site.stall else body)
            site.sent += len(body)

    def log_message(self, *_):
        pass


class Site:
    """A mirror on this machine."""

    def __init__(self, url):
        self.url = url
        self.content, self.asked, self.sent = b"", [], 0
        self.status, self.redirect, self.cut, self.stall = None, None, None, None
        self.ranges = self.length = True


@contextlib.contextmanager
def serving():
    """A site of its own while the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.site = Site(f"http://127.0.0.1:{server.server_port}/files")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.site
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def site():
    with serving() as site:
        yield site


def zipped(files):
    """An archive of (name or ZipInfo, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return buffer.getvalue()


def released_as(monkeypatch, site, content, checksum=True):
    """Make an archive the released one, with its checksum or without."""
    site.content = content if isinstance(content, bytes) else zipped(content)
    md5 = hashlib.md5(site.content).hexdigest() if checksum else None
    monkeypatch.setitem(RELEASED, NAME, Released(f"{NAME}.zip", "eigen_zhou", md5))
    return site.content


@pytest.fixture
def publish(site, monkeypatch):
    return partial(released_as, monkeypatch, site)


def refused(folder, url, words):
    """The one line in which fetching ends; no model may be there then."""
    with pytest.raises(UserError, match=words) as caught:
        fetch_released(NAME, folder, url)
    assert "\n" not in Exception.__str__(caught.value)
    assert not (folder / NAME).exists()
    return str(caught.value)


def visible(folder):
    return sorted(name for name in os.listdir(folder) if not name.endswith(".lock"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_nine_models_have_a_checksum_and_scores_and_four_have_none():
    assert len(RELEASED) == 13
    with_checksum = [model for model in RELEASED.values() if model.md5]
    assert len(with_checksum) == len({model.md5 for model in with_checksum}) == 9
    for name, model in RELEASED.items():
        assert model.file == f"{name}.zip"
        if model.md5:
            assert re.fullmatch("[0-9a-f]{32}", model.md5)
            assert 0.1 < model.abs_rel < 0.14 and 0.83 < model.a1 < 0.88
        else:
            assert model.abs_rel is model.a1 is None
    assert released.file_url(NAME, released.BASE_URL).startswith("https://")
    assert released.file_url(NAME, "https://a.org/x/").endswith("/x/mono%2Bstereo_640x192.zip")


@pytest.mark.parametrize("top", ["", f"{NAME}/"])
def test_a_fetched_model_loads(tmp_path, site, publish, top, capsys):
    model = Monodepth(scales=(0,), frame_ids=(0,))
    checkpoint.save_weights(tmp_path / "made", model, 96, 320, use_stereo=False)
    files = {top + file: content for file, content in contents(tmp_path / "made").items()}
    content = publish({top: b"", **files} if top else files)
    folder = fetch_released(NAME, tmp_path / "models", site.url)
    assert folder == tmp_path / "models" / NAME
    loaded = checkpoint.load_depth_model(folder)
    assert (loaded.num_layers, loaded.height, loaded.width) == (18, 96, 320)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value)
    assert visible(tmp_path / "models") == [NAME]
    err = capsys.readouterr().err
    for words in ("Niantic", "non-commercial", "MIT", f"{len(content) / 1e6:.1f} MB", site.url):
        assert words in err
    assert err.index("Niantic") < err.index(site.url)


def test_what_is_there_needs_no_server(tmp_path, site, publish):
    publish(BODY)
    folder = fetch_released(NAME, tmp_path, site.url)
    asked = list(site.asked)
    assert fetch_released(NAME, tmp_path, site.url) == folder
    assert site.asked == asked == [(f"/files/{NAME.replace('+', '%2B')}.zip", None)]
    assert contents(folder) == BODY
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize("length", [True, False])
@given(share=st.floats(0, 1, exclude_max=True))
def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path_factory, length, share):
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch, serving() as server:
        content = released_as(patch, server, BODY)
        cut = int(share * len(content))
        if length:
            server.cut = cut
            line = refused(folder, server.url, f"broke off after {cut} of {len(content)} bytes")
            assert "run again" in line
        else:  # such as a killed process leaves
            (folder / f"{NAME}.zip.part").write_bytes(content[:cut])
        before = server.sent
        server.length = length
        assert contents(fetch_released(NAME, folder, server.url)) == BODY
        assert server.asked[-1][1] == (f"bytes={cut}-" if cut else None)
        assert server.sent - before == len(content) - cut
        assert visible(folder) == [NAME]


def test_a_server_without_ranges_sends_all_again(tmp_path, site, publish):
    content = publish(BODY)
    site.ranges, site.cut = False, 1000
    refused(tmp_path, site.url, "broke off after 1000")
    assert contents(fetch_released(NAME, tmp_path, site.url)) == BODY
    assert site.asked[-1][1] == "bytes=1000-" and site.sent == 1000 + len(content)


def test_a_server_that_sends_another_range_is_asked_for_all(tmp_path, site, publish, monkeypatch):
    content = publish(BODY)
    (tmp_path / f"{NAME}.zip.part").write_bytes(content[:1000])
    send = Handler.send_header

    def lie(handler, key, value):
        send(handler, key, value.replace("1000-", "1001-") if key == "Content-Range" else value)

    monkeypatch.setattr(Handler, "send_header", lie)
    assert contents(fetch_released(NAME, tmp_path, site.url)) == BODY
    assert [asked[1] for asked in site.asked] == ["bytes=1000-", None]


def test_a_whole_part_is_used_and_a_longer_one_thrown_away(tmp_path, site, publish):
    content = publish(BODY)
    for extra, sent in (b"", 0), (b"more", len(content)):
        folder = tmp_path / str(sent)
        folder.mkdir()
        (folder / f"{NAME}.zip.part").write_bytes(content + extra)
        assert contents(fetch_released(NAME, folder, site.url)) == BODY
        assert site.sent == sent and visible(folder) == [NAME]


def test_a_part_of_another_file_ends_at_the_checksum(tmp_path, site, publish):
    content = publish(BODY)
    (tmp_path / f"{NAME}.zip.part").write_bytes(b"x" * 1000)
    line = refused(tmp_path, site.url, "wrong checksum")
    assert site.url in line and hashlib.md5(content).hexdigest() in line and "run again" in line
    assert visible(tmp_path) == []
    assert contents(fetch_released(NAME, tmp_path, site.url)) == BODY


def test_corrupted_bytes_are_refused_and_removed(tmp_path, site, publish):
    content = bytearray(publish(BODY))
    content[5000] ^= 1
    site.content = bytes(content)
    assert "another mirror" in refused(tmp_path, site.url, "wrong checksum")
    assert visible(tmp_path) == []


def test_a_part_alone_is_no_model(tmp_path, site, publish):
    content = publish(BODY)
    (tmp_path / f"{NAME}.zip.part").write_bytes(content)
    site.status = 500
    refused(tmp_path, site.url, "500")


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_errors_of_the_server_end_in_a_way_out(tmp_path, site, publish, status):
    publish(BODY)
    site.status = status
    line = refused(tmp_path, site.url, f"the server answers {status}")
    assert released.BASE_URL in line and f"{tmp_path / NAME}.zip" in line and "--models_url" in line


def test_no_network_ends_in_a_way_out(tmp_path, site, publish, monkeypatch):
    publish(BODY)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        closed = f"http://127.0.0.1:{server.server_port}"
    line = refused(tmp_path, closed, "refused")
    assert released.BASE_URL in line and f"{tmp_path / NAME}.zip" in line

    def unknown_host(*_, **__):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown_host)
    refused(tmp_path, "https://example.invalid", "Name or service not known; ")


def test_a_silent_server_is_given_up_and_its_bytes_kept(tmp_path, site, publish, monkeypatch):
    content = publish(BODY)
    monkeypatch.setattr(released, "TIMEOUT_S", 0.2)
    site.stall = threading.Event()
    line = refused(tmp_path, site.url, "after 1000 of")
    site.stall.set()
    assert "timed out" in line
    assert (tmp_path / f"{NAME}.zip.part").read_bytes() == content[:1000]


class NoHttp(BaseHTTPRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"220 mail server\r\n")


def test_a_server_of_another_protocol_is_no_traceback(tmp_path, site, publish):
    publish(BODY)
    with ThreadingHTTPServer(("127.0.0.1", 0), NoHttp) as server:
        threading.Thread(target=server.handle_request).start()
        refused(tmp_path, f"http://127.0.0.1:{server.server_port}", "220 mail server; ")


@pytest.mark.parametrize("scheme", ["file:///", "ftp://", "data:", "gopher://"])
def test_redirects_to_other_protocols_are_refused(tmp_path, site, publish, scheme):
    (tmp_path / "other.zip").write_bytes(publish(BODY))
    site.redirect = f"{scheme}{tmp_path}/other.zip"
    refused(tmp_path, site.url, "[Rr]edirect")


def test_redirects_keep_the_range(tmp_path, site, publish):
    content = publish(BODY)
    (tmp_path / f"{NAME}.zip.part").write_bytes(content[:1000])
    site.redirect = site.url.replace("/files", "/elsewhere")
    assert contents(fetch_released(NAME, tmp_path, site.url)) == BODY
    assert [asked[1] for asked in site.asked] == ["bytes=1000-"] * 2
    site.redirect = site.url + "/again"
    refused(tmp_path / "loop", site.url, "infinite loop")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("nowhere", ["http://[/", "http://a..b/", "http://a:b/"])
def test_redirects_to_no_address_are_no_traceback(tmp_path, site, publish, nowhere):
    publish(BODY)
    site.redirect = nowhere
    assert "--models_url" in refused(tmp_path, site.url, "; ")
    gc.collect()  # urllib leaves the connection open here


@pytest.mark.parametrize("old", ["http", "https"])
@pytest.mark.parametrize("new", ["http", "https", "ftp", "file"])
def test_https_never_becomes_http(old, new):
    request, body = Request(f"{old}://a.org/x"), io.BytesIO()
    follow = released.SafeRedirects().redirect_request
    if (old, new) in (("http", "http"), ("http", "https"), ("https", "https")):
        url = f"{new}://b.org/x"
        assert follow(request, body, 302, "", {}, url).full_url == url
    else:
        with pytest.raises(UserError, match="redirects to"):
            follow(request, body, 302, "", {}, f"{new}://b.org/x")
        assert body.closed


@pytest.mark.parametrize(
    "url",
    ["file:///tmp", "ftp://a.org", "a.org/x", "/tmp", "", "https://", "http://[", "http://a:b",
     "http://a.org/\nx", "http://a.org/a b", "http://ä.org"],
)  # fmt: skip
def test_mirrors_are_http_or_https(tmp_path, url):
    refused(tmp_path, url, "--models_url")


def test_unknown_names_are_told_the_known_ones(tmp_path):
    for name in ("mono", "", "../mono_640x192"):
        with pytest.raises(UserError) as caught:
            fetch_released(name, tmp_path)
        assert all(known in str(caught.value) for known in RELEASED)


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def packed(name):
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_LZMA
    return entry


HOSTILE = {
    "up": ("../x", "no part"),
    "up and back": (f"../{NAME}/pose.pth", "no part"),
    "up inside": (f"{NAME}/../pose.pth", "no part"),
    "absolute": ("/abs", "no part"),
    "backslash": ("..\\x", "no part"),
    "drive": ("C:pose.pth", "no part"),
    "deeper": (f"{NAME}/{NAME}/pose.pth", "no part"),
    "folder": ("../x/", "no part"),
    "long, with line breaks": ("a\n" * 500, "no part"),
    "twice": (f"{NAME}/encoder.pth", "twice"),
    "link": (link("pose.pth"), "link"),
    "other packing": (packed("pose.pth"), "packed"),
}


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_entries_are_refused_before_anything_is_written(
    tmp_path, site, publish, kind, checksum
):
    entry, words = HOSTILE[kind]
    models = tmp_path / "models"
    files = {file: content for file, content in BODY.items() if file != "pose.pth"}
    publish([*files.items(), (entry, b"/etc/passwd")], checksum)
    line = refused(models, site.url, words)
    shown = entry if isinstance(entry, str) else entry.filename
    assert repr(shown[:80]) in line and len(line) < 1000
    # What a checksum vouches for would come again, so it is kept.
    assert visible(models) == ([f"{NAME}.zip"] if checksum else [])
    assert visible(tmp_path) == ["models"]


PIECES = ["..", ".", "/", "\\", "C:", NAME, "pose.pth", "__MACOSX"]


@given(st.text(max_size=12) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_whatever_an_entry_is_called_only_weights_are_written(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("models")
    entry = zipfile.ZipInfo("x")
    entry.filename = entry.orig_filename = name.encode(errors="ignore").decode()
    content = zipped([*list(BODY.items())[:2], (entry, b"")])
    (folder / "a.zip").write_bytes(content)
    with contextlib.suppress(UserError):
        released.unpack(folder / "a.zip", folder / NAME)
        assert {"encoder.pth", "depth.pth"} <= set(os.listdir(folder / NAME)) <= set(BODY)
    assert set(os.listdir(folder)) <= {"a.zip", NAME}


def test_zip_bombs_are_not_unpacked(tmp_path, site, publish, monkeypatch):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in BODY:
            archive.writestr(file, bytes(10_000))
    assert len(bomb.getvalue()) < 1000
    publish(bomb.getvalue())
    monkeypatch.setattr(released, "MAX_UNPACKED", 29_999)
    refused(tmp_path, site.url, "'pose.pth' unpacks beyond")
    monkeypatch.setattr(released, "MAX_UNPACKED", 30_000)
    assert visible(fetch_released(NAME, tmp_path, site.url)) == sorted(BODY)


def test_an_understated_size_does_not_unpack_more(tmp_path, site, publish):
    content = bytearray(zipped(BODY))
    at = content.index(b"PK\x01\x02")  # the first entry of the directory: size at 24
    content[at + 24 : at + 28] = (10).to_bytes(4, "little")
    publish(bytes(content))
    refused(tmp_path, site.url, "damaged")


def test_an_archive_without_a_network_is_refused(tmp_path, site, publish):
    for file in ("encoder.pth", "depth.pth"):
        publish({name: content for name, content in BODY.items() if name != file}, checksum=False)
        refused(tmp_path, site.url, f"holds no {file}")


def test_what_is_no_weights_stays_in_the_archive(tmp_path, site, publish):
    others = ("adam.pth", "__MACOSX/._depth.pth", "__MACOSX/", "poses.npy", f"{NAME}/opt.json")
    publish(BODY | dict.fromkeys(others, b""))
    assert contents(fetch_released(NAME, tmp_path, site.url)) == BODY


def test_without_a_checksum_the_sha256_is_said(tmp_path, site, publish, capsys):
    content = publish(BODY, checksum=False)
    assert contents(fetch_released(NAME, tmp_path, site.url)) == BODY
    assert hashlib.sha256(content).hexdigest() in capsys.readouterr().err


def test_without_a_checksum_truncated_archives_are_refused(tmp_path, site, publish):
    content = publish(BODY, checksum=False)
    for damaged in (content[:-100], content[:1000], b"", b"<html>log in</html>"):
        site.content = damaged
        assert "run again" in refused(tmp_path, site.url, "damaged or no zip")
        assert visible(tmp_path) == []
    site.content = content
    assert contents(fetch_released(NAME, tmp_path, site.url)) == BODY


@given(data=st.data())
def test_damage_in_an_archive_never_ends_in_a_traceback(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("models")
    content = bytearray(zipped({"encoder.pth": b"one", "depth.pth": b"two"}))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "a.zip").write_bytes(content)
    try:
        released.unpack(folder / "a.zip", folder / NAME)
    except UserError:
        assert os.listdir(folder) == ["a.zip"]
    else:
        assert contents(folder / NAME) == {"encoder.pth": b"one", "depth.pth": b"two"}


def test_an_archive_put_there_by_hand_is_used_and_kept(tmp_path, site, publish):
    archive = tmp_path / f"{NAME}.zip"
    archive.write_bytes(publish(BODY))
    assert contents(fetch_released(NAME, tmp_path, site.url)) == BODY
    assert site.asked == [] and visible(tmp_path) == [NAME, archive.name]


def test_a_wrong_archive_put_there_by_hand_is_named_and_left(tmp_path, site, publish):
    publish(BODY)
    archive = tmp_path / f"{NAME}.zip"
    archive.write_bytes(b"something else")
    assert f"{archive}: " in refused(tmp_path, site.url, "wrong checksum")
    assert site.asked == [] and archive.exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path, site, publish):
    publish(BODY)
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "encoder.pth").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds no depth.pth; remove it"):
        fetch_released(NAME, tmp_path, site.url)
    assert contents(tmp_path / NAME) == {"encoder.pth": b"mine"} and site.asked == []


def test_an_unwritable_folder_is_named_before_the_download(tmp_path, site, publish, monkeypatch):
    publish(BODY)
    (tmp_path / "file").write_bytes(b"")
    line = refused(tmp_path / "file" / "models", site.url, "not a folder open to you")
    assert released.BASE_URL in line and "--load_weights_folder" in line
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(tmp_path, site.url, "cannot be written")
    assert site.asked == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_ends_the_download_in_one_line(tmp_path, site, publish):
    publish(BODY)
    (tmp_path / f"{NAME}.zip.part").symlink_to("/dev/full")
    assert str(tmp_path) in refused(tmp_path, site.url, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_unpacking_keeps_the_archive_only(tmp_path, site, publish, monkeypatch):
    publish(BODY)
    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr("shutil.copyfileobj", full)
        refused(tmp_path, site.url, os.strerror(errno.ENOSPC))
    assert visible(tmp_path) == [f"{NAME}.zip"]
    fetch_released(NAME, tmp_path, site.url)
    assert len(site.asked) == 1


def test_an_interrupted_unpacking_leaves_no_model(tmp_path, site, publish, monkeypatch):
    publish(BODY)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfileobj", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch_released(NAME, tmp_path, site.url)
    assert visible(tmp_path) == [f"{NAME}.zip"]


@pytest.mark.skipif(released.fcntl is None, reason="needs file locks")
def test_of_two_at_once_one_downloads_and_one_waits(tmp_path, site, publish, capsys):
    content = publish(BODY)
    site.stall = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(fetch_released, NAME, tmp_path, site.url) for _ in range(2)]
        err, deadline = "", time.monotonic() + 10
        while "waiting" not in err and time.monotonic() < deadline:
            time.sleep(0.01)
            err += capsys.readouterr().err
        assert not (tmp_path / NAME).exists()
        site.stall.set()
        assert "another process" in err
        assert {run.result(timeout=10) for run in runs} == {tmp_path / NAME}
    assert contents(tmp_path / NAME) == BODY
    assert len(site.asked) == 1 and site.sent == len(content)


def test_without_locks_models_are_fetched_all_the_same(tmp_path, site, publish, monkeypatch):
    publish(BODY)

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    for replacement in (None, type("fcntl", (), {"flock": no_locks, "LOCK_EX": 2, "LOCK_NB": 4})):
        monkeypatch.setattr(released, "fcntl", replacement)
        folder = tmp_path / str(replacement is None)
        assert contents(fetch_released(NAME, folder, site.url)) == BODY


def test_the_default_folder_is_in_the_repository():
    folder = inspect.signature(fetch_released).parameters["folder"].default
    assert folder == Path(released.__file__).parent / "models"
