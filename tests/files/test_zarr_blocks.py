"""A block of a Zarr array that unpacks to far more than a block is refused before it is unpacked."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import LZ4, Blosc, GZip, Zlib, Zstd

from napari_sparsetok.files import open_scan
from napari_sparsetok.files.zarr_blocks import unpacked_size
from napari_sparsetok.scan import ScanError

PACKERS = {"blosc": Blosc(), "zstd": Zstd(), "lz4": LZ4(), "gzip": GZip(), "zlib": Zlib()}
SIZE = 300_000_000


@pytest.fixture(scope="module", params=PACKERS)
def packer(request):
    return request.param


@pytest.fixture(scope="module")
def bomb(packer):
    return bytes(PACKERS[packer].encode(np.zeros(SIZE, np.uint8)))


def write(path, packer, version, named=True):
    image = zarr.open_group(str(path), mode="w", zarr_format=version)
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    multiscales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "name": "scan"}]
    if version == 2:
        image.attrs["multiscales"] = [{**({"version": "0.4"} if named else {}), **multiscales[0]}]
        packed = PACKERS[packer]
    else:
        image.attrs["ome"] = {**({"version": "0.5"} if named else {}), "multiscales": multiscales}
        packed = {"blosc": zarr.codecs.BloscCodec, "zstd": zarr.codecs.ZstdCodec, "gzip": zarr.codecs.GzipCodec}[
            packer
        ]()
    array = image.create_array("0", shape=(16, 16, 16), chunks=(8, 16, 16), dtype="i2", compressors=packed)
    array[:] = np.arange(16**3).reshape(16, 16, 16)
    return path / "0" / ("0.0.0" if version == 2 else "c/0/0/0")


@pytest.mark.parametrize("named", [True, False])
def test_a_block_that_unpacks_to_gigabytes_is_refused_and_a_sound_one_opens(tmp_path, packer, bomb, named):
    """Whether the metadata name a version or not: ome-zarr opens a store of its own if it was told another."""
    for version in (2,) if packer in ("lz4", "zlib") else (2, 3):  # Zarr 3 has no such codecs
        path = tmp_path / f"scan{version}.zarr"
        block = write(path, packer, version, named)
        assert np.asarray(open_scan(path).voxels).max() == 16**3 - 1
        assert block.is_file()
        block.write_bytes(bomb)
        with pytest.raises(ScanError, match="unpacks to far more than it should"):
            open_scan(path)


def test_hostile_blocks_cost_little(tmp_path, endings, packer, bomb):
    path = tmp_path / "scan.zarr"
    write(path, packer, 2).write_bytes(bomb)
    assert "far more than it should" in endings(path)


def test_one_damaged_later_is_refused_when_it_is_looked_at(tmp_path, packer, bomb):
    path = tmp_path / "scan.zarr"
    block = write(path, packer, 2)
    aside = tmp_path / "aside"
    shutil.copytree(path, aside)
    scan = open_scan(path)
    block.write_bytes(bomb)
    with pytest.raises(ScanError, match="far more"):
        np.asarray(scan.voxels)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(PACKERS)), st.binary(min_size=1, max_size=3000), st.integers(1, 300))
def test_the_size_is_what_comes_out(name, data, times):
    data = data * times
    packed = bytes(PACKERS[name].encode(np.frombuffer(data, np.uint8)))
    found = unpacked_size(name, packed, most=len(packed))  # so little that nothing is passed over
    if name in ("gzip", "zlib"):  # not to the end, once it is too much
        assert found == len(data) or found > len(packed)
    else:
        assert found == len(data)
    assert found <= max(len(data), len(packed) + (1 << 20))


@pytest.mark.parametrize("name", ["gzip", "zlib"])
def test_members_that_follow_each_other_count_together(name):
    member = bytes(PACKERS[name].encode(np.zeros(5000, np.uint8)))
    assert unpacked_size(name, 20 * member, most=40_000) > 40_000


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(PACKERS)), st.binary(max_size=40))
def test_of_rubbish_it_says_some_number(name, packed):
    assert unpacked_size(name, packed, most=10) >= 0
