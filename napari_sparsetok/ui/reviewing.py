"""The review list at work: finds, jumps, marks, counts."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_sparsetok import review
from napari_sparsetok.correction import PLANES, slices_with
from napari_sparsetok.files.reading import Watch
from napari_sparsetok.review import Doubt, Finding, Notes
from napari_sparsetok.scan import Scan
from napari_sparsetok.session import Session
from napari_sparsetok.state import Prediction
from napari_sparsetok.ui.later import later
from napari_sparsetok.ui.overlays import Overlays
from napari_sparsetok.ui.review_form import ReviewForm, ReviewRow
from napari_sparsetok.ui.ring import Ring

_REST_MS = 1500  # without a stroke, before the list is made anew
_SHOWN = 100

_WORDS = {
    "apart": ("Apart", "A bit of this label that hangs together with nothing else of it."),
    "unseen": ("Far from tokens", "The network kept no token near here to the end: it did not look closely."),
    "unsettled": ("Unsettled", "Another keep ratio gives these voxels another label."),
}


class Case(Protocol):
    """What the list needs to know of the work on the current scan."""

    @property
    def array(self) -> NDArray[np.uint8] | None:
        """The corrections, (z, y, x)."""

    @property
    def notes(self) -> Notes:
        """What was looked at."""

    def set_notes(self, notes: Notes) -> None:
        """Keep other notes."""

    def plane(self) -> tuple[int, int]:
        """The axis across the slices that are shown, and which slice of the scan it is."""


class Reviewing(QObject):
    """Takes requests from the review form."""

    def __init__(self, viewer: ViewerModel, session: Session, overlays: Overlays, form: ReviewForm, case: Case) -> None:
        super().__init__(form)
        self._viewer, self._session, self._overlays, self._form, self._case = viewer, session, overlays, form, case
        self.ring = Ring(viewer)
        self._findings: list[Finding] = []
        self._corrected: list[list[int]] = [[], [], []]
        self._masked: list[list[int]] = [[], [], []]
        self._doubt: tuple[Scan, Doubt] | None = None
        self._wanted = False  # somebody sees the list
        self._stale = True
        self._rest = later(self, self._on_rest, _REST_MS)
        form.find_requested.connect(self.find)
        form.jump_requested.connect(self.jump)
        form.reviewed_toggled.connect(self._on_reviewed)
        form.slice_toggled.connect(self.mark_slice)
        overlays.mask_changed.connect(self._on_mask)
        for event in (viewer.dims.events.current_step, viewer.dims.events.order):
            event.connect(self._on_step)
        session.state.events.scan.connect(self._on_scan)

    @property
    def findings(self) -> list[Finding]:
        """What to look at, worst first."""
        return self._findings

    def set_doubt(self, doubt: Doubt | None) -> None:
        """How unsure somebody is of each voxel of the current scan, as a stability map says; None takes it back."""
        scan = self._session.state.scan
        self._doubt = (scan, doubt) if scan is not None and doubt is not None else None
        self._on_mask()

    def set_wanted(self, wanted: bool) -> None:
        """Whether anybody sees the list; nothing is computed for nobody."""
        self._wanted = wanted
        if not wanted:
            self.ring.hide()
        if wanted and self._stale:
            self.find()

    def find(self) -> None:
        """Go through the mask as it is now, in the background."""
        self._rest.stop()
        prediction, mask = self._session.state.prediction, self._overlays.mask
        if prediction is None or mask is None:
            self._findings = []
            self._form.set_rows([], "Segment the scan first.")
            return
        said = self._case.array
        doubt = self._doubt[1] if self._doubt and self._doubt[0] is prediction.scan else None
        self._stale = False

        def read(watch: Watch) -> tuple[list[Finding], list[list[int]], list[list[int]]]:
            now = np.array(mask)
            scan = prediction.scan
            found = review.findings(now, prediction.labels, scan.geometry, prediction.tokens, doubt, watch.step)
            corrected = [[], [], []] if said is None else slices_with(np.asarray(said))
            return found, slices_with(now), corrected

        what = "looking for doubtful parts"
        self._session.follow(read, lambda found: self._accept(prediction, *found), what, lane="look")

    def jump(self, index: int) -> None:
        """Show a finding: its slice, in the middle of the view."""
        scan = self._session.state.scan
        if scan is None or not 0 <= index < len(self._findings):
            return
        finding, dims = self._findings[index], self._viewer.dims
        geometry = scan.geometry
        at = zip(geometry.origin, geometry.spacing, finding.at, strict=True)
        world = (*dims.point[:-3], *(begin + step * k for begin, step, k in at))
        dims.point = world
        if dims.ndisplay == 2:
            camera = self._viewer.scene.camera
            camera.center = (0.0, *(world[axis] for axis in dims.displayed))
        self.ring.show(world, max(step * n for step, n in zip(geometry.spacing, finding.region.shape, strict=True)))

    def mark_slice(self, reviewed: bool) -> None:
        """Mark the slice on the screen as looked at, or not."""
        self._case.set_notes(self._case.notes.with_slice(*self._case.plane(), reviewed))
        self.write()

    def toggle_slice(self) -> None:
        """As the key does."""
        self.mark_slice(self._case.plane() not in self._case.notes.slices)

    def write(self) -> None:
        """Say anew what was found, corrected and looked at."""
        notes, prediction = self._case.notes, self._session.state.prediction
        names = {x.id: x.name for x in prediction.labels} if prediction is not None else {}
        rows = [_row(x, names.get(x.label, "background"), notes.has(x)) for x in self._findings[:_SHOWN]]
        if not self._findings:
            said = "Nothing doubtful was found."
        else:
            said = f"{sum(row.reviewed for row in rows)} of {len(rows)} looked at."
        self._form.set_rows(rows, said)
        self._write_counts()

    def forget(self) -> None:
        """The list is of another mask: of another scan, or of other labels."""
        self.ring.hide()
        self._findings, self._stale = [], True
        self._masked, self._corrected = [[], [], []], [[], [], []]
        self._form.set_rows([], "")
        self._form.set_counts("")
        self._form.set_slice(self._case.plane() in self._case.notes.slices)

    def shut_down(self) -> None:
        """Let go of the viewer."""
        self._rest.stop()
        self.ring.hide()
        self._overlays.mask_changed.disconnect(self._on_mask)
        for event in (self._viewer.dims.events.current_step, self._viewer.dims.events.order):
            event.disconnect(self._on_step)

    # Details

    def _accept(
        self, prediction: Prediction, found: list[Finding], masked: list[list[int]], corrected: list[list[int]]
    ) -> None:
        if prediction.scan is self._session.state.scan:
            self._findings, self._masked, self._corrected = found, masked, corrected
            self.write()

    def _write_counts(self) -> None:
        axis, _ = self._case.plane()
        plane, slices = PLANES[axis], self._case.notes.slices
        reviewed = {index for across, index in slices if across == axis}
        masked = set(self._masked[axis])
        self._form.set_slice(self._case.plane() in slices)
        self._form.set_counts(
            f"{plane.capitalize()} slices: {len(masked & reviewed)} of {len(masked)} with a mask reviewed, "
            f"{len(self._corrected[axis])} corrected."
        )

    def _on_mask(self, region: object = None) -> None:
        self._stale = True
        if self._wanted:
            self._rest.start()

    def _on_rest(self) -> None:
        if self._session.state.busy is None:
            self.find()
        else:
            self._rest.start()  # not in the way of what the person asked for

    def _on_step(self, event: object = None) -> None:
        if self._wanted:
            self._write_counts()

    def _on_scan(self, scan: object = None) -> None:
        self._doubt = None

    def _on_reviewed(self, index: int, reviewed: bool) -> None:
        if 0 <= index < len(self._findings):
            self._case.set_notes(self._case.notes.with_finding(self._findings[index], reviewed))
            QTimer.singleShot(0, self.write)  # once the list is done with the click


def _row(finding: Finding, name: str, reviewed: bool) -> ReviewRow:
    short, long = _WORDS[finding.kind]
    ml = finding.volume / 1000
    size = f"{ml:.2f} mL" if ml >= 0.1 else f"{finding.volume:.3g} mm³"
    z, y, x = finding.at
    tip = f"{name}: {finding.voxels} voxels around slice {z} (voxel {z}, {y}, {x}). {long}"
    return ReviewRow(f"{short}: {size} of {name}", tip, reviewed)
