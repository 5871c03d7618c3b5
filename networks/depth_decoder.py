"""U-Net decoder: from encoder features to sigmoid maps at several scales (paper sec. 3.3)."""

import torch
from torch import Tensor, nn

from layers import Conv3x3, ConvBlock, full_precision, upsample

CHANNELS = (16, 32, 64, 128, 256)  # of levels 0 (finest) to 4


class DepthDecoder(nn.Module):
    """Disparity in [0, 1] at each asked scale; with more output channels, the predictive masks.

    Args:
        encoder_channels: channels of the encoder's five feature maps, shallow to deep.
        scales: ascending levels of 0..3 that get a head; level s has size H/2^s x W/2^s.
        out_channels: maps per head.

    `decoder` holds, in the order of the released files, two blocks for each level from 4 to 0
    and then the heads.
    """

    def __init__(
        self,
        encoder_channels: tuple[int, ...],
        scales: tuple[int, ...] = (0, 1, 2, 3),
        out_channels: int = 1,
    ):
        super().__init__()
        self.scales = tuple(scales)
        blocks: list[nn.Module] = []
        below = encoder_channels[-1]
        for level in reversed(range(5)):
            skip = encoder_channels[level - 1] if level > 0 else 0
            blocks.append(ConvBlock(below, CHANNELS[level]))
            blocks.append(ConvBlock(CHANNELS[level] + skip, CHANNELS[level]))
            below = CHANNELS[level]
        heads = [Conv3x3(CHANNELS[scale], out_channels) for scale in self.scales]
        self.decoder = nn.ModuleList(blocks + heads)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, ...]:
        """Float32 maps [B out_channels H/2^s W/2^s], one for each of `scales` in that order."""
        heads = dict(zip(self.scales, self.decoder[10:], strict=True))
        outputs = {}
        x = features[-1]
        for level in reversed(range(5)):
            before, after = self.decoder[8 - 2 * level], self.decoder[9 - 2 * level]
            x = upsample(before(x))
            if level > 0:
                x = torch.cat([x, features[level - 1]], 1)
            x = after(x)
            if level in heads:
                with full_precision(x):
                    outputs[level] = heads[level](x.float()).sigmoid()
        return tuple(outputs[scale] for scale in self.scales)
