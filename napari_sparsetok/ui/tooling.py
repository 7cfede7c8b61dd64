"""Tools on whole labels: computed away from the GUI thread, shown before they are done, one undo step each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from qtpy.QtCore import QObject

from napari_sparsetok import tool
from napari_sparsetok.correction import Edit
from napari_sparsetok.files import OpeningStopped
from napari_sparsetok.files.reading import Watch
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.tool import Change, Scene, ToolRequest
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.ui.preview import Preview
from napari_sparsetok.ui.style import signed
from napari_sparsetok.ui.tool_form import ToolForm

_SETTLE_MS = 250  # a preview follows the mask and the numbers when they have rested this long


@dataclass(frozen=True, eq=False)
class Work:
    """What tools are used on, as of now."""

    scan: Scan
    mask: NDArray[np.uint8]
    corrections: NDArray[np.uint8] | None
    scene: Scene
    table: LabelTable


@dataclass(eq=False)
class _Task:
    """One use of a tool. `apply`: do it; else only show it. `stamp`: the state of the mask that it began with."""

    request: ToolRequest
    apply: bool
    stamp: int
    work: Work
    stop: threading.Event

    def is_same(self, request: ToolRequest, work: Work) -> bool:
        """Whether a request on this would do the same: the label, the locks and the slice may be others by now."""
        mine, other = self.work.scene, work.scene
        if not request.in_slice:  # only the direction counts
            mine, other = (replace(scene, plane=(scene.plane[0], 0)) for scene in (mine, other))
        return self.request == request and mine == other


class Tooling(QObject):
    """Takes requests from the tool form.

    Parameters
    ----------
    work_on : what there is to work on for a request, or a sentence why there is nothing. With a scene, its labels and
        its slice are meant, whatever is chosen and shown by now; the locks are always those of now.
    write : writes an edit as one undo step.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        session: Session,
        overlays: Overlays,
        form: ToolForm,
        work_on: Callable[[ToolRequest, Scene | None], Work | str],
        write: Callable[[Edit], None],
    ) -> None:
        super().__init__(form)
        self._viewer, self._session, self._overlays, self._form = viewer, session, overlays, form
        self._work_on, self._write = work_on, write
        self.preview = Preview(viewer)
        self._stamp = 0  # counts the changes of the mask
        self._task: _Task | None = None
        self._shown: tuple[_Task, Change] | None = None  # the preview that is seen
        self._settle = later(self, self._on_settled, _SETTLE_MS)
        form.preview_requested.connect(lambda request: self.use(request, apply=False))
        form.apply_requested.connect(lambda request: self.use(request, apply=True))
        form.drop_requested.connect(self.drop)
        form.cancel_requested.connect(self.cancel)
        overlays.mask_changed.connect(self._on_mask)
        viewer.dims.events.current_step.connect(self._on_step)
        session.state.events.scan.connect(self._on_scan)
        self._model = session.state.settings.model
        session.state.events.settings.connect(self._on_settings)

    @property
    def is_working(self) -> bool:
        """Whether a tool is at work."""
        return self._task is not None

    def use(self, request: ToolRequest, apply: bool) -> None:
        """Use a tool, or only show what it would do."""
        self._begin(request, apply, self._work_on(request, None))

    def follow(self) -> None:
        """Another label was chosen or locked: what is shown is not what would be done."""
        if self._shown is not None:
            self._settle.start()

    def _begin(self, request: ToolRequest, apply: bool, work: Work | str) -> None:
        if isinstance(work, str):
            self._session.say(work)
            self.drop()
            return
        shown = self._shown
        if apply and shown and shown[0].stamp == self._stamp and shown[0].is_same(request, work):
            self._finish(replace(shown[0], apply=True), shown[1])
            return
        self.cancel()
        task = self._task = _Task(request, apply, self._stamp, work, threading.Event())
        self._form.set_working(True)
        self._session.follow(
            lambda watch: self._compute(task, watch),
            lambda change: self._accept(task, change),
            "working on the mask",
            lane="tool",
            otherwise=lambda: self._on_nothing(task),
        )

    def cancel(self) -> None:
        """Forget the tool that is at work; what it finds is thrown away."""
        if self._task is not None:
            self._task.stop.set()
            self._task = None
        self._form.set_working(False)

    def drop(self) -> None:
        """Take the preview away."""
        self.cancel()
        self._settle.stop()
        self._shown = None
        self.preview.hide()
        self._form.set_previewed("")

    def shut_down(self) -> None:
        """Let go of the viewer."""
        self.drop()
        self._overlays.mask_changed.disconnect(self._on_mask)
        self._viewer.dims.events.current_step.disconnect(self._on_step)

    # On the tools' thread

    def _compute(self, task: _Task, watch: Watch) -> Change | None:
        def step(done: int, total: int) -> None:
            if task.stop.is_set():
                raise OpeningStopped
            watch.step(done, total)
            on_gui_thread(lambda: self._tell(task, done, total), self)

        work = task.work
        # A copy, made here and not on the GUI thread; if it changes meanwhile, the result is not used.
        mask, said = np.array(work.mask), work.corrections
        return tool.work(task.request, mask, None if said is None else np.asarray(said), work.scene, step)

    # On the GUI thread

    def _tell(self, task: _Task, done: int, total: int) -> None:
        if task is self._task:
            self._form.set_working(True, done, total)

    def _on_nothing(self, task: _Task) -> None:
        """It failed, or was stopped."""
        if task is self._task:
            self.drop()

    def _accept(self, task: _Task, change: Change | None) -> None:
        if task is not self._task or change is None:
            return
        self._task = None
        self._form.set_working(False)
        if task.work.scan is not self._session.state.scan:
            return
        now = self._work_on(task.request, task.work.scene)
        if task.stamp == self._stamp and not isinstance(now, str) and now.scene == task.work.scene:
            self._finish(task, change)
        elif task.apply:  # somebody painted or locked, or the model spoke, meanwhile
            self._begin(task.request, True, now)
        else:
            self.use(task.request, apply=False)

    def _finish(self, task: _Task, change: Change) -> None:
        if change.region is None:
            self.drop()
            self._session.say("The tool found nothing to change.", "info")
        elif task.apply:
            self.drop()
            self._write(change.edit)
        else:
            self._shown = (task, change)
            self.preview.show(task.work.scan, change.region, change.before, change.wanted)
            self._form.set_previewed(_words(change, task.work))

    def _on_mask(self, region: object = None) -> None:
        self._stamp += 1
        if self._shown is not None:
            self._settle.start()

    def _on_step(self, event: object = None) -> None:
        if self._shown is not None and self._shown[0].request.in_slice:
            self._settle.start()

    def _on_settled(self) -> None:
        if self._shown is not None:
            self.use(self._shown[0].request, apply=False)

    def _on_scan(self, scan: object = None) -> None:
        self.drop()

    def _on_settings(self, settings: Settings) -> None:
        """Another model: its mask is another, and its numbers may mean other labels."""
        if settings.model == self._model:
            return
        self._model = settings.model
        if self._task is not None or self._shown is not None:
            self.drop()
            self._session.say("The tool began with the model before, and was dropped. Use it again on the new mask.")


def _words(change: Change, work: Work) -> str:
    """What a change would do to each label, in millilitres."""
    ml = prod(work.scan.geometry.spacing) / 1000
    gains = tool.gains(change)
    parts = [f"{x.name} {signed(float(gains[x.id]) * ml)}\u00a0mL" for x in work.table if gains[x.id]]
    words = ", ".join(_listed(parts)) or "labels change places; the volumes stay"
    return f"Preview (cyan: added, magenta: taken away): {words}."


def _listed(parts: Sequence[str]) -> list[str]:
    return [*parts[:4], f"and {len(parts) - 4} more"] if len(parts) > 4 else list(parts)
