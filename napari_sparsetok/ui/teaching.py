"""Corrections teach: the tokens under them are kept at every stage, and the model runs again."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject

from napari_sparsetok.correction import tokens_under
from napari_sparsetok.scan import Region, Shape
from napari_sparsetok.session import Session
from napari_sparsetok.state import Forced, Prediction, Settings
from napari_sparsetok.ui.teach_form import TeachForm

Found = tuple[NDArray[np.bool_], Shape | None]  # the tokens, and a corrected voxel to begin around


class Teaching(QObject):
    """Takes requests from the teach form. What is chosen by hand stands in the settings, and so in every record.

    Parameters
    ----------
    corrections : the current scan's, None if there are none.
    """

    def __init__(self, session: Session, form: TeachForm, corrections: Callable[[], NDArray[np.uint8] | None]) -> None:
        super().__init__(form)
        self._session, self._form, self._corrections = session, form, corrections
        self._model = session.state.settings.model
        form.keep_requested.connect(self.keep)
        form.release_requested.connect(self.release)
        events = session.state.events
        events.scan.connect(self._on_scan)
        events.region.connect(self._on_region)
        events.settings.connect(self._on_settings)
        self._on_settings(session.state.settings)

    def keep(self) -> None:
        """Keep the tokens under the corrections, besides those chosen before, and run again."""
        prediction, said = self._session.state.prediction, self._corrections()
        if prediction is None or said is None:
            self._session.say("Segment the scan and correct the mask first.")
            return

        def read() -> Found:
            under = tokens_under(np.asarray(said), prediction.tokens, prediction.scan.geometry)
            return under, _middle(np.asarray(said))

        self._session.load(read, lambda found: self._accept(prediction, found), "finding tokens", lane="look")

    def release(self) -> None:
        """Keep nothing by hand, and run again."""
        if self._session.state.settings.forced is not None:
            self._session.choose(forced=None)
            self._session.run()

    # Details

    def _accept(self, prediction: Prediction, found: Found) -> None:
        under, middle = found
        state, region = self._session.state, prediction.region
        if prediction.scan is not state.scan or prediction.settings.model != state.settings.model:
            return  # tokens of another scan or model are others
        if not under.any():
            self._session.say("No token lies under your corrections: they are outside what was segmented.")
            return
        before = self._session.state.settings.forced
        fits = before is not None and before.region == region and before.grid == under.shape
        signs = before.signs() if before is not None and fits else np.zeros(under.shape, np.int8)
        signs[under] = 1
        self._session.choose(forced=Forced.of(region, signs))
        if middle is not None:
            self._session.set_focus(middle)  # what is around the corrections comes first
        self._session.run()

    def _on_scan(self, scan: Any) -> None:
        self._drop()  # another patient's

    def _on_region(self, region: Region | None) -> None:
        forced, scan = self._session.state.settings.forced, self._session.state.scan
        if forced is not None and scan is not None and forced.region != (region or Region.whole(scan.shape)):
            self._drop("The tokens that were kept by hand belong to the region before, and were let go.")

    def _on_settings(self, settings: Settings) -> None:
        if settings.model != self._model:
            self._model = settings.model
            self._drop("The tokens that were kept by hand belong to the model before, and were let go.")
            return
        forced = settings.forced
        self._form.set_forced(len(forced.keep) if forced else 0, prod(forced.grid) if forced else 0)

    def _drop(self, words: str = "") -> None:
        if self._session.state.settings.forced is not None:
            self._session.choose(forced=None)
            if words:
                self._session.say(words, "info")


def _middle(corrections: NDArray[np.uint8]) -> Shape | None:
    """A voxel in the middle of the corrections."""
    sums, count = np.zeros(3), 0
    for z, part in enumerate(corrections):
        y, x = np.nonzero(np.array(part))
        sums += (z * len(y), y.sum(), x.sum())
        count += len(y)
    if not count:
        return None
    middle = np.round(sums / count).astype(int)
    return int(middle[0]), int(middle[1]), int(middle[2])
