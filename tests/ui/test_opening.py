"""Opening in the window: what is read, what is asked, and what becomes of the answer. No viewer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_maker import SECRET, Series, block
from fakes import PATIENCE, FakeSegmenter, make_registry
from napari.components import ViewerModel
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_sparsetok.files import OpeningStopped, open_scan, save_mask
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Scan, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.ui import hooks
from napari_sparsetok.ui import opening as opening_module
from napari_sparsetok.ui.given_mask import mask_layer, mask_of
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.opening import Opening
from napari_sparsetok.ui.scan_layer import MASK_LABELS, SCAN
from napari_sparsetok.ui.series_dialog import SeriesDialog

MS = int(PATIENCE * 1000)


class Door:
    """Someone who opens scans."""

    def __init__(self, qtbot: Any) -> None:
        self.qtbot = qtbot
        self.session = Session(make_segmenter=FakeSegmenter, registry=make_registry(), deliver=on_gui_thread)
        self.widget = QWidget()
        qtbot.addWidget(self.widget)
        self.shown: list[Any] = []
        self.masks: list[Any] = []
        self.opening = Opening(self.widget, self.session, self.shown.append, lambda *what: self.masks.append(what))

    def until(self, ready: Any) -> None:
        self.qtbot.waitUntil(lambda: bool(ready()), timeout=MS)

    def scan(self) -> Scan:
        self.until(lambda: self.shown)
        (((_, arguments, _),),) = self.shown
        found: Scan = arguments["metadata"][SCAN]
        return found

    def question(self) -> Any:
        self.until(lambda: self.opening.dialog is not None)
        return self.opening.dialog

    def answer(self, words: str) -> None:
        box = self.question()
        (button,) = [b for b in box.buttons() if words in b.text().replace("&", "")]
        button.click()


@pytest.fixture
def door(qtbot: Any) -> Iterator[Door]:
    door = Door(qtbot)
    yield door
    door.session.close()
    assert door.session.wait(PATIENCE)


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    path = tmp_path / "head.nii.gz"
    voxels = np.random.default_rng(0).normal(100, 20, (6, 8, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1, 2, 3, 1])), path)
    return path


def gapped(folder: Path) -> Path:
    series = Series(block(8))
    places = series.places()
    series.positions = places + (np.arange(8) >= 4)[:, None] * np.array([0, 0, 4.0])
    return series.write(folder)


# Files and folders


def test_a_file_is_chosen_and_opened(door: Door, nifti: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *args: (asked.append(args), (str(nifti), ""))[1])
    door.opening.ask_file()
    assert door.scan().source.path == nifti
    for suffix in ("*.nii.gz", "*.dcm", "DICOMDIR", "*.zip", "*.nrrd", "*.mha", "*.mgz", "All files"):
        assert suffix in asked[0][-1]


def test_nothing_chosen_opens_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("", ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    door.opening.ask_file()
    door.opening.ask_folder()
    assert door.session.state.busy is None


def test_a_folder_of_one_series_opens_without_a_question(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Series(block()).write(tmp_path / "study")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    door.opening.ask_folder()
    scan = door.scan()
    assert scan.source.format == "dicom"
    assert SECRET not in scan.name
    assert door.opening.dialog is None


def test_what_is_no_scan_is_said(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "head.nii.gz"
    path.write_bytes(b"nonsense")
    door.opening.open(path)
    door.until(lambda: door.session.state.message is not None)
    assert door.session.state.message.severity == "error"
    assert "head.nii.gz" in door.session.state.message.text


def test_reading_leaves_the_window_free_and_can_be_cancelled(
    door: Door, nifti: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, threads = threading.Event(), threading.Event(), []

    def slow(path: Path, progress: Any, stop: Any) -> list[Any]:
        threads.append(threading.current_thread())
        begun.set()
        progress(1, 2)
        assert go.wait(PATIENCE)
        if stop():
            raise OpeningStopped
        return []

    monkeypatch.setattr(opening_module, "find_series", slow)
    door.opening.open(nifti)
    assert begun.wait(PATIENCE)
    door.until(lambda: door.session.state.busy.done == 50)
    assert door.session.state.busy.can_cancel
    door.session.cancel()
    go.set()
    door.until(lambda: door.session.state.busy is None)
    assert not door.shown
    assert door.session.state.message is None
    assert threads[0] is not threading.main_thread()


# Several series


def test_of_several_series_the_person_chooses(door: Door, tmp_path: Path) -> None:
    Series(block(12), extra={"SeriesDescription": "T1 long"}).write(tmp_path / "study" / "a")
    Series(block(6), extra={"SeriesDescription": "T2 short"}).write(tmp_path / "study" / "b")
    door.opening.open(tmp_path / "study")
    dialog = door.question()
    assert isinstance(dialog, SeriesDialog)
    assert dialog.chosen.slices == 12, "the likeliest first"
    dialog.choose(1)
    dialog.table.cellDoubleClicked.emit(1, 0)
    assert door.scan().shape[0] == 6
    door.until(lambda: door.opening.dialog is None)


def test_choosing_none_opens_none(door: Door, tmp_path: Path) -> None:
    for name in "ab":
        Series(block()).write(tmp_path / "study" / name)
    door.opening.open(tmp_path / "study")
    door.question().reject()
    door.until(lambda: door.session.state.busy is None)
    assert not door.shown


# Repairs


def test_a_gap_is_said_and_repaired_only_if_agreed(door: Door, tmp_path: Path) -> None:
    door.opening.open(gapped(tmp_path / "study"))
    box = door.question()
    assert isinstance(box, QMessageBox)
    assert "missing" in box.text() or "gap" in box.text() or "even" in box.text()
    assert box.informativeText()
    door.answer("Repair")
    scan = door.scan()
    assert any("Repaired" in note for note in scan.notes)
    assert scan.shape[0] > 8


def test_a_sheared_scan_of_another_format_is_repaired_the_same_way(door: Door, tmp_path: Path) -> None:
    affine = np.array([[2.0, 0, 0.6, 0], [0, 2.0, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.arange(960, dtype=np.int16).reshape(8, 12, 10), affine), tmp_path / "sheared.nii")
    door.opening.open(tmp_path / "sheared.nii")
    box = door.question()
    assert "miss a right angle by 16.7°" in box.text()
    assert "Choose a repair" not in box.text()  # that is what the buttons are for
    door.answer("Repair")
    assert any("Repaired" in note for note in door.scan().notes)


def test_a_repair_that_is_not_wanted_opens_nothing(door: Door, tmp_path: Path) -> None:
    door.opening.open(gapped(tmp_path / "study"))
    door.answer("Cancel")
    door.until(lambda: door.opening.dialog is None and door.session.state.busy is None)
    assert not door.shown


# Masks


def saved_mask(nifti: Path) -> tuple[Scan, np.ndarray, Path]:
    scan = open_scan(nifti)
    mask = np.zeros(scan.shape, np.uint8)
    mask[2:5, 3:6, 1:4] = 1
    path = nifti.with_name("head_mask.nii.gz")
    save_mask(path, mask, scan, LabelTable.of(["tumour"]))
    return scan, mask, path


@pytest.mark.parametrize(("words", "correct"), [("Look", False), ("Correct", True)])
def test_a_mask_of_the_open_scan_is_offered_as_labels(door: Door, nifti: Path, words: str, correct: bool) -> None:
    scan, mask, path = saved_mask(nifti)
    door.session.set_scan(scan)
    door.opening.open(path)  # as if it were a scan
    door.answer(words)
    (((of, found, labels), name, wants),) = door.masks
    assert of is scan
    np.testing.assert_array_equal(found, mask)
    assert [label.name for label in labels] == ["tumour"]
    assert (name, wants) == (path.name, correct)
    assert not door.shown


def test_a_mask_is_asked_for_by_its_name(door: Door, nifti: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, _, path = saved_mask(nifti)
    door.opening.ask_mask()
    assert "scan first" in door.session.state.message.text
    door.session.set_scan(scan)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(path), ""))
    door.opening.ask_mask()
    door.answer("Look")
    assert len(door.masks) == 1


def test_another_grid_or_a_grey_picture_is_no_mask(nifti: Path, tmp_path: Path) -> None:
    scan, _, path = saved_mask(nifti)
    assert mask_of(path, open_scan(path), [scan]) is not None
    assert mask_of(nifti, scan, [scan]) is None
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((6, 8, 10), np.uint8), np.diag([-1, 2, 4, 1])), other)
    assert mask_of(other, open_scan(other), [scan]) is None
    assert mask_of(path, open_scan(path), []) is None


def test_the_layer_of_a_mask_has_its_names_and_can_be_saved_again(nifti: Path) -> None:
    scan, mask, path = saved_mask(nifti)
    data, arguments, kind = mask_layer((scan, mask, LabelTable.of(["tumour"])), path.name)
    assert kind == "labels"
    layer = ViewerModel().add_labels(data, **arguments)
    assert list(layer.features["label"]) == ["background", "tumour"]
    assert layer.metadata[SCAN] is scan
    assert layer.metadata[MASK_LABELS]
    np.testing.assert_allclose(layer.scale, scan.geometry.spacing)


# What is dropped


def test_of_several_series_a_dropped_folder_opens_the_likeliest_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_info", said.append)
    Series(block(12)).write(tmp_path / "study" / "a")
    Series(block(6)).write(tmp_path / "study" / "b")
    assert hooks.get_reader(str(tmp_path / "study")) is not None
    ((_, arguments, kind),) = hooks.read(str(tmp_path / "study"))
    assert kind == "image"
    assert arguments["metadata"][SCAN].shape[0] == 12
    assert len(said) == 1
    assert "2 scans" in said[0]


def test_a_dropped_scan_with_a_gap_is_refused_with_the_way_to_open_it(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="panel"):
        hooks.read(str(gapped(tmp_path / "study")))


def test_a_dropped_mask_lies_on_its_scan(nifti: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, mask, path = saved_mask(nifti)
    monkeypatch.setattr(hooks, "_open_scans", lambda: [scan])
    ((data, arguments, kind),) = hooks.read(str(path))
    assert kind == "labels"
    np.testing.assert_array_equal(data, mask)
    assert arguments["metadata"][SCAN] is scan
    monkeypatch.setattr(hooks, "_open_scans", list)
    assert hooks.read(str(path))[0][2] == "image", "without its scan it is a scan like others"


@pytest.mark.parametrize("first", ["the mask", "the scan"])
@pytest.mark.parametrize("kind", ["NIfTI", "DICOM"])
def test_a_mask_that_is_dropped_together_with_its_scan_lies_on_it(
    door: Door, nifti: Path, tmp_path: Path, first: str, kind: str
) -> None:
    earlier, _, path = saved_mask(nifti)
    door.session.set_scan(earlier)  # of the same grid as the NIfTI: the mask is not of this one
    scan_at = tmp_path / "again.nii.gz"
    scan_at.write_bytes(nifti.read_bytes())
    if kind == "DICOM":
        scan_at, path = Series(block(6)).write(tmp_path / "study"), tmp_path / "seg.dcm"
        scan = open_scan(scan_at)
        save_mask(path, (scan.voxels % 2).astype(np.uint8), scan, LabelTable.of(["tumour"]))
    door.opening._show = lambda layers: (
        door.shown.append(layers),
        door.session.set_scan(layers[0][1]["metadata"][SCAN]),
    )
    door.opening.take([path, scan_at] if first == "the mask" else [scan_at, path])
    door.answer("Look")
    (((of, found, _), name, _),) = door.masks
    assert of is door.scan()
    assert of is not earlier
    assert name == path.name
    assert found.any()


def test_a_mask_without_a_scan_among_what_is_dropped_is_said(door: Door, tmp_path: Path) -> None:
    scan = open_scan(Series(block(6)).write(tmp_path / "study"))
    seg = save_mask(tmp_path / "seg.dcm", (scan.voxels % 2).astype(np.uint8), scan, LabelTable.of(["tumour"]))
    (tmp_path / "a.nii.gz").write_bytes(b"nonsense")
    said: list[str] = []
    door.session.state.events.message.connect(lambda message: said.append(message.text))
    door.opening.take([seg, tmp_path / "a.nii.gz"])
    door.until(lambda: len(said) == 2)
    assert "This is a mask, not a scan" in said[1]


def test_whole_numbers_stored_as_fractions_are_a_mask_too(door: Door, nifti: Path) -> None:
    scan, mask, path = saved_mask(nifti)
    image = nib.load(path)
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine), path)  # float64, as nibabel does without being told
    door.session.set_scan(scan)
    door.opening.open(path)
    door.answer("Look")
    np.testing.assert_array_equal(door.masks[0][0][1], mask)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_mask_of_a_hundred_structures_is_a_mask_and_a_picture_of_as_many_greys_is_none(
    tmp_path: Path, kind: Any
) -> None:
    random, affine = np.random.default_rng(0), np.diag([-1, 2, 3, 1])
    structures = np.kron(random.permutation(np.arange(120) % 110).reshape(4, 5, 6), np.ones((5, 5, 5)))
    greys = random.permutation(np.arange(structures.size) % 120).reshape(structures.shape)
    greys[:, :4] = 0
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("scan", "structures", "greys", "holes")}
    nib.save(nib.Nifti1Image(random.normal(size=structures.shape).astype(np.float32), affine), paths["scan"])
    for name, voxels in (("structures", structures), ("greys", greys)):
        nib.save(nib.Nifti1Image(voxels.astype(kind), affine), paths[name])
    scan = open_scan(paths["scan"])
    given = mask_of(paths["structures"], open_scan(paths["structures"]), [scan])
    assert given is not None
    assert len(given[2]) == 109
    assert mask_of(paths["greys"], open_scan(paths["greys"]), [scan]) is None
    holes = np.where(structures == 1, np.inf, structures).astype(np.float32)
    nib.save(nib.Nifti1Image(holes, affine), paths["holes"])
    assert mask_of(paths["holes"], open_scan(paths["holes"]), [scan]) is None


def test_a_mask_of_a_scan_that_was_left_meanwhile_is_not_dropped_silently(door: Door, nifti: Path) -> None:
    scan, _, path = saved_mask(nifti)
    door.session.set_scan(scan)
    door.opening.open_mask(path, scan)
    door.session.set_scan(None)
    door.until(lambda: door.session.state.message is not None)
    assert "Another scan was chosen" in door.session.state.message.text
    assert door.opening.dialog is None


def test_no_file_of_dicom_is_named_in_a_refusal(tmp_path: Path) -> None:
    scan = open_scan(Series(block(6)).write(tmp_path / "study"))
    seg = save_mask(tmp_path / f"{SECRET}.dcm", (scan.voxels % 2).astype(np.uint8), scan, LabelTable.of(["tumour"]))
    with pytest.raises(ScanError) as caught:
        hooks.read(str(seg))
    assert "segmentation" in str(caught.value)
    assert SECRET not in str(caught.value)
