"""To the model's grid and back, without a shift."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_sparsetok.engine.resampling import ModelGrid, model_grid, to_model, to_scan
from napari_sparsetok.scan import Region, ScanError


def ball(shape, spacing, centre_mm, radius_mm):
    """A soft ball in a box whose first voxel begins at 0 mm."""
    axes = [(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    distance = np.sqrt(sum((a - c) ** 2 for a, c in zip((z, y, x), centre_mm, strict=True)))
    return np.clip(radius_mm - distance, -2, 2).astype(np.float32)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 0.7), (0.5, 0.9, 1.7), (2.3, 2.3, 2.3)])
def test_a_ball_off_the_grid_does_not_move(spacing):
    shape = tuple(round(60 / s) for s in spacing)
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    centre = (28.3, 31.9, 30.6)
    source = ball(shape, spacing, centre, 14)
    grid = model_grid(shape, spacing, (1.0, 1.0, 1.0), 4)
    there = to_model(source, grid)
    assert there.shape == grid.inner
    assert np.allclose([n * s for n, s in zip(grid.inner, grid.spacing, strict=True)], extent)
    at = (np.array(ndimage.center_of_mass(there > 0)) + 0.5) * grid.spacing
    assert np.abs(at - centre).max() < 0.25
    padded = np.pad(there, [(0, p - n) for p, n in zip(grid.padded, grid.inner, strict=True)], mode="edge")
    back = to_scan(torch.from_numpy(padded)[None], Region.whole(shape), grid)[0].numpy()
    assert back.shape == shape
    at = (np.array(ndimage.center_of_mass(back > 0)) + 0.5) * spacing
    assert np.abs(at - centre).max() < 0.3 * max(spacing)


def test_an_equal_spacing_changes_nothing():
    source = np.random.default_rng(0).integers(0, 100, (9, 13, 11), dtype=np.int16)
    grid = model_grid(source.shape, (1.0, 1.0, 1.001), (1.0, 1.0, 1.0), 4)
    assert to_model(source, grid) is source
    assert grid.padded == (12, 16, 12)


@given(
    box=st.tuples(*[st.integers(8, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    data=st.data(),
)
def test_a_part_comes_back_as_in_the_whole(box, spacing, data):
    grid = model_grid(box, spacing, (0.8, 0.8, 0.8), 4)
    values = torch.rand(2, *grid.padded)
    whole = to_scan(values, Region.whole(box), grid)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in box)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, box, strict=True))
    part = Region(start, stop)
    assert torch.equal(to_scan(values, part, grid), whole[(slice(None), *part.slices)])


@given(box=st.tuples(*[st.integers(8, 40)] * 3), spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3))
def test_a_model_region_touches_its_scan_voxels(box, spacing):
    grid = model_grid(box, spacing, (0.8, 0.8, 0.8), 4)
    assert grid.box_of(Region.whole(grid.inner)) == Region.whole(box)


@given(box=st.integers(4, 60), inner=st.integers(4, 60), ends=st.tuples(st.integers(0, 59), st.integers(1, 60)))
def test_no_voxel_beside_its_box_depends_on_a_model_region(box, inner, ends):
    start, stop = min(ends[0], inner - 1), min(max(ends[1], ends[0] + 1), inner)
    start = min(start, stop - 1)
    grid = ModelGrid((box,) * 3, (inner,) * 3, (inner,) * 3, (1.0,) * 3)
    values = torch.zeros(1, *grid.padded)
    values[:, start:stop] = 1
    found = grid.box_of(Region((start, 0, 0), (stop, inner, inner)))
    seen = to_scan(values, Region.whole(grid.box), grid)[0, :, 0, 0].numpy() > 1e-6
    assert not seen[: found.start[0]].any()
    assert not seen[found.stop[0] :].any()


def test_thinner_than_a_patch_is_refused_in_words():
    with pytest.raises(ScanError, match="only 5 × 9 × 2 mm; this model needs at least 12 × 8 × 4 mm"):
        model_grid((2, 9, 5), (1.0, 1.0, 1.0), (1.0, 2.0, 3.0), 4)


def test_a_point_stays_where_it_is_in_millimetres():
    grid = model_grid((20, 33, 41), (3.0, 0.7, 1.1), (1.0, 1.0, 1.0), 4)
    voxel = np.array([3.0, 20.5, 40.0])
    there = np.array(grid.point_of(voxel))
    assert np.allclose((there + 0.5) * grid.spacing, (voxel + 0.5) * (3.0, 0.7, 1.1))
