"""Intensity rules on everything that scanners write."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sparsetok.engine import intensity
from napari_sparsetok.engine.intensity import apply_rule
from napari_sparsetok.scan import ScanError

STANDARDISE = {"name": "standardise", "low": 0.5, "high": 99.5}
WINDOW = {"name": "window", "low": -160.0, "high": 240.0}


def grey(shape=(12, 13, 14), seed=0):
    return np.random.default_rng(seed).gamma(2.0, 20.0, shape)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_standardise_of_every_type(dtype):
    result = apply_rule(STANDARDISE, grey().clip(0, 120).astype(dtype))
    assert result.dtype == np.float32
    assert result.shape == (12, 13, 14)
    assert abs(result.mean()) < 0.02
    assert result.std() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e4, 3e7])
@pytest.mark.parametrize("offset", [0.0, -1000.0])
def test_standardise_does_not_mind_the_scale(factor, offset):
    plain = apply_rule(STANDARDISE, grey())
    np.testing.assert_allclose(apply_rule(STANDARDISE, (grey() + offset) * factor), plain, atol=1e-4)


def test_a_few_hot_voxels_do_not_darken_the_rest():
    hot = grey()
    hot[0, 0, :3] = 1e9
    np.testing.assert_allclose(apply_rule(STANDARDISE, hot)[1:], apply_rule(STANDARDISE, grey())[1:], atol=0.25)


def test_a_wide_integer_range_keeps_its_steps():
    voxels = (grey() * 20_000).astype(np.int32)
    assert voxels.max() > 1_000_000
    result = apply_rule(STANDARDISE, voxels)
    order = np.argsort(voxels, axis=None)
    assert (np.diff(result.ravel()[order]) >= 0).all()


def test_booleans_are_greys_too():
    assert set(np.sign(np.unique(apply_rule(STANDARDISE, grey() > 30)))) == {-1.0, 1.0}


@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_layout_in_memory_does_not_matter(turn):
    voxels = grey().astype(np.float32)
    turned = np.ascontiguousarray(voxels.transpose(turn)).transpose(np.argsort(turn))
    np.testing.assert_array_equal(apply_rule(STANDARDISE, turned), apply_rule(STANDARDISE, voxels))


def test_the_input_is_left_alone():
    voxels = grey()
    before = voxels.copy()
    for rule in (STANDARDISE, WINDOW):
        apply_rule(rule, voxels)
    np.testing.assert_array_equal(voxels, before)


def test_percentiles_of_a_large_scan_look_at_every_column(monkeypatch):
    # A stride that divides the row length would look at a few columns alone, all of them air here.
    monkeypatch.setattr(intensity, "_SAMPLE", 64)
    voxels = np.zeros((16, 16, 16))
    voxels[:, :, 2:14] = grey((16, 16, 12))
    result = apply_rule(STANDARDISE, voxels)
    assert abs(result.mean()) < 0.5
    assert 0.5 < result.std() < 2.0


@given(st.integers(1, 10**9), st.integers(1, 10**6))
def test_the_stride_meets_no_axis(size, sample):
    stride = intensity.even_step(size, sample)
    assert np.gcd(stride, size) == 1
    assert stride >= size // sample


def test_window_maps_to_minus_one_and_one():
    values = np.array([[[-1024, -160, 40, 240, 3000]]], dtype=np.int16)
    np.testing.assert_allclose(apply_rule(WINDOW, values).ravel(), [-1, -1, 0, 1, 1])


@pytest.mark.parametrize("voxels", [np.array([[[-1e300, 1e300]]]), np.array([[[0, 2**63]]], dtype=np.uint64)])
def test_window_of_huge_values(voxels):
    assert np.abs(apply_rule(WINDOW, voxels)).max() <= 1.0


@pytest.mark.parametrize("rule", [STANDARDISE, WINDOW])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, 7e11, -3.3])
def test_a_constant_scan_is_refused(rule, value):
    with pytest.raises(ScanError, match="all voxels have the same value"):
        apply_rule(rule, np.full((7, 11, 13), value))


def test_a_constant_integer_scan_is_refused():
    with pytest.raises(ScanError, match="all voxels have the same value"):
        apply_rule(STANDARDISE, np.full((7, 11, 13), 200, dtype=np.uint8))


def test_a_scan_of_almost_nothing_is_refused_for_what_it_is():
    voxels = np.zeros((20, 20, 20))
    voxels[0, 0, :3] = 5.0
    with pytest.raises(ScanError, match="almost all voxels have the same value; crop"):
        apply_rule(STANDARDISE, voxels)


def test_values_beyond_reckoning_are_refused():
    voxels = grey((10, 10, 10)) / 500 * 1e308
    with pytest.raises(ScanError, match="too large"):
        apply_rule(STANDARDISE, voxels)


@pytest.mark.parametrize("rule", [STANDARDISE, WINDOW])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_counted_and_refused(rule, dtype, bad):
    voxels = grey().astype(dtype)
    voxels[0, 0, :3] = bad
    with pytest.raises(ScanError, match=r"^3 voxels are not numbers"):
        apply_rule(rule, voxels)


def test_one_bad_voxel_is_one():
    voxels = grey()
    voxels[3, 3, 3] = np.nan
    with pytest.raises(ScanError, match=r"^1 voxel is not a number"):
        apply_rule(STANDARDISE, voxels)


@pytest.mark.parametrize("rule", [{"name": "guess"}, {}])
def test_an_unknown_rule_is_named(rule):
    with pytest.raises(ValueError, match=r"no intensity rule is called .*standardise, window"):
        apply_rule(rule, grey())
