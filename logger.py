"""What a person sees of a training: the progress bar, lines, TensorBoard scalars and pictures."""

import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from tensorboardX import SummaryWriter
from torch import Tensor
from tqdm import tqdm

from losses import LossTerms
from networks import Prediction
from pictures import colour_map
from utils import Stopwatch

PICTURES = 4  # samples of a batch that are shown


class Progress:
    """A bar over all steps of a training, with loss, speed, and the share of time without data."""

    def __init__(self, steps: int, batch_size: int, shown: bool = True, done: int = 0):
        slow = not sys.stderr.isatty()  # a log file gets a line every half minute
        self._bar = tqdm(
            total=steps,
            initial=done,
            unit="step",
            dynamic_ncols=True,
            mininterval=30 if slow else 0.2,
            disable=not shown,
        )
        self._steps = 0
        self._batch_size = batch_size
        self._watch = Stopwatch("waiting", "working", "pausing")

    def waiting_ended(self) -> None:
        """The next batch is there."""
        self._watch.ended("waiting")

    def step(self, epoch: int, loss: float | None) -> None:
        """A step is done; the loss is that of the one before, if there was one."""
        self._watch.ended("working")
        self._steps += 1
        self._bar.set_description(f"epoch {epoch + 1}", refresh=False)
        self._bar.update(1)
        self._bar.set_postfix(
            ({} if loss is None else {"loss": f"{loss:.4f}"})
            | {
                "samples/s": f"{self.samples_per_second:.1f}",
                "waiting": f"{self.waiting_share:.0%}",
            },
            refresh=False,
        )

    def doing(self, what: str) -> None:
        """Show what keeps the bar from moving."""
        self._bar.set_description(what)

    def pause_ended(self) -> None:
        """Validation or saving is over: its time counts for neither working nor waiting."""
        self._watch.ended("pausing")

    @property
    def samples_per_second(self) -> float:
        return self._steps * self._batch_size / max(self._seconds, 1e-9)

    @property
    def waiting_share(self) -> float:
        return self._watch.seconds["waiting"] / max(self._seconds, 1e-9)

    @property
    def _seconds(self) -> float:
        """Of waiting and working."""
        return self._watch.seconds["waiting"] + self._watch.seconds["working"]

    def say(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if not self._bar.disable:
            self._bar.write(line, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()


class Logger:
    """TensorBoard files in `folder`/train and `folder`/val; without a folder, none."""

    def __init__(self, folder: Path | None):
        self._writers = {
            mode: SummaryWriter(str(folder / mode), flush_secs=30)
            for mode in ("train", "val")
            if folder is not None
        }

    def scalars(self, mode: str, values: dict[str, float], step: int) -> None:
        if mode not in self._writers:
            return
        for name, value in values.items():
            self._writers[mode].add_scalar(name, value, step)

    def pictures(
        self,
        mode: str,
        color: Float[Tensor, "B F 3 H W"],
        source_names: list[str],
        scales: tuple[int, ...],
        prediction: Prediction,
        terms: LossTerms,
        step: int,
    ) -> None:
        """Inputs and, for each scale, reconstructions, disparity, masks of a few samples."""
        writer = self._writers.get(mode)
        if writer is None:
            return
        for j in range(min(PICTURES, len(color))):

            def add(name: str, image: Tensor | ndarray, j: int = j) -> None:
                image = image.detach().float().cpu().numpy() if isinstance(image, Tensor) else image
                writer.add_image(f"{name}/{j}", np.clip(image, 0, 1), step)

            for name, image in zip(["0", *source_names], color[j], strict=True):
                add(f"color_{name}", image)
            for level, scale in enumerate(scales):
                for name, image in zip(source_names, terms.warped[level][j], strict=True):
                    add(f"color_pred_{name}_{scale}", image)
                disp = prediction.disps[level][j, 0].detach().float().cpu().numpy()
                add(f"disp_{scale}", colour_map(disp).transpose(2, 0, 1))
                if terms.automask:
                    add(f"automask_{scale}", terms.automask[level][j][None].float())
                if prediction.masks:
                    for name, mask in zip(source_names, prediction.masks[level][j], strict=True):
                        add(f"predictive_mask_{name}_{scale}", mask[None])

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
