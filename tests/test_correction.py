"""Corrections against oracles that are too simple to be wrong."""

from __future__ import annotations

import numpy as np
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
