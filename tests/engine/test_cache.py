"""The prefix cache stays within its budget."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.engine.cache import PrefixCache, WindowPrefix
from napari_sparsetok.engine.decoding import ImageSkip
from napari_sparsetok.model import Prefix


def entry(floats: int) -> WindowPrefix:
    return WindowPrefix(
        Prefix(torch.zeros(floats), torch.zeros(0), (1, 1, 1)), ImageSkip(torch.zeros(0), torch.zeros(0))
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), max_size=40), st.integers(0, 300))
def test_never_over_budget_and_the_oldest_goes_first(puts, budget):
    cache, model = PrefixCache(budget), {}
    for key, floats in puts:
        cache.put(key, entry(floats))
        if 4 * floats <= budget:
            model.pop(key, None)
            model[key] = 4 * floats
            while sum(model.values()) > budget:
                model.pop(next(iter(model)))
        assert cache.nbytes == sum(model.values()) <= budget
        assert len(cache) == len(model)
        assert all(cache.get(k) is not None for k in list(model))


def test_what_was_asked_for_stays():
    cache = PrefixCache(8)
    cache.put("a", entry(1))
    cache.put("b", entry(1))
    cache.get("a")
    cache.put("c", entry(1))
    assert cache.get("a") is not None
    assert cache.get("b") is None
    cache.clear()
    assert cache.nbytes == len(cache) == 0
