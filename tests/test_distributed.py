"""Several processes that train one model (gloo on the CPU)."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scripts import TINY, write_split

from distributed import Team
from sampling import EpochSampler
from utils import UserError

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


def start(rank, size, *command, **more):
    """One process of a team that shares this machine, as torchrun would start it."""
    known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    known |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT} | more
    environment = os.environ | {name: str(value) for name, value in known.items()}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_all(size, *command):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return [start(rank, size, *command, MASTER_PORT=port) for rank in range(size)]


def finish(processes, timeout=120):
    """Output and exit status of each."""
    try:
        results = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(*result, p.returncode) for result, p in zip(results, processes, strict=True)]


# Samples


@given(
    st.integers(1, 200), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4),
    st.integers(0, 2**63 - 1), st.integers(0, 10**6),
)  # fmt: skip
def test_no_sample_is_seen_twice_and_what_is_left_out_is_counted(
    samples, batch_size, passes, size, seed, epoch
):
    a_step = batch_size * passes * size
    if samples < a_step:
        with pytest.raises(UserError, match="fewer than"):
            EpochSampler(samples, batch_size, passes, seed, Team(CPU, 0, size))
        return
    seen = []
    for rank in range(size):
        sampler = EpochSampler(samples, batch_size, passes, seed, Team(CPU, rank, size))
        sampler.epoch = epoch
        own = [draw.index for draw in sampler]
        assert len(own) == len(sampler) == sampler.steps * passes * batch_size
        seen += own
    assert len(set(seen)) == len(seen) == samples - sampler.left_out
    assert 0 <= sampler.left_out < a_step and set(seen) <= set(range(samples))


def test_every_epoch_has_its_order_and_leaves_out_others():
    sampler = EpochSampler(11, 4, 1, 0, Team(CPU))
    orders = []
    for epoch in range(30):
        sampler.epoch = epoch
        orders.append(tuple(draw.index for draw in sampler))
        assert orders[-1] == tuple(
            draw.index for draw in sampler
        )  # the same again when asked again
    assert len(set(orders)) == 30
    counts = Counter(sample for order in orders for sample in order)
    assert set(counts) == set(range(11))


def test_a_small_step_is_described_plainly_and_a_large_one_in_full():
    assert EpochSampler(8, 4, 1, 0, Team(CPU)).describe() == "a step is 4 samples, an epoch 2 steps"
    assert EpochSampler(50, 4, 3, 0, Team(CPU, 0, 2)).describe() == (
        "a step is 4 samples x 3 passes x 2 processes = 24, an epoch 2 steps "
        "(2 samples left out, others in each epoch)"
    )


# Gradients

STEPS = """
import sys
import torch
from distributed import joined
from losses import SelfSupervisedLoss
from networks import Monodepth
from speed import Speed

size = int(sys.argv[1])
with joined(no_cuda=True) as team:
    torch.manual_seed(team.rank)  # other weights in each process, until the first one's are shared
    model, loss = Monodepth(), SelfSupervisedLoss(automasking=False)
    speed = Speed(team.device, "fp32", False)
    network = speed.prepare(model, loss, team)
    model.eval()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    data = torch.Generator().manual_seed(5)
    K = torch.tensor([[40.0, 0, 32], [0, 40, 32], [0, 0, 1]]).expand(4, 3, 3)
    for step in range(3):
        color = torch.rand(4, 3, 3, 8, 8, generator=data).repeat_interleave(8, -1)
        color = color.repeat_interleave(8, -2)
        own = slice(team.rank, None, team.size)
        terms = loss(*network(color[own]), color=color[own], K=K[own])
        optimizer.zero_grad()
        terms.total.backward()
        if step == 0:
            gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        optimizer.step()
    torch.save({"gradients": gradients, "weights": model.state_dict()}, f"{sys.argv[2]}{team.rank}")
