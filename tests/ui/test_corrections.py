"""Corrections: every write is seen, undo is exact, and nothing that the model does touches them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel

from napari_sparsetok import correction
from napari_sparsetok.labels import NOT_TISSUE, LabelTable
from napari_sparsetok.scan import Geometry, Region, Scan
from napari_sparsetok.ui.corrections import CorrectionsLayer, WatchedArray, written_box

SHAPE = (4, 6, 5)
LABELS = LabelTable.of(["front", "back"])


def make_scan() -> Scan:
    return Scan(np.zeros(SHAPE, np.float32), Geometry.shown(SHAPE, (2.0, 1.0, 1.0), (3.0, 4.0, 5.0)), name="noise")


def opened():
    viewer = ViewerModel()
    scan = make_scan()
    layers = CorrectionsLayer(viewer)
    layers.set_scan(scan)
    return viewer, scan, layers, layers.show(LABELS)


points = st.tuples(*[st.integers(0, n - 1) for n in SHAPE])
strokes = st.tuples(st.just("paint"), points, st.sampled_from([0, 1, 2, NOT_TISSUE]))
fills = st.tuples(st.just("fill"), points, st.sampled_from([0, 1, 2, NOT_TISSUE]))
tools = st.tuples(st.just("tool"), st.integers(0, 2**32 - 1))
predictions = st.tuples(st.just("predict"), st.integers(0, 2**32 - 1))
polygons = st.tuples(st.just("polygon"), st.lists(points, min_size=3, max_size=5), st.sampled_from([1, NOT_TISSUE]))
guards = st.tuples(st.just("guard"), st.one_of(st.none(), st.integers(0, 2**32 - 1)))
steps = (st.tuples(st.just("undo")), st.tuples(st.just("redo")))
actions = st.one_of(strokes, fills, tools, predictions, polygons, guards, *steps)


class Oracle:
    """What should be there: whole arrays kept for every step, nothing clever."""

    def __init__(self) -> None:
        self.past: list[np.ndarray] = []
        self.now = np.zeros(SHAPE, np.uint8)
        self.future: list[np.ndarray] = []

    def became(self, new: np.ndarray) -> None:
        if not np.array_equal(new, self.now):
            self.past.append(self.now)
            self.now, self.future = new.copy(), []

    def undo(self) -> None:
        if self.past:
            self.future.append(self.now)
            self.now = self.past.pop()

    def redo(self) -> None:
        if self.future:
            self.past.append(self.now)
            self.now = self.future.pop()


@given(st.lists(actions, max_size=25))
@settings(max_examples=60)
def test_any_order_of_strokes_tools_slider_undo_and_redo_is_exact(sequence):
    _, _, layers, layer = opened()
    oracle = Oracle()
    prediction = np.zeros(SHAPE, np.uint8)
    composed = correction.compose(prediction, layers.array)

    def recompose(box: Region) -> None:
        composed[box.slices] = correction.compose(prediction[box.slices], np.asarray(layers.array)[box.slices])

    layers.changed.connect(recompose)
    for action in sequence:
        if action[0] == "predict":  # the slider moved: the model says something else
            prediction[...] = np.random.default_rng(action[1]).integers(0, 3, SHAPE)
            recompose(Region.whole(SHAPE))
        elif action[0] == "guard":  # labels were locked, or a range of grey values was chosen: some voxels are barred
            free = None if action[1] is None else np.random.default_rng(action[1]).random(SHAPE) < 0.5
            layer.allowed = None if free is None else lambda places, value, free=free: free[places]
        elif action[0] in ("undo", "redo"):
            getattr(layer, action[0])()
            getattr(oracle, action[0])()
        else:
            _do(layer, layers, composed, action)
            oracle.became(np.array(layers.array))
        assert np.array_equal(layers.array, oracle.now)
        # What is shown was only ever rewritten in the boxes that were told.
        assert np.array_equal(composed, correction.compose(prediction, oracle.now))


def _do(layer, layers, composed, action) -> None:
    if action[0] == "polygon":
        layer.paint_polygon([(action[1][0][0], *at[1:]) for at in action[1]], action[2])
    elif action[0] == "paint":
        layer.brush_mm = 3.0
        layer.paint(action[1], action[2])
    elif action[0] == "fill":
        layer.fill(action[1], action[2])
    else:
        wanted = np.random.default_rng(action[1]).integers(0, 3, SHAPE).astype(np.uint8)
        layers.apply(correction.edit_towards(wanted, composed))


def test_the_layer_lies_on_the_scan_and_can_be_painted():
    viewer, scan, layers, layer = opened()
    assert tuple(layer.scale) == scan.geometry.spacing
    assert tuple(layer.translate) == scan.geometry.origin
    assert layer.editable
    assert layer.selected_label == 1
    assert viewer.layers.selection == {layer}
    assert not np.any(layers.array)


def test_a_deleted_layer_comes_back_with_everything_in_it():
    viewer, _, layers, layer = opened()
    layer.paint((1, 2, 2), 2)
    painted = np.array(layers.array)
    viewer.layers.remove(layer)
    assert layers.layer is None
    assert np.array_equal(layers.array, painted)
    again = layers.show(LABELS)
    assert np.array_equal(again.data, painted)
    boxes = []
    layers.changed.connect(boxes.append)
    again.paint((0, 0, 0), 1)
    assert boxes


def test_another_scan_has_corrections_of_its_own():
    _, scan, layers, layer = opened()
    layer.paint((1, 2, 2), 2)
    other = make_scan()
    layers.set_scan(other)
    assert layers.array is None
    layers.show(LABELS)
    assert not np.any(layers.array)
    sheets = []
    layers.changed.connect(lambda box, sheet: sheets.append(sheet))
    layer.paint((0, 0, 0), 1)  # in the old scan's layer: it is told whose it was
    assert [sheet.scan for sheet in sheets] == [scan]
    assert layers.sheet not in sheets
    layers.set_scan(scan)
    assert np.count_nonzero(layers.array) > 1


def test_given_corrections_are_the_beginning():
    layers = CorrectionsLayer(ViewerModel())
    scan = make_scan()
    layers.set_scan(scan)
    kept = np.full(SHAPE, NOT_TISSUE, np.uint8)
    assert np.array_equal(layers.show(LABELS, kept).data, kept)
    with pytest.raises(RuntimeError, match="no scan"):
        CorrectionsLayer(ViewerModel()).show(LABELS)


@given(st.data())
def test_the_box_holds_all_that_was_written(data):
    array = np.zeros(SHAPE, np.uint8).view(WatchedArray)
    boxes: list[Region] = []
    array.on_write = boxes.append
    slices = tuple(slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))) for n in SHAPE)
    indices = tuple(np.array(axis) for axis in zip(*data.draw(st.lists(points, min_size=1, max_size=4)), strict=True))
    mask = np.zeros(SHAPE, bool)
    mask[indices] = True
    key = data.draw(st.sampled_from([slices, indices, mask, 1, (1, 2, 3), (-1, slice(None), 0), ..., slice(1, 3)]))
    array[key] = 7
    inside = np.zeros(SHAPE, bool)
    inside[boxes[-1].slices] = True
    assert inside[np.asarray(array) == 7].all()


def test_plain_indices_give_tight_boxes():
    assert written_box((slice(1, 2), slice(0, 3), slice(2, 4)), SHAPE) == Region((1, 0, 2), (2, 3, 4))
    assert written_box((np.array([3, 1]), np.array([0, 0]), np.array([4, 2])), SHAPE) == Region((1, 0, 2), (4, 1, 5))
