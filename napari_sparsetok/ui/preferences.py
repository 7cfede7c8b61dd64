"""What a person set in napari's Preferences for this plugin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari.settings import get_plugin_settings

PLUGIN = "napari-sparsetok"


@dataclass(frozen=True)
class Preferences:
    """The defaults that hold where nothing was set.

    device : see `napari_sparsetok.state.Settings`.
    cache_gib : memory for cached prefixes; 0 takes a quarter of what is free.
    keep_ratio : where the slider stands when the panel opens.
    look_ahead : whether other keep ratios are computed on idle.
    """

    device: str = "auto"
    cache_gib: float = 0.0
    keep_ratio: float = 0.25
    look_ahead: bool = True

    @property
    def cache_bytes(self) -> int | None:
        """The same in bytes; None leaves it to the engine."""
        return int(self.cache_gib * 2**30) or None


def preferences() -> Preferences:
    """Read them. Where napari does not know the plugin (it was not installed, only imported) the defaults hold."""
    try:
        chosen: Any = get_plugin_settings(PLUGIN).segmentation
    except KeyError:
        return Preferences()
    look_ahead = bool(getattr(chosen, "look_ahead", True))  # settings of an older version have none
    return Preferences(str(chosen.device), float(chosen.cache_gib), float(chosen.keep_ratio), look_ahead)


def convention() -> str:
    """Which way the millimetres under the cursor rise: "LPS" as in DICOM, or "RAS" as in NIfTI."""
    try:
        chosen: Any = get_plugin_settings(PLUGIN).looking
    except (KeyError, AttributeError):
        return "LPS"
    return "RAS" if str(chosen.coordinates) == "RAS" else "LPS"
