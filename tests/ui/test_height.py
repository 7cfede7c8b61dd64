"""What fits into the panel without scrolling, at the width and the height that it has in a small window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fakes import PATIENCE, FakeSegmenter, make_card, make_prediction, make_registry, make_scan, make_tokens
from napari.components import ViewerModel
from napari.qt import get_stylesheet
from qtpy.QtCore import QPoint, Qt, QTimer
from qtpy.QtWidgets import QDockWidget, QPushButton, QScrollArea, QTabWidget, QWidget

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.session import Session
from napari_sparsetok.state import DeviceReport, Settings, Timing
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.label_view import LabelRow
from napari_sparsetok.ui.review_form import ReviewForm, ReviewRow
from napari_sparsetok.ui.scan_layer import layer_data
from napari_sparsetok.ui.section import Section

WINDOW = (1400, 860)
DOCK = (340, 785)
"""What a window of that size leaves to the panel; a test below looks at a real one."""
ORGANS = ("Brainstem", "Spinal cord", "Parotid left", "Parotid right", "Esophagus", "Larynx", "Mandible")
CARDS = (
    make_card(
        "two",
        labels=LabelTable.of(["Anterior hippocampus", "Posterior hippocampus"]),
        purpose="Outlines the anterior and posterior hippocampus in a small box around it, on T1-weighted MR of the "
        "head.",
        needs_region=True,
        config={"patch": 4, "window": [8, 8, 8], "prune_after": [1, 2]},
    ),
    make_card(
        "seven",
        labels=LabelTable.of(list(ORGANS)),
        purpose="Outlines seven organs at risk on planning CT of the head and neck: brainstem, spinal cord, parotids, "
        "esophagus, larynx and mandible.",
    ),
)
TIMING = Timing(first=0.583, total=12.3, cached=0.5, windows=27, device="CPU", entered=31590, passed=7898, memory=2**31)


def segmented(viewer: Any, model: str) -> Dock:
    """A panel with a result of this model, as it looks after a run."""
    session = Session(
        make_segmenter=lambda: FakeSegmenter(free=True, device=DeviceReport("CPU (no GPU found)")),
        registry=make_registry(*CARDS),
        settings=Settings(keep_ratio=0.25, model=model),
        deliver=on_gui_thread,
    )
    dock = Dock(viewer, session)
    scan = make_scan((16, 20, 12), "MNI152 T1 template, left hippocampus")
    for data, arguments, _ in layer_data(scan):
        viewer.add_image(data, **arguments)
    state = session.state
    labels = session.card.labels
    state.tokens = make_tokens(scan, 0.25)
    state.prediction = make_prediction(state.scan, state.settings, labels=labels, timing=TIMING)
    state.device = DeviceReport("CPU (no GPU found)")
    return dock


@pytest.fixture
def panel(qtbot: Any, request: Any) -> Iterator[Dock]:
    """Without a window, but with the theme's style, which decides how high everything is."""
    theme, model = request.param
    dock = segmented(ViewerModel(), model)
    qtbot.addWidget(dock)
    dock.setStyleSheet(get_stylesheet(theme))
    dock.resize(*DOCK)
    dock.show()
    qtbot.waitExposed(dock)
    yield dock
    dock.shut_down()
    assert dock.session.wait(PATIENCE)


def missing(tab: QWidget) -> int:
    """How many pixels higher what is in a tab is than the room that it has."""
    area = tab.findChild(QScrollArea)
    inside, room = area.widget(), area.viewport().size()
    layout = inside.layout()
    layout.activate()
    follows = layout.hasHeightForWidth()
    needed = layout.totalHeightForWidth(room.width()) if follows else inside.minimumSizeHint().height()
    return max(0, int(needed) - int(room.height()))


def is_in_sight(widget: QWidget, dock: Dock) -> bool:
    bottom = widget.mapTo(dock, QPoint(0, widget.height())).y()
    return widget.isVisible() and not widget.visibleRegion().isEmpty() and bottom <= dock.height()


BOTH = [(theme, model) for theme in ("dark", "light") for model in ("two", "seven")]


@pytest.mark.parametrize("panel", BOTH, indirect=True)
@pytest.mark.parametrize("where", ["whole", "box", "cursor"])
def test_all_of_segment_is_seen_in_a_window_of_860_pixels(panel: Dock, qtbot: Any, where: str) -> None:
    panel._on_where_chosen(where)
    save = panel.panel._save
    qtbot.wait(50)
    assert (panel.width(), panel.height()) == DOCK
    assert missing(panel.panel) == 0
    assert is_in_sight(save, panel)
    assert is_in_sight(panel.panel._volumes, panel)


@pytest.mark.parametrize("panel", BOTH, indirect=True)
def test_it_asks_for_no_more_width_than_it_needs(panel: Dock) -> None:
    assert panel.sizeHint().width() <= DOCK[0] + 10


def test_a_section_gives_what_is_inside_the_height_that_it_grows_to(qtbot: Any) -> None:
    form = ReviewForm()
    section = Section("What to look at next", form, "…")
    section.setAttribute(Qt.WA_DontShowOnScreen)
    qtbot.addWidget(section)
    section.show()
    section.toggleButton().click()
    qtbot.wait(20)
    before = form.height()
    form.set_rows([ReviewRow("a bit", "…", False)] * 10, "0 of 10 looked at.")
    form.set_counts("Axial slices: 0 of 36 with a mask reviewed, 5 corrected.")
    qtbot.waitUntil(lambda: form.height() >= max(before + 130, form.minimumSizeHint().height()), timeout=2000)
    section.toggleButton().click()
    qtbot.waitUntil(lambda: section.content().height() == 0, timeout=2000)


