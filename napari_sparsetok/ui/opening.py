"""Opening a scan or a mask in the window: what there is, which of it, and what the person agrees to on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QDialog, QFileDialog, QMessageBox, QWidget

from napari_sparsetok.files import RepairableScanError, SeriesInfo, find_series, open_labels, open_scan
from napari_sparsetok.files.reading import Watch
from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.ui.given_mask import GivenMask, is_segmentation, looks_like_labels, mask_of, segmentation_of
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.scan_layer import LayerData, layer_data
from napari_sparsetok.ui.series_dialog import SeriesDialog

_SUFFIXES = "nii nii.gz hdr img dcm dicom ima zip nrrd nhdr mha mhd mgz mgh tif tiff"
SCANS = (
    f"Scans ({' '.join(f'*.{s}' for s in _SUFFIXES.split())} DICOMDIR);;All files, such as DICOM without a suffix (*)"
)
_SLICES = ("", ".dcm", ".dicom", ".ima")
MASKS = "Masks (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.mgz *.dcm);;All files (*)"


@dataclass(frozen=True, eq=False)
class Found:
    """What came of looking at a path: layers; or several series to choose from; or what would have to be repaired.

    series : to choose from, if there are several and none was chosen.
    repairs : names and sentences of what could be done about `problem`.
    chosen : the series that they are for.
    later : it seems to be a mask, and its scan may be among what was dropped with it.
    """

    layers: tuple[LayerData, ...] = ()
    series: tuple[SeriesInfo, ...] = ()
    problem: str = ""
    repairs: tuple[tuple[str, str], ...] = ()
    chosen: SeriesInfo | None = None
    mask: GivenMask | None = None
    later: bool = False


@dataclass(frozen=True, eq=False)
class Wish:
    """What is to be opened.

    chosen : one of several series.
    repair : what the person agreed to.
    scan : the scan that is open, of which the file may be a mask.
    among_others : it was dropped together with others, one of which may be its scan.
    """

    path: Path
    chosen: SeriesInfo | None = None
    repair: Collection[str] = ()
    scan: Scan | None = None
    among_others: bool = False


def look(wish: Wish, watch: Watch) -> Found:
    """Open what is at a path, as far as nothing must be asked. Reads, so not for the GUI thread.

    Raises
    ------
    ScanError : nothing there can be opened.
    OpeningStopped : `watch` asked for it.
    """
    progress, stop = watch.on_progress, watch.should_stop
    path, chosen, scans = wish.path, wish.chosen, [wish.scan] if wish.scan else []
    if (scans or wish.among_others) and is_segmentation(path):
        return Found(later=True) if wish.among_others else Found(mask=segmentation_of(path, scans))
    if chosen is None:
        series = find_series(path, progress, stop)
        if len(series) > 1:
            return Found(series=tuple(series))
        chosen = series[0] if series else None
    try:
        scan = open_scan(path, series=chosen, repair=wish.repair, on_progress=progress, should_stop=stop)
    except RepairableScanError as error:
        problem = "; ".join(chosen.problems) if chosen is not None and chosen.problems else error.problem
        return Found(problem=problem, repairs=tuple(error.repairs.items()), chosen=chosen)
    if wish.among_others and looks_like_labels(scan):
        return Found(later=True)
    mask = mask_of(path, scan, scans)
    return Found(mask=mask) if mask else Found(layers=tuple(layer_data(scan)))


def _may_be_slice(path: Path) -> bool:
    """By its name alone."""
    return path.suffix.lower() in _SLICES and not path.is_dir()


class Opening(QObject):
    """Asks for a path, reads it in the background, asks what must be asked, and hands layers over.

    Parameters
    ----------
    widget : the dialogs belong to it.
    session : reads.
    show : takes the layers of a scan that was opened.
    show_mask : takes a mask that was opened, the file's name, and whether the person wants to correct it.
    """

    def __init__(
        self,
        widget: QWidget,
        session: Session,
        show: Callable[[list[LayerData]], None],
        show_mask: Callable[[GivenMask, str, bool], None],
    ) -> None:
        super().__init__(widget)
        self._widget, self._session, self._show, self._show_mask = widget, session, show, show_mask
        self._folder = ""
        self._taken: list[Path] = []
        self._coming = 0  # of those that were dropped together, how many are not looked at yet
        self._later: list[Path] = []  # those of them that seem to be masks
        self._soon = later(self, self._open_taken)  # once all that was dropped together is known
        self.dialog: QDialog | None = None

    def ask_file(self) -> None:
        """Let the person choose a file, then open it."""
        path, _ = QFileDialog.getOpenFileName(self._widget, "Open a scan", self._folder, SCANS)
        self._open_chosen(path)

    def ask_folder(self) -> None:
        """Let the person choose a folder, then open what is in it."""
        path = QFileDialog.getExistingDirectory(self._widget, "Open a DICOM folder or an OME-Zarr image", self._folder)
        self._open_chosen(path)

    def ask_mask(self) -> None:
        """Let the person choose a mask of the scan that is open, then show it."""
        scan = self._session.state.scan
        if scan is None:
            self._session.say("Open the scan first; its mask is then laid over it.")
            return
        path, _ = QFileDialog.getOpenFileName(self._widget, f"Open a mask of {scan.name}", self._folder, MASKS)
        if path:
            self._folder = str(Path(path).parent)
            self.open_mask(Path(path), scan)

    def open(self, path: Path, chosen: SeriesInfo | None = None, repair: Collection[str] = ()) -> None:
        """Open what is at a path; asks only if there is something to ask."""
        self._open(Wish(path, chosen, repair, self._session.state.scan))

    def _open(self, wish: Wish, done: Callable[[], None] = lambda: None) -> None:
        what = f"opening {wish.path.name if wish.chosen is None else wish.chosen.description}"

        def then(found: Found) -> None:
            try:
                self._on_found(wish.path, found)
            finally:
                done()

        self._session.follow(lambda watch: look(wish, watch), then, what, otherwise=done)

    def take(self, paths: Sequence[Path]) -> None:
        """Open these, which were dropped or chosen together, soon; of slices that lie in one folder, their series."""
        self._taken += paths
        self._soon.start(0)

    def _open_taken(self) -> None:
        paths, self._taken = self._taken, []
        named = dict((path.parent if _may_be_slice(path) else path, path) for path in reversed(paths))
        places = list(named.values())
        if len(places) == 1:
            self.open(places[0])
            return
        self._coming += len(places)
        for path in places:
            self._open(Wish(path, among_others=True), self._on_one_of_several)

    def _on_one_of_several(self) -> None:
        """Once all scans are there, it is known which of them a mask belongs to."""
        self._coming -= 1
        if self._coming == 0:
            later, self._later = self._later, []
            for path in later:
                self.open(path)

    def open_mask(self, path: Path, scan: Scan) -> None:
        """Open a mask of a scan."""

        def read(watch: Watch) -> GivenMask:
            return scan, *open_labels(path, scan, should_stop=watch.should_stop)

        self._session.follow(read, lambda given: self._ask_correct(given, path.name), f"opening {path.name}")

    def _open_chosen(self, path: str) -> None:
        if path:
            self._folder = str(Path(path).parent)
            self.open(Path(path))

    def _on_found(self, path: Path, found: Found) -> None:
        if found.series:
            self._ask_series(path, found.series)
        elif found.repairs:
            self._ask_repair(path, found)
        elif found.later:
            self._later.append(path)
        elif found.mask is not None:
            self._ask_correct(found.mask, path.name)
        else:
            self._show(list(found.layers))

    # What must be asked; none of these waits for the answer

    def _ask_series(self, path: Path, series: tuple[SeriesInfo, ...]) -> None:
        dialog = SeriesDialog(series, self._widget)
        dialog.series_chosen.connect(lambda info: self.open(path, info))
        self._ask(dialog)

    def _ask_repair(self, path: Path, found: Found) -> None:
        can = " and ".join(words for _, words in found.repairs)
        box = QMessageBox(self._widget)
        box.setIcon(QMessageBox.Warning)
        box.setWindowTitle("This scan does not open as it is")
        box.setText(f"{found.problem[:1].upper()}{found.problem[1:]}.")
        box.setInformativeText(
            f"SparseTok can {can}. The file stays as it is; the scan on the screen then differs from it, and says so."
        )
        agree = box.addButton("&Repair and open", QMessageBox.AcceptRole)
        agree.setToolTip("Open a repaired copy of the scan")
        cancel = box.addButton("&Cancel", QMessageBox.RejectRole)
        cancel.setToolTip("Open nothing")
        box.setDefaultButton(cancel)
        names = [name for name, _ in found.repairs]
        agree.clicked.connect(lambda: self.open(path, found.chosen, names))
        self._ask(box)

    def _ask_correct(self, given: GivenMask, name: str) -> None:
        if given[0] is not self._session.state.scan:
            of = given[0].name
            self._session.say(
                f"Another scan was chosen while the mask {name} was read; choose “{of}” and open it again."
            )
            return
        box = QMessageBox(self._widget)
        box.setIcon(QMessageBox.Question)
        box.setWindowTitle(f"The mask {name}")
        box.setText(f"This is a mask of “{given[0].name}”. What is it for?")
        look_only = box.addButton("&Look at it", QMessageBox.AcceptRole)
        look_only.setToolTip("Lay it over the scan as a layer of its own")
        correct = box.addButton("&Correct it", QMessageBox.AcceptRole)
        correct.setToolTip("Take it as the beginning of your corrections; the file stays as it is")
        box.addButton("Cancel", QMessageBox.RejectRole).setToolTip("Do nothing with it")
        box.setDefaultButton(look_only)
        look_only.clicked.connect(lambda: self._show_mask(given, name, False))
        correct.clicked.connect(lambda: self._show_mask(given, name, True))
        self._ask(box)

    def _ask(self, dialog: QDialog) -> None:
        self.dialog = dialog
        dialog.finished.connect(lambda: self._on_answered(dialog))
        dialog.open()

    def _on_answered(self, dialog: QDialog) -> None:
        if self.dialog is dialog:  # and not that of another file that was dropped with it
            self.dialog = None
        dialog.deleteLater()
