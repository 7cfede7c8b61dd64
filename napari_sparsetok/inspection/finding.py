"""All that was found out about one scan."""

from __future__ import annotations

from dataclasses import dataclass

from napari_sparsetok.inspection.heads import Heads
from napari_sparsetok.inspection.ladder import Sweep
from napari_sparsetok.state import Prediction


@dataclass(frozen=True, eq=False)
class Findings:
    """For tables and the page.

    prediction : at the chosen ratio.
    sweep : over all ratios.
    heads : of the window in the middle of the mask; None if nobody could look.
    """

    prediction: Prediction
    sweep: Sweep
    heads: Heads | None
