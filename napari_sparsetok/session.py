"""The one place where things happen: it takes requests, computes on one thread, and writes the state.

Requests come from the thread that owns the session (the GUI's). Computing has a thread of its own, with one
running job and one waiting; a newer request replaces the waiting one, and every finished result is shown. Whatever
else takes time is an errand (`errand.py`), on further threads, on which nothing is ever replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.ahead import Ahead
from napari_sparsetok.aside import Aside
from napari_sparsetok.batch import save_result
from napari_sparsetok.computing import Computing
from napari_sparsetok.engine.contract import Segmenter, Watch
from napari_sparsetok.engine.ready import Ready
from napari_sparsetok.errand import Errands, Guard, Lane
from napari_sparsetok.files import open_scan
from napari_sparsetok.files.reading import Watch as FileWatch
from napari_sparsetok.scan import Region, Scan, Shape
from napari_sparsetok.segmenting import Segmenting, Wanted
from napari_sparsetok.state import DeviceReport, Message, Prediction, Settings, State
from napari_sparsetok.tokens import first_stage_preview
from napari_sparsetok.weights import Card, Registry
from napari_sparsetok.worker import Job, NewestFirst

_DRAG = 0.2
"""Seconds: moves of the slider that follow each other sooner are a drag, in which the window has much to draw."""

T = TypeVar("T")
Deliver = Callable[[Callable[[], None]], None]


class Session:
    """Opens, segments and saves; the only writer of `state`.

    Parameters
    ----------
    make_segmenter : called once, on the computing thread, when something is first segmented. By default the
        engine of this package, which loads torch only then.
    registry : the models that there are.
    settings : to begin with; without a model the first of the registry is taken.
    cache_bytes : for the default segmenter; see `napari_sparsetok.engine.segmenter.SCDSegmenter`.
    deliver : runs a function on the thread that owns the session; every write to `state` goes through it.
    look_ahead : compute other keep ratios on idle, so that the slider answers at once.
    """

    def __init__(
        self,
        make_segmenter: Callable[[], Segmenter] | None = None,
        registry: Registry | None = None,
        settings: Settings = Settings(),  # noqa: B008 - frozen
        cache_bytes: int | None = None,
        deliver: Deliver = lambda function: function(),
        look_ahead: bool = False,
    ) -> None:
        self.registry = registry or Registry()
        model = settings.model or next(iter(self.registry.cards), "")
        self.state = State(settings=replace(settings, model=model))
        self._cache_bytes = cache_bytes
        self._ready = Ready(make_segmenter or self._make_engine)
        self._deliver = deliver
        self._moved_at = 0.0
        self._closed = False
        self._guard = Guard(self._on_failed)
        self._errands = Errands(self._tell, self._guard, self._refresh_busy)
        self._computer = NewestFirst("sparsetok-compute", self._run_job, self._on_job_ended)
        computing = Computing(self._computer, self._ready, self._tell, self._refresh_busy, self._set_device, self.say)
        self._segmenting = Segmenting(computing, self._accept)
        self._aside = Aside(computing)
        self._ahead = Ahead(computing, self._say_ahead) if look_ahead else None

    # What can be asked for

    @property
    def card(self) -> Card | None:
        """The card of the chosen model."""
        return self.registry.cards.get(self.state.settings.model)

    def set_scan(self, scan: Scan | None) -> None:
        """Work on another scan. What was computed for the old one is dropped; its layers are the view's business."""
        if scan is self.state.scan:
            return
        self._stop_computing()
        self._drop_results()
        self.state.region = None
        self.state.focus = None
        self.state.scan = scan
        self._refresh_busy()

    def open(self, path: str | Path, then: Callable[[Scan], None]) -> None:
        """Read a scan in the background and hand it over on the owner's thread."""
        self.load(lambda: open_scan(path), then, f"opening {Path(path).name}")

    def load(self, read: Callable[[], T], then: Callable[[T], None], what: str, lane: Lane = "read") -> None:
        """Run a function that reads or finds something in the background, and hand that over on the owner's thread.

        `what` says in words what is being done, as in "opening head.nii.gz"; `lane`, behind what it waits its turn.
        """
        self._errands.load(read, then, what, lane)

    def follow(
        self,
        read: Callable[[FileWatch], T],
        then: Callable[[T], None],
        what: str,
        lane: Lane = "read",
        otherwise: Callable[[], None] = lambda: None,
    ) -> None:
        """As `load`, for what `cancel` can stop. If it fails or is stopped, `otherwise` is called, and not `then`."""
        self._errands.follow(read, then, what, lane, otherwise)

    def choose(self, **changes: Any) -> None:
        """Change fields of the settings other than the keep ratio. Nothing runs until `run`."""
        settings = replace(self.state.settings, **changes)
        if settings == self.state.settings:
            return
        if settings.model != self.state.settings.model:
            self._stop_computing()
            self._drop_results()
        warm = settings.model != self.state.settings.model and self.state.scan is not None
        self.state.settings = settings
        if warm:
            self.warm_up()
        self._refresh_busy()

    def set_region(self, region: Region | None) -> None:
        """Segment this box from now on; None is the whole scan."""
        self.state.region = region

    def set_focus(self, voxel: Shape | None) -> None:
        """Where the person looks: windows there are computed first."""
        self.state.focus = voxel

    def set_keep_ratio(self, keep_ratio: float, *, live: bool = False) -> None:
        """Follow the slider.

        The kept-token map of stage 1 follows at once. If the scan was segmented before, it is segmented again:
        while the slider moves (`live`) only around the focus, afterwards everywhere. One ratio for all stages takes
        the place of a threshold, or of a ratio for each.
        """
        if keep_ratio != self.state.settings.keep_ratio:
            self.state.settings = replace(self.state.settings, keep_ratio=keep_ratio, stage_ratios=None, threshold=None)
            if self.state.tokens is not None:
                self.state.tokens = first_stage_preview(self.state.tokens, keep_ratio)
        now = time.monotonic()
        dragged, self._moved_at = live and now - self._moved_at < _DRAG, now
        shown = self.state.prediction
        if shown is None and not self._segmenting.was_asked:
            return
        if shown is not None and not live and self._is_up_to_date(shown):
            self.state.tokens = shown.tokens
            self._segmenting.overtake()
            return
        found = self._ahead and self._ahead.find(self.state.scan, self.state.settings, self.state.region)
        if found:
            self._segmenting.recall(found)
            self._refresh_busy()
        else:
            self._segment(focus_only=live, again=False, spare_core=dragged)

    def attend(self) -> None:
        """The person does something: what nobody asked for waits until they rest."""
        if self._ahead is not None:
            self._ahead.attend()

    def warm_up(self) -> None:
        """Load the chosen model and run it once on nothing, so that the first result does not take longer."""
        if self.card is not None:
            self._aside.warm_up(self.card, self.state.settings)
            self._refresh_busy()

    def stay_under(self, seconds: float) -> None:
        """Choose the largest keep ratio whose part under the eye should come within a time, as measured so far."""
        card, settings = self.card, self.state.settings
        pace = None if card is None else self._ready.pace(settings, card.stages)
        ratio = None if pace is None else pace.ratio_for(seconds)
        if pace is None or ratio is None:
            self.say("Nothing was measured yet: segment the scan first, then move the slider once.")
            return
        expected = pace.seconds_at(ratio) or 0.0
        if expected > seconds:
            self.say(f"Even at {ratio:g} a part of the mask takes about {1000 * expected:.0f} ms on this machine.")
        self.choose(stage_ratios=None, threshold=None)  # also where the ratio is the same
        self.set_keep_ratio(ratio)

    def run(self) -> None:
        """Segment the scan, or the region, with the current settings."""
        self._segment(focus_only=False, again=True)

    @property
    def is_segmenting(self) -> bool:
        """Whether a segmentation is being computed, or waits to be."""
        return self._segmenting.is_expected

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing at all is computed, asked for or not."""
        return self._computer.is_idle

    def cancel(self) -> None:
        """End what is computed at the next chance, and forget what waits; also what is read, if it can be stopped."""
        self._segmenting.tell_what_is_left(self.state.prediction, self.state.settings)
        self._stop_computing()
        self._errands.cancel()
        self._refresh_busy()

    def inspect(
        self, work: Callable[[Segmenter, Watch, Callable[[T], None]], T], then: Callable[[T], None], what: str
    ) -> bool:
        """Look into the model on the computing thread, if nothing else runs there.

        Parameters
        ----------
        work : gets the segmenter, a watch to ask and to tell, and a function that hands over what is known so far. Once
            something was handed over, a newer request ends it.
        then : takes what is known, on the owner's thread; for each part that was handed over, and at the end.
        what : in words, as in "comparing keep ratios".

        Returns
        -------
        False if something else runs; the person is not told.
        """
        begun = self._aside.inspect(self.state.settings, work, then, what)
        self._refresh_busy()
        return begun

    def prepare(self, work: Callable[[Segmenter, Callable[[], bool]], object]) -> None:
        """Compute on idle what will soon be asked for; whatever is asked for meanwhile ends it. Nobody is told.

        `work` gets the segmenter, and a function that says whether to stop.
        """
        self._aside.prepare(self.state.settings, work)

    def write(self, work: Callable[[], object], then: Callable[[], None], what: str) -> None:
        """Run a function that writes something in the background, in turn and for certain; then tell that it is done.

        `what` says in words what is being done.
        """
        self._errands.write(work, then, what)

    def save_mask(
        self,
        path: str | Path,
        corrections: NDArray[np.uint8] | None = None,
        *,
        remarks: Mapping[str, Any] = MappingProxyType({}),
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Save the mask on its scan's own grid, in the background, and beside it a record of how it came about.

        Parameters
        ----------
        path : where to.
        corrections : (z, y, x), what a person says instead of the prediction.
        remarks : what the record says besides, ready for JSON.
        then : called on the owner's thread when both are on disk.
        """
        prediction = self.state.prediction
        if prediction is None:
            self.say("There is no mask yet: segment the scan first.", "warning")
            return

        card = self.registry[prediction.settings.model]
        # A copy, because the person may go on painting before it is written.
        said = None if corrections is None else np.array(corrections)

        def work() -> None:
            save_result(Path(path), prediction, card, said, remarks)

        def done() -> None:
            self._say_saved(Path(path).name, prediction.complete)
            then()

        self.write(work, done, f"saving {Path(path).name}")

    def say(self, text: str, severity: Literal["info", "warning", "error"] = "warning") -> None:
        """Tell the person something."""
        self.state.message = Message(_sentence(text), severity)

    def close(self) -> None:
        """End the threads, after every save that was asked for; does not wait. It cannot be used afterwards."""
        self._closed = self._guard.closed = True
        self._computer.close()
        self._errands.close()

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until nothing is computed, read or written; False if that took too long."""
        return all(worker.wait(seconds) for worker in (self._errands, self._computer))

    # Segmenting

    def _segment(self, focus_only: bool, again: bool, spare_core: bool = False) -> None:
        wanted = self._wanted()
        if wanted is None:
            self.say("Open a scan first.", "warning")
            return
        self._segmenting.ask(wanted, focus_only=focus_only, again=again, spare_core=spare_core)
        self._refresh_busy()

    def _wanted(self) -> Wanted | None:
        state = self.state
        return None if state.scan is None else Wanted(state.scan, state.settings, state.region, state.focus)

    def _is_up_to_date(self, shown: Prediction) -> bool:
        wanted = self._wanted()
        return self._computer.is_free and wanted is not None and wanted.is_answered_by(shown)

    def _make_engine(self) -> Segmenter:
        from napari_sparsetok.engine.segmenter import SCDSegmenter

        return SCDSegmenter(self.registry, self._cache_bytes)

    def _accept(self, prediction: Prediction) -> None:
        state = self.state
        if prediction.scan is not state.scan or prediction.settings.model != state.settings.model:
            return
        # A result for a ratio that the slider has left still shows its mask, but not its old tokens.
        if prediction.settings.keep_ratio == state.settings.keep_ratio:
            state.tokens = prediction.tokens
        else:
            state.tokens = first_stage_preview(prediction.tokens, state.settings.keep_ratio)
        state.prediction = prediction
        if self._ahead is not None:
            self._ahead.keep(prediction)

    def _stop_computing(self) -> None:
        self._segmenting.stop()
        self._computer.stop()

    def _drop_results(self) -> None:
        self._segmenting.forget()
        if self._ahead is not None:
            self._ahead.clear()
        self.state.prediction = None
        self.state.tokens = None

    # On the threads

    def _run_job(self, job: Job) -> None:
        if not self._guard(lambda: job.work(job)):
            job.failed = True

    def _on_job_ended(self, job: Job) -> None:
        self._tell(lambda: self._accept_end(job))

    def _on_failed(self, text: str) -> None:
        self._tell(lambda: self.say(text, "error"))

    # Writing the state, on the owner's thread

    def _tell(self, function: Callable[[], None]) -> None:
        if not self._closed:
            self._deliver(lambda: None if self._closed else function())

    def _say_saved(self, name: str, complete: bool) -> None:
        if complete:
            self.say(f"Saved the mask as {name}.", "info")
        else:
            text = "Parts of the scan were not segmented yet when you saved; segment it to the end and save again."
            self.say(f"Saved an unfinished mask as {name}. {text}", "warning")

    def _accept_end(self, job: Job) -> None:
        self._segmenting.end(job)
        self._refresh_busy()
        if self._ahead is not None:
            self._ahead.go_on(self.state.prediction, self.state.settings, self.state.region)

    def _refresh_busy(self) -> None:
        busy, errand = self._computer.busy, self._errands.busy
        # Nobody waits for what was ended, nor for a model that is only got ready; for a file somebody does.
        if errand is not None and (busy is None or not busy.can_cancel):
            busy = errand
        if busy is not None or not self._segmenting.is_expected:  # idle is said last, after every result
            self.state.busy = busy

    def _say_ahead(self, more: bool) -> None:
        self.state.looking_ahead = more

    def _set_device(self, device: DeviceReport) -> None:
        if device != self.state.device:
            self.state.device = device
            if device.warning:
                self.say(device.warning, "warning")


def _sentence(text: str) -> str:
    first = text.partition(" ")[0]
    if first.isalpha():  # and not the name of a file, which stays as it is
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
