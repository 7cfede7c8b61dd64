"""What picks the tokens of a volume, laid on its token lattice and cut to windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_sparsetok.engine.intensity import even_step
from napari_sparsetok.engine.resampling import ModelGrid, to_model
from napari_sparsetok.engine.window import WindowPlan
from napari_sparsetok.model import Rule
from napari_sparsetok.scan import Region, Scan, ScanError
from napari_sparsetok.state import Forced, Reference, Selection, Settings
from napari_sparsetok.tokens import stage_ratios

_BINS = 32  # of the histogram of a patch
_SAMPLE = 2**23  # voxels that percentiles are taken of, at least; of less than twice as many, all
_AT_ONCE = 32  # slices that are looked at together


class Layered(Protocol):
    """An image (channels, D, H, W) that comes a few slices at a time; see `Volume`."""

    @property
    def size(self) -> int:
        """Voxels of a channel."""

    def layers(self, thickness: int) -> Iterator[tuple[int, torch.Tensor]]:
        """All of it: number of a layer's first slice, and (channels, up to `thickness`, H, W)."""


@dataclass(frozen=True, eq=False)
class Selector:
    """How the tokens of one volume are picked.

    given : (d, h, w) scores of every token of the lattice, for the selections that do not come from the network.
    forced : (d, h, w) int8, see `TokenMap`.
    """

    plan: WindowPlan
    selection: Selection
    ratios: float | tuple[float, ...]
    threshold: float | None = None
    given: NDArray[np.float32] | None = None
    forced: NDArray[np.int8] | None = None

    @property
    def uneven(self) -> bool:
        """Whether windows may keep different numbers of tokens, so that they cannot run as one batch."""
        return self.threshold is not None or self.forced is not None

    def rule(self, windows: Sequence[int], device: torch.device) -> Rule:
        """For a batch of windows, by their indices."""
        return Rule(
            selection=self.selection,
            threshold=self.threshold,
            given=self._cut(self.given, windows, device),
            forced=self._cut(self.forced, windows, device),
        )

    def _cut(
        self, lattice: NDArray[np.generic] | None, windows: Sequence[int], device: torch.device
    ) -> torch.Tensor | None:
        if lattice is None:
            return None
        rows = [lattice[self.plan.tokens(index).slices].reshape(-1) for index in windows]
        return torch.from_numpy(np.stack(rows)).to(device)  # B N


class Lattice:
    """The tokens of one volume. What ranks them without the network is computed when first asked for.

    Parameters
    ----------
    volume : what the network sees.
    grid, plan : of the volume.
    region : the box of the scan that it covers.
    """

    def __init__(self, volume: Layered, grid: ModelGrid, plan: WindowPlan, region: Region) -> None:
        self._volume, self._grid, self._plan, self._region = volume, grid, plan, region
        self._known: tuple[object, NDArray[np.float32] | None] = (None, None)

    def selector(self, settings: Settings) -> Selector:
        """What the settings say for this volume.

        Raises
        ------
        ScanError : they ask for a reference that is not there, or force tokens of another grid.
        """
        return Selector(
            plan=self._plan,
            selection=settings.selection,
            ratios=settings.ratios,
            threshold=settings.threshold,
            given=self._given(settings),
            forced=self._forced(settings.forced),
        )

    def _given(self, settings: Settings) -> NDArray[np.float32] | None:
        key = (settings.selection, settings.seed, settings.reference)
        if self._known[0] != key:
            self._known = (key, self._computed(settings))
        return self._known[1]

    def _computed(self, settings: Settings) -> NDArray[np.float32] | None:
        if settings.selection == "random":
            return np.random.default_rng(settings.seed).random(self._plan.owner.shape, dtype=np.float32)
        if settings.selection == "entropy":
            return patch_entropy(self._volume, self._plan)
        if settings.selection == "oracle" and settings.reference is not None:
            return self._nearness(settings.reference)
        return None

    def _nearness(self, reference: Reference) -> NDArray[np.float32]:
        """1 where a token is full of the reference, 0.5 or more where it touches it, less the farther it lies."""
        grid, p, (d, h, w) = self._grid, self._plan.patch, self._plan.owner.shape
        touched = to_model((reference.mask[self._region.slices] > 0).astype(np.float32), grid)
        pads = [(0, n - m) for n, m in zip(grid.padded, grid.inner, strict=True)]
        share = np.pad(touched, pads).reshape(d, p, h, p, w, p).mean(axis=(1, 3, 5))
        far = ndimage.distance_transform_edt(share == 0) if (share > 0).any() else np.ones_like(share)
        return np.where(share > 0, 0.5 + share / 2, 0.5 / (1 + far)).astype(np.float32)

    def _forced(self, forced: Forced | None) -> NDArray[np.int8] | None:
        if forced is None:
            return None
        if forced.region != self._region or forced.grid != self._plan.owner.shape:
            raise ScanError(
                "the tokens chosen by hand belong to another region or model; take them back and choose anew"
            )
        return forced.signs()


