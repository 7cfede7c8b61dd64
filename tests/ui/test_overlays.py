"""The overlay layers, on a viewer without a window."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import LABELS, PATCH, expected_mask, make_prediction, make_scan, make_tokens
from napari.components import ViewerModel
from napari.layers import Points

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.overlays import KINDS, OVERLAY, Overlays
from napari_sparsetok.ui.scan_layer import MASK_LABELS, Frame, frame_at, layer_data

HALF = Settings(keep_ratio=0.5)


def shown(scan: Scan) -> tuple[ViewerModel, Overlays]:
    viewer = ViewerModel()
    for data, arguments, _ in layer_data(scan):
        viewer.add_image(data, **arguments)
    overlays = Overlays(viewer)
    overlays.set_scan(scan)
    return viewer, overlays


def draw(overlays: Overlays, prediction: Any) -> None:
    overlays.show_tokens(prediction.tokens)
    overlays.show_mask(prediction)


@pytest.fixture
def scan() -> Scan:
    return make_scan(spacing=(2.0, 1.0, 0.5), origin=(-30.0, 5.0, 100.0))


def edges(layer: Any) -> np.ndarray:
    """The outer edges of a layer's voxels in millimetres."""
    first = np.asarray(layer.translate) - np.asarray(layer.scale) / 2
    return np.stack([first, first + np.asarray(layer.scale) * layer.data.shape])


def test_three_layers_lie_over_the_scan_in_order(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF, tokens=make_tokens(scan, 0.5, spacing=1.0)))
    assert [layer.name for layer in viewer.layers[1:]] == [f"{kind} · scan" for kind in KINDS]
    np.testing.assert_allclose(edges(viewer.layers[3]), edges(viewer.layers[0]))
    for layer in viewer.layers[1:3]:
        np.testing.assert_allclose(edges(layer)[0], edges(viewer.layers[0])[0])
        assert (edges(layer)[1] >= edges(viewer.layers[0])[1] - 1e-6).all()  # the last patch may stick out
        assert (edges(layer)[1] < edges(viewer.layers[0])[1] + PATCH).all()
    for layer in viewer.layers:
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        assert layer.axis_labels == viewer.layers[0].axis_labels


