"""Of a structure that is one piece, what lies far from its largest piece is left out, and said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_sparsetok.engine.canvas import Canvas
from napari_sparsetok.engine.contract import Hints, Watch
from napari_sparsetok.engine.pieces import Pieces
from napari_sparsetok.engine.report import report
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.scan import Geometry, Region, Scan
from napari_sparsetok.state import Settings
from napari_sparsetok.tokens import Lattice
from napari_sparsetok.weights import Card, Registry

SHAPE, PATCH = (12, 16, 20), 4
AROUND = np.ones((3, 3, 3))


def lattice_of(shape=SHAPE, patch=PATCH) -> Lattice:
    return Lattice(tuple(np.arange(n) // patch for n in shape), tuple(-(-n // patch) for n in shape))


def by_hand(mask, labels, lattice):
    """The same, by searching the mask."""
    left = mask.copy()
    for label in labels:
        counts = lattice.count(mask == label)
        parts, many = ndimage.label(counts, AROUND)
        if many > 1:
            sizes = [counts[parts == k].sum() for k in range(1, many + 1)]
            left[(mask == label) & (lattice.spread(parts) != 1 + int(np.argmax(sizes)))] = 0
    return left


speckled = st.integers(0, 10_000).map(
    lambda seed: (np.random.default_rng(seed).choice(4, SHAPE, p=[0.985, 0.005, 0.005, 0.005])).astype(np.uint8)
)


@settings(deadline=None, max_examples=60)
@given(speckled)
def test_of_each_such_label_the_largest_piece_stays_and_other_labels_stay_whole(mask):
    lattice, labels = lattice_of(), (1, 3)
    pieces = Pieces(labels, lattice)
    pieces.rewrite(Region.whole(SHAPE), np.zeros_like(mask), mask)
    found, left = pieces.left_out(), mask.copy()
    pieces.remove(left, found)
    assert np.array_equal(left, by_hand(mask, labels, lattice))
    assert np.array_equal(left == 2, mask == 2)
    for label in labels:
        gone = np.count_nonzero(mask == label) - np.count_nonzero(left == label)
        assert sum(piece.voxels for piece in found if piece.label == label) == gone
    wanted = np.stack([lattice.count(left == label) for label in labels])
    assert np.array_equal(pieces.counts_without(found), wanted)


@settings(deadline=None, max_examples=30)
@given(speckled, speckled, st.tuples(*[st.integers(0, n - 1) for n in SHAPE]), st.tuples(*[st.integers(1, 9)] * 3))
def test_what_is_written_anew_counts_anew(first, second, start, size):
    box = Region(start, tuple(min(n, a + s) for n, a, s in zip(SHAPE, start, size, strict=True)))
    pieces, fresh = Pieces((1, 2, 3), lattice_of()), Pieces((1, 2, 3), lattice_of())
    mask = np.zeros_like(first)
    for part, new in ((Region.whole(SHAPE), first), (box, second)):
        pieces.rewrite(part, mask[part.slices], new[part.slices])
        mask[part.slices] = new[part.slices]
    fresh.rewrite(Region.whole(SHAPE), np.zeros_like(mask), mask)
    assert np.array_equal(pieces.counts_without([]), fresh.counts_without([]))
    again = Pieces((1, 2, 3), lattice_of(), pieces.counts_without([]))
    assert [p.key for p in again.left_out()] == [p.key for p in fresh.left_out()]


def test_what_lies_within_a_token_of_each_other_hangs_together():
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 0, 0:3] = 1  # two voxels between, but neighbouring tokens
    mask[7, 7, 7] = 1
    mask[11, 15, 19] = 1  # a token between
    pieces = Pieces((1,), lattice_of())
    pieces.rewrite(Region.whole(SHAPE), np.zeros_like(mask), mask)
    assert [(p.label, p.voxels, p.box) for p in pieces.left_out()] == [(1, 1, Region((8, 12, 16), (12, 16, 20)))]


# In the engine


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tiny.write_model(folder, "tiny", overlap=0.0)
    tiny.write_model(folder, "whole", overlap=0.0, one_piece=[1, 2])
    return Registry([folder])


@pytest.fixture
def segmenter(registry):
    return SCDSegmenter(registry)


def make_scan(shape=(16, 48, 64), seed=0) -> Scan:
    voxels = np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)
    return Scan(voxels, Geometry.shown(shape, (1.0, 1.0, 1.0)), name="noise")


@pytest.fixture
def scattered(monkeypatch):
    """What windows say, in turns: blobs of label 1 in the middle of each window, of sizes that rise with its number."""
    add = Canvas.add

    def said(self, index, logits, record):
        logits = logits.clone().fill_(-1.0)
        logits[:, 0] = 1.0
        side = 2 + index
        logits[:, 1, 4 : 4 + side, 8 : 8 + side, 4 : 4 + min(side, 8)] = 5.0
        add(self, index, logits, record)

    monkeypatch.setattr(Canvas, "add", said)


def test_a_mask_has_the_largest_piece_and_says_what_was_left_out(segmenter, registry, scattered):
    scan = make_scan()
    everything = segmenter.segment(scan, Settings("tiny", 0.5))
    found = segmenter.segment(scan, Settings("whole", 0.5))
    lattice = Lattice.of(found.tokens, scan.geometry, scan.shape)
    wanted = by_hand(everything.mask, (1, 2), lattice)
    assert 0 < np.count_nonzero(wanted) < np.count_nonzero(everything.mask)
    assert np.array_equal(found.mask, wanted)
    gone = np.count_nonzero(everything.mask) - np.count_nonzero(wanted)
    assert sum(voxels for _, voxels in found.left_out) == gone
    assert everything.left_out == ()
    said = report(found, registry["whole"])["left_out"]
    assert [row["name"] for row in said] == ["part 1"] * len(found.left_out)
    assert sum(row["voxels"] for row in said) == gone
    kept = segmenter.segment(scan, Settings("whole", 0.5, all_pieces=True))
    assert np.array_equal(kept.mask, everything.mask)
    assert kept.left_out == ()


def test_every_part_of_a_run_changes_only_its_box_and_ends_as_the_whole(segmenter, scattered, monkeypatch):
    monkeypatch.setattr("napari_sparsetok.engine.segmenter.SHOW_EVERY", 0.0)
    scan = make_scan()
    shown = []
    final = segmenter.segment(scan, Settings("whole", 0.5), watch=Watch(on_partial=shown.append))
    before = np.zeros(scan.shape, np.uint8)
    assert len(shown) > 3
    for now in [*shown, final]:
        outside = np.ones(scan.shape, dtype=bool)
        outside[now.changed.slices] = False
        assert np.array_equal(now.mask[outside], before[outside])
        lattice = Lattice.of(now.tokens, scan.geometry, scan.shape)
        assert np.array_equal(now.mask, by_hand(now.mask, (1, 2), lattice))  # at each moment one piece
        before = now.mask
    assert np.array_equal(final.mask, segmenter.segment(scan, Settings("whole", 0.5)).mask)


@pytest.mark.parametrize("kept_before", [False, True])
def test_around_the_eye_it_goes_on_from_the_mask_before(segmenter, scattered, kept_before):
    scan = make_scan()
    base = segmenter.segment(scan, Settings("whole", 0.5, all_pieces=kept_before))
    hints = Hints((8, 12, 8), focus_only=True, base=base)
    near = segmenter.segment(scan, Settings("whole", 0.3), hints=hints)
    assert not near.complete
    lattice = Lattice.of(near.tokens, scan.geometry, scan.shape)
    assert np.array_equal(near.mask, by_hand(near.mask, (1, 2), lattice))
    assert np.array_equal(near.by_token, np.stack([lattice.count(near.mask == k) for k in (1, 2)]))
    outside = np.ones(scan.shape, dtype=bool)
    outside[near.changed.slices] = False
    assert np.array_equal(near.mask[outside], base.mask[outside])


def test_a_card_says_which_labels_are_one_piece(registry, tmp_path):
    card = registry["whole"]
    assert card.one_piece == (1, 2)
    assert registry["tiny"].one_piece == ()
    path = tmp_path / "again.json"
    path.write_text(json.dumps(replace(card, weights=tmp_path / "again.safetensors").to_json()))
    assert Card.read(path).one_piece == (1, 2)
