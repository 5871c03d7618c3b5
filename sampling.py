"""Which samples when, and by which random numbers: the same for any number of workers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from datasets import MonoDataset
from distributed import Team
from utils import UserError

MOST_BAD = 0.05  # share of a split's samples


class Draw(NamedTuple):
    """A sample to load, and the number that its random changes come from."""

    index: int
    number: int


class EpochSampler(Sampler[Draw]):
    """The samples of one process in one epoch: every epoch another order, no sample twice.

    All processes draw the same permutation from seed and epoch and take turns in it. What does not
    fill a last step is left out: `left_out` samples, others in each epoch. `epoch` and `done`, the
    steps of it that are over, say where the next iteration begins.

    Args:
        samples: of the whole data set.
        batch_size: samples of one process and pass.
        passes: of each process that make a step (gradient accumulation).

    Raises:
        UserError: not enough samples for one step.
    """

    def __init__(self, samples: int, batch_size: int, passes: int, seed: int, team: Team):
        self.samples, self.batch_size, self.passes = samples, batch_size, passes
        self.seed, self.team = seed, team
        self.samples_per_step = batch_size * passes * team.size
        self.steps = samples // self.samples_per_step
        self.left_out = samples % self.samples_per_step
        self.epoch = self.done = 0
        if self.steps == 0:
            raise UserError(
                f"the training split has {samples} usable samples, fewer than the "
                f"{self.samples_per_step} of a step: give a smaller --batch_size"
            )

    def describe(self) -> str:
        """What steps and epochs are, in one line."""
        line = f"a step is {self.batch_size} samples"
        line += f" x {self.passes} passes" * (self.passes > 1)
        line += f" x {self.team.size} processes" * (self.team.size > 1)
        line += f" = {self.samples_per_step}" * (self.samples_per_step > self.batch_size)
        line += f", an epoch {self.steps} steps"
        left_out = f" ({self.left_out} samples left out, others in each epoch)"
        return line + left_out * (self.left_out > 0)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.done = state["epoch"], state["done"]

    def __len__(self) -> int:
        return (self.steps - self.done) * self.batch_size * self.passes

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.samples)
        numbers = rng.integers(2**32, size=self.samples)
        coming = slice(self.done * self.samples_per_step, self.steps * self.samples_per_step)
        mine = slice(self.team.rank, None, self.team.size)
        pairs = zip(order[coming][mine].tolist(), numbers[coming][mine].tolist(), strict=True)
        yield from (Draw(*pair) for pair in pairs)


class DrawnSamples(Dataset):
    """Samples of a data set by `Draw`s: changed at random by nothing but the number drawn.

    A sample says by `index` which one it is, and by `bad`, where it stands in for one that cannot
    be read, which that was (otherwise -1).

    Args:
        skip_bad: let the next sample that can be read stand in, instead of an error.
    """

    def __init__(self, data: MonoDataset, skip_bad: bool = False):
        self.data, self.skip_bad = data, skip_bad

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        for away in range(len(self.data) if self.skip_bad else 1):
            index = (draw.index + away) % len(self.data)
            try:
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(draw.number)
                    sample = self.data[index]
            except UserError:
                if not self.skip_bad:
                    raise
            else:
                return sample | {"index": index, "bad": draw.index if away else -1}
        raise UserError(f"{self.data.data_path}: no sample of the split can be read")


class BadSamples:
    """The samples that could not be read so far.

    Args:
        data: the data set that they are of.
    """

    def __init__(self, data: MonoDataset):
        self.data = data
        self.indices: list[int] = []

    def state_dict(self) -> dict[str, list[int]]:
        return {"indices": self.indices}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        self.indices = list(state["indices"])

    def add(self, indices: list[int]) -> list[str]:
        """Note more of them (-1 is none); returns the frames that are new, as text.

        Raises:
            UserError: there are too many.
        """
        new = [i for i in dict.fromkeys(indices) if i >= 0 and i not in self.indices]
        self.indices += new
        frames = [str(self.data.frames[i]) for i in new]
        if len(self.indices) > MOST_BAD * len(self.data):
            last = self.data.frames[self.indices[-1]]
            raise UserError(
                f"{len(self.indices)} of {len(self.data)} samples cannot be read (the last: "
                f"'{last}'), more than {MOST_BAD:.0%}: repair the data"
            )
        return frames