@pytest.mark.parametrize("spacing", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("start", [(0, 0, 0), (3, 6, 2)])
def test_a_token_covers_its_patch_of_voxels_in_the_world(
    scan: Scan, spacing: float, start: tuple[int, int, int]
) -> None:
    _, overlays = shown(scan)
    region = Region(start, scan.shape)
    overlays.show_tokens(make_tokens(scan, 0.5, region, spacing))
    layer = overlays.layer("tokens")
    assert layer is not None
    np.testing.assert_allclose(layer.scale, (PATCH * spacing,) * 3)
    first_voxel = np.asarray(layer.data_to_world((0, 0, 0))) - np.asarray(layer.scale) / 2
    edge = np.asarray(scan.geometry.origin) + (np.asarray(start) - 0.5) * scan.geometry.spacing
    np.testing.assert_allclose(first_voxel, edge)


def test_only_the_changed_box_is_written(scan: Scan) -> None:
    _, overlays = shown(scan)
    first = make_prediction(scan, HALF)
    draw(overlays, first)
    layer = overlays.layer("mask")
    buffer = layer.data
    box = Region((0, 0, 0), (4, 20, 12))
    other = np.full(scan.shape, 2, np.uint8)
    overlays.show_mask(make_prediction(scan, HALF, other, changed=box, builds_on=first.serial))
    assert overlays.layer("mask") is layer
    assert layer.data is buffer
    np.testing.assert_array_equal(layer.data[:4], other[:4])
    np.testing.assert_array_equal(layer.data[4:], first.mask[4:])


def test_a_result_that_builds_on_one_never_shown_is_written_whole(scan: Scan) -> None:
    _, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    other = np.full(scan.shape, 2, np.uint8)
    overlays.show_mask(make_prediction(scan, HALF, other, changed=Region((0, 0, 0), (1, 1, 1)), builds_on=10**9))
    np.testing.assert_array_equal(overlays.layer("mask").data, other)


def test_the_layer_never_writes_into_the_prediction(scan: Scan) -> None:
    _, overlays = shown(scan)
    prediction = make_prediction(scan, HALF)
    draw(overlays, prediction)
    for kind in KINDS:
        overlays.layer(kind).data[...] = 0
    np.testing.assert_array_equal(prediction.mask, expected_mask(scan, 0.5))
    assert prediction.tokens.stage.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_layer_comes_back_in_its_place(scan: Scan, kind: str) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    names = [layer.name for layer in viewer.layers]
    viewer.layers.remove(overlays.layer(kind))
    assert overlays.layer(kind) is None
    overlays.set_visible(kind, True)  # nothing there to show
    draw(overlays, make_prediction(scan, HALF))
    assert [layer.name for layer in viewer.layers] == names


def test_hidden_stays_hidden_when_it_comes_back(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    overlays.set_visible("mask", False)
    draw(overlays, make_prediction(scan, HALF))
    assert not overlays.layer("mask").visible
    overlays.layer("tokens").visible = False  # by the eye in napari's list
    for kind in ("mask", "tokens"):
        viewer.layers.remove(overlays.layer(kind))
    draw(overlays, make_prediction(scan, HALF))
    assert [overlays.layer(kind).visible for kind in KINDS] == [True, False, False]


def test_the_eye_in_naparis_list_is_told(scan: Scan) -> None:
    _, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    told: list[tuple[str, bool]] = []

    def listen(kind: str, visible: bool) -> None:
        told.append((kind, visible))

    overlays.visibility_changed.connect(listen)
    overlays.layer("tokens").visible = False
    overlays.set_visible("mask", False)  # by the panel, which knows
    assert told == [("tokens", False)]


def test_another_scan_leaves_the_old_layers_alone_and_finds_them_again(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    first = make_prediction(scan, HALF)
    draw(overlays, first)
    old = list(viewer.layers)
    other = make_scan((8, 8, 8), name="other")
    overlays.set_scan(other)
    draw(overlays, first)  # a late one
    draw(overlays, make_prediction(other, HALF))
    assert list(viewer.layers)[:4] == old
    assert len(viewer.layers) == 7
    np.testing.assert_array_equal(old[3].data, first.mask)
    overlays.set_scan(scan)
    draw(overlays, make_prediction(scan, Settings(keep_ratio=1.0)))
    assert len(viewer.layers) == 7
    np.testing.assert_array_equal(old[3].data, expected_mask(scan, 1.0))


def test_a_scan_whose_layers_are_all_deleted_takes_no_more_memory() -> None:
    viewer = ViewerModel()
    overlays = Overlays(viewer)

    def seen_and_deleted() -> Any:
        scan = make_scan()
        overlays.set_scan(scan)
        draw(overlays, make_prediction(scan, HALF))
        overlays.set_scan(None)
        viewer.layers.clear()
        return weakref.ref(scan)

    scan = seen_and_deleted()
    viewer.add_layer(Points())  # napari itself holds the layer that was selected last
    overlays.set_scan(make_scan(name="other"))
    gc.collect()
    assert scan() is None


def test_another_model_starts_with_layers_of_its_own(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    old = list(viewer.layers)[1:]
    overlays.retire()
    assert not any(layer.visible for layer in old)
    assert all("earlier model" in layer.name for layer in old)
    draw(overlays, make_prediction(scan, HALF))
    assert len(viewer.layers) == 7
    assert all(overlays.layer(kind).visible for kind in KINDS)


def test_another_model_chosen_at_another_scan_starts_with_layers_of_its_own(scan: Scan) -> None:
    """Back at the first scan, nothing of it is drawn in the names and colours of the earlier model."""
    _, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    old = overlays.layer("mask")
    overlays.set_scan(make_scan((8, 8, 8), name="other"))
    overlays.retire()
    overlays.set_scan(scan)
    assert overlays.mask is None
    assert not old.visible
    labels = LabelTable.of(["Brainstem", "Spinal cord"])
    draw(overlays, make_prediction(scan, HALF, labels=labels))
    mask = overlays.layer("mask")
    assert mask is not old
    assert mask.metadata[MASK_LABELS] == labels
    assert list(mask.features["label"]) == ["background", "Brainstem", "Spinal cord"]
    assert "earlier model" in old.name


def test_a_region_of_the_same_size_elsewhere_moves_the_tokens(scan: Scan) -> None:
    _, overlays = shown(scan)
    here, there = Region((0, 0, 0), (8, 8, 8)), Region((8, 8, 4), (16, 16, 12))
    for region in (here, there):
        tokens = make_tokens(scan, 0.5, region)
        overlays.show_tokens(tokens)
        for kind in ("importance", "tokens"):
            np.testing.assert_allclose(overlays.layer(kind).translate, tokens.origin)


def test_tokens_of_another_grid_get_a_new_layer(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    overlays.show_tokens(make_tokens(scan, 0.5))
    overlays.show_tokens(make_tokens(scan, 0.5, Region((0, 0, 0), (4, 4, 4))))
    assert len(viewer.layers) == 3
    assert overlays.layer("tokens").data.shape == make_tokens(scan, 0.5, Region((0, 0, 0), (4, 4, 4))).stage.shape


def test_tokens_that_are_gone_have_no_importance(scan: Scan) -> None:
    _, overlays = shown(scan)
    tokens = make_tokens(scan, 0.5)
    tokens.importance[0, 0] = np.nan
    overlays.show_tokens(tokens)
    assert overlays.layer("importance").data[0].max() == 0


def test_scores_are_drawn_anew_only_if_they_are_others(scan: Scan) -> None:
    _, overlays = shown(scan)
    first = make_tokens(scan, 0.5)
    overlays.show_tokens(first)
    layer = overlays.layer("importance")
    layer.data[...] = 0.125  # stays only if nothing is written
    same = make_tokens(scan, 0.2)  # of another keep ratio: another map, the same scores at the first stage
    assert same.importance is not first.importance
    overlays.show_tokens(same)
    assert (layer.data == 0.125).all()
    assert np.array_equal(overlays.layer("tokens").data, same.stage)
    other = replace(same, importance=same.importance / 2)
    overlays.show_tokens(other)
    assert np.allclose(layer.data, other.importance[0])
    overlays.show_tokens(replace(other, origin=tuple(o + 1 for o in other.origin)))
    assert np.allclose(layer.translate, [o + 1 for o in other.origin])


def test_the_list_of_layers_is_not_drawn_anew_for_other_voxels(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    told, drawn = [], []
    viewer.layers.events.connect(lambda event: told.append(event.type))
    for layer in viewer.layers:
        layer.events.set_data.connect(lambda event: drawn.append(event.source.name))
    draw(overlays, make_prediction(scan, Settings(keep_ratio=0.25)))
    assert sorted(drawn) == ["mask · scan", "tokens · scan"]
    assert not told
    overlays.set_visible("mask", False)
    assert "visible" in told  # of what it shows it is told


def test_colours_and_names_come_from_the_table(scan: Scan) -> None:
    _, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    layer = overlays.layer("mask")
    for label in LABELS:
        rgb = [int(label.color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        np.testing.assert_allclose(layer.get_color(label.id)[:3], rgb, atol=0.01)
    assert layer.get_color(0) is None or layer.get_color(0)[3] == 0
    assert dict(zip(layer.features["index"], layer.features["label"], strict=True)) == {
        0: "background",
        1: "head",
        2: "tail",
    }


@pytest.mark.filterwarnings("ignore:Contours are not displayed")
@pytest.mark.parametrize("kind", ["tokens", "mask"])
def test_what_the_model_writes_no_brush_writes(scan: Scan, kind: str) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    layer = overlays.layer(kind)
    assert not layer.editable
    viewer.dims.ndisplay = 3
    viewer.dims.ndisplay = 2
    layer.visible = False
    layer.visible = True
    assert not layer.editable


@pytest.mark.filterwarnings("ignore:Contours are not displayed")
def test_the_mask_is_an_outline_in_slices_and_a_body_in_3d(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    assert overlays.layer("mask").contour == 1
    viewer.dims.ndisplay = 3
    draw(overlays, make_prediction(scan, HALF))
    viewer.dims.ndisplay = 2
    assert overlays.layer("mask").contour == 1


def test_adding_layers_leaves_the_selection(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    overlays.show_region(Region((0, 0, 0), (4, 4, 4)))
    assert set(viewer.layers.selection) == {viewer.layers[0]}


def test_a_region_is_tinted_where_it_is(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    region = Region((2, 3, 4), (6, 10, 12))
    overlays.show_region(region)
    layer = viewer.layers[-1]
    assert layer.metadata[OVERLAY] == "region"
    origin, spacing = np.asarray(scan.geometry.origin), np.asarray(scan.geometry.spacing)
    np.testing.assert_allclose(edges(layer)[0], origin + (np.asarray(region.start) - 0.5) * spacing)
    np.testing.assert_allclose(edges(layer)[1], origin + (np.asarray(region.stop) - 0.5) * spacing)
    draw(overlays, make_prediction(scan, HALF, region=region))
    assert viewer.layers.index(layer) == 1  # below the results
    overlays.show_region(None)
    assert layer not in viewer.layers
    overlays.show_region(region)
    viewer.layers.remove(viewer.layers[1])
    overlays.show_region(None)  # the person was quicker


def test_every_layer_of_ours_says_so(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    assert [layer.metadata.get(OVERLAY) for layer in viewer.layers] == [None, *KINDS]


def test_nothing_is_drawn_without_a_scan(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    overlays.set_scan(None)
    draw(overlays, make_prediction(scan, HALF))
    overlays.show_region(Region((0, 0, 0), (1, 1, 1)))
    assert len(viewer.layers) == 1


def test_a_frame_of_a_time_series_has_overlays_at_its_time_only(scan: Scan) -> None:
    series = replace(scan, voxels=np.stack([scan.voxels] * 3), leading="time")
    viewer, overlays = shown(series)
    viewer.dims.set_point(0, 2)
    assert frame_at(viewer.layers[0], viewer.dims.point) == Frame(2)
    frame = series.frame(2)
    overlays.set_scan(frame, Frame(2))
    draw(overlays, make_prediction(frame, HALF))
    for kind in KINDS:
        layer = overlays.layer(kind)
        assert layer.ndim == 4
        assert layer.data.shape[0] == 1
        assert layer.translate[0] == 2
    np.testing.assert_array_equal(overlays.layer("mask").data[0], expected_mask(frame, 0.5))
    other = make_prediction(frame, Settings(keep_ratio=1.0))
    draw(overlays, other)
    np.testing.assert_array_equal(overlays.layer("mask").data[0], other.mask)


def test_letting_go_leaves_the_layers(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    told: list[Any] = []
    overlays.visibility_changed.connect(lambda *args: told.append(args))
    overlays.let_go()
    viewer.layers[-1].visible = False
    assert len(viewer.layers) == 4
    assert not told


def test_in_3d_the_first_stage_does_not_hide_the_others():
    viewer = ViewerModel()
    overlays = Overlays(viewer)
    scan = make_scan()
    viewer.add_image(scan.voxels)
    overlays.set_scan(scan)
    overlays.show_tokens(make_tokens(scan, 0.5))
    layer = overlays.layer("tokens")
    assert layer.colormap.map(1)[3] > 0
    viewer.dims.ndisplay = 3
    assert layer.colormap.map(1)[3] == 0
    assert layer.colormap.map(2)[3] > 0
    viewer.dims.ndisplay = 2
    assert layer.colormap.map(1)[3] > 0


def test_tissue_stays_in_sight_where_tokens_were_kept(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    importance, tokens = viewer.layers["importance · scan"], viewer.layers["tokens · scan"]
    grey = np.array([[0.55] * 3, [0.85] * 3])  # two bright tissues, as the hippocampus and what is beside it
    seen = grey
    for layer, color in (
        (importance, importance.colormap.map(np.array([1.0]))[0]),
        (tokens, tokens.colormap.map(int(tokens.data.max()))),
    ):
        assert layer.blending.startswith("translucent")
        alpha = layer.opacity * color[3]
        seen = alpha * color[:3] + (1 - alpha) * seen
    assert importance.colormap.map(np.array([0.0]))[0][3] == 0  # and what does not matter is not covered at all
    assert seen.max() < 1
    assert np.ptp(seen.mean(axis=1)) > 0.6 * np.ptp(grey.mean(axis=1))


def test_in_3d_scores_glow_and_kept_tokens_are_solid(scan: Scan) -> None:
    viewer, overlays = shown(scan)
    draw(overlays, make_prediction(scan, HALF))
    importance, tokens = viewer.layers["importance · scan"], viewer.layers["tokens · scan"]
    kept = int(tokens.data.max())
    viewer.dims.ndisplay = 3
    assert importance.blending == "additive"
    assert tokens.colormap.map(kept)[3] == 1
    viewer.dims.ndisplay = 2
    assert importance.blending == "translucent_no_depth"
    assert tokens.colormap.map(kept)[3] < 0.5
