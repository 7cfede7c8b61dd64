"""What is counted of a mask for the record, and that counting holds little."""

from __future__ import annotations

import tracemalloc

import fakes
import numpy as np
import pytest

from napari_sparsetok.engine.report import report
from napari_sparsetok.state import Settings

SETTINGS = Settings("fake", 0.5)


@pytest.mark.parametrize("corrected", [False, True])
def test_labels_and_stages_are_counted_voxel_by_voxel(corrected):
    scan = fakes.make_scan()
    prediction = fakes.make_prediction(scan, SETTINGS)
    corrections = np.zeros(scan.shape, np.uint8)
    corrections[:4, :3] = 2
    corrections[4] = 255
    found = report(prediction, fakes.make_card(), corrections if corrected else None)
    mask = np.where(corrections == 255, 0, np.where(corrections == 2, 2, prediction.mask))
    for key, counted in [("labels", prediction.mask), *([("labels_corrected", mask)] if corrected else [])]:
        assert [x["voxels"] for x in found[key]] == [(counted == 1).sum(), (counted == 2).sum()]
    stage = prediction.tokens.stage.repeat(4, 0).repeat(4, 1).repeat(4, 2)[tuple(map(slice, scan.shape))]
    of_mask = [((stage == k) & (prediction.mask > 0)).sum() for k in range(4)]
    assert found["tokens"]["mask_voxels_by_stage"] == of_mask
    assert np.array_equal(prediction.voxel_counts[:3], [(prediction.mask == k).sum() for k in range(3)])


@pytest.mark.parametrize("complete", [True, False])
def test_a_record_says_whether_the_mask_was_finished(complete):
    prediction = fakes.make_prediction(fakes.make_scan(), SETTINGS, complete=complete)
    assert report(prediction, fakes.make_card())["complete"] is complete


def test_a_mask_is_counted_in_little_memory():
    scan = fakes.make_scan((120, 160, 160))
    prediction = fakes.make_prediction(scan, SETTINGS)
    _ = scan.content_hash
    tracemalloc.start()
    try:
        report(prediction, fakes.make_card())
        _ = prediction.voxel_counts
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * prediction.mask.nbytes
