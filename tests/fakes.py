"""A slow engine that tests lead by the hand, and a mailbox instead of a GUI thread."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_sparsetok.engine.contract import Hints, Stopped, Watch
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Geometry, Region, Scan
from napari_sparsetok.state import DeviceReport, Prediction, Settings, Timing, TokenMap
from napari_sparsetok.tokens import count_kept, tokens_left
from napari_sparsetok.weights import Card, Registry

PATIENCE = 20.0
PATCH = 4
LABELS = LabelTable.of(["head", "tail"])
_SERIALS = itertools.count(1)


def make_scan(shape: tuple[int, int, int] = (16, 20, 12), name: str = "scan", **geometry: Any) -> Scan:
    voxels = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    return Scan(voxels, Geometry.shown(shape, **geometry), name=name)


def make_card(id: str = "fake", **changes: Any) -> Card:
    fields: dict[str, Any] = {
        "id": id,
        "title": f"The {id} model",
        "purpose": "Outlines a head and a tail.",
        "modality": "MR T1",
        "channels": ("T1",),
        "spacing": (1.0, 1.0, 1.0),
        "intensity": {"name": "standardise"},
        "labels": LABELS,
        "config": {"patch": PATCH, "window": [16, 20, 12], "prune_after": [1, 2]},
        "sha256": "0" * 64,
        "weights": Path("nowhere.safetensors"),
    }
    return Card(**(fields | changes))


def make_registry(*cards: Card) -> Registry:
    registry = Registry(folders=[])
    registry.cards.update({card.id: card for card in cards or (make_card(),)})
    return registry


def expected_mask(scan: Scan, keep_ratio: float, region: Region | None = None) -> np.ndarray:
    """What the fake says at a keep ratio: label 1, up to a column that grows with the ratio, then label 2."""
    mask = np.zeros(scan.shape, np.uint8)
    box = mask[(region or Region.whole(scan.shape)).slices]
    box[...] = 2
    box[..., : round(keep_ratio * box.shape[2])] = 1
    return mask


def make_tokens(scan: Scan, keep_ratio: float, region: Region | None = None, spacing: float = 1.0) -> TokenMap:
    """The first token is the most important, the last the least."""
    region = region or Region.whole(scan.shape)
    grid = tuple(
        max(1, -(-round(n * s / spacing) // PATCH)) for n, s in zip(region.shape, scan.geometry.spacing, strict=True)
    )
    n = int(np.prod(grid))
    rank = np.arange(n, dtype=np.int32).reshape(grid)
    first, second = count_kept(n, keep_ratio), count_kept(count_kept(n, keep_ratio), keep_ratio)
    stage = np.where(rank < second, 3, np.where(rank < first, 2, 1)).astype(np.uint8)
    scores = (1 - rank / n).astype(np.float32)
    at = [
        o + (a - 0.5) * s + PATCH * spacing / 2
        for o, a, s in zip(scan.geometry.origin, region.start, scan.geometry.spacing, strict=True)
    ]
    return TokenMap(
        importance=np.stack([scores, np.where(rank < first, scores, np.nan)]).astype(np.float32),
        stage=stage,
        rank=rank,
        window_tokens=n,
        left=tokens_left(n, keep_ratio, 2),
        spacing=(PATCH * spacing,) * 3,
        origin=tuple(at),  # type: ignore[arg-type]
    )


def make_prediction(scan: Scan, settings: Settings, mask: np.ndarray | None = None, **changes: Any) -> Prediction:
    region = changes.pop("region", None) or Region.whole(scan.shape)
    fields: dict[str, Any] = {
        "scan": scan,
        "settings": settings,
        "labels": LABELS,
        "region": region,
        "mask": expected_mask(scan, settings.keep_ratio, region) if mask is None else mask,
        "tokens": make_tokens(scan, settings.keep_ratio, region),
        "changed": region,
        "complete": True,
        "timing": Timing(first=0.05, total=0.1, cached=0.5, windows=2, device="CPU"),
        "serial": next(_SERIALS),
    }
    return Prediction(**(fields | changes))


@dataclass
class FakeSegmenter:
    """Waits at a gate before each window until `let` opens it, or not at all if `free`.

    arrived : the keep ratio of each window that has come to the gate.
    finished : of each run that came to its end.
    fail : an error to raise at the next window instead.
    loading : cleared, the model takes long to load.
    notice : what it has to say in each run.
    """

    windows: int = 1
    free: bool = False
    arrived: queue.Queue[float] = field(default_factory=queue.Queue)
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    runs: list[tuple[Settings, Region | None, Hints]] = field(default_factory=list)
    finished: list[float] = field(default_factory=list)
    stopped: int = 0
    fail: Exception | None = None
    notice: str = ""
    loading: threading.Event = field(default_factory=threading.Event)
    threads: set[str] = field(default_factory=set)
    device: DeviceReport = DeviceReport("CPU (no GPU found)")  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        self.loading.set()

    def prepare(self, settings: Settings) -> DeviceReport:
        if not self.loading.wait(PATIENCE):
            raise TimeoutError("nobody let the model be loaded")
        return self.device

    def segment(
        self,
        scan: Scan,
        settings: Settings,
        *,
        region: Region | None = None,
        hints: Hints = Hints(),  # noqa: B008 - frozen
        watch: Watch = Watch(),  # noqa: B008 - frozen
    ) -> Prediction:
        self.runs.append((settings, region, hints))
        self.threads.add(threading.current_thread().name)
        if self.notice:
            watch.on_notice(self.notice)
        full, mask = expected_mask(scan, settings.keep_ratio, region), np.zeros(scan.shape, np.uint8)
        wanted = 1 if hints.focus_only else self.windows
        edges = np.linspace(0, scan.shape[0], self.windows + 1).astype(int)
        for k in range(wanted):
            self._pass_gate(settings.keep_ratio, watch)
            mask[edges[k] : edges[k + 1]] = full[edges[k] : edges[k + 1]]
            watch.on_progress(k + 1, wanted)
            if k + 1 < wanted and watch.on_partial is not None:
                watch.on_partial(make_prediction(scan, settings, mask.copy(), region=region, complete=False))
        self.finished.append(settings.keep_ratio)
        return make_prediction(scan, settings, mask, region=region, complete=wanted == self.windows)

    def _pass_gate(self, keep_ratio: float, watch: Watch) -> None:
        if watch.should_stop():
            self.stopped += 1
            raise Stopped
        self.arrived.put(keep_ratio)
        if not self.free and not self.gate.acquire(timeout=PATIENCE):
            raise TimeoutError("nobody opened the gate")
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error

    def await_window(self) -> float:
        """Wait until a window is at the gate, and say whose."""
        return self.arrived.get(timeout=PATIENCE)

    def let(self, windows: int = 1) -> None:
        self.gate.release(windows)


class Mailbox:
    """What is delivered waits here until the owner's thread looks."""

    def __init__(self) -> None:
        self._letters: queue.Queue[Callable[[], None]] = queue.Queue()

    def deliver(self, function: Callable[[], None]) -> None:
        self._letters.put(function)

    def empty(self) -> None:
        while not self._letters.empty():
            self._letters.get_nowait()()

    def until(self, ready: Callable[[], Any]) -> None:
        """Open letters until something is so."""
        while not ready():
            self._letters.get(timeout=PATIENCE)()
