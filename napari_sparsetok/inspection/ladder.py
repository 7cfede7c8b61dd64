"""One scan under many keep ratios and rules: the sweep, the stability map, and the ratio that is low enough."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from napari_sparsetok.engine.contract import Hints, Segmenter, Stopped, Watch
from napari_sparsetok.metrics import Agreement, Yardstick
from napari_sparsetok.scan import Region, Scan
from napari_sparsetok.state import Prediction, Reference, Settings
from napari_sparsetok.tokens import LADDER, smallest_agreeing, stability
from napari_sparsetok.weights import Card

_SAMPLE = 0.025  # seconds between looks at the memory


@dataclass(frozen=True)
class Rung:
    """One keep ratio of a sweep.

    keep_ratio : for each stage; NaN with a threshold or a ratio for each stage.
    left : tokens before the first stage and after each, over all windows.
    gmac : multiply-accumulate operations of all windows, in thousands of millions.
    seconds : of the run, with cached prefixes as far as they fit, and with what the rung above left; only the first run
        of a scan fills the cache.
    memory : most bytes that the process held in main memory while it ran, as sampled.
    agreement : with the dense prediction, label by label.
    reference : with the reference mask, if there is one, within the region.
    """

    keep_ratio: float
    left: tuple[int, ...]
    gmac: float
    seconds: float
    memory: int
    agreement: tuple[Agreement, ...]
    reference: tuple[Agreement, ...] = ()

    @property
    def worst(self) -> float:
        """The lowest Dice coefficient of any label with the dense prediction."""
        return min((row.dice for row in self.agreement), default=math.nan)

    @property
    def reference_dice(self) -> float:
        """Mean Dice coefficient over labels with the reference; NaN without one."""
        return float(np.mean([row.dice for row in self.reference])) if self.reference else math.nan


@dataclass(frozen=True, eq=False)
class Sweep:
    """What is known of one scan over keep ratios.

    settings : of all runs, but for the ratio; without threshold or ratios of stages, as every run has one ratio.
    dense : the prediction that prunes nothing.
    rungs : from the highest ratio down.
    lowest : (z, y, x) float32, see `napari_sparsetok.tokens.stability`.
    kept_from : (d, h, w) float32, the lowest ratio such that at it, and at every higher one that was tried, the token
        is kept to the end; NaN where no window looked, or where a person said that it must go.
    settled : for each rung, the voxels of the region whose label is steady from there up, and not from further down.
    complete : False while rungs are still to come.
    """

    scan: Scan
    settings: Settings
    region: Region
    dense: Prediction
    rungs: tuple[Rung, ...]
    lowest: NDArray[np.float32]
    kept_from: NDArray[np.float32]
    settled: tuple[int, ...]
    complete: bool

    def auto(self, least: float = 0.99) -> float | None:
        """The smallest ratio of the sweep at which every label agrees so much with the dense prediction."""
        return smallest_agreeing([(rung.keep_ratio, rung.worst) for rung in self.rungs], least)

    def to_json(self) -> dict[str, Any]:
        """Plain values: the table, without voxels."""
        rows: list[dict[str, Any]] = [
            {**vars(rung), "worst_agreement": rung.worst, "settled_voxels": n}
            for rung, n in zip(self.rungs, self.settled, strict=True)
        ]
        for row in rows:
            for key in ("agreement", "reference"):
                row[key] = [vars(x) for x in row[key]]
        return {
            "settings": self.settings.to_json(),
            "scan_sha256": self.scan.content_hash,
            "region_zyx": {"start": self.region.start, "stop": self.region.stop},
            "device": self.dense.timing.device,
            "windows": self.dense.timing.windows,
            "rungs": rows,
            "complete": self.complete,
            "smallest_ratio_that_agrees_0.99": self.auto(),
        }


@dataclass(frozen=True, eq=False)
class Question:
    """What a sweep is of.

    settings : the rule among them; its ratios and threshold are replaced by those of the ladder.
    region : None is the whole scan.
    reference : to compare with, if there is one. Any mask on the scan's grid with the model's labels.
    """

    scan: Scan
    settings: Settings
    card: Card
    region: Region | None = None
    reference: Reference | None = None
    ladder: tuple[float, ...] = LADDER


def dense_of(settings: Settings) -> Settings:
    """The settings that prune nothing."""
    return replace(
        settings, keep_ratio=1.0, stage_ratios=None, threshold=None, forced=None, selection="learned", reference=None
    )


def sweep(
    segmenter: Segmenter,
    question: Question,
    watch: Watch = Watch(),  # noqa: B008 - frozen
    on_rung: Callable[[Sweep], None] = lambda so_far: None,
) -> Sweep:
    """Segment one scan at every keep ratio of a ladder, from the highest down.

    Parameters
    ----------
    watch : asked whether to stop between windows; told of every rung.
    on_rung : told what is known after each.

    Raises
    ------
    Stopped : the watch said so. What was known came by `on_rung`.
    ScanError : as `Segmenter.segment`.
    """
    q = question
    ratios = sorted({1.0, *q.ladder}, reverse=True)
    quiet = Watch(should_stop=watch.should_stop, on_notice=watch.on_notice)
    dense, seconds, memory = measured(segmenter, q.scan, dense_of(q.settings), q.region, quiet)
    against = _Against.of(q, dense)
    rungs = [_rung(q, against, dense, seconds, memory)]
    masks = _Masks([(1.0, dense.mask)])
    known = stability(masks)
    lowest = next(known)
    settled: tuple[int, ...] = (math.prod(dense.region.shape),)
    kept = dense.tokens.stage > 0
    if q.settings.forced is not None:  # no ratio keeps what must go, though the dense run, which obeys nobody, did
        kept &= q.settings.forced.signs() >= 0
    kept_from = np.where(kept, np.float32(1), np.float32(np.nan))
    rule = replace(q.settings, stage_ratios=None, threshold=None)
    so_far = Sweep(q.scan, rule, dense.region, dense, tuple(rungs), lowest, kept_from, settled, len(ratios) == 1)
    on_rung(so_far)
    for done, ratio in enumerate(ratios[1:], start=2):
        watch.on_progress(done - 1, len(ratios))
        settings = replace(rule, keep_ratio=ratio)
        found, seconds, memory = measured(segmenter, q.scan, settings, q.region, quiet)
        rungs.append(_rung(q, against, found, seconds, memory))
        masks.waiting.append((ratio, found.mask))
        lowest = next(known)
        kept &= found.tokens.stage == found.tokens.stages + 1
        kept_from = np.where(kept, np.float32(ratio), kept_from)
        settled = _settled(lowest[dense.region.slices], rungs)
        so_far = replace(
            so_far,
            rungs=tuple(rungs),
            lowest=lowest,
            kept_from=kept_from,
            settled=settled,
            complete=done == len(ratios),
        )
        on_rung(so_far)
    watch.on_progress(len(ratios), len(ratios))
    return so_far


def measured(
    segmenter: Segmenter, scan: Scan, settings: Settings, region: Region | None, watch: Watch
) -> tuple[Prediction, float, int]:
    """One of several predictions from the highest ratio down, its seconds, and the most bytes held meanwhile."""
    with _PeakMemory() as peak:
        started = time.perf_counter()
        prediction = segmenter.segment(scan, settings, region=region, hints=Hints(descending=True), watch=watch)
        seconds = time.perf_counter() - started
    return prediction, seconds, peak.most


def gmac_of(prediction: Prediction, card: Card) -> float:
    """Multiply-accumulate operations of all windows of a prediction, in thousands of millions."""
    from napari_sparsetok.engine.segmenter import config_of  # loads torch
    from napari_sparsetok.model.flops import gmac_at

    tokens, config = prediction.tokens, config_of(card)
    if tokens.window_grid is not None and config.positions == "sincos":
        d, h, w = tokens.window_grid
        config = replace(config, window=(config.patch * d, config.patch * h, config.patch * w))
    if tokens.left_by_window is not None:
        alike, times = np.unique(tokens.left_by_window, axis=0, return_counts=True)
        return float(sum(n * gmac_at(config, left) for left, n in zip(alike.tolist(), times.tolist(), strict=True)))
    windows = tokens.left[0] / tokens.window_tokens if tokens.window_tokens else 1
    return gmac_at(config, [n / windows for n in tokens.left]) * prediction.timing.windows


@dataclass(frozen=True, eq=False)
class _Against:
    """What all rungs are compared with: the dense mask, and the reference within the region, if there is one."""

    dense: Yardstick
    reference: Yardstick | None

    @classmethod
    def of(cls, q: Question, dense: Prediction) -> _Against:
        spacing, box = q.scan.geometry.spacing, dense.region.slices  # what lies beside it nobody was asked for
        reference = None if q.reference is None else Yardstick(q.reference.mask[box], spacing, dense.labels)
        return cls(Yardstick(dense.mask, spacing, dense.labels), reference)


def _rung(q: Question, against: _Against, found: Prediction, seconds: float, memory: int) -> Rung:
    reference, box = against.reference, found.region.slices
    return Rung(
        keep_ratio=found.settings.keep_ratio,
        left=found.tokens.left,
        gmac=gmac_of(found, q.card),
        seconds=seconds,
        memory=memory,
        agreement=against.dense.compare(found.mask),
        reference=() if reference is None else reference.compare(found.mask[box]),
    )


def _settled(lowest: NDArray[np.float32], rungs: Sequence[Rung]) -> tuple[int, ...]:
    return tuple(int(np.count_nonzero(lowest == np.float32(rung.keep_ratio))) for rung in rungs)


@dataclass
class _Masks:
    """Masks for `stability`, handed on as they come."""

    waiting: list[tuple[float, NDArray[Any]]]

    def __iter__(self) -> _Masks:
        return self

    def __next__(self) -> tuple[float, NDArray[Any]]:
        if not self.waiting:
            raise StopIteration
        return self.waiting.pop(0)


@dataclass
class _PeakMemory:
    """Looks at the resident memory of this process again and again, because only some systems keep its peak."""

    most: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _PeakMemory:
        self._process = psutil.Process()
        self._look()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE):
            self._look()

    def _look(self) -> None:
        self.most = max(self.most, int(self._process.memory_info().rss))


def stopped_early(work: Callable[[], Sweep], known: Sequence[Sweep]) -> Sweep:
    """A sweep, or what was known of it when it was stopped.

    Raises
    ------
    Stopped : before anything was known.
    """
    try:
        return work()
    except Stopped:
        if not known:
            raise
        return known[-1]
