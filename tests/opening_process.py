"""A process that opens what it is told to, one path a line, and says how each ended, and what it took.

A process of its own, so that nothing but the opening is measured: no other test's threads, no other test's memory. And
a decoder that takes its process down with it takes this one.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds until something counts as hung, on however busy a machine
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Ending:
    """How opening ended: `words` is the sentence, or empty if a scan came of it. Processor time, and bytes at most."""

    words: str
    seconds: float
    bytes: int


class Process:
    """Opens paths elsewhere."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},  # this very checkout
        )

    def open(self, what: Any, kind: str = "path") -> Ending:
        process = self._process
        assert process.stdin
        assert process.stdout
        hung = threading.Timer(PATIENCE, process.kill)
        hung.start()
        try:
            process.stdin.write(json.dumps({kind: what}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        finally:
            hung.cancel()
        assert line, f"opening took its process down, or hung: {what}, {process.wait()}"
        answer = json.loads(line)
        assert "unexplained" not in answer, answer["unexplained"]
        return Ending(**answer)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        assert self._process.stdout
        self._process.stdout.close()
        self._process.wait(PATIENCE)


def resident(name: str) -> int:
    """Bytes of this process in memory: VmRSS is now, VmHWM the most since `PEAK` was last written to."""
    if not STATUS.exists():  # not on Linux: only what sets a record is seen
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(x.split()[1]) for x in STATUS.read_text().splitlines() if x.startswith(name)) * 1024


def ending(work: Any) -> dict[str, Any]:
    from napari_sparsetok.scan import ScanError

    if PEAK.exists():
        PEAK.write_text("5")  # the peak begins anew at what is taken now
    before, started = resident("VmRSS"), time.process_time()
    words = ""
    try:
        work()
    except ScanError as error:
        words = str(error) or "nothing was said"
    except BaseException as error:
        return {"unexplained": repr(error)}
    return {"words": words, "seconds": time.process_time() - started, "bytes": resident("VmHWM") - before}


def by_every_door(path: str) -> None:
    from napari_sparsetok.files import can_open, find_series, open_scan
    from napari_sparsetok.scan import Scan

    can_open(path)
    find_series(path)
    assert isinstance(open_scan(path), Scan)


def main() -> None:
    import numpy as np
    import SimpleITK  # noqa: F401 - loaded once, and no part of what one file takes
    import tifffile  # noqa: F401
    import zarr  # noqa: F401

    from napari_sparsetok.files import dicom, itk, mgh, ome_zarr, tiff  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        if "take" in asked:
            answer = ending(lambda: np.ones(asked["take"], dtype="u1"))  # noqa: B023 - called at once
        else:
            answer = ending(lambda: by_every_door(asked["path"]))  # noqa: B023
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
