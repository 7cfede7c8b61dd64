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
