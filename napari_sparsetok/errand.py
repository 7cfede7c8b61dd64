"""What a session has done beside computing: files are read and written, tools work on the mask. Nothing is dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from traceback import format_tb
from typing import Literal, TypeVar, get_args

from napari_sparsetok.engine.contract import Stopped
from napari_sparsetok.files import OpeningStopped
from napari_sparsetok.files.reading import Watch
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import Busy
from napari_sparsetok.worker import InTurn, Job

logger = logging.getLogger(__name__)

T = TypeVar("T")
Lane = Literal["read", "tool", "look"]
"""Where something waits its turn: files that are read, tools on the mask, and what only goes through the mask. Each has
a thread of its own, so neither a slow disk nor a long list of doubtful parts holds up a tool."""


class Guard:
    """Does work that may fail, and tells what went wrong.

    Parameters
    ----------
    say : told in a sentence, on whichever thread the work was done.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.closed = False

    def __call__(self, work: Callable[[], None]) -> bool:
        """Do it; False if it failed, which was said then."""
        try:
            work()
        except (Stopped, OpeningStopped):
            pass
        except ScanError as error:
            if self.closed:
                logger.error(
                    "after the window was closed, a job failed: a mask that was being saved may not be on disk"
                )
            self._say(str(error))
            return False
        except Exception as error:
            # In the log only where it happened: the error's own words may hold a path with a patient's name.
            logger.error("a job failed with %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
            words = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
            self._say(f"That did not work ({words}). Your scan is unchanged; you can go on, or try again.")
            return False
        return True


class Errands:
    """Sees to what was asked for, each lane in turn.

    Parameters
    ----------
    tell : runs a function on the owner's thread.
    guard : does what may fail.
    changed : called on the owner's thread when `busy` may be another.
    """

    def __init__(self, tell: Callable[[Callable[[], None]], None], guard: Guard, changed: Callable[[], None]) -> None:
        self._tell, self._guard, self._changed = tell, guard, changed
        self._lanes = {lane: InTurn(f"sparsetok-{lane}", self._on_done) for lane in get_args(Lane)}
        self._writers = InTurn("sparsetok-write", self._on_done)
        self._followed: list[Job] = []  # what can be stopped; the owner's

    @property
    def busy(self) -> Busy | None:
        """What is being done; what is written comes first."""
        if self._writers.busy is not None:
            return self._writers.busy
        if self._followed:
            job = self._followed[0]
            return replace(job.busy, what="stopping", can_cancel=False) if job.stop.is_set() else job.busy
        return next((lane.busy for lane in self._lanes.values() if lane.busy is not None), None)

    def load(self, read: Callable[[], T], then: Callable[[T], None], what: str, lane: Lane = "read") -> None:
        """Read or find something, and hand it over on the owner's thread."""

        def work() -> None:
            if not self._guard.closed:
                found = read()
                self._tell(lambda: then(found))

        self._lanes[lane].submit(lambda: self._guard(work), what)
        self._changed()

    def follow(
        self,
        read: Callable[[Watch], T],
        then: Callable[[T], None],
        what: str,
        lane: Lane = "read",
        otherwise: Callable[[], None] = lambda: None,
    ) -> None:
        """As `load`, for a function that says how far it is and can be stopped.

        `otherwise` is called instead of `then`, also on the owner's thread, if it failed or was stopped, even before it
        began.
        """
        job = Job(lambda job: None, Busy(what, unit="%"))
        found: list[T] = []

        def work() -> None:
            watch = Watch(
                on_progress=lambda done, total: self._on_progress(job, done, total),
                should_stop=lambda: job.stop.is_set() or self._guard.closed,
            )
            if not watch.should_stop():
                found.append(read(watch))

        def run() -> None:
            self._guard(work)
            self._tell(lambda: then(found[0]) if found and not job.stop.is_set() else otherwise())
            self._tell(lambda: self._followed.remove(job))

        self._followed.append(job)
        self._lanes[lane].submit(run, what)
        self._changed()

    def write(self, work: Callable[[], object], then: Callable[[], None], what: str) -> None:
        """Write something, for certain; then tell that it is done."""

        def write() -> None:
            work()
            self._tell(then)

        self._writers.submit(lambda: self._guard(write), what)
        self._changed()

    def cancel(self) -> None:
        """Stop what is followed at the next chance."""
        for job in self._followed:
            job.stop.set()

    def close(self) -> None:
        """Take nothing more; does not wait."""
        for worker in (*self._lanes.values(), self._writers):
            worker.close()

    def wait(self, seconds: float) -> bool:
        """Wait until all is done; False if that took too long."""
        return all(worker.wait(seconds) for worker in (*self._lanes.values(), self._writers))

    def _on_progress(self, job: Job, done: int, total: int) -> None:
        """On the lane's thread; said once for each per cent."""
        busy = replace(job.busy, done=100 * done // total if total else 0, total=100 if total else 0)
        if busy != job.busy:
            job.busy = busy
            self._tell(self._changed)

    def _on_done(self) -> None:
        self._tell(self._changed)
