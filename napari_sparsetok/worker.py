"""Threads for a session: one that computes the newest request, and one that does every request in turn."""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from napari_sparsetok.state import Busy

_LAST_WAIT = 60.0
"""Seconds at the end of the program for the job that still runs.

Its window is gone by then, so nobody waits; but a thread that computes on while Python is taken down around it ends the
program with a crash.
"""

_HANDOVER = 0.0005
"""Seconds after which one Python thread makes room for another while something is computed, instead of the usual 5 ms.

A window of the network is some hundred short calls. At each the computing thread and the window's may wait for each
other so long; both the first mask and the window's longest pauses became shorter by a tenth to a half.
"""


class _QuickHandover:
    """While anything is computed, by any session, threads hand over sooner; afterwards as they did before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running, self._usual = 0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._running:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(min(self._usual, _HANDOVER))
            self._running += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                sys.setswitchinterval(self._usual)


_quick_handover = _QuickHandover()


@dataclass(eq=False)
class Job:
    """Something to compute.

    busy : what it does, and how far it is.
    stop : set to end it at the next chance.
    shown : whether a result of it was handed over; from then on a newer job may end it.
    failed : whether it ended in an error.
    quiet : nobody asked for it, or wants it any more; nobody is told of it, and whatever is asked for ends it.
    segments : whether its result is a mask to be shown.
    turn : how often the slider had come to a mask at hand when this was asked for; after once more nobody wants it.
    """

    work: Callable[[Job], None]
    busy: Busy
    stop: threading.Event = field(default_factory=threading.Event)
    shown: bool = False
    failed: bool = False
    quiet: bool = False
    segments: bool = False
    turn: int = 0


class NewestFirst:
    """One long-lived thread with one running job and one waiting; a newer job replaces the waiting one.

    Parameters
    ----------
    run : does a job; must not raise.
    ended : called on the thread when a job has ended.
    """

    def __init__(self, name: str, run: Callable[[Job], None], ended: Callable[[Job], None]) -> None:
        self._run, self._ended = run, ended
        self._condition = threading.Condition()
        self._waiting: Job | None = None
        self._running: Job | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    def submit(self, job: Job) -> None:
        """Do this next, instead of whatever waits."""
        with self._condition:
            if not self._closed:
                self._waiting = job
                self._condition.notify_all()

    def stop(self) -> None:
        """Ask the running job to end, and forget the waiting one."""
        with self._condition:
            self._waiting = None
            if self._running:
                self._running.stop.set()
            self._condition.notify_all()

    def drop_segmenting(self) -> None:
        """Forget jobs whose masks nobody wants any more; the running one ends, and nothing that it shows counts."""
        with self._condition:
            if self._waiting and self._waiting.segments:
                self._waiting = None
            if self._running and self._running.segments:
                self._running.quiet = True
                self._running.stop.set()
            self._condition.notify_all()

    def should_stop(self, job: Job) -> bool:
        """Whether a job is to end: it was told to, or it has shown something and a newer one waits."""
        return job.stop.is_set() or ((job.shown or job.quiet) and self._waiting is not None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        with self._condition:
            return self._is_idle()

    @property
    def is_free(self) -> bool:
        """Whether nothing that somebody asked for runs or waits."""
        with self._condition:
            return all(job is None or job.quiet for job in (self._running, self._waiting))

    @property
    def busy(self) -> Busy | None:
        """What is being done."""
        with self._condition:
            running, waiting = (None if job and job.quiet else job for job in (self._running, self._waiting))
            if running and not running.stop.is_set():
                return running.busy
            if waiting:
                return waiting.busy
            return Busy("stopping", can_cancel=False) if running else None

    def close(self) -> None:
        """End the thread at the next chance; does not wait."""
        with self._condition:
            self._closed = True
        self.stop()

    def wait(self, seconds: float) -> bool:
        """Wait until it is idle; False if that took too long."""
        with self._condition:
            return self._condition.wait_for(self._is_idle, timeout=seconds)

    def _is_idle(self) -> bool:
        return self._running is None and self._waiting is None

    def _work(self) -> None:
        while self._do_next():
            pass
        atexit.unregister(self._at_exit)

    def _do_next(self) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._waiting is not None or self._closed)
            if self._closed or self._waiting is None:
                return False
            job, self._waiting = self._waiting, None
            self._running = job
        with _quick_handover:
            self._run(job)
        with self._condition:
            self._running = None
        self._ended(job)
        with self._condition:
            self._condition.notify_all()
        return True

    def _at_exit(self) -> None:
        """A thread must not compute on while the program is taken down around it."""
        self.close()
        self._thread.join(_LAST_WAIT)


class InTurn:
    """One thread that does everything it was given, one after the other, even after `close`."""

    def __init__(self, name: str, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._condition = threading.Condition()
        self._words: list[str] = []
        self._closed = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    def submit(self, work: Callable[[], object], words: str) -> None:
        """Do this too; `words` say what it is. It must not raise."""
        with self._condition:
            if self._closed:
                return
            self._words.append(words)
            self._pool.submit(self._do, work, words)

    @property
    def busy(self) -> Busy | None:
        """What is being done."""
        with self._condition:
            return Busy(self._words[0], can_cancel=False) if self._words else None

    def close(self) -> None:
        """Take nothing more; does not wait, but the program does not end before all is done."""
        with self._condition:
            self._closed = True
        self._pool.shutdown(wait=False)

    def wait(self, seconds: float) -> bool:
        """Wait until all is done; False if that took too long."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._words, timeout=seconds)

    def _do(self, work: Callable[[], object], words: str) -> None:
        work()
        with self._condition:
            self._words.remove(words)
            self._condition.notify_all()
        self._changed()
