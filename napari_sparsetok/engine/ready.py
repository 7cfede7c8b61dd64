"""The segmenter of a session: made when it is first needed, got ready, and how fast it was. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable

from napari_sparsetok.engine.contract import Segmenter, Warming
from napari_sparsetok.engine.pace import Pace
from napari_sparsetok.state import DeviceReport, Prediction, Settings


class Ready:
    """To be used on the computing thread, but for `pace`.

    Parameters
    ----------
    make : makes the segmenter.
    """

    def __init__(self, make: Callable[[], Segmenter]) -> None:
        self._make = make
        self._segmenter: Segmenter | None = None
        self._loaded: tuple[str, str] | None = None
        self._warm: set[tuple[str, str]] = set()
        self._paces: dict[tuple[str, str], Pace] = {}

    def get(self, settings: Settings, on_loading: Callable[[], None]) -> tuple[Segmenter, DeviceReport]:
        """The segmenter with the model in memory, and what computes; `on_loading` is called if that takes a while."""
        if self._loaded != (settings.model, settings.device):
            on_loading()
        self._loaded = None
        if self._segmenter is None:
            self._segmenter = self._make()
        report = self._segmenter.prepare(settings)
        self._loaded = (settings.model, settings.device)
        return self._segmenter, report

    def warm_up(self, settings: Settings, stages: int, should_stop: Callable[[], bool]) -> None:
        """Run the loaded model on nothing, so that the first result is not slow and its pace is known."""
        key = (settings.model, settings.device)
        if not isinstance(self._segmenter, Warming) or key in self._warm:
            return
        for keep_ratio, seconds in self._segmenter.warm_up(settings, should_stop):
            self.pace(settings, stages).add(keep_ratio, seconds)
        if not should_stop():
            self._warm.add(key)

    def note(self, prediction: Prediction) -> None:
        """Learn from a run in which nothing had to be prepared."""
        settings, timing = prediction.settings, prediction.timing
        if timing.cached == 1 and settings.ratios == settings.keep_ratio and settings.threshold is None:
            tokens = prediction.tokens
            self.pace(settings, tokens.stages).add(settings.keep_ratio, timing.first, tokens.window_tokens)

    def pace(self, settings: Settings, stages: int) -> Pace:
        """Of a model on a device."""
        return self._paces.setdefault((settings.model, settings.device), Pace(stages))
