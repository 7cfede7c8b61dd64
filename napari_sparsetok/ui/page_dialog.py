"""A dialog with a page to read."""

from __future__ import annotations

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QTextBrowser, QVBoxLayout, QWidget

from napari_sparsetok.ui.icon import without_pictures


class PageDialog(QDialog):
    """Shows a page of HTML, and can be closed."""

    def __init__(self, title: str, html: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.resize(480, 520)
        text = QTextBrowser()
        text.setHtml(html)
        buttons = QDialogButtonBox(QDialogButtonBox.Close)
        without_pictures(buttons)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(text)
        layout.addWidget(buttons)
