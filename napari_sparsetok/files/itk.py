"""NRRD and MetaImage through SimpleITK, read and written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files import raw
from napari_sparsetok.files.raw import RawBlock, StoredVoxels
from napari_sparsetok.files.reading import Watch, check_memory, explained, in_one_step, oblique_note
from napari_sparsetok.files.stack import LPS_TO_RAS
from napari_sparsetok.files.text_header import META, NRRD, Claim, checked_header
from napari_sparsetok.files.units import UNIT_UNKNOWN
from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.labels import PALETTE, Label, LabelTable
from napari_sparsetok.scan import SIDES_UNKNOWN, Geometry, Scan, ScanError, Source

SUFFIXES = (*NRRD, *META)
WRITTEN = (".nrrd", ".mha")
"""One file each; masks are not spread over two."""

_LABELS = "sparsetok_labels"
_UNSPACED = "The file does not give its voxels a size; 1 mm was taken. Volumes in mL mean nothing."


@dataclass(frozen=True)
class ItkHeader:
    """Where the voxels lie, as ITK says it (LPS millimetres), so that a mask can say the same to the last bit."""

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class _Found:
    """What a file holds: its place, its numbers slowest axis first (a vector's components last), and where they lie.

    block : None if they are in memory.
    """

    header: ItkHeader
    array: NDArray[Any]
    vector: bool = False
    block: RawBlock | None = None


def read(path: Path, watch: Watch) -> Scan:
    """Read one file; see `napari_sparsetok.files.open_scan`."""
    with explained(path.name):
        claim = checked_header(path)
        _check_shape(path, claim.shape)
        found = _found(path, claim, watch)
        header = _in_millimetres(found.header, claim.measure.millimetres)
        if found.array.dtype.kind not in "iuf":
            raise ScanError(f"{path.name} stores {found.array.dtype} numbers; a scan needs one grey value a voxel")
        volumes = _volumes(found.array, vector=found.vector, path=path)
        shape = volumes.shape[1:]
        geometry = Geometry((shape[2], shape[1], shape[0]), _affine(header))
        leading: Literal["", "time"] = "time" if len(volumes) > 1 else ""
        shown = geometry.to_shown(volumes.transpose(3, 2, 1, 0))
        return Scan(
            voxels=_left_or_read(np.moveaxis(shown, 3, 0) if leading else shown[..., 0], found.block),
            geometry=geometry,
            name=path.stem,
            leading=leading,
            source=Source(path.resolve(), "nrrd" if path.suffix.lower() in NRRD else "metaimage", header),
            notes=_notes(claim, len(volumes), geometry),
            identity=raw.identity(found.block) if found.block else "",
        )


def _found(path: Path, claim: Claim, watch: Watch) -> _Found:
    """The voxels through SimpleITK; plain numbers as they lie, since those can be left there or read in pieces."""
    if claim.raw:
        reader = _information(path)
        plain = reader.GetNumberOfComponents() == 1 and min(reader.GetSpacing()) > 0
        if plain and tuple(reader.GetSize()) == claim.shape:
            if not claim.packing and raw.stays_on_disk(claim.bytes):
                return _Found(_header(reader), raw.mapped(claim.raw).T, block=claim.raw)
            check_memory((1 if claim.raw.dtype.isnative else 2) * claim.bytes, path.name)
            return _Found(_header(reader), raw.read_whole(claim.raw, watch, claim.packing).T)
    check_memory(2 * claim.bytes, path.name)
    sitk = _sitk()

    def read_image() -> _Found:
        image = sitk.ReadImage(str(path))
        return _Found(_header(image), sitk.GetArrayFromImage(image), image.GetNumberOfComponentsPerPixel() > 1)

    return in_one_step(read_image, watch)


def _left_or_read(shown: NDArray[Any], block: RawBlock | None) -> Any:
    if block is None:
        return shown
    return StoredVoxels(shown, block.path, shown.dtype.newbyteorder("="), lambda box: box)


def _notes(claim: Claim, volumes: int, geometry: Geometry) -> tuple[str, ...]:
    notes = [] if claim.placed else [SIDES_UNKNOWN]
    if not claim.measure.sized:
        notes.append(_UNSPACED)
    if not claim.measure.known:
        notes.append(UNIT_UNKNOWN)
    if volumes > 1:
        notes.append(f"The leading axis has {volumes} volumes; the file does not say what tells them apart.")
    if geometry.is_oblique:
        notes.append(oblique_note(geometry.obliqueness))
    return tuple(notes)


def _information(path: Path) -> Any:
    """SimpleITK's reader, which has read the header alone."""
    reader = _sitk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def read_labels(path: Path) -> LabelTable | None:
    """The label names in a file: those that `write_mask` wrote, or those of a segmentation in NRRD.

    Raises
    ------
    ScanError : the file cannot be read.
    """
    with explained(path.name):
        checked_header(path)
        reader = _information(path)
        said = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
        try:
            return LabelTable.from_json(json.loads(said[_LABELS])["labels"])
        except (KeyError, ValueError, TypeError, RecursionError):
            return _segments(said)


def _segments(said: Mapping[str, str]) -> LabelTable | None:
    """Names in the fields that segmentation programs put beside NRRD masks."""
    labels = {}
    for number in range(256):
        name, value = said.get(f"Segment{number}_Name"), said.get(f"Segment{number}_LabelValue")
        if name and value and value.isdigit() and 1 <= int(value) < 255:
            color = _color(said.get(f"Segment{number}_Color", ""), int(value))
            labels[int(value)] = Label(int(value), name, color)
    return LabelTable(tuple(labels[k] for k in sorted(labels))) if labels else None


def _color(text: str, number: int) -> str:
    try:
        parts = [min(255, max(0, round(float(part) * 255))) for part in text.split()]
    except ValueError:
        parts = []
    return "#{:02x}{:02x}{:02x}".format(*parts) if len(parts) == 3 else PALETTE[(number - 1) % len(PALETTE)]


def write_mask(path: Path, mask: NDArray[np.integer[Any]], scan: Scan, labels: LabelTable) -> None:
    """Write a mask, compressed, in the order and place of its scan; see `napari_sparsetok.files.save_mask`."""
    sitk = _sitk()
    turned = scan.geometry.to_source(mask.astype(np.uint8))
    image = sitk.GetImageFromArray(np.ascontiguousarray(turned.transpose(2, 1, 0)))
    header = _header_of(scan)
    image.SetSpacing(header.spacing)
    image.SetOrigin(header.origin)
    image.SetDirection(header.direction)
    image.SetMetaData(_LABELS, json.dumps({"labels": labels.to_json()}))
    with written_whole(path, suffix=path.suffix.lower()) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
            # On a full disk the NRRD writer loses the last block, and does not say so.
            whole = np.array_equal(np.asarray(read(temporary, Watch()).voxels), mask)
        except (RuntimeError, ScanError):
            whole = False
        if not whole:
            raise ScanError(
                f"{path.name} could not be saved; nothing was overwritten, choose another name or folder, or make room"
            )


def _header_of(scan: Scan) -> ItkHeader:
    """Three axes of the scan's own header, or one made of its geometry."""
    if scan.source and isinstance(scan.source.header, ItkHeader):
        header = scan.source.header
        n = len(header.spacing)
        direction = np.reshape(header.direction, (n, n))[:3, :3].ravel()
        return ItkHeader(header.spacing[:3], header.origin[:3], tuple(direction.tolist()))
    affine = LPS_TO_RAS @ scan.geometry.source_affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    return ItkHeader(tuple(spacing.tolist()), tuple(affine[:3, 3].tolist()), tuple(direction.ravel().tolist()))


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) < 3 or sum(n > 1 for n in shape) < 3:
        raise ScanError(f"{path.name} holds a flat picture of {shape} voxels; a scan needs a stack of slices")
    if len(shape) > 4:
        raise ScanError(f"{path.name} has {len(shape)} axes {shape}; split it into volumes or one series over time")


