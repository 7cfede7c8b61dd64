"""Token completion: bring every token back to the grid before decoding.

After multi-layer token assembly (MTA) of Zhou et al., IPMI 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_sparsetok.model.layers import NORM_EPS, Block, sincos_positions
from napari_sparsetok.model.pruning import gather, restore


class TokenAssembly(nn.Module):
    """Tokens from several depths, made comparable, put in order and mixed.

    Each set of tokens passes a linear layer of its own and gets a token that names its depth. Then all are
    put back in grid order, get a position code, and pass a few transformer blocks.

    With `assemble` false only the survivors' features come back: in the place of a pruned token stands the token that
    names its depth, as masked autoencoders do it. That is for comparison.
    """

    def __init__(self, sets: int, dim: int, width: int, depth: int, heads: int, assemble: bool = True) -> None:
        super().__init__()
        self.pre_linear = nn.ModuleList(
            nn.Linear(dim, width) if assemble or k == sets - 1 else _Nothing(width) for k in range(sets)
        )
        self.layer_tokens = nn.ParameterList(nn.Parameter(torch.zeros(1, 1, width)) for _ in range(sets))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.out_linear = nn.Linear(width, dim)

    def forward(self, parts: list[Tensor], ids: list[Tensor], grid: tuple[int, int, int], class_tokens: int) -> Tensor:
        """Complete the grid, or as much of it as tokens were made of.

        Parameters
        ----------
        parts : one set (B, Ki, C) for every stage, the tokens pruned there, and last the survivors.
        ids : their places (B, Ki) among the class token (if any) and the tokens in grid order.
        grid : the token grid.
        class_tokens : 1 if place 0 is the class token, else 0. It is dropped at the end.

        Returns
        -------
        (B, N, C), tokens in grid order.
        """
        sets = [
            linear(part) + token for linear, token, part in zip(self.pre_linear, self.layer_tokens, parts, strict=True)
        ]
        x = restore(sets, ids)  # B c+N W
        positions = sincos_positions(grid, x.shape[-1], like=x)
        if class_tokens:
            positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
        if x.shape[1] < positions.shape[1]:
            places = torch.cat(ids, dim=1).sort(dim=1).values
            positions = gather(positions.expand(len(x), -1, -1), places)
        x = x + positions
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.out_linear(self.norm(x))
        return out[:, class_tokens:]


class _Nothing(nn.Module):
    """Forgets its tokens (B, K, C): zeros (B, K, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.new_zeros(*tokens.shape[:2], self._width)
