"""What an engine is, seen from outside. Loads no torch, so that whoever asks for a segmentation need not either."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.scan import Region, Scan, Shape
from napari_sparsetok.state import DeviceReport, Prediction, Settings

if TYPE_CHECKING:
    from napari_sparsetok.engine.probe import Probe


class Stopped(Exception):
    """A run ended because it was asked to; nothing went wrong."""


@dataclass(frozen=True)
class Watch:
    """How a run talks to whoever waits for it. All are called on the computing thread.

    should_stop : asked between windows, and between blocks of the network within one.
    on_progress : windows done, windows in all.
    on_partial : takes a prediction that is not complete yet; None if nobody looks, so that none is made.
    on_notice : a sentence for the person.
    """

    should_stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[int, int], None] = lambda done, total: None
    on_partial: Callable[[Prediction], None] | None = None
    on_notice: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, eq=False)
class Hints:
    """What makes a run quicker, or feel so, and does not change its end.

    focus : the voxel (z, y, x) that the person looks at; its windows come first.
    focus_only : stop after those.
    base : an earlier prediction of the same scan, model and region, shown where windows are still to come.
    descending : this run is one of several keep ratios of the same scan, from 1 down, so what they share may be kept.
        The last digits of the logits may then differ from those of the run by itself.
    spare_core : with `focus_only`: the window is drawn again and again meanwhile, so one core of several is left to it.
    """

    focus: Shape | None = None
    focus_only: bool = False
    base: Prediction | None = None
    descending: bool = False
    spare_core: bool = False


@dataclass(frozen=True, eq=False)
class Reach:
    """How far attention heads look.

    edges : (bins + 1,) mm.
    share : (blocks, heads, bins) share of the attention that goes so far; NaN, as `mean`, where no token was left.
    mean : (blocks, heads) mm, weighted by attention.
    even : (bins,) the share if attention were spread evenly over the window's tokens, as far as they entered.
    """

    edges: NDArray[np.float32]
    share: NDArray[np.float32]
    mean: NDArray[np.float32]
    even: NDArray[np.float32]


class Segmenter(Protocol):
    """Anything that segments scans. Used from one thread at a time."""

    def prepare(self, settings: Settings) -> DeviceReport:
        """Get ready for these settings, and say what will compute."""
        ...

    def segment(
        self,
        scan: Scan,
        settings: Settings,
        *,
        region: Region | None = None,
        hints: Hints = ...,
        watch: Watch = ...,
    ) -> Prediction:
        """Segment a scan, or a region of it.

        Raises
        ------
        ScanError : the scan, the settings or the model cannot be used; says why.
        Stopped : `watch.should_stop` said so.
        """
        ...


@runtime_checkable
class Warming(Protocol):
    """A segmenter that can run its model before there is anything to segment."""

    def warm_up(self, settings: Settings, should_stop: Callable[[], bool]) -> Iterator[tuple[float, float]]:
        """Run the model on an empty window, and say keep ratios and the seconds that one window took."""
        ...


@runtime_checkable
class Probing(Protocol):
    """A segmenter whose windows can be opened up. Not every one can: a remote one may not."""

    def probe(
        self, scan: Scan, settings: Settings, voxel: Sequence[int], region: Region | None = None
    ) -> tuple[Probe, Shape]:
        """The window in whose middle a voxel (z, y, x) of the scan lies, opened up, and the voxel's token in it.

        Raises
        ------
        ScanError : as `Segmenter.segment`, or no window covers the voxel.
        """
        ...
