"""Nothing that a person drew is lost by closing a window: the mark in the title, and the question."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import nibabel as nib
import numpy as np
import pytest
from fakes import PATIENCE, FakeSegmenter, make_card, make_registry, make_scan
from napari.components import ViewerModel
from qtpy.QtCore import QCoreApplication, QEvent, Qt
from qtpy.QtWidgets import QDockWidget, QFileDialog, QMainWindow, QWidget
from rooms import Room

from napari_sparsetok.files import open_scan
from napari_sparsetok.files.autosave import CorrectionStore
from napari_sparsetok.files.record import read_record
from napari_sparsetok.scan import ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.ui import correct as module
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.saving import MARK
from napari_sparsetok.ui.scan_layer import layer_data

MS = int(PATIENCE * 1000)


class Window:
    """A window with a segmented scan in correction."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        session = Session(
            make_segmenter=lambda: FakeSegmenter(free=True),
            registry=make_registry(),
            settings=Settings(keep_ratio=0.5),
            deliver=on_gui_thread,
        )
        self.dock = Dock(viewer, session)
        self.outer = QMainWindow()
        qtbot.addWidget(self.outer)
        holder = QDockWidget()
        holder.setWidget(self.dock)
        self.outer.addDockWidget(Qt.RightDockWidgetArea, holder)
        viewer.events.title.connect(self._on_title)
        self.outer.show()
        for data, arguments, _ in layer_data(make_scan()):
            viewer.add_image(data, **arguments)
        self.dock.panel.run_requested.emit()
        self.until(lambda: session.state.prediction is not None and session.state.busy is None)
        self.dock.correct_panel.start_requested.emit()

    def _on_title(self, event: Any) -> None:
        self.outer.setWindowTitle(event.value)

    @property
    def question(self) -> Any:
        return self.dock.correct.saving.guard.question

    def until(self, ready: Any) -> None:
        self.qtbot.waitUntil(lambda: bool(ready()), timeout=MS)

    def paint(self) -> None:
        self.dock.correct.layers.layer.paint((5, 10, 6), 2)

    def press(self, words: str) -> None:
        button = next(b for b in self.question.buttons() if words in b.text().replace("&", ""))
        button.click()


@pytest.fixture
def window(qtbot, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "CorrectionStore", lambda: CorrectionStore(tmp_path / "kept"))
    window = Window(ViewerModel(title="napari"), qtbot)
    window.until(window.outer.isVisible)
    yield window
    window.dock.shut_down()
    assert window.dock.session.wait(PATIENCE)


def test_the_title_says_that_corrections_are_in_no_saved_mask(window, tmp_path, monkeypatch):
    out = tmp_path / "mask.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(out), ""))
    assert window.viewer.title == "napari"
    window.paint()
    assert window.outer.windowTitle() == MARK + "napari"
    window.dock.correct_panel.save_requested.emit()
    window.until(lambda: window.viewer.title == "napari")
    assert np.array_equal(open_scan(out).voxels, window.dock.overlays.mask)
    assert read_record(tmp_path / "mask.json")["correcting"]["reviewed_findings"] == []
    window.dock.correct.layers.layer.undo()  # after the save: what is seen is not what is saved
    assert window.viewer.title == MARK + "napari"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: pytest.fail("it knows where to"))
    window.dock.correct_panel.save_requested.emit()
    window.until(lambda: window.viewer.title == "napari")
    assert np.array_equal(open_scan(out).voxels, window.dock.overlays.mask)


def test_what_is_drawn_while_a_mask_is_written_is_still_unsaved(window, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "mask.nii.gz"), ""))
    window.paint()
    window.dock.correct_panel.save_requested.emit()
    window.dock.correct.layers.layer.paint((9, 4, 4), 1)
    window.until(lambda: window.dock.correct.saving.path is not None)
    assert window.viewer.title == MARK + "napari"


