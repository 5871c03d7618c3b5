"""Time and memory of a training step, beside the textbook's.

    python benchmarks/bench_step.py
    python benchmarks/bench_step.py --batch_size 12 --precision bf16 --compile --data_path DATA

Both versions have the same networks, weights and images in memory; the loss alone is timed too, and
its values are compared. Then where our step's time goes, and how far that is from what the machine
does at best: operations a second against one large convolution, bytes against a plain copy. With
--data_path the real loader feeds our step as well.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import textbook  # noqa: E402
from benchmarks.timing import (  # noqa: E402
    alternate,
    machine,
    memory_taken,
    peak_memory,
    report,
    settle,
)
from distributed import Team  # noqa: E402
from losses import SelfSupervisedLoss  # noqa: E402
from networks import Monodepth  # noqa: E402
from options import TrainOptions, parse  # noqa: E402
from sampling import Draw  # noqa: E402
from speed import Speed  # noqa: E402
from trainer import Trainer  # noqa: E402
from utils import OneLineParser, UserError, pick_device, readable_size, run_script  # noqa: E402

NOMINAL_K = [[0.58, 0, 0.5], [0, 1.92, 0.5], [0, 0, 1]]


class Batch(NamedTuple):
    """Frames [B 3 3 H W] uint8, intrinsics [B 3 3] in pixels, and the same as the textbook has."""

    frames: Tensor
    K: Tensor
    textbook: dict[str, Tensor]


def make_batch(batch_size: int, height: int, width: int, device: torch.device) -> Batch:
    """A random batch of smooth images that move a little."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch_size, 3, height // 8, width // 8, generator=generator)
    image = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    frames = torch.stack([image, image.roll(-2, -1), image.roll(2, -1)], 1)
    frames = (255 * frames).to(torch.uint8).to(device)
    color = frames.float() / 255
    K = torch.tensor(NOMINAL_K) * torch.tensor([[width], [height], [1.0]])
    K = K.repeat(batch_size, 1, 1).to(device)
    plain = {"K_0": K}
    for i, name in enumerate(textbook.NAMES):
        for scale in range(textbook.SCALES):
            shrunk = F.avg_pool2d(color[:, i], 2**scale)
            plain[f"{name}_{scale}"] = plain[f"{name}_aug_{scale}"] = shrunk
    return Batch(frames, K, plain)


class Ours:
    """Our training step, by the parts that `Trainer` is made of."""

    def __init__(self, batch: Batch, speed: Speed):
        torch.manual_seed(0)
        self.batch, self.speed = batch, speed
        self.model, self.loss = Monodepth(), SelfSupervisedLoss()
        self.network = speed.prepare(self.model, self.loss, Team(speed.device))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4, fused=True)

    def step(self) -> float:
        color = self.batch.frames.float() / 255
        with self.speed.autocast():
            prediction = self.network(color)
        total = self.loss(*prediction, color=color, K=self.batch.K).total
        self.speed.scaler.scale(total).backward()
        self.speed.scaler.step(self.optimizer)
        self.speed.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return total.detach()


class Textbook:
    """The textbook's training step on the same networks."""

    def __init__(self, batch: Batch, device: torch.device):
        torch.manual_seed(0)
        self.batch = batch.textbook
        self.model = Monodepth().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4, foreach=False)

    def step(self) -> float:
        return textbook.training_step(self.model, self.optimizer, self.batch).detach()


def losses_alone(batch: Batch, ours: nn.Module) -> dict[str, Callable[[], Tensor]]:
    """Forward and backward pass of both losses on the same disparities and motions."""
    generator = torch.Generator().manual_seed(1)
    size, (height, width) = len(batch.K), batch.frames.shape[-2:]
    device = batch.K.device
    color = batch.frames.float() / 255
    disps = tuple(
        (0.01 + 0.1 * torch.rand(size, 1, height >> s, width >> s, generator=generator)).to(device)
        for s in range(textbook.SCALES)
    )
    T = torch.eye(4).repeat(size, 2, 1, 1)
    T[..., :3, 3] = 0.02 * torch.randn(size, 2, 3, generator=generator)
    T = T.to(device)

    def run(loss: Callable) -> Tensor:
        torch.manual_seed(2)  # the same tie-breaking noise
        leaves = tuple(d.clone().requires_grad_() for d in disps), T.clone().requires_grad_()
        value = loss(*leaves)
        value.backward()
        return value.detach()

    return {
        "ours": lambda: run(lambda disps, T: ours(disps, T, (), color, batch.K).total),
        "textbook": lambda: run(lambda disps, T: textbook.loss(disps, T, batch.textbook)),
    }


