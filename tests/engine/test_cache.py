"""The prefix cache stays within its budget."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.engine.cache import PrefixCache, WindowPrefix
from napari_sparsetok.engine.decoding import ImageSkip
from napari_sparsetok.model import Prefix

MEMORY, GPU = torch.device("cpu"), torch.device("cuda")


def entry(floats: int) -> WindowPrefix:
    return WindowPrefix(
        Prefix(torch.zeros(floats), torch.zeros(0), torch.zeros(0), (1, 1, 1)),
        ImageSkip(torch.zeros(0), torch.zeros(0)),
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), max_size=40), st.integers(0, 300))
def test_never_over_budget_and_the_oldest_goes_first(puts, budget):
    cache, model = PrefixCache(budget), {}
    for key, floats in puts:
        cache.put(key, entry(floats))
        model.pop(key, None)
        if 4 * floats <= budget:
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


class Entry:
    """Knows where it lies."""

    def __init__(self, name, nbytes=1, device=GPU):
        self.name, self.nbytes, self.device = name, nbytes, device

    def to(self, device):
        return Entry(self.name, self.nbytes, device)


def test_what_the_gpu_has_no_room_for_goes_to_memory_and_comes_back_when_it_is_needed():
    cache = PrefixCache(10)
    cache.place(GPU, 2)
    for name in "abc":
        cache.put(name, Entry(name))
    assert {name: entry.device for name, entry in cache._memory.entries.items()} == {"a": MEMORY}
    assert {name: entry.device for name, entry in cache._near.entries.items()} == {"b": GPU, "c": GPU}
    found = cache.get("a")
    assert (found.name, found.device) == ("a", GPU)
    assert list(cache._near.entries) == ["c", "a"]
    assert list(cache._memory.entries) == ["b"]
    assert cache.nbytes == 3


def test_what_neither_has_room_for_is_forgotten_the_oldest_first():
    cache = PrefixCache(1)
    cache.place(GPU, 1)
    for name in "abc":
        cache.put(name, Entry(name))
    assert cache.get("a") is None
    assert [cache.get(name).device for name in "bc"] == [GPU, GPU]


def test_without_room_on_the_gpu_entries_lie_in_memory_and_are_given_on_the_gpu():
    cache = PrefixCache(2)
    cache.place(GPU, 0)
    cache.put("a", Entry("a"))
    assert cache._memory.entries["a"].device == MEMORY
    assert cache.get("a").device == GPU


def test_another_device_forgets_what_was_there_and_memory_keeps_its_budget():
    cache = PrefixCache(2)
    cache.place(GPU, 2)
    cache.put("a", Entry("a"))
    cache.place(MEMORY, 0)
    assert cache.get("a") is None
    cache.put("b", Entry("b", device=MEMORY))
    assert cache.get("b").device == MEMORY
    cache.place(GPU, 0)
    assert len(cache) == cache.nbytes == cache.near_budget == 0
    cache.put("c", Entry("c"))
    assert cache.nbytes == 1


def test_moving_an_entry_keeps_every_number():
    before = WindowPrefix(
        Prefix(torch.arange(6.0).reshape(1, 3, 2), torch.arange(3.0)[None], torch.arange(3)[None], (1, 1, 3)),
        ImageSkip(torch.ones(1, 2), torch.full((1, 2), 2.0)),
    )
    after = before.to(MEMORY)
    assert after.prefix.grid == before.prefix.grid
    assert torch.equal(after.prefix.tokens, before.prefix.tokens)
    assert torch.equal(after.prefix.scores, before.prefix.scores)
    assert torch.equal(after.prefix.places, before.prefix.places)
    assert torch.equal(after.skip.main, before.skip.main)
    assert torch.equal(after.skip.short, before.skip.short)
    assert after.nbytes == before.nbytes
