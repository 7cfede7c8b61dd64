"""Window and level: which grey values are spread from black to white."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from platformdirs import user_state_path
from psygnal import Signal

from napari_sparsetok.scan import Scan
from napari_sparsetok.ui.window_preset import CT, Preset, modality, presets

CUSTOM = "by hand"

_NARROWEST = 1e-6  # of the span of the voxels
_DRAGGED = 300  # pixels that widen the window to double


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


@dataclass(eq=False)
class _Channel:
    """One scan that is shown, its layer, and the name of its window."""

    scan: Scan
    layer: Image
    kind: str
    presets: tuple[Preset, ...]
    name: str = CUSTOM


class WindowLevel:
    """The window of what is shown: by preset, by key, or by dragging with Shift and the right button.

    Of several channels each has a window of its own. A preset is laid on all of them, on each by its own grey values;
    dragging changes the one that is chosen in the list of layers, else the topmost that is visible.

    Parameters
    ----------
    viewer : where dragging counts; `follow` adds others.
    memory : what was chosen before.
    """

    changed = Signal(str, float, float)  # name of the preset, level, width
    presets_changed = Signal(tuple)

    def __init__(self, viewer: ViewerModel, memory: WindowMemory | None = None) -> None:
        self._memory = memory or WindowMemory()
        self._main = viewer
        self._viewers: list[ViewerModel] = []
        self._channels: list[_Channel] = []
        self._names: weakref.WeakKeyDictionary[Image, str] = weakref.WeakKeyDictionary()
        self._writing = False
        self._offered: tuple[Preset, ...] = ()
        viewer.layers.selection.events.active.connect(self.tell)
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
        """Let go of viewers and layers."""
        self._main.layers.selection.events.active.disconnect(self.tell)
        for viewer in list(self._viewers):
            self.leave(viewer)
        self.set_channels(())

    def set_channels(self, shown: Sequence[tuple[Scan, Image]]) -> None:
        """From now on window these layers. One that is new gets the window last used for its modality."""
        for channel in self._channels:
            channel.layer.events.contrast_limits.disconnect(self._on_limits)
            channel.layer.events.visible.disconnect(self.tell)
        self._channels = [_Channel(scan, layer, modality(scan) or "other", presets(scan)) for scan, layer in shown]
        for channel in self._channels:
            channel.layer.events.contrast_limits.connect(self._on_limits)
            channel.layer.events.visible.connect(self.tell)
            if channel.layer in self._names:
                channel.name = self._names[channel.layer]
            else:
                self._begin(channel)
        self.tell()

    @property
    def presets(self) -> tuple[Preset, ...]:
        """What there is to choose from."""
        current = self._current
        return current.presets if current is not None else ()

    @property
    def name(self) -> str:
        """The preset in use."""
        current = self._current
        return current.name if current is not None else CUSTOM

    def choose(self, name: str) -> None:
        """Use a preset, on every channel that has it."""
        for channel in self._channels:
            if self._use(channel, name):
                self._memory[channel.kind] = name
        self.tell()

    def step(self, by: int) -> None:
        """The next preset, or the one before."""
        names = [preset.name for preset in self.presets]
        if names:
            at = names.index(self.name) if self.name in names else (-1 if by > 0 else 0)
            self.choose(names[(at + by) % len(names)])

    def tell(self, event: Any = None) -> None:
        """Say again what the window is."""
        if self.presets is not self._offered:
            self._offered = self.presets
            self.presets_changed.emit(self._offered)
        current = self._current
        if current is not None:
            low, high = current.layer.contrast_limits
            self.changed.emit(current.name, (low + high) / 2, high - low)

    # Details

    @property
    def _current(self) -> _Channel | None:
        """The channel that the person means."""
        by_layer = {channel.layer: channel for channel in self._channels}
        active = self._main.layers.selection.active
        if active in by_layer:
            return by_layer[active]
        seen = [layer for layer in self._main.layers if layer in by_layer and layer.visible]
        return by_layer[seen[-1]] if seen else next(iter(self._channels), None)

    def _begin(self, channel: _Channel) -> None:
        before = self._memory[channel.kind]
        if isinstance(before, tuple):
            self._set(channel, before, CUSTOM)
        elif not (before and self._use(channel, before)):
            usual = channel.presets[0].name if channel.presets else CUSTOM
            if channel.presets is not CT or not self._use(channel, usual):
                self._name(channel, usual)  # which it was opened with

    def _use(self, channel: _Channel, name: str) -> bool:
        """Whether the channel has a preset of this name."""
        for preset in channel.presets:
            if preset.name == name:
                self._set(channel, preset.limits(channel.scan), name)
                return True
        return False

    def _name(self, channel: _Channel, name: str) -> None:
        channel.name = self._names[channel.layer] = name

    def _set(self, channel: _Channel, limits: tuple[float, float], name: str) -> None:
        self._name(channel, name)
        self._writing = True
        try:
            channel.layer.contrast_limits = limits
        finally:
            self._writing = False

    def _on_limits(self, event: Any = None) -> None:
        """The person may also use napari's own slider."""
        if self._writing:
            return
        for channel in self._channels:
            if event is None or channel.layer is event.source:
                self._name(channel, CUSTOM)
        self.tell()

    def _on_drag(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        """To the right: wider. Up: brighter, which is a lower level."""
        channel = self._current
        wanted = event.button == 2 and set(event.modifiers) == {"Shift"} and viewer.dims.ndisplay == 2
        if not wanted or channel is None:
            return
        event.handled = True
        begun = np.asarray(event.pos, dtype=float)
        low, high = (float(v) for v in channel.layer.contrast_limits)
        with _brush_down(viewer):
            yield
            while event.type == "mouse_move":
                event.handled = True
                self._set(channel, dragged((low, high), *(np.asarray(event.pos) - begun)), CUSTOM)
                self.tell()
                yield
        if channel.kind == "CT":  # elsewhere the numbers of one scan say nothing about another
            low, high = (float(v) for v in channel.layer.contrast_limits)
            self._memory["CT"] = (low, high)


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
