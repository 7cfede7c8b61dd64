"""Headers of other formats that are long, repeat themselves or promise much."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import tifffile

from napari_sparsetok.files import open_scan

# NRRD and MetaImage

NRRD = "NRRD0005\ntype: short\ndimension: 3\nsizes: 8 9 10\nencoding: raw\nendian: little\n"
META = "ObjectType = Image\nNDims = 3\nDimSize = 8 9 10\nElementType = MET_SHORT\n"
VECTOR = NRRD.replace(": 3", ": 4").replace("sizes: ", "sizes: 2 ") + "kinds: list domain domain domain\n"
TEXTS = {
    "directions.nrrd": NRRD + "space: left-posterior-superior\nspace directions: " + "(1,0,0) " * 1000 + "\n\n",
    "spacings.nrrd": NRRD + "spacings: " + "1 " * 600 + "\n\n",
    "units.nrrd": NRRD + "units: " + '"mm" ' * 1000 + "\n\n",
    "quotes.nrrd": NRRD + "units: " + '"' * 900_000 + "\n\n",
    "unknown.nrrd": NRRD + "nonsense: " + "x" * 2000 + "\n\n",
    "colonless.nrrd": NRRD + "x" * 2000 + "\n\n",
    "sizes.nrrd": NRRD.replace("8 9 10", "8 9 10" + " " * 2000) + "\n",
    "file.nhdr": NRRD + "data file: " + "x" * 2000 + "\n\n",
    "files.nhdr": NRRD + "data file: " + "a.raw " * 170_000 + "\n\n",
    "list.nhdr": NRRD + "data file: LIST\n" + "a.raw\n" * 1_000_000,
    "keys.nrrd": NRRD + "".join(f"a{k}:={k}\n" for k in range(70_000)) + "\n",
    "keys of vectors.nrrd": VECTOR + "".join(f"a{k}:={k}\n" for k in range(70_000)) + "\n",
    "more keys.nrrd": NRRD + "".join(f"a{k}:={k}\n" for k in range(1_000_000)) + "\n",
    "remarks.nrrd": NRRD + "#\n" * 2_000_000 + "\n",
    "content.nrrd": NRRD + "content: " + "x" * 40_000_000 + "\n\n",
    "keys.mha": META + "".join(f"a{k} = {k}\n" for k in range(70_000)) + "ElementDataFile = LOCAL\n",
    "long.mha": META + "Comment = " + "x" * 900_000 + "\nElementDataFile = LOCAL\n",
    "longer.mha": META + "Comment = " + "x" * 40_000_000 + "\nElementDataFile = LOCAL\n",
    "list.mhd": META + "ElementDataFile = LIST\n" + "a.raw\n" * 1_000_000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_long_headers_of_text(name, tmp_path, endings):
    """Of some, the library that reads them took the whole program down."""
    (tmp_path / name).write_bytes(TEXTS[name].encode() + bytes(2880))
    words = endings(tmp_path / name)
    assert "far longer than that of any scan" in words or "many files" in words or "not a MetaImage" in words


def test_a_header_that_is_wrong_deep_in_folders(tmp_path, endings):
    """Of it, too, the library that reads NRRD took the whole program down."""
    deep = tmp_path / "/".join(["d" * 200] * 8)
    deep.mkdir(parents=True)
    (deep / "a.nrrd").write_bytes((NRRD + "kinds: x\n\n").encode() + bytes(1440))
    assert "too deep in folders" in endings(deep / "a.nrrd")


def test_long_headers_that_are_sound(tmp_path):
    """Names of a hundred segments, gradients, a long remark."""
    lines = [f"Segment{k}_{part}:={'name' * 50}" for k in range(150) for part in range(8)]
    text = NRRD + "# " + "x" * 5000 + "\ncontent: " + "x" * 3000 + "\n" + "\n".join(lines) + "\nlong:=" + "x" * 100_000
    (tmp_path / "a.nrrd").write_bytes(f"{text}\n\n".encode() + bytes(1440))
    assert open_scan(tmp_path / "a.nrrd").shape == (10, 9, 8)
    remarks = "".join(f"Key{k} = {'x' * 200}\n" for k in range(300))
    (tmp_path / "a.mha").write_bytes(f"{META}{remarks}ElementDataFile = LOCAL\n".encode() + bytes(1440))
    assert open_scan(tmp_path / "a.mha").shape == (10, 9, 8)


# TIFF


def chain(path, count, entries, last=0):
    """So many pages, all of one picture; the last one points to `last`."""
    size = 2 + 12 * len(entries) + 4
    tags = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    places = (24 + size * (k + 1) if k < count - 1 else last for k in range(count))
    pages = b"".join(tags + struct.pack("<I", place) for place in places)
    path.write_bytes(b"II*\0" + struct.pack("<I", 24) + bytes(16) + pages)


PAGE = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
PAGE += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 4), (279, 4, 1, 16)]


@pytest.mark.parametrize("entries", [PAGE, []], ids=["pages", "empty pages"])
def test_a_tiff_of_a_million_pages(entries, tmp_path, endings):
    chain(tmp_path / "a.tif", 1_000_000, entries)
    assert "more than 50000 pages" in endings(tmp_path / "a.tif")


@pytest.mark.parametrize("count", [1, 50, 20_000])
def test_pages_in_a_circle(count, tmp_path, endings):
    chain(tmp_path / "a.tif", count, PAGE, last=24)
    assert "cut short or damaged" in endings(tmp_path / "a.tif")


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels DimensionOrder="XYZCT" ID="Pixels:0" SizeC="1" SizeT="1" SizeX="10" SizeY="9" SizeZ="8" Type="uint16" '
    'PhysicalSizeX="1000" PhysicalSizeY="2000" PhysicalSizeZ="3000">{}</Pixels></Image></OME>'
)
DESCRIPTIONS = {
    "planes": OME.format("<TiffData/>" + "<Plane/>" * 1_600_000),
    "parts": OME.format('<TiffData FirstZ="0" IFD="0" PlaneCount="1"/>' * 500_000),
    "images": OME.format("</Pixels></Image><Image><Pixels>" * 500_000),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_an_ome_tiff_with_a_description_of_megabytes(what, tmp_path, endings):
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((8, 9, 10), "u2"), description=DESCRIPTIONS[what], metadata=None)
    assert "longer than that of any scan" in endings(tmp_path / "a.ome.tif")


def opened(folder, description):
    tifffile.imwrite(folder / "a.ome.tif", np.zeros((8, 9, 10), "u2"), description=description, metadata=None)
    return open_scan(folder / "a.ome.tif")


@pytest.mark.parametrize("cut", [20, 100, 200, 250])
def test_an_ome_tiff_whose_description_alone_is_cut_short(cut, tmp_path):
    whole = OME.format("<TiffData/>")
    assert opened(tmp_path, whole).geometry.spacing == (3, 2, 1)
    notes = opened(tmp_path, whole[:-cut]).notes
    assert any("its OME description is cut short or damaged" in note for note in notes)
    assert not any("does not give" in note for note in notes)


@pytest.mark.parametrize("wrong", ["<Pixels ", "</Image>", 'SizeX="10"'])
def test_an_ome_tiff_whose_description_is_damaged(wrong, tmp_path):
    notes = opened(tmp_path, OME.format("<TiffData/>").replace(wrong, "<<")).notes
    assert any("its OME description is cut short or damaged" in note for note in notes)


# OME-Zarr

LEVEL = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}


def ome_zarr(folder, chunks=(8, 9, 10), shape=(8, 9, 10), levels=1, **more):
    """An image whose documents may say more than they should: in its own, in that of its level, or of how it lies."""
    (folder / "0").mkdir(parents=True)
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    image = {"version": "0.4", "axes": axes, "datasets": [LEVEL] * levels}
    array = {"zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": "<i2", "compressor": None}
    documents = {
        ".zgroup": {"zarr_format": 2},
        ".zattrs": {"multiscales": [image]},
        "0/.zattrs": {},
        "0/.zarray": array | {"fill_value": 0, "order": "C", "filters": None},
    }
    if where := more.get("where"):
        documents[where] = documents.get(where, {}) | {"x": more["what"]}
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    return folder


@pytest.mark.parametrize("where", [".zattrs", ".zgroup", ".zmetadata", "0/.zattrs", "0/.zarray"])
def test_an_ome_zarr_with_documents_of_megabytes(where, tmp_path, endings):
    folder = ome_zarr(tmp_path / "a.zarr", where=where, what={f"{k:x}": {} for k in range(300_000)})
    assert "larger than any scan's" in endings(folder)


def test_an_ome_zarr_of_ten_thousands_of_levels(tmp_path, endings):
    assert "64 levels" in endings(ome_zarr(tmp_path / "a.zarr", levels=20_000))


@pytest.mark.parametrize("side", [40, 100, 300])
def test_an_ome_zarr_of_tiny_blocks(side, tmp_path, endings):
    assert endings(ome_zarr(tmp_path / "a.zarr", (1, 1, 1), (side, side, side))) == ""