def test_nothing_to_save_closes_without_a_question(window):
    window.outer.close()
    assert window.question is None
    assert not window.outer.isVisible()


def test_closing_asks_and_cancel_keeps_everything(window):
    window.paint()
    said = np.array(window.dock.correct.array)
    window.outer.close()
    assert window.outer.isVisible()
    assert "“scan”" in window.question.text()
    window.outer.close()  # once more: no second question
    window.press("Cancel")
    window.until(lambda: window.question is None)
    assert window.outer.isVisible()
    assert np.array_equal(window.dock.correct.array, said)


def test_closing_without_saving_keeps_the_corrections_on_this_computer(window, tmp_path):
    window.paint()
    said, scan = np.array(window.dock.correct.array), window.dock.session.state.scan
    window.outer.close()
    window.press("without saving")
    window.until(lambda: not window.outer.isVisible())
    assert window.dock.session.wait(PATIENCE)
    store = CorrectionStore(tmp_path / "kept")
    window.until(lambda: store.find(scan.content_hash) is not None)
    assert np.array_equal(store.give_back(store.find(scan.content_hash).name), said)


def test_after_the_disk_refused_the_question_promises_nothing(window, monkeypatch):
    def refuse(*_: object) -> None:
        raise ScanError("no space left")

    monkeypatch.setattr(window.dock.correct.keeping.store, "keep", refuse)
    window.paint()
    window.dock.correct.keep()
    window.until(lambda: window.dock.correct.keeping.refused)
    window.outer.close()
    assert "may be lost" in window.question.informativeText()
    assert "stay on this computer" not in window.question.informativeText()
    window.press("Cancel")


def test_a_disk_that_refuses_only_on_the_way_out_is_asked_about_again(window, monkeypatch):
    """It was said that the corrections stay: nobody had tried yet."""

    def refuse(*_: object) -> None:
        raise ScanError("no space left")

    window.paint()
    monkeypatch.setattr(window.dock.correct.keeping.store, "keep", refuse)
    window.outer.close()
    assert "stay on this computer" in window.question.informativeText()
    window.press("without saving")
    window.until(lambda: window.question is not None and "may be lost" in window.question.informativeText())
    assert window.outer.isVisible()
    window.press("without saving")
    window.until(lambda: not window.outer.isVisible())


def test_a_mask_is_not_written_over_another_scan_that_is_open(window, tmp_path, monkeypatch):
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((12, 20, 16), np.float32), np.eye(4)), other)
    bytes_before = other.read_bytes()
    for data, arguments, _ in layer_data(open_scan(other)):
        window.viewer.add_image(data, **arguments)
    window.dock.panel.scans_chosen.emit([window.viewer.layers[0]])
    window.until(lambda: window.dock.session.state.scan.name == "scan")
    window.dock.panel.run_requested.emit()
    window.until(lambda: window.dock.session.state.prediction and window.dock.session.state.busy is None)
    link = tmp_path / "link.nii.gz"
    link.symlink_to(other)
    for name in (other, link):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, name=name: (str(name), ""))
        window.dock.correct.saving.save_as()
        assert window.dock.session.wait(PATIENCE)
        assert "is a scan that is open" in window.dock.session.state.message.text
    assert other.read_bytes() == bytes_before


def test_a_mask_that_another_window_wrote_since_is_asked_about(window, tmp_path, monkeypatch):
    out = tmp_path / "mask.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(out), ""))
    saving = window.dock.correct.saving
    window.paint()
    saving.save()
    window.until(lambda: saving.path == out)
    out.write_bytes(b"of another window")
    window.dock.correct.layers.layer.undo()
    saving.save()
    assert "something else was saved there since" in saving.question.informativeText()
    next(b for b in saving.question.buttons() if "Cancel" in b.text()).click()
    assert window.dock.session.wait(PATIENCE)
    assert out.read_bytes() == b"of another window"
    assert window.viewer.title.startswith(MARK)


