"""The volumes of a mask as a file: CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_sparsetok.files.whole_file import written_whole

COLUMNS = ("id", "name", "voxels", "ml", "mean_intensity", "sd_intensity", "largest_diameter_mm")

Rows = Sequence[Mapping[str, Any]]


def as_text(rows: Rows, separator: str = ",") -> str:
    """Lines with a heading; with a tab between, a spreadsheet takes them from the clipboard."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter=separator, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def save_volumes(path: Path, rows: Rows, about: Mapping[str, Any]) -> Path:
    """Write them, whole or not at all: as JSON with what they are `about` if the name ends so, else as CSV.

    Raises
    ------
    ScanError : the disk refuses.
    """
    if path.suffix.lower() == ".json":
        text = json.dumps({**about, "volumes": list(rows)}, indent=1) + "\n"
    else:
        path = path if path.suffix else path.with_suffix(".csv")
        text = as_text(rows)
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