def _volumes(array: NDArray[Any], *, vector: bool, path: Path) -> NDArray[Any]:
    """(volumes, slices, rows, columns)."""
    volumes = np.moveaxis(array, -1, 0) if vector else array if array.ndim == 4 else array[None]
    if volumes.ndim != 4 or min(volumes.shape[1:]) < 2:
        raise ScanError(f"{path.name} holds a flat picture of {array.shape} voxels; a scan needs a stack of slices")
    if vector and len(volumes) in (3, 4) and volumes.dtype == np.uint8:
        raise ScanError(f"{path.name} stores colours; a scan needs one grey value a voxel")
    return volumes


def _header(image: Any) -> ItkHeader:
    return ItkHeader(tuple(image.GetSpacing()), tuple(image.GetOrigin()), tuple(image.GetDirection()))


def _in_millimetres(header: ItkHeader, unit: float) -> ItkHeader:
    """The same place, of a header that measures in another unit; a mask says it in millimetres, as ITK expects."""
    if unit == 1:
        return header
    spacing, origin = ((*(n * unit for n in v[:3]), *v[3:]) for v in (header.spacing, header.origin))
    return ItkHeader(spacing, origin, header.direction)


def _affine(header: ItkHeader) -> NDArray[np.float64]:
    """(4, 4), from (x, y, z) indices to RAS+ millimetres."""
    n = len(header.spacing)
    direction = np.reshape(header.direction, (n, n))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(header.spacing)[:3]
    affine[:3, 3] = header.origin[:3]
    return LPS_TO_RAS @ affine


def _sitk() -> Any:
    """SimpleITK, which takes half a second to load, when it is first needed; it talks to nobody."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK
