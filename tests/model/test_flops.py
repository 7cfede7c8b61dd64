"""The counts of the paper's networks, and that counting counts what runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import tiny
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.model import SCD, SCDConfig, flops
from napari_sparsetok.model.flops import count_cost, gmac_at
from napari_sparsetok.model.presets import PRESETS, Preset


@pytest.mark.parametrize(
    ("preset", "keep_ratio", "gmac", "millions"),
    [("btcv", 0.1, 131.80, 107.58), ("brats", 0.25, 403.77, 112.40)],
)
def test_the_published_counts_are_met(preset: Preset, keep_ratio: float, gmac: float, millions: float) -> None:
    cost = count_cost(PRESETS[preset], keep_ratio)
    assert cost.total == pytest.approx(gmac, rel=1e-4)
    assert cost.parameters / 1e6 == pytest.approx(millions, rel=1e-4)
    assert cost.learned < cost.parameters


def test_parts_are_what_a_person_counts_by_hand() -> None:
    c = SCDConfig(1, 2, (16, 16, 16), patch=8, dim=12, depth=2, heads=2, prune_after=(1,), completion_dim=6,
                  completion_heads=1, features=2, class_token=True)  # fmt: skip

    def block(tokens: int, dim: int) -> int:
        return 12 * tokens * dim**2 + 2 * tokens**2 * dim

    def score(tokens: int, dim: int) -> int:
        return tokens * (dim * dim + dim * dim // 2 + dim // 2 * dim // 4 + dim // 4)

    cost = count_cost(c, 0.5)
    assert cost.left == (8, 4)
    assert cost.prefix == pytest.approx((8 * 512 * 12 + block(9, 12) + score(8, 12)) / 1e9)
    assert cost.rest == pytest.approx(block(5, 12) / 1e9)
    assert cost.completion == pytest.approx((2 * 9 * 12 * 6 + block(9, 6)) / 1e9)
    assert cost.fixed == 9 * (12 + 6)


def test_keeping_fewer_tokens_costs_less_where_they_are_missing() -> None:
    sparse, full = count_cost(PRESETS["btcv"], 0.25), count_cost(PRESETS["btcv"], 1.0)
    assert full.left == (1728,) * 4
    assert sparse.rest < full.rest / 4
    assert (sparse.prefix, sparse.decoder) == (full.prefix, full.decoder)
    assert sparse.completion == pytest.approx(full.completion)


def test_the_command_prints_one_document() -> None:
    result = CliRunner().invoke(app, ["profile", "--preset", "btcv", "--keep-ratio", "0.1", "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["tokens_left"] == [1728, 172, 17, 1]
    parts = {name: value for name, value in document["gmac"].items() if name != "total"}
    assert list(parts) == ["prefix", "rest", "completion", "decoder"]
    assert math.isclose(sum(parts.values()), document["gmac"]["total"])


def test_the_command_prints_a_table_for_people() -> None:
    result = CliRunner().invoke(app, ["profile", "--preset", "brats", "--keep-ratio", "0.25"])
    assert result.exit_code == 0
    assert "403.77" in result.stdout
    assert "4096 → 1024 → 256 → 64" in result.stdout


@pytest.mark.parametrize("ratio", ["0", "1.2", "nan"])
def test_a_wrong_keep_ratio_is_one_line_and_code_2(ratio: str) -> None:
    result = CliRunner().invoke(app, ["profile", "--preset", "btcv", "--keep-ratio", ratio])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("sparsetok: a keep ratio must be above 0")
    assert result.stderr.count("\n") == 1


def test_the_version_is_printed() -> None:
    from napari_sparsetok import __version__

    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"napari-sparsetok {__version__}\n")


@pytest.mark.parametrize("ratios", [1.0, 0.4, (0.7, 0.2)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"class_token": True},
        {"features": 6, "in_channels": 3, "out_channels": 5},
        {"in_channels": 4, "features": 4},  # as many channels as features: no short cut
        {"patch": 8, "window": (32, 48, 32)},
        {"patch": 8, "window": (32, 64, 32), "pooled_decoder": True},
        {"patch": 16, "window": (64, 64, 64), "pooled_decoder": True},
        {"patch": 16, "window": (32, 32, 48)},
    ],
    ids=str,
)
def test_the_cost_by_formula_is_the_cost_counted(ratios, changes) -> None:
    config = replace(tiny.CONFIG, **changes)
    cost = count_cost(config, ratios)
    assert gmac_at(config, cost.left) == pytest.approx(cost.total, rel=1e-9)


def test_the_formula_runs_no_network(monkeypatch) -> None:
    """The first comparison would wait for it: PyTorch takes seconds to count."""
    monkeypatch.setattr(flops, "SCD", lambda config: pytest.fail("built a network"))
    monkeypatch.setattr(flops, "FlopCounterMode", lambda **how: pytest.fail("counted a run"))
    assert gmac_at(replace(tiny.CONFIG, features=5), (96, 20, 3)) > 0


@pytest.mark.parametrize("class_token", [False, True])
def test_empty_patches_cost_what_pytorch_counts(class_token: bool) -> None:
    config = replace(tiny.CONFIG, empty=-1.0, class_token=class_token, window=(16, 16, 16))
    network = SCD(config).eval()
    image = torch.full((1, config.in_channels, *config.window), -1.0)
    image[..., :12, 4:] = 0.5
    # The counter knows the plain products of attention, and not the CPU's fused kernel.
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.inference_mode(), plain, FlopCounterMode(display=False) as counter:
        _, record = network(image, 0.5)
    left = [int((record.stage > k).sum()) for k in range(config.stages + 1)]
    assert left[0] == 4 * 3 * 3
    assert gmac_at(config, left) == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-9)


def test_the_token_for_empty_patches_is_among_the_parameters() -> None:
    config = replace(tiny.CONFIG, empty=-1.0)
    assert count_cost(config, 0.5).learned == sum(p.numel() for p in SCD(config).parameters())
