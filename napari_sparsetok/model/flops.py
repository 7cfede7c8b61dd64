"""What a network costs, counted without weights or memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from napari_sparsetok.model.config import SCDConfig
from napari_sparsetok.model.scd import SCD
from napari_sparsetok.tokens import tokens_left

T = TypeVar("T")

_COMPLETION_MLP = 4.0  # what a `Block` widens by if nobody says


@dataclass(frozen=True)
class Cost:
    """The cost of one window.

    learned, fixed : numbers that training changes; entries of the fixed position codes. The published
        count of parameters is of both.
    prefix, rest, completion, decoder : GMAC of the encoder up to and after the first stage, of token
        completion, and of the decoder with its image skip.
    left : tokens before the first stage and after each, the class token not among them.
    """

    learned: int
    fixed: int
    prefix: float
    rest: float
    completion: float
    decoder: float
    left: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Learned and fixed, as published."""
        return self.learned + self.fixed

    @property
    def total(self) -> float:
        """GMAC of the whole."""
        return self.prefix + self.rest + self.completion + self.decoder


def count_cost(config: SCDConfig, keep_ratio: float | Sequence[float]) -> Cost:
    """Count parameters and multiply-accumulate operations of one window of the config's own size.

    Linear layers, convolutions and both products of attention count, as PyTorch's counter does;
    additions, norms and activations do not. The keep ratio is one for all stages, or one for each. No patch is
    empty.

    Raises
    ------
    ValueError : the keep ratio is outside (0, 1].
    """
    n, class_tokens = math.prod(config.grid()), int(config.class_token)
    left = tokens_left(n, keep_ratio, config.stages, minimum=1 - class_tokens)
    with torch.device("meta"):  # shapes alone: no memory, no arithmetic
        network = SCD(replace(config, empty=None)).eval()
        image = torch.empty(1, config.in_channels, *config.window)
    prefix, prefix_cost = _counted(lambda: network.encode_prefix(image))
    (parts, ids, _), rest_cost = _counted(lambda: network.encode_rest(prefix, keep_ratio))
    completed, completion_cost = _counted(lambda: network.complete(parts, ids, prefix.grid))
    _, decoder_cost = _counted(lambda: network.decode(completed, network.image_skip(image)))
    codes = config.completion_dim + (config.dim if config.positions == "sincos" else 0)
    return Cost(
        learned=sum(p.numel() for p in network.parameters()) + (0 if config.empty is None else config.dim),
        fixed=(n + class_tokens) * codes,
        prefix=prefix_cost,
        rest=rest_cost,
        completion=completion_cost,
        decoder=decoder_cost,
        left=left,
    )


def gmac_at(config: SCDConfig, left: Sequence[float]) -> float:
    """GMAC of one window that keeps these numbers of tokens, without counting the network again.

    Parameters
    ----------
    left : tokens before the first stage and after each, the class token not among them; means over windows do too.
        Where patches were empty, fewer come to the first stage than the window has.
    """
    embedding = math.prod(config.window) * config.in_channels * config.dim / 1e9
    fixed = embedding + _entry_gmac(config, left[0]) + _decoder_gmac(config)
    ends = [*config.prune_after[1:], config.depth]
    rest = 0.0
    for stage, (begin, end) in enumerate(zip(config.prune_after, ends, strict=True)):
        rest += (_score_gmac(config, left[stage]) if stage else 0.0) + (end - begin) * _block_gmac(
            config, left[stage + 1]
        )
    return fixed + rest


def _entry_gmac(config: SCDConfig, tokens: float) -> float:
    """What all tokens that enter cost whatever the keep ratio: blocks and scores up to the first stage, completion."""
    first = config.prune_after[0] if config.stages else config.depth
    score = _score_gmac(config, tokens) if config.stages else 0.0
    width, n = config.completion_dim, tokens + int(config.class_token)
    linear = 2 * n * config.dim * width / 1e9
    completion = linear + config.completion_depth * _attending_gmac(n, width, _COMPLETION_MLP)
    return first * _block_gmac(config, tokens) + score + completion


def _block_gmac(config: SCDConfig, tokens: float) -> float:
    return _attending_gmac(tokens + int(config.class_token), config.dim, config.mlp_ratio)


def _attending_gmac(n: float, c: int, mlp_ratio: float) -> float:
    return (n * c * c * (4 + 2 * mlp_ratio) + 2 * n * n * c) / 1e9


def _score_gmac(config: SCDConfig, tokens: float) -> float:
    c = config.dim
    return tokens * (c * c + c * (c // 2) + (c // 2) * (c // 4) + c // 4) / 1e9


def _decoder_gmac(config: SCDConfig) -> float:
    """Of a `UnetrDecoder` and its image skip, which cost the same whatever is kept."""
    levels, voxels, tokens = int(math.log2(config.patch)), math.prod(config.window), math.prod(config.grid())

    def residual(channels: int, width: int, at: int) -> float:
        short_cut = channels * width if channels != width else 0
        return at * (27 * (channels + width) * width + short_cut)

    def upsampled(channels: int, width: int, at: int) -> float:
        return at * channels * width * 8

    total = residual(config.in_channels, config.features, voxels) + voxels * config.features * config.out_channels
    widths = [config.features * 2**level for level in range(levels + config.pooled_decoder)]
    for level, (width, below) in enumerate(zip(widths, [*widths[1:], config.dim], strict=True)):
        total += upsampled(below, width, voxels // 8 ** (level + 1)) + residual(2 * width, width, voxels // 8**level)
    for width in widths[1:levels]:  # skips from the token grid, which doubles until it is as fine as their level
        at = tokens
        total += upsampled(config.dim, width, at)
        while at * 8 < voxels // 8 ** widths.index(width):
            at *= 8
            total += upsampled(width, width, at) + residual(width, width, 8 * at)
    if config.pooled_decoder:
        total += residual(config.dim, widths[levels], tokens)
    return total / 1e9


def _counted(step: Callable[[], T]) -> tuple[T, float]:
    """What a step returns, and its GMAC."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        result = step()
    return result, counter.get_total_flops() / 2e9  # a multiply-accumulate is two operations
