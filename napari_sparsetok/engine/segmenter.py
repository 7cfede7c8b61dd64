"""From a scan to a prediction, window by window."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors

from napari_sparsetok.engine import device as devices
from napari_sparsetok.engine.cache import PrefixCache, WindowPrefix
from napari_sparsetok.engine.canvas import Canvas
from napari_sparsetok.engine.contract import Hints, Stopped, Watch
from napari_sparsetok.engine.intensity import apply_rule
from napari_sparsetok.engine.resampling import ModelGrid, model_grid, to_model
from napari_sparsetok.engine.window import WindowPlan, plan_windows
from napari_sparsetok.model import SCD, Prefix, SCDConfig, TokenRecord
from napari_sparsetok.scan import Region, Scan, ScanError, Shape
from napari_sparsetok.state import DeviceReport, Prediction, Settings, Timing
from napari_sparsetok.weights import Card, CardError, Registry

SHOW_EVERY = 0.5
"""Seconds between partial results of a long run."""


@dataclass(frozen=True, eq=False)
class _Network:
    """A model in memory on a device."""

    card: Card
    model: SCD
    device: devices.Device


@dataclass(frozen=True, eq=False)
class _Volume:
    """A region of a scan on the model's grid, ready for windows."""

    key: tuple[Any, ...]
    image: torch.Tensor  # channels D H W, padded
    grid: ModelGrid
    plan: WindowPlan


@dataclass
class _Progress:
    """Of one run: what was done, and when."""

    started: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    shown: float = 0.0
    done: int = 0
    cached: int = 0


class SCDSegmenter:
    """Runs SCD models from the registry. Not to be used from two threads at a time.

    Parameters
    ----------
    registry : where models are found.
    cache_bytes : budget for the cached prefixes; None takes a quarter of the memory that is free.
    """

    def __init__(self, registry: Registry | None = None, cache_bytes: int | None = None) -> None:
        self._registry = registry or Registry()
        budget = psutil.virtual_memory().available // 4 if cache_bytes is None else cache_bytes
        self._cache = PrefixCache(budget)
        self._network: _Network | None = None
        self._volume: _Volume | None = None

    def prepare(self, settings: Settings) -> DeviceReport:
        """Load the model, and say on which device it will run."""
        device = self._load(settings).device
        return DeviceReport(device.name, device.warning)

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
        progress = _Progress()
        if not 0 < settings.keep_ratio <= 1:
            raise ScanError(f"the keep ratio must be above 0 and at most 1, not {settings.keep_ratio:g}")
        network = self._load(settings)
        region = Region.whole(scan.shape) if region is None else region.clipped(scan.shape)
        volume = self._prepared(scan, network.card, region, settings)
        canvas = Canvas(
            scan, region, network.card, volume.grid, volume.plan, _usable(hints.base, scan, settings, region)
        )
        order = _order(volume, region, hints)
        for index, window, cached in self._windows(network, volume, order, watch):
            logits, record = self._finish(network, window, settings.keep_ratio)
            canvas.add(index, logits, record)
            progress.done += 1
            progress.cached += cached
            watch.on_progress(progress.done, len(order))
            if progress.done < len(order) and _is_time_to_show(progress, volume, hints):
                watch.on_partial(_prediction(canvas, settings, network, progress))
        return _prediction(canvas, settings, network, progress, complete=len(order) == len(volume.plan.regions))

    # Steps

    def _load(self, settings: Settings) -> _Network:
        if not settings.model:
            raise ScanError("no model is chosen; choose one first")
        card = self._registry[settings.model]
        device = devices.choose(settings.device)
        old = self._network
        if old and old.card.id == card.id and old.card.sha256 == card.sha256 and old.device == device:
            return old
        model = load_model(card).to(device.device)
        self._cache.clear()
        self._volume = None
        self._network = _Network(card, model, device)
        return self._network

    def _prepared(self, scan: Scan, card: Card, region: Region, settings: Settings) -> _Volume:
        key = (scan.content_hash, card.sha256, region, settings.replace_nonfinite)
        if self._volume and self._volume.key == key:
            return self._volume
        grid = model_grid(region.shape, scan.geometry.spacing, card.spacing, card.patch)
        pads = [(0, p - n) for p, n in zip(grid.padded, grid.inner, strict=True)]
        channels = []
        for voxels in _channels(scan, card):
            box = _finite(voxels[region.slices], settings.replace_nonfinite)
            channels.append(np.pad(apply_rule(card.intensity, to_model(box, grid)), pads, mode="edge"))
        plan = plan_windows(grid.padded, _largest_window(card, grid), card.patch, card.overlap)
        self._volume = _Volume(key, torch.from_numpy(np.stack(channels)), grid, plan)
        return self._volume

    def _windows(
        self, network: _Network, volume: _Volume, order: Sequence[int], watch: Watch
    ) -> Iterator[tuple[int, WindowPrefix, bool]]:
        for index in order:
            if watch.should_stop():
                raise Stopped
            key = (volume.key, index)
            entry = self._cache.get(key)
            cached = entry is not None
            if entry is None:
                entry = _prefix(network, volume.image[(slice(None), *volume.plan.regions[index].slices)][None])
                self._cache.put(key, entry)
            yield index, entry, cached

    def _finish(self, network: _Network, window: WindowPrefix, keep_ratio: float) -> tuple[torch.Tensor, TokenRecord]:
        with torch.inference_mode(), _autocast(network.device):
            prefix = window.prefix
            parts, ids, scores = network.model.encode_rest(prefix, keep_ratio)
            completed = network.model.complete(parts, ids, prefix.grid)
            logits = network.model.decode(completed, window.image_skip)
            return logits.float(), network.model.record(ids, scores, prefix.grid)


