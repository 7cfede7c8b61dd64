"""Splitting tokens and putting them back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_sparsetok.model.pruning import Rule, ScoreNetwork, rank_ids, restore, soft_split, split
from napari_sparsetok.tokens import count_kept

examples = settings(max_examples=50, deadline=None)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 5))  # B N C
ratios = st.floats(0, 1, exclude_min=True)
seeds = st.integers(0, 2**16)


def drawn(shape: tuple[int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Tokens (B, N, C) and priorities (B, N), among them equal ones."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random), torch.randint(0, 9, shape[:2], generator=random).float()


@examples
@given(shapes, ratios, seeds)
def test_restore_undoes_split(shape: tuple[int, int, int], ratio: float, seed: int) -> None:
    tokens, priority = drawn(shape, seed)
    cut = split(tokens, priority, count_kept(shape[1], ratio))
    assert torch.equal(restore([cut.kept, cut.pruned], [cut.kept_ids, cut.pruned_ids]), tokens)
    assert torch.equal(restore([cut.pruned, cut.kept], [cut.pruned_ids, cut.kept_ids]), tokens)


@examples
@given(shapes, st.lists(ratios, min_size=1, max_size=4), seeds)
def test_restore_undoes_a_chain_of_splits(shape: tuple[int, int, int], chain: list[float], seed: int) -> None:
    tokens, priority = drawn(shape, seed)
    left, places = tokens, torch.arange(shape[1]).expand(shape[0], -1)
    parts, ids = [], []
    for ratio in chain:
        cut = split(left, priority.gather(1, places), count_kept(left.shape[1], ratio, minimum=0))
        parts.append(cut.pruned)
        ids.append(places.gather(1, cut.pruned_ids))
        left, places = cut.kept, places.gather(1, cut.kept_ids)
    assert torch.equal(restore([*parts, left], [*ids, places]), tokens)


@examples
@given(shapes, ratios, seeds)
def test_ids_rise_partition_and_hold_the_best(shape: tuple[int, int, int], ratio: float, seed: int) -> None:
    tokens, priority = drawn(shape, seed)
    keep = count_kept(shape[1], ratio)
    cut = split(tokens, priority, keep)
    assert cut.kept_ids.shape[1] == keep
    for ids in (cut.kept_ids, cut.pruned_ids):
        assert (ids.diff(dim=1) > 0).all()
    together = torch.cat([cut.kept_ids, cut.pruned_ids], dim=1).sort(dim=1).values
    assert torch.equal(together, torch.arange(shape[1]).expand(shape[0], -1))
    if keep < shape[1]:
        worst_kept = priority.gather(1, cut.kept_ids).min(dim=1).values
        assert (worst_kept >= priority.gather(1, cut.pruned_ids).max(dim=1).values).all()


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_where_no_token_is_left_none_is_kept_whatever_a_person_chose(threshold: float | None) -> None:
    rule = Rule(threshold=threshold, forced=torch.zeros(1, 0))
    assert rule.count(torch.zeros(1, 0), 0.3, minimum=0) == 0


def test_among_equals_the_first_are_kept() -> None:
    kept, pruned = rank_ids(torch.zeros(2, 100), 7)
    assert kept.tolist() == [list(range(7))] * 2
    assert pruned.tolist() == [list(range(7, 100))] * 2


@examples
@given(shapes, ratios, seeds, st.sampled_from([0.5, 1.0, 2.0]))
def test_soft_split_is_a_split_by_perturbed_scores(
    shape: tuple[int, int, int], ratio: float, seed: int, tau: float
) -> None:
    tokens, scores = torch.randn(shape), torch.randn(shape[:2])
    keep = count_kept(shape[1], ratio)
    torch.manual_seed(seed)
    soft = soft_split(tokens, scores, keep, tau)
    torch.manual_seed(seed)
    hard = split(tokens, scores - torch.empty_like(scores).exponential_().log(), keep)
    assert torch.equal(soft.kept_ids, hard.kept_ids)
    assert torch.equal(soft.pruned_ids, hard.pruned_ids)
    torch.testing.assert_close(soft.kept, hard.kept)
    torch.testing.assert_close(soft.pruned, hard.pruned)


@pytest.mark.parametrize("part", ["kept", "pruned"])
def test_soft_split_passes_gradient_to_scores_and_tokens(part: str) -> None:
    torch.manual_seed(0)
    tokens, scores = torch.randn(2, 12, 3, requires_grad=True), torch.randn(2, 12, requires_grad=True)
    cut = soft_split(tokens, scores, 5)
    getattr(cut, part).square().sum().backward()
    assert scores.grad is not None
    assert tokens.grad is not None
    assert (scores.grad.abs() > 0).all()  # through the softmax, every score has a share in it
    ids = getattr(cut, f"{part}_ids")
    own = torch.zeros(2, 12).scatter(1, ids, 1.0)[..., None]
    torch.testing.assert_close(tokens.grad, 2 * tokens.detach() * own)


def test_soft_split_draws_anew_each_time() -> None:
    torch.manual_seed(0)
    tokens, scores = torch.randn(1, 50, 2), torch.zeros(1, 50)
    members = {tuple(soft_split(tokens, scores, 10).kept_ids[0].tolist()) for _ in range(5)}
    assert len(members) == 5


def test_soft_split_follows_clear_scores() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([[-40.0, 0.0, -40.0, 0.0]])
    assert all(soft_split(torch.randn(1, 4, 2), scores, 2).kept_ids.tolist() == [[1, 3]] for _ in range(50))


def test_scores_are_log_probabilities_and_see_all_tokens() -> None:
    torch.manual_seed(0)
    network, tokens = ScoreNetwork(16), torch.randn(2, 10, 16)
    scores = network(tokens)
    assert scores.shape == (2, 10)
    assert (scores <= 0).all()
    moved = tokens.clone()
    moved[:, 0] = -moved[:, 0]
    assert (network(moved)[:, 1:] != scores[:, 1:]).any()  # through the mean
    order = torch.randperm(10)
    torch.testing.assert_close(network(tokens[:, order]), scores[:, order])


def test_scores_are_in_full_precision_where_the_rest_is_not() -> None:
    torch.manual_seed(0)
    network, tokens = ScoreNetwork(16), torch.randn(2, 10, 16)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = network(tokens)
    assert reduced.dtype == torch.float32
    assert torch.equal(reduced, network(tokens))


def test_without_an_opinion_a_rule_counts_and_ranks_as_the_scores_do() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.4, 0.4]])
    assert Rule().count(scores, 0.5, 1) == count_kept(4, 0.5, 1)
    assert Rule().priority(scores) is scores
    nobody = Rule(forced=torch.zeros(1, 4, dtype=torch.int8))
    assert nobody.count(scores, 0.5, 1) == 2
    assert rank_ids(nobody.priority(scores), 2)[0].tolist() == rank_ids(scores, 2)[0].tolist() == [[1, 2]]


def test_forced_tokens_come_first_and_last_and_among_themselves_by_score() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.4, 0.5, 0.2]])
    rule = Rule(forced=torch.tensor([[1, -1, 0, 0, 1]], dtype=torch.int8))
    assert rule.priority(scores)[0].argsort(descending=True).tolist() == [4, 0, 3, 2, 1]


@pytest.mark.parametrize(
    ("forced", "ratio", "kept"),
    [
        ([0, 0, 0, 0, 0], 0.4, 2),
        ([1, 0, 0, 0, 0], 0.4, 2),  # the share holds it
        ([1, 1, 1, 0, 0], 0.4, 3),  # the share is made larger
        ([-1, -1, -1, -1, 0], 0.4, 1),  # and is not filled up with what must go
        ([-1, 0, 0, 0, 0], 1.0, 4),
        ([-1, -1, -1, -1, -1], 0.4, 1),  # one token has to stay
    ],
)
def test_the_share_makes_room_for_what_must_stay(forced: list[int], ratio: float, kept: int) -> None:
    rule = Rule(forced=torch.tensor([forced], dtype=torch.int8))
    assert rule.count(torch.zeros(1, 5), ratio, 1) == kept


def test_a_threshold_keeps_what_scores_at_least_as_much() -> None:
    probability = torch.tensor([[0.1, 0.9, 0.4, 0.5, 0.2]])
    rule = Rule(threshold=0.4)
    assert rule.count(probability.log(), 0.01, 1) == 3  # learned scores are logarithms
    assert Rule("norm", threshold=0.4).count(probability, 1.0, 1) == 3
    assert Rule(threshold=0.0).count(probability.log(), 0.01, 1) == 5
    assert Rule(threshold=0.95).count(probability.log(), 0.01, 1) == 1  # one has to stay
    forced = Rule(threshold=0.4, forced=torch.tensor([[1, -1, 0, 0, 0]], dtype=torch.int8))
    assert forced.count(probability.log(), 0.01, 1) == 3


def test_windows_that_keep_different_numbers_are_no_batch() -> None:
    with pytest.raises(ValueError, match="one by one"):
        Rule("norm", threshold=0.5).count(torch.tensor([[0.6, 0.7], [0.1, 0.6]]), 1.0, 1)


def test_a_rule_follows_the_tokens_that_are_left() -> None:
    rule = Rule("random", given=torch.tensor([[0.1, 0.2, 0.3, 0.4]]), forced=torch.tensor([[0, 1, -1, 0]]))
    left = rule.at(torch.tensor([[1, 3]]))
    assert left.given is not None
    assert left.forced is not None
    torch.testing.assert_close(left.given, torch.tensor([[0.2, 0.4]]))
    assert left.forced.tolist() == [[1, 0]]
