"""The one place where things happen: it takes requests, computes on one thread, and writes the state.

Requests come from the thread that owns the session (the GUI's). Computing has a thread of its own, with one
running job and one waiting; a newer request replaces the waiting one, and every finished result is shown. Reading
and writing files has another thread, on which nothing is ever replaced: a save that was asked for is done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from traceback import format_tb
from typing import Any

from napari_sparsetok.engine.contract import Hints, Segmenter, Stopped, Watch
from napari_sparsetok.files import open_scan, save_mask
from napari_sparsetok.scan import Region, Scan, ScanError, Shape
from napari_sparsetok.state import Busy, DeviceReport, Message, Prediction, Settings, State
from napari_sparsetok.tokens import first_stage_preview
from napari_sparsetok.weights import Card, Registry

logger = logging.getLogger(__name__)

Deliver = Callable[[Callable[[], None]], None]


@dataclass(eq=False)
class _Job:
    """Something to compute.

    stop : set to end it at the next chance.
    shown : whether a result of it was handed over; from then on a newer job may end it.
    """

    work: Callable[[_Job], None]
    stop: threading.Event = field(default_factory=threading.Event)
    shown: bool = False


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
    """

    def __init__(
        self,
        make_segmenter: Callable[[], Segmenter] | None = None,
        registry: Registry | None = None,
        settings: Settings = Settings(),  # noqa: B008 - frozen
        cache_bytes: int | None = None,
        deliver: Deliver = lambda function: function(),
    ) -> None:
        self.registry = registry or Registry()
        model = settings.model or next(iter(self.registry.cards), "")
        self.state = State(settings=replace(settings, model=model))
        self._cache_bytes = cache_bytes
        self._make_segmenter = make_segmenter or self._make_engine
        self._segmenter: Segmenter | None = None
        self._deliver = deliver
        self._latest: Prediction | None = None  # the last one handed over; of the computing thread only
        self._condition = threading.Condition()
        self._waiting: _Job | None = None
        self._running: _Job | None = None
        self._closed = False
        self._files = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sparsetok-files")
        self._thread = threading.Thread(target=self._work, name="sparsetok-compute", daemon=True)
        self._thread.start()

    # What can be asked for

    @property
    def card(self) -> Card | None:
        """The card of the chosen model."""
        return self.registry.cards.get(self.state.settings.model)

    def set_scan(self, scan: Scan | None) -> None:
        """Work on another scan. What was computed for the old one is dropped; its layers are the view's business."""
        if scan is self.state.scan:
            return
        self.cancel()
        self.state.prediction = None
        self.state.tokens = None
        self.state.region = None
        self.state.focus = None
        self.state.scan = scan

    def open(self, path: str | Path, then: Callable[[Scan], None]) -> None:
        """Read a scan in the background and hand it over on the owner's thread."""
        self.load(lambda: open_scan(path), then)

    def load(self, read: Callable[[], Scan], then: Callable[[Scan], None]) -> None:
        """Run any function that makes a scan in the background, and hand its scan over on the owner's thread."""

        def work() -> None:
            scan = read()
            self._tell(lambda: then(scan))

        self._submit_file(work)

    def choose(self, **changes: Any) -> None:
        """Change fields of the settings other than the keep ratio. Nothing runs until `run`."""
        settings = replace(self.state.settings, **changes)
        if settings == self.state.settings:
            return
        if settings.model != self.state.settings.model:
            self.cancel()
            self.state.prediction = None
            self.state.tokens = None
        self.state.settings = settings

    def set_region(self, region: Region | None) -> None:
        """Segment this box from now on; None is the whole scan."""
        self.state.region = region

    def set_focus(self, voxel: Shape | None) -> None:
        """Where the person looks: windows there are computed first."""
        self.state.focus = voxel

    def set_keep_ratio(self, keep_ratio: float, *, live: bool = False) -> None:
        """Follow the slider.

        The kept-token map of stage 1 follows at once. If the scan was segmented before, it is segmented again:
        while the slider moves (`live`) only around the focus, afterwards everywhere.
        """
        if keep_ratio != self.state.settings.keep_ratio:
            self.state.settings = replace(self.state.settings, keep_ratio=keep_ratio)
            if self.state.tokens is not None:
                self.state.tokens = first_stage_preview(self.state.tokens, keep_ratio)
        shown = self.state.prediction
        if shown is None:
            return
        if not live and shown.complete and shown.settings == self.state.settings and self._is_idle():
            self.state.tokens = shown.tokens
            return
        self._segment(focus_only=live)

    def run(self) -> None:
        """Segment the scan, or the region, with the current settings."""
        self._segment(focus_only=False)

    def cancel(self) -> None:
        """End what runs at the next chance, and forget what waits."""
        with self._condition:
            self._waiting = None
            if self._running:
                self._running.stop.set()
        self.state.busy = None

    def save_mask(self, path: str | Path) -> None:
        """Save the mask on its scan's own grid, in the background."""
        prediction = self.state.prediction
        if prediction is None:
            self._say("There is no mask yet: segment the scan first.", "warning")
            return

        def work() -> None:
            written = save_mask(path, prediction.mask, prediction.scan, prediction.labels)
            self._tell(lambda: self._say(f"Saved the mask as {written.name}.", "info"))

        self._submit_file(work)

    def close(self) -> None:
        """End the threads, after every save that was asked for. The session cannot be used afterwards."""
        with self._condition:
            self._closed = True
            self._waiting = None
            if self._running:
                self._running.stop.set()
            self._condition.notify_all()
        self._files.shutdown(wait=True)

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until nothing runs or waits; False if that took too long."""
        with self._condition:
            return self._condition.wait_for(self._idle_now, timeout=seconds)

    # Segmenting

    def _segment(self, focus_only: bool) -> None:
        state = self.state
        if state.scan is None:
            self._say("Open a scan first.", "warning")
            return
        scan, settings, region, focus = state.scan, state.settings, state.region, state.focus
        words = f"segmenting “{scan.name}”"

        def work(job: _Job) -> None:
            segmenter = self._ready(settings)
            watch = Watch(
                should_stop=lambda: self._should_stop(job),
                on_progress=lambda done, total: self._tell(lambda: self._show_busy(Busy(words, done, total))),
                on_partial=lambda partial: self._show(job, partial),
                on_notice=lambda text: self._tell(lambda: self._say(text, "warning")),
            )
            hints = Hints(focus=focus, focus_only=focus_only, base=self._latest)
            result = segmenter.segment(scan, settings, region=region, hints=hints, watch=watch)
            self._show(job, result)

        self._submit(work, Busy(words))

    def _ready(self, settings: Settings) -> Segmenter:
        if self._segmenter is None:
            self._tell(lambda: self._show_busy(Busy("loading the model")))
            self._segmenter = self._make_segmenter()
        device = self._segmenter.prepare(settings)
        self._tell(lambda: self._set_device(device))
        return self._segmenter

    def _make_engine(self) -> Segmenter:
        from napari_sparsetok.engine.segmenter import SCDSegmenter

        return SCDSegmenter(self.registry, self._cache_bytes)

    def _show(self, job: _Job, prediction: Prediction) -> None:
        """Hand a result over; on the computing thread."""
        self._latest = prediction
        job.shown = True
        self._tell(lambda: self._accept(job, prediction))

    def _accept(self, job: _Job, prediction: Prediction) -> None:
        state = self.state
        if job.stop.is_set() or prediction.scan is not state.scan or prediction.settings.model != state.settings.model:
            return
        # A result for a ratio that the slider has left still shows its mask, but not its old tokens.
        if prediction.settings.keep_ratio == state.settings.keep_ratio:
            state.tokens = prediction.tokens
        else:
            state.tokens = first_stage_preview(prediction.tokens, state.settings.keep_ratio)
        state.prediction = prediction

    # The computing thread

    def _submit(self, work: Callable[[_Job], None], busy: Busy) -> None:
        with self._condition:
            if self._closed:
                return
            self._waiting = _Job(work)
            self._condition.notify_all()
        self.state.busy = busy

    def _submit_file(self, work: Callable[[], None]) -> None:
        if not self._closed:
            self._files.submit(self._guarded, work)

    def _should_stop(self, job: _Job) -> bool:
        return job.stop.is_set() or (job.shown and self._waiting is not None)

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting is not None or self._closed)
                if self._closed:
                    return
                job, self._waiting = self._waiting, None
                self._running = job
            if job is None:
                continue
            self._guarded(partial(job.work, job))
            with self._condition:
                self._running = None
                self._condition.notify_all()
            self._tell(self._clear_busy)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            pass
        except ScanError as error:
            self._fail(_sentence(str(error)))
        except Exception as error:
            # Only where it happened: the error's own words may hold a path with a patient's name.
            logger.error("a job failed with %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
            self._fail(f"That did not work ({type(error).__name__}: {error}). Nothing was changed; try again.")

    def _fail(self, text: str) -> None:
        self._tell(lambda: self._say(text, "error"))

    # Writing the state, on the owner's thread

    def _tell(self, function: Callable[[], None]) -> None:
        if not self._closed:
            self._deliver(function)

    def _say(self, text: str, severity: Any) -> None:
        self.state.message = Message(text, severity)

    def _show_busy(self, busy: Busy) -> None:
        if not self._is_idle():
            self.state.busy = busy

    def _clear_busy(self) -> None:
        if self._is_idle():
            self.state.busy = None

    def _set_device(self, device: DeviceReport) -> None:
        if device != self.state.device:
            self.state.device = device
            if device.warning:
                self._say(device.warning, "warning")

    def _is_idle(self) -> bool:
        with self._condition:
            return self._idle_now()

    def _idle_now(self) -> bool:
        return self._running is None and self._waiting is None


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
