"""Which model is taken when a scan is opened and nobody has chosen one."""

from __future__ import annotations

from collections.abc import Mapping

from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.ui.panel import Panel
from napari_sparsetok.ui.window_preset import modality
from napari_sparsetok.weights import Card


def suited(cards: Mapping[str, Card], chosen: str, kind: str) -> str:
    """The id of the model to take: the one that is chosen if it is for scans of this kind, else the first that is.

    Parameters
    ----------
    kind : as `window_level.modality` says it: "CT", "MR" … or "" where nobody knows, which CT never is.
    """

    def fits(card: Card) -> bool:
        made_for = card.modality.upper().split()[:1]
        return made_for == [kind] if kind else made_for != ["CT"]

    if chosen in cards and fits(cards[chosen]):
        return chosen
    return next((model for model, card in cards.items() if fits(card)), chosen)


class ModelChoice:
    """Takes a model that suits the scan, until the person takes one."""

    def __init__(self, session: Session, panel: Panel) -> None:
        self._session, self._panel = session, panel
        self._by_hand = False
        panel.model_chosen.connect(self._on_chosen)

    def suit(self, scan: Scan | None) -> None:
        """Another scan is about to be shown."""
        if scan is None or self._by_hand:
            return
        cards, chosen = self._session.registry.cards, self._session.state.settings.model
        model = suited(cards, chosen, modality(scan))
        if model != chosen:
            self._session.choose(model=model)
            self._panel.set_models(cards, model)

    def _on_chosen(self, model: str) -> None:
        self._by_hand = True
        self._session.choose(model=model)
