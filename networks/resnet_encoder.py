"""ResNet feature extractor for one image or several stacked ones (paper sec. 3.3)."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models

from utils import UserError

DEPTHS = (18, 34, 50, 101, 152)


class ResnetEncoder(nn.Module):
    """The five feature maps of a ResNet, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input size.

    Args:
        num_layers: 18, 34, 50, 101 or 152.
        pretrained: start from torchvision's ImageNet weights.
        num_images: RGB images stacked on the channel axis. The ImageNet filters of the first layer
            are repeated for each and divided by their number, which keeps the response's range.

    Raises:
        ValueError: another `num_layers`.
        UserError: ImageNet weights are neither cached nor to be downloaded.

    The classifier `fc` stays, unused and frozen, because the released weight files hold it.
    """

    def __init__(self, num_layers: int = 18, pretrained: bool = False, num_images: int = 1):
        super().__init__()
        if num_layers not in DEPTHS:
            raise ValueError(f"num_layers must be one of {DEPTHS}, not {num_layers}")
        name = f"resnet{num_layers}"
        self.encoder = models.get_model(name)
        if pretrained:
            load_imagenet(self.encoder, name)
        if num_images > 1:
            first = self.encoder.conv1
            self.encoder.conv1 = nn.Conv2d(3 * num_images, 64, 7, stride=2, padding=3, bias=False)
            with torch.no_grad():
                if pretrained:
                    self.encoder.conv1.weight.copy_(
                        first.weight.repeat(1, num_images, 1, 1) / num_images
                    )
                else:
                    nn.init.kaiming_normal_(self.encoder.conv1.weight, mode="fan_out")
        self.encoder.fc.requires_grad_(False)
        widest = self.encoder.fc.in_features
        self.channels = (64, *(widest // 2**level for level in (3, 2, 1, 0)))

    def forward(self, images: Float[Tensor, "B C H W"]) -> list[Tensor]:
        """Features of images in [0, 1], shallow to deep: [B channels[i] H/2^(i+1) W/2^(i+1)]."""
        net = self.encoder
        x = net.relu(net.bn1(net.conv1((images - 0.45) / 0.225)))
        features = [x]
        x = net.maxpool(x)
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = layer(x)
            features.append(x)
        return features


def load_imagenet(network: nn.Module, name: str) -> None:
    """Load torchvision's first ImageNet weights of `name`, those of the paper.

    Raises:
        UserError: neither cached nor to be downloaded, or the cached file is damaged.
    """
    weights = models.get_model_weights(name).IMAGENET1K_V1
    try:
        network.load_state_dict(weights.get_state_dict(progress=True, check_hash=True))
    except Exception as error:  # no network, refused, damaged: no one error
        cached = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"ImageNet weights of {name} cannot be had ({reason}): "
            f"use --weights_init scratch, or put a whole {cached.name} at {cached}"
        ) from error
