"""Windows: by preset, by key, by dragging, remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_maker import CT as CT_STORAGE
from dicom_maker import Series, block
from fakes import make_scan
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel

from napari_sparsetok.files import open_scan, raw
from napari_sparsetok.scan import Geometry, Scan
from napari_sparsetok.ui.scan_layer import layer_data
from napari_sparsetok.ui.window_level import CUSTOM, WindowLevel, WindowMemory, dragged
from napari_sparsetok.ui.window_preset import CT, OTHER, modality, presets


def ct(name: str = "ct") -> Scan:
    voxels = np.random.default_rng(0).integers(-1000, 1500, (6, 8, 10)).astype(np.int16)
    return Scan(voxels, Geometry.shown(voxels.shape), name=name)


@pytest.fixture
def memory(tmp_path: Path) -> WindowMemory:
    return WindowMemory(tmp_path / "state" / "windows.json")


class Bench:
    def __init__(self, memory: WindowMemory) -> None:
        self.viewer = ViewerModel()
        self.window = WindowLevel(self.viewer, memory)
        self.heard: list[Any] = []
        self.window.changed.connect(lambda *what: self.heard.append(what))

    def add(self, scan: Scan) -> Any:
        ((data, arguments, _),) = layer_data(scan)
        layer = self.viewer.add_image(data, **arguments)
        self.window.set_channels([(scan, layer)])
        return layer

    def drag(self, *moves: tuple[int, int], button: int = 2, modifiers: Any = ("Shift",)) -> Any:
        event = SimpleNamespace(type="mouse_press", button=button, modifiers=modifiers, pos=(100, 100), handled=False)
        (callback,) = [c for c in self.viewer.mouse_drag_callbacks if c == self.window._on_drag]
        generator = callback(self.viewer, event)
        for kind, place in [("mouse_press", (100, 100)), *(("mouse_move", m) for m in moves), ("mouse_release", None)]:
            event.type = kind
            event.pos = place or event.pos
            if next(generator, "ended") == "ended":
                break
        return event


@pytest.fixture
def bench(memory: WindowMemory) -> Bench:
    return Bench(memory)


def test_ct_opens_in_the_soft_tissue_window(bench: Bench) -> None:
    layer = bench.add(ct())
    assert layer.contrast_limits == [-160, 240]
    assert bench.heard[-1] == ("soft tissue", 40, 400)


@pytest.mark.parametrize("preset", [preset for preset in CT if preset.percentiles is None])
def test_every_ct_window_has_its_level_and_width(bench: Bench, preset: Any) -> None:
    layer = bench.add(ct())
    bench.window.choose(preset.name)
    low, high = layer.contrast_limits
    assert (low + high) / 2 == pytest.approx(preset.level)
    assert high - low == pytest.approx(preset.width)


def test_the_well_known_windows_are_there() -> None:
    known = {(preset.name, preset.level, preset.width) for preset in CT}
    assert {("lung", -600, 1500), ("bone", 400, 1800), ("brain", 40, 80), ("stroke", 32, 8)} <= known
    assert "liver" in {preset.name for preset in CT}


def test_mr_is_windowed_by_percentiles(bench: Bench) -> None:
    scan = make_scan()
    layer = bench.add(scan)
    assert bench.window.presets is OTHER
    bench.window.choose("everything")
    np.testing.assert_allclose(layer.contrast_limits, (scan.voxels.min(), scan.voxels.max()), rtol=1e-6)
    bench.window.choose("strong contrast")
    np.testing.assert_allclose(layer.contrast_limits, np.percentile(scan.voxels, (5, 98)), rtol=1e-4)


def test_flat_or_hollow_scans_still_have_a_window() -> None:
    flat = Scan(np.full((3, 4, 5), 7.0, np.float32), Geometry.shown((3, 4, 5)))
    hollow = Scan(np.full((3, 4, 5), np.nan, np.float32), Geometry.shown((3, 4, 5)))
    for scan in (flat, hollow):
        for preset in presets(scan):
            low, high = preset.limits(scan)
            assert high > low


@pytest.mark.parametrize(("unit", "kind"), [("HU", "CT"), ("US", "CT"), (None, "CT"), ("MGML", ""), ("Z_EFF", "")])
def test_a_ct_without_hounsfield_units_is_not_taken_for_one(unit: str | None, kind: str, tmp_path: Path) -> None:
    extra = {"SOPClassUID": CT_STORAGE, "Modality": "CT"} | ({"RescaleType": unit} if unit else {})
    scan = open_scan(Series(block(), extra=extra).write(tmp_path))
    assert modality(scan) == kind
    assert any("not Hounsfield units" in note for note in scan.notes) == (kind == "")


def test_the_modality_is_what_the_file_says(tmp_path: Path) -> None:
    """Also of an MR whose values look like Hounsfield units."""
    pixels = block() - 1000
    mr = open_scan(Series(pixels).write(tmp_path / "mr"))
    series = Series(pixels)
    made = series.datasets()
    (tmp_path / "ct").mkdir()
    for k, dataset in enumerate(made):
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CT_STORAGE
        dataset.Modality = "CT"
        dataset.save_as(tmp_path / "ct" / f"{k}.dcm", enforce_file_format=True)
    assert modality(mr) == "MR"
    assert modality(open_scan(tmp_path / "ct")) == "CT"
    (tmp_path / "ct" / "2.dcm").unlink()
    assert modality(open_scan(tmp_path / "ct", repair="resample")) == "CT"  # its slices are no file's any more


def test_where_no_file_says_it_the_values_may() -> None:
    assert modality(ct()) == "CT"
    assert modality(make_scan()) == ""


def values(numbers: np.ndarray) -> Scan:
    return Scan(numbers, Geometry.shown(numbers.shape))


def test_values_with_a_sign_are_not_yet_hounsfield_units() -> None:
    """Phase maps reach as deep as air, and deeper; infinities are no measurement."""
    rng = np.random.default_rng(0)
    phase = rng.normal(size=(20, 20, 20)) * 3000
    scaled = rng.integers(-4096, 4096, (20, 20, 20))
    narrow = rng.normal(size=(20, 20, 20)) * 100 - 500
    infinite = np.where(phase > 5000, np.inf, rng.integers(-1000, 2000, phase.shape))
    for numbers in (phase, scaled, narrow, infinite, np.full((3, 4, 5), -2048), np.full((3, 4, 5), np.nan)):
        assert modality(values(numbers)) == ""


def test_a_ct_is_known_with_padding_and_after_resampling() -> None:
    rng = np.random.default_rng(0)
    body = rng.normal(40, 60, (20, 20, 20))
    body[:, :6] = rng.normal(-1000, 15, (20, 6, 20))
    padded = body.round().astype(np.int16)
    padded[:, :, :5] = -2048
    hollow = body.copy()
    hollow[0] = np.nan
    for numbers in (body, padded, hollow):
        assert modality(values(numbers)) == "CT"


def test_keys_go_around_the_presets(bench: Bench) -> None:
    bench.add(ct())
    names = [bench.window.name]
    for _ in CT:
        bench.window.step(1)
        names.append(bench.window.name)
    assert names == [preset.name for preset in CT] + [CT[0].name]
    bench.window.step(-1)
    assert bench.window.name == CT[-1].name


def test_a_window_is_remembered_for_its_modality_and_over_sessions(bench: Bench, tmp_path: Path) -> None:
    first = bench.add(ct("one"))
    bench.window.choose("bone")
    bench.add(make_scan())
    assert bench.window.name == OTHER[0].name
    second = bench.add(ct("two"))
    assert second.contrast_limits == first.contrast_limits == [-500, 1300]
    later = Bench(WindowMemory(tmp_path / "state" / "windows.json"))
    assert later.add(ct("three")).contrast_limits == [-500, 1300]


@pytest.mark.parametrize("text", ["nonsense", "[1, 2]", '{"CT": {"a": 1}}', '{"CT": [5, 1]}', '{"CT": "no such"}'])
def test_a_memory_that_makes_no_sense_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "windows.json"
    path.write_text(text, encoding="utf-8")
    assert Bench(WindowMemory(path)).add(ct()).contrast_limits == [-160, 240]


def test_a_memory_that_cannot_be_written_lasts_for_the_session(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    memory = WindowMemory(tmp_path / "file" / "windows.json")
    memory["CT"] = "bone"
    assert memory["CT"] == "bone"


def test_coming_back_to_a_scan_leaves_its_window_alone(bench: Bench) -> None:
    scan = ct()
    layer = bench.add(scan)
    layer.contrast_limits = (0, 10)
    assert bench.window.name == CUSTOM
    bench.window.set_channels(())
    bench.window.set_channels([(scan, layer)])
    assert layer.contrast_limits == [0, 10]


def test_dragging_widens_to_the_right_and_darkens_downwards(bench: Bench) -> None:
    layer = bench.add(ct())
    event = bench.drag((400, 100))
    assert event.handled
    assert layer.contrast_limits == pytest.approx([40 - 400, 40 + 400])
    assert bench.window.name == CUSTOM
    bench.window.choose("soft tissue")
    bench.drag((100, 400))
    assert layer.contrast_limits == pytest.approx([40 + 400 - 200, 40 + 400 + 200])


def test_a_ct_window_by_hand_is_remembered(bench: Bench) -> None:
    layer = bench.add(ct())
    bench.drag((250, 130))
    assert bench.add(ct("next")).contrast_limits == pytest.approx(layer.contrast_limits)


def test_a_brush_in_hand_does_not_paint_while_the_window_is_dragged(bench: Bench) -> None:
    layer = bench.add(ct())
    labels = bench.viewer.add_labels(np.zeros((6, 8, 10), np.uint8))
    labels.mode = "paint"
    modes: list[str] = []
    layer.events.contrast_limits.connect(lambda event=None: modes.append(str(labels.mode)))
    bench.drag((200, 100), (300, 100))
    assert set(modes) == {"pan_zoom"}
    assert str(labels.mode) == "paint"


@pytest.mark.parametrize(("button", "modifiers"), [(1, ("Shift",)), (2, ()), (2, ("Alt",)), (2, ("Shift", "Control"))])
def test_other_drags_are_naparis(bench: Bench, button: int, modifiers: Any) -> None:
    layer = bench.add(ct())
    event = bench.drag((400, 100), button=button, modifiers=modifiers)
    assert not event.handled
    assert layer.contrast_limits == [-160, 240]


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5), st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_no_drag_closes_the_window(low: float, width: float, right: float, down: float) -> None:
    begin, end = dragged((low, low + width), right, down)
    assert np.isfinite([begin, end]).all()
    assert end > begin


def test_letting_go_leaves_the_viewer_as_it_was(bench: Bench) -> None:
    layer = bench.add(ct())
    bench.window.shut_down()
    assert not [c for c in bench.viewer.mouse_drag_callbacks if c == bench.window._on_drag]
    heard = len(bench.heard)
    layer.contrast_limits = (0, 5)
    assert len(bench.heard) == heard


# Scans that stay on disk


@pytest.fixture(params=["MR", "CT"])
def on_disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scan:
    monkeypatch.setattr(raw, "LARGEST_IN_MEMORY", 1000)
    values = np.random.default_rng(0).integers(0, 900, (30, 40, 50)).astype(np.int16)
    values[:12] = -1000 if request.param == "CT" else 0
    nib.save(nib.Nifti1Image(values, np.diag([-1, 2, 3, 1])), tmp_path / "large.nii")
    scan = open_scan(tmp_path / "large.nii")
    assert scan.is_lazy
    return scan


def test_a_scan_on_disk_has_windows_once_its_layer_was_made(bench: Bench, on_disk: Scan) -> None:
    assert presets(on_disk) == (), "nothing was read yet"
    layer = bench.add(on_disk)
    kind = modality(on_disk)
    assert bench.window.presets is (CT if kind == "CT" else OTHER)
    assert bench.window.name == ("soft tissue" if kind == "CT" else "usual")
    bench.window.choose("everything")
    whole = np.asarray(on_disk.voxels)
    assert layer.contrast_limits == pytest.approx((whole.min(), whole.max()), rel=0.02)


def test_choosing_a_window_reads_nothing_from_disk(
    bench: Bench, on_disk: Scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add(on_disk)
    monkeypatch.setattr(raw.StoredVoxels, "_read", lambda *_: pytest.fail("read while the window waits"))
    for _ in bench.window.presets:
        bench.window.step(1)


# Several channels


def pair(bench: Bench, *scans: Scan) -> list[Any]:
    layers = []
    for scan in scans:
        ((data, arguments, _),) = layer_data(scan)
        layers.append(bench.viewer.add_image(data, **arguments))
    bench.window.set_channels(list(zip(scans, layers, strict=True)))
    return layers


def mr(factor: float) -> Scan:
    return replace(make_scan(), voxels=make_scan().voxels * factor)


def test_a_preset_is_laid_on_every_channel_by_its_own_values(bench: Bench) -> None:
    t1, t2 = mr(1), mr(10)
    layers = pair(bench, t1, t2)
    bench.window.choose("strong contrast")
    for scan, layer in zip((t1, t2), layers, strict=True):
        np.testing.assert_allclose(layer.contrast_limits, np.percentile(scan.voxels, (5, 98)), rtol=1e-3)


@pytest.mark.parametrize("which", [0, 1])
def test_dragging_windows_the_channel_that_is_chosen_in_the_list(bench: Bench, which: int) -> None:
    layers = pair(bench, mr(1), mr(10))
    before = [list(layer.contrast_limits) for layer in layers]
    bench.viewer.layers.selection.active = layers[which]
    bench.drag((400, 100))
    assert list(layers[1 - which].contrast_limits) == before[1 - which]
    assert list(layers[which].contrast_limits) != before[which]
    assert bench.window.name == CUSTOM
    bench.viewer.layers.selection.active = layers[1 - which]
    assert bench.heard[-1][0] == "usual", "the other keeps its own"


def test_with_none_chosen_it_is_the_topmost_that_is_seen(bench: Bench) -> None:
    layers = pair(bench, mr(1), mr(10))
    bench.viewer.layers.selection.active = None
    layers[1].visible = False
    before = list(layers[1].contrast_limits)
    bench.drag((400, 100))
    assert list(layers[1].contrast_limits) == before
    layers[1].visible = True
    low, high = layers[1].contrast_limits
    assert bench.heard[-1][1:] == pytest.approx(((low + high) / 2, high - low))


def test_the_presets_are_those_of_the_channel_that_is_chosen(bench: Bench) -> None:
    offered: list[Any] = []
    bench.window.presets_changed.connect(offered.append)
    scan = ct()
    layers = pair(bench, scan, Scan(np.abs(scan.voxels), scan.geometry, name="pet"))
    bench.viewer.layers.selection.active = layers[0]
    assert bench.window.presets is CT
    bench.viewer.layers.selection.active = layers[1]
    assert offered[-1] is bench.window.presets is OTHER
    bench.window.choose("everything")
    assert layers[0].contrast_limits == [scan.voxels.min(), scan.voxels.max()]
