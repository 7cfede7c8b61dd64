"""The whole network: what pruning must leave as it is, and what the record says about it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_sparsetok.model import SCD, Rule, SCDConfig, TokenRecord
from napari_sparsetok.model.layers import sincos_positions
from napari_sparsetok.tokens import tokens_left

examples = settings(max_examples=12, deadline=None)
ratios = st.floats(0.05, 1)

TINY = SCDConfig(
    in_channels=1,
    out_channels=3,
    window=(8, 12, 16),
    patch=4,
    dim=12,
    depth=4,
    heads=2,
    prune_after=(1, 2, 3),
    completion_dim=12,
    completion_heads=2,
    features=2,
)
PUBLISHED = replace(TINY, positions="learned", class_token=True)

configs = st.sampled_from(
    [
        TINY,
        PUBLISHED,
        replace(TINY, class_token=True, shared_scores=True),
        replace(TINY, in_channels=2, prune_after=(2, 4), completion_depth=2),
        replace(TINY, patch=8, window=(16, 16, 8), prune_after=(1,)),
        replace(PUBLISHED, window=(16, 16, 16), pooled_decoder=True, depth=3, prune_after=(1, 3)),
    ]
)


def network_of(config: SCDConfig, seed: int = 0) -> SCD:
    """A network in which every weight counts: those that start at zero are random too."""
    torch.manual_seed(seed)
    network = SCD(config).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, 1.0 if weight.ndim == 1 else 0.0, 0.2)
    return network


def image_of(config: SCDConfig, batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, config.in_channels, *config.window, generator=torch.Generator().manual_seed(seed))


def left_of(config: SCDConfig, keep_ratio: float) -> tuple[int, ...]:
    return tokens_left(math.prod(config.grid()), keep_ratio, config.stages, minimum=1 - int(config.class_token))


def assert_same(a: tuple[Tensor, TokenRecord], b: tuple[Tensor, TokenRecord]) -> None:
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1].stage, b[1].stage)
    for x, y in zip(a[1].scores, b[1].scores, strict=True):
        assert torch.equal(x.nan_to_num(7), y.nan_to_num(7))


@torch.inference_mode()
def dense(network: SCD, image: Tensor) -> Tensor:
    """Every token through every block: no stage, no ids, no split."""
    c = network.config
    x = network.patch_embedding(image)
    grid = x.shape[2:]
    x = x.flatten(2).transpose(1, 2)
    if c.class_token:
        x = torch.cat([network.class_token.expand(len(x), -1, -1), x], dim=1)

    def coded(tokens: Tensor) -> Tensor:
        code = sincos_positions(tuple(grid), tokens.shape[-1], like=tokens)
        return tokens + (torch.cat([0 * code[:, :1], code], dim=1) if c.class_token else code)

    x = x + network.positions if c.positions == "learned" else coded(x)
    for block in network.blocks:
        x = block(x)
    assembly = network.completion
    x = coded(assembly.pre_linear[-1](network.norm(x)) + assembly.layer_tokens[-1])
    for block in assembly.blocks:
        x = block(x)
    x = assembly.out_linear(assembly.norm(x))[:, int(c.class_token) :]
    x = x.transpose(1, 2).unflatten(2, grid)
    return network.decoder(x, network.decoder.image_block(image))


@examples
@given(configs, st.integers(0, 5))
def test_a_keep_ratio_of_one_is_the_dense_network(config: SCDConfig, seed: int) -> None:
    network, image = network_of(config, seed), image_of(config, 2, seed)
    with torch.inference_mode():
        logits, record = network(image, 1.0)
    assert torch.equal(logits, dense(network, image))
    assert (record.stage == config.stages + 1).all()
    assert not any(scores.isnan().any() for scores in record.scores)


@examples
@given(configs, ratios)
def test_pruning_changes_the_logits_but_not_their_shape(config: SCDConfig, ratio: float) -> None:
    network, image = network_of(config), image_of(config)
    with torch.inference_mode():
        logits, _ = network(image, ratio)
    assert logits.shape == (1, config.out_channels, *config.window)
    assert logits.isfinite().all()
    if left_of(config, ratio)[-1] < math.prod(config.grid()):
        assert not torch.equal(logits, dense(network, image))


@examples
@given(configs, st.lists(ratios, min_size=1, max_size=3))
def test_cached_prefix_and_image_skip_serve_every_keep_ratio(config: SCDConfig, several: list[float]) -> None:
    network, image = network_of(config), image_of(config, 2)
    with torch.inference_mode():
        prefix, skip = network.encode_prefix(image), network.image_skip(image)
        for ratio in several:
            parts, ids, scores = network.encode_rest(prefix, ratio)
            logits = network.decode(network.complete(parts, ids, prefix.grid), skip)
            assert_same((logits, network.record(ids, scores, prefix.grid)), network(image, ratio))


@examples
@given(configs, ratios)
def test_a_batch_is_its_images_one_by_one(config: SCDConfig, ratio: float) -> None:
    network, images = network_of(config), image_of(config, 4)
    with torch.inference_mode():
        logits, record = network(images, ratio)
        for i in range(4):
            one, alone = network(images[i : i + 1], ratio)
            torch.testing.assert_close(logits[i : i + 1], one, atol=1e-4, rtol=1e-4)
            assert torch.equal(record.stage[i : i + 1], alone.stage)


@examples
@given(configs, ratios)
def test_the_same_input_gives_the_same_bits(config: SCDConfig, ratio: float) -> None:
    network, image = network_of(config), image_of(config)
    with torch.inference_mode():
        assert_same(network(image, ratio), network(image, ratio))


@examples
@given(configs, ratios)
def test_the_record_counts_every_token_once(config: SCDConfig, ratio: float) -> None:
    network, image = network_of(config), image_of(config, 2)
    with torch.inference_mode():
        _, record = network(image, ratio)
    left = left_of(config, ratio)
    assert record.stage.shape == (2, *config.grid())
    assert len(record.scores) == config.stages
    for stage in record.stage:
        assert (stage == config.stages + 1).sum() == left[-1]
        for k in range(1, config.stages + 1):
            assert (stage == k).sum() == left[k - 1] - left[k]
    for k, scores in enumerate(record.scores, start=1):
        gone = record.stage < k
        assert torch.equal(scores.isnan(), gone)
        assert (scores[~gone] <= 0).all()


@examples
@given(configs, ratios)
def test_a_stage_prunes_the_lowest_scores(config: SCDConfig, ratio: float) -> None:
    network, image = network_of(config), image_of(config)
    with torch.inference_mode():
        _, record = network(image, ratio)
    for k, scores in enumerate(record.scores, start=1):
        pruned, kept = scores[record.stage == k], scores[record.stage > k]
        if len(pruned) and len(kept):
            assert pruned.max() <= kept.min()


@examples
@given(configs, st.floats(0.3, 0.9), st.integers(0, 99))
def test_forced_tokens_are_kept_or_pruned_whatever_their_scores(config: SCDConfig, ratio: float, seed: int) -> None:
    network, image = network_of(config), image_of(config)
    n, left = math.prod(config.grid()), left_of(config, ratio)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    must, never = order[: left[-1]], order[left[1] :]
    forced = torch.zeros(1, n, dtype=torch.int8)
    forced[0, must], forced[0, never] = 1, -1
    with torch.inference_mode():
        _, record = network(image, ratio, Rule(forced=forced))
        _, plain = network(image, ratio)
    stage = record.stage.flatten()
    assert (stage[must] == config.stages + 1).all()
    assert (stage[never] == 1).all()
    assert torch.equal(record.scores[0], plain.scores[0])  # what is shown stays what the network thought


def left_at(network: SCD, image: Tensor) -> Tensor:
    """Tokens (B, N, C) before the first stage, the class token not among them."""
    return network.encode_prefix(image).tokens[:, network.class_tokens :]


@examples
@given(configs, ratios)
def test_by_norm_the_longest_tokens_are_kept(config: SCDConfig, ratio: float) -> None:
    network, image = network_of(config), image_of(config, 2)
    with torch.inference_mode():
        _, record = network(image, ratio, Rule("norm"))
        lengths = left_at(network, image).square().sum(-1).sqrt()
    torch.testing.assert_close(record.scores[0].flatten(1), lengths)
    keep = left_of(config, ratio)[1]
    for stage, length in zip(record.stage.flatten(1), lengths, strict=True):
        best = length.argsort(descending=True, stable=True)[:keep]
        assert (stage[best] != 1).all()
        assert (stage != 1).sum() == keep


@examples
@given(configs, ratios)
def test_by_attention_those_that_the_next_block_looks_at_are_kept(config: SCDConfig, ratio: float) -> None:
    network, image = network_of(config), image_of(config)
    c = network.class_tokens
    with torch.inference_mode():
        _, record = network(image, ratio, Rule("attention"))
        x = network.encode_prefix(image).tokens
        block = network.blocks[min(config.prune_after[0], config.depth - 1)]
        q, k, _ = block.attn.qkv(block.norm1(x)).unflatten(2, (3, config.heads, -1)).permute(2, 0, 3, 1, 4)
        matrix = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)  # B h N N
        got = matrix.mean(dim=(1, 2))[:, c:] * x.shape[1]
    torch.testing.assert_close(record.scores[0].flatten(1), got)
    best = record.scores[0].flatten().argsort(descending=True, stable=True)[: left_of(config, ratio)[1]]
    assert (record.stage.flatten()[best] != 1).all()


@examples
@given(configs, ratios, st.integers(0, 9), st.sampled_from(["random", "entropy", "oracle"]))
def test_given_scores_decide_at_every_stage(config: SCDConfig, ratio: float, seed: int, name) -> None:
    network, image, n = network_of(config), image_of(config), math.prod(config.grid())
    given = torch.rand(1, n, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        _, record = network(image, ratio, Rule(name, given=given))
    order = given[0].argsort(descending=True)
    left, stage = left_of(config, ratio), record.stage.flatten()
    assert (stage[order[: left[-1]]] == config.stages + 1).all()
    for k in range(1, config.stages + 1):
        assert (stage[order[left[k] : left[k - 1]]] == k).all()


def test_a_rule_without_its_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="needs scores of its own"):
        network_of(TINY)(image_of(TINY), 0.5, Rule("oracle"))


@examples
@given(configs, st.floats(0.05, 0.95))
def test_a_threshold_keeps_what_scores_as_much_at_every_stage(config: SCDConfig, quantile: float) -> None:
    network, image = network_of(config), image_of(config)
    with torch.inference_mode():
        threshold = float(network.encode_prefix(image).scores.exp().quantile(quantile))
        _, record = network(image, 1.0, Rule(threshold=threshold))
    for k, scores in enumerate(record.scores, start=1):
        entered = record.stage >= k
        passed = entered & (scores.exp() >= threshold)
        kept = record.stage > k
        if passed.sum() >= 1 - int(config.class_token) and passed.any():
            assert torch.equal(kept, passed)


@examples
@given(st.floats(0.001, 1), st.integers(0, 5))
def test_the_class_token_is_never_pruned(ratio: float, seed: int) -> None:
    network = network_of(PUBLISHED, seed)
    with torch.inference_mode():
        prefix = network.encode_prefix(image_of(PUBLISHED, 2, seed))
        parts, ids, _ = network.encode_rest(prefix, ratio)
        completed = network.complete(parts, ids, prefix.grid)
    assert all((pruned > 0).all() for pruned in ids[:-1])
    assert (ids[-1][:, 0] == 0).all()
    assert torch.cat(ids, dim=1).sort(dim=1).values.tolist() == [list(range(25))] * 2
    assert completed.isfinite().all()  # even if nothing but the class token is left


def test_without_a_class_token_one_token_stays() -> None:
    with torch.inference_mode():
        logits, record = network_of(TINY)(image_of(TINY), 0.001)
    assert (record.stage == TINY.stages + 1).sum() == 1
    assert logits.isfinite().all()


def test_each_stage_may_have_a_ratio_of_its_own() -> None:
    with torch.inference_mode():
        _, record = network_of(TINY)(image_of(TINY), (0.5, 1.0, 0.25))
    assert [(record.stage == k).sum().item() for k in (1, 2, 3, 4)] == [12, 0, 9, 3]


def test_one_score_network_serves_all_stages_if_shared() -> None:
    assert len(SCD(replace(TINY, shared_scores=True)).scores) == 1
    assert len(SCD(TINY).scores) == 3


@examples
@given(st.tuples(*[st.integers(1, 4)] * 3), ratios, st.booleans())
def test_sine_cosine_codes_fit_any_window(grid: tuple[int, int, int], ratio: float, class_token: bool) -> None:
    config = replace(TINY, class_token=class_token)
    window = tuple(4 * g for g in grid)
    with torch.inference_mode():
        logits, record = network_of(config)(torch.randn(1, 1, *window), ratio)
    assert logits.shape == (1, 3, *window)
    assert record.stage.shape == (1, *grid)


def test_learned_codes_refuse_another_window() -> None:
    with pytest.raises(ValueError, match=r"takes windows of \(8, 12, 16\) voxels only"):
        network_of(PUBLISHED)(torch.randn(1, 1, 12, 8, 16))  # as many tokens, on another grid


def test_training_reaches_every_weight() -> None:
    network = network_of(PUBLISHED).train()
    torch.manual_seed(0)
    network(image_of(PUBLISHED, 2), 0.5)[0].square().sum().backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ((1, 8, 12, 16), "takes 1 channel"),
        ((1, 2, 8, 12, 16), "takes 1 channel"),
        ((1, 1, 8, 12, 15), "not a multiple of 4 voxels"),
        ((1, 1, 8, 0, 16), "not a multiple of 4 voxels"),
        ((1, 1, 3, 12, 16), "not a multiple of 4 voxels"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_in_words(shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        network_of(TINY)(torch.zeros(shape))


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, float("nan"), (0.5, 0.5), (0.5, 0.5, 0.0)])
def test_a_keep_ratio_that_does_not_fit_is_refused_in_words(ratio: float | tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="keep ratio"):
        network_of(TINY)(image_of(TINY), ratio)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"window": (8, 12, 15)}, "multiple of the patch"),
        ({"heads": 5}, "multiple of the number of heads"),
        ({"completion_heads": 5}, "multiple of the number of heads"),
        ({"prune_after": (2, 1)}, "must rise"),
        ({"prune_after": (2, 2)}, "must rise"),
        ({"prune_after": (0, 2)}, "lie within 1 … 4"),
        ({"prune_after": (5,)}, "lie within 1 … 4"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_in_words(wrong: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(TINY, **wrong)  # type: ignore[arg-type]
