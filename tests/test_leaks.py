"""Nothing piles up: memory, open files and processes of long runs (make soak)."""

import gc
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import TINY

from building import build_dataset, build_loaders
from distributed import Team
from options import TrainOptions, parse
from sampling import EpochSampler
from utils import pick_device

ROOT = Path(__file__).parent.parent
MINUTES = float(os.environ.get("SOAK_MINUTES", 30))


@pytest.fixture(scope="module")
def flags(sample, short_split):
    return [*TINY, *map(str, ["--data_path", sample, "--split", short_split, "--num_workers", 2])]


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def held(pid):
    """Bytes of memory, and open files, of a process and those that it started."""
    memory = files = 0
    for each in [pid, *children(pid)]:
        sizes = Path(f"/proc/{each}/smaps_rollup").read_text()
        memory += 1024 * int(sizes.partition("Pss:")[2].split()[0])
        files += len(os.listdir(f"/proc/{each}/fd"))
    return memory, files


@pytest.mark.slow
def test_a_long_training_keeps_its_memory_and_files(flags, tmp_path):
    """With validation, log, best weights and states on the way."""
    command = [sys.executable, ROOT / "train.py", *flags, "--log_dir", tmp_path]
    command += "--num_epochs 1000000 --save_frequency 200 --log_frequency 20 --keep 2".split()
    with open(tmp_path / "said", "w") as said:  # a pipe that nobody reads would stop it
        process = subprocess.Popen(list(map(str, command)), stdout=said, stderr=said)
    try:
        samples = []
        end = time.monotonic() + 60 * MINUTES
        while time.monotonic() < end:
            time.sleep(60 * MINUTES / 300)
            assert process.poll() is None
            try:
                samples.append(held(process.pid))
            except FileNotFoundError:  # a loader that has just ended
                continue
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    out = (tmp_path / "said").read_text()
    assert process.returncode == 143 and "stopped by SIGTERM" in out
    memory, files = zip(*samples, strict=True)
    fifth = len(samples) // 5
    early, late = (
        [statistics.median(kind[i * fifth : (i + 1) * fifth]) for kind in (memory, files)]
        for i in (1, 4)
    )
    print(
        f"{MINUTES:g} min, {out.count('epoch ')} epochs: from {early[0] / 1e6:.0f} to "
        f"{late[0] / 1e6:.0f} MB, from {early[1]:.0f} to {late[1]:.0f} open files"
    )
    assert abs(late[0] - early[0]) < 0.03 * early[0]
    assert abs(late[1] - early[1]) < 0.1 * early[1]  # each batch on its way is a file, too


@pytest.mark.slow
def test_two_hundred_starts_and_stops_of_the_loader_leave_no_process(flags):
    options = parse(TrainOptions, flags)
    team = Team(pick_device(True))
    train, val = (build_dataset(options, part) for part in ("train", "val"))

    def cycle(whole):
        sampler = EpochSampler(len(train), options.batch_size, 1, 0, team)
        loaders = build_loaders(options, train, val, sampler, team)
        for loader in loaders:
            for batch in loader:
                assert len(batch["color"])
                if not whole:
                    break

    cycle(True)
    gc.collect()
    before = len(children(os.getpid())), len(os.listdir("/proc/self/fd"))
    for i in range(200):
        cycle(whole=i % 2)
    gc.collect()
    assert (len(children(os.getpid())), len(os.listdir("/proc/self/fd"))) == before
