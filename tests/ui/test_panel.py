"""The panel and its parts, without viewer, engine or session."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import PATCH, make_card, make_scan
from napari.layers import Image
from qtpy.QtCore import QEvent, QObject, QPoint, QPointF, Qt
from qtpy.QtGui import QColor, QMouseEvent
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QCheckBox,
    QComboBox,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from superqt import QDoubleSlider

from napari_sparsetok.scan import Region
from napari_sparsetok.state import Busy, DeviceReport, Timing
from napari_sparsetok.ui.box_editor import BoxEditor
from napari_sparsetok.ui.card_dialog import CardDialog, card_html
from napari_sparsetok.ui.funnel import Funnel
from napari_sparsetok.ui.keep_ratio import KeepRatioBox
from napari_sparsetok.ui.panel import Panel
from napari_sparsetok.ui.status import PATIENCE_MS, PROGRESS_MS, Status
from napari_sparsetok.ui.style import KEPT, duration, share, stage_color
from napari_sparsetok.ui.words import Words

WIDEST = 340
SAMPLES = {"phantom": "Synthetic phantom of a temporal lobe", "head": "MNI152 T1 template, left hippocampus"}


@pytest.fixture
def panel(qtbot: Any) -> Panel:
    panel = Panel(SAMPLES)
    qtbot.addWidget(panel)
    return panel


@pytest.fixture
def full(panel: Panel) -> Panel:
    """With everything on show that can be."""
    card = make_card(title="Hippocampus, anterior and posterior, on T1-weighted MR of the head")
    scan = make_scan(name="a scan with a very long name that nobody should have to read to its end")
    layer = Image(scan.voxels, name=scan.name)
    panel.set_models({"fake": card}, "fake")
    panel.set_card(card)
    panel.set_layers([layer], [layer])
    panel.set_scan(scan)
    panel.set_where("box", "Click on the structure in the scan: 40 × 56 × 40 mm around the click are segmented.")
    panel.set_region(Region((0, 0, 0), (8, 8, 8)), scan)
    panel.set_can_run(True)
    panel.ratio.set_left((189540, 189540, 189540, 189540))
    panel.ratio.set_timing(
        Timing(first=65.4, total=3599.0, cached=1.0, windows=1053, device="CPU", entered=9, passed=2, memory=2**33)
    )
    panel.set_volumes([("Posterior hippocampus", "#E69F00", 12345.678), ("Anterior hippocampus", "#56B4E9", 1.2)])
    panel.set_busy(Busy("segmenting “a scan with a very long name”", 700, 1053))
    panel.status.set_device(
        DeviceReport("CPU", "An NVIDIA GPU is there but not used: this PyTorch has no GPU support.")
    )
    return panel


def button(panel: Panel, words: str) -> QAbstractButton:
    found = [b for b in panel.findChildren(QAbstractButton) if words in b.text().replace("&", "")]
    assert len(found) == 1, words
    return found[0]


def texts(panel: QWidget) -> str:
    labels = [*panel.findChildren(QLabel), *panel.findChildren(Words)]
    return "\n".join(label.text() for label in labels if label.isVisibleTo(panel))


# Shape


def test_it_is_narrow_and_never_scrolls_sideways(full: Panel, qtbot: Any) -> None:
    assert full.minimumWidth() <= WIDEST
    assert full.minimumSizeHint().width() <= WIDEST
    scroll = full.findChild(QScrollArea)
    room = WIDEST - full.layout().contentsMargins().left() - full.layout().contentsMargins().right()
    assert scroll.widget().minimumSizeHint().width() <= room
    full.resize(WIDEST, 700)
    full.show()
    qtbot.waitExposed(full)
    assert scroll.widget().width() <= scroll.viewport().width()


def test_no_word_is_cut_off(full: Panel, qtbot: Any) -> None:
    full.resize(WIDEST, 900)
    full.show()
    qtbot.waitExposed(full)
    for widget in full.findChildren((QLabel, QPushButton, QCheckBox)):
        if not widget.isVisible() or not widget.text():
            continue
        wraps = isinstance(widget, QLabel) and widget.wordWrap()
        needed = widget.heightForWidth(widget.width()) if wraps else widget.sizeHint().height()
        assert widget.height() >= needed, widget.text()
        assert wraps or widget.width() >= widget.sizeHint().width(), widget.text()
        right = widget.mapTo(full, QPoint(widget.width(), 0)).x()
        assert right <= full.width(), widget.text()


def controls(panel: Panel) -> list[QWidget]:
    kinds = (QAbstractButton, QComboBox)
    own = [w for w in panel.findChildren(kinds) if not w.parent().inherits("QAbstractScrollArea")]
    sliders = [panel.ratio.slider, *panel.findChild(BoxEditor).findChildren(QWidget)]
    return [*own, panel.ratio.slider, *(s for s in sliders if "RangeSlider" in type(s).__name__)]


def test_every_control_says_what_it_does_and_is_reached_by_key(full: Panel) -> None:
    found = controls(full)
    assert len(found) >= 10
    for widget in found:
        assert widget.toolTip(), (type(widget).__name__, widget.objectName())
        reachable = widget.focusPolicy() & Qt.TabFocus or any(
            child.focusPolicy() & Qt.TabFocus for child in widget.findChildren(QWidget)
        )
        assert reachable, (type(widget).__name__, widget.toolTip())


def test_mnemonics_differ(full: Panel) -> None:
    letters = [b.text()[b.text().index("&") + 1].lower() for b in full.findChildren(QAbstractButton) if "&" in b.text()]
    letters += [x.text()[x.text().index("&") + 1].lower() for x in full.findChildren(QLabel) if "&" in x.text()]
    letters.append("s")  # the run button when idle; it says Cancel now
    assert len(letters) == len(set(letters)), letters
    assert not set(letters) & set("fvlpwh")  # napari's menus


# Requests


def test_an_empty_panel_says_what_to_do(panel: Panel, qtbot: Any) -> None:
    assert "Drop a scan" in texts(panel)
    with qtbot.waitSignal(panel.open_requested):
        button(panel, "Open a scan").click()
    menu = button(panel, "Sample").menu()
    assert [action.text() for action in menu.actions()] == list(SAMPLES.values())
    with qtbot.waitSignal(panel.sample_requested) as sample:
        menu.actions()[1].trigger()
    assert sample.args == ["head"]
    panel.set_layers([Image(make_scan().voxels)], [None])
    assert "Drop a scan" not in texts(panel)


def test_run_and_cancel_are_one_button(panel: Panel, qtbot: Any) -> None:
    run = button(panel, "Segment")
    assert not run.isEnabled()
    panel.set_can_run(True)
    with qtbot.waitSignal(panel.run_requested):
        run.click()
    panel.set_busy(Busy("segmenting", 1, 2))
    assert run.text() == "&Cancel"
    with qtbot.waitSignal(panel.cancel_requested):
        run.click()
    panel.set_busy(None)
    assert run.text() == "&Segment"


def test_the_button_does_what_it_says_while_something_brief_is_computed(panel: Panel, qtbot: Any) -> None:
    panel.set_can_run(True)
    run = button(panel, "Segment")
    panel.set_busy(Busy("segmenting", brief=True))
    assert run.text() == "&Segment"
    with qtbot.waitSignal(panel.run_requested, timeout=500):
        run.click()
    qtbot.waitUntil(lambda: run.text() == "&Cancel")
    with qtbot.waitSignal(panel.cancel_requested, timeout=500):
        run.click()


def test_progress_is_painted_with_all_the_rest_and_not_at_once(qtbot: Any) -> None:
    """A progress bar that is told something paints before it returns, and with it the whole window and the canvas."""
    status = Status()
    qtbot.addWidget(status)
    status.set_busy(Busy("opening", 1, 20))
    with qtbot.waitExposed(status):
        status.show()
    (bar,) = status.findChildren(QProgressBar)
    painted = []

    class Paints(QObject):
        def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
            if event.type() == QEvent.Paint:
                painted.append(True)
            return False

    QApplication.processEvents()
    paints = Paints()
    bar.installEventFilter(paints)
    for busy in (Busy("opening", 3, 20), Busy("looking"), Busy("segmenting", 2, 30)):
        status.set_busy(busy)
        assert not painted, busy.what
    qtbot.waitUntil(lambda: painted != [])
    assert bar.value() == 2
    bar.removeEventFilter(paints)


@pytest.mark.parametrize("busy", [Busy("opening a.nii.gz", can_cancel=False), Busy("stopping", can_cancel=False)])
def test_what_cannot_be_cancelled_offers_no_cancel(panel: Panel, qtbot: Any, busy: Busy) -> None:
    panel.set_can_run(True)
    panel.set_busy(busy)
    run = button(panel, "Segment")
    assert run.isEnabled()
    with qtbot.waitSignal(panel.run_requested):
        run.click()
    assert busy.what in texts(panel)


def test_setters_ask_for_nothing(full: Panel, qtbot: Any) -> None:
    with (
        qtbot.assertNotEmitted(full.model_chosen),
        qtbot.assertNotEmitted(full.scans_chosen),
        qtbot.assertNotEmitted(full.device_chosen),
        qtbot.assertNotEmitted(full.where_chosen),
        qtbot.assertNotEmitted(full.region_edited),
        qtbot.assertNotEmitted(full.keep_ratio_moved),
        qtbot.assertNotEmitted(full.overlay_toggled),
    ):
        full.set_models({"fake": make_card(), "other": make_card("other")}, "other")
        full.set_card(make_card("other", channels=("T1", "T2")))
        layers = [Image(make_scan().voxels, name=name) for name in "ab"]
        full.set_layers(layers, layers[::-1])
        full.set_device_choice("cpu")
        full.set_where("whole", "")
        full.set_region(Region((1, 1, 1), (3, 3, 3)), make_scan())
        full.ratio.set_keep_ratio(0.7)
        full.set_overlay_shown("mask", False)


def test_choices_are_told(full: Panel, qtbot: Any) -> None:
    layers = [Image(make_scan().voxels, name=name) for name in "ab"]
    full.set_layers(layers, layers[:1])
    boxes = [box for box in full.findChildren(QComboBox) if box.count() == 2 and box.itemText(0) == "a"]
    with qtbot.waitSignal(full.scans_chosen) as chosen:
        boxes[0].setCurrentIndex(1)
    assert chosen.args[0] == [layers[1]]
    where = next(
        box for box in full.findChildren(QComboBox) if "a box" in [box.itemText(k) for k in range(box.count())]
    )
    with qtbot.waitSignal(full.where_chosen) as chosen:
        where.setCurrentIndex(2)
    assert chosen.args == ["cursor"]


def test_one_scan_box_for_each_channel(panel: Panel) -> None:
    layers = [Image(make_scan().voxels, name=name) for name in "abc"]
    panel.set_layers(layers, layers[:1])
    panel.set_card(make_card(channels=("T1", "T2")))
    panel.set_layers(layers, [layers[2], layers[0]])
    assert [box.value for box in panel._scans] == [layers[2], layers[0]]
    assert [box.label for box in panel._scans] == ["T1", "T2"]
    panel.set_card(make_card())
    assert [box.label for box in panel._scans] == ["Scan"]


def test_a_channel_without_a_scan_names_none(panel: Panel, qtbot: Any) -> None:
    panel.set_card(make_card("pair", channels=("T1", "T2")))
    layer = Image(make_scan().voxels, name="a")
    panel.set_layers([layer], [layer, None])
    first, second = (box.native for box in panel._scans)
    assert (first.currentText(), second.currentText()) == ("a", "–")
    other = Image(make_scan().voxels, name="b")
    panel.set_layers([layer, other], [layer, None])
    assert (first.currentText(), second.currentText()) == ("a", "–")
    with qtbot.waitSignal(panel.scans_chosen) as asked:
        panel._scans[1].value = other
    assert asked.args[0] == [layer, other]
    panel.set_layers([layer, other], [layer, other])
    assert [second.itemText(k) for k in range(second.count())] == ["a", "b"]


def test_overlays_are_toggled(panel: Panel, qtbot: Any) -> None:
    with qtbot.waitSignal(panel.overlay_toggled) as toggled:
        button(panel, "tokens").click()
    assert toggled.args == ["tokens", False]


# What it shows


def test_no_model_says_where_to_put_one(panel: Panel) -> None:
    panel.set_card(None)
    assert "No model is installed" in texts(panel)
    assert "models" in texts(panel)
    assert not button(panel, "About").isEnabled()


def test_the_scan_is_described_and_its_notes_are_read(panel: Panel) -> None:
    panel.set_scan(make_scan(spacing=(2.5, 1.0, 0.5)))
    assert "12\u00a0×\u00a020\u00a0×\u00a016\u00a0voxels" in texts(panel)
    assert "0.5\u00a0×\u00a01\u00a0×\u00a02.5\u00a0mm" in texts(panel)  # as in “Info” and the list of series
    panel.set_scan(None, "it is flat")
    assert "it is flat" in texts(panel)


def test_volumes_are_shown_with_names_as_text(panel: Panel) -> None:
    save = button(panel, "Save mask")
    assert not save.isEnabled()
    panel.set_volumes([("<b>liver & co", "#E69F00", 1500.0)])
    assert "&lt;b&gt;liver\u00a0&amp;\u00a0co" in texts(panel)
    assert "1500.00\u00a0mL" in texts(panel)
    assert save.isEnabled()
    panel.set_volumes([])
    assert not save.isEnabled()


def test_an_idle_gpu_is_loud(panel: Panel) -> None:
    panel.status.set_device(DeviceReport("CPU", "A GPU lies idle."))
    assert "A GPU lies idle." in texts(panel)
    panel.status.set_device(DeviceReport("GPU: fast"))
    assert "GPU: fast" in texts(panel)
    panel.status.set_device(None)
    assert "GPU" not in texts(panel)


def test_progress_is_counted_when_there_is_something_to_count(panel: Panel) -> None:
    panel.set_busy(Busy("segmenting", 7, 27))
    assert "segmenting: 7 of\u00a027\u00a0windows" in texts(panel)
    panel.set_busy(Busy("loading the model"))
    assert "loading the model\u00a0…" in texts(panel)
    panel.set_busy(None)
    assert "ready" in texts(panel)


def test_what_is_brief_is_told_only_if_it_lasts(panel: Panel, qtbot: Any) -> None:
    panel.set_busy(Busy("segmenting", 0, 2, brief=True))
    assert "ready" in texts(panel)
    panel.set_busy(None)
    qtbot.wait(PATIENCE_MS + 100)
    assert "ready" in texts(panel)
    panel.set_busy(Busy("segmenting", 0, 2, brief=True))
    panel.set_busy(Busy("segmenting", 1, 2, brief=True))
    qtbot.waitUntil(lambda: "segmenting: 1 of\u00a02\u00a0windows" in texts(panel))
    panel.set_busy(Busy("segmenting", 2, 2, brief=True))
    qtbot.waitUntil(lambda: "2 of" in texts(panel))
    panel.set_busy(None)
    assert "ready" in texts(panel)


# Keep ratio


@pytest.fixture
def ratio(qtbot: Any) -> KeepRatioBox:
    box = KeepRatioBox()
    qtbot.addWidget(box)
    return box


def heard(ratio: KeepRatioBox) -> list[tuple[float, bool]]:
    moves: list[tuple[float, bool]] = []
    ratio.moved.connect(lambda value, live: moves.append((round(value, 2), live)))
    return moves


def test_it_is_live_while_held_and_settles_once_at_release(ratio: KeepRatioBox, qtbot: Any) -> None:
    moves = heard(ratio)
    ratio.slider.setSliderDown(True)
    for value in (0.5, 0.4, 0.3):
        ratio.slider.setValue(value)
    qtbot.wait(350)  # longer than a pause after a key
    assert moves == [(0.5, True), (0.4, True), (0.3, True)]
    ratio.slider.setSliderDown(False)
    assert moves[3:] == [(0.3, False)]
    qtbot.wait(350)
    assert len(moves) == 4


def test_key_steps_settle_once_after_the_last(ratio: KeepRatioBox, qtbot: Any) -> None:
    moves = heard(ratio)
    for value in (0.5, 0.51, 0.52):
        ratio.slider.setValue(value)
    qtbot.waitUntil(lambda: (0.52, False) in moves)
    assert [live for _, live in moves] == [True, True, True, False]


def test_a_mouse_asks_for_the_ratio_that_is_said(ratio: KeepRatioBox, qtbot: Any) -> None:
    moves: list[tuple[float, bool]] = []
    ratio.moved.connect(lambda value, live: moves.append((value, live)))
    ratio.moved.connect(lambda value, live: ratio.set_keep_ratio(value))  # as the window does
    ratio.resize(330, 200)
    ratio.show()
    handle = ratio.slider.findChild(QDoubleSlider)
    at = QPoint(handle.width() // 4, handle.height() // 2)
    qtbot.mousePress(handle, Qt.LeftButton, pos=at)
    for step in range(1, 25):
        where = QPointF(at + QPoint(step, 0))
        move = QMouseEvent(QEvent.MouseMove, where, Qt.NoButton, Qt.LeftButton, Qt.NoModifier)
        QApplication.sendEvent(handle, move)
    qtbot.mouseRelease(handle, Qt.LeftButton, pos=at + QPoint(24, 0))
    assert len({value for value, _ in moves}) > 5
    assert [value for value, _ in moves] == [round(value, 2) for value, _ in moves]
    assert len({value for value, live in moves if live}) == len([value for value, live in moves if live])
    assert moves[-1] == (moves[-2][0], False)


@pytest.mark.parametrize(
    ("key", "ratio_after"),
    [
        (Qt.Key_Right, 0.26),
        (Qt.Key_Up, 0.26),
        (Qt.Key_Left, 0.24),
        (Qt.Key_Down, 0.24),
        (Qt.Key_PageUp, 0.35),
        (Qt.Key_PageDown, 0.15),
        (Qt.Key_Home, 0.01),
        (Qt.Key_End, 1.0),
    ],
)
def test_keys_move_it(ratio: KeepRatioBox, qtbot: Any, key: int, ratio_after: float) -> None:
    ratio.set_keep_ratio(0.25)
    moves = heard(ratio)
    where = ratio.slider.focusProxy() or ratio.slider
    qtbot.keyClick(where, key)
    assert moves == [(ratio_after, True)]
    qtbot.waitUntil(lambda: len(moves) == 2)
    assert moves[1] == (ratio_after, False)
    qtbot.keyClick(where, Qt.Key_A)  # means nothing here
    assert len(moves) == 2


def test_the_ratio_is_set_in_silence(ratio: KeepRatioBox, qtbot: Any) -> None:
    moves = heard(ratio)
    ratio.set_keep_ratio(0.01)
    qtbot.wait(300)
    assert moves == []
    assert ratio.slider.value() == pytest.approx(0.01)


def test_the_echo_counts_tokens(ratio: KeepRatioBox) -> None:
    ratio.set_left((1053, 263, 66))
    assert "1053 →\u00a0263 →\u00a066\u00a0tokens, 6.3\u00a0%\u00a0kept" in texts(ratio)
    assert "empty" not in texts(ratio)
    ratio.set_left((1053, 263, 66), empty=500)
    assert "kept; 500\u00a0empty\u00a0patches left\u00a0out" in texts(ratio)
    ratio.set_token_size((4.0, 4.0, 4.0))
    ratio.set_left((1053, 263, 66))
    assert "66\u00a0tokens of\u00a04\u00a0mm, 6.3\u00a0%\u00a0kept" in texts(ratio)
    ratio.set_token_size((8.0, 4.0, 4.0))
    ratio.set_left((1053, 263, 66))
    assert "66\u00a0tokens of\u00a04\u00a0×\u00a04\u00a0×\u00a08\u00a0mm, 6.3" in texts(ratio)
    ratio.set_left(())
    assert "tokens" not in texts(ratio)


def test_a_token_is_as_large_as_the_chosen_model_says(panel: Panel) -> None:
    panel.set_card(make_card(spacing=(1.5, 1.5, 1.5)))
    panel.ratio.set_left((100, 25))
    assert f"25\u00a0tokens of\u00a0{1.5 * PATCH:g}\u00a0mm" in texts(panel.ratio)
    panel.set_card(None)
    panel.ratio.set_left((100, 25))
    assert "25\u00a0tokens, 25" in texts(panel.ratio)


def test_a_number_stays_with_its_unit(ratio: KeepRatioBox) -> None:
    ratio.set_timing(Timing(first=0.084, total=1.2, cached=0.0, windows=1, device="CPU"))
    assert "mask in 84\u00a0ms, 0\u00a0% cached" in texts(ratio)
    assert "tokens computed" not in texts(ratio)
    more = {"entered": 1400, "passed": 350, "memory": 3 * 2**29}
    ratio.set_timing(Timing(first=0.084, total=1.2, cached=0.0, windows=1, device="CPU", **more))
    assert "350 of\u00a01400\u00a0tokens computed, 1.5\u00a0GiB" in texts(ratio)
    ratio.set_timing(Timing(first=0.084, total=1.2, cached=0.5, windows=6, device="CPU"))
    assert "mask in 84\u00a0ms, all\u00a06\u00a0windows in 1.2\u00a0s, 50\u00a0% cached" in texts(ratio)
    ratio.set_timing(Timing(first=0.084, total=1.2, cached=1.0, windows=1, device="CPU", recalled=True))
    assert "mask at hand; 1\u00a0window took 1.2\u00a0s" in texts(ratio)
    assert "cached" not in texts(ratio)
    ratio.set_timing(None)
    assert "at hand" not in texts(ratio)


def test_progress_is_said_a_few_times_a_second_and_the_end_at_once(panel: Panel, qtbot: Any) -> None:
    status, written = panel.status, []
    status.written.connect(lambda: written.append(status.text))
    for done in range(101):
        status.set_busy(Busy("opening x", done, 100, unit="%"))
    assert written == ["opening x: 0\u00a0%"]
    qtbot.waitUntil(lambda: status.text == "opening x: 100\u00a0%", timeout=4 * PROGRESS_MS)
    status.set_busy(Busy("opening x", 1, 100, unit="%"))
    status.set_busy(Busy("reading y"))
    assert status.text == "reading y\u00a0…"
    status.set_busy(None)
    assert status.text == "ready"
    qtbot.wait(2 * PROGRESS_MS)
    assert status.text == "ready"
    assert len(written) == 4


def test_the_status_says_what_brings_a_mask_until_there_is_one(panel: Panel) -> None:
    panel.set_where("whole", "")
    assert panel.status.text == "ready"
    panel.set_can_run(True)
    assert panel.status.text == "ready: press Segment"
    panel.set_busy(Busy("segmenting", 1, 4))
    panel.set_volumes([("head", "#ff0000", 1.5)])
    assert panel.status.text == "segmenting: 1 of\u00a04\u00a0windows"
    panel.set_busy(None)
    assert panel.status.text == "ready"
    panel.set_volumes([])
    assert panel.status.text == "ready: press Segment"
    panel.set_where("cursor", "Click on it.")
    assert panel.status.text == "ready"
    panel.set_can_run(False)
    panel.set_where("whole", "")
    assert panel.status.text == "ready"


def test_the_status_says_that_the_processor_works_unasked(panel: Panel) -> None:
    panel.status.set_looking_ahead(True)
    assert panel.status.text == "ready, and computing other keep ratios ahead"
    panel.set_busy(Busy("segmenting “head”", 1, 4))
    panel.status.set_looking_ahead(True)
    assert "segmenting" in panel.status.text
    panel.status.set_looking_ahead(False)
    assert "segmenting" in panel.status.text
    panel.set_busy(None)
    assert panel.status.text == "ready"


def test_the_dial_asks_for_a_ratio_within_a_time(ratio: KeepRatioBox, qtbot: Any) -> None:
    ratio._limit.setValue(200)
    with qtbot.waitSignal(ratio.limit_requested) as asked:
        button(ratio, "Set ratio").click()
    assert asked.args == [0.2]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.084, "84 ms"), (0.9999, "1.0 s"), (99.94, "99.9 s"), (125.0, "2 min 5 s"), (179.9, "3 min 0 s")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == words


@pytest.mark.parametrize(
    ("part", "words"), [(25, "25 %"), (1, "1.0 %"), (0.01, "≤ 0.1 %"), (0.06, "0.1 %"), (0, "0 %"), (100, "100 %")]
)
def test_shares(part: float, words: str) -> None:
    assert share(part, 100).replace("\u00a0", " ") == words
    assert share(part, 0).replace("\u00a0", " ") == "0 %"


# Funnel


def test_the_funnel_is_drawn_to_scale_in_the_colours_of_the_layer(qtbot: Any) -> None:
    funnel = Funnel()
    qtbot.addWidget(funnel)
    funnel.set_left((100, 50, 25))
    funnel.resize(320, funnel.sizeHint().height())
    picture = funnel.grab().toImage()
    rows = 3
    lengths = []
    for row, color in enumerate([stage_color(1, 2), stage_color(2, 2), KEPT]):
        y = int((row + 0.5) * picture.height() / rows)
        inside = [x for x in range(picture.width()) if QColor(picture.pixel(x, y)) == QColor(color)]
        lengths.append(len(inside))
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=4)
    assert lengths[1] == pytest.approx(lengths[2], abs=2)
    assert "pruned at stage 1: 50" in funnel.accessibleDescription()


def test_every_bar_has_an_outline(qtbot: Any) -> None:
    funnel = Funnel()
    qtbot.addWidget(funnel)
    funnel.set_left((100, 50, 25))
    funnel.resize(320, funnel.sizeHint().height())
    funnel.setStyleSheet("background: #14163F; color: white")  # the very colour of the first bar
    picture = funnel.grab().toImage()
    y = picture.height() // 6
    assert len({picture.pixel(x, y) for x in range(picture.width() // 2, picture.width() - 100)}) > 1


def test_an_empty_funnel_draws_nothing(qtbot: Any) -> None:
    funnel = Funnel()
    qtbot.addWidget(funnel)
    funnel.grab()
    funnel.set_left((0, 0))
    funnel.grab()


# Box


def test_a_box_goes_in_and_comes_out(qtbot: Any) -> None:
    editor = BoxEditor()
    qtbot.addWidget(editor)
    region = Region((1, 2, 3), (10, 12, 9))
    editor.set_region(region, (16, 20, 12), (2.0, 1.0, 0.5))
    assert editor.region() == region
    assert "18 mm" in texts(editor)
    assert "3 mm" in texts(editor)


def test_moving_an_edge_tells_the_box_which_is_never_empty(qtbot: Any) -> None:
    editor = BoxEditor()
    qtbot.addWidget(editor)
    editor.set_region(Region((0, 0, 0), (16, 20, 12)), (16, 20, 12), (1.0, 1.0, 1.0))
    with qtbot.waitSignal(editor.region_changed) as changed:
        editor._sliders[0].setValue((16, 16))
    assert changed.args[0] == Region((15, 0, 0), (16, 20, 12))


# Card


def test_the_card_is_a_page_of_facts() -> None:
    card = make_card(
        training_data="193 crops <of one> hippocampus",
        licence="BSD-3-Clause",
        dice={"split": "val, 30 cases", "labels": {"0.25": [0.8156, 0.8195]}},
    )
    html = card_html(card)
    for words in (card.title, card.purpose, "MR T1", "head, tail", "193 crops &lt;of one&gt;", "BSD-3-Clause", "0.816"):
        assert words in html
    assert "Limits" not in html  # nothing to say is not said
    assert "Dice" not in card_html(make_card())


def test_a_label_whose_dice_nobody_knows_is_a_dash_in_the_card() -> None:
    html = card_html(make_card(dice={"labels": {"0.25": [None, 0.8195]}}))
    assert "<td>–</td><td>0.820</td>" in html


def test_the_card_can_be_closed_by_key(qtbot: Any) -> None:
    dialog = CardDialog(make_card())
    qtbot.addWidget(dialog)
    dialog.show()
    qtbot.keyClick(dialog, Qt.Key_Escape)
    assert not dialog.isVisible()


def test_a_model_with_fewer_words_leaves_no_gap_that_closes_under_the_slider(qtbot: Any) -> None:
    ratio, window = KeepRatioBox(), QWidget()
    qtbot.addWidget(window)
    layout = QVBoxLayout(window)
    layout.addWidget(ratio)
    layout.addStretch(1)
    window.resize(300, 500)
    window.show()
    ratio.set_token_size((10.0, 15.6, 15.6))
    ratio.set_left((2016, 504, 126))
    qtbot.waitUntil(lambda: ratio._counts.height() > 1.5 * ratio._counts.fontMetrics().height(), timeout=2000)
    ratio.set_token_size((4.0, 4.0, 4.0))
    ratio.set_left((40, 10, 3))
    qtbot.waitUntil(lambda: ratio._counts.height() < 1.5 * ratio._counts.fontMetrics().height(), timeout=2000)


def test_three_dots_stay_with_their_word(qtbot: Any) -> None:
    status = Status()
    qtbot.addWidget(status)
    status.set_busy(Busy("opening the scan", 0, 0))
    assert status.text == "opening the scan\u00a0…"


def test_no_dialog_has_black_pictures_on_its_buttons(qtbot: Any) -> None:
    dialog = CardDialog(make_card())
    qtbot.addWidget(dialog)
    assert [button.icon().isNull() for button in dialog.findChildren(QPushButton)] == [True]
