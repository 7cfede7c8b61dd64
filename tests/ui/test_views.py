"""Three planes at once: copies of layers that stay in step, and a cross that links them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import LABELS, PATIENCE, make_prediction, make_scan
from napari.components import ViewerModel
from napari.layers import Labels, Vectors
from napari.utils.colormaps import DirectLabelColormap

from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.corrections import CorrectionsLayer
from napari_sparsetok.ui.mirror import CROSS, Mirror
from napari_sparsetok.ui.overlays import KINDS, OVERLAY, Overlays
from napari_sparsetok.ui.planes import plane_of, show_plane
from napari_sparsetok.ui.scan_layer import layer_data
from napari_sparsetok.ui.views import Cross, Views

MS = int(PATIENCE * 1000)


class Pair:
    """A viewer with scan and overlays, and another that mirrors it."""

    def __init__(self) -> None:
        self.scan = make_scan(spacing=(2.0, 1.0, 1.0), origin=(5.0, -6.0, 7.0))
        self.source, self.target = ViewerModel(), ViewerModel()
        ((data, arguments, _),) = layer_data(self.scan)
        self.layer = self.source.add_image(data, **arguments)
        self.overlays = Overlays(self.source)
        self.overlays.set_scan(self.scan)
        self.mirror = Mirror(self.source, self.target)

    def predict(self, keep_ratio: float = 0.5, scores: float = 1.0) -> None:
        prediction = make_prediction(self.scan, Settings(keep_ratio=keep_ratio))
        tokens = replace(prediction.tokens, importance=prediction.tokens.importance * np.float32(scores))
        self.overlays.show_tokens(tokens)
        self.overlays.show_mask(prediction)

    def names(self) -> tuple[list[str], list[str]]:
        return [x.name for x in self.source.layers], [x.name for x in self.target.layers]


@pytest.fixture
def pair(qtbot: Any) -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.mirror.shut_down()


# Copies


def test_copies_share_their_voxels_and_lie_in_the_same_place(pair: Pair) -> None:
    pair.predict()
    assert pair.names()[0] == pair.names()[1]
    for layer in pair.source.layers:
        copy = pair.mirror.copy_of(layer)
        assert np.shares_memory(copy.data, layer.data)
        np.testing.assert_allclose(copy.scale, layer.scale)
        np.testing.assert_allclose(copy.translate, layer.translate)
        assert [str(u) for u in copy.units] == [str(u) for u in layer.units]
        assert (copy.opacity, copy.blending, copy.visible) == (layer.opacity, layer.blending, layer.visible)
    mask = pair.mirror.copy_of(pair.overlays.layer("mask"))
    assert mask.contour == 1
    assert not mask.editable


def test_what_is_written_in_place_is_seen_in_the_copy(pair: Pair, qtbot: Any) -> None:
    pair.predict(0.25)
    copies = {kind: pair.mirror.copy_of(pair.overlays.layer(kind)) for kind in KINDS}
    drawn: list[str] = []
    for kind, copy in copies.items():
        copy.events.set_data.connect(lambda event=None, kind=kind: drawn.append(kind))
    pair.predict(0.75, scores=0.5)
    qtbot.waitUntil(lambda: set(drawn) == set(KINDS), timeout=MS)
    for kind, copy in copies.items():
        assert copy is pair.mirror.copy_of(pair.overlays.layer(kind)), "the copy stays"
        np.testing.assert_array_equal(copy.data, pair.overlays.layer(kind).data)


def test_a_stroke_is_seen_in_the_copy(pair: Pair, qtbot: Any) -> None:
    corrections = CorrectionsLayer(pair.source)
    corrections.set_scan(pair.scan)
    from fakes import LABELS

    layer = corrections.show(LABELS)
    copy = pair.mirror.copy_of(layer)
    drawn: list[int] = []
    copy.events.set_data.connect(lambda event=None: drawn.append(int(copy.data.max())))
    layer.data_setitem((np.array([3]), np.array([4]), np.array([5])), 2)
    qtbot.waitUntil(lambda: 2 in drawn, timeout=MS)
    layer.undo()
    qtbot.waitUntil(lambda: drawn[-1] == 0, timeout=MS)


def test_another_slice_of_the_source_redraws_nothing(pair: Pair, qtbot: Any) -> None:
    pair.predict()
    qtbot.wait(200)
    drawn: list[Any] = []
    for copy in pair.target.layers:
        copy.events.set_data.connect(lambda event=None: drawn.append(event))
    for k in range(5):
        pair.source.dims.set_current_step(0, k)
    qtbot.wait(200)
    assert not drawn


def test_looks_are_followed(pair: Pair) -> None:
    copy = pair.mirror.copy_of(pair.layer)
    pair.layer.contrast_limits = (1, 2)
    pair.layer.opacity = 0.3
    pair.layer.visible = False
    pair.layer.colormap = "inferno"
    assert copy.contrast_limits == [1, 2]
    assert (copy.opacity, copy.visible, copy.colormap.name) == (0.3, False, "inferno")


def test_colours_of_labels_are_followed(pair: Pair) -> None:
    pair.predict()
    tokens = pair.overlays.layer("tokens")
    wanted = DirectLabelColormap(color_dict={0: "transparent", None: "transparent", 1: "red", 2: "#00FF0080"})
    tokens.colormap = wanted
    copy = pair.mirror.copy_of(tokens)
    np.testing.assert_array_equal(copy.colormap.color_dict[2], wanted.color_dict[2])


def test_layers_come_go_and_move(pair: Pair) -> None:
    pair.predict()
    pair.source.layers.remove(pair.overlays.layer("tokens"))
    assert pair.names()[0] == pair.names()[1]
    pair.source.layers.move(0, len(pair.source.layers))
    assert pair.names()[0] == pair.names()[1]
    pair.overlays.show_region(Region((0, 0, 0), (4, 4, 4)))
    assert pair.names()[0] == pair.names()[1]
    pair.layer.data = pair.layer.data + 1
    np.testing.assert_array_equal(pair.mirror.copy_of(pair.layer).data, pair.layer.data)


def test_what_happens_to_a_copy_leads_nowhere(pair: Pair) -> None:
    copy = pair.mirror.copy_of(pair.layer)
    copy.opacity = 0.1
    pair.target.layers.remove(copy)
    pair.layer.contrast_limits = (3, 4)
    assert pair.layer.opacity == 1
    assert pair.layer in pair.source.layers


def test_letting_go_ends_it(pair: Pair) -> None:
    copy = pair.mirror.copy_of(pair.layer)
    pair.mirror.shut_down()
    pair.layer.opacity = 0.4
    pair.source.add_image(np.zeros((2, 2, 2)))
    assert copy.opacity == 1
    assert len(pair.target.layers) == 1


# The cross


def crosses(viewer: ViewerModel) -> list[Any]:
    return [layer for layer in viewer.layers if layer.metadata.get(OVERLAY) == CROSS]


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_cross_runs_through_the_point_in_every_plane(pair: Pair, plane: str) -> None:
    viewer = pair.source
    steps = viewer.dims.nsteps
    viewer.layers.selection.active = pair.layer
    show_plane(viewer, plane)
    cross = Cross(viewer, pair.layer)
    (layer,) = crosses(viewer)
    viewer.dims.point = (15.0, 3.0, 11.0)
    assert viewer.dims.nsteps == steps, "the sliders keep their steps"
    assert viewer.layers.selection.active is pair.layer
    world = layer.data[:, 0] * layer.scale + layer.translate
    for line, start, axis in zip(layer.data, world, viewer.dims.displayed, strict=True):
        others = [k for k in range(3) if k != axis]
        np.testing.assert_allclose(start[others], np.array((15.0, 3.0, 11.0))[others])
        assert np.flatnonzero(line[1]).tolist() == [axis]
    viewer.dims.ndisplay = 3
    assert not layer.visible
    cross.shut_down()
    assert not crosses(viewer)


def test_another_slice_moves_the_lines_and_nothing_else(pair: Pair) -> None:
    """Napari builds its whole scene anew when a layer's visibility is set, even to what it was."""
    cross = Cross(pair.source, pair.layer)
    (layer,) = crosses(pair.source)
    heard: list[Any] = []
    layer.events.visible.connect(heard.append)
    for k in range(4):
        pair.source.dims.set_current_step(1, k)
    assert not heard
    cross.shut_down()