@pytest.fixture
def named(monkeypatch, tmp_path):
    """What was suggested in each dialog; every one is answered with the same name."""
    suggested = []

    def answer(parent, title, suggestion, filters):
        suggested.append(Path(suggestion).name)
        return str(tmp_path / "scan_mask.nii.gz"), ""

    monkeypatch.setattr(QFileDialog, "getSaveFileName", answer)
    return suggested


def test_a_mask_of_another_model_under_the_same_name_is_asked_about(qtbot, tmp_path, named):
    room = Room(qtbot, tmp_path / "kept", make_card("a"), make_card("b"))
    room.session.set_scan(make_scan())
    saving, out = room.desk.saving, tmp_path / "scan_mask.nii.gz"
    for model in "ab":
        room.session.choose(model=model)
        room.segment()
        saving.save()
        room.settled()
    of_b = out.read_bytes()
    assert named == ["scan_mask.nii.gz", "scan_b_mask.nii.gz"]
    saving.save()  # its own is written over without a question
    room.settled()
    assert saving.question is None
    room.session.choose(model="a")
    room.segment()
    saving.save()
    assert "something else was saved there since" in saving.question.informativeText()
    next(b for b in saving.question.buttons() if "Cancel" in b.text()).click()
    room.settled()
    assert out.read_bytes() == of_b
    room.close()


def test_each_frame_has_a_name_of_its_own_suggested(window, named):
    scan = make_scan(name="series")
    series = replace(scan, voxels=np.stack([scan.voxels + k for k in range(3)]), leading="time")
    for data, arguments, _ in layer_data(series):
        window.viewer.add_image(data, **arguments)
    state = window.dock.session.state
    for frame in (0, 2):
        window.viewer.dims.set_point(0, frame)
        window.dock.panel.run_requested.emit()
        window.until(lambda: state.prediction is not None and state.busy is None)
        window.dock.correct.saving.save()
        window.until(lambda: window.dock.correct.saving.path is not None)
    assert named == ["series_frame0_mask.nii.gz", "series_frame2_mask.nii.gz"]


def test_the_suggested_file_lies_beside_the_scan_whatever_that_is_called(window, tmp_path, monkeypatch):
    suggested = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *args: (suggested.append(args[2]), ("", ""))[1])
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(12, 20, 16)).astype(np.float32), np.eye(4)), path)
    for data, arguments, _ in layer_data(replace(open_scan(path), name="AX T1 W/O 10:30 (series 3)")):
        window.viewer.add_image(data, **arguments)
    state = window.dock.session.state
    window.dock.panel.run_requested.emit()
    window.until(lambda: state.prediction is not None and state.busy is None)
    window.dock.correct.saving.save_as()
    assert suggested == [str(tmp_path / "AX T1 W-O 10-30 (series 3)_mask.nii.gz")]


def test_what_is_not_shown_is_not_offered_to_be_saved(window, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: pytest.fail("the wrong mask would be saved"))
    window.paint()
    for data, arguments, _ in layer_data(make_scan((12, 16, 10), name="other")):
        window.viewer.add_image(data, **arguments)
    window.until(lambda: window.dock.session.state.scan.name == "other")
    window.outer.close()
    assert "“scan”" in window.question.text()
    assert "choose its scan and its model" in window.question.informativeText()
    assert not any("Save" in b.text().replace("&", "") for b in window.question.buttons())
    window.press("Cancel")
    assert window.outer.isVisible()