def check(settings: Settings, scan: Scan, stages: int) -> None:
    """Refuse what cannot be meant.

    Raises
    ------
    ScanError : a ratio, a threshold, a seed or a reference that does not fit.
    """
    if not 0 < settings.keep_ratio <= 1:
        raise ScanError(f"the keep ratio must be above 0 and at most 1, not {settings.keep_ratio:g}")
    if settings.stage_ratios is not None:
        try:
            stage_ratios(settings.stage_ratios, stages)
        except ValueError as error:
            raise ScanError(str(error)) from None
    if settings.threshold is not None and not 0 <= settings.threshold < float("inf"):
        raise ScanError(f"a threshold must be a number of 0 or more, not {settings.threshold}")
    if settings.seed < 0:
        raise ScanError(f"the seed of a draw is a whole number of 0 or more, not {settings.seed}")
    if settings.selection == "oracle" and settings.reference is None:
        raise ScanError("ranking by a reference needs a reference mask; open one first, or choose another rule")
    if settings.reference is not None and settings.reference.mask.shape != scan.shape:
        raise ScanError("the reference mask lies on another grid than the scan; bring it to the scan's voxels first")


def patch_entropy(volume: Layered, plan: WindowPlan) -> NDArray[np.float32]:
    """Shannon entropy of the voxel values of each patch, as a share of the most that there can be; mean over channels.

    Values are counted in bins between the 0.5th and the 99.5th percentile of the channel; of a volume of more than
    16 million voxels these are taken of evenly spread ones.

    Returns
    -------
    (d, h, w), 0 … 1.
    """
    patch, thickness = plan.patch, plan.patch * max(1, _AT_ONCE // plan.patch)
    ends = _ends(volume, thickness)
    total = np.zeros(plan.owner.shape)
    for z, layer in volume.layers(thickness):
        part = slice(z // patch, z // patch + layer.shape[1] // patch)
        for channel, (low, high) in zip(layer.numpy(), ends, strict=True):
            total[part] += _bits(channel, low, high, patch)
    return (total / (len(ends) * np.log2(min(_BINS, patch**3)))).astype(np.float32)


def _ends(volume: Layered, thickness: int) -> list[NDArray[np.float64]]:
    """Of each channel, the percentiles between which values are counted."""
    samples, before, stride = [], 0, even_step(volume.size, _SAMPLE)
    for _, layer in volume.layers(thickness):
        samples.append(layer.numpy().reshape(len(layer), -1)[:, -before % stride :: stride])
        before += layer[0].numel()
    return [np.percentile(channel, [0.5, 99.5]) for channel in np.concatenate(samples, axis=1)]


def _bits(channel: NDArray[np.float32], low: float, high: float, patch: int) -> NDArray[np.float64]:
    """Entropy (d, h, w) of each patch of a channel (D, H, W)."""
    d, h, w = (side // patch for side in channel.shape)
    bins = np.clip((channel - low) / max(float(high - low), 1e-12) * _BINS, 0, _BINS - 1).astype(np.int64)
    bins = bins.reshape(d, patch, h, patch, w, patch).transpose(0, 2, 4, 1, 3, 5).reshape(d * h * w, -1)
    counts = np.bincount((bins + _BINS * np.arange(len(bins))[:, None]).ravel(), minlength=_BINS * len(bins))
    share = counts.reshape(-1, _BINS) / bins.shape[1]
    bits: NDArray[np.float64] = -(share * np.log2(share, where=share > 0, out=np.zeros_like(share))).sum(axis=1)
    return bits.reshape(d, h, w)