def test_a_cross_is_not_mirrored(pair: Pair) -> None:
    cross = Cross(pair.source, pair.layer)
    assert not any(isinstance(layer, Vectors) for layer in pair.target.layers)
    pair.source.layers.remove(crosses(pair.source)[0])
    pair.source.dims.point = (7.0, 0.0, 9.0)  # a person took it away; nothing breaks
    cross.shut_down()


def test_without_a_window_nothing_opens(pair: Pair) -> None:
    views = Views(pair.source)
    heard: list[bool] = []
    views.shown_changed.connect(heard.append)
    views.set_reference(pair.layer, True)
    views.toggle()
    assert heard == [False]
    assert not views.is_shown


# Painting in a further canvas


class Painting(Pair):
    """With corrections in hand, and the target showing the sagittal plane."""

    def __init__(self) -> None:
        super().__init__()
        self.predict()
        self.corrections = CorrectionsLayer(self.source)
        self.corrections.set_scan(self.scan)
        self.own = self.corrections.show(LABELS)
        self.own.brush_mm = 3.0
        show_plane(self.target, "sagittal")
        self.copy: Any = self.mirror.copy_of(self.own)

    @property
    def painted(self) -> np.ndarray:
        return np.argwhere(np.asarray(self.corrections.array))


@pytest.fixture
def painting(qtbot: Any) -> Iterator[Painting]:
    painting = Painting()
    yield painting
    painting.mirror.shut_down()
    painting.corrections.let_go()


