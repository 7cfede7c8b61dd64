"""OME-Zarr folders, lazily: voxels stay on disk until somebody asks for a box of them. Local folders only."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files.reading import Watch, check_memory, explained, in_one_step, size_text
from napari_sparsetok.files.series import SeriesInfo, thumbnail_of
from napari_sparsetok.files.units import UNIT_UNKNOWN, millimetres
from napari_sparsetok.scan import SIDES_UNKNOWN, Geometry, Scan, ScanError, Shape, Source

_METADATA = ("zarr.json", ".zattrs")
_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup", ".zarray", ".zmetadata")  # what zarr reads of a group or an array
_LARGEST_METADATA = 2 << 20  # bytes of each
_MOST_LEVELS = 64
_LARGEST_CHUNK = 1 << 30
_MOST_BLOCKS = 100_000
_MOST_LOOKED_AT = 256  # blocks, for a thumbnail
_MOST_READ = 4096  # blocks of the coarsest level, each of which is a file
_READ_WHOLE = 64 << 20  # bytes of the coarsest level, read to tell one scan from another
_RAS = {
    **{"left-to-right": (1, 0, 0), "right-to-left": (-1, 0, 0), "posterior-to-anterior": (0, 1, 0)},
    **{"anterior-to-posterior": (0, -1, 0), "inferior-to-superior": (0, 0, 1), "superior-to-inferior": (0, 0, -1)},
}


@dataclass(frozen=True, eq=False)
class _Level:
    """One resolution: its array, and millimetres along z, y and x; whether its unit is one that is known."""

    array: Any
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    spatial: tuple[int, int, int]
    leading: int | None
    measured: bool

    @property
    def shape(self) -> Shape:
        z, y, x = (int(self.array.shape[k]) for k in self.spatial)
        return z, y, x

    @property
    def bytes(self) -> int:
        return math.prod(self.array.shape) * int(self.array.dtype.itemsize)


@dataclass(frozen=True, eq=False)
class _Image:
    levels: tuple[_Level, ...]
    axes: tuple[Mapping[str, Any], ...]
    document: str


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder is an OME-Zarr image, by its metadata alone."""
    try:
        return path.is_dir() and bool(_multiscales(_document(path)))
    except (OSError, ValueError, ScanError):
        return False


def find_levels(path: Path, watch: Watch) -> list[SeriesInfo]:
    """The resolution levels, finest first; `key` is the level's number.

    Raises
    ------
    ScanError : the metadata are damaged.
    OpeningStopped : `watch` asked for it.
    """
    name = _name(path)
    with explained(name):
        image = _opened(path)
        picture = in_one_step(lambda: _thumbnail(image.levels[-1]), watch)
        return [
            SeriesInfo(
                key=str(k),
                description=f"{name}, level {k} ({size_text(level.bytes)})",
                modality="",
                shape=level.shape,
                spacing=level.spacing,
                slices=level.shape[0],
                volumes=1 if level.leading is None else int(level.array.shape[level.leading]),
                thumbnail=picture,
            )
            for k, level in enumerate(image.levels)
        ]


def read(path: Path, key: str | None, watch: Watch) -> Scan:
    """Open one level without reading its voxels; see `napari_sparsetok.files.open_scan`.

    Parameters
    ----------
    key : number of the level; None is the finest.
    """
    import dask.array

    name = _name(path)
    with explained(name):
        image = _opened(path)
        if not (key or "0").isdigit() or int(key or 0) >= len(image.levels):
            raise ScanError(f"{name} has the levels 0 to {len(image.levels) - 1}; there is no level {key}")
        level = image.levels[int(key or 0)]
        kind = np.empty((0,) * level.array.ndim, dtype=level.array.dtype)
        voxels = dask.array.from_array(level.array, chunks=_blocks(level.array), meta=kind)
        voxels = _ordered(voxels, level)
        geometry, placed = _geometry(level, image.axes)
        leading = _leading(level, image.axes)
        shown = (
            geometry.to_shown(voxels.transpose(1, 2, 3, 0)).transpose(3, 0, 1, 2)
            if leading
            else geometry.to_shown(voxels)
        )
        identity = in_one_step(lambda: _identity(image, int(key or 0)), watch)
    return Scan(
        voxels=shown,
        geometry=geometry,
        name=name,
        leading=leading,
        source=Source(path.resolve(), "ome-zarr"),
        notes=(*(() if placed else (SIDES_UNKNOWN,)), *(() if level.measured else (UNIT_UNKNOWN,))),
        identity=identity,
    )


def _blocks(array: Any) -> tuple[int, ...]:
    """The array's own blocks, or several together where there are too many to keep count of.

    Raises
    ------
    ScanError : such blocks would be too large to read.
    """
    blocks = [int(n) for n in array.chunks]
    while _count(array, blocks) > _MOST_BLOCKS:
        axis = max(range(array.ndim), key=lambda k: array.shape[k] / blocks[k])
        blocks[axis] *= 2
    if math.prod(blocks) * array.dtype.itemsize > _LARGEST_CHUNK:
        raise ScanError("this level of the OME-Zarr is too large to open; choose a coarser one")
    return tuple(blocks)


