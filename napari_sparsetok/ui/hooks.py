"""What napari calls by name: the reader, the writer and the samples. The panel is `napari_sparsetok.ui.dock.Dock`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sparsetok.files import RepairableScanError, can_open, find_series, is_file_of, open_scan, save_mask
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.sample import open_sample
from napari_sparsetok.scan import Scan, ScanError

if TYPE_CHECKING:
    from napari_sparsetok.ui.opening import Opening
    from napari_sparsetok.ui.scan_layer import LayerData

_PANEL = "SCD segmentation"  # as the manifest calls it
_NO_LAYER: Any = (None,)
"""How a reader tells napari that it took a file and that no layer is to be made of it here."""


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """The reader for these files, or None if they are not scans."""
    paths = [path] if isinstance(path, str) else list(path)
    return read if paths and all(can_open(p) for p in paths) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """Open scans as image layers, and masks of scans that are open as labels.

    The panel reads them, on its own thread and asking what must be asked; napari is told that no layer comes from
    here. What a person drops into a window without the panel opens it. Only a program that opens scans before its
    window runs, or without one, gets them at once; of several scans in one place the likeliest is opened then, and said
    so: napari's readers cannot ask.

    Raises
    ------
    ScanError : it cannot be opened, or not without a repair that somebody must agree to.
    """
    paths = [path] if isinstance(path, str) else list(path)
    opening = _panels_opening() or _opened_panels_opening()
    if opening is not None:
        opening.take([Path(p) for p in paths])
        return [_NO_LAYER]
    return [layer for p in paths for layer in _read_one(Path(p))]


def _panels_opening() -> Opening | None:
    """What opens scans in the panel of the viewer in use, if that has one."""
    import napari

    from napari_sparsetok.ui.opening import Opening

    viewer = napari.current_viewer()
    docked = viewer.window.dock_widgets.values() if viewer is not None else ()
    found = (getattr(widget, "opening", None) for widget in docked)
    return next((opening for opening in found if isinstance(opening, Opening)), None)


def _opened_panels_opening() -> Opening | None:
    """The same of a panel that is opened for it, if a person is at the window: if Qt runs the events of one."""
    import napari
    from qtpy.QtCore import QThread

    viewer = napari.current_viewer()
    if viewer is None or QThread.currentThread().loopLevel() == 0:
        return None
    viewer.window.add_plugin_dock_widget("napari-sparsetok", _PANEL)
    return _panels_opening()


def _read_one(path: Path) -> list[LayerData]:
    from napari_sparsetok.ui.given_mask import is_segmentation, mask_layer, mask_of, segmentation_of
    from napari_sparsetok.ui.scan_layer import layer_data

    scans = _open_scans()
    if is_segmentation(path):
        return [mask_layer(segmentation_of(path, scans), path.name)]
    scan = _best(path)
    mask = mask_of(path, scan, scans)
    return [mask_layer(mask, path.name)] if mask else layer_data(scan)


def _best(path: Path) -> Scan:
    from napari.utils.notifications import show_info

    series = find_series(path)
    if len(series) > 1:
        show_info(
            f"{len(series)} scans were found; this is the likeliest, {series[0].in_words()}. "
            "To choose another, open it from the panel “SCD segmentation”."
        )
    try:
        return open_scan(path, series=series[0] if series else None)
    except RepairableScanError as error:
        raise ScanError(f"{error}. The panel “SCD segmentation” opens it, after asking") from None


def _open_scans() -> list[Scan]:
    """The scans that the viewer shows, without those that have a time axis."""
    return _scans_in_view(3)


def _scans_in_view(most_axes: int) -> list[Scan]:
    import napari

    from napari_sparsetok.ui.scan_layer import SCAN

    viewer = napari.current_viewer()
    layers = viewer.layers if viewer is not None else ()
    found = [layer.metadata.get(SCAN) for layer in layers if layer.ndim <= most_axes]
    return list(dict.fromkeys(scan for scan in found if scan is not None))


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Save a mask layer on the exact grid of its scan.

    Raises
    ------
    ScanError : the layer belongs to no scan that this program opened, the name is that of a scan that is open, or the
        disk refuses.
    """
    from napari_sparsetok.ui.scan_layer import MASK_LABELS, SCAN

    scan = meta.get("metadata", {}).get(SCAN)
    if scan is None:
        raise ScanError(
            "this layer belongs to no scan, so nobody knows its grid; save a mask that SparseTok made, from its panel"
        )
    if any(is_file_of(path, other) for other in _scans_in_view(4)):
        raise ScanError(f"{Path(path).name} is a scan that is open; choose another name so that it is not overwritten")
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
