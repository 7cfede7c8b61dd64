"""A store of windows' prefixes with a budget in bytes; what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from napari_sparsetok.engine.completing import Shared
from napari_sparsetok.engine.decoding import ImageSkip
from napari_sparsetok.model import Prefix

_MEMORY = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class WindowPrefix:
    """Of one window, what does not depend on the keep ratio.

    shared : what one keep ratio leaves for the next; filled by `completing.py`, on the CPU alone.
    survivors : which tokens (N,) are kept to the end, by what decided it; filled by whoever found it out (`probe.py`).
        Some hundred kilobytes at most, which `nbytes` leaves out.
    """

    prefix: Prefix
    skip: ImageSkip
    shared: Shared = field(default_factory=Shared)
    survivors: dict[Hashable, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds; more once keep ratios share their completion."""
        prefix = self.prefix
        own = prefix.tokens.nbytes + prefix.scores.nbytes + prefix.places.nbytes + self.skip.nbytes
        return own + self.shared.nbytes

    def to(self, device: torch.device) -> WindowPrefix:
        """The same on a device."""
        prefix, skip = self.prefix, self.skip
        moved = prefix.to(device)
        return WindowPrefix(moved, ImageSkip(skip.main.to(device), skip.short.to(device)), survivors=self.survivors)


class PrefixCache:
    """Least recently used out: from the device's memory to the computer's, and from there for good.

    Parameters
    ----------
    budget : bytes in the computer's memory.
    """

    def __init__(self, budget: int) -> None:
        self._memory = _Shelf(budget)
        self._device, self._near = _MEMORY, _Shelf(0)

    def __len__(self) -> int:
        return len(self._memory.entries) + len(self._near.entries)

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._memory.nbytes + self._near.nbytes

    @property
    def near_budget(self) -> int:
        """Bytes that may be held on the device."""
        return self._near.budget

    def place(self, device: torch.device, budget: int) -> None:
        """Forget all. From here on entries come from a device, and up to a budget of bytes they stay there."""
        self.clear()
        self._device = device
        self._near.budget = budget if device != _MEMORY else 0

    def get(self, key: Hashable) -> WindowPrefix | None:
        """The value on the device, now the most recently used; None if it is not there."""
        entry = self._near.get(key)
        if entry is None and (entry := self._memory.get(key)) is not None and self._near.budget:
            self._memory.take(key)
            entry = entry.to(self._device)
            self.put(key, entry)
        return entry if entry is None or not self._is_away else entry.to(self._device)

    def put(self, key: Hashable, entry: WindowPrefix) -> None:
        """Store a value, or the same one anew after it grew, unless it alone is over the budget."""
        fallen = self._near.put(key, entry) if self._near.budget else [(key, entry)]
        for old, value in fallen:
            self._memory.put(old, value.to(_MEMORY) if self._device != _MEMORY else value)

    def clear(self) -> None:
        """Forget all."""
        self._memory.clear()
        self._near.clear()

    @property
    def _is_away(self) -> bool:
        """Whether entries lie in memory but are needed on the device."""
        return self._device != _MEMORY and not self._near.budget


class _Shelf:
    """Entries in the order of their last use, within a budget."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.nbytes = 0
        self.entries: OrderedDict[Hashable, WindowPrefix] = OrderedDict()
        self._sizes: dict[Hashable, int] = {}  # when they were put

    def get(self, key: Hashable) -> WindowPrefix | None:
        entry = self.entries.get(key)
        if entry is not None:
            self.entries.move_to_end(key)
        return entry

    def take(self, key: Hashable) -> WindowPrefix | None:
        entry = self.entries.pop(key, None)
        self.nbytes -= self._sizes.pop(key, 0)
        return entry

    def put(self, key: Hashable, entry: WindowPrefix) -> list[tuple[Hashable, WindowPrefix]]:
        """What had to leave, which is the entry itself if it alone is over the budget."""
        self.take(key)
        if entry.nbytes > self.budget:
            return [(key, entry)]
        self.entries[key] = entry
        self._sizes[key] = entry.nbytes
        self.nbytes += entry.nbytes
        left = []
        while self.nbytes > self.budget:
            oldest = next(iter(self.entries))
            left.append((oldest, self.entries[oldest]))
            self.take(oldest)
        return left

    def clear(self) -> None:
        self.entries.clear()
        self._sizes.clear()
        self.nbytes = 0
