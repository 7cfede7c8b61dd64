"""What the computing thread is asked besides masks: to get a model ready, and to look into it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from napari_sparsetok.computing import Computing
from napari_sparsetok.engine.contract import Segmenter, Watch
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Busy, Settings
from napari_sparsetok.weights import Card
from napari_sparsetok.worker import Job

T = TypeVar("T")


class Aside:
    """Asked on the thread that owns the session; does nothing if something that somebody asked for is computed.

    Parameters
    ----------
    computing : the thread and what is told of it.
    """

    def __init__(self, computing: Computing) -> None:
        self._computing, self._computer = computing, computing.computer

    def warm_up(self, card: Card, settings: Settings) -> None:
        """Load a model and run it once on nothing; whatever is asked for meanwhile ends it."""
        if not self._computer.is_free:
            return

        def work(job: Job) -> None:
            job.shown = True  # whatever else is asked for ends it
            self._computing.get_ready(job, settings)
            self._computing.ready.warm_up(settings, card.stages, lambda: self._computer.should_stop(job))

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

        busy = Busy(what, unit="steps")

        def run(job: Job) -> None:
            segmenter = self._computing.get_ready(job, settings)
            watch = self._computing.watch(job, busy)

            def hand_over(known: T) -> None:
                job.shown = True
                self._computing.tell(lambda: then(known))

            found = work(segmenter, watch, hand_over)
            self._computing.tell(lambda: None if job.stop.is_set() else then(found))

        self._computer.submit(Job(run, busy))
        return True

    def prepare(self, settings: Settings, work: Callable[[Segmenter, Callable[[], bool]], object]) -> None:
        """See `napari_sparsetok.session.Session.prepare`."""
        if not self._computer.is_free:
            return

        def run(job: Job) -> None:
            with suppress(ScanError):  # it will be said when somebody asks
                work(self._computing.get_ready(job, settings), lambda: self._computer.should_stop(job))

        self._computer.submit(Job(run, Busy(""), quiet=True))
