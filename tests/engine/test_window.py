"""Windows cover the volume on one lattice, and every token has one owner."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.engine.window import plan_windows
from napari_sparsetok.scan import Region

side = st.integers(1, 8)


@st.composite
def plans(draw):
    patch = draw(st.sampled_from([4, 8]))
    volume = tuple(patch * draw(side) for _ in range(3))
    largest = tuple(patch * draw(side) for _ in range(3))
    return volume, largest, patch, draw(st.sampled_from([0.0, 0.25, 0.5, 0.75]))


@given(plans())
def test_windows_cover_the_volume_and_start_on_the_lattice(arguments):
    volume, largest, patch, overlap = arguments
    plan = plan_windows(volume, largest, patch, overlap)
    covered = np.zeros(volume, dtype=bool)
    for region in plan.regions:
        assert all(a % patch == 0 and b <= n for a, b, n in zip(region.start, region.stop, volume, strict=True))
        assert region.shape == plan.window
        covered[region.slices] = True
    assert covered.all()


@given(plans())
def test_neighbours_overlap_as_asked(arguments):
    volume, largest, patch, overlap = arguments
    plan = plan_windows(volume, largest, patch, overlap)
    for axis in range(3):
        starts = sorted({region.start[axis] for region in plan.regions})
        window = plan.window[axis]
        for a, b in itertools.pairwise(starts):
            # A step of less than one patch is not on the lattice.
            assert b - a <= max(patch, window * (1 - overlap))


@given(plans())
def test_every_token_is_owned_by_a_window_that_holds_it(arguments):
    volume, largest, patch, overlap = arguments
    plan = plan_windows(volume, largest, patch, overlap)
    for index in np.unique(plan.owner):
        mine = np.argwhere(plan.owner == index)
        box = plan.tokens(int(index))
        assert (mine >= box.start).all()
        assert (mine < box.stop).all()


def test_the_nearest_window_comes_first_and_holds_the_point():
    plan = plan_windows((32, 32, 32), (16, 16, 16), 4, 0.5)
    order = plan.by_distance((30, 1, 1))
    assert sorted(order) == list(range(len(plan.regions)))
    assert plan.regions[order[0]].start == (16, 0, 0)
    assert order[0] in plan.holding((30, 1, 1))
    assert len(plan.holding((16, 16, 16))) == 8
    assert plan.holding((1000, 0, 0)) == plan.by_distance((1000, 0, 0))[:1]


def test_weights_peak_in_the_middle_and_never_vanish():
    weight = plan_windows((16, 24, 8), (16, 24, 8), 4, 0.5).weight
    assert weight.max() == 1
    assert weight.min() > 0
    assert np.allclose(weight, weight[::-1, ::-1, ::-1])


@given(plans(), st.data())
def test_windows_stay_at_the_box_that_they_are_laid_within_and_cover_it(arguments, data):
    volume, largest, patch, overlap = arguments
    starts = [data.draw(st.integers(0, n - 1)) for n in volume]
    box = Region(tuple(starts), tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(starts, volume, strict=True)))
    plan = plan_windows(volume, largest, patch, overlap, box)
    assert plan.window == plan_windows(volume, largest, patch, overlap).window
    covered = np.zeros(volume, dtype=bool)
    for region in plan.regions:
        assert all(a % patch == 0 and b <= n for a, b, n in zip(region.start, region.stop, volume, strict=True))
        covered[region.slices] = True
    assert covered[box.slices].all()
    for axis, (a, b) in enumerate(zip(box.start, box.stop, strict=True)):
        reach = np.flatnonzero(covered.any(axis=tuple(k for k in range(3) if k != axis)))
        # What is more than the box is less than a patch on either side, or makes up one window.
        assert len(reach) <= max(plan.window[axis], b - a + 2 * (patch - 1))
    assert np.array_equal(plan.owner >= 0, covered[::patch, ::patch, ::patch])


@given(plans(), st.data())
def test_each_row_covers_what_is_asked_of_it_and_no_more_than_all_do(arguments, data):
    volume, largest, patch, overlap = arguments
    asked: dict[tuple[int, int], Region | None] = {}

    def row(first: int, stop: int) -> Region | None:
        if data.draw(st.integers(0, 3)) == 0 and asked:
            asked[first, stop] = None
            return None
        start = [data.draw(st.integers(0, n - 1)) for n in volume]
        ends = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, volume, strict=True)]
        asked[first, stop] = Region(tuple(start), tuple(ends))
        return asked[first, stop]

    plan = plan_windows(volume, largest, patch, overlap, narrowed=row)
    whole = plan_windows(volume, largest, patch, overlap)
    assert list(asked) == sorted({(r.start[0], r.stop[0]) for r in whole.regions})
    assert len(plan.regions) <= len(whole.regions)
    for (first, stop), box in asked.items():
        covered = np.zeros(volume, dtype=bool)
        for region in plan.regions:
            assert region.shape == plan.window
            assert all(a % patch == 0 and b <= n for a, b, n in zip(region.start, region.stop, volume, strict=True))
            if region.start[0] == first:
                covered[region.slices] = True
        if box is None:
            assert not covered.any()
        else:
            assert covered[first:stop, box.start[1] : box.stop[1], box.start[2] : box.stop[2]].all()
