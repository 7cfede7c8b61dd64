"""How well two masks agree."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def dice(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Dice coefficient of two boolean masks of one shape; NaN if both are empty."""
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2.0 * int(np.count_nonzero(np.logical_and(a, b))) / total if total else float("nan")
