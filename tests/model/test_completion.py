"""Token completion: every token comes back, as it was pruned or as a mask token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from napari_sparsetok.model import SCD


def complete(kind: str):
    """The completed grid of a tiny network, and what the pruned tokens of the first stage did to it."""
    torch.manual_seed(0)
    model = SCD(replace(tiny.CONFIG, completion=kind)).eval()
    prefix = model.encode_prefix(torch.randn(1, 1, 16, 24, 16))
    parts, ids, _ = model.encode_rest(prefix, 0.5)
    before = model.complete(parts, ids, prefix.grid)
    after = model.complete([parts[0] + torch.randn_like(parts[0]), *parts[1:]], ids, prefix.grid)
    return model, before, after


@pytest.mark.parametrize("kind", ["assembly", "mask"])
def test_every_token_comes_back(kind):
    _, completed, _ = complete(kind)
    assert completed.shape == (1, 24, 4, 6, 4)
    assert torch.isfinite(completed).all()


def test_only_assembly_remembers_what_pruned_tokens_were():
    _, before, after = complete("assembly")
    assert not torch.equal(before, after)
    model, before, after = complete("mask")
    assert torch.equal(before, after)
    assert sorted(k for k in model.state_dict() if "pre_linear" in k) == [
        "completion.pre_linear.2.bias",
        "completion.pre_linear.2.weight",
    ]
