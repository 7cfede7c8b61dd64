"""What napari calls by name: the reader, the writer and the samples. The panel is `napari_sparsetok.ui.dock.Dock`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from napari_sparsetok.files import can_open, open_scan, save_mask
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.sample import open_sample
from napari_sparsetok.scan import ScanError

if TYPE_CHECKING:
    from napari_sparsetok.ui.scan_layer import LayerData


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """The reader for these files, or None if they are not scans."""
    paths = [path] if isinstance(path, str) else list(path)
    return read if paths and all(can_open(p) for p in paths) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Open scans as image layers."""
    from napari_sparsetok.ui.scan_layer import layer_data

    paths = [path] if isinstance(path, str) else list(path)
    return [layer for p in paths for layer in layer_data(open_scan(p))]


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a mask layer on the exact grid of its scan.

    Raises
    ------
    ScanError : the layer belongs to no scan that this program opened, or the disk refuses.
    """
    from napari_sparsetok.ui.scan_layer import MASK_LABELS, SCAN

    scan = meta.get("metadata", {}).get(SCAN)
    if scan is None:
        raise ScanError(
            "this layer belongs to no scan, so nobody knows its grid; save a mask that SparseTok made, from its panel"
        )
    labels = meta["metadata"].get(MASK_LABELS) or LabelTable(())
    one_frame = data[0] if data.ndim == 4 and len(data) == 1 else data  # the mask of one frame of a time series
    return [str(save_mask(path, one_frame, scan, labels))]


def open_mni152() -> list[LayerData]:
    """The whole MNI152 head."""
    return _sample("mni152")


def open_hippocampus_left() -> list[LayerData]:
    """The left hippocampus of MNI152."""
    return _sample("hippocampus_left")


def open_hippocampus_right() -> list[LayerData]:
    """The right hippocampus of MNI152."""
    return _sample("hippocampus_right")


def open_phantom() -> list[LayerData]:
    """The synthetic phantom."""
    return _sample("phantom")


def _sample(name: str) -> list[LayerData]:
    from napari_sparsetok.ui.scan_layer import layer_data

    return layer_data(open_sample(name))
