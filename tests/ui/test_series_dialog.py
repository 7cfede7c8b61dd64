"""The chooser of series, without a viewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialogButtonBox, QLabel

from napari_sparsetok.files import SeriesInfo
from napari_sparsetok.ui.series_dialog import COLUMNS, SeriesDialog, picture


def info(key: str, **changes: Any) -> SeriesInfo:
    fields: dict[str, Any] = {
        "key": key,
        "description": f"MR {key}",
        "modality": "MR",
        "shape": (30, 40, 20),
        "spacing": (3.0, 1.0, 1.0),
        "slices": 30,
        "thumbnail": np.arange(200, dtype=np.uint8).reshape(20, 10),
    }
    return SeriesInfo(**(fields | changes))


SERIES = [
    info("T1"),
    info("T2", problems=("slices are missing",), repairs={"resample": "fill the gap"}),
    info("localiser", problems=("its slices are not parallel",), spacing=(0.0, 1.0, 1.0)),
]


@pytest.fixture
def dialog(qtbot: Any) -> SeriesDialog:
    dialog = SeriesDialog(SERIES)
    qtbot.addWidget(dialog)
    return dialog


def opener(dialog: SeriesDialog) -> Any:
    return dialog.findChild(QDialogButtonBox).button(QDialogButtonBox.Open)


def test_the_likeliest_is_first_and_chosen(dialog: SeriesDialog, qtbot: Any) -> None:
    assert dialog.chosen is SERIES[0]
    with qtbot.waitSignal(dialog.series_chosen) as heard:
        opener(dialog).click()
    assert heard.args == [SERIES[0]]


def test_every_series_is_described(dialog: SeriesDialog) -> None:
    cells = [[dialog.table.item(row, column).text() for column in range(len(COLUMNS))] for row in range(3)]
    assert cells[0] == ["MR T1", "MR", "20 × 40", "1 × 1 × 3", "30", "ready"]
    assert cells[1][-1] == "needs a repair"
    assert cells[2][-1] == "cannot be opened"
    assert cells[2][3] == "1 × 1 × ?"
    assert not dialog.table.item(0, 0).icon().isNull()
    assert "slices are missing" in dialog.table.item(1, 0).toolTip()


def test_a_double_click_opens(dialog: SeriesDialog, qtbot: Any) -> None:
    dialog.show()
    qtbot.waitExposed(dialog)
    place = dialog.table.visualItemRect(dialog.table.item(1, 1)).center()
    qtbot.mouseClick(dialog.table.viewport(), Qt.LeftButton, pos=place)
    with qtbot.waitSignal(dialog.series_chosen) as heard:
        qtbot.mouseDClick(dialog.table.viewport(), Qt.LeftButton, pos=place)
    assert heard.args == [SERIES[1]]


def test_keys_choose_and_open(dialog: SeriesDialog, qtbot: Any) -> None:
    dialog.show()
    qtbot.waitExposed(dialog)
    dialog.table.setFocus()
    qtbot.keyClick(dialog.table, Qt.Key_Down)
    assert dialog.chosen is SERIES[1]
    with qtbot.waitSignal(dialog.series_chosen) as heard:
        qtbot.keyClick(dialog.table, Qt.Key_Return)
    assert heard.args == [SERIES[1]]


def test_what_cannot_be_opened_is_said_and_not_offered(dialog: SeriesDialog, qtbot: Any) -> None:
    dialog.choose(2)
    assert not opener(dialog).isEnabled()
    assert any("its slices are not parallel" in label.text() for label in dialog.findChildren(QLabel))
    with qtbot.assertNotEmitted(dialog.series_chosen):
        dialog.table.cellDoubleClicked.emit(2, 0)


def test_the_picture_has_the_shape_of_the_patient() -> None:
    small = picture(info("flat", shape=(5, 100, 100), spacing=(1.0, 0.5, 1.0)))
    assert (small.width(), small.height()) == (64, 32)


def test_time_series_say_so(qtbot: Any) -> None:
    dialog = SeriesDialog([info("dwi", volumes=7)])
    qtbot.addWidget(dialog)
    assert dialog.table.item(0, 4).text() == "30 in 7 volumes"
