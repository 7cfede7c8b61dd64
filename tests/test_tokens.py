"""Numbers of tokens, and the map of stage 1 from ranks alone."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.scan import Geometry, Region
from napari_sparsetok.state import TokenMap
from napari_sparsetok.tokens import (
    LADDER,
    Lattice,
    asked_by_kept_from,
    count_kept,
    far_from_kept,
    first_stage_preview,
    kept_from,
    smallest_agreeing,
    stability,
    stage_ratios,
    story,
    tokens_left,
    unseen,
    unstable_regions,
)

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


def test_the_preview_obeys_what_was_chosen_by_hand_whatever_the_share() -> None:
    before = token_map(8, 1, 0)
    forced = np.zeros(before.stage.shape, dtype=np.int8)
    order = np.argsort(before.rank.ravel())[8:]  # the others lie where nobody looked
    forced.ravel()[order[[5, 6, 7]]], forced.ravel()[order[0]] = 1, -1
    chosen = dataclasses.replace(before, forced=forced)
    few, all_of_them = first_stage_preview(chosen, 0.125), first_stage_preview(chosen, 1.0)
    for preview in (few, all_of_them):
        assert (preview.stage[forced > 0] == before.stages + 1).all()
        assert (preview.stage[forced < 0] == 1).all()
    assert few.left[1] == 3
    assert all_of_them.left[1] == before.left[0] - 1


def test_the_preview_leaves_its_source_alone() -> None:
    before = token_map(8, 1, 0)
    stage = before.stage.copy()
    first_stage_preview(before, 0.5)
    assert (before.stage == stage).all()


# One token


def walk(scores: list[list[float]], keep: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of six tokens in a row, at each stage, and what a plain top-k makes of them."""
    n = len(scores[0])
    stage, left = np.full(n, len(keep) + 1), list(range(n))
    laid = np.full((len(keep), n), np.nan)
    for k, count in enumerate(keep):
        laid[k, left] = np.asarray(scores[k])[left]
        order = sorted(left, key=lambda i: (-scores[k][i], i))
        stage[order[count:]] = k + 1
        left = sorted(order[:count])
    return laid.reshape(len(keep), 1, 1, n), stage.reshape(1, 1, n)


def test_the_story_of_a_token_is_the_one_told_by_hand() -> None:
    scores, stage = walk([[0.9, 0.5, 0.7, 0.1, 0.6, 0.2], [0.3, 0.0, 0.8, 0.0, 0.4, 0.0]], [3, 1])
    assert stage.ravel().tolist() == [2, 1, 3, 1, 2, 1]
    first, second = story(scores, stage, (0, 0, 4))
    assert (first.score, first.rank, first.entered, first.kept) == (0.6, 2, 6, True)
    assert first.margin == pytest.approx(0.1)  # the best that was pruned has 0.5
    assert first.percentile == pytest.approx(60)  # three of the other five rank below it
    assert (second.rank, second.entered, second.kept) == (1, 3, False)
    assert second.margin == pytest.approx(-0.4)  # the worst that was kept has 0.8
    (only,) = story(scores, stage, (0, 0, 3))
    assert (only.rank, only.percentile, only.kept) == (5, 0.0, False)
    assert only.margin == pytest.approx(-0.5)
    kept = story(scores, stage, (0, 0, 2))[1]
    assert kept.margin == pytest.approx(0.4)
    assert kept.percentile == 100


def test_equals_keep_their_order_and_without_a_cut_there_is_no_margin() -> None:
    scores, stage = walk([[0.5, 0.5, 0.5]], [3])
    told = [story(scores, stage, (0, 0, i))[0] for i in range(3)]
    assert [t.rank for t in told] == [0, 1, 2]
    assert all(np.isnan(t.margin) for t in told)


def test_a_token_forced_by_hand_is_not_the_cut_of_others() -> None:
    scores, stage = walk([[0.9, 0.5, 0.1]], [2])
    stage[...] = [[[2, 1, 2]]]  # the last was forced in, so the second had to go
    plain, fair = (story(scores, stage, (0, 0, 1), forced)[0].margin for forced in (None, np.array([[[0, 0, 1]]])))
    assert plain == pytest.approx(0.4)
    assert fair == pytest.approx(-0.4)


@given(st.floats(0.001, 0.99))
def test_kept_from_finds_the_edge_and_was_true_there(edge: float) -> None:
    asked: list[float] = []

    def survives(ratio: float) -> bool:
        asked.append(ratio)
        return ratio >= edge

    found = kept_from(survives, steps=8)
    assert found in asked
    assert found >= edge
    if edge > 0.02:
        assert found / edge < 1.01
    assert kept_from(lambda ratio: False) is None
    assert kept_from(lambda ratio: True) == LADDER[-1]


@given(ratios, st.integers(0, 5))
def test_whatever_kept_from_asks_for_could_be_known_before(edge: float, steps: int) -> None:
    asked: list[float] = []
    kept_from(lambda ratio: asked.append(ratio) or ratio >= edge, steps=steps)
    assert set(asked) <= set(asked_by_kept_from(steps=steps))
    assert len(asked_by_kept_from(steps=steps)) == 7 * 2**steps + 1


def test_a_token_that_comes_and_goes_counts_from_where_it_stays() -> None:
    assert kept_from(lambda ratio: ratio >= 0.6 or 0.1 < ratio < 0.3, (1.0, 0.7, 0.5, 0.25), steps=0) == 0.7


