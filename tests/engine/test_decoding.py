"""The arranged decoder against the one that was trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from napari_sparsetok.engine import device as devices
from napari_sparsetok.engine.decoding import FastDecoder, joined
from napari_sparsetok.model import SCD

CONFIGS = {
    "patch 4": tiny.CONFIG,
    "patch 8": replace(tiny.CONFIG, patch=8, window=(16, 24, 32)),
    "patch 16": replace(tiny.CONFIG, patch=16, window=(32, 32, 48)),
    "pooled": replace(tiny.CONFIG, patch=8, window=(32, 48, 32), pooled_decoder=True),
    "three channels": replace(tiny.CONFIG, in_channels=3),
    "as many features as channels": replace(tiny.CONFIG, in_channels=4),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def network(request):
    torch.manual_seed(0)
    return SCD(request.param).eval().requires_grad_(False)


def run(network: SCD, dtype: torch.dtype, windows: int = 2):
    config = network.config
    image = torch.randn(windows, config.in_channels, *config.window)
    grid = torch.randn(windows, config.dim, *config.grid())
    fast = FastDecoder(network.decoder, dtype)
    with torch.inference_mode():
        expected = network.decode(grid, network.image_skip(image))
        whole = fast.image_skip(image)
        got = fast(grid, joined([whole.of(k) for k in range(windows)]))
    return expected, got


def test_in_float32_it_is_the_trained_decoder_to_rounding(network):
    expected, got = run(network, torch.float32)
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, atol=2e-3 * float(expected.std()), rtol=0)


def test_where_oneDNN_is_missing_too(network, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    expected, got = run(network, torch.float32)
    assert torch.allclose(got, expected, atol=2e-3 * float(expected.std()), rtol=0)


@tiny.needs_bfloat16
def test_in_bfloat16_it_is_close(network):
    expected, got = run(network, torch.bfloat16)
    assert got.dtype == torch.float32
    assert float((got - expected).abs().mean()) < 0.03 * float(expected.std())


def test_decoding_leaves_what_is_cached_as_it_was():
    network = SCD(tiny.CONFIG).eval().requires_grad_(False)
    fast = FastDecoder(network.decoder, torch.float32)
    with torch.inference_mode():
        skip = fast.image_skip(torch.randn(1, 1, *tiny.CONFIG.window))
        before = skip.main.clone(), skip.short.clone()
        first = fast(torch.randn(1, tiny.CONFIG.dim, *tiny.CONFIG.grid()), skip)
        assert torch.equal(skip.main, before[0])
        assert torch.equal(skip.short, before[1])
    assert first.isfinite().all()


@pytest.mark.parametrize(
    ("capable", "bfloat16", "expected"),
    [("AVX512", True, torch.bfloat16), ("AVX512", False, torch.float32), ("AVX2", True, torch.float32)],
)
def test_what_follows_the_encoder_runs_in_bfloat16_only_where_the_cpu_multiplies_it(
    monkeypatch, capable, bfloat16, expected
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capable)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": bfloat16}, raising=False)
    assert devices.cpu().dense_dtype == expected
    assert devices.cpu().dtype == torch.float32


def test_an_older_pytorch_that_does_not_tell_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert devices.cpu().dense_dtype == torch.float32
