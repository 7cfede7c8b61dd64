"""What the program knows, as frozen values, and the one object that holds the current ones.

Only `napari_sparsetok.session.Session` writes `State`; everyone may listen. Values are replaced, never changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import SignalGroupDescriptor

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Region, Scan, Shape

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Settings:
    """What a person chose for a run.

    model : the model's id in the registry; empty if none is chosen yet.
    keep_ratio : share of the tokens still left that each stage keeps, in (0, 1].
    device : "auto" takes the fastest there is.
    replace_nonfinite : put this value where the scan holds NaN or infinity; None refuses such a scan.
    """

    model: str = ""
    keep_ratio: float = 0.25
    device: DeviceChoice = "auto"
    replace_nonfinite: float | None = None


@dataclass(frozen=True, eq=False)
class TokenMap:
    """What happened to the tokens of a scan, on the token grid that all windows share.

    Where windows overlap, a token's values are those of the window in whose middle it lies.

    importance : (stages, d, h, w) float32, scores in 0 … 1; NaN where a token was gone, or not in the region.
    stage : (d, h, w) uint8. k: pruned at stage k, counted from 1; stages + 1: kept to the end; 0: not looked at.
    rank : (d, h, w) int32, place in its window by first-stage score, 0 the most important; -1 not looked at.
    window_tokens : tokens in one window, of which a stage keeps its share.
    left : tokens before the first stage and after each, over all windows.
    spacing, origin : millimetres along the viewer's axes between tokens, and the middle of token (0, 0, 0).
    """

    importance: NDArray[np.float32]
    stage: NDArray[np.uint8]
    rank: NDArray[np.int32]
    window_tokens: int
    left: tuple[int, ...]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]

    @property
    def stages(self) -> int:
        """How many times tokens were pruned."""
        return int(self.importance.shape[0])


@dataclass(frozen=True)
class DeviceReport:
    """What computes, in words. `warning` says loudly that something faster lies idle, and what to do."""

    name: str
    warning: str = ""


@dataclass(frozen=True)
class Timing:
    """What a run cost.

    first : seconds until the first part of the mask was there.
    total : seconds for all of it.
    cached : share of the windows whose prefix was not computed again, 0 … 1.
    windows : how many windows were run.
    device : where, in words.
    """

    first: float
    total: float
    cached: float
    windows: int
    device: str


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about a scan.

    mask : (z, y, x) uint8 on the scan's own grid; 0 is background.
    region : the box that was segmented; outside it the mask is 0.
    changed : the box in which the mask may differ from the prediction that it builds on.
    complete : False while windows are still to come.
    serial : a number of its own.
    builds_on : serial of that earlier prediction; 0 if there is none, so that all of the mask is new.
    """

    scan: Scan
    settings: Settings
    labels: LabelTable
    region: Region
    mask: NDArray[np.uint8]
    tokens: TokenMap
    changed: Region
    complete: bool
    timing: Timing
    serial: int = 0
    builds_on: int = 0

    @cached_property
    def voxel_counts(self) -> NDArray[np.int64]:
        """How many voxels have each of the numbers 0 to 255. Slow once for a large mask, so not on the GUI thread."""
        counts = np.bincount(self.mask[self.region.slices].ravel(), minlength=256)
        counts[0] += self.mask.size - counts.sum()  # all that lies outside the region
        return counts


@dataclass(frozen=True)
class Busy:
    """What is being done, in words, and how far it is. `total` 0 means that nobody knows."""

    what: str
    done: int = 0
    total: int = 0
    can_cancel: bool = True
    unit: str = "windows"


@dataclass(frozen=True, eq=False)
class Message:
    """A sentence for the person. Two of the same words are two messages, so both are shown."""

    text: str
    severity: Literal["info", "warning", "error"] = "info"


@dataclass(eq=False)
class State:
    """The current values. `events` emits the new value under the field's name."""

    events: ClassVar[Any] = SignalGroupDescriptor()

    scan: Scan | None = None
    settings: Settings = field(default_factory=Settings)
    region: Region | None = None
    focus: Shape | None = None
    tokens: TokenMap | None = None
    prediction: Prediction | None = None
    device: DeviceReport | None = None
    message: Message | None = None
    busy: Busy | None = None