def load_model(card: Card) -> SCD:
    """Build the network of a card and load its verified weights, in float32 and for inference.

    Raises
    ------
    CardError : the weights are missing, damaged, or do not fit the card's config.
    """
    stored = card.verified_weights()
    try:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.config.items()}
        config = SCDConfig(**fields)
        model = SCD(config)
        model.load_state_dict({name: tensor.float() for name, tensor in load_tensors(stored).items()})
    except (TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise CardError(
            f"the weights of “{card.title}” do not fit its card ({first_line}); install the model again"
        ) from None
    if config.in_channels != len(card.channels) or config.out_channels != len(card.labels) + 1:
        raise CardError(f"the card of “{card.title}” names other channels or labels than its network has")
    return model.eval().requires_grad_(False)


def _channels(scan: Scan, card: Card) -> NDArray[Any]:
    """The scan as (channels, z, y, x)."""
    if scan.leading == "time":
        raise ScanError("this scan has a time axis; choose one frame of it")
    voxels = scan.voxels if scan.leading == "channel" else scan.voxels[None]
    if len(voxels) != len(card.channels):
        raise ScanError(
            f"“{card.title}” needs {len(card.channels)} volume(s) ({', '.join(card.channels)}), "
            f"but {len(voxels)} were given"
        )
    return voxels


def _finite(voxels: NDArray[Any], replacement: float | None) -> NDArray[Any]:
    if replacement is None or voxels.dtype.kind != "f":
        return voxels
    return np.where(np.isfinite(voxels), voxels, np.asarray(replacement, dtype=voxels.dtype))


def _largest_window(card: Card, grid: ModelGrid) -> Shape:
    if card.config.get("positions") != "learned":
        return card.window
    if any(n < w for n, w in zip(grid.padded, card.window, strict=True)):
        raise ScanError(
            f"“{card.title}” takes windows of exactly {' × '.join(map(str, card.window))} voxels, "
            "and this scan or region is smaller; choose a larger region"
        )
    return card.window


def _usable(base: Prediction | None, scan: Scan, settings: Settings, region: Region) -> Prediction | None:
    if base is None or base.scan is not scan or base.settings.model != settings.model or base.region != region:
        return None
    return base


def _order(volume: _Volume, region: Region, hints: Hints) -> list[int]:
    focus = hints.focus or tuple((a + b) // 2 for a, b in zip(region.start, region.stop, strict=True))
    point = volume.grid.point_of([f - a for f, a in zip(focus, region.start, strict=True)])
    return volume.plan.holding(point) if hints.focus_only else volume.plan.by_distance(point)


def _is_time_to_show(progress: _Progress, volume: _Volume, hints: Hints) -> bool:
    now = time.perf_counter()
    if not progress.first or now - progress.shown >= SHOW_EVERY:
        progress.first = progress.first or now - progress.started
        progress.shown = now
        return True
    return False


def _prefix(network: _Network, image: torch.Tensor) -> WindowPrefix:
    with torch.inference_mode(), _autocast(network.device):
        image = image.to(network.device.device)
        prefix: Prefix = network.model.encode_prefix(image)
        return WindowPrefix(prefix, network.model.image_skip(image))


def _autocast(device: devices.Device) -> torch.autocast:
    return torch.autocast(device.device.type, dtype=device.dtype if device.reduced else None, enabled=device.reduced)


def _prediction(
    canvas: Canvas, settings: Settings, network: _Network, progress: _Progress, complete: bool = False
) -> Prediction:
    mask, changed = canvas.mask()
    now = time.perf_counter() - progress.started
    timing = Timing(
        first=progress.first or now,
        total=now,
        cached=progress.cached / max(1, progress.done),
        windows=progress.done,
        device=network.device.name,
    )
    return Prediction(
        scan=canvas.scan,
        settings=replace(settings),
        labels=network.card.labels,
        region=canvas.region,
        mask=mask,
        tokens=canvas.tokens(settings.keep_ratio),
        changed=changed,
        complete=complete,
        timing=timing,
    )
