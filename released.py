"""The publicly released Monodepth2 KITTI weights: fetched, checked, unpacked.

A download goes to `<name>.zip.part`, which a later run continues; only a file with the published
checksum becomes `<name>.zip`, and only a folder with every file in it becomes `<name>`. So whatever
bears one of these two names is whole. A lock holds a second process off until the first is done;
where the file system has no locks, two that mix their bytes end at the checksum.
"""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import struct
import sys
import uuid
import zlib
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from tqdm import tqdm

from utils import UserError, atomic_write, demand_writable

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

ROOT = Path(__file__).resolve().parent
BASE_URL = "https://storage.googleapis.com/niantic-lon-static/research/monodepth2"
NOTICE = (
    "these weights are Niantic's, under the Monodepth2 licence: non-commercial use only\n"
    "(the MIT licence of this code does not cover them)"
)
NEEDED = ("encoder.pth", "depth.pth")
WANTED = (*NEEDED, "pose_encoder.pth", "pose.pth")
# A name, perhaps in one folder; `.` and `..` are no names.
PLAIN = re.compile(r"(?:(?!\.{1,2}/)[\w.+-]+/)?(?:(?!\.{1,2}$)[\w.+-]+)?", re.ASCII)
MAX_UNPACKED = 2 * 1000**3  # bytes
DAMAGE = (BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError)
CHUNK = 1 << 20
TIMEOUT_S = 30.0


class Released(NamedTuple):
    """A released model's file, training split, published MD5 and scores on KITTI Eigen."""

    file: str
    split: str  # that it was trained on
    md5: str | None = None
    abs_rel: float | None = None
    a1: float | None = None


ZHOU, FULL, ODOM = "eigen_zhou", "eigen_full", "odom"
RELEASED: dict[str, Released] = {
    name: Released(f"{name}.zip", *published)
    for name, *published in (
        ("mono_640x192", ZHOU, "a964b8356e08a02d009609d9e3928f7c", 0.115, 0.877),
        ("stereo_640x192", FULL, "3dfb76bcff0786e4ec07ac00f658dd07", 0.109, 0.864),
        ("mono+stereo_640x192", ZHOU, "c024d69012485ed05d7eaa9617a96b81", 0.106, 0.874),
        ("mono_no_pt_640x192", ZHOU, "9c2f071e35027c895a4728358ffc913a", 0.132, 0.845),
        ("stereo_no_pt_640x192", FULL, "41ec2de112905f85541ac33a854742d1", 0.130, 0.831),
        ("mono+stereo_no_pt_640x192", ZHOU, "46c3b824f541d143a45c37df65fbab0a", 0.127, 0.836),
        ("mono_1024x320", ZHOU, "0ab0766efdfeea89a0d9ea8ba90e1e63", 0.115, 0.879),
        ("stereo_1024x320", FULL, "afc2f2126d70cf3fdf26b550898b501a", 0.107, 0.874),
        ("mono+stereo_1024x320", ZHOU, "cdc5fc9b23513c07d5b19235d9ef08f7", 0.106, 0.876),
        ("mono_odom_640x192", ODOM),
        ("mono+stereo_odom_640x192", ODOM),
        ("mono_resnet50_640x192", ZHOU),
        ("mono_resnet50_no_pt_640x192", ZHOU),
    )
}


def fetch_released(name: str, folder: Path = ROOT / "models", base_url: str | None = None) -> Path:
    """The folder of a released model's weights, `folder/name`, downloaded if it is not there.

    `folder/name.zip`, put there by hand, is used in place of a download. `base_url` names a mirror
    that holds the files under their published names.

    Raises:
        UserError: unknown name, no connection, wrong checksum, unsafe archive, unwritable folder.
    """
    if name not in RELEASED:
        raise UserError(f"'{name}' is no released model; there are {', '.join(RELEASED)}")
    target, archive = folder / name, folder / RELEASED[name].file
    published = file_url(name, BASE_URL)
    url = file_url(name, BASE_URL if base_url is None else base_url)
    if is_whole(target):
        return target
    try:
        demand_writable(folder / f"{archive.name}.part")
    except UserError as error:
        elsewhere = f"unzip {published} elsewhere and give --load_weights_folder"
        raise UserError(f"{error}; {elsewhere}") from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f".{name}.lock"):
            if not is_whole(target):  # nobody else made it while we waited
                make(target, archive, RELEASED[name].md5, url, published)
    except OSError as error:  # of the disk; those of the network have become UserErrors
        what, why = error.filename or folder, error.strerror or error
        raise UserError(f"{what}: {why}; put that right and run again") from None
    return target


