"""A store of values with a budget in bytes; what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from napari_sparsetok.engine.decoding import ImageSkip
from napari_sparsetok.model import Prefix


@dataclass(frozen=True, eq=False)
class WindowPrefix:
    """Of one window, what does not depend on the keep ratio."""

    prefix: Prefix
    skip: ImageSkip

    @property
    def nbytes(self) -> int:
        """Bytes that it holds."""
        return self.prefix.tokens.nbytes + self.prefix.scores.nbytes + self.skip.nbytes


class PrefixCache:
    """Least recently used out."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.nbytes = 0
        self._entries: OrderedDict[Hashable, WindowPrefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> WindowPrefix | None:
        """The value, now the most recently used; None if it is not there."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: Hashable, entry: WindowPrefix) -> None:
        """Store a value, unless it alone is over the budget."""
        if entry.nbytes > self.budget:
            return
        old = self._entries.pop(key, None)
        self.nbytes += entry.nbytes - (old.nbytes if old else 0)
        self._entries[key] = entry
        while self.nbytes > self.budget:
            _, oldest = self._entries.popitem(last=False)
            self.nbytes -= oldest.nbytes

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()
        self.nbytes = 0
