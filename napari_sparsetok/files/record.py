"""The record beside a mask: how it came about, as JSON, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.scan import ScanError

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm")
_OF = "mask_ending"  # masks of one name in several formats have records of their own; a name may be a patient's


def record_path(mask: Path) -> Path:
    """Where the record of a mask lies: ``head_mask.nii.gz`` has ``head_mask.json``.

    If that is the record of ``head_mask.dcm``, or another program's description of a scan, it stays, and the record is
    ``head_mask.nii.gz.json``.
    """
    usual = mask.with_name(mask.name.removesuffix(_ending(mask)) + ".json")
    return usual if not usual.exists() or _is_record_of(usual, mask) else mask.with_name(mask.name + ".json")


def save_record(mask: Path, document: dict[str, Any]) -> Path:
    """Write the record of a mask beside it, whole or not at all.

    Raises
    ------
    ScanError : another program's file has its name, or the disk refuses; the mask itself is already saved.
    """
    path = record_path(mask)
    if path.exists() and not _is_record_of(path, mask):
        raise ScanError(
            f"the mask is saved, but not the record beside it: {path.name} is there and is no record of it; move that "
            "file away and save again"
        )
    words = "the mask is saved, but not the record beside it ({}); make room and save again"
    with written_whole(path, words=words) as part:
        text = json.dumps({**document, _OF: _ending(mask).lower()}, indent=1)
        part.write_text(text + "\n", encoding="utf-8")
    return path


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises
    ------
    ScanError : it is no record of a mask.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ScanError(f"{path.name} cannot be read as a record ({error})") from None
    needed = ("model", "scan", "settings", "region_zyx", "prediction_sha256")
    if not isinstance(document, dict) or any(key not in document for key in needed):
        raise ScanError(f"{path.name} is no record of a mask; choose the .json file that was saved beside one")
    return document


def _ending(mask: Path) -> str:
    """How the name of a mask ends, as it is written; "" if it is unknown."""
    known = next((ending for ending in _ENDINGS if mask.name.lower().endswith(ending)), "")
    return mask.name[len(mask.name) - len(known) :]


def _is_record_of(path: Path, mask: Path) -> bool:
    """Whether there is a record, and it says that it is of this mask."""
    try:
        return read_record(path).get(_OF) == _ending(mask).lower()
    except ScanError:
        return False
