"""Several processes that train one model together, as `torchrun` starts them.

A process alone is a team of one, for which everything here does nothing.
"""

import atexit
import contextlib
import dataclasses
import datetime
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from utils import UserError, pick_device

BEAT_S = 5.0  # between signs of life
PATIENCE_S = 40.0  # without one, until the others give up
LOST = "another process of this training has ended or hangs; its own message says why"


@dataclasses.dataclass(frozen=True)
class Team:
    """This process among those that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1
    size_here: int = 1  # those of this machine

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes files and talks."""
        return self.rank == 0

    def say(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.leads:
            print(line)

    def gather(self, values: list[Any]) -> list[Any]:
        """The values of all processes, in the order of their ranks; each must call it."""
        if self.size == 1:
            return values
        everyones: list[Any] = [None] * self.size
        dist.all_gather_object(everyones, values)
        return [value for values in everyones for value in values]

    def any(self, happened: bool) -> bool:
        """Whether it happened to any of the processes; each must ask."""
        if self.size == 1:
            return happened
        flag = torch.tensor(float(happened), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return flag.item() > 0

    def averaging(self, network: nn.Module, now: bool) -> contextlib.AbstractContextManager:
        """A context whose backward passes average gradients now, or leave that to a later one."""
        return contextlib.nullcontext() if now or self.size == 1 else network.no_sync()

    def share_buffers(self, module: nn.Module) -> None:
        """Give all processes the first one's batch-norm statistics."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


@contextlib.contextmanager
def joined(no_cuda: bool = False) -> Iterator[Team]:
    """Join the processes that torchrun (or the same environment variables) has started.

    Each takes the GPU of its local rank and speaks by nccl, or by gloo on the CPU. A process that
    dies or hangs ends the others within a minute, with one line and status 2.

    Raises:
        UserError: fewer GPUs than processes, or another process was lost.
    """
    device = pick_device(no_cuda)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(device)
        return
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UserError(
                f"process {local} of this machine has no GPU: it has {torch.cuda.device_count()}; "
                "give torchrun that number by --nproc_per_node, or train with --no_cuda"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        with signs_of_life():
            here = int(os.environ.get("LOCAL_WORLD_SIZE", size))
            yield Team(device, dist.get_rank(), size, here)
        dist.destroy_process_group()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error).lower():
            raise UserError(LOST) from error
        raise


@contextlib.contextmanager
def signs_of_life() -> Iterator[None]:
    """While the block runs, end this process when another one stops giving signs of life.

    A collective of its own group shows it, also where the block itself waits for ever (nccl waits
    ten minutes for a process of another machine). The first to finish ends the watch for all.
    """
    group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=PATIENCE_S))
    finished = threading.Event()

    def watch() -> None:
        over = False
        while not over:
            finished.wait(BEAT_S)
            sign = torch.tensor([float(finished.is_set())])
            try:
                dist.all_reduce(sign, group=group)
            except RuntimeError:
                if not finished.is_set():
                    print(f"error: {LOST}", file=sys.stderr, flush=True)
                    os._exit(2)  # the main thread may wait inside a collective for ever
                return
            over = sign.item() > 0

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    together = False
    try:
        yield
        together = True
    except SystemExit:  # all have agreed to stop
        together = True
        raise
    finally:  # after an error this process ends, and the others notice
        if together:
            finished.set()
            thread.join()
        else:  # Python's end would tear the group down under the thread, which aborts
            atexit.register(end_at_once)


def end_at_once() -> None:
    """End this process with status 2, all that was printed being out."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)
