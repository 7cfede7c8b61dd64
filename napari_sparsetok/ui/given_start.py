"""Corrections that begin with a mask from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject

from napari_sparsetok.correction import begun_from
from napari_sparsetok.labels import LabelTable, translated
from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.state import Prediction
from napari_sparsetok.ui.corrections import CorrectionsLayer

_BEGUN = (
    "Your corrections begin with this mask. Where it is empty, what the model draws now counts as not tissue. After "
    "another run, look at what the model adds."
)
_NAMELESS = "The file names no labels, so its numbers were read as the model's ({})."


@dataclass(frozen=True, eq=False)
class _Wish:
    """A mask (z, y, x) of a scan, what its numbers are in the model's table, and what the person must know of them."""

    scan: Scan
    mask: NDArray[np.uint8]
    labels: LabelTable
    numbers: dict[int, int]
    note: str = ""


class GivenStart(QObject):
    """Turns a given mask into corrections, as soon as it is known what the model says besides.

    Parameters
    ----------
    layers : the corrections that there are.
    install : puts corrections on the current scan.
    """

    def __init__(
        self,
        parent: QObject,
        session: Session,
        layers: CorrectionsLayer,
        install: Callable[[NDArray[np.uint8]], None],
    ) -> None:
        super().__init__(parent)
        self._session, self._layers, self._install = session, layers, install
        self._wish: _Wish | None = None
        session.state.events.prediction.connect(self._on_prediction)

    def begin(self, scan: Scan, mask: NDArray[np.uint8], labels: LabelTable) -> str:
        """Begin with this mask of the current scan.

        Returns
        -------
        A sentence why not; "" if it begins, now or once the scan is segmented.
        """
        own, said = self._layers.labels, self._layers.array
        if said is not None and np.asarray(said).any():
            return "This scan has corrections already, which are kept."
        found = set(np.flatnonzero(np.bincount(mask.ravel(), minlength=1)).tolist())
        present = [label for label in labels if label.id in found]
        numbers, strangers = translated(present, own)
        if strangers:
            names = LabelTable(tuple(label for label in present if label.name in strangers)).words
            return f"The chosen model does not draw {names}; choose the model that does, then open the mask again."
        if len(set(numbers.values())) < len(numbers):
            return "Two labels of this mask are one label of the chosen model."
        note = _NAMELESS.format(own.words) if any(label.is_nameless for label in present) else ""
        self._wish = _Wish(scan, mask, own, numbers, note)
        self._on_prediction(self._session.state.prediction)
        if self._wish is not None:
            self._session.say("Segment the scan now; your corrections then begin with this mask.", "info")
        return ""

    def _on_prediction(self, prediction: Prediction | None) -> None:
        wish = self._wish
        if wish is None or prediction is None or not prediction.complete or prediction.scan is not wish.scan:
            return
        self._wish = None
        if self._layers.labels.meaning != wish.labels.meaning:
            self._say_not_taken()
            return
        self._session.load(
            lambda: begun_from(wish.mask, wish.numbers, prediction.mask),
            lambda corrections: self._begin(wish, corrections),
            "taking the mask over",
            lane="look",
        )

    def _begin(self, wish: _Wish, corrections: NDArray[np.uint8]) -> None:
        said = self._layers.array
        if wish.scan is not self._session.state.scan or self._layers.labels.meaning != wish.labels.meaning:
            self._say_not_taken()
            return
        if said is not None and np.asarray(said).any():
            self._session.say("You began to correct meanwhile, so the mask was not taken over.")
            return
        self._install(corrections)
        self._session.say(f"{wish.note} {_BEGUN}".strip(), "info")

    def _say_not_taken(self) -> None:
        self._session.say(
            "Another scan or model was chosen meanwhile, so the mask was not taken over. Go back, and open it again."
        )
