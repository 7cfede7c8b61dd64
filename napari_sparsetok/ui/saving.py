"""Saving the mask: where to, what is not saved yet, the mark in the title, and the question before closing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from napari.components import ViewerModel
from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_sparsetok.files import is_file_of
from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.ui.corrections import Sheet
from napari_sparsetok.ui.lifetime import outermost
from napari_sparsetok.ui.mask_formats import file_name, mask_filters, with_ending_of
from napari_sparsetok.ui.scan_layer import SCAN, Frame

MARK = "● unsaved corrections – "
"""Before the window's title while a scan's corrections are in no saved mask."""


_STAY = "If you close without saving, they stay on this computer, and opening the scan again offers them back."
_NOT_SHOWN = "What is shown now is none of them: to save one, cancel, and choose its scan and its model in the panel."
_MAY_BE_LOST = (
    "The disk refused to keep them safe. If you close without saving, they may be lost. Save the mask on another disk, "
    "or make room first."
)


@dataclass(frozen=True)
class _Saved:
    """Where one scan's mask by one model was saved, and what the file looked like then."""

    path: Path
    stamp: tuple[int, ...]


class Saving(QObject):
    """Saves the current mask and knows which scans have corrections that are in no saved mask.

    Attributes
    ----------
    frame : which frame of a series the current scan is, None if it is none; for the name that is suggested.

    Parameters
    ----------
    widget : the dialogs' parent; the window that it lies in asks before it closes.
    viewer, session : what is saved.
    sheet : the corrections of the current scan and model, None if there are none.
    remarks : what the record says of how the corrections came about.
    """

    saved = Signal()

    def __init__(
        self,
        widget: QWidget,
        viewer: ViewerModel,
        session: Session,
        sheet: Callable[[], Sheet | None],
        remarks: Callable[[], Mapping[str, Any]],
    ) -> None:
        super().__init__(widget)
        self._widget, self._viewer, self._session = widget, viewer, session
        self._sheet, self._remarks = sheet, remarks
        self._changes: WeakKeyDictionary[Sheet, int] = WeakKeyDictionary()  # since the last mask was saved
        self._saved: WeakKeyDictionary[Scan, dict[str, _Saved]] = WeakKeyDictionary()  # each model's mask
        self.frame: Callable[[], Frame | None] = lambda: None
        self.guard = ClosingGuard(widget, self)
        self.question: QMessageBox | None = None
        session.state.events.scan.connect(self._write_title)

    @property
    def path(self) -> Path | None:
        """Where the current model's mask of the current scan was last saved."""
        saved = self._last
        return None if saved is None else saved.path

    @property
    def _last(self) -> _Saved | None:
        state = self._session.state
        return None if state.scan is None else self._saved.get(state.scan, {}).get(state.settings.model)

    @property
    def unsaved(self) -> list[Scan]:
        """The scans that are shown and have corrections in no saved mask."""
        scans = [sheet.scan for sheet in self._changes] if len(self._viewer.layers) else []
        return list(dict.fromkeys(scan for scan in scans if scan is not None))

    @property
    def is_current_unsaved(self) -> bool:
        """Whether what `save` would write holds corrections that are in no saved mask."""
        sheet = self._sheet()
        return sheet is not None and sheet in self._changes

    def mark(self, sheet: Sheet) -> None:
        """It has changed."""
        self._changes[sheet] = self._changes.get(sheet, 0) + 1
        self._write_title()

    def save(self, then: Callable[[], None] = lambda: None) -> None:
        """Save where it was saved before; ask where to if it was not."""
        last = self._last
        if last is None:
            self.save_as(then)
        elif last.stamp != _stamp(last.path) and os.path.exists(last.path):
            self._ask(
                last.path,
                "It is not this scan's mask by this model: something else was saved there since, here or by another "
                "window or program.",
                then,
            )
        else:
            self._write(last.path, then)

    def save_as(self, then: Callable[[], None] = lambda: None) -> None:
        """Ask where to, and save there."""
        prediction = self._session.state.prediction
        if prediction is None:
            self._session.say("There is no mask yet: segment the scan first.")
            return
        suggestion = str(self.path or self._suggestion(prediction.scan))
        filters = mask_filters(prediction.scan)
        path, chosen = QFileDialog.getSaveFileName(self._widget, "Save the mask", suggestion, filters)
        if path:
            self._write_agreed(Path(path), Path(with_ending_of(path, chosen)), then)

    def shut_down(self) -> None:
        """Let go of the viewer and its title."""
        self.guard.let_go()
        self._session.state.events.scan.disconnect(self._write_title)
        self._changes.clear()
        self._write_title()

    def _suggestion(self, scan: Scan) -> Path:
        """Frames of one series have one name, and masks of several models one scan; their files must not."""
        folder = scan.source.path.parent if scan.source else Path.home()
        frame = self.frame()
        name = file_name(scan.name) + ("" if frame is None else f"_frame{frame.index}")
        plain = f"{name}_mask.nii.gz"
        if plain in [saved.path.name for saved in self._saved.get(scan, {}).values()]:  # in whichever folder
            return folder / f"{name}_{self._session.state.settings.model}_mask.nii.gz"
        return folder / plain

    def _write_agreed(self, typed: Path, path: Path, then: Callable[[], None]) -> None:
        """The dialog asked before the typed name was written over; of the one with another ending it knew nothing."""
        if path == typed or not os.path.exists(path):  # Path's own stumbles over names too long
            self._write(path, then)
        else:
            self._ask(path, "The name got the ending of the format that you chose.", then)

    def _ask(self, path: Path, why: str, then: Callable[[], None]) -> None:
        """Whether to write over a file that is there."""
        box = self.question = QMessageBox(self._widget)
        box.setIcon(QMessageBox.Warning)
        box.setWindowTitle("This file is there already")
        box.setText(f"{path.name} is there already. Replace it?")
        box.setInformativeText(why)
        agree = box.addButton("&Replace", QMessageBox.DestructiveRole)
        agree.setToolTip("Write the mask over that file")
        agree.clicked.connect(lambda: self._write(path, then))
        cancel = box.addButton("&Cancel", QMessageBox.RejectRole)
        cancel.setToolTip("Save nothing; the file stays as it is")
        box.setDefaultButton(cancel)
        box.setAttribute(Qt.WA_DeleteOnClose)
        box.open()

    def _write(self, path: Path, then: Callable[[], None]) -> None:
        scan, model, sheet = self._session.state.scan, self._session.state.settings.model, self._sheet()
        if scan is None:
            return
        if any(is_file_of(path, other) for other in self._open_scans()):
            self._session.say(f"{path.name} is a scan that is open; choose another name so that it is not overwritten.")
            return
        changes = 0 if sheet is None else self._changes.get(sheet, 0)

        def done() -> None:
            self._saved.setdefault(scan, {})[model] = _Saved(path, _stamp(path))
            if sheet is not None and self._changes.get(sheet, 0) == changes:  # nothing was drawn while it was written
                self._changes.pop(sheet, None)
            self._write_title()
            self.saved.emit()
            then()

        said = None if sheet is None else sheet.array
        self._session.save_mask(path, said, remarks=self._remarks(), then=done)

    def _open_scans(self) -> list[Scan]:
        """All that are in the viewer, whichever is the current one."""
        found = [layer.metadata.get(SCAN) for layer in self._viewer.layers]
        return [scan for scan in found if isinstance(scan, Scan)]

    def _write_title(self, event: Any = None) -> None:
        title = self._viewer.title.removeprefix(MARK)
        is_unsaved = self._session.state.scan in [sheet.scan for sheet in self._changes]
        self._viewer.title = MARK + title if is_unsaved else title


