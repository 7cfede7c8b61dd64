"""Sweeps: what they measure, how they end, and that nothing in them is made up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from fakes import FakeSegmenter, expected_mask, make_card, make_scan

from napari_sparsetok.engine import segmenter as engine
from napari_sparsetok.engine.contract import Stopped, Watch
from napari_sparsetok.engine.segmenter import SCDSegmenter, config_of
from napari_sparsetok.inspection.ladder import Question, Sweep, gmac_of, stopped_early, sweep
from napari_sparsetok.metrics import dice
from napari_sparsetok.model.flops import count_cost
from napari_sparsetok.scan import Geometry, Region, Scan
from napari_sparsetok.state import Forced, Reference, Settings
from napari_sparsetok.weights import Registry

LADDER = (1.0, 0.75, 0.5, 0.25)


@pytest.fixture
def question() -> Question:
    scan = make_scan()
    return Question(scan, Settings("fake"), make_card(), ladder=LADDER)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, request):
    if "real" not in request.node.name:
        monkeypatch.setattr(
            "napari_sparsetok.inspection.ladder.gmac_of", lambda prediction, card: prediction.tokens.left[-1]
        )


def test_a_sweep_holds_every_ratio_against_the_dense_run(question):
    scan, seen = question.scan, []
    found = sweep(FakeSegmenter(free=True), question, on_rung=seen.append)
    assert [rung.keep_ratio for rung in found.rungs] == list(LADDER)
    for rung in found.rungs:
        mask = expected_mask(scan, rung.keep_ratio)
        for row in rung.agreement:
            a, b = mask == row.label, expected_mask(scan, 1.0) == row.label
            assert row.dice == (dice(a, b) if a.any() or b.any() else 1.0)
        assert rung.seconds > 0
        assert rung.memory > 1e6
    assert [len(s.rungs) for s in seen] == [1, 2, 3, 4]
    assert [s.complete for s in seen] == [False, False, False, True]
    # The fake moves an edge along x: a voxel beyond it is label 2, else 1.
    columns = found.lowest[0, 0]
    for x, lowest in enumerate(columns):
        labels = [expected_mask(scan, r)[0, 0, x] for r in LADDER]
        steady = [r for k, r in enumerate(LADDER) if all(v == labels[0] for v in labels[: k + 1])]
        assert lowest == min(steady)
    assert found.settled == tuple(int((found.lowest == np.float32(r)).sum()) for r in LADDER)
    assert sum(found.settled) == np.prod(scan.shape)


def test_auto_is_the_smallest_that_agrees_from_the_top(question):
    found = sweep(FakeSegmenter(free=True), question)
    worst = {rung.keep_ratio: rung.worst for rung in found.rungs}
    assert found.auto(0.0) == 0.25
    assert found.auto(worst[0.75]) in (0.75, 0.5, 0.25)
    assert found.auto(1.0) == 1.0
    document = json.loads(json.dumps(found.to_json()))
    assert [row["keep_ratio"] for row in document["rungs"]] == list(LADDER)


def test_a_reference_is_compared_with_as_well(question):
    mask = expected_mask(question.scan, 0.5)
    found = sweep(FakeSegmenter(free=True), Question(**{**vars(question), "reference": Reference(mask)}))
    by_ratio = {rung.keep_ratio: rung.reference_dice for rung in found.rungs}
    assert by_ratio[0.5] == 1.0
    assert by_ratio[1.0] < 1


def test_the_dense_run_obeys_no_choice_and_the_others_do(question):
    scan, segmenter = question.scan, FakeSegmenter(free=True)
    tokens = segmenter.segment(scan, question.settings).tokens
    signs = np.zeros(tokens.stage.shape, np.int8)
    signs[0, 0, 0] = -1  # which a dense run has to look at all the same
    forced = Forced.of(Region.whole(scan.shape), signs)
    chosen = replace(question.settings, forced=forced, selection="norm", threshold=0.5)
    segmenter.runs.clear()
    sweep(segmenter, replace(question, settings=chosen))
    dense, *others = [settings for settings, *_ in segmenter.runs]
    assert (dense.forced, dense.selection, dense.threshold, dense.keep_ratio) == (None, "learned", None, 1.0)
    assert [(s.forced, s.selection, s.threshold) for s in others] == [(forced, "norm", None)] * 3


class Fickle(FakeSegmenter):
    """Loses the best token at a ratio of 0.5, and keeps it again below."""

    def segment(self, scan, settings, **rest):
        found = super().segment(scan, settings, **rest)
        if settings.keep_ratio == 0.5:
            found.tokens.stage[0, 0, 0] = 1
        return found


def test_a_token_that_comes_back_further_down_counts_from_where_it_stays(question):
    found = sweep(Fickle(free=True), question)
    assert found.kept_from[0, 0, 0] == 0.75
    assert found.kept_from[0, 0, 1] == 0.25


def test_what_was_known_when_it_was_stopped_stays(question):
    seen: list[Sweep] = []
    watch = Watch(should_stop=lambda: len(seen) == 2)
    found = stopped_early(lambda: sweep(FakeSegmenter(free=True), question, watch, seen.append), seen)
    assert len(found.rungs) == 2
    assert not found.complete
    with pytest.raises(Stopped):
        stopped_early(lambda: sweep(FakeSegmenter(free=True), question, Watch(should_stop=lambda: True)), [])


def test_a_real_network_is_run_from_its_cache_and_its_cost_counted(tmp_path):
    card = tiny.write_model(tmp_path)
    segmenter = SCDSegmenter(Registry([tmp_path]))
    voxels = np.random.default_rng(0).normal(100, 20, (16, 24, 24)).astype(np.float32)
    scan = Scan(voxels, Geometry.shown(voxels.shape))
    found = sweep(segmenter, Question(scan, Settings("tiny"), card, ladder=(1.0, 0.4)))
    dense, sparse = found.rungs
    windows = found.dense.timing.windows
    assert windows == 2
    assert sparse.gmac == pytest.approx(windows * count_cost(config_of(card), 0.4).total, rel=1e-6)
    assert sparse.gmac < dense.gmac
    assert np.array_equal(
        found.lowest == np.float32(0.4), found.dense.mask == segmenter.segment(scan, Settings("tiny", 0.4)).mask
    )
    kept = segmenter.segment(scan, Settings("tiny", 0.4)).tokens.stage == 3
    assert np.array_equal(found.kept_from, np.where(kept, np.float32(0.4), np.float32(1)))
    assert np.array_equal(found.dense.mask, segmenter.segment(scan, Settings("tiny", 1.0)).mask)
    uneven = segmenter.segment(scan, Settings("tiny", 0.4, selection="norm", threshold=3.0))
    assert 0 < gmac_of(uneven, card) <= dense.gmac


def test_a_real_network_makes_no_pictures_on_the_way_that_nobody_looks_at(tmp_path, monkeypatch):
    card = tiny.write_model(tmp_path)
    scan = make_scan((16, 24, 40))
    made = []
    real = engine._prediction
    monkeypatch.setattr(engine, "_prediction", lambda *args: made.append(1) or real(*args))
    monkeypatch.setattr(engine, "SHOW_EVERY", 0.0)
    found = sweep(SCDSegmenter(Registry([tmp_path])), Question(scan, Settings("tiny"), card, ladder=(1.0, 0.4)))
    assert found.dense.timing.windows > 1
    assert len(made) == 2