# Tokens and voxels


GEOMETRY = Geometry.shown((8, 4, 6), (1.0, 1.0, 1.0))


def row_of_tokens(stage: list[int], stages: int = 2) -> tuple[TokenMap, Lattice]:
    """Tokens of 2 × 4 × 6 voxels, one after the other along z."""
    grid = np.array(stage, np.uint8).reshape(-1, 1, 1)
    tokens = TokenMap(
        importance=np.zeros((stages, *grid.shape), np.float32),
        stage=grid,
        rank=np.zeros(grid.shape, np.int32),
        window_tokens=len(stage),
        left=(len(stage),),
        spacing=(2.0, 4.0, 6.0),
        origin=tuple(o - 0.5 + s / 2 for o, s in zip(GEOMETRY.origin, (2.0, 4.0, 6.0), strict=True)),
    )
    return tokens, Lattice.of(tokens, GEOMETRY, (8, 4, 6))


def test_voxels_find_their_token_and_tokens_their_voxels() -> None:
    tokens, lattice = row_of_tokens([1, 2, 3])
    assert lattice.axes[0].tolist() == [0, 0, 1, 1, 2, 2, -1, -1]
    assert lattice.token((3, 0, 5)) == (1, 0, 0)
    assert lattice.token((7, 0, 0)) is None
    laid = lattice.spread(tokens.stage)
    assert laid[:, 0, 0].tolist() == [1, 1, 2, 2, 3, 3, 0, 0]
    mask = np.zeros((8, 4, 6), bool)
    mask[1:4, :2] = True
    mask[7] = True
    assert lattice.count(mask).ravel().tolist() == [12, 24, 0]
    assert lattice.share(mask).ravel().tolist() == [0.25, 0.5, 0]


def test_what_rests_only_on_completed_tokens_is_found_and_sorted() -> None:
    tokens, lattice = row_of_tokens([1, 2, 3, 1])
    mask = np.zeros((8, 4, 6), np.uint8)
    mask[0:6, 0, 0] = 1  # tokens 0 to 2: two pruned, one kept
    mask[6:8, 2:4, 2:4] = 1  # token 3: pruned, and nothing of this piece was kept
    mask[4:6, 3, 5] = 2  # token 2: kept
    first, second = unseen(mask, tokens, lattice)
    assert (first.label, first.voxels, first.stage, first.whole) == (1, 8, 1, True)
    assert (second.label, second.voxels, second.stage, second.whole) == (1, 4, 2, False)
    assert mask[first.at] == 1
    assert mask[second.at] == 1
    tokens, lattice = row_of_tokens([3, 3, 3, 3])
    assert unseen(mask, tokens, lattice) == []


def test_what_reaches_beyond_all_windows_is_not_taken_for_looked_at() -> None:
    tokens, lattice = row_of_tokens([3, 1])  # nothing beyond z = 3
    mask = np.zeros((8, 4, 6), np.uint8)
    mask[2:8, 0, 0] = 1
    (piece,) = unseen(mask, tokens, lattice)
    assert (piece.voxels, piece.whole) == (2, True)


def test_the_way_to_the_nearest_kept_token() -> None:
    tokens, lattice = row_of_tokens([1, 2, 3, 1])
    mask = np.zeros((8, 4, 6), np.uint8)
    mask[:, 0, 0] = 1
    far = far_from_kept(mask, tokens, lattice)
    assert far[:, 0, 0].tolist() == [4, 4, 2, 2, 0, 0, 2, 2]
    assert not far[:, 1:].any()
    assert np.isinf(far_from_kept(mask, *row_of_tokens([1, 1, 1, 1]))[mask > 0]).all()


# Over keep ratios


def test_stability_is_the_lowest_ratio_from_which_nothing_changes() -> None:
    ladder = [(1.0, [1, 1, 0, 2]), (0.5, [1, 0, 0, 2]), (0.25, [1, 1, 0, 1]), (0.1, [0, 1, 0, 2])]
    found = [f.tolist() for f in stability((r, np.array(m)) for r, m in ladder)]
    assert found[0] == [1, 1, 1, 1]
    assert found[1] == [0.5, 1, 0.5, 0.5]
    assert found[-1] == pytest.approx([0.25, 1, 0.1, 0.5])
    with pytest.raises(ValueError, match="from the highest"):
        list(stability([(0.5, np.zeros(1)), (0.5, np.zeros(1))]))


def test_what_still_changes_comes_in_pieces() -> None:
    lowest = np.full((1, 1, 9), 0.1, np.float32)
    lowest[0, 0, 1:3] = [0.5, 1.0]
    lowest[0, 0, 6] = 0.5
    (first, second) = unstable_regions(lowest, 0.25)
    assert first == (Region((0, 0, 1), (1, 1, 3)), 2, 1.0)
    assert second == (Region((0, 0, 6), (1, 1, 7)), 1, 0.5)
    assert unstable_regions(lowest, 0.25, least=2) == [first]


def test_the_smallest_ratio_that_agrees_from_the_top_down() -> None:
    rows = [(0.5, 0.995), (1.0, 1.0), (0.25, 0.98), (0.1, 0.999)]
    assert smallest_agreeing(rows) == 0.5  # what agrees below a ratio that does not is luck
    assert smallest_agreeing(rows, 0.97) == 0.1
    assert smallest_agreeing([(1.0, 0.5)]) is None
    assert smallest_agreeing([(1.0, float("nan"))]) is None
