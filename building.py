"""From options to the parts of a training: networks, loss, data and its loaders, learning rate."""

from functools import partial

import torch
from torch.utils.data import DataLoader, Subset

from datasets import DATASETS, MonoDataset, collate, read_split, split_folder
from distributed import Team
from losses import SelfSupervisedLoss
from networks import Monodepth
from options import TrainOptions
from sampling import DrawnSamples, EpochSampler
from utils import UserError, count_workers, leave_interrupts_to_others


def build_model(options: TrainOptions, cameras: int = 0) -> Monodepth:
    """The networks that the options ask for.

    Args:
        cameras: how many filmed the training samples.
    """
    return Monodepth(
        num_layers=options.num_layers,
        pretrained=options.needs_imagenet,
        scales=options.scales,
        frame_ids=options.frame_ids,
        stereo=options.use_stereo,
        pose_model_type=options.pose_model_type,
        pose_model_input=options.pose_model_input,
        predictive_mask=options.predictive_mask,
        cameras=cameras if options.learn_intrinsics else 0,
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
        prepared = options.split in (options.dataset, "video")
        advice = kind.how_to_get if prepared else ""
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


def build_loaders(
    options: TrainOptions, train: MonoDataset, val: MonoDataset, sampler: EpochSampler, team: Team
) -> tuple[DataLoader, DataLoader]:
    """Batches of `train` as the sampler draws them, and of this process's share of `val`."""
    workers = count_workers(options.num_workers, team.size_here)
    loader = partial(
        DataLoader,
        batch_size=options.batch_size,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=team.device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=leave_interrupts_to_others,
    )
    drawn = DrawnSamples(train, options.on_bad_sample == "skip")
    return (
        loader(drawn, sampler=sampler),
        loader(Subset(val, range(team.rank, len(val), team.size))),
    )