@pytest.mark.parametrize("answer", ["Replace", "Cancel"])
def test_a_name_that_got_another_ending_is_asked_about(window, tmp_path, monkeypatch, answer):
    there = tmp_path / "head_mask.nrrd"
    there.write_bytes(b"somebody's work")
    chosen = (str(tmp_path / "head_mask.nii.gz"), "NRRD (*.nrrd)")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: chosen)
    window.paint()
    seen = np.array(window.dock.overlays.mask)
    window.dock.correct_panel.save_requested.emit()
    saving = window.dock.correct.saving
    assert there.read_bytes() == b"somebody's work"
    assert "head_mask.nrrd is there already" in saving.question.text()
    next(b for b in saving.question.buttons() if answer in b.text()).click()
    if answer == "Replace":
        window.until(lambda: saving.path == there)
        assert np.array_equal(open_scan(there).voxels, seen)
    else:
        assert window.dock.session.wait(PATIENCE)
        assert there.read_bytes() == b"somebody's work"
        assert saving.path is None


def test_saving_on_the_way_out_saves_first_and_closes_then(window, tmp_path, monkeypatch):
    out: Path = tmp_path / "mask.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(out), ""))
    window.paint()
    seen = np.array(window.dock.overlays.mask)
    window.outer.close()
    window.press("Save")
    window.until(lambda: not window.outer.isVisible())
    assert np.array_equal(open_scan(out).voxels, seen)


def test_a_save_that_fails_leaves_the_window_open(window, tmp_path, monkeypatch):
    said: list[str] = []
    window.dock.session.state.events.message.connect(lambda message: said.append(message.text))
    (tmp_path / "folder").write_text("a file where a folder should be")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "folder" / "m.nii.gz"), ""))
    window.paint()
    window.outer.close()
    window.press("Save")
    window.until(lambda: said)
    assert window.outer.isVisible()
    assert window.viewer.title.startswith(MARK)


def test_a_program_that_takes_its_layers_away_and_closes_is_not_asked(window):
    window.paint()
    window.viewer.layers.clear()  # as a viewer does that is closed by a program
    window.outer.close()
    assert window.question is None
    assert not window.outer.isVisible()


def worked_and_closed(viewer: Any, qtbot: Any) -> dict[str, Any]:
    """A window in which something was drawn, asked about and saved; weak references to what it was made of."""
    session = Session(make_segmenter=lambda: FakeSegmenter(free=True), registry=make_registry(), deliver=on_gui_thread)
    dock = Dock(viewer, session)
    viewer.window.add_dock_widget(dock, name="SCD segmentation", area="right")
    for data, arguments, _ in layer_data(make_scan()):
        viewer.add_image(data, **arguments)
    dock.panel.run_requested.emit()
    qtbot.waitUntil(lambda: session.state.prediction is not None and session.state.busy is None, timeout=MS)
    dock.correct_panel.start_requested.emit()
    dock.correct_panel.limits._on.setChecked(True)
    desk, window = dock.correct, dock.window()
    desk.layers.layer.paint((5, 10, 6), 2)
    window.close()
    assert window.isVisible()
    desk.saving.guard.question.done(0)
    desk.saving.save()
    qtbot.waitUntil(lambda: not desk.saving.unsaved and session.state.busy is None, timeout=MS)
    inner = next(w for w in window.findChildren(QWidget) if type(w).__name__ == "QtViewer")
    parts = (dock, session, desk, desk.painting.preview, desk.layers.layer, inner, window)
    dock.shut_down()
    assert session.wait(PATIENCE)
    viewer.close()
    return {type(part).__name__: ref(part) for part in parts}


def test_nothing_of_ours_keeps_a_closed_window_alive(make_napari_viewer, qtbot, monkeypatch, tmp_path):
    # Not by its frame: a napari window that is closed so keeps itself alive, with our panel or without.
    monkeypatch.setattr(module, "CorrectionStore", lambda: CorrectionStore(tmp_path / "kept"))
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "mask.nii.gz"), ""))
    parts = worked_and_closed(make_napari_viewer(show=True), qtbot)

    def alive() -> list[str]:
        QCoreApplication.sendPostedEvents(None, QEvent.DeferredDelete)
        gc.collect()
        return [name for name, part in parts.items() if part() is not None]

    qtbot.waitUntil(lambda: not alive(), timeout=MS)
