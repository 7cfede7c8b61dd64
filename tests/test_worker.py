"""The computing thread, alone."""

from __future__ import annotations

import sys
import threading

from napari_sparsetok.state import Busy
from napari_sparsetok.worker import Job, NewestFirst


def test_threads_hand_over_sooner_while_something_is_computed() -> None:
    usual, during, ended = sys.getswitchinterval(), [], threading.Event()
    computer = NewestFirst("test", lambda job: job.work(job), lambda job: ended.set())
    computer.submit(Job(lambda job: during.append(sys.getswitchinterval()), Busy("computing")))
    assert ended.wait(10)
    assert computer.wait(10)
    assert during[0] < usual / 2
    assert sys.getswitchinterval() == usual
    computer.close()


def test_after_two_computed_side_by_side_threads_hand_over_as_before() -> None:
    usual, rooms, computers = sys.getswitchinterval(), [], []
    for _ in range(2):
        begun, may_end = threading.Event(), threading.Event()
        computer = NewestFirst("test", lambda job: job.work(job), lambda job: None)
        work = lambda job, begun=begun, may_end=may_end: (begun.set(), may_end.wait(10))  # noqa: E731
        computer.submit(Job(work, Busy("computing")))
        assert begun.wait(10)
        rooms.append(may_end)
        computers.append(computer)
    for may_end, computer in zip(rooms, computers, strict=True):  # the first to begin is the first to end
        may_end.set()
        assert computer.wait(10)
        computer.close()
    assert sys.getswitchinterval() == usual
