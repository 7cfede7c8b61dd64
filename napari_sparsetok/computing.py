"""What every kind of computing of a session shares: the thread, the segmenter, and what is told of a job meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from napari_sparsetok.engine.contract import Segmenter, Watch
from napari_sparsetok.engine.ready import Ready
from napari_sparsetok.state import Busy, DeviceReport, Prediction, Settings
from napari_sparsetok.worker import Job, NewestFirst


@dataclass(frozen=True)
class Computing:
    """The session's side of its computing thread.

    Parameters
    ----------
    computer : the thread, and what waits for it.
    ready : the segmenter.
    tell : runs a function on the thread that owns the session; all below are called there.
    moved : called when a job has got further.
    use_device : takes where the model runs.
    notice : takes a sentence for the person.
    """

    computer: NewestFirst
    ready: Ready
    tell: Callable[[Callable[[], None]], None]
    moved: Callable[[], None]
    use_device: Callable[[DeviceReport], None]
    notice: Callable[[str], None]

    def get_ready(self, job: Job, settings: Settings) -> Segmenter:
        """The segmenter, with the model of these settings; on the computing thread."""
        loading = Busy("loading the model", can_cancel=job.busy.can_cancel)
        segmenter, device = self.ready.get(settings, lambda: self.progress(job, loading))
        self.tell(lambda: self.use_device(device))
        return segmenter

    def progress(self, job: Job, busy: Busy) -> None:
        """Say how far a job is."""
        job.busy = busy
        self.tell(self.moved)

    def watch(self, job: Job, busy: Busy, on_partial: Callable[[Prediction], None] | None = None) -> Watch:
        """What a job asks and tells while it computes."""
        self.progress(job, busy)
        return Watch(
            should_stop=lambda: self.computer.should_stop(job),
            on_progress=lambda done, total: self.progress(job, replace(busy, done=done, total=total)),
            on_partial=on_partial,
            on_notice=self.say,
        )

    def say(self, text: str) -> None:
        """Tell the person something, from the computing thread."""
        self.tell(lambda: self.notice(text))
