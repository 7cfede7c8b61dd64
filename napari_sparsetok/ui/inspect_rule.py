"""Which rule picks tokens: whether two are the same, and what a person's choice of one changes."""

from __future__ import annotations

from typing import Any

from napari_sparsetok import batch
from napari_sparsetok.inspection.ladder import Sweep
from napari_sparsetok.state import Prediction, Settings
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


def changes_of(request: RuleRequest) -> dict[str, Any]:
    """What a request changes of the settings, but for what ranks.

    Raises
    ------
    ScanError : what was written is no number.
    """
    changes: dict[str, Any] = {"stage_ratios": None, "threshold": None}
    hint = "write numbers, as 0.5, 0.25"
    if request.keep_by == "stages":
        changes["stage_ratios"] = tuple(batch.numbers(request.values, ",", None, hint))
    elif request.keep_by == "threshold":
        changes["threshold"] = batch.numbers(request.values, ",", 1, "write one number as the threshold, as 0.5")[0]
    return changes
