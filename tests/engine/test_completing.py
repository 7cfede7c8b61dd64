"""Completion that keeps what keep ratios share, against the network's own, in any order of ratios."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparsetok.engine import device as devices
from napari_sparsetok.engine.cache import PrefixCache, WindowPrefix
from napari_sparsetok.engine.completing import SharedCompletion, _both, _see
from napari_sparsetok.engine.decoding import FastDecoder
from napari_sparsetok.engine.network import Network, finish
from napari_sparsetok.model import SCD, Rule

CONFIG = replace(tiny.CONFIG, completion_depth=2, completion_dim=32)
LEARNED = Rule()


def make(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    model = SCD(config).eval().requires_grad_(False)
    with torch.inference_mode():
        image = torch.randn(1, config.in_channels, *config.window)
        prefix = model.encode_prefix(image)
        return model, WindowPrefix(prefix, FastDecoder(model.decoder, torch.float32).image_skip(image))


def both(model, completion, window, ratio, rule=LEARNED):
    with torch.inference_mode():
        parts, ids, _ = model.encode_rest(window.prefix, ratio, rule)
        assert completion.fits(rule)
        got = completion(window.prefix, window.shared, parts, ids)
        return got, model.complete(parts, ids, window.prefix.grid)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6), st.integers(0, 3))
def test_whatever_ratios_came_before_it_is_the_network_to_rounding(ratios, seed):
    model, window = make(seed=seed)
    completion = SharedCompletion(model)
    for ratio in ratios:
        got, expected = both(model, completion, window, ratio)
        assert got.shape == expected.shape
        assert torch.allclose(got, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_with_a_threshold_too():
    model, window = make()
    completion = SharedCompletion(model)
    got, expected = both(model, completion, window, 0.5, Rule(threshold=float(window.prefix.scores.exp().median())))
    assert torch.allclose(got, expected, atol=1e-5, rtol=1e-4)


def test_a_series_does_not_depend_on_what_was_asked_before():
    model, window = make()
    completion = SharedCompletion(model)
    first = [both(model, completion, window, ratio)[0] for ratio in (1.0, 0.5, 0.3)]
    both(model, completion, window, 0.6)
    again = [both(model, completion, window, ratio)[0] for ratio in (1.0, 0.5, 0.3)]
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


@pytest.mark.parametrize("rule", [Rule(selection="norm"), Rule(forced=torch.zeros(1, 96, dtype=torch.int8))])
def test_rules_under_which_others_than_the_lowest_may_be_pruned_share_nothing(rule):
    assert not SharedCompletion(make()[0]).fits(rule)


@pytest.mark.parametrize("changes", [{"class_token": True}, {"completion": "mask"}, {"completion_depth": 0}])
def test_networks_that_share_nothing_are_run_as_they_are(changes):
    assert not SharedCompletion(SCD(replace(CONFIG, **changes))).fits(LEARNED)


def test_only_a_series_of_a_cached_window_shares(monkeypatch):
    """A single ratio must be the same to the last digit, whatever was asked before."""
    monkeypatch.setattr(devices, "_cpu_dense_dtype", lambda: torch.float32)
    model, window = make()
    network = Network.on(None, model, devices.choose("cpu"), "cpu")
    plain = finish(network, [window], 0.3, LEARNED)[0][0]
    assert not window.shared.filled
    series = finish(network, [window], 0.3, LEARNED, True)[0][0]
    assert window.shared.filled
    assert torch.allclose(plain, series, atol=1e-4 * float(plain.abs().max()), rtol=0)
    assert torch.equal(finish(network, [window], 0.3, LEARNED)[0][0], plain)


@tiny.needs_bfloat16
def test_in_bfloat16_a_series_is_what_each_ratio_is_alone(monkeypatch):
    """There the rounding of parts that are put together could be seen in the mask."""
    monkeypatch.setattr(devices, "_cpu_dense_dtype", lambda: torch.bfloat16)
    model, window = make()
    network = Network.on(None, model, devices.choose("cpu"), "cpu")
    for ratio in (1.0, 0.5, 0.3):
        alone, series = (finish(network, [window], ratio, LEARNED, share)[0][0] for share in (False, True))
        assert torch.equal(alone, series)
    assert not window.shared.filled


def test_what_is_kept_counts_against_the_budget():
    model, window = make()
    cache, completion, before = PrefixCache(2**30), SharedCompletion(model), window.nbytes
    cache.put("window", window)
    assert cache.nbytes == before
    both(model, completion, window, 0.5)
    assert window.nbytes > before
    cache.put("window", window)
    assert cache.nbytes == window.nbytes
    both(model, completion, window, 0.1)
    cache.put("window", window)
    cache.put("other", make(seed=1)[1])
    cache.clear()
    assert cache.nbytes == 0


def test_two_sets_of_keys_are_seen_as_one():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, n, 8) * 5 for n in (7, 20, 20))
    whole = _see(query, key, value)
    joined = _both(_see(query, key[:, :, :3], value[:, :, :3]), _see(query, key[:, :, 3:], value[:, :, 3:]))
    for one, other in zip(whole, joined, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
