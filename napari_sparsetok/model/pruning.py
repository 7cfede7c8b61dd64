"""Sparse encoding: score the tokens, keep the best share, and be able to undo the split.

After soft top-k token pruning (STP) of Zhou et al., "Token Sparsification for Faster Medical Image
Segmentation", IPMI 2023.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sparsetok.state import Selection
from napari_sparsetok.tokens import count_kept


class ScoreNetwork(nn.Module):
    """How much each token matters, seen from itself and from the mean of all.

    Layer norm and a linear layer; half of the features stay the token's own, the other half is
    replaced by its mean over the tokens; three linear layers make one number of them.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.out_mlp = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(), nn.Linear(dim // 4, 1)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) tokens to (B, N) log-sigmoid scores, at most 0.

        Always in float32: in bfloat16 many tokens would score the same, and which of them are kept would be chance.
        """
        # Costs are counted on the meta device, which autocast does not know.
        with torch.autocast("cpu" if tokens.is_meta else tokens.device.type, enabled=False):
            x = self.in_mlp(tokens.float())
            local, shared = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]  # B N C/2 each
            shared = shared.mean(dim=1, keepdim=True).expand_as(shared)
            return F.logsigmoid(self.out_mlp(torch.cat([local, shared], dim=-1)).squeeze(-1))


class Split(NamedTuple):
    """Tokens cut in two. Ids count along the axis that was split and rise within each part."""

    kept: Tensor  # B K C
    pruned: Tensor  # B N-K C
    kept_ids: Tensor  # B K
    pruned_ids: Tensor  # B N-K


def gather(tokens: Tensor, ids: Tensor) -> Tensor:
    """Pick tokens (B, N, C) by ids (B, K) to (B, K, C)."""
    b, n, c = tokens.shape
    if b == 1:
        return tokens[0].index_select(0, ids[0])[None]
    # Whole rows are copied; `Tensor.gather` would look up an index for every single number.
    rows = ids + n * torch.arange(b, device=ids.device)[:, None]  # B K, among the tokens of all
    return tokens.reshape(b * n, c).index_select(0, rows.flatten()).view(b, -1, c)


def rank_ids(priority: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Ids of the `keep` highest of (B, N) and of the others, each in rising order."""
    # A stable sort, so that equal scores give the same members on every run.
    order = priority.argsort(dim=1, descending=True, stable=True)
    return order[:, :keep].sort(dim=1).values, order[:, keep:].sort(dim=1).values


def split(tokens: Tensor, priority: Tensor, keep: int) -> Split:
    """Cut tokens (B, N, C) into the `keep` of highest priority (B, N) and the others."""
    kept_ids, pruned_ids = rank_ids(priority, keep)
    return Split(gather(tokens, kept_ids), gather(tokens, pruned_ids), kept_ids, pruned_ids)


@dataclass(frozen=True, eq=False)
class Rule:
    """What decides which tokens a stage keeps, beside how many. By default the network's own scores alone.

    selection : see `napari_sparsetok.state.Settings`.
    threshold : keep the tokens that score at least this, instead of a share; in the units of the scores, but for
        learned scores, which are logarithms here, a probability.
    given : (B, N) the scores, for the selections that do not come from the tokens: random, entropy, oracle.
    forced : (B, N) above 0 must be kept, below 0 must go.
    """

    selection: Selection = "learned"
    threshold: float | None = None
    given: Tensor | None = None
    forced: Tensor | None = None

    def at(self, ids: Tensor) -> Rule:
        """The same rule for the tokens that are left, by their ids (B, K)."""
        if self.given is None and self.forced is None:
            return self
        given, forced = (None if x is None else x.gather(1, ids) for x in (self.given, self.forced))
        return replace(self, given=given, forced=forced)

    def of(self, rows: slice) -> Rule:
        """The same rule for some windows of the batch."""
        given, forced = (None if x is None else x[rows] for x in (self.given, self.forced))
        return replace(self, given=given, forced=forced)

    def count(self, scores: Tensor, ratio: float, minimum: int) -> int:
        """How many of the tokens with these scores (B, N) to keep.

        Tokens that must be kept are kept even if they are more than the share, and those that must go are not kept to
        fill it up; `minimum` holds in any case.

        Raises
        ------
        ValueError : it is not the same number in every row, so they cannot be run as one batch.
        """
        n = scores.shape[1]
        if self.threshold is None and self.forced is None:
            return count_kept(n, ratio, minimum)
        forced = torch.zeros_like(scores) if self.forced is None else self.forced
        if self.threshold is None:
            share = torch.full((len(scores),), count_kept(n, ratio, minimum), device=scores.device)
            keep = share.clamp(min=(forced > 0).sum(1), max=(forced >= 0).sum(1))
        else:
            shown = scores.exp() if self.selection == "learned" else scores
            keep = (((shown >= self.threshold) & (forced >= 0)) | (forced > 0)).sum(1)
        counts = set(keep.clamp(min=minimum).tolist())
        if len(counts) > 1:
            raise ValueError("these windows keep different numbers of tokens; run them one by one")
        return int(counts.pop())

    def priority(self, scores: Tensor) -> Tensor:
        """The order in which tokens are kept, as numbers (B, N): by score, those forced by hand first or last."""
        if self.forced is None:
            return scores
        n = scores.shape[1]
        order = scores.argsort(dim=1, descending=True, stable=True)
        place = torch.empty_like(order).scatter_(1, order, torch.arange(n, device=order.device).expand_as(order))
        return n * self.forced.sign().long() - place


def restore(parts: list[Tensor], ids: list[Tensor]) -> Tensor:
    """Put parts (B, Ki, C) back in order by their ids (B, Ki): the inverse of splitting.

    The ids of all parts together must be N different numbers in every row.
    """
    joined = torch.cat(parts, dim=1)  # B N C
    return gather(joined, torch.cat(ids, dim=1).argsort(dim=1))


def soft_split(tokens: Tensor, scores: Tensor, keep: int, tau: float = 1.0) -> Split:
    """The training version of `split`: Gumbel-perturbed, hard forward, soft backward.

    The values are those of a plain split by the perturbed scores; the gradient reaches the scores
    through the straight-through estimator, for kept and for pruned tokens alike.
    """
    gumbel = -torch.empty_like(scores).exponential_().log()
    soft = ((scores + gumbel.clamp(-50, 50)) / tau).softmax(dim=1)  # B N
    kept_ids, pruned_ids = rank_ids(soft, keep)
    hard = torch.zeros_like(soft).scatter(1, kept_ids, 1.0)
    member = hard - soft.detach() + soft  # B N: 0 or 1, with the gradient of `soft`
    kept = gather(tokens, kept_ids) * member.gather(1, kept_ids)[..., None]
    pruned = gather(tokens, pruned_ids) * (1 - member).gather(1, pruned_ids)[..., None]
    return Split(kept, pruned, kept_ids, pruned_ids)
