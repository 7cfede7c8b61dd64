"""Dense decoding: from the completed token grid and the image to voxel logits."""

from __future__ import annotations

import math
from typing import cast

from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrPrUpBlock, UnetrUpBlock
from torch import Tensor, nn


class UnetrDecoder(nn.Module):
    """A UNETR decoder (Hatamizadeh et al., 2022) for patches of 4, 8 or 16 voxels.

    Every level between the token grid and the voxels gets its skip from the same completed tokens; the
    finest gets it from the image. Level ``k`` has ``features * 2**k`` channels.

    Parameters
    ----------
    in_channels, out_channels : channels of the image, and of the logits.
    dim : width of the tokens.
    patch : voxels along the edge of a patch, a power of two.
    features : channels at full resolution.
    pooled : add one level below the token grid, from pooled tokens. That keeps the depth of a patch-16
        decoder for smaller patches (the published ``UNETRx8_decoderv2``).
    """

    def __init__(self, in_channels: int, out_channels: int, dim: int, patch: int, features: int, pooled: bool) -> None:
        super().__init__()
        levels = int(math.log2(patch))
        if 2**levels != patch or levels < 2:
            raise ValueError(f"the decoder needs a patch of 4, 8, 16 … voxels, not {patch}")
        kind = {"spatial_dims": 3, "kernel_size": 3, "norm_name": "instance", "res_block": True}
        self.image_block = UnetrBasicBlock(in_channels=in_channels, out_channels=features, stride=1, **kind)
        self.skips = nn.ModuleList(
            UnetrPrUpBlock(
                in_channels=dim,
                out_channels=features * 2**level,
                num_layer=levels - 1 - level,
                stride=1,
                upsample_kernel_size=2,
                conv_block=True,
                **kind,
            )
            for level in range(1, levels)
        )
        self.pool = nn.AvgPool3d(kernel_size=3, stride=2, padding=1) if pooled else None
        if pooled:
            self.skips.append(UnetrBasicBlock(in_channels=dim, out_channels=features * 2**levels, stride=1, **kind))
        widths = [features * 2**level for level in range(levels + pooled)]  # fine to coarse
        self.ups = nn.ModuleList(
            UnetrUpBlock(in_channels=below, out_channels=width, upsample_kernel_size=2, **kind)
            for width, below in zip(widths, [*widths[1:], dim], strict=True)
        )
        self.out = UnetOutBlock(spatial_dims=3, in_channels=features, out_channels=out_channels)

    def image_skip(self, image: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, features, D, H, W): the only part that sees the image."""
        skip: Tensor = self.image_block(image)
        return skip

    def coarsest(self, grid: Tensor) -> Tensor:
        """Where decoding begins: the token grid (B, C, d, h, w), or the level below it."""
        return grid if self.pool is None else cast(Tensor, self.pool(_poolable(grid)))

    def halfway(self, grid: Tensor) -> Tensor:
        """All levels but the finest: (B, C, d, h, w) to (B, 2 · features, D/2, H/2, W/2)."""
        x = self.coarsest(grid)
        for level in range(len(self.ups) - 1, 0, -1):
            x = self.ups[level](x, self.skips[level - 1](grid))
        return x

    def finest(self, half: Tensor, image_skip: Tensor) -> Tensor:
        """The rest: what `halfway` returned and the image skip to logits (B, classes, D, H, W)."""
        logits: Tensor = self.out(self.ups[0](half, image_skip))
        return logits

    def forward(self, grid: Tensor, image_skip: Tensor) -> Tensor:
        """Token grid (B, C, d, h, w) and image skip to logits (B, classes, D, H, W)."""
        return self.finest(self.halfway(grid), image_skip)


def _poolable(grid: Tensor) -> Tensor:
    """Check that pooling halves the grid exactly; PyTorch's kernel needs three tokens along each side."""
    if any(side % 2 or side < 4 for side in grid.shape[2:]):
        raise ValueError(
            f"this model pools its token grid, so every side of the grid must be even and at least 4, "
            f"not {tuple(grid.shape[2:])}"
        )
    return grid
