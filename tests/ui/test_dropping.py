"""What is dropped into a window with the panel is read by the panel: on its thread, with progress, asking first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import napari
import nibabel as nib
import numpy as np
import pytest
from dicom_maker import Series, block
from fakes import PATIENCE, FakeSegmenter, make_registry
from qtpy.QtCore import QMimeData, QPoint, Qt, QTimer, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication

from napari_sparsetok.files import open_scan
from napari_sparsetok.session import Session
from napari_sparsetok.ui import opening as opening_module
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.series_dialog import SeriesDialog

MS = int(PATIENCE * 1000)


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(480, dtype=np.int16).reshape(6, 8, 10), np.diag([-1, 2, 3, 1])), path)
    return path


@pytest.fixture
def panel(make_napari_viewer: Any, npe2pm: Any) -> Iterator[Dock]:
    """The panel in a real window, where napari knows this plugin and no other."""
    with npe2pm.tmp_plugin(package="napari-sparsetok"):
        viewer = make_napari_viewer()
        session = Session(make_segmenter=FakeSegmenter, registry=make_registry(), deliver=on_gui_thread)
        dock = Dock(viewer, session)
        viewer.window.add_dock_widget(dock, name="SCD segmentation", area="right")
        yield dock
        dock.shut_down()
        assert session.wait(PATIENCE)


def drop(paths: list[Path]) -> None:
    """Let go of files over the canvas."""
    (target,) = [widget for widget in QApplication.allWidgets() if type(widget).__name__ == "QtViewer"]
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    for kind in (QDragEnterEvent, QDropEvent):
        QApplication.sendEvent(target, kind(QPoint(20, 20), Qt.CopyAction, mime, Qt.LeftButton, Qt.NoModifier))


def reading_threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads on which scans are read from now on."""
    threads = []

    def watched(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return open_scan(*args, **options)

    monkeypatch.setattr(opening_module, "open_scan", watched)
    return threads


def test_a_dropped_scan_is_read_on_another_thread(
    panel: Dock, nifti: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = reading_threads(monkeypatch)
    viewer = napari.current_viewer()
    drop([nifti])
    assert not len(viewer.layers), "nothing was read while the mouse was let go"
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=MS)
    assert threads
    assert threads[0] is not threading.main_thread()
    np.testing.assert_array_equal(viewer.layers[0].data, open_scan(nifti).voxels)


def test_naparis_own_open_goes_the_same_way(panel: Dock, nifti: Path, qtbot: Any) -> None:
    viewer = napari.current_viewer()
    assert viewer.open(nifti, plugin="napari-sparsetok") == []
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=MS)
    assert viewer.layers[0].name == "head"


def test_of_several_series_in_a_dropped_folder_the_person_chooses(panel: Dock, tmp_path: Path, qtbot: Any) -> None:
    for name in "ab":
        Series(block()).write(tmp_path / "study" / name)
    drop([tmp_path / "study"])
    qtbot.waitUntil(lambda: isinstance(panel.opening.dialog, SeriesDialog), timeout=MS)
    panel.opening.dialog.reject()


def test_slices_that_are_dropped_together_are_opened_once(panel: Dock, tmp_path: Path, qtbot: Any) -> None:
    folder = Series(block(5)).write(tmp_path / "study", name="IM{:04d}.dcm")
    other = Series(block(7)).write(tmp_path / "more", name="IM{:04d}.dcm")
    viewer = napari.current_viewer()
    drop([*sorted(folder.iterdir()), *sorted(other.iterdir())])
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=MS)
    qtbot.waitUntil(lambda: panel.session.state.busy is None and panel.session.wait(0.01), timeout=MS)
    assert sorted(layer.data.shape[0] for layer in viewer.layers) == [5, 7]


def test_reading_what_was_dropped_is_cancelled_by_the_panel(
    panel: Dock, nifti: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(path: Path, progress: Any, stop: Any) -> list[Any]:
        begun.set()
        assert go.wait(PATIENCE)
        return []

    monkeypatch.setattr(opening_module, "find_series", slow)
    drop([nifti])
    qtbot.waitUntil(begun.is_set, timeout=MS)
    panel.session.cancel()
    go.set()
    qtbot.waitUntil(lambda: panel.session.state.busy is None, timeout=MS)
    assert not len(napari.current_viewer().layers)


def test_once_the_panel_is_gone_the_scan_is_read_at_once(panel: Dock, nifti: Path, qtbot: Any) -> None:
    viewer = napari.current_viewer()
    viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    qtbot.wait(50)
    assert len(viewer.open(nifti, plugin="napari-sparsetok")) == 1


@pytest.fixture
def bare(make_napari_viewer: Any, npe2pm: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A window without the panel."""
    fake = Session(make_segmenter=FakeSegmenter, registry=make_registry(), deliver=on_gui_thread)
    monkeypatch.setattr(Dock, "_default_session", lambda self: fake)
    with npe2pm.tmp_plugin(package="napari-sparsetok"):
        yield make_napari_viewer()
        for widget in napari.current_viewer().window.dock_widgets.values():
            widget.shut_down()
        fake.close()
        assert fake.wait(PATIENCE)


def test_a_drop_into_a_window_without_the_panel_opens_it(
    bare: Any, nifti: Path, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = reading_threads(monkeypatch)
    QTimer.singleShot(0, lambda: drop([nifti]))
    qtbot.waitUntil(lambda: len(bare.layers) == 1, timeout=MS)
    assert threads
    assert threads[0] is not threading.main_thread()
    assert [type(widget) for widget in bare.window.dock_widgets.values()] == [Dock]


def test_a_program_gets_its_layers_at_once(bare: Any, nifti: Path) -> None:
    (layer,) = bare.open(nifti, plugin="napari-sparsetok")
    assert layer.name == "head"
    assert not bare.window.dock_widgets
