"""One window opened up: what its tokens scored, where they looked, what each head is good for. Arrays in numpy."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from napari_sparsetok.engine.cache import WindowPrefix
from napari_sparsetok.engine.contract import Reach, Stopped
from napari_sparsetok.engine.decoding import FastDecoder
from napari_sparsetok.model import SCD, Rule
from napari_sparsetok.model.attention import ROWS, attention_by_distance, attention_row, carried_back
from napari_sparsetok.model.layers import Block
from napari_sparsetok.scan import Region, Shape
from napari_sparsetok.tokens import StageStory, asked_by_kept_from, kept_from, story, tokens_left

_BINS = 12  # of distances


@dataclass(frozen=True, eq=False)
class Opened:
    """What a probe works on.

    image : (1, channels, D, H, W) of the window, on the device.
    prefix : of the window.
    ratios, rule : how its tokens are picked.
    box : the window's tokens on the lattice of the region.
    spacing : millimetres between tokens.
    forced : (d, h, w) of the window, or None.
    encoding, completing : contexts of reduced precision, as the engine runs these parts.
    """

    model: SCD
    decoder: FastDecoder
    image: Tensor
    prefix: WindowPrefix
    ratios: float | tuple[float, ...]
    rule: Rule
    box: Region
    spacing: tuple[float, float, float]
    forced: NDArray[np.int8] | None
    encoding: Callable[[], torch.autocast]
    completing: Callable[[], torch.autocast]


class Probe:
    """Answers about one window. Cheap to make: what costs something is computed when it is first asked for.

    Places are (z, y, x) of tokens within the window.
    """

    def __init__(self, opened: Opened) -> None:
        self._o = opened
        self.box = opened.box
        self.grid: Shape = opened.prefix.prefix.grid
        self.blocks, self.heads = opened.model.config.depth, opened.model.config.heads
        with torch.inference_mode(), opened.encoding():
            parts, ids, scores = opened.model.encode_rest(opened.prefix.prefix, opened.ratios, opened.rule)
            record = opened.model.record(ids, scores, self.grid)
        self._tokens = parts, ids
        self._by_share = replace(opened.rule, threshold=None)
        own = opened.rule.given is not None or opened.rule.forced is not None  # else the same for all settings
        self._survivors: dict[Hashable, NDArray[np.bool_]] = {} if own else opened.prefix.survivors
        values = np.array([s[0].float().cpu().numpy() for s in record.scores], dtype=np.float32)
        self._order = values  # probabilities near 0 or 1 may be equal where their logarithms are not
        self.scores: NDArray[Any] = np.exp(values) if opened.rule.selection == "learned" else values
        self.stage: NDArray[np.uint8] = record.stage[0].cpu().numpy()

    def story(self, place: Shape) -> tuple[StageStory, ...]:
        """How a token fared at each stage that it came to."""
        return story(self.scores, self.stage, place, self._o.forced, self._order)

    def survives(self, place: Shape, keep_ratio: float) -> bool:
        """Whether a token is kept to the end at another keep ratio, the same for all stages; runs the stages."""
        o, at = self._o, int(np.ravel_multi_index(place, self.grid))
        if keep_ratio >= 1:  # prunes only what a person said must go
            return bool(self.stage[place]) and (o.forced is None or bool(o.forced[place] >= 0))
        known = self._survivors.get(self._decided_by(keep_ratio))
        if known is not None:
            return bool(known[at])
        with torch.inference_mode(), o.encoding():
            return o.model.survives(o.prefix.prefix, at + o.model.class_tokens, keep_ratio, self._by_share)

    def get_ready(self, should_stop: Callable[[], bool]) -> None:
        """Compute beforehand what `probabilities` and `kept_from` need for any token, until it is told to stop."""
        _ = self.probabilities
        with suppress(Stopped), self._ended_by(should_stop):
            for ratio in asked_by_kept_from():
                if should_stop():
                    return
                if ratio < 1 and self._decided_by(ratio) not in self._survivors:
                    self._survivors[self._decided_by(ratio)] = self._kept_at(ratio)

    def _kept_at(self, keep_ratio: float) -> NDArray[np.bool_]:
        """Which tokens (N,) are kept to the end."""
        o, kept = self._o, np.zeros(int(np.prod(self.grid)), dtype=bool)
        with torch.inference_mode(), o.encoding():
            places = o.model.survivors(o.prefix.prefix, keep_ratio, self._by_share)
        kept[places[0, o.model.class_tokens :].cpu().numpy() - o.model.class_tokens] = True
        return kept

    def _decided_by(self, keep_ratio: float) -> Hashable:
        """Ratios that keep equally many tokens keep the same ones; tokens forced by hand change how many."""
        if self._o.rule.forced is not None:
            return keep_ratio
        config, classes = self._o.model.config, self._o.model.class_tokens
        left = tokens_left(int(np.count_nonzero(self.stage)), keep_ratio, config.stages, 1 - classes)
        return self._o.rule.selection, left

    def kept_from(self, place: Shape) -> float | None:
        """See `napari_sparsetok.tokens.kept_from`."""
        return kept_from(lambda ratio: self.survives(place, ratio))

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(classes, D, H, W) of this window alone, on the model's voxels."""
        parts, ids = self._tokens
        with torch.inference_mode(), self._o.completing():
            completed = self._o.model.complete(parts, ids, self.grid)
        with torch.inference_mode():
            return self._o.decoder(completed, self._o.prefix.skip)[0].softmax(dim=0).cpu().numpy()

    # Attention

    def attention(self, block: int, place: Shape, head: int | None = None) -> NDArray[np.float32]:
        """Where a token looks in a block, counted from 0: (d, h, w), NaN for tokens that were gone by then.

        `head` None is the mean of all. All NaN if the token itself was gone.
        """
        query = self._index(block, place)
        if query is None:
            return np.full(self.grid, np.nan, dtype=np.float32)
        with torch.inference_mode():
            return self._laid(block, attention_row(self._block(block).attn, self._normed(block), query, head))

    def rollout(self, place: Shape) -> NDArray[np.float32]:
        """How much of each patch came to a token through all blocks that it passed: (d, h, w), sums to 1 but for what
        the class token carries. All NaN if the token never entered.
        """
        last = max((b for b in range(self.blocks) if self._index(b, place) is not None), default=-1)
        if last < 0:
            return np.full(self.grid, np.nan, dtype=np.float32)
        weights = torch.zeros(len(self._there(last)), device=self._o.image.device)
        weights[self._index(last, place)] = 1.0
        with torch.inference_mode():
            for block in range(last, -1, -1):
                weights = carried_back(
                    self._block(block).attn, self._normed(block), self._widened(block, last, weights)
                )
                last = block
        return self._laid(0, weights)

    def reach(self, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Reach:
        """How far each head looks, in mm."""
        spacing = np.asarray(self._o.spacing, dtype=np.float32)
        at = np.argwhere(np.ones(self.grid)) * spacing
        longest = float(np.linalg.norm((np.asarray(self.grid) - 1) * spacing))
        edges = np.concatenate([[0], np.linspace(spacing.min() / 2, longest * 1.001, _BINS)]).astype(np.float32)
        c, device = self._o.model.class_tokens, self._o.image.device
        all_at = torch.from_numpy(np.concatenate([np.full((c, 3), np.nan), at]).astype(np.float32)).to(device)
        shares, means = [], []
        for block in range(self.blocks):
            there = torch.from_numpy(self._there(block)).to(device)
            with torch.inference_mode():
                share, mean = attention_by_distance(
                    self._block(block).attn, self._normed(block), all_at[there], torch.from_numpy(edges).to(device)
                )
            shares.append(share.cpu().numpy())
            means.append(mean.cpu().numpy())
            on_progress(block + 1, self.blocks)
        return Reach(edges, np.stack(shares), np.stack(means), _evenly(at[self.stage.ravel() > 0], edges))

    def masked_heads(
        self,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> NDArray[np.float32]:
        """(blocks, heads): how much of the window's labels changes if one head says nothing.

        1 less the Dice coefficient of what is labelled in the window, mean over the labels that there are.

        Raises
        ------
        Stopped : `should_stop` said so; asked before each head.
        """
        plain = self._labels()
        loss = np.zeros((self.blocks, self.heads), dtype=np.float32)
        for block in range(self.blocks):
            for head in range(self.heads):
                if should_stop():
                    raise Stopped
                with self._silenced(block, head):
                    loss[block, head] = 1 - _agreement(self._labels(), plain)
                on_progress(block * self.heads + head + 1, loss.size)
        return loss

    # Details

    def _labels(self) -> NDArray[np.int64]:
        o = self._o
        with torch.inference_mode():
            with o.encoding():
                prefix = o.model.encode_prefix(o.image)
                parts, ids, _ = o.model.encode_rest(prefix, o.ratios, o.rule)
            with o.completing():
                completed = o.model.complete(parts, ids, self.grid)
            return o.decoder(completed, o.prefix.skip)[0].argmax(0).cpu().numpy()

    @contextmanager
    def _silenced(self, block: int, head: int) -> Iterator[None]:
        width = self._o.model.config.dim // self.heads

        def silence(module: torch.nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
            x = arguments[0].clone()
            x[..., head * width : (head + 1) * width] = 0
            return (x,)

        handle = self._block(block).attn.proj.register_forward_pre_hook(silence)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _ended_by(self, should_stop: Callable[[], bool]) -> Iterator[None]:
        """Within it the model asks before each block: at a high keep ratio all of them take long."""

        def ask(module: torch.nn.Module, arguments: tuple[Tensor]) -> None:
            if should_stop():
                raise Stopped

        handles = [block.register_forward_pre_hook(ask) for block in self._o.model.blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _block(self, block: int) -> Block:
        return cast(Block, self._o.model.blocks[block])

    @cached_property
    def _inputs(self) -> list[Tensor]:
        """What came into each block: (1, c+N, C), with fewer N after each stage."""
        found: list[Tensor] = []

        def keep(module: torch.nn.Module, arguments: tuple[Tensor]) -> None:
            found.append(arguments[0])

        handles = [block.register_forward_pre_hook(keep) for block in self._o.model.blocks]
        try:
            with torch.inference_mode(), self._o.encoding():
                prefix = self._o.model.encode_prefix(self._o.image)
                self._o.model.encode_rest(prefix, self._o.ratios, self._o.rule)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _normed(self, block: int) -> Tensor:
        return cast(Tensor, self._block(block).norm1(self._inputs[block].float()))

    def _there(self, block: int) -> NDArray[np.intp]:
        """Places in the sequence c+N, rising, of what comes into a block."""
        c, flat = self._o.model.class_tokens, self.stage.ravel()
        passed = sum(after <= block for after in self._o.model.config.prune_after)
        return np.concatenate([np.arange(c), np.flatnonzero(flat > passed) + c])

    def _index(self, block: int, place: Shape) -> int | None:
        """Which of them a token is; None if it was gone."""
        there = self._there(block)
        at = int(np.ravel_multi_index(place, self.grid)) + self._o.model.class_tokens
        found = int(np.searchsorted(there, at))
        return found if found < len(there) and there[found] == at else None

    def _widened(self, block: int, above: int, weights: Tensor) -> Tensor:
        """Weights of the tokens of the block above, on the tokens of this one, which are as many or more."""
        if block == above:
            return weights
        at = np.searchsorted(self._there(block), self._there(above))
        wide = torch.zeros(len(self._there(block)), device=weights.device)
        wide[torch.from_numpy(at).to(weights.device)] = weights
        return wide

    def _laid(self, block: int, values: Tensor) -> NDArray[np.float32]:
        c = self._o.model.class_tokens
        laid = np.full(int(np.prod(self.grid)), np.nan, dtype=np.float32)
        laid[self._there(block)[c:] - c] = values[c:].float().cpu().numpy()
        return laid.reshape(self.grid)


def _evenly(at: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of all pairs of tokens (N, 3) that lie so far apart, for each bin of distances."""
    counts = np.zeros(len(edges) - 1)
    for start in range(0, len(at), ROWS):
        counts += np.histogram(cdist(at[start : start + ROWS], at), edges)[0]
    return (counts / counts.sum()).astype(np.float32)


def _agreement(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    labels = sorted((set(np.unique(a)) | set(np.unique(b))) - {0})
    each = [
        2 * np.count_nonzero((a == n) & (b == n)) / (np.count_nonzero(a == n) + np.count_nonzero(b == n))
        for n in labels
    ]
    return float(np.mean(each)) if each else 1.0


def place_in(box: Region, token: Sequence[int]) -> Shape:
    """A token of the lattice, within a window."""
    z, y, x = (t - a for t, a in zip(token, box.start, strict=True))
    return z, y, x