def stroke(layer: Any, *places: tuple[int, int, int]) -> None:
    """As napari paints while the mouse is dragged."""
    with layer.block_history():
        for place in places:
            layer.paint(place, 1, refresh=False)


def test_a_stroke_lies_in_the_plane_of_its_canvas(painting: Painting) -> None:
    stroke(painting.copy, (3, 4, 5))
    assert set(painting.painted[:, 2]) == {5}, "across the sagittal plane it is one voxel thick"
    assert len(set(painting.painted[:, 0])) > 1 or len(set(painting.painted[:, 1])) > 1
    assert painting.own.across == 0, "the main canvas paints as before"


def test_both_canvases_have_one_history(painting: Painting) -> None:
    stroke(painting.own, (1, 2, 2))
    after_first = painting.painted
    stroke(painting.copy, (3, 4, 5), (3, 5, 5))
    stroke(painting.own, (3, 4, 5))
    painting.copy.undo()
    painting.copy.undo()
    np.testing.assert_array_equal(painting.painted, after_first)
    painting.own.undo()
    assert not len(painting.painted)
    painting.copy.redo()
    np.testing.assert_array_equal(painting.painted, after_first)


def test_a_stroke_is_seen_in_both_and_told(painting: Painting, qtbot: Any) -> None:
    boxes: list[Region] = []
    painting.corrections.changed.connect(boxes.append)
    painting.source.dims.point = painting.target.dims.point = (11.0, -2.0, 12.0)
    stroke(painting.copy, (3, 4, 5))
    assert boxes
    qtbot.waitUntil(lambda: bool(np.asarray(painting.copy._slice.image.raw).any()), timeout=MS)
    assert np.asarray(painting.own._slice.image.raw).any()


def test_the_tool_in_hand_is_in_hand_in_every_canvas(painting: Painting) -> None:
    painting.own.mode = "paint"
    painting.own.selected_label = 2
    painting.own.brush_size = 7
    assert painting.target.layers.selection.active is painting.copy
    assert (str(painting.copy.mode), painting.copy.selected_label, painting.copy.brush_size) == ("paint", 2, 7)
    pressed: list[str] = []
    painting.own.bind_key("B", lambda layer: pressed.append("B"), overwrite=True)
    assert painting.copy.keymap is painting.own.keymap
    painting.source.layers.selection.active = painting.layer
    assert painting.target.layers.selection.active is painting.mirror.copy_of(painting.layer)


def test_what_may_not_be_painted_may_not_be_painted_anywhere(painting: Painting) -> None:
    painting.own.allowed = lambda places, value: np.zeros(len(places[0]), bool)
    stroke(painting.copy, (3, 4, 5))
    assert not len(painting.painted)


def encircle(layer: Any, steps: int) -> None:
    """As napari paints while an area is encircled with the right button: over many events."""
    layer.mode = "paint"
    layer._begin_stroke()
    for k in range(steps):
        layer._draw(1 + k % 2, (3, 4, 5), (3, 4, 5))


