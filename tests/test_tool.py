"""Tools on a whole mask: the box they tell, the labels they keep, the slices they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok import correction
from napari_sparsetok.labels import NOT_TISSUE
from napari_sparsetok.scan import ScanError
from napari_sparsetok.tool import TOOLS, Scene, ToolRequest, gains, work

SHAPE = (7, 20, 18)


def block(*boxes: tuple[int, slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for label, *box in boxes:
        mask[tuple(box)] = label
    return mask


def scene(labels: tuple[int, ...] = (1,), plane: tuple[int, int] = (0, 2), locked: frozenset[int] = frozenset()):
    return Scene((2.0, 1.0, 1.0), plane, labels, locked)


def wanted(change, mask: np.ndarray) -> np.ndarray:
    """What the mask becomes by the edit alone, as corrections over it."""
    corrections = np.zeros(mask.shape, np.uint8)
    corrections[change.edit.at] = change.edit.values
    return correction.compose(mask, corrections)


@pytest.mark.parametrize("name", sorted(TOOLS))
@given(data=st.data())
def test_a_tool_in_its_box_does_what_it_does_on_the_whole_array(name, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    mask = np.kron(rng.integers(0, 3, (4, 4, 4)), np.ones((2, 5, 5))).astype(np.uint8)[:7, :, :18]
    number = data.draw(st.sampled_from([0.7, 1.0, 2.5, 30.0 if name == "remove_islands" else 3.0]))
    spacing = (2.0, 1.0, 1.0)
    change = work(ToolRequest(name, number, False), mask, None, scene())
    expected = correction.replace_label(mask, 1, TOOLS[name](mask == 1, spacing, number, lambda share: None))
    result = wanted(change, mask)
    if name == "smooth":  # a Gaussian without an edge to the box differs in the last digits, where two levels tie
        assert np.count_nonzero(result != expected) <= 0.02 * mask.size
    else:
        assert np.array_equal(result, expected)
    if change.region is not None:
        assert np.array_equal(change.wanted, result[change.region.slices])


@pytest.mark.parametrize(("axis", "index"), [(0, 2), (1, 7), (2, 9)])
@pytest.mark.parametrize("name", ["grow", "shrink", "keep_largest"])
def test_in_one_slice_the_others_are_left_alone(name, axis, index):
    mask = block((1, slice(None), slice(5, 15), slice(5, 15)), (1, slice(None), slice(0, 2), slice(7, 10)))
    mask[:, 7, 0] = mask[2, :, 1] = 1
    change = work(ToolRequest(name, 4.0, True), mask, None, scene(plane=(axis, index)))
    changed = np.argwhere(wanted(change, mask) != mask)
    assert len(changed)
    assert set(changed[:, axis]) == {index}


def test_all_labels_work_in_turn_and_locked_ones_keep_everything():
    mask = block((1, slice(2, 4), slice(4, 8), slice(4, 8)), (2, slice(2, 4), slice(10, 14), slice(4, 8)))
    mask[2:4, 9, 4:8] = 3
    change = work(ToolRequest("grow", 1.0, False, all_labels=True), mask, None, scene((1, 2), locked=frozenset({3})))
    result = wanted(change, mask)
    found = gains(change)
    assert found[1] > 0
    assert found[2] > 0
    assert found[3] == 0
    assert found[0] == -(found[1] + found[2])
    assert np.array_equal(result == 3, mask == 3)


def test_filling_between_needs_two_corrected_slices():
    mask = block((1, slice(0, 1), slice(4, 12), slice(4, 12)), (1, slice(6, 7), slice(4, 12), slice(4, 12)))
    said = np.zeros(SHAPE, np.uint8)
    said[0][mask[0] == 1] = 1
    request = ToolRequest("fill_between", 0.0, False)
    for corrections in (None, said):
        with pytest.raises(ScanError, match="at least two slices"):
            work(request, mask, corrections, scene())
    said[6][mask[6] == 1] = 1
    result = wanted(work(request, mask, said, scene()), mask)
    assert (result[1:6, 4:12, 4:12] == 1).all()
    assert result.sum() == 7 * 64


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_filling_between_works_across_every_axis_and_spares_locked_labels(axis):
    mask = np.moveaxis(np.zeros((9, 9, 9), np.uint8), axis, 0)
    mask[[1, 7], 2:7, 2:7] = 1
    mask[4, 4, 4] = 2
    said = np.where(mask == 1, 1, 0).astype(np.uint8)
    mask, said = np.moveaxis(mask, 0, axis), np.moveaxis(said, 0, axis)
    where = Scene((1.0, 1.0, 1.0), (axis, 0), (1,), frozenset({2}))
    change = work(ToolRequest("fill_between", 0.0, False), mask, said, where)
    result = np.moveaxis(wanted(change, mask), axis, 0)
    assert result[4, 4, 4] == 2
    assert np.count_nonzero(result[1:8, 2:7, 2:7] == 1) == 7 * 25 - 1


def test_nothing_to_do_is_no_change():
    mask = block((1, slice(2, 4), slice(4, 8), slice(4, 8)))
    change = work(ToolRequest("keep_largest", 0, False), mask, None, scene())
    assert change.region is None
    assert len(change.edit) == 0
    assert work(ToolRequest("grow", 2, False), mask, None, scene((9,))).region is None


def test_taken_away_is_said_to_be_no_tissue():
    mask = block((1, slice(2, 4), slice(4, 8), slice(4, 8)), (1, slice(6, 7), slice(15, 16), slice(4, 5)))
    change = work(ToolRequest("keep_largest", 0, False), mask, None, scene())
    assert set(change.edit.values) == {NOT_TISSUE}
    assert change.region.shape == (1, 1, 1)


def test_a_tool_can_be_stopped_and_an_unknown_one_says_so():
    mask = block((1, slice(2, 4), slice(4, 8), slice(4, 8)))

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        work(ToolRequest("grow", 1, False), mask, None, scene(), stop)
    with pytest.raises(ScanError, match="no tool"):
        work(ToolRequest("frobnicate", 1, False), mask, None, scene())