def file_url(name: str, base_url: str) -> str:
    """Where a model's file lies at the publisher or a mirror.

    Raises:
        UserError: the address is not one of http or https.
    """
    try:
        parts = urlsplit(base_url)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0
    except ValueError:  # of urlsplit, and of a port that is no number
        good = False
    if not good or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        raise UserError(f"--models_url {base_url!r}: give one like https://example.org/folder")
    return f"{base_url.rstrip('/')}/{quote(RELEASED[name].file)}"


def is_whole(target: Path) -> bool:
    """Whether a model's folder is there.

    Raises:
        UserError: something else has its name.
    """
    missing = [file for file in NEEDED if not (target / file).is_file()]
    if missing and os.path.lexists(target):
        raise UserError(f"{target}: holds no {missing[0]}; remove it to have the model fetched")
    return not missing


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold other processes off while the block runs, where system and file system have locks."""
    with path.open("a") as file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another process is fetching this model; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:
                pass  # a file system without locks
        yield


def make(target: Path, archive: Path, md5: str | None, url: str, published: str) -> None:
    """Unpack the archive to the model's folder, after downloading it where it is not there.

    Raises:
        UserError: the archive cannot be had, or is refused.
    """
    by_hand = archive.exists()
    if by_hand:
        if wrong := wrong_checksum(archive, md5):
            raise UserError(f"{archive}: {wrong}; remove it, or put {published} there")
    else:
        part = archive.with_name(f"{archive.name}.part")
        mirror = "a mirror" if url == published else "another mirror"
        way_out = f"try later, save {published} as {archive}, or name {mirror} with --models_url"
        download(url, part, way_out)
        if wrong := wrong_checksum(part, md5):
            part.unlink()
            raise UserError(f"{url}: {wrong}; what came was removed, run again, or {way_out}")
        os.replace(part, archive)
    try:
        unpack(archive, target)
    except UserError as error:
        if by_hand or md5:
            by_trust = f"remove it, or unzip it into {target} by hand if you trust it"
            raise UserError(f"{error}; {by_trust}") from None
        archive.unlink()
        raise UserError(f"{error}; what came from {url} was removed, run again") from None
    if not by_hand:
        archive.unlink()


def wrong_checksum(path: Path, md5: str | None) -> str:
    """What is wrong with a file's checksum, if anything; without an `md5` its SHA-256 is said."""
    digest = hashlib.new("md5" if md5 else "sha256", usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if md5 is None:
        say(f"no checksum was published for this model; its sha256 is {digest.hexdigest()}")
    elif digest.hexdigest() != md5:
        return f"wrong checksum (md5 {digest.hexdigest()}, published {md5})"
    return ""


def download(url: str, part: Path, way_out: str) -> None:
    """Write what lies at a URL to `part`, continuing after the bytes that are there already.

    Raises:
        UserError: no connection, an error of the server, or too few bytes; those are kept.
    """
    have = part.stat().st_size if part.exists() else 0
    say(NOTICE)
    try:
        response, start = ask(url, have)
    except HTTPError as error:
        answer = f"{error.code} {' '.join(str(error.reason).split())}"
        raise UserError(f"{url}: the server answers {answer}; {way_out}") from None
    except (OSError, HTTPException, ValueError) as error:  # ValueError: redirected to no address
        raise UserError(f"{url}: {reason(error)}; {way_out}") from None
    if response is None:
        return
    with response:
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        size = "size unknown" if total is None else f"{total / 1e6:.1f} MB"
        say(f"downloading {url} ({size}" + (f", {start / 1e6:.1f} MB are here)" if start else ")"))
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, dynamic_ncols=True)
        with bar, part.open("ab" if start else "wb") as file:
            broken = copy_body(response, file, bar)
    came = part.stat().st_size
    if broken or (total is not None and came < total):
        where = f"after {came} of {total or '?'} bytes ({broken or 'connection closed'})"
        raise UserError(f"{url}: broke off {where}; they are kept, run again to go on")


