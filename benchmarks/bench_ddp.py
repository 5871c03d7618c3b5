"""How a training step grows with the number of processes (one machine), beside the textbook's way.

    python benchmarks/bench_ddp.py --processes 2 --no_cuda
    python benchmarks/bench_ddp.py --processes 8 --batch_size 12 --precision bf16

Each process does the same step on a batch of its own. Ours averages gradients in buckets while the
backward pass goes on; the textbook one tensor after the other when it is over; "none" does not
average at all, for what averaging costs. On the CPU every process has one thread.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.bench_step import make_batch  # noqa: E402
from benchmarks.timing import machine, memory_taken, report, settle  # noqa: E402
from distributed import Team, joined  # noqa: E402
from losses import SelfSupervisedLoss  # noqa: E402
from networks import Monodepth  # noqa: E402
from speed import Speed  # noqa: E402
from utils import OneLineParser, UserError, pick_device, readable_size, run_script  # noqa: E402

WAYS = ("ours", "textbook", "none")


def measure(a: argparse.Namespace, team: Team) -> dict[str, float]:
    """Median seconds of a step, the slowest process's, for each way; taking turns."""
    torch.manual_seed(0)
    model, loss = Monodepth(), SelfSupervisedLoss()
    speed = Speed(team.device, a.precision, False)
    network = speed.prepare(model, loss, team)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    batch = make_batch(a.batch_size, a.height, a.width, team.device)

    def step(way: str) -> None:
        color = batch.frames.float() / 255
        with speed.autocast():
            prediction = (network if way == "ours" else model)(color)
        loss(*prediction, color=color, K=batch.K).total.backward()
        if way == "textbook" and team.size > 1:
            for parameter in model.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= team.size
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(a.rounds + 1):
        for way in WAYS:
            if team.size > 1:
                dist.barrier()
            settle(team.device)
            start = time.perf_counter()
            step(way)
            settle(team.device)
            slowest = max(team.gather([time.perf_counter() - start]))
            if turn > 0:
                times[way].append(slowest)
    result = {way: statistics.median(values) for way, values in times.items()}
    return result | {"memory": max(team.gather([memory_taken(team.device)]))}


def launch(a: argparse.Namespace, processes: int) -> dict[str, float]:
    """The same script under torchrun."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        sizes = ("batch_size", "height", "width", "rounds", "precision")
        flags = [f"--{name}={getattr(a, name)}" for name in sizes] + ["--no_cuda"] * a.no_cuda
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone",
            f"--nproc_per_node={processes}", __file__, *flags, "--measure", str(out),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
        if done.returncode:
            raise UserError(f"{processes} processes failed: see above")
        return json.loads(out.read_text())


def main() -> None:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=2, help="of each process")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way")
    parser.add_argument("--no_cuda", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if min(a.batch_size, a.processes, a.rounds) < 1 or a.height % 32 or a.width % 32:
        raise UserError("sizes are multiples of 32, and counts 1 or more")
    if a.measure:
        with joined(a.no_cuda) as team:
            result = measure(a, team)
            if team.leads:
                a.measure.write_text(json.dumps(result))
        return
    device = pick_device(a.no_cuda)
    figures = {n: launch(a, n) for n in sorted({1, a.processes})}
    print(
        f"{machine(device)}\nbatch {a.batch_size} a process at {a.width}x{a.height}, {a.precision}"
    )
    alone = a.batch_size / figures[1]["ours"]
    for n, seconds in figures.items():
        for way in WAYS[: 3 if n > 1 else 1]:
            rate = n * a.batch_size / seconds[way]
            print(
                f"{n} processes, {way:9} {1000 * seconds[way]:8.1f} ms, {rate:6.1f} samples/s, "
                f"{rate / alone:.2f} times one process ({rate / alone / n:.0%} each)"
            )
        print(f"peak memory of a process {readable_size(int(seconds['memory']))}")
    last = figures[a.processes]
    shares = {way: 1 - last["none"] / last[way] for way in ("ours", "textbook")}
    print(
        "share of the step spent averaging: " + ", ".join(f"{k} {v:.0%}" for k, v in shares.items())
    )
    report({"machine": machine(device), "figures": figures, "averaging_share": shares}, a.json)


if __name__ == "__main__":
    run_script(main)