def _stamp(path: Path) -> tuple[int, ...]:
    """Another, if a file was written since; nothing if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


class ClosingGuard(QObject):
    """Asks before the window of a widget closes over corrections that are in no saved mask. Nothing waits for it."""

    def __init__(self, widget: QWidget, saving: Saving) -> None:
        super().__init__(widget)
        self._widget, self._saving = widget, saving
        self._window: QWidget | None = None
        self._agreed = self._settling = False
        self.is_refused: Callable[[], bool] = lambda: False  # whether the disk keeps the corrections from being safe
        self.settle: Callable[[Callable[[], None]], None] = lambda then: then()  # keep them safe first, then go on
        self.question: QMessageBox | None = None
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Find the window; hold its closing."""
        if watched is self._widget and event.type() == QEvent.Show:
            self._follow(outermost(self._widget))
        if watched is self._window and event.type() == QEvent.Close and not self._agreed and self._saving.unsaved:
            event.ignore()
            self._ask()
            return True
        return False

    def let_go(self) -> None:
        """Ask nothing any more."""
        window, self._window = self._window, None
        for watched in (window, self._widget):
            with suppress(RuntimeError):  # Qt may have deleted it already
                if watched is not None:
                    watched.removeEventFilter(self)

    def _follow(self, window: QWidget) -> None:
        if window is self._window:
            return
        if self._window is not None:
            self._window.removeEventFilter(self)
        self._window = window
        window.installEventFilter(self)

    def _ask(self) -> None:
        if self.question is not None:
            self.question.raise_()
            return
        names = [f"“{scan.name}”" for scan in self._saving.unsaved]
        box = self.question = QMessageBox(self._widget)
        box.setIcon(QMessageBox.Warning)
        box.setWindowTitle("Corrections are not saved")
        box.setText(f"Your corrections of {' and '.join(names)} are in no saved mask.")
        refused = self.is_refused()
        shown = self._saving.is_current_unsaved
        box.setInformativeText(" ".join([_MAY_BE_LOST if refused else _STAY, *([] if shown else [_NOT_SHOWN])]))
        if shown:
            self._offer_to_save(box)
        leave = box.addButton("Close &without saving", QMessageBox.DestructiveRole)
        leave.setToolTip("Close; they may be lost" if refused else "Close; the corrections stay kept on this computer")
        cancel = box.addButton("&Cancel", QMessageBox.RejectRole)
        box.setEscapeButton(cancel)
        if not shown:
            box.setDefaultButton(cancel)
        leave.clicked.connect(self._close_anyway if refused else self._settle_and_close)
        box.setAttribute(Qt.WA_DeleteOnClose)
        box.finished.connect(self._on_answered)
        box.open()

    def _offer_to_save(self, box: QMessageBox) -> None:
        save = box.addButton("&Save…" if self._saving.path is None else "&Save", QMessageBox.AcceptRole)
        save.setToolTip("Save the mask of the scan that is shown, then close")
        save.clicked.connect(lambda: self._saving.save(self._close_again))
        box.setDefaultButton(save)

    def _on_answered(self, result: int) -> None:
        self.question = None

    def _settle_and_close(self) -> None:
        """It was said that they stay; if the disk refuses only now, ask again. Nobody waits twice for a slow disk."""
        if self._settling:
            self._close_anyway()
            return
        self._settling = True
        self.settle(self._on_settled)

    def _on_settled(self) -> None:
        self._settling = False
        if self._agreed:
            return
        if self.is_refused():
            self._ask()
        else:
            self._close_anyway()

    def _close_anyway(self) -> None:
        self._agreed = True
        self._close_again()

    def _close_again(self) -> None:
        """It asks again if another scan is not saved either."""
        if self._window is not None:
            self._window.close()
