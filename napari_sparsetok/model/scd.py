"""The whole network, put together in one place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sparsetok.model.attention import attention_received
from napari_sparsetok.model.completion import TokenAssembly
from napari_sparsetok.model.config import Grid, SCDConfig
from napari_sparsetok.model.decoder import UnetrDecoder
from napari_sparsetok.model.layers import NORM_EPS, Block, PatchEmbedding, sincos_positions
from napari_sparsetok.model.pruning import Rule, ScoreNetwork, Split, gather, soft_split, split
from napari_sparsetok.tokens import stage_ratios

LEARNED = Rule()
"""The network's own scores and nothing else."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """What of a forward pass does not depend on the keep ratio.

    tokens : (B, c+N, C), after the blocks before the first stage; c is 1 with a class token.
    scores : (B, N), log-sigmoid scores of the first stage.
    places : (B, c+N) of the tokens, rising, among the class token, if any, and the grid.
    grid : the token grid; N is its product, or less if patches were empty.
    """

    tokens: Tensor
    scores: Tensor
    places: Tensor
    grid: Grid

    def of(self, row: int) -> Prefix:
        """That of one window, with memory of its own."""
        tokens, scores, places = (x[row : row + 1].clone() for x in (self.tokens, self.scores, self.places))
        return Prefix(tokens, scores, places, self.grid)

    def to(self, device: torch.device) -> Prefix:
        """The same on a device."""
        return Prefix(self.tokens.to(device), self.scores.to(device), self.places.to(device), self.grid)

    @classmethod
    def joined(cls, prefixes: Sequence[Prefix]) -> Prefix:
        """Those of several windows of one size as one batch."""
        tokens, scores, places = (
            torch.cat([getattr(prefix, name) for prefix in prefixes]) for name in ("tokens", "scores", "places")
        )
        return cls(tokens, scores, places, prefixes[0].grid)


@dataclass(frozen=True, eq=False)
class TokenRecord:
    """What happened to every token.

    scores : for every stage (B, d, h, w), the scores that ranked the tokens; NaN where a token was gone by then.
        Learned ones are log-sigmoid.
    stage : (B, d, h, w) uint8, as in `TokenMap`: the stage that pruned the token, counted from 1; stages + 1 if it was
        kept to the end; 0 if it never entered.
    """

    scores: tuple[Tensor, ...]
    stage: Tensor

    @classmethod
    def joined(cls, records: Sequence[TokenRecord]) -> TokenRecord:
        """Those of several batches as one."""
        scores = zip(*(record.scores for record in records), strict=True)
        return cls(tuple(torch.cat(each) for each in scores), torch.cat([record.stage for record in records]))


class _Step(NamedTuple):
    """One stage: its scores (B, N), what it pruned (B, P, C), what it let on (B, c+K, C), and both's places."""

    scores: Tensor
    pruned: Tensor
    pruned_places: Tensor
    kept: Tensor
    places: Tensor


