"""Window and level: which grey values are spread from black to white."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from platformdirs import user_state_path
from psygnal import Signal

from napari_sparsetok.files.dicom_reference import DicomHeader
from napari_sparsetok.scan import Scan

CUSTOM = "by hand"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MODALITIES = {
    **dict.fromkeys((_STORAGE + "2", _STORAGE + "2.1", _STORAGE + "2.2"), "CT"),
    **dict.fromkeys((_STORAGE + "4", _STORAGE + "4.1", _STORAGE + "4.3", _STORAGE + "4.4"), "MR"),
    **dict.fromkeys((_STORAGE + "128", _STORAGE + "130", _STORAGE + "128.1"), "PT"),
    _STORAGE + "20": "NM",
    **dict.fromkeys((_STORAGE + "3.1", _STORAGE + "6.1", _STORAGE + "6.2"), "US"),
}
"""What each kind of DICOM image is."""

_AIR = -500  # HU: only CT goes down there
_NARROWEST = 1e-6  # of the span of the voxels
_DRAGGED = 300  # pixels that widen the window to double


@dataclass(frozen=True)
class Preset:
    """A window with a name: of fixed level and width, or from one percentile of the voxels to another."""

    name: str
    level: float = 0.0
    width: float = 0.0
    percentiles: tuple[float, float] | None = None

    def limits(self, scan: Scan) -> tuple[float, float]:
        """The values shown black and white."""
        if self.percentiles is None:
            return self.level - self.width / 2, self.level + self.width / 2
        values = scan.sampled()
        values = values[np.isfinite(values)]
        if not values.size:
            return 0.0, 1.0
        low, high = (float(v) for v in np.percentile(values, self.percentiles))
        return (low, high) if high > low else (low, low + 1.0)

    @property
    def words(self) -> str:
        """What it does, for a tooltip."""
        if self.percentiles is None:
            return f"level {self.level:g}, width {self.width:g} HU"
        low, high = self.percentiles
        return f"from the {low:g}th to the {high:g}th percentile of the grey values"


CT = (
    Preset("soft tissue", 40, 400),
    Preset("lung", -600, 1500),
    Preset("bone", 400, 1800),
    Preset("brain", 40, 80),
    Preset("stroke", 32, 8),
    Preset("subdural", 75, 215),
    Preset("liver", 60, 160),
    Preset("vessels", 300, 600),
    Preset("everything", percentiles=(0, 100)),
)
OTHER = (
    Preset("usual", percentiles=(0.5, 99.8)),
    Preset("strong contrast", percentiles=(5, 98)),
    Preset("bright parts", percentiles=(50, 99.9)),
    Preset("dark parts", percentiles=(0.5, 75)),
    Preset("everything", percentiles=(0, 100)),
)


def modality(scan: Scan) -> str:
    """As the file says, as in "MR"; "CT" where the values go down to air in Hounsfield units; "" where nobody knows."""
    header = scan.source.header if scan.source is not None else None
    if isinstance(header, DicomHeader) and header.slices and header.slices[0]:
        return _MODALITIES.get(header.slices[0][0].sop_class, "")
    if scan.is_lazy:
        return ""
    values = scan.sampled(20_000)
    values = values[np.isfinite(values)]
    return "CT" if values.size and float(np.percentile(values, 1)) < _AIR else ""


def presets(scan: Scan) -> tuple[Preset, ...]:
    """What there is to choose from. Nothing for a scan that stays on disk: percentiles would have to read it."""
    if scan.is_lazy:
        return ()
    return CT if modality(scan) == "CT" else OTHER


class WindowMemory:
    """What was last chosen for each modality: the name of a preset or, for CT, two values. On disk, if it may be."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or user_state_path("napari-sparsetok") / "windows.json"
        self._chosen: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._chosen = found if isinstance(found, dict) else {}

    def __getitem__(self, kind: str) -> str | tuple[float, float] | None:
        found = self._chosen.get(kind)
        if isinstance(found, str):
            return found
        with suppress(TypeError, ValueError):
            low, high = (float(v) for v in found or ())
            if np.isfinite([low, high]).all() and high > low:
                return low, high
        return None

    def __setitem__(self, kind: str, chosen: str | tuple[float, float]) -> None:
        if self._chosen.get(kind) == chosen:
            return
        self._chosen[kind] = chosen
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside = self._path.with_suffix(".part")
            beside.write_text(json.dumps(self._chosen), encoding="utf-8")
            os.replace(beside, self._path)


