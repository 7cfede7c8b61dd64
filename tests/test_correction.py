"""Corrections against oracles that are too simple to be wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sparsetok import correction
from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.scan import Geometry, Scan
from napari_sparsetok.state import TokenMap

shapes = st.tuples(*[st.integers(1, 6)] * 3)
opinions = st.sampled_from([0, 1, 2, 3, NOT_TISSUE])


@st.composite
def pairs(draw):
    shape = draw(shapes)
    prediction = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 3)))
    corrections = draw(hnp.arrays(np.uint8, shape, elements=opinions))
    return prediction, corrections


@given(pairs())
def test_compose_is_the_sentence_that_says_it(pair):
    prediction, corrections = pair
    mask = correction.compose(prediction, corrections)
    for at in np.ndindex(mask.shape):
        said = int(corrections[at])
        assert mask[at] == (prediction[at] if said == 0 else 0 if said == NOT_TISSUE else said)
    assert mask.dtype == np.uint8


@given(pairs(), st.data())
def test_composing_a_box_is_composing_the_whole(pair, data):
    prediction, corrections = pair
    cut = data.draw(st.integers(0, prediction.shape[0]))
    parts = [
        correction.compose(p, c) for p, c in zip(np.split(prediction, [cut]), np.split(corrections, [cut]), strict=True)
    ]
    assert np.array_equal(np.concatenate(parts), correction.compose(prediction, corrections))


@given(pairs(), st.data())
def test_an_edit_leads_to_what_was_wanted_under_any_later_prediction(pair, data):
    prediction, corrections = pair
    mask = correction.compose(prediction, corrections)
    wanted = data.draw(hnp.arrays(np.uint8, mask.shape, elements=st.integers(0, 3)))
    edit = correction.edit_towards(wanted, mask)
    after = corrections.copy()
    after[edit.at] = edit.values
    assert np.array_equal(correction.compose(prediction, after), wanted)
    assert len(edit) == (wanted != mask).sum()
    other = data.draw(hnp.arrays(np.uint8, mask.shape, elements=st.integers(0, 3)))
    changed = wanted != mask
    assert np.array_equal(correction.compose(other, after)[changed], wanted[changed])


@given(pairs(), st.integers(1, 3), st.data())
def test_a_label_takes_background_only_or_what_is_not_protected(pair, label, data):
    mask, _ = pair
    shape = data.draw(hnp.arrays(np.bool_, mask.shape))
    after = correction.replace_label(mask, label, shape)
    others = (mask != 0) & (mask != label)
    assert np.array_equal(after[others], mask[others])
    assert np.array_equal((after == label)[~others], shape[~others])
    protected = data.draw(st.sets(st.sampled_from([1, 2, 3])).map(lambda s: s - {label}))
    after = correction.replace_label(mask, label, shape, protected)
    kept = np.isin(mask, list(protected))
    assert np.array_equal(after[kept], mask[kept])
    assert np.array_equal((after == label)[~kept], shape[~kept])


def ball(radius=8.0, shape=(30, 30, 30), spacing=(1.0, 1.0, 1.0)):
    grid = np.stack(
        np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    )
    return np.sqrt((grid**2).sum(0)) <= radius


def test_islands_go_and_the_largest_part_stays():
    mask = ball()
    mask[0, 0, 0] = mask[29, 29, 28:] = True
    assert np.array_equal(correction.keep_largest(mask), ball())
    assert correction.remove_islands(mask, (1, 1, 1), 2.0).sum() == ball().sum() + 2
    assert np.array_equal(correction.remove_islands(mask, (1, 1, 1), 2.5), ball())
    # The same bit is large where voxels are.
    assert correction.remove_islands(mask, (2, 2, 2), 7.0).sum() == mask.sum()
    empty = np.zeros((3, 3, 3), dtype=bool)
    assert not correction.keep_largest(empty).any()
    assert not correction.remove_islands(empty, (1, 1, 1), 1.0).any()


def test_holes_are_filled_in_3d_only_if_closed_and_in_a_slice_if_closed_there():
    mask = ball()
    mask[15, 15, 15] = False
    assert np.array_equal(correction.fill_holes(mask), ball())
    mask[:, 15, 15] = False  # a tunnel is no hole, but a hole in every slice
    assert np.array_equal(correction.fill_holes(mask), mask)
    assert np.array_equal(correction.fill_holes(mask[15]), ball()[15])


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8)])
def test_growing_is_in_millimetres(spacing):
    shape = tuple(int(50 / s) for s in spacing)
    mask = np.zeros(shape, dtype=bool)
    centre = tuple(n // 2 for n in shape)
    mask[centre] = True
    grown = correction.grow(mask, spacing, 7.0)
    offsets = np.argwhere(grown) - centre
    distances = np.sqrt(((offsets * spacing) ** 2).sum(1))
    assert distances.max() <= 7.0
    everywhere = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1) - centre
    assert grown.sum() == (np.sqrt(((everywhere * spacing) ** 2).sum(-1)) <= 7.0).sum()


def test_shrinking_undoes_growing_of_a_ball_and_leaves_edges_alone():
    grown = correction.grow(ball(8), (1, 1, 1), 3.0)
    back = correction.grow(grown, (1, 1, 1), -3.0)
    assert np.mean(back != ball(8)) < 0.01
    full = np.ones((5, 5, 5), dtype=bool)
    assert correction.grow(full, (1, 1, 1), -2.0).all()
    assert np.array_equal(correction.grow(ball(), (1, 1, 1), 0.0), ball())


def test_smoothing_removes_a_spike_and_keeps_the_ball():
    mask = ball(8)
    mask[15, 15, 22:30] = True
    smoothed = correction.smooth(mask, (1, 1, 1), 4.0)
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
    filled = correction.fill_between(drawn, (1, 1, 1), 0, keys)
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
        filled = correction.fill_between(drawn, (1, 1, 1), axis)
        assert all(np.take(filled, k, axis).any() for k in range(10, 21))
        assert np.array_equal(correction.fill_between(drawn, (1, 1, 1), axis, keys=[10]), drawn)


@given(hnp.arrays(np.bool_, st.tuples(*[st.integers(1, 7)] * 3)), st.floats(-3, 3))
def test_tools_keep_shape_and_type_whatever_they_get(mask, amount):
    spacing = (1.5, 1.0, 0.5)
    results = [
        correction.keep_largest(mask),
        correction.remove_islands(mask, spacing, abs(amount)),
        correction.fill_holes(mask),
        correction.grow(mask, spacing, amount),
        correction.smooth(mask, spacing, abs(amount)),
        correction.fill_between(mask, spacing, 1),
    ]
    for result in results:
        assert result.shape == mask.shape
        assert result.dtype == np.bool_


def test_tokens_under_corrections_are_those_whose_patches_were_painted():
    shape, spacing = (12, 16, 20), (2.0, 1.0, 1.0)
    scan = Scan(np.zeros(shape, np.float32), Geometry.shown(shape, spacing, (7.0, -3.0, 11.0)))
    grid = (3, 2, 3)
    tokens = TokenMap(
        importance=np.zeros((1, *grid), np.float32),
        stage=np.ones(grid, np.uint8),
        rank=np.zeros(grid, np.int32),
        window_tokens=18,
        left=(18, 4),
        spacing=(4.0, 4.0, 4.0),  # 2 × 4 × 4 voxels
        origin=(7.0 - 1.0 + 2.0 + 4 * 2.0, -3.0 - 0.5 + 2.0 + 4, 11.0 - 0.5 + 2.0),  # of a region from (4, 4, 0)
    )
    tokens.stage[2, 1, 2] = 0  # not looked at
    said = np.zeros(shape, np.uint8)
    said[5, 7, 4] = 1  # token (0, 0, 1)
    said[9, 8, 11] = NOT_TISSUE  # token (2, 1, 2), which was not looked at
    said[8, 4:8, 0:4] = 2  # token (2, 0, 0)
    said[0, 0, 0] = said[11, 15, 19] = 1  # outside the region
    assert np.argwhere(correction.tokens_under(said, tokens, scan.geometry)).tolist() == [[0, 0, 1], [2, 0, 0]]


def test_slices_with_something_in_them():
    array = np.zeros((12, 10, 11), np.uint8)
    assert correction.slices_with(array) == [[], [], []]
    array[3, 5, 7] = array[9, 5, 8] = 255
    assert correction.slices_with(array) == [[3, 9], [5], [7, 8]]
