"""The threshold brush shows in every canvas what a click would paint there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from rooms import Room, paint

from napari_sparsetok.ui.brush_preview import HERE, UNDER_BRUSH
from napari_sparsetok.ui.mirror import Mirror
from napari_sparsetok.ui.overlays import OVERLAY


class Further:
    """A further canvas on the sagittal plane."""

    def __init__(self, room: Room) -> None:
        self.room, self.viewer = room, ViewerModel()
        self.mirror = Mirror(room.viewer, self.viewer)
        self.viewer.dims.order = (2, 0, 1)
        self.viewer.dims.point = (8.0, 10.0, 6.0)

    @property
    def shown(self) -> Any:
        found = [x for x in self.viewer.layers if x.metadata.get(OVERLAY) == UNDER_BRUSH and x.visible]
        return found[0] if found else None

    @property
    def copy(self) -> Any:
        return self.mirror.copy_of(self.room.desk.layers.layer)

    def point_at(self, y: int) -> tuple[int, int, int]:
        """The first voxel behind this one in the sagittal slice that may be painted."""
        bright = self.room.session.state.scan.voxels[8, y:, 6] >= 100
        voxel = (8, y + int(np.flatnonzero(bright)[0]), 6)
        self.viewer.cursor.position = [float(k) for k in voxel]
        self.room.until(lambda: self.shown is not None and np.asarray(self.shown.data)[voxel] == HERE)
        return voxel


def keep_to_bright(room: Room) -> None:
    room.panel.limits._low.setValue(100)
    room.panel.limits._high.setValue(1000)
    room.panel.limits._on.setChecked(True)


@pytest.fixture
def further(correcting: Room) -> Iterator[Further]:
    room = correcting
    keep_to_bright(room)
    room.panel.paint._size.setValue(7)
    further = Further(room)
    yield further
    further.mirror.shut_down()


def test_it_is_what_a_click_in_that_canvas_paints(further: Further) -> None:
    voxel = further.point_at(10)
    here = {tuple(at) for at in np.argwhere(np.asarray(further.shown.data) == HERE).tolist()}
    further.copy.paint(voxel, 1)
    assert here == {tuple(at) for at in np.argwhere(np.asarray(further.room.desk.array)).tolist()}
    assert {at[2] for at in here} == {6}, "in the plane of that canvas"
    assert further.viewer.layers.selection.active is further.copy
    assert sum(x.metadata.get(OVERLAY) == UNDER_BRUSH for x in further.viewer.layers) == 1


def test_it_follows_brush_and_locks_and_goes_with_the_range(further: Further) -> None:
    room = further.room
    further.point_at(10)
    small = np.count_nonzero(np.asarray(further.shown.data) == HERE)
    room.panel.paint._size.setValue(12)
    room.until(lambda: np.count_nonzero(np.asarray(further.shown.data) == HERE) > small)
    room.desk.painting.set_mode("look")
    assert further.shown is None
    room.desk.painting.set_mode("brush")
    room.until(lambda: further.shown is not None)
    room.panel.limits._on.setChecked(False)
    assert further.shown is None


def test_it_goes_with_the_layer(further: Further) -> None:
    further.point_at(10)
    layer = further.room.desk.layers.layer
    further.room.viewer.layers.remove(layer)
    assert further.copy is None
    assert further.shown is None
    further.room.panel.start_requested.emit()  # which proposes another range
    keep_to_bright(further.room)
    paint(further.room, further.point_at(9), 1)
    assert further.shown is not None
