"""A scan that stays on disk is segmented as the same scan in memory is."""

from __future__ import annotations

from dataclasses import replace

import dask.array
import numpy as np
import tiny

from napari_sparsetok.engine.segmenter import SCDSegmenter
from napari_sparsetok.scan import Geometry, Region, Scan
from napari_sparsetok.state import Settings
from napari_sparsetok.weights import Registry


def test_a_region_of_a_lazy_scan_is_segmented(tmp_path):
    tiny.write_model(tmp_path)
    segmenter = SCDSegmenter(Registry([tmp_path]))
    voxels = np.random.default_rng(0).normal(100, 20, (24, 32, 28)).astype(np.float32)
    scan = Scan(voxels, Geometry.shown(voxels.shape))
    lazy = replace(scan, voxels=dask.array.from_array(voxels, chunks=7), identity="x")
    box = Region((4, 4, 8), (20, 28, 24))
    expected = segmenter.segment(scan, Settings("tiny", 0.5), region=box)
    found = segmenter.segment(lazy, Settings("tiny", 0.5), region=box)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert found.scan.content_hash.endswith("-sampled")
    assert not lazy.is_sampled
    assert lazy.sample.size >= 500
    assert lazy.is_sampled
