"""Numbers of tokens, and the map of stage 1 from ranks alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.state import TokenMap
from napari_sparsetok.tokens import count_kept, first_stage_preview, stage_ratios, tokens_left

ratios = st.floats(0, 1, exclude_min=True)
counts = st.integers(0, 5000)


@given(counts, ratios, st.integers(0, 1))
def test_a_stage_keeps_the_whole_part_of_the_share_and_at_least_the_minimum(n: int, ratio: float, minimum: int) -> None:
    kept = count_kept(n, ratio, minimum)
    assert min(n, minimum) <= kept <= n
    assert kept == min(n, max(minimum, int(n * ratio)))


@given(counts, st.integers(0, 1))
def test_a_share_of_one_keeps_all(n: int, minimum: int) -> None:
    assert count_kept(n, 1.0, minimum) == n


@given(counts, ratios, ratios)
def test_a_larger_share_never_keeps_fewer(n: int, a: float, b: float) -> None:
    assert count_kept(n, min(a, b)) <= count_kept(n, max(a, b))


@given(st.integers(1, 5000), ratios, st.integers(0, 4))
def test_tokens_left_start_with_all_and_never_rise(n: int, ratio: float, stages: int) -> None:
    left = tokens_left(n, ratio, stages)
    assert left[0] == n
    assert len(left) == stages + 1
    assert all(a >= b >= 1 for a, b in pairwise(left))
    assert left == tokens_left(n, [ratio] * stages, stages)


def test_the_share_applies_to_the_tokens_still_left() -> None:
    assert tokens_left(1053, 0.25, 3) == (1053, 263, 65, 16)
    assert tokens_left(100, (0.5, 1.0, 0.1), 3) == (100, 50, 50, 5)
    assert tokens_left(8, 0.1, 2) == (8, 1, 1)
    assert tokens_left(8, 0.1, 2, minimum=0) == (8, 0, 0)


@given(ratios, st.integers(0, 5))
def test_one_ratio_stands_for_all_stages(ratio: float, stages: int) -> None:
    assert stage_ratios(ratio, stages) == (ratio,) * stages


@pytest.mark.parametrize("bad", [0, -0.1, 1.0001, float("nan"), float("inf"), (0.5, 0.0)])
def test_a_ratio_outside_its_range_is_refused(bad: float | tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="keep ratio must be above 0 and at most 1"):
        stage_ratios(bad, 2)


def test_a_ratio_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="prunes 2 times, but 3 keep ratios"):
        stage_ratios((0.5, 0.5, 0.5), 2)


def token_map(window_tokens: int, windows: int, seed: int) -> TokenMap:
    """Windows that lie side by side, each with ranks of its own, and one row that nobody looked at."""
    draw = np.random.default_rng(seed)
    rank = np.stack([draw.permutation(window_tokens) for _ in range(windows)] + [np.full(window_tokens, -1)])
    rank = rank.astype(np.int32)[:, :, None]
    return TokenMap(
        importance=draw.random((3, *rank.shape), dtype=np.float32),
        stage=np.where(rank < 0, 0, 2).astype(np.uint8),
        rank=rank,
        window_tokens=window_tokens,
        left=(window_tokens * windows, 0, 0, 0),
        spacing=(4.0, 4.0, 4.0),
        origin=(0.0, 0.0, 0.0),
    )


@given(st.integers(1, 60), st.integers(1, 4), ratios, st.integers(0, 9))
def test_the_preview_keeps_the_best_ranks_of_every_window(n: int, windows: int, ratio: float, seed: int) -> None:
    before = token_map(n, windows, seed)
    preview = first_stage_preview(before, ratio)
    keep = count_kept(n, ratio)
    assert (preview.stage[-1] == 0).all()  # nobody looked there, and nobody does now
    for ranks, stage in zip(before.rank[:-1], preview.stage[:-1], strict=True):
        assert ((stage == before.stages + 1) == (ranks < keep)).all()
        assert ((stage == 1) == (ranks >= keep)).all()
    assert preview.left == tuple(k * windows for k in tokens_left(n, ratio, 3))
    assert preview.importance is before.importance


def test_the_preview_leaves_its_source_alone() -> None:
    before = token_map(8, 1, 0)
    stage = before.stage.copy()
    first_stage_preview(before, 0.5)
    assert (before.stage == stage).all()
