"""3-D TIFF through tifffile: a stack of pages, with the spacing that ImageJ or OME wrote into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files.reading import Watch, check_claim, check_memory, explained, in_one_step
from napari_sparsetok.files.units import millimetres
from napari_sparsetok.scan import SIDES_UNKNOWN, Geometry, Scan, ScanError, Source

SUFFIXES = (".tif", ".tiff")

_UNSPACED = "The file does not give its voxels a size in {axes}; 1 mm was taken. Volumes in mL mean nothing."
_LARGEST_XML = 16 << 20  # bytes


def read(path: Path, watch: Watch) -> Scan:
    """Read one file, page by page; see `napari_sparsetok.files.open_scan`."""
    import tifffile

    with explained(path.name):
        try:
            with tifffile.TiffFile(path) as file:
                _check_chain(file)
                series = file.series[0]
                axes = _checked(series, path)
                spacing = _spacing(file)
                array = _stored(series, watch)
        except tifffile.TiffFileError:
            raise ScanError(f"{path.name} is not a TIFF file that can be read; export it again") from None
    volumes, leading = _volumes(array, axes)
    unknown = [axis for axis, step in zip("zyx", spacing, strict=True) if not step]
    geometry = Geometry.shown(volumes.shape[-3:], [step or 1.0 for step in spacing])
    notes = (SIDES_UNKNOWN, *([_UNSPACED.format(axes=", ".join(unknown))] if unknown else []))
    name = path.name.rsplit(".", 2 if path.stem.lower().endswith(".ome") else 1)[0]
    return Scan(volumes, geometry, name, leading, Source(path.resolve(), "tiff"), notes)


def _stored(series: Any, watch: Watch) -> NDArray[Any]:
    """The pixels in the order of the axes, a page at a time where each page is a picture of its own."""
    pages = series.pages
    if len(pages) < 2 or any(page is None or page.size * len(pages) != series.size for page in pages):
        return np.asarray(in_one_step(series.asarray, watch))
    array = np.empty((len(pages), *pages[0].shape), series.dtype)
    for number, page in enumerate(pages):
        watch.step(number, len(pages))
        array[number] = page.asarray()
    return array.reshape(series.shape)


def _check_chain(file: Any) -> None:
    """Follow the pages to their end: tifffile takes those that it finds for all, and a stack for a picture.

    Raises
    ------
    EOFError : the last one points to one that is not there.
    """
    at = file.pages.next_page_offset
    if at is None:
        return
    file.filehandle.seek(at)
    pointer = file.filehandle.read(file.tiff.offsetsize)
    if len(pointer) < file.tiff.offsetsize or any(pointer):
        raise EOFError


def _checked(series: Any, path: Path) -> str:
    """The axes' letters, after a look at what the series claims."""
    shape, axes = tuple(int(n) for n in series.shape), str(series.axes)
    if "S" in axes or series.dtype is None or series.dtype.kind not in "iuf":
        raise ScanError(f"{path.name} stores colours; a scan needs one grey value a voxel")
    wide = [n for n in shape if n > 1]
    if len(wide) < 3 or min(shape[-2:]) < 2:
        raise ScanError(f"{path.name} holds a flat picture of {shape} pixels; a scan needs a stack of slices")
    if len(wide) > 4:
        raise ScanError(f"{path.name} has {len(wide)} axes {shape}; split it into volumes or one series over time")
    claimed = series.dtype.itemsize
    for extent in shape:
        claimed *= extent
    packed = any(page is not None and getattr(page, "compression", 1) != 1 for page in series.pages[:1])
    check_claim(claimed, path.stat().st_size, path.name, compressed=packed)
    check_memory(2 * claimed, path.name)
    return axes


def _volumes(array: NDArray[Any], axes: str) -> tuple[NDArray[Any], Literal["", "time", "channel"]]:
    kept = "".join(axis for axis, n in zip(axes, array.shape, strict=True) if n > 1)
    array = array.reshape([n for n in array.shape if n > 1])
    if array.ndim == 3:
        return array, ""
    first = next((k for k, axis in enumerate(kept) if axis in "TC"), 0)
    return np.moveaxis(array, first, 0), "channel" if kept[first] == "C" else "time"


def _spacing(file: Any) -> tuple[float, float, float]:
    """Millimetres along z, y and x; 0 where the file does not say."""
    if file.is_ome and file.ome_metadata and len(file.ome_metadata) < _LARGEST_XML:
        return _ome_spacing(file.ome_metadata)
    page = file.pages[0]
    said = file.imagej_metadata or {}
    unit = millimetres(str(said.get("unit", "")).replace("\\u00b5", "µ"))
    if not unit and not file.is_imagej:
        unit = {2: 25.4, 3: 10.0}.get(_tag(page, "ResolutionUnit"), 0.0)
        # A resolution in dots an inch is the printer's, not the scanner's, unless the file comes from a microscope.
        unit = unit if unit == 10.0 else 0.0
    z = float(said.get("spacing") or 0.0) * unit
    return _sane(z), _sane(_pitch(_tag(page, "YResolution")) * unit), _sane(_pitch(_tag(page, "XResolution")) * unit)


def _ome_spacing(xml: str) -> tuple[float, float, float]:
    if "<!ENTITY" in xml:  # text that would grow while it is read
        return 0.0, 0.0, 0.0
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return 0.0, 0.0, 0.0
    pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return 0.0, 0.0, 0.0
    steps = []
    for axis in "ZYX":
        unit = millimetres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        steps.append(_sane(float(pixels.get(f"PhysicalSize{axis}", 0)) * unit))
    z, y, x = steps
    return z, y, x


def _tag(page: Any, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def _pitch(resolution: Any) -> float:
    """The inverse of a TIFF's rational pixels per unit."""
    try:
        count, per = resolution
        return float(per) / float(count)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0


def _sane(step: float) -> float:
    return step if np.isfinite(step) and 1e-7 < step < 1e6 else 0.0
