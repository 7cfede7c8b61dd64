"""A window opened up, against plain runs of the network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from napari_sparsetok.engine.contract import Probing
from napari_sparsetok.engine.probe import Probe
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError
from napari_sparsetok.state import Forced, Settings
from napari_sparsetok.tokens import LADDER, asked_by_kept_from
from napari_sparsetok.weights import Registry

SETTINGS = Settings("tiny", 0.4)
GRID = (4, 6, 4)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "class token"])
def segmenter(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(3)
    tiny.write_model(folder, config=replace(tiny.CONFIG, class_token=request.param))
    found = SCDSegmenter(Registry([folder]))
    model = found._load(SETTINGS).model
    with torch.no_grad():  # random weights score all alike; these tell tokens apart
        for weight in [*model.scores.parameters(), *model.blocks.parameters()]:
            weight.add_(torch.randn_like(weight) * 0.2)
    return found


@pytest.fixture(scope="module")
def scan() -> Scan:
    voxels = np.random.default_rng(0).normal(100, 20, (16, 24, 16)).astype(np.float32)
    return Scan(voxels, Geometry.shown(voxels.shape, (1.0, 1.0, 1.0)))


@pytest.fixture(scope="module")
def probe(segmenter, scan) -> Probe:
    return segmenter.probe(scan, SETTINGS, (0, 0, 0))[0]


def test_it_says_what_the_prediction_says(segmenter, scan, probe):
    assert isinstance(segmenter, Probing)
    found = segmenter.segment(scan, SETTINGS)
    assert np.array_equal(probe.stage, found.tokens.stage)
    assert np.array_equal(probe.scores, found.tokens.importance, equal_nan=True)
    assert (probe.probabilities.argmax(0) == found.mask).mean() > 0.999
    assert probe.probabilities.sum(0) == pytest.approx(1, abs=1e-4)
    for place in [(0, 0, 0), (3, 5, 3), (1, 2, 3)]:
        told = probe.story(place)
        assert told[0].rank == found.tokens.rank[place]
        assert told[-1].kept == (probe.stage[place] == 3)
        assert len(told) == min(2, probe.stage[place])


def test_tokens_whose_probabilities_are_equal_are_told_in_the_order_in_which_they_were_kept(tmp_path, scan):
    tiny.write_model(tmp_path)
    sure = SCDSegmenter(Registry([tmp_path]))
    with torch.no_grad():  # all so near 1 that single precision rounds many to it
        sure._load(SETTINGS).model.scores[0].out_mlp[-1].bias.add_(16)
    found = sure.segment(scan, SETTINGS)
    assert len(np.unique(found.tokens.importance[0])) < 10
    probe = sure.probe(scan, SETTINGS, (0, 0, 0))[0]
    assert [probe.story(place)[0].rank for place in np.ndindex(GRID)] == found.tokens.rank.ravel().tolist()


def test_the_same_window_is_opened_once(segmenter, scan, probe):
    again, place = segmenter.probe(scan, SETTINGS, (15, 23, 15))
    assert again is segmenter.probe(scan, SETTINGS, (5, 9, 3))[0]
    assert place == (3, 5, 3)
    assert segmenter.probe(scan, SETTINGS, (15, 9, 3))[1] == (3, 2, 0)  # z, y, x
    assert segmenter.probe(scan, Settings("tiny", 0.3), (0, 0, 0))[0] is not again


def test_kept_from_is_where_a_run_keeps_it(segmenter, scan, probe):
    for place in [(0, 0, 0), (3, 5, 3), (1, 2, 3), (2, 0, 1)]:
        found = probe.kept_from(place)
        assert found is not None
        assert segmenter.segment(scan, Settings("tiny", found)).tokens.stage[place] == 3
        for ratio in (1.0, 0.7, 0.5, 0.35, 0.25, 0.12, 0.05):
            if ratio >= found:
                assert segmenter.segment(scan, Settings("tiny", ratio)).tokens.stage[place] == 3
        lost = found / 1.25
        if found > 0.021 and lost > 0.02:
            assert segmenter.segment(scan, Settings("tiny", lost)).tokens.stage[place] < 3


PLACES = [(0, 0, 0), (3, 5, 3), (1, 2, 3), (2, 0, 1)]


def _counted(monkeypatch, probe: Probe) -> list[float]:
    """The keep ratios at which the stages are run from here on."""
    ratios, model = [], probe._o.model
    for name in ("survives", "survivors"):
        real = getattr(model, name)

        def run(*given, real=real):
            ratios.append(given[-2])
            return real(*given)

        monkeypatch.setattr(model, name, run)
    return ratios


def test_once_the_window_is_got_ready_an_answer_runs_nothing_and_is_the_same(segmenter, scan, monkeypatch):
    probe = segmenter.probe(scan, SETTINGS, (0, 0, 0))[0]
    probe._survivors.clear()
    known = [probe.kept_from(place) for place in PLACES]
    stops = iter([False] * 6 + [True] * 9)
    probe.get_ready(lambda: next(stops))  # asked before each ratio and each block, so it ends in the midst of one
    assert 0 < len(probe._survivors) < 5
    assert [probe.kept_from(place) for place in PLACES] == known
    probe.get_ready(lambda: False)
    ran = _counted(monkeypatch, probe)
    assert [probe.kept_from(place) for place in PLACES] == known
    probe.get_ready(lambda: False)
    assert ran == []
    every = [probe.kept_from(place) for place in np.ndindex(GRID)]
    assert ran == []
    assert len({*every}) > 4  # else the weights tell nothing apart


def test_what_was_got_ready_is_what_runs_keep(segmenter, scan):
    probe = segmenter.probe(scan, SETTINGS, (0, 0, 0))[0]
    probe.get_ready(lambda: False)
    for ratio in (*LADDER[1:], *asked_by_kept_from()[9:60:10]):
        kept = segmenter.segment(scan, Settings("tiny", ratio)).tokens.stage == 3
        assert np.array_equal(probe._survivors[probe._decided_by(ratio)], kept.ravel())


def test_another_ratio_or_threshold_knows_it_already_and_another_rule_does_not(segmenter, scan, monkeypatch):
    probe = segmenter.probe(scan, SETTINGS, (0, 0, 0))[0]
    probe.get_ready(lambda: False)
    known = [probe.kept_from(place) for place in PLACES]
    for settings in (Settings("tiny", 0.3), replace(SETTINGS, threshold=0.4), replace(SETTINGS, stage_ratios=(1, 0.5))):
        other = segmenter.probe(scan, settings, (0, 0, 0))[0]
        assert other is not probe
        with monkeypatch.context() as patch:
            ran = _counted(patch, other)
            other.get_ready(lambda: False)
            assert [other.kept_from(place) for place in PLACES] == known
            assert ran == []
    by_length = segmenter.probe(scan, replace(SETTINGS, selection="norm"), (0, 0, 0))[0]
    by_length.get_ready(lambda: False)
    assert [by_length.kept_from(place) for place in PLACES] != known
    assert [probe.kept_from(place) for place in PLACES] == known


@pytest.mark.parametrize("selection", ["random", "entropy"])
def test_scores_from_outside_are_kept_apart(segmenter, scan, selection):
    settings = replace(SETTINGS, selection=selection)
    probe = segmenter.probe(scan, settings, (0, 0, 0))[0]
    probe.get_ready(lambda: False)
    found = probe.kept_from((1, 2, 3))
    assert segmenter.segment(scan, replace(settings, keep_ratio=found)).tokens.stage[1, 2, 3] == 3
    other = segmenter.probe(scan, replace(settings, seed=5), (0, 0, 0))[0]
    assert other._survivors is not probe._survivors


def test_tokens_chosen_by_hand_are_kept_apart(segmenter, scan):
    signs = np.zeros(GRID, np.int8)
    signs[0], signs[1, 2, 3] = 1, -1
    forced = replace(SETTINGS, forced=Forced.of(Region.whole(scan.shape), signs))
    probe = segmenter.probe(scan, forced, (0, 0, 0))[0]
    known = [probe.kept_from(place) for place in PLACES]
    assert known[0] == LADDER[-1]
    assert known[2] is None
    probe.get_ready(lambda: False)
    assert [probe.kept_from(place) for place in PLACES] == known


def test_attention_falls_on_the_tokens_that_were_there(probe):
    kept = tuple(int(v) for v in np.argwhere(probe.stage == 3)[0])
    first, middle, last = (probe.attention(block, kept, head=1) for block in range(3))
    assert not np.isnan(first).any()
    assert np.array_equal(np.isnan(middle), probe.stage < 2)
    assert np.array_equal(np.isnan(last), probe.stage < 3)
    mean = np.mean([probe.attention(1, kept, head=h) for h in range(2)], axis=0)
    assert np.allclose(probe.attention(1, kept), mean, equal_nan=True)
    gone = tuple(int(v) for v in np.argwhere(probe.stage == 1)[0])
    assert np.isnan(probe.attention(2, gone)).all()
    classes = probe._o.model.class_tokens
    assert np.nansum(last) <= 1.0001
    if not classes:
        assert np.nansum(last) == pytest.approx(1, abs=1e-4)


def test_rollout_is_the_product_of_the_maps(segmenter, scan, probe):
    kept = tuple(int(v) for v in np.argwhere(probe.stage == 3)[0])
    if probe._o.model.class_tokens:  # which carries a part that no token of the grid has
        assert 0 < probe.rollout(kept).sum() < 1
        return
    weights = np.zeros(GRID)
    weights[kept] = 1
    for block in (2, 1, 0):
        moved = np.zeros(GRID)
        for place in np.argwhere(weights > 0):
            moved += weights[tuple(place)] * np.nan_to_num(probe.attention(block, tuple(int(v) for v in place)))
        weights = (weights + moved) / 2
    assert np.allclose(probe.rollout(kept), weights, atol=1e-5)
    gone = tuple(int(v) for v in np.argwhere(probe.stage == 1)[0])
    assert probe.rollout(gone).sum() == pytest.approx(1, abs=1e-4)  # through the first block alone


def test_a_silenced_head_is_one_whose_part_is_zero(segmenter, scan, probe):
    told = []
    loss = probe.masked_heads(on_progress=lambda done, total: told.append((done, total)))
    assert loss.shape == (3, 2)
    assert told[-1] == (6, 6)
    assert ((loss >= 0) & (loss <= 1)).all()
    model = probe._o.model
    kept = model.blocks[0].attn.proj.weight.clone()
    with torch.no_grad():
        model.blocks[0].attn.proj.weight[:, 12:] = 0  # the second of two heads of 12
        changed = probe._labels()
        model.blocks[0].attn.proj.weight.copy_(kept)
    with probe._silenced(0, 1):
        assert np.array_equal(probe._labels(), changed)
    assert np.array_equal(probe._labels(), probe.probabilities.argmax(0))  # and nothing stays behind


def test_reach_sums_to_one_and_lies_within_the_window(probe):
    reach = probe.reach()
    assert reach.mean.shape == (3, 2)
    assert reach.share.sum(-1) == pytest.approx(1, abs=1e-4)
    assert 0 < reach.mean.min() <= reach.mean.max() < np.linalg.norm([12, 20, 12])
    assert reach.edges[0] == 0


def test_forced_tokens_are_in_the_story_and_beside_the_field_is_refused(segmenter, scan):
    signs = np.zeros(GRID, np.int8)
    signs[0, 0, 0] = -1
    forced = replace(SETTINGS, forced=Forced.of(Region.whole(scan.shape), signs))
    probe, place = segmenter.probe(scan, forced, (1, 1, 1))
    assert place == (0, 0, 0)
    assert len(probe.story(place)) == 1
    assert not probe.survives(place, 0.9)
    with pytest.raises(ScanError, match="did not look here"):
        segmenter.probe(scan, SETTINGS, (15, 2, 2), Region((0, 0, 0), (8, 24, 16)))


@pytest.mark.parametrize("after", [(1,), (3,)], ids=["early", "after the last block"])
def test_a_model_of_one_stage_is_opened_as_well(tmp_path, scan, after):
    torch.manual_seed(3)
    tiny.write_model(tmp_path, config=replace(tiny.CONFIG, prune_after=after))
    segmenter = SCDSegmenter(Registry([tmp_path]))
    probe, place = segmenter.probe(scan, SETTINGS, (5, 9, 3))
    found = segmenter.segment(scan, SETTINGS)
    assert np.array_equal(probe.stage, found.tokens.stage)
    assert set(np.unique(probe.stage)) == {1, 2}
    assert len(probe.story(place)) == 1
    probe.get_ready(lambda: False)
    for at in PLACES:
        lowest = probe.kept_from(at)
        assert segmenter.segment(scan, Settings("tiny", lowest)).tokens.stage[at] == 2
    assert not np.isnan(probe.attention(0, place)).any()
    assert probe.rollout(place).shape == GRID
    assert probe.reach().mean.shape == probe.masked_heads().shape == (3, 2)


def test_a_threshold_above_every_score_leaves_one_token_and_can_be_asked_about(segmenter, scan):
    settings = replace(SETTINGS, threshold=1.0)
    probe, place = segmenter.probe(scan, settings, (5, 9, 3))
    left = 0 if probe._o.model.class_tokens else 1
    assert np.count_nonzero(probe.stage == 3) == left
    assert len(probe.story(place)) >= 1
    assert probe.probabilities.sum(0) == pytest.approx(1, abs=1e-4)
    probe.get_ready(lambda: False)
    assert probe.kept_from(place) is not None
    assert probe.rollout(place).shape == GRID
    reach = probe.reach()
    assert np.isfinite(reach.mean[0]).all()
    assert np.isfinite(reach.mean).all() == bool(left)  # with nothing left but the class token nobody looks


def test_at_a_ratio_of_one_every_token_is_kept_and_told_of_without_a_cut(segmenter, scan):
    probe, place = segmenter.probe(scan, replace(SETTINGS, keep_ratio=1.0), (5, 9, 3))
    assert (probe.stage == 3).all()
    told = probe.story(place)
    assert [one.kept for one in told] == [True, True]
    assert all(np.isnan(one.margin) for one in told)
