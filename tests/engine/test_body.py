"""The box around the body, and what the engine leaves alone outside it."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.engine.body import body_box
from napari_sparsetok.engine.segmenter import SCDSegmenter
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
