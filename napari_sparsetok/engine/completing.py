"""Token completion of one window under many keep ratios: what they share is computed once.

Every keep ratio prunes, at the first stage, the tokens of the lowest scores, and what they bring into completion does
not depend on it. So in the first block their queries, keys and values are the same at every ratio, and so is what they
see of each other. A softmax over several sets of keys is that over each set, weighed by the sums of exponents; which
is exact, so what the sets share can be kept and the rest added. In float32, that is: in bfloat16 the rounding could be
seen in the mask, and putting the parts together takes as long as what it saves.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from napari_sparsetok.model import SCD, Prefix, Rule
from napari_sparsetok.model.layers import Block, sincos_positions

Seen = tuple[Tensor, Tensor]
"""What queries saw of a set of keys: the mean of the values (1, h, Q, d), and the log of the sum of exponents."""


class Shared:
    """Of one window, what completion at one keep ratio leaves for the next. Empty at first.

    order : (N,) places of all tokens, by rising score at the first stage. What a ratio prunes there are the first.
    tokens : (N, W) in this order, as the first block gets them if they were pruned at the first stage.
    query, key, value : (1, h, N, d) of these.
    among : what the first L of them see of each other, from the last run.
    """

    order: Tensor
    tokens: Tensor
    query: Tensor
    key: Tensor
    value: Tensor
    among: Seen | None

    def __init__(self) -> None:
        self.among = None
        self.filled = False

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        if not self.filled:
            return 0
        held = (self.order, self.tokens, self.query, self.key, self.value, *(self.among or ()))
        return sum(tensor.nbytes for tensor in held)

    def first(self, count: int) -> Seen:
        """What the first tokens see of each other, built on the last run if that had no more of them."""
        known = 0 if self.among is None else self.among[0].shape[2]
        if self.among is None or known > count:
            self.among = _see(self.query[:, :, :count], self.key[:, :, :count], self.value[:, :, :count])
        elif known < count:
            fresh = slice(known, count)
            old = _both(self.among, _see(self.query[:, :, :known], self.key[:, :, fresh], self.value[:, :, fresh]))
            new = _see(self.query[:, :, fresh], self.key[:, :, :count], self.value[:, :, :count])
            self.among = (torch.cat([old[0], new[0]], dim=2), torch.cat([old[1], new[1]], dim=2))
        return self.among


class SharedCompletion:
    """Completes the grid of one window as `SCD.complete` does, to rounding, with what higher keep ratios left.

    Keep ratios should come from 1 down: a run that prunes nothing begins anew, so that what comes of a series does not
    depend on what was asked before; after a lower ratio a higher one finds nothing that it can use.
    """

    def __init__(self, model: SCD) -> None:
        self._model = model
        self._assembly = model.completion
        config = model.config
        self._able = (
            config.stages > 0
            and not config.class_token
            and config.completion == "assembly"
            and config.completion_depth > 0
            and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")  # tells the sums of exponents
        )

    def fits(self, rule: Rule) -> bool:
        """Whether this network shares anything, here and by a rule under which only the lowest scores are pruned."""
        here = self._model.norm.weight.device.type == "cpu"
        return self._able and here and rule.selection == "learned" and rule.forced is None

    def __call__(self, prefix: Prefix, shared: Shared, parts: list[Tensor], ids: list[Tensor]) -> Tensor:
        """The completed grid (1, C, d, h, w).

        Parameters
        ----------
        prefix : of the window.
        shared : what earlier ratios left; this one writes into it.
        parts, ids : from `SCD.encode_rest`.
        """
        if not ids[0].shape[1]:
            shared.among = None
            return self._model.complete(parts, ids, prefix.grid)
        if not shared.filled:
            self._fill(shared, prefix)
        return self._model.laid(self._assembled(shared, parts, ids, prefix), prefix.places, prefix.grid)

    def _fill(self, shared: Shared, prefix: Prefix) -> None:
        assembly, block = self._assembly, cast(Block, self._assembly.blocks[0])
        order = prefix.scores[0].argsort(descending=True, stable=True).flip(0)
        shared.order = prefix.places[0].index_select(0, order)
        tokens = self._model.stage_norms[0](prefix.tokens[0].index_select(0, order))
        tokens = assembly.pre_linear[0](tokens) + assembly.layer_tokens[0][0]
        shared.tokens = tokens + sincos_positions(prefix.grid, tokens.shape[-1], like=tokens)[0, shared.order]
        shared.query, shared.key, shared.value = _heads(block, shared.tokens)
        shared.filled = True

    def _assembled(self, shared: Shared, parts: list[Tensor], ids: list[Tensor], prefix: Prefix) -> Tensor:
        assembly, block, count = self._assembly, cast(Block, self._assembly.blocks[0]), ids[0].shape[1]
        sets = zip(assembly.pre_linear, assembly.layer_tokens, parts, strict=True)
        late = torch.cat([(linear(part) + token)[0] for linear, token, part in list(sets)[1:]])  # K W
        places = torch.cat([places[0] for places in ids[1:]])
        late = late + sincos_positions(prefix.grid, late.shape[-1], like=late)[0, places]
        query, key, value = _heads(block, late)  # 1 h K d
        early = _both(shared.first(count), _see(shared.query[:, :, :count], key, value))[0]
        keys, values = torch.cat([shared.key[:, :, :count], key], 2), torch.cat([shared.value[:, :, :count], value], 2)
        seen = torch.cat([early, _see(query, keys, values)[0]], dim=2)  # 1 h N d
        x = torch.cat([shared.tokens[:count], late])[None]  # 1 N W
        x = x + block.attn.proj(seen.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
        back = torch.cat([shared.order[:count], places]).argsort()
        x = x.index_select(1, back)
        for more in list(assembly.blocks)[1:]:
            x = more(x)
        return cast(Tensor, assembly.out_linear(assembly.norm(x)))


def _heads(block: Block, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (1, h, N, d) of tokens (N, W) in a block."""
    three = block.attn.qkv(block.norm1(tokens)).unflatten(-1, (3, block.attn.heads, -1))  # N 3 h d
    query, key, value = three.permute(1, 2, 0, 3)[:, None].unbind(0)
    return query, key, value


def _see(query: Tensor, key: Tensor, value: Tensor) -> Seen:
    seen: Seen = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)
    return seen


def _both(one: Seen, other: Seen) -> Seen:
    """What was seen of two sets of keys together."""
    share = (other[1] - one[1]).sigmoid()[..., None]  # of the second set's exponents
    return one[0].lerp(other[0], share), torch.logaddexp(one[1], other[1])
