"""Tools on the shape of one label, against shapes that are known and against scipy's slower ways."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from napari_sparsetok import morphology


def ball(radius=8.0, shape=(30, 30, 30), spacing=(1.0, 1.0, 1.0)):
    grid = np.stack(
        np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    )
    return np.sqrt((grid**2).sum(0)) <= radius


def test_islands_go_and_the_largest_part_stays():
    mask = ball()
    mask[0, 0, 0] = mask[29, 29, 28:] = True
    assert np.array_equal(morphology.keep_largest(mask), ball())
    assert morphology.remove_islands(mask, (1, 1, 1), 2.0).sum() == ball().sum() + 2
    assert np.array_equal(morphology.remove_islands(mask, (1, 1, 1), 2.5), ball())
    # The same bit is large where voxels are.
    assert morphology.remove_islands(mask, (2, 2, 2), 7.0).sum() == mask.sum()
    empty = np.zeros((3, 3, 3), dtype=bool)
    assert not morphology.keep_largest(empty).any()
    assert not morphology.remove_islands(empty, (1, 1, 1), 1.0).any()


def test_holes_are_filled_in_3d_only_if_closed_and_in_a_slice_if_closed_there():
    mask = ball()
    mask[15, 15, 15] = False
    assert np.array_equal(morphology.fill_holes(mask), ball())
    mask[:, 15, 15] = False  # a tunnel is no hole, but a hole in every slice
    assert np.array_equal(morphology.fill_holes(mask), mask)
    assert np.array_equal(morphology.fill_holes(mask[15]), ball()[15])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8)])
def test_growing_is_in_millimetres(spacing):
    shape = tuple(int(50 / s) for s in spacing)
    mask = np.zeros(shape, dtype=bool)
    centre = tuple(n // 2 for n in shape)
    mask[centre] = True
    grown = morphology.grow(mask, spacing, 7.0)
    offsets = np.argwhere(grown) - centre
    distances = np.sqrt(((offsets * spacing) ** 2).sum(1))
    assert distances.max() <= 7.0
    everywhere = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) - centre
    assert grown.sum() == (np.sqrt(((everywhere * spacing) ** 2).sum(-1)) <= 7.0).sum()


def test_shrinking_undoes_growing_of_a_ball_and_leaves_edges_alone():
    grown = morphology.grow(ball(8), (1, 1, 1), 3.0)
    back = morphology.grow(grown, (1, 1, 1), -3.0)
    assert np.mean(back != ball(8)) < 0.01
    full = np.ones((5, 5, 5), dtype=bool)
    assert morphology.grow(full, (1, 1, 1), -2.0).all()
    assert np.array_equal(morphology.grow(ball(), (1, 1, 1), 0.0), ball())


def test_smoothing_removes_a_spike_and_keeps_the_ball():
    mask = ball(8)
    mask[15, 15, 22:30] = True
    smoothed = morphology.smooth(mask, (1, 1, 1), 4.0)
    assert not smoothed[15, 15, 27:].any()
    assert abs(int(smoothed.sum()) - int(mask.sum())) < 0.02 * mask.sum()
    assert (smoothed != ball(8)).sum() < 0.05 * ball(8).sum()


def test_slices_between_keys_are_interpolated_and_the_others_left_alone():
    # A cone: its radius, and so its signed distance, runs linearly from slice to slice.
    z, y, x = np.meshgrid(np.arange(31), np.arange(40) - 19.5, np.arange(40) - 19.5, indexing="ij")
    truth = np.hypot(y, x) <= 4 + 0.4 * z
    drawn = np.zeros_like(truth)
    keys = [6, 15, 24]
    drawn[keys] = truth[keys]
    drawn[28, 0, 0] = True  # not a key, not between keys
    filled = morphology.fill_between(drawn, (1, 1, 1), 0, keys)
    assert np.array_equal(filled[keys], truth[keys])
    inner = slice(6, 25)
    agreement = 2 * (filled[inner] & truth[inner]).sum() / (filled[inner].sum() + truth[inner].sum())
    assert agreement > 0.97
    assert np.array_equal(filled[25:], drawn[25:])
    assert np.array_equal(filled[:6], drawn[:6])


def test_filling_works_across_every_axis_and_needs_two_keys():
    truth = ball(10, (31, 31, 31))
    for axis in range(3):
        drawn = np.zeros_like(truth)
        index = [slice(None)] * 3
        for key in (10, 20):
            index[axis] = key
            drawn[tuple(index)] = truth[tuple(index)]
        filled = morphology.fill_between(drawn, (1, 1, 1), axis)
        assert all(np.take(filled, k, axis).any() for k in range(10, 21))
        assert np.array_equal(morphology.fill_between(drawn, (1, 1, 1), axis, keys=[10]), drawn)


@given(hnp.arrays(np.bool_, st.tuples(*[st.integers(1, 7)] * 3)), st.floats(-3, 3))
def test_tools_keep_shape_and_type_whatever_they_get(mask, amount):
    spacing = (1.5, 1.0, 0.5)
    results = [
        morphology.keep_largest(mask),
        morphology.remove_islands(mask, spacing, abs(amount)),
        morphology.fill_holes(mask),
        morphology.grow(mask, spacing, amount),
        morphology.smooth(mask, spacing, abs(amount)),
        morphology.fill_between(mask, spacing, 1),
    ]
    for result in results:
        assert result.shape == mask.shape
        assert result.dtype == np.bool_


# Slab by slab


@st.composite
def speckled(draw):
    """A mask with many parts, and how many voxels are worked on at once."""
    shape = draw(st.sampled_from([(9, 7, 6), (12, 9), (1, 5, 5), (17, 2, 3)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = rng.random(shape) < draw(st.sampled_from([0.1, 0.3, 0.5, 0.8]))
    return mask, draw(st.sampled_from([1, 30, 100, 10**6]))


@given(speckled())
def test_parts_are_the_same_in_slabs(case):
    mask, slab = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphology, "_SLAB", slab)
        parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        assert np.array_equal(morphology.remove_islands(mask, (1,) * mask.ndim, 3), (sizes >= 3)[parts] & mask)
        largest = morphology.keep_largest(mask)
        if count:
            assert largest.sum() == sizes[1:].max()
            assert ndimage.label(largest, np.ones((3,) * mask.ndim))[1] == 1
            assert not (largest & ~mask).any()
        assert np.array_equal(morphology.fill_holes(mask), ndimage.binary_fill_holes(mask))


@given(speckled(), st.sampled_from([0.6, 1.0, 1.7, 2.4]))
def test_growing_shrinking_and_smoothing_are_the_same_in_slabs_and_either_way(case, by):
    mask, slab = case
    spacing = (1.0, 0.8, 0.6)[: mask.ndim]
    if mask.any() and not mask.all():
        far = ndimage.distance_transform_edt(~mask, sampling=spacing)
        near = ndimage.distance_transform_edt(mask, sampling=spacing)
        expected = far <= by, near > by
    else:
        expected = mask, mask
    smoothed = morphology.smooth(mask, spacing, by)
    for much in (0, 10**9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(morphology, "_SLAB", slab)
            patch.setattr(morphology, "_MUCH", much)
            assert np.array_equal(morphology.grow(mask, spacing, by), expected[0])
            assert np.array_equal(morphology.grow(mask, spacing, -by), expected[1])
            now = morphology.smooth(mask, spacing, by)
            # Values that tie at the level fall either way with the last digit.
            assert np.count_nonzero(now != smoothed) <= 0.1 * mask.size


TOOLS = {
    "remove_islands": lambda mask, step: morphology.remove_islands(mask, (1, 1, 1), 9, step),
    "keep_largest": morphology.keep_largest,
    "fill_holes": morphology.fill_holes,
    "grow": lambda mask, step: morphology.grow(mask, (1, 1, 1), 3, step),
    "shrink": lambda mask, step: morphology.grow(mask, (1, 1, 1), -3, step),
    "smooth": lambda mask, step: morphology.smooth(mask, (1, 1, 1), 3, step),
    "fill_between": lambda mask, step: morphology.fill_between(mask, (1, 1, 1), 0, [8, 14, 21], step),
}


@pytest.mark.parametrize("much", [0, 10**9])
@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_says_how_far_it_is_and_stops_at_once(name, much, monkeypatch):
    monkeypatch.setattr(morphology, "_SLAB", 2000)
    monkeypatch.setattr(morphology, "_MUCH", much)
    mask = ball()
    told: list[float] = []
    TOOLS[name](mask, told.append)
    assert len(told) >= 4
    assert told == sorted(told)
    assert 0 <= told[0] < 0.5 < told[-1] <= 1
    for last in (0, len(told) // 2):
        heard: list[float] = []

        def stop(share: float, heard: list[float] = heard, last: int = last) -> None:
            heard.append(share)
            if len(heard) > last:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            TOOLS[name](mask, stop)
        assert len(heard) == last + 1