class SCD(nn.Module):
    """Sparse encoding, token completion, dense decoding (Zhou et al., IPMI 2023).

    Beyond the paper, a network may be made to take in no patch of nothing but background (`SCDConfig.empty`): no block
    sees it, nothing scores it, no keep ratio counts it, and in its place the decoder gets one learned token. Of a
    window that is empty all over, the first patch enters. As windows then differ in how many tokens they have, they
    are encoded one by one.
    """

    def __init__(self, config: SCDConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.patch_embedding = PatchEmbedding(c.in_channels, c.dim, c.patch)
        self.class_tokens = int(c.class_token)
        if c.class_token:
            self.class_token = nn.Parameter(torch.zeros(1, 1, c.dim))
        if c.positions == "learned":
            n = math.prod(c.grid()) + self.class_tokens
            self.positions = nn.Parameter(torch.randn(1, n, c.dim) * 0.02)
        rates = [c.drop_path * i / max(1, c.depth - 1) for i in range(c.depth)]
        self.blocks = nn.ModuleList(Block(c.dim, c.heads, c.mlp_ratio, rate) for rate in rates)
        self.scores = nn.ModuleList(ScoreNetwork(c.dim) for _ in range(1 if c.shared_scores else c.stages))
        self.stage_norms = nn.ModuleList(nn.LayerNorm(c.dim, eps=NORM_EPS) for _ in range(c.stages))
        self.norm = nn.LayerNorm(c.dim, eps=NORM_EPS)
        if c.empty is not None:
            self.empty_token = nn.Parameter(torch.zeros(1, 1, c.dim))
        self.completion = TokenAssembly(
            c.stages + 1,
            c.dim,
            c.completion_dim,
            c.completion_depth,
            c.completion_heads,
            assemble=c.completion == "assembly",
        )
        self.decoder = UnetrDecoder(c.in_channels, c.out_channels, c.dim, c.patch, c.features, c.pooled_decoder)
        self.apply(_initialise)

    # The five steps, each usable alone: the engine caches what the first two return.

    def encode_prefix(self, image: Tensor) -> Prefix:
        """Embed an image (B, channels, D, H, W) and run the blocks before the first stage.

        Raises
        ------
        ValueError : the image's channels or size do not fit the network, or these windows must be encoded one by one.
        """
        self._check(image)
        x = self.patch_embedding(image)
        grid = cast(Grid, tuple(x.shape[2:]))
        x = x.flatten(2).transpose(1, 2)  # B C d h w -> B N C
        if self.class_tokens:
            x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)  # B 1+N C
        x = x + self._encoder_positions(grid, x)
        places = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)  # B c+N
        if self.config.empty is not None:
            places = self._entering(image, self.config.empty)
            x = gather(x, places)
        for block in self.blocks[: self._first_stage_at]:
            x = block(x)
        return Prefix(x, self._score(0, x), places, grid)

    def prefixes(self, image: Tensor) -> list[Prefix]:
        """Of a batch of windows (B, channels, D, H, W), as few as can be: one, or one for each if some may be empty."""
        together = len(image) if self.config.empty is None else 1
        return [self.encode_prefix(part) for part in image.split(together)]

    def image_skip(self, image: Tensor) -> Tensor:
        """The decoder's view of the image: (B, features, D, H, W)."""
        return self.decoder.image_skip(image)

    def encode_rest(
        self, prefix: Prefix, keep_ratio: float | Sequence[float], rule: Rule = LEARNED
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Prune and run the remaining blocks.

        Parameters
        ----------
        prefix : from `encode_prefix`.
        keep_ratio : share of the tokens still left that a stage keeps, in (0, 1]; one for all or one a stage.
        rule : what ranks the tokens. In training it is always the learned scores.

        Returns
        -------
        parts : (B, Ki, C) the tokens pruned at each stage, and last the survivors.
        ids : (B, Ki) their places among the class token, if any, and the grid.
        scores : (B, Ni) for each stage, of the tokens that entered it.
        """
        x, places = prefix.tokens, prefix.places
        parts, ids, all_scores = [], [], []
        for stage, step in enumerate(self._steps(prefix, keep_ratio, rule)):
            all_scores.append(step.scores)
            parts.append(self.stage_norms[stage](step.pruned))
            ids.append(step.pruned_places)
            x, places = step.kept, step.places
        for block in self.blocks[self._last_stage_at :]:
            x = block(x)
        return [*parts, self.norm(x)], [*ids, places], all_scores

    def survivors(self, prefix: Prefix, keep_ratio: float | Sequence[float], rule: Rule = LEARNED) -> Tensor:
        """Places (B, c+K), as in `prefix.places`, of what is kept to the end; runs no block after the last stage."""
        places = prefix.places
        for step in self._steps(prefix, keep_ratio, rule):
            places = step.places
        return places

    def survives(self, prefix: Prefix, place: int, keep_ratio: float | Sequence[float], rule: Rule = LEARNED) -> bool:
        """Whether a token of one window, by its place as in `prefix.places`, is kept to the end.

        Runs no more blocks than that needs: none if the first stage prunes it, and none after the last stage.
        """
        return all(bool((step.places[0] == place).any()) for step in self._steps(prefix, keep_ratio, rule))

    def complete(self, parts: list[Tensor], ids: list[Tensor], grid: Grid) -> Tensor:
        """Assemble pruned and kept tokens to the completed grid (B, C, d, h, w)."""
        x = self.completion(parts, ids, grid, self.class_tokens)
        return self.laid(x, torch.cat(ids, dim=1).sort(dim=1).values, grid)

    def laid(self, tokens: Tensor, places: Tensor, grid: Grid) -> Tensor:
        """Tokens (B, N, C) that completion returned, on the grid (B, C, d, h, w), with those that never entered.

        `places` (B, c+N) are theirs, in this order, among the class token, if any, and the grid.
        """
        n = math.prod(grid)
        if tokens.shape[1] < n:
            at = places[:, self.class_tokens :, None] - self.class_tokens
            empty = self.empty_token.to(tokens.dtype).expand(len(tokens), n, -1)
            tokens = empty.scatter(1, at.expand_as(tokens), tokens)
        return tokens.transpose(1, 2).unflatten(2, grid)

    def completed(
        self, prefixes: Sequence[Prefix], keep_ratio: float | Sequence[float], rule: Rule = LEARNED
    ) -> tuple[Tensor, TokenRecord]:
        """All between `prefixes` and `decode`: the completed grids of a batch (B, C, d, h, w), and its record."""
        grids, records, row = [], [], 0
        for prefix in prefixes:
            rows = slice(row, row := row + len(prefix.tokens))
            parts, ids, scores = self.encode_rest(prefix, keep_ratio, rule.of(rows))
            grids.append(self.complete(parts, ids, prefix.grid))
            records.append(self.record(ids, scores, prefix.grid))
        return torch.cat(grids), TokenRecord.joined(records)

    def decode(self, completed: Tensor, image_skip: Tensor) -> Tensor:
        """Completed grid (B, C, d, h, w) and image skip to logits (B, classes, D, H, W)."""
        return cast(Tensor, self.decoder(completed, image_skip))

    def forward(
        self, image: Tensor, keep_ratio: float | Sequence[float] = 1.0, rule: Rule = LEARNED
    ) -> tuple[Tensor, TokenRecord]:
        """Segment a batch of windows.

        Parameters
        ----------
        image : (B, channels, D, H, W), each side a multiple of the patch.
        keep_ratio, rule : see `encode_rest`. A ratio of 1 is exactly the dense network, but for empty patches.

        Returns
        -------
        logits : (B, classes, D, H, W).
        record : what happened to every token.
        """
        completed, record = self.completed(self.prefixes(image), keep_ratio, rule)
        return self.decode(completed, self.image_skip(image)), record

    def record(self, ids: list[Tensor], scores: list[Tensor], grid: Grid) -> TokenRecord:
        """Lay what `encode_rest` returned on the token grid."""
        c, n = self.class_tokens, math.prod(grid)
        stage = torch.zeros(len(ids[0]), n, dtype=torch.uint8, device=ids[0].device)
        for k, places in enumerate([*ids[:-1], ids[-1][:, c:]], start=1):
            stage.scatter_(1, places - c, k)
        maps = []
        for k, values in enumerate(scores, start=1):
            # The tokens that entered stage k are those that no earlier stage had pruned, in rising order.
            entered = stage >= k
            laid = torch.full(stage.shape, float("nan"), dtype=torch.float32, device=stage.device)
            laid[entered] = values.float().flatten()
            maps.append(laid.unflatten(1, grid))
        return TokenRecord(tuple(maps), stage.unflatten(1, grid))

    # Details

    @property
    def _first_stage_at(self) -> int:
        return self.config.prune_after[0] if self.config.stages else self.config.depth

    @property
    def _last_stage_at(self) -> int:
        return self.config.prune_after[-1] if self.config.stages else self.config.depth

    def _steps(self, prefix: Prefix, keep_ratio: float | Sequence[float], rule: Rule) -> Iterator[_Step]:
        """Prune stage by stage; the blocks before a stage run when it is asked for."""
        ratios = stage_ratios(keep_ratio, self.config.stages)
        c, after = self.class_tokens, self.config.prune_after
        x, places = prefix.tokens, prefix.places
        for stage in range(self.config.stages):
            for block in self.blocks[after[stage - 1] : after[stage]] if stage else ():
                x = block(x)
            here = rule.at(places[:, c:] - c)
            scores = prefix.scores if here.selection == "learned" and not stage else self._ranking(stage, x, here)
            cut = self._cut(x[:, c:], scores, ratios[stage], here)
            pruned_places = places[:, c:].gather(1, cut.pruned_ids)
            x = torch.cat([x[:, :c], cut.kept], dim=1)
            places = torch.cat([places[:, :c], places[:, c:].gather(1, cut.kept_ids)], dim=1)
            yield _Step(scores, cut.pruned, pruned_places, x, places)

    def _entering(self, image: Tensor, empty: float) -> Tensor:
        """Places (1, c+N) of the class token, if any, and of the patches of a window that are not empty."""
        if len(image) > 1:
            raise ValueError(
                "windows that may hold empty patches have different numbers of tokens; run them one by one"
            )
        highest = F.max_pool3d(image.amax(dim=1, keepdim=True), self.config.patch)  # 1 1 d h w
        enters = (highest > empty).flatten()
        enters[0] |= ~enters.any()  # no block can do with no token at all
        always = enters.new_ones(self.class_tokens)
        return torch.cat([always, enters]).nonzero().T

    def _score(self, stage: int, tokens: Tensor) -> Tensor:
        network = self.scores[0 if self.config.shared_scores else stage]
        return cast(Tensor, network(tokens[:, self.class_tokens :]))

    def _ranking(self, stage: int, tokens: Tensor, rule: Rule) -> Tensor:
        """What ranks the tokens (B, c+N, C) that are left: (B, N)."""
        c = self.class_tokens
        if rule.selection == "learned":
            return self._score(stage, tokens)
        if rule.selection == "norm":
            return tokens[:, c:].float().norm(dim=-1)
        if rule.selection == "attention":  # in the block that comes next, as its tokens would see each other unpruned
            block = cast(Block, self.blocks[min(self.config.prune_after[stage], self.config.depth - 1)])
            return attention_received(block.attn, block.norm1(tokens))[:, c:]
        if rule.given is None:
            raise ValueError(f"the selection “{rule.selection}” needs scores of its own")
        return rule.given

    def _cut(self, tokens: Tensor, scores: Tensor, ratio: float, rule: Rule) -> Split:
        # Without a class token a stage that keeps nothing would leave no token at all.
        keep = rule.count(scores, ratio, minimum=1 - self.class_tokens)
        return soft_split(tokens, scores, keep) if self.training else split(tokens, rule.priority(scores), keep)

    def _encoder_positions(self, grid: Grid, like: Tensor) -> Tensor:
        if self.config.positions == "learned":
            if grid != self.config.grid():
                raise ValueError(f"this model takes windows of {self.config.window} voxels only")
            return self.positions
        codes = sincos_positions(grid, self.config.dim, like=like)
        return torch.cat([torch.zeros_like(codes[:, :1]), codes], dim=1) if self.class_tokens else codes

    def _check(self, image: Tensor) -> None:
        if image.ndim != 5 or image.shape[1] != self.config.in_channels:
            raise ValueError(
                f"this model takes {self.config.in_channels} channel(s) of a volume, "
                f"not an array of {tuple(image.shape)}"
            )
        if any(side % self.config.patch or not side for side in image.shape[2:]):
            raise ValueError(f"a window of {tuple(image.shape[2:])} is not a multiple of {self.config.patch} voxels")


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
