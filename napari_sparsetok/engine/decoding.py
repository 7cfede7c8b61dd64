"""The decoder, arranged for inference: the same mathematics as `UnetrDecoder`, in fewer and cheaper steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sparsetok.model.decoder import UnetrDecoder

_SLOPE = 0.01  # of MONAI's leaky ReLUs
_LAST = torch.channels_last_3d


@dataclass(frozen=True, eq=False)
class ImageSkip:
    """What the decoder's last block takes from the image, already through that block's first two convolutions.

    main, short : (B, features, D, H, W), summands of the block's 3×3×3 convolution and of its 1×1×1 one.
    """

    main: Tensor
    short: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self.main.nbytes + self.short.nbytes

    def of(self, index: int) -> ImageSkip:
        """That of one window, with memory of its own."""
        rows = slice(index, index + 1)
        return ImageSkip(self.main[rows].clone(memory_format=_LAST), self.short[rows].clone(memory_format=_LAST))


def joined(skips: list[ImageSkip]) -> ImageSkip:
    """Those of several windows as one batch."""
    if len(skips) == 1:
        return skips[0]
    return ImageSkip(torch.cat([s.main for s in skips]), torch.cat([s.short for s in skips]))


class FastDecoder:
    """Decodes with the weights of a `UnetrDecoder`.

    The last block convolves two things side by side: what comes from the tokens, and the image skip. A
    convolution of both is the sum of one of each, so the image's half does not depend on the keep ratio and can be
    kept. Transposed convolutions without overlap are products of matrices; instance norms are group norms of one
    channel each; on a CPU convolutions go to oneDNN at every size, with channels last.

    Parameters
    ----------
    decoder : on the device where it will run.
    dtype : of the convolutions. Norms sum in float32 whatever it is.
    """

    def __init__(self, decoder: UnetrDecoder, dtype: torch.dtype) -> None:
        blocks: Any = decoder  # MONAI's, which nn.Module hides from the type checker
        self._decoder = blocks
        self.dtype = dtype
        self._weights: dict[tuple[int, str], Tensor] = {}
        self._width = int(blocks.ups[0].conv_block.conv2.conv.weight.shape[0])

    def image_skip(self, image: Tensor) -> ImageSkip:
        """(B, channels, D, H, W) to what does not depend on the keep ratio."""
        skip = self._residual(self._decoder.image_block.layer, self._laid(image))
        block = self._decoder.ups[0].conv_block
        return ImageSkip(self._conv(skip, block.conv1.conv, "image"), self._conv(skip, block.conv3.conv, "image"))

    def __call__(self, grid: Tensor, skip: ImageSkip) -> Tensor:
        """Token grid (B, C, d, h, w) and image skip to logits (B, classes, D, H, W) in float32."""
        decoder = self._decoder
        top = len(decoder.ups) - 1
        x, grid = self._laid(decoder.coarsest(grid.float())), self._laid(grid)
        for level in range(top, 0, -1):
            up, skip_block = decoder.ups[level], decoder.skips[level - 1]
            if level == top and decoder.pool is None:  # both come from the same tokens
                both = self._upsampled(x, up.transp_conv.conv, skip_block.transp_conv_init.conv)
            else:
                both = torch.cat([self._upsampled(x, up.transp_conv.conv), self._skip(skip_block, grid)], dim=1)
            x = self._residual(up.conv_block, both)
        last = decoder.ups[0]
        x = self._upsampled(x, last.transp_conv.conv)
        main = self._conv(x, last.conv_block.conv1.conv, "tokens").add_(skip.main)
        short = self._conv(x, last.conv_block.conv3.conv, "tokens").add_(skip.short)
        x = self._after_first(last.conv_block, main, short)
        logits = self._conv(x, decoder.out.conv.conv)
        return logits.to(torch.float32, memory_format=torch.contiguous_format)

    # Blocks

    def _skip(self, block: Any, grid: Tensor) -> Tensor:
        if not hasattr(block, "transp_conv_init"):  # the level below the token grid
            return self._residual(block.layer, grid)
        x = self._upsampled(grid, block.transp_conv_init.conv)
        for transposed, residual in block.blocks:
            x = self._residual(residual, self._upsampled(x, transposed.conv))
        return x

    def _residual(self, block: Any, x: Tensor) -> Tensor:
        """MONAI's `UnetResBlock`."""
        short = self._conv(x, block.conv3.conv) if block.downsample else x
        return self._after_first(block, self._conv(x, block.conv1.conv), short)

    def _after_first(self, block: Any, main: Tensor, short: Tensor) -> Tensor:
        """The same from its first convolutions on."""
        main = F.leaky_relu_(_norm(main), _SLOPE)
        main = _norm(self._conv(main, block.conv2.conv))
        return F.leaky_relu_(main.add_(_norm(short) if block.downsample else short), _SLOPE)

    # Steps

    def _laid(self, x: Tensor) -> Tensor:
        return x.to(self.dtype).contiguous(memory_format=_LAST)

    def _conv(self, x: Tensor, conv: nn.Module, part: str = "") -> Tensor:
        """A convolution that keeps the size; of a part of its input channels, if one is named."""
        weight, bias = self._weight(conv, part), self._bias(conv)
        pad = [(side - 1) // 2 for side in weight.shape[2:]]
        if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
            # `conv3d` sends small inputs to a kernel that is three times slower.
            result: Tensor = torch.ops.aten.mkldnn_convolution(x, weight, bias, pad, [1] * 3, [1] * 3, 1)
            return result
        return F.conv3d(x, weight, bias, padding=pad)

    def _weight(self, conv: Any, part: str) -> Tensor:
        key = (id(conv), part)
        if key not in self._weights:
            weight = conv.weight.detach()
            if part:  # of the last block: first what comes from the tokens, then the image skip
                weight = weight[:, : self._width] if part == "tokens" else weight[:, self._width :]
            self._weights[key] = weight.to(self.dtype).contiguous(memory_format=_LAST)
        return self._weights[key]

    def _bias(self, conv: Any) -> Tensor | None:
        return None if conv.bias is None else conv.bias.detach().to(self.dtype)

    def _upsampled(self, x: Tensor, *convs: Any) -> Tensor:
        """Transposed convolutions of 2×2×2 voxels with stride 2, side by side.

        Each voxel becomes eight, by one product.
        """
        b, c, d, h, w = x.shape
        key = (id(convs[0]), "up")
        if key not in self._weights:
            weight = torch.cat([conv.weight.detach() for conv in convs], dim=1).to(self.dtype)
            self._weights[key] = weight.permute(0, 2, 3, 4, 1).reshape(c, -1).contiguous()  # C 8·out
        eight = x.permute(0, 2, 3, 4, 1).reshape(-1, c) @ self._weights[key]  # B·d·h·w 8·out
        laid = eight.view(b, d, h, w, 2, 2, 2, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)  # B d 2 h 2 w 2 out
        return laid.reshape(b, 2 * d, 2 * h, 2 * w, -1).permute(0, 4, 1, 2, 3)  # B out D H W, channels last


def _norm(x: Tensor) -> Tensor:
    """Instance norm; as a group norm of one channel each it takes a quarter of the time on a CPU."""
    return F.group_norm(x, x.shape[1])
