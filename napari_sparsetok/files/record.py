"""The record beside a mask: how it came about, as JSON, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.scan import ScanError

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")


def record_path(mask: Path) -> Path:
    """Where the record of a mask lies: ``head_mask.nii.gz`` has ``head_mask.json``."""
    name = mask.name
    for ending in _ENDINGS:
        if name.lower().endswith(ending):
            return mask.with_name(name[: -len(ending)] + ".json")
    return mask.with_name(name + ".json")


def save_record(mask: Path, document: dict[str, Any]) -> Path:
    """Write the record of a mask beside it, whole or not at all.

    Raises
    ------
    ScanError : the disk refuses; the mask itself is already saved.
    """
    path = record_path(mask)
    words = "the mask is saved, but not the record beside it ({}); make room and save again"
    with written_whole(path, words=words) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises
    ------
    ScanError : it is no record of a mask.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScanError(f"{path.name} cannot be read as a record ({error})") from None
    needed = ("model", "scan", "settings", "region_zyx", "prediction_sha256")
    if not isinstance(document, dict) or any(key not in document for key in needed):
        raise ScanError(f"{path.name} is no record of a mask; choose the .json file that was saved beside one")
    return document
