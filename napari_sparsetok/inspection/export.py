"""A comparison of keep ratios as a file: the ending says which kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.inspection.ladder import Sweep
from napari_sparsetok.inspection.table import as_csv, finite, sweep_table
from napari_sparsetok.scan import ScanError


def save_sweep(sweep: Sweep, path: Path) -> None:
    """Write a sweep as .csv, .json, .png or .svg.

    Raises
    ------
    ScanError : another ending, or the disk refuses.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        content = as_csv(*sweep_table(sweep)).encode()
    elif kind == ".json":
        content = (json.dumps(finite(sweep.to_json()), indent=1) + "\n").encode()
    elif kind == ".png":
        content = _picture(sweep, "png")
    elif kind == ".svg":
        content = _picture(sweep, "svg")
    else:
        raise ScanError(f"a comparison is saved as .csv, .json, .png or .svg, not as “{path.name}”")
    with written_whole(path) as part:
        part.write_bytes(content)


def _picture(sweep: Sweep, kind: Literal["png", "svg"]) -> bytes:
    from napari_sparsetok.inspection.plot import picture, sweep_figure  # brings matplotlib, which is slow to load

    return picture(sweep_figure(sweep), kind)
