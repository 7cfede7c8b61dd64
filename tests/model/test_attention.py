"""Attention looked at row by row, against the whole matrix."""

from __future__ import annotations

import pytest
import torch

from napari_sparsetok.model import attention as maps
from napari_sparsetok.model.attention import (
    attention_by_distance,
    attention_received,
    attention_row,
    carried_back,
    queries_and_keys,
)
from napari_sparsetok.model.layers import Attention


def whole_matrix(layer: Attention, x: torch.Tensor) -> torch.Tensor:
    """(B, heads, N, N), with everything held at once."""
    b, n, c = x.shape
    q, k, _ = layer.qkv(x).reshape(b, n, 3, layer.heads, c // layer.heads).permute(2, 0, 3, 1, 4)
    return ((q @ k.transpose(-1, -2)) / (c // layer.heads) ** 0.5).softmax(-1)


@pytest.fixture
def layer() -> Attention:
    torch.manual_seed(0)
    return Attention(24, 3).requires_grad_(False)


@pytest.mark.parametrize("rows", [1, 7, 256])
def test_attention_received_is_the_mean_of_the_columns(layer: Attention, rows: int, monkeypatch) -> None:
    monkeypatch.setattr(maps, "ROWS", rows)
    x = 4 * torch.randn(2, 20, 24)
    expected = 20 * whole_matrix(layer, x).mean(dim=(1, 2))
    torch.testing.assert_close(attention_received(layer, x), expected)
    torch.testing.assert_close(expected.mean(dim=1), torch.ones(2))  # 1 is an even share


def test_the_kernel_of_the_blocks_attends_as_these_maps_say(layer: Attention) -> None:
    x = 4 * torch.randn(1, 20, 24)
    v = layer.qkv(x)[..., 48:].reshape(1, 20, 3, 8).transpose(1, 2)
    mixed = (whole_matrix(layer, x) @ v).transpose(1, 2).reshape(1, 20, 24)
    torch.testing.assert_close(layer(x), layer.proj(mixed))
    q, k = queries_and_keys(layer, x)
    torch.testing.assert_close((q @ k.transpose(-1, -2)).softmax(-1), whole_matrix(layer, x))


def test_a_row_is_a_row_of_the_matrix(layer: Attention) -> None:
    x = 4 * torch.randn(1, 20, 24)
    whole = whole_matrix(layer, x)[0]
    torch.testing.assert_close(attention_row(layer, x, 7, 2), whole[2, 7])
    torch.testing.assert_close(attention_row(layer, x, 7), whole[:, 7].mean(dim=0))


def test_rollout_is_the_product_of_the_matrices(layer: Attention) -> None:
    other = Attention(24, 3).requires_grad_(False)
    first, second = 4 * torch.randn(1, 20, 24), 4 * torch.randn(1, 20, 24)
    a, b = (0.5 * torch.eye(20) + 0.5 * whole_matrix(m, x)[0].mean(0) for m, x in ((layer, first), (other, second)))
    start = torch.zeros(20)
    start[3] = 1
    back = carried_back(layer, first, carried_back(other, second, start))
    torch.testing.assert_close(back, (b @ a)[3])
    torch.testing.assert_close(back.sum(), torch.tensor(1.0))


def test_attention_against_distance_by_hand(layer: Attention) -> None:
    x = 4 * torch.randn(1, 5, 24)
    at = torch.tensor([[float("nan")] * 3, [0.0, 0, 0], [0, 0, 4], [0, 0, 8], [0, 3, 4]])
    share, mean = attention_by_distance(layer, x, at, torch.tensor([0.0, 1.0, 4.5, 100.0]))
    whole = whole_matrix(layer, x[:, 1:])[0]  # the class token is nowhere
    far = torch.cdist(at[1:], at[1:])
    torch.testing.assert_close(mean, (whole * far).sum(-1).mean(-1))
    torch.testing.assert_close(share[:, 0], whole.diagonal(dim1=1, dim2=2).mean(1))
    torch.testing.assert_close(share[:, 2], (whole * (far >= 4.5)).sum(-1).mean(-1))
    torch.testing.assert_close(share.sum(1), torch.ones(3))


def test_memory_stays_bounded_at_4096_tokens(monkeypatch) -> None:
    layer = Attention(24, 3).requires_grad_(False)
    largest = 0

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Watched():
        x, places = torch.randn(1, 4096, 24), torch.randn(4096, 3)
        attention_received(layer, x)
        attention_row(layer, x, 5)
        carried_back(layer, x, torch.full((4096,), 1 / 4096))
        attention_by_distance(layer, x, places, torch.tensor([0.0, 1.0, 2.0]))
    assert largest == maps.ROWS * 4096  # one head's share of rows, never 4,096 × 4,096 of them
