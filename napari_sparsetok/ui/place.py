"""Where a napari layer lies in the world, and to put it back there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Layer

PARTS = ("scale", "translate", "rotate", "shear", "affine")
"""Of a layer's place, each with an event of its name."""


@dataclass(frozen=True, eq=False)
class Place:
    """A place that a layer had.

    parts : by the names of `PARTS`.
    """

    parts: Mapping[str, Any]

    @classmethod
    def of(cls, layer: Layer) -> Place:
        """Where a layer lies now."""
        return cls({name: np.array(getattr(layer, name)) for name in PARTS})

    def put_back(self, layer: Layer) -> bool:
        """Move a layer back; whether it was elsewhere."""
        away = [name for name in PARTS if not self._is_at(layer, name)]
        for name in away:
            setattr(layer, name, self.parts[name])
        return bool(away)

    def is_of(self, layer: Layer) -> bool:
        """Whether a layer lies here."""
        return all(self._is_at(layer, name) for name in PARTS)

    def _is_at(self, layer: Layer, name: str) -> bool:
        now = np.asarray(getattr(layer, name))
        return now.shape == self.parts[name].shape and bool(np.allclose(now, self.parts[name]))
