"""How long a part of the mask takes at a keep ratio, from times that were measured. Loads no torch."""

from __future__ import annotations

from collections import deque

import numpy as np

SMALLEST = 0.01
_REMEMBERED = 24  # times; older ones were measured on a machine that may have been busier or idler
STEPS = np.round(np.arange(SMALLEST, 1.0 + SMALLEST / 2, SMALLEST), 2)
"""The keep ratios that there are to choose from, as on the slider."""


class Pace:
    """Learns seconds from keep ratios: a part that is always there, and one that grows with the tokens that go on.

    Parameters
    ----------
    stages : how many times the model prunes.
    """

    def __init__(self, stages: int) -> None:
        self._stages = max(1, stages)
        self._times: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._tokens = 0  # of the windows that they are of

    def __len__(self) -> int:
        return len(self._times)

    def add(self, keep_ratio: float, seconds: float, tokens: int = 0) -> None:
        """One time more, of a window of so many tokens; times of windows of another size are brought to this one's."""
        expected = self.seconds_at(keep_ratio)
        if tokens != self._tokens and expected:
            longer = seconds / expected
            self._times = deque(((ratio, longer * s) for ratio, s in self._times), maxlen=_REMEMBERED)
        self._tokens = tokens
        self._times.append((keep_ratio, seconds))

    def seconds_at(self, keep_ratio: float) -> float | None:
        """What a ratio should take; None before anything was measured."""
        if not self._times:
            return None
        ratios, seconds = np.array(self._times).T
        work = self._work(ratios)
        if np.ptp(work) < 0.02:  # all at about one ratio: as if time were shared evenly
            always = 0.5 * float(np.median(seconds))
            slope = always / max(float(np.median(work)), 1e-6)
        else:
            slope, always = (float(v) for v in np.polyfit(work, seconds, 1))
            slope = max(slope, 0.0)
            always = always if slope else float(np.median(seconds))
        return max(0.0, always + slope * float(self._work(np.array([keep_ratio]))[0]))

    def ratio_for(self, seconds: float) -> float | None:
        """The largest ratio that should stay within a time, or the smallest there is; None before a measurement."""
        if not self._times:
            return None
        fitting = [float(r) for r in STEPS if (self.seconds_at(float(r)) or 0.0) <= seconds]
        return max(fitting, default=SMALLEST)

    def _work(
        self, ratios: np.ndarray[tuple[int], np.dtype[np.float64]]
    ) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Share of the tokens that go through the blocks after the stages, on average."""
        return np.asarray(np.mean([ratios**k for k in range(1, self._stages + 1)], axis=0))
