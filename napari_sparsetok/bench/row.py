"""One thing that was measured, and measuring variants in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Row:
    """One thing that was measured.

    value : the figure; None if it was not measured, and `note` says why.
    spread : the least and the greatest of the rounds.
    target : what it must reach; the sign says from which side.
    """

    name: str
    value: float | None
    unit: str = ""
    spread: tuple[float, float] | None = None
    target: str = ""
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one or without a figure."""
        if self.value is None or not self.target:
            return None
        sign, limit = self.target.split()[:2]
        return self.value <= float(limit) if sign == "≤" else self.value >= float(limit)


def in_turns(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round; one round more, which warms up, is not counted."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    now = clock()
    for turn in range(rounds + 1):
        for name, run in variants.items():
            started = now()
            run()
            if turn:
                times[name].append(now() - started)
    return times


def clock() -> Callable[[], float]:
    """Seconds that this thread had, if it computes alone; else those of the clock."""
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def ratio(
    name: str,
    over: list[float],
    under: list[float],
    target: str = "",
    **more: Any,
) -> Row:
    """One variant against another: the median of the rounds' ratios, with the least and the greatest."""
    ratios = np.asarray(over) / np.asarray(under)
    spread = (round(float(ratios.min()), 3), round(float(ratios.max()), 3))
    return Row(name, round(float(np.median(ratios)), 3), spread=spread, target=target, **more)
