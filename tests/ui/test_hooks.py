"""What napari calls by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import napari
import nibabel as nib
import numpy as np
import pytest
from fakes import LABELS, make_prediction
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_sparsetok.files import open_scan
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Settings
from napari_sparsetok.ui import hooks
from napari_sparsetok.ui import preferences as preferences_module
from napari_sparsetok.ui.given_mask import mask_layer
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.ui.preferences import Preferences, convention, preferences
from napari_sparsetok.ui.scan_layer import SCAN, Frame, layer_data


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    path = tmp_path / "head.nii.gz"
    voxels = np.random.default_rng(0).normal(100, 20, (12, 20, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.5, 1, 2, 1])), path)
    return path


@pytest.fixture
def installed(npe2pm: Any) -> Iterator[None]:
    """Napari knows this plugin, and no other."""
    with npe2pm.tmp_plugin(package="napari-sparsetok"):
        yield


def test_the_reader_takes_scans_and_nothing_else(scan_file: Path) -> None:
    assert hooks.get_reader(str(scan_file)) is not None
    assert hooks.get_reader([str(scan_file), str(scan_file)]) is not None
    assert hooks.get_reader("picture.png") is None
    assert hooks.get_reader([str(scan_file), "picture.png"]) is None
    assert hooks.get_reader([]) is None


@pytest.mark.usefixtures("installed")
def test_a_dropped_scan_is_one_layer_in_its_place(scan_file: Path) -> None:
    viewer = ViewerModel()
    viewer.open(scan_file, plugin="napari-sparsetok")
    (layer,) = viewer.layers
    assert layer.name == "head"
    np.testing.assert_allclose(layer.scale, (2.0, 1.0, 0.5))
    np.testing.assert_array_equal(layer.data, open_scan(scan_file).voxels)
    assert layer.metadata[SCAN].source.path == scan_file


@pytest.mark.usefixtures("installed")
def test_a_broken_scan_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(b"nonsense")
    with pytest.raises(ScanError, match=r"broken\.nii\.gz"):
        ViewerModel().open(path, plugin="napari-sparsetok")


@pytest.mark.parametrize("frame", [None, Frame(3)])
def test_a_mask_layer_is_written_on_the_grid_of_its_scan(scan_file: Path, tmp_path: Path, frame: Frame | None) -> None:
    viewer, scan = ViewerModel(), open_scan(scan_file)
    overlays = Overlays(viewer)
    overlays.set_scan(scan, frame)
    prediction = make_prediction(scan, Settings(keep_ratio=0.5))
    overlays.show_mask(prediction)
    layer = overlays.layer("mask")
    out = tmp_path / "mask.nii.gz"
    data, meta, _ = layer.as_layer_data_tuple()
    assert hooks.write_labels(str(out), data, meta) == [str(out)]
    np.testing.assert_array_equal(open_scan(out).voxels, prediction.mask)
    np.testing.assert_allclose(nib.load(out).affine, nib.load(scan_file).affine)


def test_no_scan_that_is_open_is_written_over(scan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer, scan = ViewerModel(), open_scan(scan_file)
    series = tmp_path / "series.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(6, 8, 10, 3)), np.eye(4)), series)
    for opened in (scan, open_scan(series)):
        for data, arguments, _ in layer_data(opened):
            viewer.add_image(data, **arguments)
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    mask, arguments, _ = mask_layer((scan, np.ones(scan.shape, np.uint8), LabelTable.of(["a"])), "mask")
    data, meta, _ = viewer.add_labels(mask, **arguments).as_layer_data_tuple()
    for path in (scan_file, series):
        before = path.read_bytes()
        with pytest.raises(ScanError, match="is a scan that is open"):
            hooks.write_labels(str(path), data, meta)
        assert path.read_bytes() == before


def test_a_layer_of_nobody_is_not_written(tmp_path: Path) -> None:
    data, meta, _ = Labels(np.zeros((4, 4, 4), np.uint8)).as_layer_data_tuple()
    with pytest.raises(ScanError, match="belongs to no scan"):
        hooks.write_labels(str(tmp_path / "mask.nii.gz"), data, meta)


@pytest.mark.parametrize(
    "open_one", [hooks.open_mni152, hooks.open_hippocampus_left, hooks.open_hippocampus_right, hooks.open_phantom]
)
def test_every_sample_opens_or_says_what_is_missing(open_one: Any) -> None:
    ((data, arguments, kind),) = open_one()
    assert kind == "image"
    assert Image(data, **arguments).ndim == 3


def test_the_panel_opens_from_the_plugins_menu(make_napari_viewer_proxy: Any) -> None:
    viewer = make_napari_viewer_proxy()
    _, widget = viewer.window.add_plugin_dock_widget("napari-sparsetok", "SCD segmentation")
    widget.shut_down()
    assert type(widget).__name__ == "Dock"
    assert widget.overlays is not None


# Preferences


def test_preferences_are_read_from_naparis_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = SimpleNamespace(segmentation=SimpleNamespace(device="cpu", cache_gib=2, keep_ratio=0.5))
    monkeypatch.setattr(preferences_module, "get_plugin_settings", lambda plugin: chosen)
    assert preferences() == Preferences("cpu", 2.0, 0.5)
    assert preferences().cache_bytes == 2 * 2**30


def test_no_cache_memory_leaves_it_to_the_engine() -> None:
    assert Preferences().cache_bytes is None


def test_without_settings_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(plugin: str) -> None:
        raise KeyError(plugin)

    monkeypatch.setattr(preferences_module, "get_plugin_settings", unknown)
    assert preferences() == Preferences()


def test_naparis_own_settings_hold_the_manifests_defaults() -> None:
    assert preferences() == Preferences()


@pytest.mark.parametrize(("said", "expected"), [("RAS", "RAS"), ("LPS", "LPS"), ("nonsense", "LPS")])
def test_coordinates_count_as_the_person_prefers(monkeypatch: pytest.MonkeyPatch, said: str, expected: str) -> None:
    chosen = SimpleNamespace(looking=SimpleNamespace(coordinates=said))
    monkeypatch.setattr(preferences_module, "get_plugin_settings", lambda plugin: chosen)
    assert convention() == expected


def test_coordinates_count_as_in_dicom_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert convention() == "LPS"
    monkeypatch.setattr(preferences_module, "get_plugin_settings", lambda plugin: SimpleNamespace())
    assert convention() == "LPS"


def test_labels_carry_their_names(scan_file: Path) -> None:
    overlays = Overlays(ViewerModel())
    scan = open_scan(scan_file)
    overlays.set_scan(scan)
    overlays.show_mask(make_prediction(scan, Settings(keep_ratio=0.5)))
    assert [label.name for label in LABELS] == list(overlays.layer("mask").features["label"])[1:]