class WindowLevel:
    """The window of the scan that is shown: by preset, by key, or by dragging with Shift and the right button.

    Parameters
    ----------
    viewer : where dragging counts; `follow` adds others.
    memory : what was chosen before.
    """

    changed = Signal(str, float, float)  # name of the preset, level, width

    def __init__(self, viewer: ViewerModel, memory: WindowMemory | None = None) -> None:
        self._memory = memory or WindowMemory()
        self._viewers: list[ViewerModel] = []
        self._layer: Image | None = None
        self._scan: Scan | None = None
        self._kind = ""
        self._name = CUSTOM
        self._writing = False
        self._seen: weakref.WeakSet[Image] = weakref.WeakSet()
        self.presets: tuple[Preset, ...] = ()
        self.follow(viewer)

    def follow(self, viewer: ViewerModel) -> None:
        """Dragging counts in this viewer too."""
        self._viewers.append(viewer)
        viewer.mouse_drag_callbacks.append(self._on_drag)

    def leave(self, viewer: ViewerModel) -> None:
        """The inverse of `follow`."""
        if viewer in self._viewers:
            self._viewers.remove(viewer)
            if self._on_drag in viewer.mouse_drag_callbacks:
                viewer.mouse_drag_callbacks.remove(self._on_drag)

    def shut_down(self) -> None:
        """Let go of viewers and layer."""
        for viewer in list(self._viewers):
            self.leave(viewer)
        self.set_scan(None, None)

    def set_scan(self, scan: Scan | None, layer: Image | None) -> None:
        """From now on window this layer. One that is new gets the window last used for its modality."""
        if self._layer is not None:
            self._layer.events.contrast_limits.disconnect(self._on_limits)
        self._scan, self._layer = (scan, layer) if scan is not None and layer is not None else (None, None)
        self.presets = presets(self._scan) if self._scan is not None else ()
        if self._scan is None or self._layer is None:
            return
        self._kind = modality(self._scan) or "other"
        self._layer.events.contrast_limits.connect(self._on_limits)
        if self._layer not in self._seen:
            self._seen.add(self._layer)
            self._begin()
        else:
            self._name = CUSTOM
            self.tell()

    @property
    def name(self) -> str:
        """The preset in use."""
        return self._name

    def choose(self, name: str) -> None:
        """Use a preset."""
        for preset in self.presets:
            if preset.name == name and self._scan is not None:
                self._memory[self._kind] = name
                self._set(preset.limits(self._scan), name)

    def step(self, by: int) -> None:
        """The next preset, or the one before."""
        names = [preset.name for preset in self.presets]
        if names:
            at = names.index(self._name) if self._name in names else (-1 if by > 0 else 0)
            self.choose(names[(at + by) % len(names)])

    # Details

    def _begin(self) -> None:
        before = self._memory[self._kind]
        if isinstance(before, tuple):
            self._set(before, CUSTOM)
        elif before in [preset.name for preset in self.presets]:
            self.choose(str(before))
        elif self._scan is not None and self.presets is CT:
            self._set(CT[0].limits(self._scan), CT[0].name)
        else:
            self._name = OTHER[0].name if self.presets else CUSTOM  # which it was opened with
            self.tell()

    def _set(self, limits: tuple[float, float], name: str) -> None:
        if self._layer is None:
            return
        self._name, self._writing = name, True
        try:
            self._layer.contrast_limits = limits
        finally:
            self._writing = False
        self.tell()

    def tell(self) -> None:
        """Say again what the window is."""
        if self._layer is not None:
            low, high = self._layer.contrast_limits
            self.changed.emit(self._name, (low + high) / 2, high - low)

    def _on_limits(self, event: Any = None) -> None:
        """The person may also use napari's own slider."""
        if not self._writing:
            self._name = CUSTOM
            self.tell()

    def _on_drag(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """To the right: wider. Up: brighter, which is a lower level."""
        layer = self._layer
        wanted = event.button == 2 and set(event.modifiers) == {"Shift"} and viewer.dims.ndisplay == 2
        if not wanted or layer is None:
            return
        event.handled = True
        begun = np.asarray(event.pos, dtype=float)
        low, high = (float(v) for v in layer.contrast_limits)
        with _brush_down(viewer):
            yield
            while event.type == "mouse_move":
                event.handled = True
                self._set(dragged((low, high), *(np.asarray(event.pos) - begun)), CUSTOM)
                yield
        if self._kind == "CT":  # elsewhere the numbers of one scan say nothing about another
            self._memory[self._kind] = tuple(float(v) for v in layer.contrast_limits)  # type: ignore[assignment]


@contextmanager
def _brush_down(viewer: ViewerModel) -> Iterator[None]:
    """Meanwhile no tool of the active layer works: a brush would paint with any button."""
    active = viewer.layers.selection.active
    if active is None or str(active.mode) == "pan_zoom":
        yield
        return
    mode, active.mode = active.mode, "pan_zoom"
    try:
        yield
    finally:
        active.mode = mode


def dragged(limits: tuple[float, float], right: float, down: float) -> tuple[float, float]:
    """The limits after the mouse moved by so many pixels."""
    low, high = limits
    width = (high - low) * 2 ** (right / _DRAGGED)
    level = (low + high) / 2 + (high - low) * down / _DRAGGED
    width = max(width, _NARROWEST * max(1.0, abs(level)))
    return level - width / 2, level + width / 2
