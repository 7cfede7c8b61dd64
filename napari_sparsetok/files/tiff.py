"""3-D TIFF through tifffile: a stack of pages, with the spacing that ImageJ or OME wrote into it."""

from __future__ import annotations

from collections.abc import Mapping
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
_DAMAGED = (
    "The pictures of this file are whole, but its OME description is cut short or damaged: neither the size of its "
    "voxels is known nor what its pages are. 1 mm was taken, and each page as a slice; volumes in mL mean nothing. "
    "Copy the file again from its source."
)
_CURVED = "ImageJ shows its values by a curve that is not read; the grey values are the stored ones."
_STRAIGHT, _NO_CURVE = 0, 20  # ImageJ's numbers for “a straight line” and “none”
_WHOLE = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)
_LARGEST_XML = 4 << 20  # bytes
_OME = "<OME"  # in what a page says of itself
_MOST_PAGES = 50_000


def read(path: Path, watch: Watch) -> Scan:
    """Read one file, page by page; see `napari_sparsetok.files.open_scan`."""
    import tifffile

    with explained(path.name):
        try:
            with tifffile.TiffFile(path) as file:
                _check_pages(file, path, watch)
                _check_description(file, path)
                _check_chain(file)
                series = file.series[0]
                axes = _checked(series, path)
                spacing, damaged = _spacing(file), _is_damaged(file)
                array = _calibrated(_stored(series, watch), file.imagej_metadata or {}, watch)
                curved = _is_curved(file.imagej_metadata or {})
        except tifffile.TiffFileError:
            raise ScanError(f"{path.name} is not a TIFF file that can be read; export it again") from None
    volumes, leading = _volumes(array, axes)
    unknown = [axis for axis, step in zip("zyx", spacing, strict=True) if not step]
    geometry = Geometry.shown(volumes.shape[-3:], [step or 1.0 for step in spacing])
    unspaced = [_DAMAGED] if damaged else [_UNSPACED.format(axes=", ".join(unknown))] if unknown else []
    notes = (SIDES_UNKNOWN, *unspaced, *([_CURVED] if curved else []))
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


def _calibrated(array: NDArray[Any], said: Mapping[str, Any], watch: Watch) -> NDArray[Any]:
    """The values that ImageJ shows for them: it has no signed numbers of 16 bits, and shifts those of a CT."""
    shift, factor = float(said.get("c0", 0.0)), float(said.get("c1", 1.0))
    if said.get("cf") != _STRAIGHT or not np.isfinite([shift, factor]).all() or (shift, factor) == (0, 1):
        return array
    values = np.empty(array.shape, dtype=_type_for(array.dtype, shift, factor))
    for number, plane in enumerate(array):
        watch.step(number, len(array))
        values[number] = plane.astype(np.float64) * factor + shift
    return values


def _type_for(stored: np.dtype[Any], shift: float, factor: float) -> np.dtype[Any]:
    """The smallest type for all values that these stored ones may stand for."""
    if stored.kind in "iu" and shift == int(shift) and factor == int(factor):
        low, high = sorted(int(end) * factor + shift for end in (np.iinfo(stored).min, np.iinfo(stored).max))
        for kind in _WHOLE:
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return np.dtype(kind)
    return np.dtype(np.float32 if stored.itemsize <= 2 or stored == np.float32 else np.float64)


def _is_curved(said: Mapping[str, Any]) -> bool:
    """Whether ImageJ would show other values than those that are stored, by more than a straight line."""
    return said.get("cf", _NO_CURVE) not in (_STRAIGHT, _NO_CURVE)


def _check_pages(file: Any, path: Path, watch: Watch) -> None:
    """Go from page to page before tifffile does, which keeps an object of each.

    Raises
    ------
    ScanError : there are more than any scan's.
    EOFError : they lead back to one of them.
    """
    tiff, handle = file.tiff, file.filehandle
    order: Literal["little", "big"] = "little" if file.byteorder == "<" else "big"
    seen: set[int] = set()
    handle.seek(tiff.offsetsize)  # behind the mark at the beginning, which takes as many bytes as a place
    while at := int.from_bytes(handle.read(tiff.offsetsize), order):
        if at in seen:
            raise EOFError
        if len(seen) >= _MOST_PAGES:
            raise ScanError(f"{path.name} has more than {_MOST_PAGES} pages; split it into smaller stacks")
        if len(seen) % 1000 == 0:
            watch.look()
        seen.add(at)
        handle.seek(at)
        handle.seek(int.from_bytes(handle.read(tiff.tagnosize), order) * tiff.tagsize, 1)


def _check_description(file: Any, path: Path) -> None:
    if (said := file.pages[0].tags.get("ImageDescription")) and said.count > _LARGEST_XML and file.is_ome:
        raise ScanError(f"{path.name} has an OME description that is longer than that of any scan; export it again")


def _is_damaged(file: Any) -> bool:
    """Whether the pages were described once, and this can be read no longer."""
    said = str(file.pages[0].description)
    return _OME in said[:4096] and len(said) <= _LARGEST_XML and _ome_root(said) is None


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
    if file.is_ome and file.ome_metadata:
        return _ome_spacing(file.ome_metadata)
    page = file.pages[0]
    said = file.imagej_metadata or {}
    unit = millimetres(str(said.get("unit", "")).replace("\\u00b5", "µ"))
    if not unit and not file.is_imagej:
        unit = {2: 25.4, 3: 10.0}.get(_tag(page, "ResolutionUnit"), 0.0)
        # A resolution in dots an inch is the printer's, not the scanner's, unless the file comes from a microscope.
        unit = unit if unit == 10.0 else 0.0
    z = abs(float(said.get("spacing") or 0.0)) * unit  # negative where the stack was turned round
    return _sane(z), _sane(_pitch(_tag(page, "YResolution")) * unit), _sane(_pitch(_tag(page, "XResolution")) * unit)


def _ome_spacing(xml: str) -> tuple[float, float, float]:
    root = _ome_root(xml)
    elements = () if root is None else root.iter()
    pixels = next((e for e in elements if e.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return 0.0, 0.0, 0.0
    steps = []
    for axis in "ZYX":
        unit = millimetres(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        steps.append(_sane(float(pixels.get(f"PhysicalSize{axis}", 0)) * unit))
    z, y, x = steps
    return z, y, x


def _ome_root(xml: str) -> ElementTree.Element | None:
    if "<!ENTITY" in xml:  # text that would grow while it is read
        return None
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None


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