def parts(ours: Ours, rounds: int) -> dict[str, float]:
    """Seconds of the parts of our step: medians."""
    device = ours.speed.device
    seconds: dict[str, list[float]] = {}

    def timed(name: str, work: Callable):
        settle(device)
        start = time.perf_counter()
        result = work()
        settle(device)
        seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    for _ in range(rounds + 1):
        color = ours.batch.frames.float() / 255
        with ours.speed.autocast():
            prediction = timed("networks, forward", lambda color=color: ours.network(color))
        cut = [t.detach().requires_grad_() for t in (*prediction.disps, prediction.T)]
        terms = timed(
            "loss, forward",
            lambda cut=cut, color=color: ours.loss(
                tuple(cut[:-1]), cut[-1], (), color=color, K=ours.batch.K
            ),
        )
        slopes = timed(
            "loss, backward",
            lambda cut=cut, terms=terms: torch.autograd.grad(terms.total, cut),
        )
        timed(
            "networks, backward",
            lambda prediction=prediction, slopes=slopes: torch.autograd.backward(
                (*prediction.disps, prediction.T), slopes
            ),
        )
        timed("optimizer", ours.optimizer.step)
        ours.optimizer.zero_grad(set_to_none=True)
    return {name: sorted(values[1:])[len(values) // 2 - 1] for name, values in seconds.items()}


def operations(ours: Ours) -> int:
    """Multiplications and additions of the networks in one step."""
    with FlopCounterMode(display=False) as counter:
        color = ours.batch.frames.float() / 255
        prediction = ours.model.forward(color)
        (sum(d.sum() for d in prediction.disps) + prediction.T.sum()).backward()
    ours.optimizer.zero_grad(set_to_none=True)
    return counter.get_total_flops()


def peak(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Operations a second in one large 3x3 convolution, and bytes a second in copying: measured."""
    size, channels, (height, width) = 32 if device.type == "cuda" else 4, 256, (48, 160)
    image = torch.rand(size, channels, height, width, device=device, dtype=dtype)
    weight = torch.rand(channels, channels, 3, 3, device=device, dtype=dtype)
    image, weight = (t.to(memory_format=torch.channels_last) for t in (image, weight))
    data = torch.rand(64 * 2**20, device=device)
    out = torch.empty_like(data)
    runs = {
        "convolution": lambda: F.conv2d(image, weight, padding=1),
        "copy": lambda: out.copy_(data),
    }
    with torch.no_grad():
        times = alternate(runs, 5, device)
    flops = 2 * size * height * width * channels**2 * 9
    return flops / times["convolution"], 2 * data.nbytes / times["copy"]


def with_loader(argv: list[str], steps: int) -> tuple[float, float]:
    """Samples a second of a real training, and the share of its time without data."""
    trainer = Trainer(parse(TrainOptions, argv))
    trainer._set_mode(train=True)
    loader = trainer.train_loader
    warm = 2 * loader.num_workers + 1  # steps before the clock starts: what was loaded ahead
    order = np.arange((steps + warm) * loader.batch_size) % len(loader.dataset)
    rng = np.random.default_rng(0)
    batches = iter(
        DataLoader(  # as the trainer's, but as long as it takes
            loader.dataset,
            loader.batch_size,
            sampler=[Draw(int(i), n) for n, i in enumerate(rng.permutation(order))],
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
        )
    )
    for name in ("progress", "logger"):
        setattr(trainer, name, Silence())
    waited = 0.0
    for i in range(steps + warm):
        if i == warm:
            settle(trainer.device)
            begin, waited = time.perf_counter(), 0.0
        start = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - start
        trainer.step = 1  # nothing to log
        trainer._step(iter([batch]))
    settle(trainer.device)
    seconds = time.perf_counter() - begin
    return steps * trainer.sampler.samples_per_step / seconds, waited / seconds


class Silence:
    """Takes any call and does nothing."""

    def __getattr__(self, name: str) -> Callable:
        return lambda *a, **k: None


def main() -> None:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--compile", action="store_true", help="of our version")
    parser.add_argument("--no_cuda", action="store_true")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    parser.add_argument("--data_path", type=Path, help="KITTI raw data, to train with its loader")
    parser.add_argument("--split", default="eigen_zhou", help="of --data_path")
    parser.add_argument("--steps", type=int, default=100, help="with the loader")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--only", choices=["ours", "textbook"], help=argparse.SUPPRESS)
    a = parser.parse_args()
    if min(a.batch_size, a.rounds, a.steps) < 1 or a.height % 32 or a.width % 32:
        raise UserError("sizes are multiples of 32, and counts 1 or more")
    device = pick_device(a.no_cuda)
    batch = make_batch(a.batch_size, a.height, a.width, device)
    speed = Speed(device, a.precision, a.compile)
    if a.only:
        one = Ours(batch, speed) if a.only == "ours" else Textbook(batch, device)
        for _ in range(3):
            one.step()
        print(memory_taken(device))
        return
    print(
        f"{machine(device)}\nours: {speed.describe()}; batch {a.batch_size} at {a.width}x{a.height}"
    )
    ours, plain = Ours(batch, speed), Textbook(batch, device)
    result = {"machine": machine(device), "ours": speed.describe(), "batch_size": a.batch_size}

    alone = losses_alone(batch, ours.loss)
    values = {name: run().item() for name, run in alone.items()}
    sizes = ["--batch_size", a.batch_size, "--height", a.height, "--width", a.width]
    sizes += ["--no_cuda"] * a.no_cuda
    mine = ["--precision", a.precision, *["--compile"] * a.compile]
    memory = {
        "ours": peak_memory(__file__, *sizes, *mine, "--only", "ours"),
        "textbook": peak_memory(__file__, *sizes, "--only", "textbook"),
    }
    for what, runs in (
        ("loss, forward + backward", alone),
        ("whole step", {"ours": ours.step, "textbook": plain.step}),
    ):
        seconds = alternate(runs, a.rounds, device)
        ratio = seconds["textbook"] / seconds["ours"]
        rates = {name: a.batch_size / s for name, s in seconds.items()}
        print(
            f"{what:26} ours {1000 * seconds['ours']:.1f} ms ({rates['ours']:.1f} samples/s), "
            f"textbook {1000 * seconds['textbook']:.1f} ms ({rates['textbook']:.1f}), "
            f"ratio {ratio:.2f}"
        )
        result[what] = {"seconds": seconds, "samples_per_second": rates, "ratio": ratio}
    off = abs(values["ours"] - values["textbook"])
    print(f"loss {values['ours']:.7f}, textbook {values['textbook']:.7f}, difference {off:.1e}")
    share = memory["ours"] / memory["textbook"]
    print(
        f"peak memory {readable_size(memory['ours'])}, textbook "
        f"{readable_size(memory['textbook'])}: {share:.0%}"
    )
    seconds = parts(ours, a.rounds)
    whole = sum(seconds.values())
    for name, value in seconds.items():
        print(f"  {name:20} {1000 * value:8.1f} ms {value / whole:5.0%}")
    flops = operations(ours)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[a.precision]
    per_second, bandwidth = peak(device, dtype)
    networks = sum(value for name, value in seconds.items() if name.startswith("networks"))
    print(
        f"networks: {flops / 1e9:.0f} Gflop a step, {flops / networks / 1e9:.0f} Gflop/s, "
        f"{flops / networks / per_second:.0%} of one large convolution "
        f"({per_second / 1e9:.0f} Gflop/s); copying {bandwidth / 1e9:.0f} GB/s"
    )
    result |= {"loss": values, "peak_memory_bytes": memory, "parts_seconds": seconds}
    result |= {"network_flop": flops, "peak_flop_per_second": per_second}
    result |= {"copy_bytes_per_second": bandwidth}
    if a.data_path:
        argv = [*sizes, *mine, "--weights_init", "scratch"]
        argv += ["--data_path", a.data_path, "--split", a.split]
        rate, waiting = with_loader(list(map(str, argv)), a.steps)
        in_memory = result["whole step"]["samples_per_second"]["ours"]
        print(
            f"with the loader: {rate:.1f} samples/s, {rate / in_memory:.0%} of that in memory, "
            f"{waiting:.0%} of the time waiting"
        )
        result["with_loader"] = {"samples_per_second": rate, "waiting_share": waiting}
    report(result, a.json)


if __name__ == "__main__":
    run_script(main)