@pytest.mark.parametrize("panel", BOTH, indirect=True)
def test_all_of_correct_is_seen_in_a_window_of_860_pixels(panel: Dock, qtbot: Any) -> None:
    panel.findChild(QTabWidget).setCurrentWidget(panel.correct_panel)
    panel.correct_panel.start_requested.emit()
    panel.correct_panel.tools._tool.value = "smooth"  # it has the most fields
    save = next(b for b in panel.correct_panel.findChildren(QPushButton) if "Save corrected" in b.text())
    qtbot.wait(50)
    assert missing(panel.correct_panel) == 0
    assert is_in_sight(save, panel)


@pytest.mark.parametrize("panel", BOTH, indirect=True)
def test_the_panel_wants_no_more_room_than_it_needs(panel: Dock) -> None:
    """A dock is as wide as its hint when it opens; what it has beyond its need, the scan lacks."""
    assert panel.sizeHint().width() <= DOCK[0]


def test_a_window_of_860_pixels_leaves_the_panel_as_much(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    dock = segmented(viewer, "two")
    viewer.window.add_dock_widget(dock, name="SCD segmentation", area="right")
    window, outer = dock.window(), dock.parentWidget()
    while not isinstance(outer, QDockWidget):
        outer = outer.parentWidget()
    window.resize(*WINDOW)
    window.resizeDocks([outer], [DOCK[0]], Qt.Horizontal)
    qtbot.waitUntil(lambda: (window.width(), window.height()) == WINDOW and dock.width() == DOCK[0], timeout=5000)
    assert dock.height() >= DOCK[1]
    qtbot.wait(50)
    assert missing(dock.panel) == 0
    assert is_in_sight(dock.panel._save, dock)
    title, tabs = outer.titleBarWidget(), dock.findChild(QTabWidget).tabBar()
    assert title.mapToGlobal(QPoint(0, title.height())).y() <= tabs.mapToGlobal(QPoint(0, 0)).y()
    dock.shut_down()
    assert dock.session.wait(PATIENCE)


@pytest.mark.parametrize("panel", BOTH, indirect=True)
def test_the_label_table_says_voxels_and_millilitres_and_cuts_nothing(panel: Dock, qtbot: Any) -> None:
    panel.findChild(QTabWidget).setCurrentWidget(panel.correct_panel)
    panel.correct_panel.start_requested.emit()
    table, known = panel.correct_panel.labels, panel.session.card.labels
    rows = [
        LabelRow(label.id, label.name, label.color, ml=voxels / 1000, change=-voxels / 2000, voxels=voxels)
        for label, voxels in zip(known, (2412, 9_876_543, 34, 123_456, 0, 1, 2), strict=False)
    ]
    table.set_rows(rows)
    qtbot.wait(50)
    assert [table.horizontalHeaderItem(k).text() for k in range(4)] == ["Label", "Voxels", "mL", "Δ mL"]
    assert [table.item(0, k).text() for k in range(1, 4)] == ["2\u202f412", "2.41", "−1.21"]
    assert [table.item(1, k).text() for k in range(1, 4)] == ["9.88\u202fM", "9877", "−4938"]
    assert "9\u202f876\u202f543 voxels" in table.item(1, 1).toolTip()
    assert table.horizontalScrollBar().maximum() == 0
    for k in range(len(rows)):
        needed = table.fontMetrics().boundingRect(
            0, 0, table.columnWidth(0) - 24, 1000, Qt.TextWordWrap, table.item(k, 0).text()
        )
        assert needed.width() <= table.columnWidth(0) - 22, table.item(k, 0).text()
        assert needed.height() <= table.rowHeight(k), table.item(k, 0).text()
        for column in range(1, 4):
            width = table.fontMetrics().horizontalAdvance(table.item(k, column).text())
            assert width < table.columnWidth(column)


def test_three_planes_fit_a_small_screen(make_napari_viewer_proxy: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    dock = segmented(viewer, "two")
    viewer.window.add_dock_widget(dock, name="SCD segmentation", area="right")
    window = dock.window()
    window.resize(1366, 700)
    qtbot.waitUntil(lambda: (window.width(), window.height()) == (1366, 700), timeout=5000)
    qtbot.wait(300)
    before, high, zoom = dock.height(), window.centralWidget().height(), viewer.scene.camera.zoom
    dock.showing.views.toggle(True)
    qtbot.wait(500)
    assert (window.width(), window.height()) == (1366, 700)
    assert dock.height() == before  # the planes lie below the canvas alone
    low = window.centralWidget().height()
    assert 200 < low < high  # and leave it some room
    assert viewer.scene.camera.zoom == pytest.approx(zoom * low / high)  # so as much is seen from top to bottom
    dock.showing.views.toggle(False)
    qtbot.waitUntil(lambda: viewer.scene.camera.zoom == pytest.approx(zoom))
    timers = len(window.findChildren(QTimer, options=Qt.FindDirectChildrenOnly))
    for on in (True, False):
        dock.showing.views.toggle(on)
        qtbot.wait(300)
    assert viewer.scene.camera.zoom == pytest.approx(zoom)
    assert len(window.findChildren(QTimer, options=Qt.FindDirectChildrenOnly)) == timers  # nothing piles up
    dock.shut_down()
    assert dock.session.wait(PATIENCE)


def test_a_short_list_of_what_to_look_at_takes_no_more_room_than_it_needs(qtbot: Any) -> None:
    form = ReviewForm()
    qtbot.addWidget(form)
    form.set_rows([ReviewRow("a bit", "…", False)] * 2, "0 of 2 looked at.")
    two = form._list.height()
    form.set_rows([ReviewRow("a bit", "…", False)] * 50, "0 of 50 looked at.")
    assert two < 60 < form._list.height() <= 130
