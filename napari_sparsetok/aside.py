"""What the computing thread is asked besides masks: to get a model ready, and to look into it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from napari_sparsetok.engine.contract import Segmenter, Watch
from napari_sparsetok.engine.ready import Ready
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Busy, Settings
from napari_sparsetok.weights import Card
from napari_sparsetok.worker import Job, NewestFirst

T = TypeVar("T")


class Aside:
    """Asked on the thread that owns the session; does nothing if something that somebody asked for is computed.

    Parameters
    ----------
    computer : where it computes.
    ready : the segmenter.
    get_ready : the segmenter for a job and settings, on the computing thread.
    progress : told there how far a job is.
    tell : runs a function on the owner's thread.
    notice : takes a sentence for the person, on the owner's thread.
    """

    def __init__(
        self,
        computer: NewestFirst,
        ready: Ready,
        get_ready: Callable[[Job, Settings], Segmenter],
        progress: Callable[[Job, Busy], None],
        tell: Callable[[Callable[[], None]], None],
        notice: Callable[[str], None],
    ) -> None:
        self._computer, self._ready = computer, ready
        self._get_ready, self._progress, self._tell, self._notice = get_ready, progress, tell, notice

    def warm_up(self, card: Card, settings: Settings) -> None:
        """Load a model and run it once on nothing; whatever is asked for meanwhile ends it."""
        if not self._computer.is_free:
            return

        def work(job: Job) -> None:
            job.shown = True  # whatever else is asked for ends it
            self._get_ready(job, settings)
            self._ready.warm_up(settings, card.stages, lambda: self._computer.should_stop(job))

        self._computer.submit(Job(work, Busy(f"getting “{card.title}” ready", can_cancel=False)))

    def inspect(
        self,
        settings: Settings,
        work: Callable[[Segmenter, Watch, Callable[[T], None]], T],
        then: Callable[[T], None],
        what: str,
    ) -> bool:
        """See `napari_sparsetok.session.Session.inspect`."""
        if not self._computer.is_free:
            return False

        def run(job: Job) -> None:
            segmenter = self._get_ready(job, settings)
            self._progress(job, Busy(what, unit="steps"))
            watch = Watch(
                should_stop=lambda: self._computer.should_stop(job),
                on_progress=lambda done, total: self._progress(job, Busy(what, done, total, unit="steps")),
                on_notice=lambda text: self._tell(lambda: self._notice(text)),
            )

            def hand_over(known: T) -> None:
                job.shown = True
                self._tell(lambda: then(known))

            found = work(segmenter, watch, hand_over)
            self._tell(lambda: None if job.stop.is_set() else then(found))

        self._computer.submit(Job(run, Busy(what)))
        return True

    def prepare(self, settings: Settings, work: Callable[[Segmenter, Callable[[], bool]], object]) -> None:
        """See `napari_sparsetok.session.Session.prepare`."""
        if not self._computer.is_free:
            return

        def run(job: Job) -> None:
            with suppress(ScanError):  # it will be said when somebody asks
                work(self._get_ready(job, settings), lambda: self._computer.should_stop(job))

        self._computer.submit(Job(run, Busy(""), quiet=True))
