"""Compressed pictures unpacked by other processes, several at once.

The decoders hold Python's lock while they work, so threads would neither be faster nor leave the window free. And a
decoder that crashes on a damaged picture takes its own process down, not the window; one that is to stop is killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files import decoder
from napari_sparsetok.files.dicom_source import Item
from napari_sparsetok.scan import ScanError

FEWEST = 24
"""Frames for which it is worth to start processes."""

_MOST = 4  # processes
_BLOCK = 16  # frames of one file that are asked for at once
_LOOK = 0.05  # seconds

Take = Callable[[NDArray[Any]], None]


class _GoneError(Exception):
    """A process ended, or never began."""


@dataclass(frozen=True, eq=False)
class Task:
    """Frames of one file.

    Parameters
    ----------
    numbers : rising; at most `_BLOCK` of them, see `tasks`.
    takes : for each frame, what takes its pixels as stored, on some thread.
    what : the frames in words, for a message.
    """

    item: Item
    syntax: str
    numbers: tuple[int, ...]
    takes: tuple[Take, ...]
    what: str


def tasks(task: Task) -> Iterator[Task]:
    """A file of many frames as several tasks."""
    for at in range(0, len(task.numbers), _BLOCK):
        part = slice(at, at + _BLOCK)
        yield Task(task.item, task.syntax, task.numbers[part], task.takes[part], task.what)


def run(wanted: Sequence[Task], step: Callable[[int], None]) -> bool:
    """Unpack everything.

    Parameters
    ----------
    step : called again and again with the number of frames that are done; may raise, which ends the processes at once.

    Returns
    -------
    False if no process could be started; nothing was unpacked then.

    Raises
    ------
    ScanError : a picture is damaged.
    """
    with _started(min(_MOST, _cores(), len(wanted))) as processes:
        if not processes:
            return False
        work = _Work(list(wanted)[::-1])
        threads = [threading.Thread(target=work.go_on, args=(process,), daemon=True) for process in processes]
        for thread in threads:
            thread.start()
        try:
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(_LOOK)
                step(work.done)
        finally:
            for process in processes:
                process.kill()
            for thread in threads:
                thread.join()
        if work.trouble:
            raise work.trouble
        return not work.left


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Work:
    """What is left to do, and what went wrong."""

    def __init__(self, left: list[Task]) -> None:
        self.left, self.done = left, 0
        self.trouble: ScanError | None = None
        self._lock = threading.Lock()

    def go_on(self, process: subprocess.Popen[bytes]) -> None:
        """Let a process do one task after the other, once it is ready; on a thread of its own."""
        try:
            _line(process)
        except (_GoneError, ValueError):
            return  # it never began; others do its work, or the one who asked
        while True:
            with self._lock:
                if not self.left or self.trouble:
                    return
                task = self.left.pop()
            trouble = self._do(process, task)
            if trouble:
                self.trouble = self.trouble or ScanError(trouble)
                return

    def _do(self, process: subprocess.Popen[bytes], task: Task) -> str:
        request = {"path": str(task.item.path), "member": task.item.member, "size": task.item.size}
        request.update(syntax=task.syntax, numbers=task.numbers)
        takes = iter(task.takes)
        try:
            _tell(process, request)
            while "end" not in (answer := _line(process)):
                plane = _plane(process, answer)
                take = next(takes, None)
                if take is not None:  # more than announced are no fault
                    take(plane)
                    with self._lock:
                        self.done += 1
        except _GoneError:
            return f"{task.what} is damaged: what unpacks its pictures failed; export it again"
        if not answer["end"]:
            return "" if next(takes, None) is None else f"{task.what} is cut short; copy it again from its source"
        if answer["kept"]:
            return str(answer["end"])
        return f"{task.what} is damaged or contradicts its own format; export it again"


@contextmanager
def _started(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that were started, and end with this. None where Python cannot be started again."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        if sys.executable and not getattr(sys, "frozen", False):
            with suppress(OSError):
                for _ in range(count):
                    processes.append(_start())
        yield processes
    finally:
        for process in processes:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            process.wait()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        # Without this folder among the places to import from: its modules have the names of others' packages.
        [sys.executable, "-P", decoder.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # decoders quote headers, and headers name patients
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _tell(process: subprocess.Popen[bytes], what: dict[str, Any]) -> None:
    try:
        if process.stdin is None:
            raise _GoneError
        process.stdin.write(json.dumps(what).encode() + b"\n")
        process.stdin.flush()
    except (OSError, ValueError):
        raise _GoneError from None


def _line(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    line = process.stdout.readline() if process.stdout is not None else b""
    if not line.endswith(b"\n"):
        raise _GoneError
    found: dict[str, Any] = json.loads(line)
    return found


def _plane(process: subprocess.Popen[bytes], said: dict[str, Any]) -> NDArray[Any]:
    plane: NDArray[Any] = np.empty(said["shape"], dtype=said["kind"])
    view = plane.data.cast("B")
    at = 0
    while at < len(view):
        count = process.stdout.readinto(view[at:]) if process.stdout is not None else 0  # type: ignore[attr-defined]
        if not count:
            raise _GoneError
        at += count
    return plane
