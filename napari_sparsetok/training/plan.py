"""What an evaluation measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from napari_sparsetok.state import Reference, Selection, Settings


@dataclass(frozen=True)
class Pruning:
    """How hard tokens are pruned: one of the three, the others are None.

    keep_ratio : of every stage.
    stage_ratios : of each stage.
    threshold : the least score that stays; in the units of the selection, see `TokenMap`.
    """

    keep_ratio: float | None = None
    stage_ratios: tuple[float, ...] | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        ratios = self.stage_ratios or (() if self.keep_ratio is None else (self.keep_ratio,))
        if not all(0 < ratio <= 1 for ratio in ratios):
            raise ValueError("keep ratios are numbers above 0 and up to 1, as in 1,0.5,0.25")
        if self.threshold is not None and not 0 <= self.threshold < math.inf:
            raise ValueError(f"a threshold must be a number of 0 or more, not {self.threshold:g}")

    def __str__(self) -> str:
        """In few words, for a table."""
        if self.threshold is not None:
            return f"score ≥ {self.threshold:g}"
        return f"{self.keep_ratio:g}" if self.keep_ratio is not None else " → ".join(f"{r:g}" for r in self.stages)

    @property
    def stages(self) -> tuple[float, ...]:
        """A ratio for each stage, if that was chosen."""
        return self.stage_ratios or ()

    def settings(self, usual: Settings, selection: Selection, reference: Reference) -> Settings:
        """The usual ones, but for a run whose tokens a selection picks; "oracle" goes by the reference."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(usual, selection=selection, reference=reference, **given)

    def to_json(self) -> dict[str, Any]:
        """Plain values, and the few words."""
        return {**asdict(self), "pruning": str(self)}


@dataclass(frozen=True)
class Plan:
    """What to measure. What comes twice is measured once.

    keep_ratios : of every stage; 1 is always run as well, for the agreement.
    selections : what picks the tokens; see `Settings.selection`. "oracle" goes by the truth.
    deletion : shares of the tokens, in (0, 1), that are taken away in the deletion test; none leaves it out.
    stage_ratios : besides, a ratio for each stage; empty leaves it out.
    threshold : besides, the least score that stays; None leaves it out.
    replace_nonfinite : put this value where a scan holds NaN or infinity; None measures no such scan.

    Raises
    ------
    ValueError : a ratio is outside (0, 1], a share outside (0, 1), or the threshold below 0.
    """

    keep_ratios: Sequence[float]
    selections: Sequence[Selection] = ("learned",)
    deletion: Sequence[float] = ()
    stage_ratios: Sequence[float] = ()
    threshold: float | None = None
    replace_nonfinite: float | None = None

    def __post_init__(self) -> None:
        for name in ("keep_ratios", "selections", "deletion"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        if not all(0 < share < 1 for share in self.deletion):
            raise ValueError("shares of the tokens to take away are numbers above 0 and below 1, as in 0.5,0.9")
        self.prunings  # noqa: B018 - they check themselves

    @property
    def prunings(self) -> tuple[Pruning, ...]:
        """All that each selection is measured at."""
        found = [Pruning(ratio) for ratio in self.keep_ratios]
        found += [Pruning(stage_ratios=tuple(self.stage_ratios))] if self.stage_ratios else []
        found += [Pruning(threshold=self.threshold)] if self.threshold is not None else []
        return tuple(found)
