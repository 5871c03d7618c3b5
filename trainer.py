"""The training loop."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from torch.utils.data import DataLoader, Subset

import checkpoint
from datasets import (
    DATASETS,
    MonoDataset,
    collate,
    in_unit_range,
    read_split,
    split_folder,
)
from distributed import EpochSampler, Team
from layers import disp_to_depth
from logger import Logger, Progress
from losses import LossTerms, SelfSupervisedLoss
from metrics import DepthScore, score_depth, summarise
from networks import Monodepth, Prediction
from options import TrainOptions, to_json
from speed import Speed
from utils import UserError, atomic_write, count_workers, pick_device, seed_everything


def build_model(options: TrainOptions) -> Monodepth:
    """The networks that the options ask for."""
    return Monodepth(
        num_layers=options.num_layers,
        pretrained=options.needs_imagenet,
        scales=options.scales,
        frame_ids=options.frame_ids,
        stereo=options.use_stereo,
        pose_model_type=options.pose_model_type,
        pose_model_input=options.pose_model_input,
        predictive_mask=options.predictive_mask,
    )


def build_loss(options: TrainOptions) -> SelfSupervisedLoss:
    """The loss that the options ask for."""
    return SelfSupervisedLoss(
        scales=options.scales,
        min_depth=options.min_depth,
        max_depth=options.max_depth,
        disparity_smoothness=options.disparity_smoothness,
        use_ssim=not options.no_ssim,
        v1_multiscale=options.v1_multiscale,
        avg_reprojection=options.avg_reprojection,
        automasking=not options.disable_automasking,
        scale_translation=options.pose_model_type == "posecnn",
        stereo=options.use_stereo,
    )


def build_dataset(options: TrainOptions, part: str) -> MonoDataset:
    """The `train` part of the split, augmented, or `val`, with depth and resized as scored."""
    kind = DATASETS[options.dataset]
    kind.demand_data(options.data_path)
    own = {"neighbours": options.nyuv2_neighbours} if options.dataset == "nyuv2" else {}
    try:
        frames = read_split(split_folder(options.split, options.data_path) / f"{part}_files.txt")
    except UserError as error:
        # the split that comes with prepared data is missing: so is the preparation
        advice = kind.how_to_get if options.split == options.dataset else ""
        raise UserError(str(error), advice) from None
    return kind(
        options.data_path,
        frames,
        options.height,
        options.width,
        options.frame_ids,
        use_stereo=options.use_stereo,
        augment=part == "train",
        png=options.png,
        fast_resize=part == "train",
        intrinsics=options.intrinsics,
        with_depth=part == "val",
        **own,
    )


def build_scheduler(
    optimizer: torch.optim.Optimizer, epochs: tuple[int, ...]
) -> torch.optim.lr_scheduler.LRScheduler:
    """A learning rate that drops to a tenth: every n epochs for (n,), else after each of them."""
    if len(epochs) == 1:
        return torch.optim.lr_scheduler.StepLR(optimizer, epochs[0], gamma=0.1)
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, list(epochs), gamma=0.1)


class Trainer:
    """Everything a training needs, set up and checked; `train` runs it.

    Args:
        team: the processes that train this model together; each has a `Trainer` of its own.

    Raises:
        UserError: data or weights that are missing or do not fit, before anything is written.
    """

    def __init__(self, options: TrainOptions, team: Team | None = None):
        self.options = options
        self.team = team = team or Team(pick_device(options.no_cuda))
        self.device = team.device
        self.speed = Speed(self.device, options.precision, options.compile)
        if options.sync_batchnorm and (team.size == 1 or self.device.type != "cuda"):
            raise UserError("--sync_batchnorm needs several processes of torchrun, each with a GPU")
        seed_everything(options.seed)
        self.folder = options.log_dir.expanduser() / options.model_name

        train, val = build_dataset(options, "train"), build_dataset(options, "val")
        for part, data in (("train", train), ("val", val)):
            team.say(f"{part}: {len(data)} samples of split {options.split}")
            if data.left_out:
                team.say(f"  {data.left_out}")
        val.try_ground_truth()
        self.sampler = EpochSampler(
            len(train), options.batch_size, options.accumulate_grad, options.seed, team
        )
        self.protocol = val.protocol
        workers = count_workers(options.num_workers, team.size_here)
        loader = partial(
            DataLoader,
            batch_size=options.batch_size,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.device.type == "cuda",
            persistent_workers=workers > 0,
        )
        self.train_loader = loader(train, sampler=self.sampler)
        self.val_loader = loader(Subset(val, range(team.rank, len(val), team.size)))

        self.model = build_model(options)
        self.loss = build_loss(options)
        if options.loaded:
            checkpoint.load_weights(options.load_weights_folder, self.model, options.loaded)
            team.say(f"loaded {' '.join(options.loaded)} from {options.load_weights_folder}")
        for name in options.freeze:
            self.model.get_submodule(name).requires_grad_(False)
        if options.sync_batchnorm:
            torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.network = self.speed.prepare(self.model, self.loss, team)
        # All parameters, in the order of the children, so that adam.pth fits whatever is frozen.
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), options.learning_rate, fused=True
        )
        if options.loaded:
            self._load_moments(options.load_weights_folder / "adam.pth")
        self.scheduler = build_scheduler(self.optimizer, options.scheduler_step_size)
        self.step = 0
        seed_everything(options.seed + team.rank)  # other flips and jitter in each process
        self.source_names = [str(i) for i in options.frame_ids[1:]] + ["s"] * options.use_stereo

    def train(self) -> None:
        """All epochs: train, validate, save."""
        options, team = self.options, self.team
        if team.leads:
            with atomic_write(self.folder / "models" / "opt.json", "w") as file:
                known = to_json(options) | {"data_path": str(options.data_path.resolve())}
                json.dump(known, file, indent=2)
        self.logger = Logger(self.folder if team.leads else None)
        steps = options.num_epochs * self.sampler.steps
        self.progress = Progress(steps, self.sampler.samples_per_step, team.leads)
        team.say(f"training on {self.speed.describe()}")
        team.say(self.sampler.describe())
        team.say(f"weights and TensorBoard log in {self.folder}")
        try:
            for epoch in range(options.num_epochs):
                start = time.perf_counter()
                loss = self._train_epoch(epoch)
                self.scheduler.step()
                last = epoch + 1 == options.num_epochs
                saved = last or (epoch + 1) % options.save_frequency == 0
                if saved and team.leads:
                    self._save(epoch)
                values = self._validate()
                self.progress.say(
                    f"epoch {epoch + 1}/{options.num_epochs}: loss {loss:.4f}, "
                    + ", ".join(f"val {name} {value:.4f}" for name, value in values.items())
                    + f", {time.perf_counter() - start:.0f} s"
                    + (f", saved weights_{epoch}" if saved else "")
                )
                self.progress.pause_ended()
        finally:
            self.progress.close()
            self.logger.close()

    def _train_epoch(self, epoch: int) -> float:
        """One pass over the training split; the mean loss."""
        self._set_mode(train=True)
        self.sampler.epoch = epoch
        losses: list[Tensor] = []
        batches = iter(self.train_loader)
        for _ in range(self.sampler.steps):
            losses.append(self._step(batches))
            # The loss before is looked at while the device still works on the one just asked for.
            self.progress.step(epoch, self._watched(losses[-2:][0]))
        values = self.team.gather([self._watched(loss) for loss in losses])
        return math.fsum(values) / len(values)

    def _step(self, batches: Iterator[dict[str, Any]]) -> Tensor:
        """One step of the optimizer, of one or more passes; their mean loss, NaN for bad motion."""
        passes = self.options.accumulate_grad
        total = torch.zeros((), device=self.device)
        for i in range(passes):
            batch = next(batches)
            self.progress.waiting_ended()
            is_last = i + 1 == passes
            with contextlib.nullcontext() if is_last else self.team.no_sync(self.network):
                color, prediction, terms = self._forward(batch, self.network, self.loss)
                loss = terms.total.detach() + 0 * prediction.T.detach().sum()
                if self.device.type == "cpu":  # its grid_sample crashes on the way back from NaN
                    self._watched(loss)
                self.speed.scaler.scale(terms.total / passes).backward()
            total += loss / passes
            self.progress.working_ended()
        self.speed.scaler.step(self.optimizer)
        self.speed.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.step % self.options.log_frequency == 0:
            self._log_step(color, prediction, terms)
        self.step += 1
        return total

    def _watched(self, loss: Tensor) -> float:
        """A loss as a number, which must be finite."""
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(
                f"training diverged at step {self.step}: loss or motion is not finite; lower "
                "--learning_rate, or start from other weights"
            )
        return value

    def _forward(
        self, batch: dict[str, Any], network: Callable, loss: Callable
    ) -> tuple[Tensor, Prediction, LossTerms]:
        """Frames in [0, 1], what the networks make of their augmented twins, and the loss."""
        on_device = {
            name: value.to(self.device, non_blocking=True)
            for name, value in batch.items()
            if isinstance(value, Tensor)
        }
        color, some = (in_unit_range(on_device[name]) for name in ("color", "color_aug"))
        color_aug = color.clone()
        color_aug[on_device["jittered"]] = some
        with self.speed.autocast():
            prediction = network(color_aug, on_device.get("stereo_T"))
        return color, prediction, loss(*prediction, color=color, K=on_device["K"])

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean loss, PSNR of the reconstructions and, with ground truth, the seven metrics.

        Each process takes its share, neither compiled nor in step with the others.
        """
        self._set_mode(train=False)
        self.progress.doing("validating")
        self.team.share_buffers(self.model)
        losses, psnr, scores = [], [], []
        for batch in self.val_loader:
            color, prediction, terms = self._forward(batch, self.model.forward, self.loss.forward)
            losses += [terms.total.item()] * len(color)
            psnr += reconstruction_psnr(color, terms)
            scores += self._score(prediction.disps[0], batch["depth_gt"])
            if len(losses) == len(color):
                self._log_pictures("val", color, prediction, terms)
        losses, psnr, scores = map(self.team.gather, (losses, psnr, scores))
        values = {"loss": float(np.mean(losses)), "psnr": float(np.mean(psnr))}
        if scores:
            values |= summarise(scores).errors._asdict()
        self.logger.scalars("val", values, self.step)
        return values

    def _score(self, disps: Tensor, depths: list[np.ndarray | None]) -> list[DepthScore]:
        """Scores of the samples that have ground truth with pixels that count."""
        scaled, _ = disp_to_depth(disps[:, 0], self.options.min_depth, self.options.max_depth)
        return [
            score
            for disp, gt in zip(scaled.float().cpu().numpy(), depths, strict=True)
            if gt is not None and (score := score_depth(disp, gt, self.protocol)) is not None
        ]

    def _log_step(self, color: Tensor, prediction: Prediction, terms: LossTerms) -> None:
        scales = zip(self.options.scales, terms.per_scale.tolist(), strict=True)
        values = {"loss": terms.total.item(), **{f"loss/{scale}": value for scale, value in scales}}
        values["learning_rate"] = self.scheduler.get_last_lr()[0]
        values["samples_per_second"] = self.progress.samples_per_second
        values["waiting_share"] = self.progress.waiting_share
        self.logger.scalars("train", values, self.step)
        self._log_pictures("train", color, prediction, terms)

    def _log_pictures(
        self, mode: str, color: Tensor, prediction: Prediction, terms: LossTerms
    ) -> None:
        self.logger.pictures(
            mode, color, self.source_names, self.options.scales, prediction, terms, self.step
        )

    def _set_mode(self, train: bool) -> None:
        """Train or eval; frozen networks never update their batch-norm statistics."""
        self.model.train(train)
        for name in self.options.freeze:
            self.model.get_submodule(name).eval()

    def _save(self, epoch: int) -> None:
        options = self.options
        folder = self.folder / "models" / f"weights_{epoch}"
        checkpoint.save_weights(
            folder, self.model, options.height, options.width, options.use_stereo
        )
        checkpoint.save(folder / "adam.pth", self.optimizer.state_dict())

    def _load_moments(self, adam: Path) -> None:
        """Take over the optimizer's state of loaded weights, where it is there and fits."""
        if set(self.options.loaded) == set(self.options.networks) and adam.exists():
            fits = checkpoint.load_optimizer(adam, self.optimizer)
            anew = f"{adam} does not fit: Adam starts anew"
            self.team.say("continuing Adam's moments" if fits else anew)


def reconstruction_psnr(color: Tensor, terms: LossTerms) -> list[float]:
    """Peak signal-to-noise ratio in dB of every finest reconstruction against its target."""
    return [
        peak_signal_noise_ratio(target, image, data_range=1.0)
        for target, images in zip(
            color[:, 0].cpu().numpy(), terms.warped[0].float().cpu().numpy(), strict=True
        )
        for image in images
    ]
