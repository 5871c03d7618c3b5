"""The method as one would write it down from the paper, for the benchmarks to compare with.

Float32 and eager; four LANCZOS scales of every frame, jittered one by one; loops over scales and
sources; SSIM by average pooling of padded images, all of it anew for every comparison.
"""

import io
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import functional as TF

SCALES = 4
RANGE = 0.1, 100.0  # depth of disparities 1 and 0
NAMES = ("target", "before", "after")
Sample = dict[str, Tensor]


class TextbookDataset(Dataset):
    """Three-frame samples: every frame at four scales, as read and jittered, as floats in [0, 1].

    Args:
        files: image files of each sample's target, preceding and following frame.
        K: intrinsics [3 3] in shares of width and height.
        augment: flip and jitter, each half of the samples.
    """

    def __init__(
        self, files: list[tuple[Path, ...]], K: Tensor, height: int, width: int, augment: bool
    ):
        self.files, self.K, self.augment = files, K, augment
        self.sizes = [(height // 2**scale, width // 2**scale) for scale in range(SCALES)]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Sample:
        flip = self.augment and random.random() < 0.5
        change = self.jitter() if self.augment and random.random() < 0.5 else lambda image: image
        sample = {}
        for name, path in zip(NAMES, self.files[i], strict=True):
            image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
            if flip:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            for scale, (height, width) in enumerate(self.sizes):
                image = image.resize((width, height), Image.Resampling.LANCZOS)
                sample[f"{name}_{scale}"] = TF.to_tensor(image)
                sample[f"{name}_aug_{scale}"] = TF.to_tensor(change(image))
        for scale, (height, width) in enumerate(self.sizes):
            sample[f"K_{scale}"] = self.K * torch.tensor([[width], [height], [1.0]])
        return sample

    @staticmethod
    def jitter():
        """One change of colours, to be applied alike to every image of a sample."""
        order, *factors = transforms.ColorJitter.get_params(
            (0.8, 1.2), (0.8, 1.2), (0.8, 1.2), (-0.1, 0.1)
        )
        steps = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)

        def change(image: Image.Image) -> Image.Image:
            for k in order.tolist():
                image = steps[k](image, factors[k])
            return image

        return change


def ssim_distance(x: Tensor, y: Tensor) -> Tensor:
    """(1 - SSIM) / 2 of images [B 3 H W], by windows of 3x3."""
    pad, pool = nn.ReflectionPad2d(1), nn.AvgPool2d(3, 1)
    x, y = pad(x), pad(y)
    mean_x, mean_y = pool(x), pool(y)
    var_x, var_y = pool(x**2) - mean_x**2, pool(y**2) - mean_y**2
    cov = pool(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + 0.01**2) * (2 * cov + 0.03**2)
    low = (mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)
    return torch.clamp((1 - top / low) / 2, 0, 1)


def photometric_error(x: Tensor, y: Tensor) -> Tensor:
    """0.85 SSIM distance + 0.15 L1, [B 1 H W]."""
    l1 = (x - y).abs().mean(1, keepdim=True)
    return 0.85 * ssim_distance(x, y).mean(1, keepdim=True) + 0.15 * l1


def smoothness(disp: Tensor, image: Tensor) -> Tensor:
    """Disparity gradients where the image has none (eq. 3)."""
    disp = disp / (disp.mean(2, True).mean(3, True) + 1e-7)
    dx = (disp[..., :, :-1] - disp[..., :, 1:]).abs()
    dy = (disp[..., :-1, :] - disp[..., 1:, :]).abs()
    edge_x = (image[..., :, :-1] - image[..., :, 1:]).abs().mean(1, keepdim=True)
    edge_y = (image[..., :-1, :] - image[..., 1:, :]).abs().mean(1, keepdim=True)
    return (dx * torch.exp(-edge_x)).mean() + (dy * torch.exp(-edge_y)).mean()


def warped(source: Tensor, disp: Tensor, T: Tensor, K: Tensor) -> Tensor:
    """A source image seen from the target's camera (eq. 2)."""
    B, _, H, W = source.shape
    low, high = 1 / RANGE[1], 1 / RANGE[0]
    depth = 1 / (low + (high - low) * disp)
    v, u = torch.meshgrid(
        torch.arange(H, dtype=torch.float32, device=source.device),
        torch.arange(W, dtype=torch.float32, device=source.device),
        indexing="ij",
    )
    pixels = torch.stack([u, v, torch.ones_like(u)]).reshape(1, 3, -1).repeat(B, 1, 1)
    points = depth.reshape(B, 1, -1) * (torch.inverse(K) @ pixels)
    points = torch.cat([points, torch.ones_like(points[:, :1])], 1)
    seen = K @ (T[:, :3] @ points)
    grid = (seen[:, :2] / (seen[:, 2:] + 1e-7)).reshape(B, 2, H, W).permute(0, 2, 3, 1)
    grid = grid / torch.tensor([W - 1.0, H - 1.0], device=source.device)
    return F.grid_sample(source, 2 * grid - 1, padding_mode="border", align_corners=True)


def loss(disps: tuple[Tensor, ...], T: Tensor, batch: Sample) -> Tensor:
    """Minimum reprojection with auto-masking at full resolution (paper sec. 3.2).

    Disparities [B 1 H/2^s W/2^s] of four scales, motion [B 2 4 4], images of a batch of samples.
    """
    target = batch["target_0"]
    total = 0
    for scale in range(SCALES):
        disp = F.interpolate(disps[scale], target.shape[2:], mode="bilinear", align_corners=False)
        errors, still = [], []
        for i, name in enumerate(NAMES[1:]):
            source = batch[f"{name}_0"]
            view = warped(source, disp, T[:, i], batch["K_0"])
            errors.append(photometric_error(view, target))
            still.append(photometric_error(source, target))
        still = torch.cat(still, 1)
        still = still + 1e-5 * torch.randn(still.shape, device=still.device)
        least = torch.cat([still, *errors], 1).min(1)[0].mean()
        smooth = smoothness(disps[scale], batch[f"target_{scale}"])
        total = total + least + 1e-3 / 2**scale * smooth
    return total / SCALES


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Sample) -> Tensor:
    """One step of a `Monodepth` model; its loss."""
    aug = torch.stack([batch[f"{name}_aug_0"] for name in NAMES], 1)
    prediction = model(aug)
    value = loss(prediction.disps, prediction.T, batch)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value
