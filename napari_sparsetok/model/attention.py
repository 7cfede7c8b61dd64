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


def attention_row(attention: Attention, x: Tensor, query: int, head: int | None = None) -> Tensor:
    """Where one token looks: (N,), which sums to 1.

    Parameters
    ----------
    x : (1, N, C), normed as the block does it.
    query : the token that looks.
    head : one head; None is the mean of all.
    """
    q, k = queries_and_keys(attention, x)
    rows = (q[0, :, query : query + 1] @ k[0].transpose(1, 2)).softmax(dim=-1)[:, 0]  # h N
    return rows.mean(dim=0) if head is None else rows[head]


def carried_back(attention: Attention, x: Tensor, weights: Tensor) -> Tensor:
    """One step of attention rollout (Abnar and Zuidema, 2020), from a block's output tokens to its input tokens.

    Parameters
    ----------
    x : (1, N, C), normed as the block does it.
    weights : (N,), how much each output token counts.

    Returns
    -------
    (N,): half of a token's weight stays, for the residual way; the other half goes where it looks, in the mean over
    heads.
    """
    q, k = queries_and_keys(attention, x)
    moved = torch.zeros_like(weights)
    used = weights.nonzero()[:, 0]
    for head in range(attention.heads):
        for ids in used.split(ROWS):
            rows = (q[0, head, ids] @ k[0, head].T).softmax(dim=-1)  # rows N
            moved += weights[ids] @ rows
    return (weights + moved / attention.heads) / 2


def attention_by_distance(attention: Attention, x: Tensor, at: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """How far the heads of a block look.

    Parameters
    ----------
    x : (1, N, C), normed as the block does it.
    at : (N, 3) where the tokens lie, in mm; NaN for one that lies nowhere (the class token), which is left out.
    edges : (bins + 1,) rising distances, mm.

    Returns
    -------
    share : (heads, bins) share of the attention that goes so far, mean over queries.
    mean : (heads,) mean distance in mm, weighted by attention.
    """
    here = at.isfinite().all(dim=1).nonzero()[:, 0]
    q, k = queries_and_keys(attention, x)
    q, k, at = q[0, :, here], k[0, :, here], at[here]
    bins = len(edges) - 1
    share, mean = torch.zeros(attention.heads, bins, device=x.device), torch.zeros(attention.heads, device=x.device)
    for start in range(0, len(here), ROWS):
        far = torch.cdist(at[start : start + ROWS], at)  # rows N
        place = (torch.bucketize(far, edges, right=True) - 1).clamp(0, bins - 1).flatten()
        for head in range(attention.heads):
            rows = (q[head, start : start + ROWS] @ k[head].T).softmax(dim=-1)  # rows N
            share[head].scatter_add_(0, place, rows.flatten())
            mean[head] += (rows * far).sum()
    return share / len(here), mean / len(here)
