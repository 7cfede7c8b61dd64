"""Which rule picks tokens: whether two are the same, and what a person's choice of one changes."""

from __future__ import annotations

from typing import Any

from napari_sparsetok import batch
from napari_sparsetok.inspection.ladder import Sweep
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Prediction, Settings
from napari_sparsetok.tokens import stage_ratios
from napari_sparsetok.ui.rule_form import RuleRequest


def ratio_of(settings: Settings) -> float | None:
    """The keep ratio of all stages; None if a threshold, or a ratio for each, took its place."""
    return settings.keep_ratio if settings.threshold is None and settings.stage_ratios is None else None


def same_question(known: Sweep, prediction: Prediction) -> bool:
    """Whether a comparison is of this prediction's scan, model, region and rule."""
    same_place = prediction.scan is known.scan and prediction.region == known.region
    return same_place and same_rule(prediction.settings, known.settings)


def same_rule(one: Settings, other: Settings) -> bool:
    """Whether two differ at most in how many tokens they keep."""
    fields = ("model", "selection", "seed", "reference", "forced", "all_pieces", "replace_nonfinite")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def changes_of(request: RuleRequest, stages: int) -> dict[str, Any]:
    """What a request changes of the settings of a model of so many stages, but for what ranks.

    Raises
    ------
    ScanError : what was written is no number, or cannot be meant.
    """
    changes: dict[str, Any] = {"stage_ratios": None, "threshold": None}
    hint = "write numbers, as 0.5, 0.25"
    if request.keep_by == "stages":
        try:
            changes["stage_ratios"] = stage_ratios(batch.numbers(request.values, ",", None, hint), stages)
        except ValueError as error:
            raise ScanError(str(error)) from None
    elif request.keep_by == "threshold":
        (threshold,) = batch.numbers(request.values, ",", 1, "write one number as the threshold, as 0.5")
        if threshold < 0:
            raise ScanError(f"a threshold must be a number of 0 or more, not {threshold:g}")
        changes["threshold"] = threshold
    return changes