def test_encircling_in_a_further_canvas_is_one_step_and_escape_takes_it_back(painting: Painting) -> None:
    stroke(painting.own, (1, 2, 2))
    first = np.array(painting.corrections.array)
    encircle(painting.copy, 120)  # more than napari remembers steps
    assert not np.array_equal(painting.corrections.array, first)
    painting.copy._abort_stroke()
    np.testing.assert_array_equal(painting.corrections.array, first)
    encircle(painting.copy, 120)
    painting.copy._commit_stroke()
    painting.own.undo()
    np.testing.assert_array_equal(painting.corrections.array, first)
    painting.own.undo()
    assert not len(painting.painted)


@pytest.mark.parametrize("end", ["the copy goes", "the canvas goes"])
def test_a_canvas_that_goes_ends_its_stroke(painting: Painting, end: str) -> None:
    encircle(painting.copy, 3)
    if end == "the copy goes":
        painting.target.layers.remove(painting.copy)
    else:
        painting.mirror.shut_down()
    painted = np.array(painting.corrections.array)
    stroke(painting.own, (7, 8, 9))
    painting.own.undo()
    np.testing.assert_array_equal(painting.corrections.array, painted)


@pytest.mark.parametrize("layer", ["own", "copy"])
def test_undo_and_redo_wait_for_the_end_of_a_stroke(painting: Painting, layer: str) -> None:
    stroke(painting.own, (1, 2, 2))
    first = np.array(painting.corrections.array)
    painted = getattr(painting, layer)
    encircle(painted, 1)
    under_way = np.array(painting.corrections.array)
    for again in (painted.undo, painted.redo, painting.own.undo):
        again()
        np.testing.assert_array_equal(painting.corrections.array, under_way)
    painted._commit_stroke()
    painted.undo()
    np.testing.assert_array_equal(painting.corrections.array, first)
    with painted.block_history():
        painted.paint((3, 4, 5), 2)
        painted.undo()
    assert not np.array_equal(painting.corrections.array, first)


def test_filling_and_polygons_go_the_same_way(painting: Painting) -> None:
    painting.own.seen = None
    painting.own.data[2:5, 2:6, 5] = 1
    painting.own.data[3, 3:5, 5] = 0
    painting.copy.fill((3, 3, 5), 2)
    assert {tuple(at) for at in np.argwhere(np.asarray(painting.corrections.array) == 2).tolist()} == {
        (3, 3, 5),
        (3, 4, 5),
    }
    painting.copy.paint_polygon([(1, 1, 7), (1, 6, 7), (6, 6, 7)], 1)
    assert (np.asarray(painting.corrections.array)[:, :, 7] == 1).any()


# In a window


class Window:
    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.scan = make_scan(spacing=(2.0, 1.0, 1.0), origin=(5.0, -6.0, 7.0))
        ((data, arguments, _),) = layer_data(self.scan)
        self.layer = viewer.add_image(data, **arguments)
        self.opened: list[str] = []
        self.closing: list[str] = []
        self.views = Views(
            viewer, lambda model: self.opened.append(model.title), lambda model: self.closing.append(model.title)
        )
        self.views.set_reference(self.layer, True)

    def planes(self) -> list[str]:
        return [plane_of(model) for model in self.views.models]


@pytest.fixture
def window(make_napari_viewer_proxy: Any, qtbot: Any) -> Iterator[Window]:
    window = Window(make_napari_viewer_proxy(), qtbot)
    yield window
    window.views.shut_down()
    qtbot.wait(50)  # Qt deletes later


def test_the_other_planes_open_with_letters_and_superior_up(window: Window) -> None:
    window.views.open()
    assert window.planes() == ["coronal", "sagittal"]
    letters = [view.orientation.letters() for view in window.views._planes]
    assert letters == [
        {"top": "S", "bottom": "I", "left": "R", "right": "L"},
        {"top": "S", "bottom": "I", "left": "A", "right": "P"},
    ]
    assert window.opened == ["coronal", "sagittal"]


def test_the_others_have_the_theme_of_the_window(window: Window) -> None:
    window.views.open()
    window.viewer.theme = "light"
    assert [model.theme for model in window.views.models] == ["light", "light"]


def test_the_three_show_the_same_point(window: Window) -> None:
    window.views.open()
    coronal, sagittal = window.views.models
    window.viewer.dims.point = (11.0, 4.0, 12.0)
    assert coronal.dims.point == sagittal.dims.point == (11.0, 4.0, 12.0)
    sagittal.dims.set_current_step(2, 0)
    assert window.viewer.dims.point == coronal.dims.point == (11.0, 4.0, 7.0)


