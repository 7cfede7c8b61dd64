"""A CT gets a model for CT without a click, and a person's choice stays."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from fakes import FakeSegmenter
from napari.components import ViewerModel

from napari_sparsetok.session import Session
from napari_sparsetok.state import Settings
from napari_sparsetok.ui.dock import Dock
from napari_sparsetok.ui.gui_thread import on_gui_thread
from napari_sparsetok.ui.model_choice import suited
from napari_sparsetok.weights import Registry


@pytest.fixture
def registry(tmp_path):
    tiny.write_model(tmp_path, "a-ct", modality="CT")
    tiny.write_model(tmp_path, "b-mr", modality="MR T1")
    tiny.write_model(tmp_path, "c-mr", modality="MR T2")
    return Registry([tmp_path])


@pytest.mark.parametrize(
    ("chosen", "kind", "taken"),
    [
        ("a-ct", "CT", "a-ct"),
        ("a-ct", "MR", "b-mr"),
        ("a-ct", "", "b-mr"),
        ("c-mr", "MR", "c-mr"),
        ("c-mr", "", "c-mr"),
        ("c-mr", "CT", "a-ct"),
        ("c-mr", "PT", "c-mr"),  # none suits: nothing is changed
        ("", "PT", ""),
    ],
)
def test_the_model_that_suits(registry, chosen, kind, taken):
    assert suited(registry.cards, chosen, kind) == taken


def volumes():
    rng = np.random.default_rng(0)
    mr = rng.normal(100, 10, (16, 24, 16)).astype(np.float32)
    ct = mr - 100
    ct[:, :6] = -1000
    return mr, ct


def test_a_ct_changes_the_model_until_a_person_has_chosen(qtbot, registry):
    viewer = ViewerModel()
    session = Session(FakeSegmenter, registry, Settings("b-mr"), deliver=on_gui_thread)
    dock = Dock(viewer, session)
    qtbot.addWidget(dock)
    mr, ct = volumes()

    def show(voxels):
        viewer.layers.clear()
        viewer.add_image(voxels)
        qtbot.waitUntil(lambda: session.state.scan is not None, timeout=5000)
        return session.state.settings.model

    assert show(mr) == "b-mr"
    assert show(ct) == "a-ct"
    assert dock.panel._model.value == "a-ct"
    assert show(mr) == "b-mr"
    dock.panel.model_chosen.emit("c-mr")
    assert show(ct) == "c-mr"
    dock.shut_down()
