"""Which part of a scan, and the words for it."""

from __future__ import annotations

import pytest
from fakes import make_card, make_scan

from napari_sparsetok.scan import Region
from napari_sparsetok.ui import where

SMALL = make_scan((16, 20, 12))
LARGE = make_scan((60, 60, 60), spacing=(2.0, 1.0, 1.0), origin=(-30.0, 5.0, 100.0))
CROPS = make_card(needs_region=True)


def test_a_model_of_crops_begins_around_a_click_on_a_large_scan() -> None:
    assert where.usual_where(LARGE, CROPS) == "cursor"
    assert where.usual_where(SMALL, CROPS) == "whole"
    assert where.usual_where(LARGE, make_card()) == "whole"
    assert where.usual_where(None, CROPS) == "whole"
    assert where.usual_where(LARGE, None) == "whole"


def test_the_hint_says_what_to_do() -> None:
    assert "Click on the structure" in where.hint("cursor", LARGE, CROPS)
    assert "12\u00a0×\u00a020\u00a0×\u00a016\u00a0mm around the click" in where.hint("cursor", LARGE, CROPS)
    assert "around a click" in where.hint("whole", LARGE, CROPS)
    assert where.hint("whole", SMALL, CROPS) == ""
    assert where.hint("box", LARGE, CROPS) == ""
    assert where.hint("cursor", None, CROPS) == ""


def test_a_window_around_a_voxel_is_as_large_as_the_model_wants() -> None:
    region = where.region_around((30, 30, 30), LARGE, make_card())
    assert region is not None
    assert region.shape == (8, 20, 12)
    assert where.region_around((0, 0, 0), None, make_card()) is None


def test_tokens_are_counted_before_anything_ran() -> None:
    assert where.expected_left(0.5, make_card(), SMALL, None) == (60, 30, 15)
    assert where.expected_left(0.5, make_card(), None, None) == (60, 30, 15)
    assert where.expected_left(1.0, make_card(), SMALL, Region((0, 0, 0), (1, 1, 1))) == (1, 1, 1)


@pytest.mark.parametrize("voxel", [(0, 0, 0), (59, 59, 59), (10, 20, 30)])
def test_a_point_of_the_viewer_is_a_voxel(voxel: tuple[int, int, int]) -> None:
    geometry = LARGE.geometry
    world = [o + v * s for o, v, s in zip(geometry.origin, voxel, geometry.spacing, strict=True)]
    assert where.voxel_at(world, LARGE) == voxel
    assert where.voxel_at([7.0, *world], LARGE) == voxel
    assert where.is_inside(world, LARGE)


def test_a_point_outside_is_the_nearest_voxel_but_not_inside() -> None:
    assert where.voxel_at((-1e6, 1e6, 100.0), LARGE) == (0, 59, 0)
    assert not where.is_inside((-1e6, 1e6, 100.0), LARGE)
