"""From a scan to a prediction, window by window."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import psutil
import torch

from napari_sparsetok.engine import device as devices
from napari_sparsetok.engine.cache import PrefixCache, WindowPrefix
from napari_sparsetok.engine.canvas import Canvas
from napari_sparsetok.engine.contract import Hints, Stopped, Watch
from napari_sparsetok.engine.layout import Layout, key_of, lay_out
from napari_sparsetok.engine.network import Network, config_of, finish, load_model, prefixes
from napari_sparsetok.engine.probe import Opened, Probe, place_in
from napari_sparsetok.engine.selection import Selector, check
from napari_sparsetok.model import Rule, TokenRecord
from napari_sparsetok.scan import Region, Scan, ScanError, Shape
from napari_sparsetok.state import DeviceReport, Prediction, Settings, Timing
from napari_sparsetok.weights import Card, Registry

__all__ = ["SCDSegmenter", "config_of", "load_model"]

_WARM_RATIOS = (0.1, 0.4, 1.0)
_LONG_WARM_UP = 1.0  # seconds for one window; after it the person is not kept waiting for larger ratios

SHOW_EVERY = 0.5
"""Seconds between partial results of a long run."""


@dataclass
class _Progress:
    """Of one run: what was done, and when."""

    started: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    shown: float = 0.0
    done: int = 0
    cached: int = 0


_SERIALS = itertools.count(1)


class SCDSegmenter:
    """Runs SCD models from the registry. Not to be used from two threads at a time.

    Parameters
    ----------
    registry : where models are found.
    cache_bytes : budget for the cached prefixes in the computer's memory; None takes a quarter of what is free. On a
        GPU a quarter of what is free there comes first.
    """

    def __init__(self, registry: Registry | None = None, cache_bytes: int | None = None) -> None:
        self._registry = registry or Registry()
        budget = psutil.virtual_memory().available // 4 if cache_bytes is None else cache_bytes
        self._cache = PrefixCache(budget)
        self._network: Network | None = None
        self._layout: Layout | None = None
        self._neighbours = devices.Neighbours()
        self._probe: tuple[object, Probe] | None = None  # the last one, and what it is of

    def prepare(self, settings: Settings) -> DeviceReport:
        """Load the model, and say on which device it will run."""
        device = self._load(settings).device
        return DeviceReport(device.name, device.warning)

    def warm_up(self, settings: Settings, should_stop: Callable[[], bool]) -> Iterator[tuple[float, float]]:
        """See `napari_sparsetok.engine.contract.Warming.warm_up`."""
        network = self._load(settings)
        config = network.model.config
        try:
            windows = prefixes(network, torch.zeros(1, config.in_channels, *config.window))
            finish(network, windows, _WARM_RATIOS[0], Rule())  # the first run chooses kernels; its time says nothing
            for keep_ratio in _WARM_RATIOS:
                if should_stop():
                    return
                started = time.perf_counter()
                finish(network, windows, keep_ratio, Rule(), should_stop=should_stop)
                seconds = time.perf_counter() - started
                yield keep_ratio, seconds
                if seconds > _LONG_WARM_UP:
                    return
        except Stopped:
            return
        except (RuntimeError, MemoryError) as error:
            if not devices.is_full(error):  # else the first run will meet it too, and say what it does about it
                raise

    def segment(
        self,
        scan: Scan,
        settings: Settings,
        *,
        region: Region | None = None,
        hints: Hints = Hints(),  # noqa: B008 - frozen
        watch: Watch = Watch(),  # noqa: B008 - frozen
    ) -> Prediction:
        """See `Segmenter.segment`."""
        try:
            return self._segmented(scan, settings, region, hints, watch)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_full(error):
                raise
            raise self._no_memory() from None  # masks and sums lie in the computer's, whatever computes

    def _segmented(
        self, scan: Scan, settings: Settings, region: Region | None, hints: Hints, watch: Watch
    ) -> Prediction:
        progress = _Progress()
        network = self._load(settings)
        check(settings, scan, network.card.stages)
        region = Region.whole(scan.shape) if region is None else region.clipped(scan.shape)
        layout = self._laid_out(scan, network.card, region, settings)
        selector = layout.lattice.selector(settings)
        base = _usable(hints.base, scan, settings, region)
        card = replace(network.card, one_piece=()) if settings.all_pieces else network.card
        canvas = Canvas(scan, region, card, layout.grid, selector, base)
        order = layout.order(region, hints, network.card, shown=watch.on_partial is not None)
        usual = torch.get_num_threads()
        threads = self._neighbours.free_threads(spare=hints.spare_core) if hints.focus_only else usual
        watch.on_progress(0, len(order))
        while progress.done < len(order):
            if watch.should_stop():
                raise Stopped
            size = 1 if selector.uneven or self._ready_network.uneven else self._ready_network.device.batch
            batch = order[progress.done : progress.done + size]
            results = self._run_windows(layout, batch, selector, watch, (threads, hints.descending))
            for index, (logits, record, cached) in zip(batch, results, strict=False):
                canvas.add(index, logits, record)
                progress.done += 1
                progress.cached += cached
            watch.on_progress(progress.done, len(order))
            if watch.on_partial is not None and progress.done < len(order) and _is_time_to_show(progress):
                watch.on_partial(_prediction(canvas, settings, self._ready_network, progress))
        # With another number of threads the last digits differ: good enough to look at, but not the result.
        complete = len(order) == len(layout.plan.regions) and threads == usual
        return _prediction(canvas, settings, self._ready_network, progress, complete)

    def probe(
        self, scan: Scan, settings: Settings, voxel: Sequence[int], region: Region | None = None
    ) -> tuple[Probe, Shape]:
        """See `napari_sparsetok.engine.contract.Probing.probe`."""
        network = self._load(settings)
        check(settings, scan, network.card.stages)
        region = Region.whole(scan.shape) if region is None else region.clipped(scan.shape)
        layout = self._laid_out(scan, network.card, region, settings)
        point = layout.grid.point_of([v - a for v, a in zip(voxel, region.start, strict=True)])
        token = tuple(math.floor(p + 0.5) // network.card.patch for p in point)
        inside = all(0 <= t < n for t, n in zip(token, layout.plan.owner.shape, strict=True))
        index = int(layout.plan.owner[token]) if inside else -1
        if index < 0:
            raise ScanError("the network did not look here: no window covers this place")
        key = (layout.key, settings, index)
        while self._probe is None or self._probe[0] != key:
            try:
                self._probe = (key, self._opened(layout, settings, index))
            except (RuntimeError, MemoryError) as error:
                if not devices.is_full(error):
                    raise
                self._make_room(Watch())
        probe = self._probe[1]
        return probe, place_in(probe.box, token)

    # Steps

    def _opened(self, layout: Layout, settings: Settings, index: int) -> Probe:
        network, selector = self._ready_network, layout.lattice.selector(settings)
        (prefix,), _ = self._prefixes(layout, [index])
        box = layout.plan.tokens(index)
        opened = Opened(
            model=network.model,
            decoder=network.decoder,
            image=layout.volume.read(layout.plan.regions[index])[None].to(network.device.device),
            prefix=prefix,
            ratios=selector.ratios,
            rule=selector.rule([index], network.device.device),
            box=box,
            spacing=tuple(network.card.patch * s for s in layout.grid.spacing),  # type: ignore[arg-type]
            forced=None if selector.forced is None else selector.forced[box.slices],
            encoding=network.encoding,
            completing=network.completing,
        )
        return Probe(opened)

    def _load(self, settings: Settings) -> Network:
        if not settings.model:
            raise ScanError("no model is chosen; choose one first")
        card = self._registry[settings.model]
        old = self._network
        if old and old.card is card and old.asked == settings.device:
            return old
        device = devices.choose(settings.device)
        model = load_model(card)
        try:
            network = Network.on(card, model, device, settings.device)
        except (RuntimeError, MemoryError) as error:
            if not devices.is_full(error) or device.device.type == "cpu":
                raise
            device = devices.cpu("CPU (the GPU is full)", "The GPU has no room for this model, so the CPU computes.")
            network = Network.on(card, model, device, settings.device)
        self._cache.place(device.device, devices.free_memory(device) // 4)
        self._layout = self._probe = None
        self._network = network
        return network

    def _laid_out(self, scan: Scan, card: Card, region: Region, settings: Settings) -> Layout:
        if self._layout is None or self._layout.key != key_of(scan, card, region, settings.replace_nonfinite):
            self._layout = lay_out(scan, card, region, settings.replace_nonfinite)
        return self._layout

    @property
    def _ready_network(self) -> Network:
        if self._network is None:
            raise RuntimeError("no model was loaded")
        return self._network

    def _run_windows(
        self, layout: Layout, batch: Sequence[int], selector: Selector, watch: Watch, how: tuple[int, bool]
    ) -> list[tuple[torch.Tensor, TokenRecord, bool]]:
        """For each window logits (1, classes, D, H, W), its tokens, and whether its prefix came from the cache.

        `how` says on how many threads, and whether keep ratios come from 1 down.
        After the device ran out of memory these may be fewer windows than were asked for, from the first.
        """
        while True:
            batch = batch[: self._ready_network.device.batch]
            try:
                windows, cached = self._prefixes(layout, batch)
                rule = selector.rule(batch, self._ready_network.device.device)
                share = how[1] and all(cached)  # what is left to a window that is not kept helps nobody
                with devices.threads(how[0]):
                    results = finish(self._ready_network, windows, selector.ratios, rule, share, watch.should_stop)
                for index, window in zip(batch, windows, strict=True):
                    if share:  # it may have grown
                        self._cache.put((layout.key, index), window)
                return [(*result, was) for result, was in zip(results, cached, strict=True)]
            except (RuntimeError, MemoryError) as error:
                if not devices.is_full(error):
                    raise
                self._make_room(watch)

    def _prefixes(self, layout: Layout, batch: Sequence[int]) -> tuple[list[WindowPrefix], list[bool]]:
        found = {index: self._cache.get((layout.key, index)) for index in batch}
        missing = [index for index in batch if found[index] is None]
        if missing:
            images = torch.stack([layout.volume.read(layout.plan.regions[index]) for index in missing])
            for index, entry in zip(missing, prefixes(self._ready_network, images), strict=True):
                found[index] = entry
                self._cache.put((layout.key, index), entry)
        return [entry for entry in found.values() if entry is not None], [index not in missing for index in batch]

    def _no_memory(self) -> ScanError:
        self._cache.clear()  # that much is free at the next try
        return ScanError("there is not enough memory for this model; close other programs, or choose a region")

    def _make_room(self, watch: Watch) -> None:
        """After the GPU ran out of memory: run fewer windows at a time, then give up the cache, then the GPU."""
        network = self._ready_network
        if network.device.device.type == "cpu":
            raise self._no_memory()
        if network.device.batch > 1:
            watch.on_notice("The GPU is out of memory; going on with fewer windows at a time.")
            self._network = replace(network, device=replace(network.device, batch=network.device.batch // 2))
        elif self._cache.near_budget:
            watch.on_notice("The GPU is out of memory; going on without the cache on it, so the slider is slower.")
            self._cache.place(network.device.device, 0)
        else:
            watch.on_notice("The GPU is out of memory; going on with the CPU, which is slower.")
            device = devices.cpu("CPU (the GPU ran out of memory)")
            self._network = Network.on(network.card, network.model, device, network.asked)
            self._cache.place(device.device, 0)
        self._cache.clear()
        self._probe = None  # it may lie where the model is no more
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _usable(base: Prediction | None, scan: Scan, settings: Settings, region: Region) -> Prediction | None:
    if base is None or base.scan is not scan or base.settings.model != settings.model or base.region != region:
        return None
    return base


def _is_time_to_show(progress: _Progress) -> bool:
    now = time.perf_counter()
    if not progress.shown or now - progress.shown >= SHOW_EVERY:
        progress.shown = now
        return True
    return False


def _prediction(
    canvas: Canvas, settings: Settings, network: Network, progress: _Progress, complete: bool = False
) -> Prediction:
    mask, changed = canvas.mask()
    serial, builds_on = next(_SERIALS), canvas.builds_on
    canvas.builds_on = serial
    now = time.perf_counter() - progress.started
    progress.first = progress.first or now
    timing = Timing(
        first=progress.first,
        total=now,
        cached=progress.cached / max(1, progress.done),
        windows=progress.done,
        device=network.device.name,
        entered=canvas.entered,
        passed=canvas.passed,
        memory=devices.memory(network.device),
    )
    return Prediction(
        scan=canvas.scan,
        settings=replace(settings),
        labels=network.card.labels,
        region=canvas.region,
        mask=mask,
        tokens=canvas.tokens(),
        changed=changed,
        complete=complete,
        timing=timing,
        serial=serial,
        builds_on=builds_on,
        left_out=tuple((piece.label, piece.voxels) for piece in canvas.left_out),
        by_token=canvas.by_token,
    )
