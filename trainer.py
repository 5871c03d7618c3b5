"""The training loop."""

import json
import math
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

import checkpoint
from building import build_dataset, build_loaders, build_loss, build_model, build_scheduler
from datasets import in_unit_range
from diagnosis import Signs, signs_of, warnings_of
from distributed import Team
from doctor import examine
from layers import disp_to_depth
from logger import Logger, Progress
from losses import LossTerms
from metrics import DepthScore, score_depth, summarise
from networks import Prediction
from options import NEWEST, TrainOptions, identity_of, to_json
from sampling import BadSamples, EpochSampler
from speed import Speed
from states import States
from utils import (
    UserError,
    atomic_folder,
    atomic_write,
    is_out_of_memory,
    noted_signals,
    pick_device,
    remove_unfinished,
    seed_everything,
)

KEPT_STATES = 2
CHECK_S = 5.0  # that looking at the data may take at the start
COUNTS = ("step", "bad_steps", "losses", "best")  # of the trainer's own


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
        if team.leads and not (options.no_data_check or options.resume):
            for line in examine(train, seconds=CHECK_S).lines():
                team.say(f"WARNING: {line}")
        self.sampler = EpochSampler(
            len(train), options.batch_size, options.accumulate_grad, options.seed, team
        )
        self.frames, self.protocol = train.frames, val.protocol
        self.bad = BadSamples(train)
        self.train_loader, self.val_loader = build_loaders(options, train, val, self.sampler, team)

        identity = identity_of(options) | {"samples": len(train), "processes": team.size}
        self.states = States(self.folder / "states", options.keep or KEPT_STATES, identity)
        resumed = options.resume and self.states.find(
            None if options.resume == NEWEST else options.resume
        )
        self.model = build_model(options, len(train.cameras))
        val.cameras = train.cameras  # what is learnt of them holds for validation, too
        if options.learn_intrinsics:
            self.cameras = {name: train.camera_of(name) for name in train.cameras}
        self.loss = build_loss(options)
        if options.loaded and not resumed:
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
        if options.loaded and not resumed:
            self._load_moments(options.load_weights_folder / "adam.pth")
        self.scheduler = build_scheduler(self.optimizer, options.scheduler_step_size)
        self.step = self.bad_steps = 0
        self.losses: list[float] = []  # of this epoch
        self.best = math.inf  # score of weights_best
        if resumed:
            self._go_on_from(resumed)
        self.source_names = [str(i) for i in options.frame_ids[1:]] + ["s"] * options.use_stereo

    def train(self) -> None:
        """All epochs that are left: train, validate, save.

        SIGTERM and SIGINT end it after the step at hand, with everything saved, and SystemExit.
        """
        options, team, sampler = self.options, self.team, self.sampler
        if sampler.epoch >= options.num_epochs:
            team.say(f"nothing left to do: all {options.num_epochs} epochs are done")
            return
        if team.leads:
            for name in ("models", "states"):
                remove_unfinished(self.folder / name)
            with atomic_write(self.folder / "models" / "opt.json", "w") as file:
                known = to_json(options) | {"data_path": str(options.data_path.resolve())}
                json.dump(known, file, indent=2)
        self.logger = Logger(self.folder if team.leads else None)
        steps = options.num_epochs * sampler.steps
        self.progress = Progress(steps, sampler.samples_per_step, team.leads, self.step)
        team.say(f"training on {self.speed.describe()}")
        team.say(sampler.describe())
        team.say(f"weights and TensorBoard log in {self.folder}")
        try:
            with noted_signals() as self.signals:
                while sampler.epoch < options.num_epochs:
                    self._train_and_validate()
        except UserError:
            if self.step and team.size == 1:
                self.progress.say(f"state saved in {self._save_state()}")
            raise
        except (RuntimeError, MemoryError) as error:
            memory = is_out_of_memory(error)
            if not memory and "DataLoader worker (pid" not in str(error):
                raise
            # It comes at any moment, in the middle of a step too: no state is saved here.
            last = f"last state: {self.states.last or 'none'}"
            if self.signals.received is not None:  # the signal went to the loaders, too
                self._stop(last)
            killed = "a process that loads data was killed, perhaps for want of memory"
            raise UserError(
                f"{'memory ran out' if memory else killed}: try fewer --num_workers or a smaller "
                f"--batch_size; {last}"
            ) from error
        finally:
            self.progress.close()
            self.logger.close()

    def _train_and_validate(self) -> None:
        """The epoch at hand, from where it stands; what is saved of it, and a line about it."""
        options, epoch = self.options, self.sampler.epoch
        start = time.perf_counter()
        loss = self._train_epoch()
        values = self._validate()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it misses the optimizer's steps of before a resume
            self.scheduler.step()
        self.sampler.epoch, self.sampler.done, self.losses = epoch + 1, 0, []
        last = epoch + 1 == options.num_epochs
        saved = last or (epoch + 1) % options.save_frequency == 0
        if self.team.leads:
            score = values.get("abs_rel", values["loss"])
            if score < self.best:
                self.best = score
                self._save_weights("weights_best")
            if saved:
                self._save_weights(f"weights_{epoch}")
                self._save_state()
        self.progress.say(
            f"epoch {epoch + 1}/{options.num_epochs}: loss {loss:.4f}, "
            + ", ".join(f"val {name} {value:.4f}" for name, value in values.items())
            + f", {time.perf_counter() - start:.0f} s"
            + (f", saved weights_{epoch}" if saved else "")
        )
        for warning in self.warnings:
            self.progress.say(f"  WARNING: {warning}")
        if self.options.learn_intrinsics:
            self._say_cameras()
        self.progress.pause_ended()

    def _train_epoch(self) -> float:
        """The steps of an epoch that are left; the mean loss of all."""
        self._set_mode(train=True)
        sampler, save_steps = self.sampler, self.options.save_steps
        before: tuple[Tensor, list[int]] | None = None
        batches = iter(self.train_loader)
        while sampler.done < sampler.steps:
            now = self._step(batches)
            sampler.done += 1
            # The loss before is looked at while the device still works on the one just asked for.
            if before is not None:
                self._watch(*before)
            before = now
            self.progress.step(sampler.epoch, self.losses[-1] if self.losses else None)
            stopping = self._asked_to_stop()
            if stopping or (save_steps and self.step % save_steps == 0):
                self._watch(*before)
                before = None
                if self.team.leads:
                    self._save_state()
            if stopping:
                self._stop(f"state saved in {self.states.last}")
        if before is not None:
            self._watch(*before)
        losses = [loss for loss in self.team.gather(self.losses) if math.isfinite(loss)]
        return math.fsum(losses) / max(len(losses), 1)

    def _step(self, batches: Iterator[dict[str, Any]]) -> tuple[Tensor, list[int]]:
        """One step of the optimizer, of one or more passes.

        Returns their mean loss, which is not finite if motion or gradients are not, and the indices
        of their samples. Nothing is learnt from such a step.
        """
        passes = self.options.accumulate_grad
        total = torch.zeros((), device=self.device)
        indices: list[int] = []
        # A step's random numbers come from its own seed: a resumed run needs to know no others.
        seed_everything(mixed_seed(self.options.seed, self.team.rank, self.step))
        loaded = [next(batches) for _ in range(passes)]  # what cannot be read shows before all else
        self.progress.waiting_ended()
        for i, batch in enumerate(loaded, start=1):
            self._note_bad(batch["bad"].tolist())
            indices += batch["index"].tolist()
            with self.team.averaging(self.network, i == passes):
                color, prediction, terms = self._forward(batch, self.network, self.loss)
                total += (terms.total.detach() + 0 * prediction.T.detach().sum()) / passes
                # A CPU's grid_sample crashes on the way back from NaN.
                if self.device.type == "cpu" and self.team.any(not total.isfinite()):
                    self.optimizer.zero_grad(set_to_none=True)
                    self.step += 1
                    return total * math.nan, indices
                self.speed.scaler.scale(terms.total / passes).backward()
        if not self.speed.scaler.is_enabled():  # which looks for itself
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            total += 0 * torch.nn.utils.get_total_norm(grads)
            self.optimizer.found_inf = (~total.isfinite()).float()  # the fused step does nothing
        self.speed.scaler.step(self.optimizer)
        self.speed.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.step % self.options.log_frequency == 0:
            self._log_step(color, prediction, terms)
        self.step += 1
        return total, indices

    def _watch(self, loss: Tensor, indices: list[int]) -> None:
        """Keep a step's loss, and stop when too many in a row are not finite."""
        self.losses.append(loss.item())
        if math.isfinite(self.losses[-1]):
            self.bad_steps = 0
            return
        self.bad_steps += 1
        if self.bad_steps < self.options.max_bad_steps:
            self.progress.say(f"step {self.step}: loss or gradient not finite, skipped")
            return
        names = ", ".join(f"'{self.frames[i]}'" for i in indices[:4])
        names += f" and {len(indices) - 4} more" * (len(indices) > 4)
        raise UserError(
            f"training diverged at step {self.step}: loss or gradient not finite "
            f"{self.bad_steps} times in a row, last for {names}, at learning rate "
            f"{self.scheduler.get_last_lr()[0]:g}; last state: {self.states.last or 'none'}; lower "
            "--learning_rate, or start from other weights"
        )

    def _note_bad(self, indices: list[int]) -> None:
        """Say which samples could not be read, and stop when they are too many."""
        for frame in self.bad.add(indices):
            self.progress.say(
                f"'{frame}' cannot be read, another stands in ({len(self.bad.indices)} so far)"
            )

    def _asked_to_stop(self) -> bool:
        """Whether a signal came to any process; several talk about it now and then only."""
        if self.team.size > 1 and self.step % 10:
            return False
        return self.team.any(self.signals.received is not None)

    def _stop(self, saved: str) -> NoReturn:
        """End the program as the signal wanted; `saved` says what there is to go on from."""
        which = self.signals.received or signal.SIGTERM  # it may have come to another process
        self.progress.say(
            f"stopped by {signal.Signals(which).name} after step {self.step}, {saved}: the same "
            "command with --resume goes on"
        )
        raise SystemExit(128 + which)

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
        K = self.model.intrinsics(on_device["K"], on_device["camera"])
        return color, prediction, loss(*prediction, color=color, K=K, valid=on_device.get("valid"))

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Mean loss, PSNR of the reconstructions and, with ground truth, the seven metrics.

        Each process takes its share, neither compiled nor in step with the others.
        """
        self._set_mode(train=False)
        self.progress.doing("validating")
        seed_everything(mixed_seed(self.options.seed, self.team.rank, self.step))
        self.team.share_buffers(self.model)
        losses, psnr, scores, signs = [], [], [], []
        for batch in self.val_loader:
            if self.team.size == 1 and self._asked_to_stop():  # resumed, it validates again
                self._stop(f"state saved in {self._save_state()}")
            color, prediction, terms = self._forward(batch, self.model.forward, self.loss.forward)
            losses += [terms.total.item()] * len(color)
            psnr += reconstruction_psnr(color, terms, batch.get("valid"))
            scores += self._score(prediction.disps[0], batch["depth_gt"])
            signs += self._signs(prediction, terms, batch.get("valid"))
            if len(losses) == len(color):
                self._log_pictures("val", color, prediction, terms)
        losses, psnr, scores, signs = map(self.team.gather, (losses, psnr, scores, signs))
        self.warnings = warnings_of(signs)
        values = {"loss": float(np.mean(losses)), "psnr": float(np.mean(psnr or [np.nan]))}
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

    def _signs(self, prediction: Prediction, terms: LossTerms, valid: Tensor | None) -> list[Signs]:
        options = self.options
        depth_range = options.min_depth, options.max_depth
        valid = None if valid is None else valid.to(self.device)
        scaled = self.loss.scale_translation
        return signs_of(prediction, terms, *depth_range, options.use_stereo, scaled, valid)

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

    def _save_weights(self, name: str) -> None:
        """Write the networks and the optimizer's moments in the published layout."""
        options, models = self.options, self.folder / "models"
        with atomic_folder(models / name) as folder:
            checkpoint.save_weights(
                folder, self.model, options.height, options.width, options.use_stereo
            )
            checkpoint.save(folder / "adam.pth", self.optimizer.state_dict())
            if options.learn_intrinsics:
                with atomic_write(folder / "cameras.json", "w") as file:
                    json.dump(self._learned_cameras(), file, indent=2)
        if options.keep:
            numbers = [path.name.removeprefix("weights_") for path in models.glob("weights_*")]
            for number in sorted(int(n) for n in numbers if n.isdecimal())[: -options.keep]:
                shutil.rmtree(models / f"weights_{number}")

    def _learned_cameras(self) -> dict[str, dict[str, float]]:
        """The cameras as intrinsics.json has them, in pixels of the images."""
        learned = {}
        zooms = self.model.cameras.zoom.tolist()
        for (name, (K, size)), zoom in zip(self.cameras.items(), zooms, strict=True):
            fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
            numbers = {"fx": zoom * fx, "fy": zoom * fy, "cx": cx, "cy": cy}
            learned[name] = {key: round(float(value), 4) for key, value in numbers.items()}
            learned[name] |= {"width": size[0], "height": size[1]}
        return learned

    def _say_cameras(self) -> None:
        """What is learnt of the cameras so far, in TensorBoard and in a line each."""
        for name, camera in self._learned_cameras().items():
            self.logger.scalars("train", {f"focal_length/{name}": camera["fx"]}, self.step)
            given = self.cameras[name][0][0, 0]
            self.progress.say(
                f"  camera {name}: focal length {camera['fx']:.1f} px of {camera['width']} "
                f"({camera['fx'] / given:.3f} of the one given)"
            )

    @property
    def _parts(self) -> dict[str, Any]:
        """All that has a state which a resumed run must have."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "scaler": self.speed.scaler,
            "sampler": self.sampler,
            "bad samples": self.bad,
        }

    def _save_state(self) -> Path:
        """Write all that the run needs to go on from here."""
        counts = {name: getattr(self, name) for name in COUNTS}
        return self.states.save(self.step, self._parts, counts)

    def _go_on_from(self, state: dict[str, Any]) -> None:
        """Take everything over from a state."""
        for name, value in self.states.restore(state, self._parts, COUNTS).items():
            setattr(self, name, value)
        self.team.say(
            f"going on from {self.states.last}: epoch {self.sampler.epoch + 1}, "
            f"{self.sampler.done} of {self.sampler.steps} steps done"
        )

    def _load_moments(self, adam: Path) -> None:
        """Take over the optimizer's state of loaded weights, where it is there and fits."""
        if set(self.options.loaded) == set(self.options.networks) and adam.exists():
            fits = checkpoint.load_optimizer(adam, self.optimizer)
            anew = f"{adam} does not fit: Adam starts anew"
            self.team.say("continuing Adam's moments" if fits else anew)


def mixed_seed(*numbers: int) -> int:
    """One seed of several numbers, all of whose bits count."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def reconstruction_psnr(color: Tensor, terms: LossTerms, valid: Tensor | None) -> list[float]:
    """Peak signal-to-noise ratio in dB of every finest reconstruction against its target, where
    that does not show the own vehicle."""
    where = torch.ones_like(color[:, 0, 0], dtype=torch.bool) if valid is None else valid
    return [
        peak_signal_noise_ratio(target[:, some], image[:, some], data_range=1.0)
        for target, images, some in zip(
            color[:, 0].cpu().numpy(),
            terms.warped[0].float().cpu().numpy(),
            where.cpu().numpy(),
            strict=True,
        )
        for image in images
        if some.any()
    ]
