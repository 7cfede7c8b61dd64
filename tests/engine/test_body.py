"""The box around the body, and what the engine leaves alone outside it."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.engine.body import body_box, outline
from napari_sparsetok.engine.layout import lay_out
from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.engine.window import plan_windows
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError
from napari_sparsetok.state import Settings
from napari_sparsetok.weights import Body, Registry

AIR, FLESH = -1000, 40
BODY = {"above": -500, "margin": 0}
SETTINGS = Settings("tiny", 0.4)


def in_air(shape: tuple[int, int, int], box: Region) -> np.ndarray:
    voxels = np.full(shape, AIR, dtype=np.int16)
    voxels[box.slices] = np.random.default_rng(0).integers(-100, 200, box.shape)
    return voxels


def make_scan(shape=(64, 48, 40), box=Region((20, 12, 8), (30, 30, 20)), spacing=(1.0, 1.0, 1.0)) -> Scan:  # noqa: B008
    return Scan(in_air(shape, box), Geometry.shown(shape, spacing), name="phantom")


@pytest.fixture
def pair(tmp_path):
    """The same network with and without a body on its card."""
    tiny.write_model(tmp_path, "tiny", body=BODY, intensity={"name": "window", "low": -200, "high": 300})
    tiny.write_model(tmp_path, "plain", intensity={"name": "window", "low": -200, "high": 300})
    return SCDSegmenter(Registry([tmp_path])), tmp_path


@given(st.tuples(*[st.tuples(st.integers(0, 19), st.integers(1, 9))] * 3), st.integers(0, 4), st.integers(1, 3))
def test_the_box_holds_all_that_is_above_and_its_margin_and_no_more(place, margin, spacing):
    box = Region(tuple(a for a, _ in place), tuple(min(20, a + n) for a, n in place))
    found = body_box(in_air((20, 20, 20), box), Region.whole((20, 20, 20)), Body(-500, margin), (spacing, 1, 1))
    wide = [-(-margin // spacing), margin, margin]
    assert found.start == tuple(max(0, a - w) for a, w in zip(box.start, wide, strict=True))
    assert found.stop == tuple(min(20, b + w) for b, w in zip(box.stop, wide, strict=True))


def test_the_box_stays_in_the_region():
    voxels = in_air((20, 20, 20), Region((2, 2, 2), (18, 18, 18)))
    region = Region((5, 0, 6), (9, 20, 8))
    assert body_box(voxels, region, Body(-500, 3), (1, 1, 1)) == Region((5, 0, 6), (9, 20, 8))


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.002, 0.02, 0.3]),
    st.tuples(*[st.integers(0, 4)] * 3),
    st.tuples(st.integers(0, 19), st.integers(1, 20)),
)
def test_the_box_of_some_slices_is_that_of_a_scan_that_has_but_these(seed, share, start, slices):
    voxels = np.where(np.random.default_rng(seed).random((20, 20, 20)) < share, FLESH, AIR)
    voxels[10, 10, 10] = FLESH
    region = Region(start, (20, 20, 20))
    found = outline(voxels, region, Body(-500, 2), (1, 2, 1))
    a, b = slices[0], min(20 - start[0], sum(slices))
    alone = np.full_like(voxels, AIR)
    alone[start[0] + a : start[0] + b] = voxels[start[0] + a : start[0] + b]
    if (alone[region.slices] == FLESH).any():
        assert found.box(a, b) == body_box(alone, region, Body(-500, 2), (1, 2, 1))
    else:
        assert found.box(a, b) is None


def made_of(*boxes: Region, shape=(96, 96, 96)) -> Scan:
    voxels = np.full(shape, AIR, dtype=np.int16)
    for box in boxes:
        voxels[box.slices] = FLESH
    return Scan(voxels, Geometry.shown(shape), name="phantom")


HEAD, SHOULDERS = Region((4, 30, 40), (60, 50, 56)), Region((60, 20, 4), (92, 60, 92))


def test_beside_the_head_there_are_no_windows_as_wide_as_the_shoulders(pair):
    segmenter, folder = pair
    card = Registry([folder])["tiny"]
    one = made_of(HEAD, SHOULDERS)
    laid = lay_out(one, card, Region.whole(one.shape), None)
    wide = lay_out(made_of(Region((4, 20, 4), (92, 60, 92))), card, Region.whole(one.shape), None)
    assert len(laid.plan.regions) < 0.7 * len(wide.plan.regions)
    looked_at = np.zeros(one.shape, dtype=bool)
    for region in laid.plan.regions:
        looked_at[region.slices] = True
    assert looked_at[one.voxels == FLESH].all()
    assert not looked_at[4:44, :, 70:].any()
    tokens = segmenter.segment(one, SETTINGS).tokens
    body = np.zeros(tokens.stage.shape, dtype=bool)
    for box in (HEAD, SHOULDERS):
        body[tuple(slice(a // 4, -(-b // 4)) for a, b in zip(box.start, box.stop, strict=True))] = True
    assert (tokens.stage[body] > 0).all()


def test_where_rows_are_as_wide_as_the_whole_the_windows_are_those_of_a_plain_box(pair):
    card = Registry([pair[1]])["tiny"]
    box = Region((20, 12, 8), (60, 60, 50))
    one = made_of(box)
    laid, plain = lay_out(one, card, Region.whole(one.shape), None).plan, Registry([pair[1]])["plain"]
    expected = plan_windows(one.shape, plain.window, plain.patch, plain.overlap, box)
    assert laid.regions == expected.regions
    assert np.array_equal(laid.owner, expected.owner)


def test_between_two_bodies_nothing_is_looked_at(pair):
    one = made_of(Region((4, 10, 10), (10, 30, 30)), Region((84, 40, 40), (92, 60, 60)))
    prediction = pair[0].segment(one, SETTINGS)
    assert (prediction.tokens.stage[8:17] == 0).all()
    assert not prediction.mask[32:68].any()


def test_air_alone_is_said_not_segmented(pair):
    segmenter, _ = pair
    with pytest.raises(ScanError, match="no voxel here is above -500"):
        segmenter.segment(make_scan(), SETTINGS, region=Region((40, 0, 0), (64, 48, 40)))


def test_outside_the_windows_around_the_body_all_is_background_and_no_token_ever_entered(pair):
    segmenter, _ = pair
    scan = make_scan()
    prediction = segmenter.segment(scan, SETTINGS)
    everywhere = segmenter.segment(scan, Settings("plain", 0.4))
    assert prediction.complete
    assert prediction.region == Region.whole(scan.shape)
    assert prediction.timing.windows < everywhere.timing.windows
    # One window is 16 × 24 × 16 voxels, on a lattice of 4.
    near = Region((16, 8, 4), (36, 36, 24))
    outside = np.ones(scan.shape, dtype=bool)
    outside[near.slices] = False
    assert everywhere.mask[outside].any()
    assert not prediction.mask[outside].any()
    assert prediction.mask.any()
    tokens = prediction.tokens
    far = np.ones(tokens.stage.shape, dtype=bool)
    far[near.start[0] // 4 : near.stop[0] // 4, near.start[1] // 4 : near.stop[1] // 4, 1:6] = False
    assert (tokens.stage[far] == 0).all()
    assert (tokens.rank[far] == -1).all()
    assert np.isnan(tokens.importance[:, far]).all()
    assert (tokens.stage > 0).any()


def test_the_focus_may_lie_in_the_air(pair):
    from napari_sparsetok.engine.contract import Hints

    segmenter, _ = pair
    part = segmenter.segment(make_scan(), SETTINGS, hints=Hints(focus=(63, 47, 39), focus_only=True))
    assert part.timing.windows == 1


def test_the_body_is_found_at_the_spacing_of_the_scan(pair):
    segmenter, _ = pair
    scan = make_scan((32, 96, 40), Region((10, 24, 8), (15, 60, 20)), spacing=(2.0, 0.5, 1.0))
    prediction = segmenter.segment(scan, SETTINGS)
    outside = np.ones(scan.shape, dtype=bool)
    outside[7:19, 15:73, 3:25] = False
    assert not prediction.mask[outside].any()
    assert prediction.mask.any()
