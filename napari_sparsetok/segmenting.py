"""The masks that are asked for: from a request to the last result that is shown for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from napari_sparsetok.computing import Computing
from napari_sparsetok.engine.contract import Hints, Stopped
from napari_sparsetok.scan import Region, Scan, ScanError, Shape
from napari_sparsetok.state import Busy, Prediction, Settings
from napari_sparsetok.worker import Job


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a mask is asked for."""

    scan: Scan
    settings: Settings
    region: Region | None
    focus: Shape | None

    def is_answered_by(self, found: Prediction) -> bool:
        """Whether a result is all that asking for this would bring."""
        if found.scan is not self.scan or not found.complete:
            return False
        return found.settings == self.settings and found.region == (self.region or Region.whole(self.scan.shape))


class Segmenting:
    """All but the computing is done on the thread that owns the session.

    Parameters
    ----------
    computing : the thread and what is told of it.
    accept : takes each result on the owner's thread.
    """

    def __init__(self, computing: Computing, accept: Callable[[Prediction], None]) -> None:
        self._computing, self._accept = computing, accept
        self._asked: Job | None = None  # the last request for this scan and model; after one the slider asks again
        self._expected: Job | None = None  # the last request whose end the owner has not heard of
        self._latest: Prediction | None = None  # the last one handed over
        self._refused = ""  # why the last one failed, if it did; the computing thread's
        self._turn = 0  # how often a mask that was at hand came before what was asked

    @property
    def was_asked(self) -> bool:
        """Whether a mask of this scan and model was asked for, and nothing spoke against it."""
        return self._asked is not None

    @property
    def is_expected(self) -> bool:
        """Whether the owner has not heard yet how the last request ended."""
        return self._expected is not None

    def ask(self, wanted: Wanted, *, focus_only: bool, again: bool, spare_core: bool = False) -> None:
        """Compute a mask.

        Parameters
        ----------
        wanted : of what.
        focus_only : only around the focus.
        again : also if the result is there already.
        spare_core : the window has much to draw meanwhile.
        """
        busy = Busy(f"segmenting “{wanted.scan.name}”", brief=not again and self._latest is not None)

        def compute(job: Job) -> None:
            latest = self._latest
            if not again and latest and wanted.is_answered_by(latest):
                self._show(job, latest)
                return
            segmenter = self._computing.get_ready(job, wanted.settings)
            watch = self._computing.watch(job, busy, lambda partial: self._show(job, partial))
            hints = Hints(focus=wanted.focus, focus_only=focus_only, spare_core=spare_core, base=self._latest)
            result = segmenter.segment(wanted.scan, wanted.settings, region=wanted.region, hints=hints, watch=watch)
            self._show(job, result)
            self._computing.get_ready(job, wanted.settings)  # the device may be another by now, and is said

        def work(job: Job) -> None:
            try:
                compute(job)
            except ScanError as error:
                before, self._refused = self._refused, str(error)
                if before == str(error) and not again:  # it was said at the slider's last step
                    raise Stopped from None
                raise
            self._refused = ""

        self._asked = self._expected = Job(work, busy, segments=True, turn=self._turn)
        self._computing.computer.submit(self._asked)

    def overtake(self) -> None:
        """A mask that was at hand is shown: what has ended already may still be on its way here, and comes too late."""
        self._turn += 1

    def recall(self, found: Prediction) -> None:
        """Show what was computed already, instead of whatever is computed."""
        self._computing.computer.drop_segmenting()
        self.overtake()
        self._expected = None
        self._latest = found
        self._accept(found)

    def stop(self) -> None:
        """Nothing is asked for any more."""
        self._asked = self._expected = None

    def tell_what_is_left(self, shown: Prediction | None, settings: Settings) -> None:
        """Before a person's stop: what they see then may not be what the panel says."""
        if self._expected is None or shown is None:
            return
        if not shown.complete:
            self._computing.notice("Cancelled: the mask is not finished. Segment again for all of it.")
        elif shown.settings != settings:
            self._computing.notice("Cancelled: the mask is still that of the settings before.")

    def forget(self) -> None:
        """The scan or the model is another: the next result builds on nothing."""
        self._latest = None

    def end(self, job: Job) -> None:
        """A job has ended."""
        if self._expected is job:
            self._expected = None
        if self._asked is job and job.failed:  # the slider does not ask for the same again; a person may
            self._asked = None

    def _show(self, job: Job, prediction: Prediction) -> None:
        """Hand a result over; on the computing thread."""
        if job.stop.is_set():
            raise Stopped
        if not job.shown and prediction is not self._latest:
            self._computing.ready.note(prediction)
        self._latest = prediction
        job.shown = True
        _ = prediction.voxel_counts  # counted here, so that the GUI thread need not
        self._computing.tell(lambda: self._accept(prediction) if job.turn == self._turn else None)