"""


def test_two_processes_step_as_one_on_the_joined_batch(tmp_path):
    """Equal weights on both ranks after several steps, and the gradient of the joined batch."""
    for size in (1, 2):
        for out, err, status in finish(start_all(size, "-c", STEPS, size, tmp_path / f"of{size}_")):
            assert status == 0, out + err
    one, first, second = (torch.load(tmp_path / name) for name in ("of1_0", "of2_0", "of2_1"))
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
    largest = max(gradient.abs().max() for gradient in one["gradients"].values())
    for name, gradient in one["gradients"].items():
        assert (gradient - first["gradients"][name]).abs().max() < 1e-5 * largest, name
    assert largest > 1e-4


# Training


WEIGHTS = "mdp/models/weights_1"


@pytest.fixture(scope="module")
def flags(sample, tmp_path_factory):
    folder = write_split(tmp_path_factory.mktemp("team"), "1-9", "5-9")
    return [ROOT / "train.py", *TINY, "--data_path", sample, "--split", folder]


def test_two_processes_train_and_one_writes(flags, tmp_path):
    more = ["--num_epochs", 2, "--accumulate_grad", 2, "--learn_intrinsics"]
    processes = start_all(2, *flags, "--log_dir", tmp_path, *more)
    (out, err, status), (out2, err2, status2) = finish(processes)
    assert (status, status2) == (0, 0), err + err2
    assert "a step is 2 samples x 2 passes x 2 processes = 8, an epoch 1 steps (1 samples" in out
    assert "epoch 2/2: loss" in out and "saved weights_1" in out
    assert out.count("focal length") == 2 and (tmp_path / WEIGHTS / "cameras.json").is_file()
    assert out2 == "" and "step" not in err2
    assert {p.name for p in (tmp_path / "mdp").iterdir()} == {"models", "states", "train", "val"}
    assert len(list((tmp_path / "mdp" / "train").iterdir())) == 1


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_when_one_process_is_killed_the_other_ends(flags, tmp_path, victim):
    processes = start_all(2, *flags, "--log_dir", tmp_path, "--num_epochs", 10000)
    until(lambda: (tmp_path / "mdp/models/weights_0/adam.pth").exists(), processes)
    processes[victim].kill()
    began = time.monotonic()
    (_, err, status) = finish(
        processes[1 - victim : 2 - victim] + processes[victim : victim + 1], 60
    )[0]
    assert status == 2 and time.monotonic() - began < 30
    assert "Traceback" not in err and "another process of this training has ended" in err


@pytest.mark.slow
def test_when_one_process_hangs_the_other_ends_within_a_minute(flags, tmp_path):
    processes = start_all(2, *flags, "--log_dir", tmp_path, "--num_epochs", 10000)
    until(lambda: (tmp_path / "mdp/models/weights_0/adam.pth").exists(), processes)
    processes[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    _, err = processes[0].communicate(timeout=90)
    took = time.monotonic() - began
    processes[1].kill()
    processes[1].communicate()
    assert processes[0].returncode == 2 and took < 60
    assert "Traceback" not in err and "another process of this training" in err


@pytest.mark.slow
def test_both_stop_when_asked_and_go_on_together(flags, tmp_path):
    places = ["--log_dir", tmp_path, "--save_frequency", 10000]
    processes = start_all(2, *flags, *places, "--num_epochs", 10000)
    until(lambda: (tmp_path / "mdp/models/weights_best").exists(), processes)
    processes[1].terminate()  # one is enough
    results = finish(processes)
    assert [status for *_, status in results] == [143, 143], results
    assert "--resume goes on" in results[0][0]
    epoch = int(re.findall(r"epoch (\d+)/", results[0][0])[-1])
    results = finish(start_all(2, *flags, *places, "--num_epochs", epoch + 9, "--resume"))
    assert [status for *_, status in results] == [0, 0], results
    assert "going on from" in results[0][0]


@pytest.mark.slow
def test_stopped_and_resumed_together_they_end_with_the_same_weights(flags, tmp_path):
    """Bit for bit those of two processes that nothing happened to; a signal to one saves once."""
    flags = [*flags, "--num_epochs", 40, "--save_frequency", 40]
    results = finish(start_all(2, *flags, "--log_dir", tmp_path / "whole"))
    assert [status for *_, status in results] == [0, 0], results
    processes = start_all(2, *flags, "--log_dir", tmp_path / "stopped")
    until(lambda: (tmp_path / "stopped/mdp/models/weights_best").exists(), processes)
    processes[1].terminate()
    results = finish(processes)
    assert [status for *_, status in results] == [143, 143], results
    assert sum(out.count("state saved in") for out, *_ in results) == 1
    assert len(list((tmp_path / "stopped/mdp/states").iterdir())) == 1
    results = finish(start_all(2, *flags, "--log_dir", tmp_path / "stopped", "--resume"))
    assert [status for *_, status in results] == [0, 0], results
    for name in ("encoder", "depth", "pose_encoder", "pose"):
        whole, stopped = (
            torch.load(tmp_path / run / f"mdp/models/weights_39/{name}.pth")
            for run in ("whole", "stopped")
        )
        for key, value in whole.items():
            same = torch.equal(value, stopped[key]) if torch.is_tensor(value) else True
            assert same, f"{name} {key}"


@pytest.mark.slow
def test_a_mistake_in_one_process_ends_both_in_one_line(flags, tmp_path):
    (_, err, status), (_, err2, status2) = finish(
        start_all(2, *flags, "--log_dir", tmp_path, "--learning_rate", "1e30")
    )
    assert status == 2 and status2 == 2
    assert "Traceback" not in err + err2
    assert "training diverged" in err + err2


def until(condition, processes, timeout=90):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        assert all(process.poll() is None for process in processes), "ended early"
        time.sleep(0.1)
