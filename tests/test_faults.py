"""Faults of the machine, one by one: each ends in its one line, and nothing is lost."""

import contextlib
import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import TINY, fails, run, write_split

import building
import checkpoint
from datasets import Frame, GroundTruth, KITTIRaw
from networks import Monodepth
from options import TrainOptions, parse
from states import read_state
from trainer import Trainer
from utils import UserError

ROOT = Path(__file__).parent.parent
DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


@pytest.fixture(scope="module")
def flags(sample, short_split):
    return [
        *TINY,
        "--data_path",
        sample,
        "--split",
        short_split,
        "--num_epochs",
        2,
        "--save_steps",
        2,
    ]


class Capabilities(ctypes.Structure):
    """What capget(2) and capset(2) take: a header, and two words of each set."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
    _fields_ += [(f"{kind}{i}", ctypes.c_uint32) for i in (0, 1) for kind in ("on", "can", "pass")]


@contextlib.contextmanager
def without_permissions():
    """Root, for whom no permission is missing, puts that right aside."""
    libc = ctypes.CDLL(None, use_errno=True)
    now = Capabilities(version=0x20080522)

    def call(function):
        at = ctypes.addressof(now)
        assert function(ctypes.c_void_p(at), ctypes.c_void_p(at + 8)) == 0

    call(libc.capget)
    before = now.on0
    now.on0 &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    call(libc.capset)
    try:
        yield
    finally:
        now.on0 = before
        call(libc.capset)


def mounted(size, command, *more):
    """Run a script with a small disk of its own, mounted where `command` says {disk}."""
    with tempfile.TemporaryDirectory() as disk:
        script = " ".join(f"'{part}'" for part in command).format(disk=disk)
        mount = f"mount -t tmpfs -o size={size} none {disk}"
        probe = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount]
        if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        steps = [mount, *(step.format(disk=disk) for step in more), script]
        listing = f"status=$?; find {disk} -type f; for p in {disk}/mdp/states/*; do cp $p .; done"
        probe[-1] = " && ".join(steps) + f"; {listing} 2>/dev/null; exit $status"
        with tempfile.TemporaryDirectory() as place:
            result = subprocess.run(probe, cwd=place, capture_output=True, text=True, timeout=300)
            for path in Path(place).glob("state_*.pth"):
                assert read_state(path)["counts"]["step"] > 0
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    return result.stdout, result.stderr.strip().splitlines()[-1]


# Disks


@pytest.mark.slow
def test_a_full_disk_ends_training_in_one_line_and_leaves_whole_states(flags):
    """A state has 326 MB: three of them do not fit while the third is written."""
    command = [sys.executable, ROOT / "train.py", *flags, "--log_dir", "{disk}", "--save_steps", 1]
    out, line = mounted("900m", command)
    assert line.startswith("train.py: error: ") and "No space left on device" in line
    files = [Path(name) for name in out.splitlines() if "/mdp/states/" in name]
    assert "state_0000000" in line and len(files) == 2
    assert not [path for path in files if path.name.startswith(".")]


def test_a_read_only_disk_is_refused_at_the_start(flags):
    command = [sys.executable, ROOT / "train.py", *flags, "--log_dir", "{disk}/runs"]
    out, line = mounted("1m", command, "mount -o remount,ro {disk}")
    assert "cannot be written" in line and "is not a folder open to you" in line
    assert "validating" not in out


# Permissions


def test_a_folder_that_may_not_be_written_to_ends_in_one_line(monkeypatch, capsys, flags, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir(mode=0o555)
    with without_permissions():
        line = fails(monkeypatch, capsys, "train", *flags, "--log_dir", runs)
    assert str(runs) in line and not os.listdir(runs)


@pytest.mark.parametrize("what", ["image", "scan", "split", "calibration", "weights"])
def test_files_that_may_not_be_read_are_named(monkeypatch, capsys, sample, tmp_path, what):
    street = tmp_path / "street"
    shutil.copytree(sample, street)
    split = write_split(tmp_path / "split", "1-10", "7-9")
    path = {
        "image": street / DRIVE / "image_02/data/0000000008.jpg",
        "scan": street / DRIVE / "velodyne_points/data/0000000007.bin",
        "split": split / "train_files.txt",
        "calibration": street / DRIVE / "../calib_cam_to_cam.txt",
        "weights": tmp_path / "weights/encoder.pth",
    }[what].resolve()
    path.parent.mkdir(exist_ok=True)
    path.touch()
    path.chmod(0)
    argv = [*TINY, "--data_path", street, "--split", split, "--log_dir", tmp_path / "runs"]
    argv += {
        "calibration": ["--intrinsics", "calib"],
        "weights": ["--load_weights_folder", path.parent],
    }.get(what, [])
    with without_permissions():
        line = fails(monkeypatch, capsys, "train", *argv)
    assert str(path) in line and "ermission denied" in line


# Weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    checkpoint.save_weights(folder, Monodepth(frame_ids=(0, -1, 1)), 64, 64, False)
    return folder


@pytest.mark.parametrize(
    "damage", ["flipped", "truncated", "swapped", "compressed", "not a number"]
)
def test_damaged_weights_are_named(monkeypatch, capsys, flags, weights, tmp_path, damage):
    folder = tmp_path / "weights"
    shutil.copytree(weights, folder)
    path = folder / "depth.pth"
    content = path.read_bytes()
    middle = len(content) // 2
    words = "cannot be read as weights"
    if damage == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        words = "wrong checksum"
    elif damage == "truncated":
        path.write_bytes(content[:middle])
    elif damage == "swapped":
        shutil.copy(weights / "pose.pth", path)
        words = "another architecture"
    elif damage == "compressed":
        with zipfile.ZipFile(weights / "depth.pth") as old:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
                for name in old.namelist():
                    new.writestr(name, old.read(name))
        words = "compressed"
    else:
        state = {key: value * float("nan") for key, value in torch.load(path).items()}
        torch.save(state, path)
        words = "3 times in a row"
    argv = [*flags, "--load_weights_folder", folder, "--log_dir", tmp_path / "runs"]
    line = fails(monkeypatch, capsys, "train", *argv, "--max_bad_steps", 3)
    assert words in line and (str(path) in line or damage == "not a number")


# Data that goes wrong while it is used


def test_scans_with_points_that_are_no_numbers_give_depth_all_the_same(sample, tmp_path):
    shutil.copytree(sample, tmp_path / "street")
    data = KITTIRaw(tmp_path / "street", [Frame(DRIVE, 5, "l")], 64, 64, with_depth=True)
    before = data.ground_truth(0)
    path = tmp_path / "street" / DRIVE / "velodyne_points/data/0000000005.bin"
    points = np.fromfile(path, np.float32).reshape(-1, 4)
    bad = np.float32([[np.nan, 0, 0, 0], [9, np.nan, 0, 0], [np.inf, 0, 0, 0], [9, -np.inf, 0, 0]])
    np.concatenate([points, bad]).tofile(path)
    assert np.array_equal(data.ground_truth(0), before) and before.max() > 1


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_a_frame_deleted_in_mid_epoch(flags, sample, tmp_path, capsys, mode):
    """With stop, the run goes on when the file is back, and ends as if nothing had been."""
    shutil.copytree(sample, tmp_path / "street")
    frame = tmp_path / "street" / DRIVE / "image_02/data/0000000011.jpg"  # of one sample's
    last = write_split(tmp_path / "split", "1-10", "7-9")
    with open(last / "train_files.txt", "a") as file:  # one bad sample of 20 is within 5 %
        file.write("2011_09_26/2011_09_26_drive_0002_sync 1-10 l\n")
    argv = [*flags, "--data_path", tmp_path / "street", "--split", last, "--num_epochs", 1]
    argv += ["--save_steps", 0]

    def train(name, *more, delete=False):
        options = parse(TrainOptions, list(map(str, [*argv, "--log_dir", tmp_path / name, *more])))
        it = Trainer(options)
        watch, kept = it._watch, frame.read_bytes()

        def deleting(*args):
            frame.unlink(missing_ok=True)
            watch(*args)

        if delete:
            it._watch = deleting
        try:
            it.train()
        finally:
            frame.write_bytes(kept)
        return it.model.state_dict()

    whole = train("whole")
    capsys.readouterr()
    if mode == "stop":
        with pytest.raises(UserError, match="0000000011.jpg: no such image"):
            train("one", delete=True)
        assert "state saved in" in capsys.readouterr().out
        after = train("one", "--resume")
        assert all(torch.equal(whole[name], after[name]) for name in whole)
    else:
        train("other", "--on_bad_sample", "skip", delete=True)
        out = capsys.readouterr().out
        assert f"'{DRIVE} 10 l' cannot be read, another stands in (1 so far)" in out


# Memory


def test_a_loader_without_memory_ends_the_run_in_one_line(monkeypatch, capsys, flags, tmp_path):
    """Its address space may not grow any more."""

    def starve(worker):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (1 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    monkeypatch.setattr(building, "leave_interrupts_to_others", starve)
    argv = [*flags, "--num_workers", 1, "--height", 2048, "--width", 6144, "--log_dir", tmp_path]
    line = fails(monkeypatch, capsys, "train", *argv)
    assert "memory" in line and "fewer --num_workers" in line and "last state: none" in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_too_little_memory_is_no_traceback(monkeypatch, capsys, flags, tmp_path, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(Trainer, "_step", fail)
    line = fails(monkeypatch, capsys, "train", *flags, "--log_dir", tmp_path)
    assert "memory ran out: try fewer --num_workers or a smaller --batch_size" in line


# Files that would run code


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["data", "source", "frames", "depth_000000"])
def test_ground_truth_that_would_run_code_is_refused(tmp_path, name):
    mark, path = tmp_path / "it ran", tmp_path / "gt.npz"
    bomb = np.empty((), object)
    bomb[()] = Bomb(mark)
    arrays = {"source": "made up", "dataset": "KITTIRaw", "frames": ["a 0 l"]}
    arrays["depth_000000"] = np.ones((2, 3), np.float32)
    np.savez(path, **({name: bomb} if name == "data" else arrays | {name: bomb}))
    with pytest.raises(UserError, match=r"gt\.npz: "):
        GroundTruth(path)[0]
    assert not mark.exists()
    np.load(path, allow_pickle=True)[name]  # as it would
    assert mark.exists()


@pytest.mark.parametrize("tool", ["evaluate_depth", "tools.synthesize_views"])
def test_arrays_that_would_run_code_are_refused(monkeypatch, capsys, sample, tmp_path, tool):
    mark, path = tmp_path / "it ran", tmp_path / "given.npy"
    bomb = np.empty((), object)
    bomb[()] = Bomb(mark)
    np.save(path, bomb, allow_pickle=True)
    if tool == "evaluate_depth":
        split = tmp_path / "split"
        split.mkdir()
        (split / "test_files.txt").write_text(f"{DRIVE} 5 l\n")
        run(monkeypatch, "export_gt_depth", "--data_path", sample, "--split", split)
        argv = ["--eval_mono", "--eval_split", split, "--ext_disp_to_eval", path]
    else:
        image = sample / DRIVE / "image_02/data/0000000005.jpg"
        argv = ["--image", image, "--depth", path, "--out", tmp_path / "views.gif"]
    assert f"{path}: cannot be read" in fails(monkeypatch, capsys, tool, *argv)
    assert not mark.exists()
