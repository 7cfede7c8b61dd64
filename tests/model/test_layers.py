"""Transformer parts, position codes and the decoder."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparsetok.model.decoder import UnetrDecoder
from napari_sparsetok.model.layers import Attention, DropPath, PatchEmbedding, sincos_positions

examples = settings(max_examples=30, deadline=None)
grids = st.tuples(*[st.integers(1, 5)] * 3)


@examples
@given(grids, st.integers(6, 40))
def test_position_codes_fit_any_grid_and_tell_tokens_apart(grid: tuple[int, int, int], dim: int) -> None:
    code = sincos_positions(grid, dim, like=torch.empty(0))
    n, w = math.prod(grid), dim // 6
    assert code.shape == (1, n, dim)
    assert (code[..., 6 * w :] == 0).all()
    apart = torch.cdist(code, code)[0] + 9 * torch.eye(n)
    assert (apart > 0.1).all()
    # The first frequency of each axis is the plain place along it.
    d, h, x = (grid[0] - 1, grid[1] // 2, grid[2] - 1)
    one = code[0].unflatten(0, grid)[d, h, x]
    expected = torch.tensor([f(p) for p in (d, h, x) for f in (math.sin, math.cos)])
    torch.testing.assert_close(one[: 6 * w : w], expected, atol=1e-5, rtol=0)


def test_a_width_too_small_for_a_position_code_is_refused() -> None:
    with pytest.raises(ValueError, match="width of 6 or more, not 5"):
        sincos_positions((2, 2, 2), 5, like=torch.empty(0))


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    layer, x = Attention(12, 3), torch.randn(2, 7, 12)
    q, k, v = layer.qkv(x).split(12, dim=-1)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        weight = (q[..., part] @ k[..., part].transpose(1, 2) / 2.0).softmax(dim=-1)
        heads.append(weight @ v[..., part])
    torch.testing.assert_close(layer(x), layer.proj(torch.cat(heads, dim=-1)))


def test_a_patch_is_seen_by_its_own_token_only() -> None:
    torch.manual_seed(0)
    layer, image = PatchEmbedding(2, 5, 4), torch.randn(1, 2, 8, 12, 4)
    before = layer(image)
    assert before.shape == (1, 5, 2, 3, 1)
    image[0, 1, 5, 6, 2] += 1  # within token (1, 1, 0)
    changed = (layer(image) != before).any(dim=1)[0]
    assert changed.nonzero().tolist() == [[1, 1, 0]]


def test_stochastic_depth_skips_whole_samples_and_only_in_training() -> None:
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(400, 3, 2)
    out = layer(x)
    kept = out[:, 0, 0] > 0
    assert torch.equal(out, torch.where(kept[:, None, None], x / 0.75, torch.zeros_like(x)))
    assert 0.6 < kept.float().mean() < 0.9
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(DropPath(0.0).train()(x), x)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("patch", [4, 8, 16])
def test_a_decoder_returns_to_the_voxels(patch: int, pooled: bool) -> None:
    torch.manual_seed(0)
    decoder = UnetrDecoder(2, 3, 8, patch, 2, pooled)
    side = 4 if pooled else 2
    tokens = torch.randn(1, 8, *[side] * 3, requires_grad=True)
    image = torch.randn(1, 2, *[side * patch] * 3, requires_grad=True)
    logits = decoder(tokens, decoder.image_skip(image))
    assert logits.shape == (1, 3, *[side * patch] * 3)
    logits.square().sum().backward()
    for inside in (tokens, image):
        assert inside.grad is not None
        assert (inside.grad != 0).any()
    assert all(p.grad is not None for p in decoder.parameters())


@pytest.mark.parametrize("patch", [1, 2, 6, 12])
def test_a_patch_that_cannot_be_halved_to_a_voxel_is_refused(patch: int) -> None:
    with pytest.raises(ValueError, match=f"needs a patch of 4, 8, 16 … voxels, not {patch}"):
        UnetrDecoder(1, 2, 8, patch, 2, False)


@pytest.mark.parametrize("grid", [(5, 4, 4), (4, 4, 2)])
def test_a_pooled_decoder_refuses_a_grid_that_it_cannot_halve(grid: tuple[int, int, int]) -> None:
    decoder = UnetrDecoder(1, 2, 8, 4, 2, True)
    with pytest.raises(ValueError, match=rf"must be even and at least 4, not \({grid[0]}, {grid[1]}, {grid[2]}\)"):
        decoder(torch.randn(1, 8, *grid), decoder.image_skip(torch.randn(1, 1, *[4 * side for side in grid])))
