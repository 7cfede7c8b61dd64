"""A model that takes in no empty patch: what its windows hold, and what is said of the tokens that never entered."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sparsetok.engine.cache import WindowPrefix
from napari_sparsetok.engine.completing import SharedCompletion
from napari_sparsetok.engine.contract import Hints
from napari_sparsetok.engine.decoding import FastDecoder
from napari_sparsetok.engine.report import report
from napari_sparsetok.engine.segmenter import SCDSegmenter, config_of
from napari_sparsetok.inspection.ladder import gmac_of
from napari_sparsetok.model import SCD, Rule
from napari_sparsetok.model.flops import count_cost, gmac_at
from napari_sparsetok.scan import Geometry, Region, Scan
from napari_sparsetok.state import Forced, Settings
from napari_sparsetok.tokens import Lattice, first_stage_preview, tokens_left, unseen
from napari_sparsetok.weights import Registry

CONFIG = replace(tiny.CONFIG, empty=-1.0)
RULE = {"name": "window", "low": 0.0, "high": 200.0}
RATIOS = (1.0, 0.5, 0.2, 0.05)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.write_model(folder, "airless", CONFIG, intensity=RULE)
    return Registry([folder])


@pytest.fixture
def segmenter(registry):
    return SCDSegmenter(registry)


def make_scan(shape=(24, 40, 40), seed=0) -> Scan:
    """A ball of something in air."""
    voxels = np.random.default_rng(seed).normal(100, 20, shape).clip(1)
    middle = (np.array(shape) - 1) / 2
    far = np.linalg.norm(np.stack(np.indices(shape)) - middle[:, None, None, None], axis=0)
    return Scan(np.where(far < 14, voxels, -5).astype(np.float32), Geometry.shown(shape, (1.0, 1.0, 1.0)), name="ball")


def empty_tokens(scan: Scan, patch=CONFIG.patch):
    d, h, w = (n // patch for n in scan.shape)
    return scan.voxels.reshape(d, patch, h, patch, w, patch).max(axis=(1, 3, 5)) <= 0


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_map_says_of_every_token_whether_it_entered(segmenter, ratio):
    scan = make_scan()
    tokens = segmenter.segment(scan, Settings("airless", ratio)).tokens
    plan = segmenter._layout.plan
    gone = empty_tokens(scan)
    assert 0.3 < gone.mean() < 0.8
    assert tokens.covered.all()
    lone = [plan.tokens(i).slices for i in range(len(plan.regions)) if gone[plan.tokens(i).slices].all()]
    assert not lone  # no window here is empty all over
    assert np.array_equal(tokens.stage == 0, gone)
    assert np.array_equal(tokens.rank < 0, gone)
    assert np.array_equal(np.isnan(tokens.importance[0]), gone)
    counts = [np.count_nonzero(~gone[plan.tokens(i).slices]) for i in range(len(plan.regions))]
    assert sorted(tokens.left_by_window[:, 0].tolist()) == sorted(counts)
    assert tokens.left == tuple(np.sum([tokens_left(n, ratio, 2) for n in counts], axis=0))
    assert tokens.empty == tokens.window_tokens * len(counts) - sum(counts)
    for index, n in enumerate(counts):
        assert (tokens.entered[plan.owner == index] == n).all()


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_preview_is_what_the_engine_does_at_stage_one(segmenter, ratio):
    scan = make_scan()
    preview = first_stage_preview(segmenter.segment(scan, Settings("airless", 0.4)).tokens, ratio)
    truth = segmenter.segment(scan, Settings("airless", ratio)).tokens
    assert np.array_equal(preview.stage == 1, truth.stage == 1)
    assert np.array_equal(preview.stage == 0, truth.stage == 0)
    assert preview.left == truth.left
    assert preview.empty == truth.empty
    assert np.array_equal(np.sort(preview.left_by_window, axis=0), np.sort(truth.left_by_window, axis=0))


def test_what_it_costs_is_summed_over_windows_as_they_were(segmenter, registry):
    scan, card = make_scan(), registry["airless"]
    prediction = segmenter.segment(scan, Settings("airless", 0.5))
    config = config_of(card)
    wanted = sum(gmac_at(config, row) for row in prediction.tokens.left_by_window.tolist())
    assert gmac_of(prediction, card) == pytest.approx(wanted)
    full = count_cost(config, 0.5)
    decoding = full.decoder * prediction.timing.windows
    assert wanted - decoding < 0.8 * (full.total * prediction.timing.windows - decoding)


def test_a_person_is_told_of_background_that_never_entered(segmenter):
    from napari_sparsetok.ui.inspect_words import told

    scan = make_scan()
    prediction = segmenter.segment(scan, Settings("airless", 0.5))
    lattice = Lattice.of(prediction.tokens, scan.geometry, scan.shape)
    assert "nothing but background" in told(prediction, prediction.tokens, lattice, (0, 0, 0))
    assert "nothing but background" not in told(prediction, prediction.tokens, lattice, (12, 20, 20))


def test_a_probe_and_hand_chosen_tokens_leave_them_out(segmenter):
    scan = make_scan()
    gone = empty_tokens(scan)
    signs = np.where(gone, 1, 0).astype(np.int8)  # somebody wants all of the air
    signs[3, 5, 5] = -1
    chosen = Settings("airless", 0.3, forced=Forced.of(Region.whole(scan.shape), signs))
    tokens = segmenter.segment(scan, chosen).tokens
    assert np.array_equal(tokens.stage == 0, gone)
    assert tokens.stage[3, 5, 5] == 1
    probe, place = segmenter.probe(scan, Settings("airless", 0.3), (1, 1, 1))
    assert probe.story(place) == ()
    assert probe.kept_from(place) is None
    assert not probe.survives(place, 1.0)
    probe, place = segmenter.probe(scan, Settings("airless", 0.3), (12, 20, 20))
    assert probe.survives(place, 1.0)
    assert np.array_equal(np.isnan(probe.attention(0, place)), probe.stage == 0)
    assert np.nansum(probe.rollout(place)) == pytest.approx(1, abs=1e-4)
    assert np.isfinite(probe.reach().mean).all()
    assert np.isfinite(probe.masked_heads()).all()


def test_a_mask_over_air_rests_on_tokens_that_never_entered(segmenter):
    scan = make_scan()
    tokens = segmenter.segment(scan, Settings("airless", 1.0)).tokens
    mask = np.zeros(scan.shape, np.uint8)
    mask[:2, :2, :2], mask[12:14, 20:22, 20:22] = 1, 1
    lattice = Lattice.of(tokens, scan.geometry, scan.shape)
    assert [(p.at, p.stage, p.whole) for p in unseen(mask, tokens, lattice)] == [((0, 0, 0), 0, True)]


def test_the_report_counts_them_as_not_looked_at(segmenter, registry):
    scan = make_scan()
    tokens = report(segmenter.segment(scan, Settings("airless", 0.5)), registry["airless"])["tokens"]
    assert tokens["voxels_by_stage"][0] == CONFIG.patch**3 * np.count_nonzero(empty_tokens(scan))


def test_a_part_that_is_run_anew_keeps_what_was_said_of_the_others(segmenter):
    scan = make_scan()
    base = segmenter.segment(scan, Settings("airless", 1.0))
    hints = Hints((12, 10, 10), focus_only=True, base=base)
    near = segmenter.segment(scan, Settings("airless", 0.2), hints=hints).tokens
    assert len(near.left_by_window) < len(base.tokens.left_by_window)
    assert np.array_equal(near.entered, base.tokens.entered)
    assert np.array_equal(near.stage == 0, base.tokens.stage == 0)


def test_where_windows_come_in_batches_these_come_one_by_one(segmenter):
    scan, wish = make_scan(), Settings("airless", 0.3)
    wanted = segmenter.segment(scan, wish)
    network = segmenter._network
    segmenter._network = replace(network, device=replace(network.device, batch=4))  # as on a GPU
    segmenter._cache.clear()
    assert np.array_equal(segmenter.segment(scan, wish).mask, wanted.mask)
    assert segmenter._network.device.batch == 4


def test_a_scan_of_nothing_but_a_speck(segmenter):
    voxels = np.full((24, 40, 40), -5, np.float32)
    voxels[3, 3, 3] = 100
    scan = Scan(voxels, Geometry.shown(voxels.shape, (1.0, 1.0, 1.0)), name="speck")
    prediction = segmenter.segment(scan, Settings("airless", 0.5))
    assert prediction.complete
    # Of a window that is empty all over one token enters, as no block can do with none.
    assert set(prediction.tokens.left_by_window[:, 0].tolist()) == {1}


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=5), st.integers(0, 3), st.floats(0.1, 0.9))
def test_what_keep_ratios_share_in_completion_is_the_network_to_rounding(ratios, seed, share):
    torch.manual_seed(seed)
    model = SCD(CONFIG).eval().requires_grad_(False)
    completion = SharedCompletion(model)
    with torch.inference_mode():
        image = torch.randn(1, 1, *CONFIG.window)
        image[..., : int(share * CONFIG.window[2])] = -1.0
        window = WindowPrefix(model.encode_prefix(image), FastDecoder(model.decoder, torch.float32).image_skip(image))
        for ratio in ratios:
            parts, ids, _ = model.encode_rest(window.prefix, ratio, Rule())
            got = completion(window.prefix, window.shared, parts, ids)
            expected = model.complete(parts, ids, window.prefix.grid)
            assert got.shape == expected.shape
            assert torch.allclose(got, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("ratio", [1.0, 0.95])
def test_tokens_that_must_go_are_counted_in_every_window_that_holds_them_and_only_where_they_entered(segmenter, ratio):
    scan = make_scan()
    whole = segmenter.segment(scan, Settings("airless", 0.5))
    signs = np.zeros(whole.tokens.stage.shape, np.int8)
    signs.reshape(-1)[::3] = -1
    chosen = Settings("airless", 0.5, forced=Forced.of(whole.region, signs))
    before = segmenter.segment(scan, chosen).tokens
    after = segmenter.segment(scan, replace(chosen, keep_ratio=ratio)).tokens
    assert (before.windows > 1).any()
    assert first_stage_preview(before, ratio).left[:2] == after.left[:2]