def _count(array: Any, blocks: Sequence[int]) -> int:
    return math.prod(-(-n // b) for n, b in zip(array.shape, blocks, strict=True))


def _name(path: Path) -> str:
    name = path.resolve().name
    for suffix in (".zarr", ".ome"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name or "scan"


def _document(path: Path) -> dict[str, Any]:
    for name in _METADATA:
        file = path / name
        if file.is_file():
            check_documents(path)
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except RecursionError:  # brackets in brackets, more of them than Python follows
                raise ScanError("the metadata of this OME-Zarr are damaged; copy it again from its source") from None
            return found if isinstance(found, dict) else {}
    return {}


def check_documents(folder: Path) -> None:
    """Look at how long the documents of a group or an array are, before anybody reads them.

    Raises
    ------
    ScanError : longer than any scan's.
    """
    files = [folder / name for name in _DOCUMENTS]
    if any(file.stat().st_size > _LARGEST_METADATA for file in files if file.is_file()):
        raise ScanError("the metadata of this OME-Zarr are larger than any scan's; export it again")


def _multiscales(document: Mapping[str, Any]) -> list[Any]:
    attributes = document.get("attributes", document)
    inner = attributes.get("ome", attributes) if isinstance(attributes, dict) else {}
    scales = inner.get("multiscales") if isinstance(inner, dict) else None
    return scales if isinstance(scales, list) else []


def _opened(path: Path) -> _Image:
    try:
        import ome_zarr  # noqa: F401
        import zarr
    except ImportError:
        raise ScanError(
            'what reads OME-Zarr (ome-zarr, zarr) is not installed; pip install "napari-sparsetok[zarr]"'
        ) from None
    from ome_zarr.format import FormatV04, FormatV05, detect_format
    from ome_zarr.io import ZarrLocation

    from napari_sparsetok.files.zarr_blocks import BoundedStore

    document = _document(path)
    scale = _first(document)
    fallback = FormatV05() if "ome" in document.get("attributes", document) else FormatV04()
    version = detect_format({"multiscales": [{"version": fallback.version, **scale}]}, fallback)
    # Told the version, ome-zarr keeps to the store that it is given.
    store = BoundedStore(str(path))
    location = ZarrLocation(store, mode="r", fmt=version)
    group = zarr.open_group(location.store, mode="r")
    image = _checked(_modern(scale, version, group), version)
    whole = image.coordinateTransformations or ()
    axes = tuple(axis.model_dump() for axis in image.axes)
    levels = []
    for data in image.datasets:
        check_documents(path / _inside(data.path))
        array = group[data.path]
        store.bound(array)
        levels.append(_level(array, axes, [*data.coordinateTransformations, *whole]))
    return _Image(tuple(levels), axes, json.dumps(document, sort_keys=True))


def _first(document: Mapping[str, Any]) -> dict[str, Any]:
    """The first image of the metadata, as it is written there."""
    scales = _multiscales(document)
    if not scales or not isinstance(scales[0], dict):
        raise ScanError("this folder is no OME-Zarr image; choose the folder that holds the image's levels")
    if max(len(scales[0].get(k) or ()) for k in ("datasets", "axes")) > _MOST_LEVELS:
        raise ScanError(f"this OME-Zarr says that it has more than {_MOST_LEVELS} levels or axes; export it again")
    return scales[0]


def _modern(scale: dict[str, Any], version: Any, group: Any) -> dict[str, Any]:
    """An image of version 0.1 to 0.3, which had neither units nor spacing, in the words of 0.4; others as they are."""
    from ome_zarr.axes import Axes
    from ome_zarr.format import FormatV04

    if version.version not in ("0.1", "0.2", "0.3"):
        return scale
    try:
        axes = Axes(scale.get("axes"), fmt=version).to_list()
        paths = [_inside(data["path"]) for data in scale["datasets"]]
        steps = FormatV04().generate_coordinate_transformations([group[path].shape for path in paths])
    except ScanError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError):
        raise ScanError("this OME-Zarr contradicts the version of the format that it names; export it again") from None
    datasets = [
        {"path": path, "coordinateTransformations": step} for path, step in zip(paths, steps or (), strict=True)
    ]
    return {"version": "0.4", "axes": axes, "datasets": datasets}


def _checked(scale: Mapping[str, Any], version: Any) -> Any:
    """The image as the models of OME-Zarr 0.4 or 0.5 understand it."""
    from ome_zarr_models.v04.multiscales import Multiscale as Multiscale04
    from ome_zarr_models.v05.multiscales import Multiscale as Multiscale05
    from pydantic import ValidationError

    try:
        if version.version == "0.5":
            return Multiscale05.model_validate(scale)
        return Multiscale04.model_validate({"version": "0.4", **scale})  # its version may be left out
    except ValidationError as error:
        where = ", ".join(dict.fromkeys(str(part) for problem in error.errors() for part in problem["loc"][:1]))
        raise ScanError(
            f"the metadata of this OME-Zarr do not follow version {version.version} of the format "
            f"({where or 'multiscales'}); export it again"
        ) from None


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if ".." in parts or PurePosixPath(name).is_absolute() or not parts:
        raise ScanError("this OME-Zarr points to voxels outside its own folder; export it again")
    return name


def _level(array: Any, axes: Sequence[Mapping[str, Any]], steps: Sequence[Any]) -> _Level:
    names = [str(axis.get("name", "")).lower() for axis in axes]
    if array.ndim != len(names) or not {"z", "y", "x"} <= set(names):
        raise ScanError("this OME-Zarr has no axes z, y and x; a scan needs a stack of slices")
    if array.dtype.kind not in "iufb" or math.prod(array.chunks) * array.dtype.itemsize > _LARGEST_CHUNK:
        raise ScanError(
            "this OME-Zarr is stored in blocks or numbers that cannot be read; convert it to smaller blocks"
        )
    spatial = names.index("z"), names.index("y"), names.index("x")
    if min(int(array.shape[k]) for k in spatial) < 2:
        raise ScanError("this OME-Zarr holds a flat picture; a scan needs a stack of slices")
    others = [k for k in range(array.ndim) if k not in spatial and array.shape[k] > 1]
    if len(others) > 1:
        raise ScanError("this OME-Zarr has both channels and a time axis; export one channel or one time point")
    scale, shift = _placing(array.ndim, steps)
    known = [millimetres(str(axes[k].get("unit") or "")) or None for k in spatial]
    units = [unit or 1.0 for unit in known]
    z, y, x = (float(scale[k] * u) for k, u in zip(spatial, units, strict=True))
    a, b, c = (float(shift[k] * u) for k, u in zip(spatial, units, strict=True))
    return _Level(array, (z, y, x), (a, b, c), spatial, others[0] if others else None, None not in known)


def _placing(axes: int, steps: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Along each axis the size of a voxel, and where the first one lies.

    Raises
    ------
    ScanError : an axis runs backwards, which the format does not mean.
    """
    scale, shift = np.ones(axes), np.zeros(axes)
    for step in steps:
        if step.type == "scale":
            scale, shift = scale * np.asarray(step.scale, float), shift * np.asarray(step.scale, float)
        elif step.type == "translation":
            shift = shift + np.asarray(step.translation, float)
    if (scale < 0).any():
        raise ScanError("this OME-Zarr gives its voxels a size below zero, which nobody can place; export it again")
    return scale, shift


def _ordered(voxels: Any, level: _Level) -> Any:
    """(z, y, x), or with the leading axis in front."""
    kept = (() if level.leading is None else (level.leading,)) + level.spatial
    dropped = tuple(0 if k not in kept else slice(None) for k in range(voxels.ndim))
    left = sorted(kept)
    return voxels[dropped].transpose([left.index(k) for k in kept])


def _geometry(level: _Level, axes: Sequence[Mapping[str, Any]]) -> tuple[Geometry, bool]:
    """The geometry, and whether the file says how the patient lay."""
    ways = [_RAS.get(_orientation(axes[k])) for k in level.spatial]
    if any(way is None for way in ways):
        return Geometry.shown(level.shape, level.spacing, level.origin), False
    affine = np.eye(4)
    affine[:3, :3] = np.array(ways, dtype=float).T * level.spacing
    affine[:3, 3] = np.array(ways, dtype=float).T @ level.origin
    return Geometry(level.shape, affine), True


def _orientation(axis: Mapping[str, Any]) -> str:
    said = axis.get("anatomicalOrientation") or axis.get("orientation") or ""
    return str(said.get("value", "") if isinstance(said, dict) else said)


def _leading(level: _Level, axes: Sequence[Mapping[str, Any]]) -> Literal["", "time", "channel"]:
    if level.leading is None:
        return ""
    return "channel" if str(axes[level.leading].get("name", "")).lower() == "c" else "time"


def _identity(image: _Image, number: int) -> str:
    """What tells this scan from others: its metadata, the level, and the coarsest level whole where that is small."""
    digest = hashlib.sha256(image.document.encode())
    coarsest = image.levels[-1].array
    small = math.prod(coarsest.shape) * coarsest.dtype.itemsize <= _READ_WHOLE
    if small and _count(coarsest, coarsest.chunks) <= _MOST_READ:
        digest.update(np.ascontiguousarray(coarsest[...]).data)
    return f"{digest.hexdigest()} level {number}"


def _thumbnail(level: _Level) -> Any:
    chunk = math.prod(level.array.chunks) * level.array.dtype.itemsize
    check_memory(4 * chunk, "this OME-Zarr")
    index: list[Any] = [0] * level.array.ndim
    for k in level.spatial[1:]:
        index[k] = slice(None, None, max(1, level.array.shape[k] // 96))
    index[level.spatial[0]] = level.array.shape[level.spatial[0]] // 2
    plane_blocks = [-(-level.array.shape[k] // level.array.chunks[k]) for k in level.spatial[1:]]
    if math.prod(plane_blocks) > _MOST_LOOKED_AT:
        return np.zeros((1, 1), dtype=np.uint8)
    plane = np.asarray(level.array[tuple(index)])
    return thumbnail_of(plane if level.spatial[1] < level.spatial[2] else plane.T)
