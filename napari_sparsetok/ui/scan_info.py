"""What is known of a scan, for reading. Of the patient only what somebody asked to see, and only on the screen."""

from __future__ import annotations

import io
import zipfile
from html import escape

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDialog, QDialogButtonBox, QPushButton, QTextBrowser, QVBoxLayout, QWidget

from napari_sparsetok.files.dicom_reference import DicomHeader, SliceReference
from napari_sparsetok.files.reading import explained
from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.scan import Scan
from napari_sparsetok.ui.icon import without_pictures
from napari_sparsetok.ui.window_preset import modality

Rows = list[tuple[str, str]]

_PATIENT = {
    "PatientName": "Name",
    "PatientID": "Patient ID",
    "PatientBirthDate": "Born",
    "PatientSex": "Sex",
    "PatientAge": "Age",
    "AccessionNumber": "Accession number",
    "StudyDate": "Study date",
    "StudyDescription": "Study",
    "ReferringPhysicianName": "Referred by",
    "InstitutionName": "Institution",
}
_FORMATS = {
    "dicom": "DICOM",
    "nifti": "NIfTI",
    "analyze": "Analyze",
    "nrrd": "NRRD",
    "metaimage": "MetaImage",
    "mgh": "FreeSurfer",
    "tiff": "TIFF",
    "ome-zarr": "OME-Zarr",
}
_NOT_HIDDEN = (
    "A scan can give its patient away without a name: in its pixels, or as a face that can be drawn from them. "
    "Nothing here makes it anonymous."
)


def facts(scan: Scan) -> Rows:
    """What is known of a scan, without a word on whose it is."""
    geometry = scan.geometry
    extent = [n * s for n, s in zip(scan.shape, geometry.spacing, strict=True)]
    rows = [
        ("Scan", scan.name),
        ("Kind", modality(scan) or "not known"),
        ("Format", _FORMATS.get(scan.source.format, scan.source.format) if scan.source else "a layer of the viewer"),
        ("Voxels", times_xyz(scan.shape) + (" (R–L × A–P × I–S)" if scan.sides_known else "")),
        ("Voxel size", f"{times_xyz(geometry.spacing, '{:.4g}')} mm"),
        ("Extent", f"{times_xyz(extent, '{:.0f}')} mm"),
        ("Stored as", f"{geometry.source_axes}, {scan.voxels.dtype}{', read piece by piece' if scan.is_lazy else ''}"),
    ]
    if scan.leading:
        rows.append(("Volumes", f"{len(scan.voxels)}, along {scan.leading}"))
    if geometry.is_oblique:
        rows.append(("Turned by", f"{geometry.obliqueness:.1f}° against the patient's axes (oblique)"))
    return [*rows, *(("Note", note) for note in scan.notes)]


def identifying(scan: Scan) -> Rows:
    """What names the patient or the place: read anew from the file, and kept nowhere. Not for the GUI thread.

    Raises
    ------
    ScanError : the file cannot be read any more.
    """
    if scan.source is None:
        return [("File", "this scan comes from no file")]
    rows = [("File", str(scan.source.path))]
    header = scan.source.header
    if isinstance(header, DicomHeader) and header.slices and header.slices[0]:
        rows += _patient(header.slices[0][0])
    return rows


def _patient(reference: SliceReference) -> Rows:
    from pydicom import dcmread

    with explained("the first file of this series"):
        if reference.member:
            with zipfile.ZipFile(reference.path) as archive, archive.open(reference.member) as stream:
                dataset = dcmread(io.BytesIO(stream.read()), stop_before_pixels=True, force=True)
        else:
            dataset = dcmread(reference.path, stop_before_pixels=True, force=True)
        return [(words, str(dataset.get(key))) for key, words in _PATIENT.items() if dataset.get(key)]


class ScanInfo(QDialog):
    """Shows facts; asks for what names the patient only when its button is pressed."""

    names_requested = Signal()

    def __init__(self, rows: Rows, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows = rows
        self.setWindowTitle("About this scan")
        self.resize(460, 460)
        self._text = QTextBrowser()
        self._names = QPushButton("Show &names and IDs…")
        self._names.setToolTip("Read from the file, for your eyes: it is not stored, not saved with masks, not logged")
        self._names.clicked.connect(self._on_names)
        buttons = QDialogButtonBox(QDialogButtonBox.Close)
        without_pictures(buttons)
        buttons.addButton(self._names, QDialogButtonBox.ActionRole)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(self._text)
        layout.addWidget(buttons)
        self._text.setHtml(page(rows))

    @property
    def words(self) -> str:
        """What can be read."""
        return str(self._text.toPlainText())

    def set_names(self, rows: Rows) -> None:
        """What names the patient, which was asked for."""
        self._text.setHtml(page(self._rows) + "<h3>Names and IDs</h3>" + page(rows) + f"<p>{_NOT_HIDDEN}</p>")

    def allow_names(self) -> None:
        """They could not be read; the person may try again."""
        self._names.setEnabled(True)

    def _on_names(self) -> None:
        self._names.setEnabled(False)
        self.names_requested.emit()


def page(rows: Rows) -> str:
    """Facts as a table."""
    cells = "".join(
        f"<tr><td><b>{escape(name)}</b>&nbsp;&nbsp;</td><td>{escape(words)}</td></tr>" for name, words in rows
    )
    return f"<table>{cells}</table>"
