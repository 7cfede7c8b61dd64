"""The letters are true in every plane, after rolling and in 3-D."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_sparsetok.ui.orientation import Orientation, edge_letters


@pytest.fixture(params=[3, 4])
def viewer(request):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((2, 5, 6, 7)[4 - request.param :]))
    return viewer


def show(viewer, vertical, horizontal):
    """Display two of the last three axes."""
    first = viewer.dims.ndim - 3
    shown = (first + vertical, first + horizontal)
    rest = tuple(k for k in range(viewer.dims.ndim) if k not in shown)
    viewer.dims.order = (*rest, *shown)


def test_each_plane_as_a_radiologist_expects(viewer):
    orientation = Orientation(viewer)
    orientation.set_shown(True)
    show(viewer, 1, 2)  # axial
    assert orientation.letters() == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    show(viewer, 0, 2)  # coronal
    assert orientation.letters() == {"top": "S", "bottom": "I", "left": "R", "right": "L"}
    show(viewer, 0, 1)  # sagittal
    assert orientation.letters() == {"top": "S", "bottom": "I", "left": "A", "right": "P"}
    show(viewer, 1, 2)
    assert orientation.letters()["top"] == "A"


@pytest.mark.parametrize("vertical", ["up", "down"])
@pytest.mark.parametrize("horizontal", ["left", "right"])
@pytest.mark.parametrize("plane", list(itertools.permutations(range(3), 2)))
def test_the_letters_follow_whatever_the_person_turns(viewer, plane, vertical, horizontal):
    show(viewer, *plane)
    viewer.scene.camera.orientation2d = (vertical, horizontal)
    letters = edge_letters(viewer)
    assert letters["bottom" if vertical == "down" else "top"] == "SPL"[plane[0]]
    assert letters["top" if vertical == "down" else "bottom"] == "IAR"[plane[0]]
    assert letters[horizontal] == "SPL"[plane[1]]


def test_three_dimensions_are_not_mirrored(viewer):
    orientation = Orientation(viewer)
    orientation.set_shown(True)
    viewer.dims.ndisplay = 3
    assert orientation.letters() == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    # Seen from the feet, as axial slices are: the view runs towards the head.
    assert viewer.scene.camera.view_direction[0] > 0.99
    # L × P = S in a patient; the screen's right, down and depth must have the same sense.
    assert viewer.scene.camera.orientation == ("away", "down", "right")


def test_letters_turn_with_the_view_in_3d(viewer):
    orientation = Orientation(viewer)
    orientation.set_shown(True)
    viewer.dims.ndisplay = 3
    # From the front, head up: the patient's left is on the right of the screen.
    viewer.scene.camera.set_view_direction(view_direction=(0, 1, 0), up_direction=(1, 0, 0))
    assert orientation.letters() == {"top": "S", "bottom": "I", "left": "R", "right": "L"}
    # From the patient's left, head up: the face looks to the left of the screen.
    viewer.scene.camera.set_view_direction(view_direction=(0, 0, -1), up_direction=(1, 0, 0))
    assert orientation.letters() == {"top": "S", "bottom": "I", "left": "A", "right": "P"}


def test_without_a_scan_there_are_no_letters(viewer):
    orientation = Orientation(viewer)
    assert set(orientation.letters().values()) == {""}
    orientation.set_shown(True)
    orientation.set_shown(False)
    assert set(orientation.letters().values()) == {""}
    orientation.shut_down()
    assert not [name for name in viewer.canvas.overlays if name.startswith("sparsetok")]


def test_flat_pictures_have_none():
    viewer = ViewerModel()
    viewer.add_image(np.zeros((5, 5)))
    assert set(edge_letters(viewer).values()) == {""}
