"""Headers of other formats that are long, repeat themselves or promise much."""

from __future__ import annotations

import pytest

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
