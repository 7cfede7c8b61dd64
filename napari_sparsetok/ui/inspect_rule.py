"""Which rule picks tokens: whether two are the same, and what a person's choice of one changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QObject

from napari_sparsetok import batch
from napari_sparsetok.inspection.ladder import Rung, Sweep
from napari_sparsetok.scan import Scan, ScanError
from napari_sparsetok.session import Session
from napari_sparsetok.state import Prediction, Reference, Settings
from napari_sparsetok.tokens import stage_ratios
from napari_sparsetok.ui.inspect_panel import InspectPanel
from napari_sparsetok.ui.rule_form import RuleRequest


class Ruling(QObject):
    """Takes a person's choice of a rule, and lets go of one that was of another scan or model.

    Nothing else could: without a mask the tab takes no requests, and with such a rule there would be none.

    Parameters
    ----------
    reference : the mask that is chosen to rank by, if one is.
    """

    def __init__(self, session: Session, panel: InspectPanel, reference: Callable[[], Reference | None]) -> None:
        super().__init__(panel)
        self._session, self._reference = session, reference
        panel.rule.chosen.connect(self._on_rule)
        session.state.events.scan.connect(self._on_scan)
        session.state.events.settings.connect(self._on_settings)

    def _on_rule(self, request: RuleRequest) -> None:
        try:
            changes = changes_of(request, self._session.card.stages if self._session.card else 0)
        except ScanError as error:
            self._session.say(str(error))
            return
        reference = self._reference() if request.selection == "oracle" else None
        if request.selection == "oracle" and reference is None:
            self._session.say("Choose a labels layer on the scan's voxels as the reference first.")
            return
        self._session.choose(selection=request.selection, reference=reference, **changes)
        self._session.run()

    def _on_scan(self, scan: Scan | None) -> None:
        if self._session.state.settings.reference is not None:
            self._session.choose(selection="learned", reference=None)
            self._session.say("The reference mask was of the scan before; the model's own scores rank again.", "info")

    def _on_settings(self, settings: Settings) -> None:
        card, ratios = self._session.card, settings.stage_ratios
        if card is not None and ratios is not None and len(ratios) != card.stages:
            self._session.choose(stage_ratios=None)
            self._session.say("This model prunes another number of times; all its stages keep one share.", "info")


def ratio_of(settings: Settings) -> float | None:
    """The keep ratio of all stages; None if a threshold, or a ratio for each, took its place."""
    return settings.keep_ratio if settings.threshold is None and settings.stage_ratios is None else None


def rung_of(found: Sweep, settings: Settings) -> Rung | None:
    """What a comparison says of the ratio that is set.

    Nothing at 1 if tokens must go: the run that keeps all, which stands there, kept them too.
    """
    now, forced = ratio_of(settings), found.settings.forced
    if now == 1.0 and forced is not None and forced.drop:
        return None
    return next((rung for rung in found.rungs if rung.keep_ratio == now), None)


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
