"""Attention maps, looked at row by row: no matrix of all tokens against all tokens is ever held for all heads.

The fused kernel that the blocks run with does not say how it attends; these functions compute it again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_sparsetok.model.layers import Attention

ROWS = 256
"""Queries that are looked at together; bounds memory to this many rows of one head."""


def queries_and_keys(attention: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Queries, scaled for a softmax, and keys of normed tokens (B, N, C): each (B, heads, N, C/heads)."""
    b, n, c = x.shape
    weight, bias = attention.qkv.weight[: 2 * c], attention.qkv.bias[: 2 * c]
    qk = torch.nn.functional.linear(x, weight, bias).reshape(b, n, 2, attention.heads, c // attention.heads)
    q, k = qk.permute(2, 0, 3, 1, 4).unbind(0)  # each B h N C/h
    return q.float() * (c // attention.heads) ** -0.5, k.float()


def attention_received(attention: Attention, x: Tensor) -> Tensor:
    """How much attention each token gets on average over queries and heads, times the number of tokens.

    Parameters
    ----------
    x : (B, N, C), normed as the block does it.

    Returns
    -------
    (B, N); 1 is an even share.
    """
    q, k = queries_and_keys(attention, x)
    n = x.shape[1]
    got = torch.zeros(x.shape[0], n, device=x.device)
    for head in range(attention.heads):
        for start in range(0, n, ROWS):
            rows = (q[:, head, start : start + ROWS] @ k[:, head].transpose(1, 2)).softmax(dim=-1)  # B rows N
            got += rows.sum(dim=1)
    return got / attention.heads