def test_a_click_in_one_moves_the_others(window: Window) -> None:
    window.views.open()
    coronal, sagittal = window.views.models
    place = (9.0, coronal.dims.point[1], 10.0)
    event = SimpleNamespace(button=1, modifiers=(), pos=(50, 50), position=place, type="mouse_press")
    for callback in coronal.mouse_drag_callbacks:
        if callback == window.views._on_click:
            generator = callback(coronal, event)
            next(generator)
            event.type = "mouse_release"
            assert next(generator, "end") == "end"
    assert window.viewer.dims.point == sagittal.dims.point == place


def test_the_others_are_always_the_two_that_the_main_canvas_does_not_show(window: Window) -> None:
    window.views.open()
    show_plane(window.viewer, "sagittal")
    assert window.planes() == ["axial", "coronal"]
    show_plane(window.viewer, "axial")
    assert window.planes() == ["coronal", "sagittal"]


def test_one_key_gives_all_the_room_to_a_plane_and_takes_it_back(window: Window) -> None:
    window.views.open()
    window.views.maximise(window.views.models[1])
    assert not window.views.is_shown
    assert plane_of(window.viewer) == "sagittal"
    assert window.closing == window.opened
    assert not crosses(window.viewer)
    window.views.maximise(window.viewer)
    assert plane_of(window.viewer) == "axial"
    assert window.planes() == ["coronal", "sagittal"]


def test_a_time_series_keeps_its_time_in_all_three(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    window = Window(make_napari_viewer_proxy(), qtbot)
    window.viewer.layers.clear()
    still = make_scan(spacing=(2.0, 1.0, 1.0))
    moving = Scan(np.stack([still.voxels] * 3), still.geometry, leading="time")
    ((data, arguments, _),) = layer_data(moving)
    layer = window.viewer.add_image(data, **arguments)
    window.views.set_reference(layer, True)
    window.views.open()
    assert window.planes() == ["coronal", "sagittal"]
    window.viewer.dims.set_current_step(0, 2)
    window.viewer.dims.set_current_step(1, 5)
    for model in window.views.models:
        assert model.dims.point == window.viewer.dims.point
        assert model.dims.order[0] == 0
    window.views.shut_down()
    qtbot.wait(50)


def test_closing_the_dock_by_hand_is_noticed(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    window = Window(make_napari_viewer_proxy(show=True), qtbot)
    heard: list[bool] = []
    window.views.shown_changed.connect(heard.append)
    window.views.open()
    window.qtbot.waitUntil(window.views._panel.isVisible, timeout=MS)
    window.viewer.window.remove_dock_widget(window.views._panel)
    window.qtbot.waitUntil(lambda: not window.views.is_shown, timeout=MS)
    assert heard == [True, False]
    assert not crosses(window.viewer)
    window.views.open()  # and again
    assert window.views.is_shown
    window.views.shut_down()
    qtbot.wait(50)


def test_painting_in_the_main_canvas_shows_in_the_others(window: Window) -> None:
    labels = window.viewer.add_labels(
        np.zeros(window.scan.shape, np.uint8),
        scale=window.layer.scale,
        translate=window.layer.translate,
        units=window.layer.units,
    )
    window.views.open()
    copies = [view.mirror.copy_of(labels) for view in window.views._planes]
    labels.paint((3, 4, 5), 1)
    for copy in copies:
        assert isinstance(copy, Labels)
        assert copy.data[3, 4, 5] == 1


def test_without_a_scan_the_planes_close(window: Window) -> None:
    window.views.open()
    window.views.set_reference(None, False)
    assert not window.views.is_shown
    window.views.open()
    assert not window.views.is_shown
    window.views.set_reference(window.layer, True)
    window.views.open()
    assert window.views.is_shown


def test_a_plane_leaves_no_room_for_a_scan_that_is_hidden(window: Window) -> None:
    window.views.toggle(True)
    far = make_scan((10, 12, 8), origin=(900.0, 900.0, 900.0))
    ((data, arguments, _),) = layer_data(far)
    layer = window.viewer.add_image(data, **arguments)
    window.layer.visible = False
    window.views.set_reference(layer, True)
    for model in window.views.models:
        middle = [o + (n - 1) / 2 for o, n in zip(far.geometry.origin, far.shape, strict=True)]
        shown = list(model.dims.displayed)
        np.testing.assert_allclose(np.asarray(model.scene.camera.center)[1:], np.asarray(middle)[shown], atol=1)
