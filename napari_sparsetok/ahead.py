"""Results of other keep ratios, computed while nobody asks for anything, so that the slider answers at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import psutil

from napari_sparsetok.computing import Computing
from napari_sparsetok.engine.contract import Stopped, Watch
from napari_sparsetok.engine.pace import STEPS
from napari_sparsetok.scan import Region, Scan, ScanError
from napari_sparsetok.state import Busy, Prediction, Settings
from napari_sparsetok.worker import Job

_LARGEST = 256 * 2**20  # bytes of all results together; and never more than a sixteenth of what is free
_SLOWEST = 1.0  # seconds for one result; what takes longer would keep the cores busy for minutes
_REST = 0.5  # seconds since the person did anything
_LOOK = 0.05  # seconds between two looks whether they did


class Ahead:
    """Complete predictions of one scan, model and region at keep ratios that were, or will be, asked for.

    All but the computing is done on the thread that owns the session.

    Parameters
    ----------
    computing : the thread, on which it computes quietly: whatever is asked for ends it.
    say : told on the owner's thread whether there is more to compute.
    """

    def __init__(self, computing: Computing, say: Callable[[bool], None]) -> None:
        self._computing, self._computer, self._say = computing, computing.computer, say
        self._found: dict[float, Prediction] = {}
        self._room = 0
        self._given_up = self._slow = False
        self._busy_since = 0.0

    def __len__(self) -> int:
        return len(self._found)

    def clear(self) -> None:
        """Forget all: the scan or the model is another."""
        self._found.clear()
        self._room = 0
        self._given_up = self._slow = False
        self._say(False)

    def attend(self) -> None:
        """The person does something: the cores are theirs for a moment."""
        self._busy_since = time.monotonic()

    def keep(self, prediction: Prediction) -> None:
        """Remember a complete prediction, if there is room for it."""
        settings = prediction.settings
        self._slow = False  # until the next one is: other programs may have left the cores
        if not prediction.complete or settings.stage_ratios is not None or settings.threshold is not None:
            return
        prediction = _recalled(prediction)
        if not self._belongs(prediction):
            self.clear()
        self._room = self._room or min(_LARGEST, psutil.virtual_memory().available // 16)
        if (len(self._found) + 1) * _bytes(prediction) <= self._room:
            self._found[settings.keep_ratio] = prediction
        else:
            self._give_up()

    def find(self, scan: Scan | None, settings: Settings, region: Region | None) -> Prediction | None:
        """What was computed for exactly this."""
        found = self._found.get(settings.keep_ratio)
        if found is None or scan is None or found.scan is not scan or found.settings != settings:
            return None
        return found if found.region == (region or Region.whole(scan.shape)) else None

    def go_on(self, shown: Prediction | None, settings: Settings, region: Region | None) -> None:
        """Compute the ratio nearest to the chosen one that is not there yet, if nothing else is to be done."""
        nearest = None if shown is None else self._nearest(shown, settings, region)
        self._say(nearest is not None)
        if shown is not None and nearest is not None and self._computer.is_idle:
            self._computer.submit(self._job(shown.scan, replace(settings, keep_ratio=nearest), region))

    def _nearest(self, shown: Prediction, settings: Settings, region: Region | None) -> float | None:
        if not self._is_worth_it(shown) or self.find(shown.scan, settings, region) is None:
            return None
        lacking = [float(r) for r in STEPS if float(r) not in self._found]
        return min(lacking, key=lambda r: abs(r - settings.keep_ratio), default=None)

    def _is_worth_it(self, shown: Prediction) -> bool:
        quick = _SLOWEST * (1 if shown.timing.cached == 1 else 3)  # with prefixes it takes longer
        return not (self._given_up or self._slow) and shown.timing.total < quick

    def _job(self, scan: Scan, settings: Settings, region: Region | None) -> Job:
        def run(job: Job) -> None:
            if not self._is_calm(job):
                return
            watch = Watch(should_stop=lambda: self._computer.should_stop(job), on_notice=self._computing.say)
            try:
                found = self._computing.get_ready(job, settings).segment(scan, settings, region=region, watch=watch)
            except Stopped:
                raise
            except Exception as error:
                self._computing.tell(self._give_up)
                if not isinstance(error, ScanError):  # that one will be said when somebody asks
                    raise
                return
            _ = found.voxel_counts  # counted here, so that the GUI thread need not
            self._computing.tell(lambda: self._take(found))

        return Job(run, Busy(""), quiet=True)

    def _take(self, found: Prediction) -> None:
        if self._found and self._belongs(found):
            self.keep(found)
        self._slow = found.timing.total > _SLOWEST

    def _belongs(self, prediction: Prediction) -> bool:
        """Whether it is of what the others are of; they are all of one thing."""
        one = next(iter(self._found.values()), None)
        return one is None or _is_alike(prediction, one)

    def _give_up(self) -> None:
        self._given_up = True
        self._say(False)

    def _is_calm(self, job: Job) -> bool:
        """Wait until the person rests; False if something else is to be done."""
        while time.monotonic() - self._busy_since < _REST:
            if self._computer.should_stop(job):
                return False
            time.sleep(_LOOK)
        return True


def _recalled(prediction: Prediction) -> Prediction:
    """The same, to be shown again: it takes no time then."""
    again = replace(prediction, timing=replace(prediction.timing, recalled=True))
    vars(again)["voxel_counts"] = prediction.voxel_counts  # so that they are not counted again
    return again


def _is_alike(one: Prediction, other: Prediction) -> bool:
    """Whether two differ in their keep ratio alone."""
    same = replace(one.settings, keep_ratio=other.settings.keep_ratio) == other.settings
    return same and one.scan is other.scan and one.region == other.region


def _bytes(prediction: Prediction) -> int:
    tokens = prediction.tokens
    held = prediction.mask.nbytes + tokens.importance.nbytes + tokens.stage.nbytes + tokens.rank.nbytes
    return held + sum(a.nbytes for a in (tokens.windows, tokens.passed) if a is not None)
