"""What can be said about tokens without running a network. Pure functions on numbers and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from napari_sparsetok.state import TokenMap


def stage_ratios(keep_ratio: float | Sequence[float], stages: int) -> tuple[float, ...]:
    """One keep ratio for each stage, checked.

    Raises
    ------
    ValueError : a ratio outside (0, 1], or not one for each stage.
    """
    ratios = tuple(keep_ratio) if isinstance(keep_ratio, Sequence) else (keep_ratio,) * stages
    if len(ratios) != stages:
        raise ValueError(f"this model prunes {stages} times, but {len(ratios)} keep ratios were given")
    if not all(0 < r <= 1 for r in ratios):
        raise ValueError(f"a keep ratio must be above 0 and at most 1, not {keep_ratio}")
    return ratios


def count_kept(n: int, keep_ratio: float, minimum: int = 1) -> int:
    """How many of `n` tokens a stage keeps: the whole part of the share, at least `minimum`.

    The whole part, because the published code counts so; a share of 1 keeps all.
    """
    return n if keep_ratio >= 1 else min(n, max(minimum, int(n * keep_ratio)))


def tokens_left(n: int, keep_ratio: float | Sequence[float], stages: int, minimum: int = 1) -> tuple[int, ...]:
    """Tokens of one window before the first stage and after each: 1053, 263, 65."""
    left = [n]
    for ratio in stage_ratios(keep_ratio, stages):
        left.append(count_kept(left[-1], ratio, minimum))
    return tuple(left)


def first_stage_preview(tokens: TokenMap, keep_ratio: float) -> TokenMap:
    """The kept-token map of stage 1 at another keep ratio, from the ranks alone, without inference.

    Tokens that stage 1 keeps are shown as kept, since what later stages do is not known yet.
    """
    keep = count_kept(tokens.window_tokens, keep_ratio)
    stage = np.where(tokens.rank < keep, tokens.stages + 1, 1).astype(np.uint8)
    stage[tokens.rank < 0] = 0
    windows = tokens.left[0] // tokens.window_tokens if tokens.window_tokens else 0
    per_window = tokens_left(tokens.window_tokens, keep_ratio, tokens.stages)
    return replace(tokens, stage=stage, left=tuple(n * windows for n in per_window))
