"""The parts of a vision transformer that know nothing of pruning."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6


class PatchEmbedding(nn.Module):
    """Cut a volume into cubes of ``patch`` voxels and project each to one token."""

    def __init__(self, in_channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_channels, dim, kernel_size=patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        """(B, channels, D, H, W) to (B, dim, D/patch, H/patch, W/patch)."""
        tokens: Tensor = self.proj(image)
        return tokens


class Attention(nn.Module):
    """Multi-head self-attention through PyTorch's fused kernel."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads)  # B N C -> B N 3 h C/h
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each B h N C/h
        x = F.scaled_dot_product_attention(q, k, v)
        x = x.transpose(1, 2).reshape(b, n, c)  # B h N C/h -> B N C
        out: Tensor = self.proj(x)
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class DropPath(nn.Module):
    """Skip a residual branch for whole samples at random while training (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.rate
        return x * kept.to(x.dtype) / (1.0 - self.rate)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@lru_cache(maxsize=32)
def _sincos(grid: tuple[int, int, int], dim: int) -> Tensor:
    width = dim // 6
    if width == 0:
        raise ValueError(f"a 3-D sine-cosine position code needs a width of 6 or more, not {dim}")
    omega = 1.0 / 10000 ** (torch.arange(width, dtype=torch.float32) / width)
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * omega for axis in axes]  # three times N width
    code = torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)
    return F.pad(code, (0, dim - code.shape[1]))[None]  # 1 N dim


def sincos_positions(grid: tuple[int, int, int], dim: int, like: Tensor) -> Tensor:
    """Fixed 3-D sine-cosine position codes for any token grid.

    Parameters
    ----------
    grid : the token grid's size along each axis.
    dim : width of the code; what is left over after six equal parts is zero.
    like : a tensor whose device and dtype the code takes.

    Returns
    -------
    (1, N, dim), tokens in grid order.
    """
    return _sincos(grid, dim).to(device=like.device, dtype=like.dtype)