def ask(url: str, have: int) -> tuple[HTTPResponse | None, int]:
    """The server's answer and the position of its first byte; None if `have` bytes are all.

    Raises:
        HTTPError, OSError, HTTPException: as urllib does.
        UserError: redirected to another protocol.
    """
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = build_opener(SafeRedirects).open(request, timeout=TIMEOUT_S)
    except HTTPError as error:
        with error:
            if error.code != 416 or not have:
                raise
            whole = error.headers.get("Content-Range") == f"bytes */{have}"
            return (None, have) if whole else ask(url, 0)
    if response.status != 206:
        return response, 0
    if have and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        response.close()
        return ask(url, 0)
    return response, have


class SafeRedirects(HTTPRedirectHandler):
    """Follows redirects from http to http or https, and from https to https."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise UserError(
                f"{req.full_url}: redirects to {newurl!r}, not to {allowed[-1]}; refused"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def copy_body(response: HTTPResponse, file: IO[bytes], bar: tqdm) -> str:
    """Write a body as it comes; what broke the connection, empty where nothing did."""
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, HTTPException) as error:
            return reason(error)
        if not chunk:
            return ""
        file.write(chunk)
        bar.update(len(chunk))


def reason(error: Exception) -> str:
    """Why there is no connection, in one line."""
    cause = getattr(error, "reason", error)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(text.split())


def unpack(archive: Path, target: Path) -> None:
    """Write an archive's weights to a new folder that appears whole or not at all.

    Raises:
        UserError: damaged, or holding what does not belong there; nothing is left behind then.
    """
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with ZipFile(archive) as zipped:
            chosen = weight_entries(archive, zipped.infolist())
            fresh.mkdir()
            for file, entry in chosen.items():
                with zipped.open(entry) as source, atomic_write(fresh / file) as out:
                    shutil.copyfileobj(source, out, CHUNK)
        fresh.rename(target)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # of the disk; a position before the file's start is EINVAL
        raise UserError(f"{archive}: damaged or no zip ({reason(error)})") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def weight_entries(archive: Path, entries: list[ZipInfo]) -> dict[str, ZipInfo]:
    """What is to be written, by file name, after a look at every entry.

    Only the names in `WANTED` are ever written, wherever an entry says it belongs.

    Raises:
        UserError: an entry that does not belong there, a file missing, or too much in all.
    """
    files: dict[str, ZipInfo] = {}
    unpacked = 0
    for entry in entries:
        name = entry.orig_filename  # as it stands there: ZipInfo.filename is tidied up
        file = name.rpartition("/")[2]
        if PLAIN.fullmatch(name) and file not in WANTED:
            continue
        unpacked += entry.file_size
        why = (
            "is no part of a model" if not PLAIN.fullmatch(name)
            else "is there twice" if file in files
            else "is a link or another special file"
            if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG)
            else "is encrypted or packed in an unknown way"
            if entry.flag_bits & 1 or entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED)
            else f"unpacks beyond {MAX_UNPACKED / 1e9:g} GB in all" if unpacked > MAX_UNPACKED
            else ""
        )  # fmt: skip
        if why:
            raise UserError(f"{archive}: entry {name[:80]!r} {why}")
        files[file] = entry
    if missing := [file for file in NEEDED if file not in files]:
        raise UserError(f"{archive}: holds no {missing[0]}")
    return {file: files[file] for file in WANTED if file in files}


def say(text: str) -> None:
    """A message beside the progress bar; standard output is for results."""
    print(text, file=sys.stderr)
