"""Several scans of one patient with voxels of their own: ask, never resample silently."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox, QWidget


def ask_to_resample(parent: QWidget, problem: str, agreed: Callable[[], None]) -> None:
    """Ask whether the others may be brought to the voxels of the first; does not wait.

    `problem` says in words how they differ.
    """
    box = QMessageBox(parent)
    box.setWindowTitle("These scans have different voxels")
    box.setText("The model needs all its scans on the same voxels. Bring the others to those of the first?")
    box.setInformativeText(f"{problem}. The layers and the files stay as they are.")
    agree = box.addButton("&Resample", QMessageBox.AcceptRole)
    agree.setToolTip("Segment copies that lie on the voxels of the first scan")
    agree.clicked.connect(agreed)
    box.setDefaultButton(box.addButton("&Cancel", QMessageBox.RejectRole))
    box.setAttribute(Qt.WA_DeleteOnClose)
    box.open()
