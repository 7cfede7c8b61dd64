"""Corrections against tokens: whether what people change lies where the network had stopped looking."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_sparsetok.scan import ScanError


def audit(folder: Path) -> dict[str, Any]:
    """Read all records below a folder, and count.

    Records are the JSON files that are saved beside masks. Other files are passed over; records of masks that nobody
    corrected, or that were written before tokens were counted in them, are counted and left out. Files that cannot be
    read at all are named, as they may have been records.

    Returns
    -------
    A document for JSON. Lists by stage begin with what no window looked at; then stage 1, 2, …, and last what was kept
    to the end. `odds` compare a voxel in a pruned token with one in a kept token: above 1, pruned tissue is corrected
    more often. Counted over the box that was segmented, not over the mask alone: people also add what was missed.

    Raises
    ------
    ScanError : it is no folder, or holds no record.
    """
    if not folder.is_dir():
        raise ScanError(f"“{folder.name}” is no folder; give the one that holds the records saved beside masks")
    cases: list[dict[str, Any]] = []
    without = 0
    unreadable: list[str] = []
    for path in sorted(path for path in folder.rglob("*.json") if not path.is_dir()):
        name = path.relative_to(folder).as_posix().encode(errors="replace").decode()  # a name may be no text
        if not path.is_file():  # a pipe, which would be waited for, or a link to nowhere
            unreadable.append(name)
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            unreadable.append(name)
            continue
        if isinstance(document, dict) and "prediction_sha256" in document:
            case = _case(name, document)
            without += case is None
            cases += [] if case is None else [case]
    if not cases and not without:
        damaged = f"; could not be read: {', '.join(unreadable)}" if unreadable else ""
        raise ScanError(f"there is no record of a mask in “{folder.name}”{damaged}")
    groups: dict[int, list[dict[str, Any]]] = {}
    for case in cases:
        groups.setdefault(len(case["changed_by_stage"]), []).append(case)
    totals = [_total(group) for _, group in sorted(groups.items())]
    return {"cases": cases, "records_without_counts": without, "unreadable": unreadable, "totals": totals}


def odds(changed: Sequence[int], voxels: Sequence[int]) -> float | None:
    """How much likelier a voxel of a pruned token is to be corrected than one of a kept token; None if undefined."""
    pruned, kept = sum(changed[1:-1]), changed[-1]
    all_pruned, all_kept = sum(voxels[1:-1]), voxels[-1]
    if not all_pruned or not all_kept or not kept:
        return None
    return (pruned / all_pruned) / (kept / all_kept)


def stage_words(stages: int) -> list[str]:
    """Words for the entries of a list by stage."""
    return ["not looked at", *(f"pruned at stage {k}" for k in range(1, stages + 1)), "kept to the end"]


def _case(name: str, document: Mapping[str, Any]) -> dict[str, Any] | None:
    changed = _counts(_part(document, "corrections").get("voxels_changed_by_stage"))
    tokens, settings = _part(document, "tokens"), _part(document, "settings")
    by_one_ratio = settings.get("stage_ratios") is None and settings.get("threshold") is None
    voxels = _counts(tokens.get("voxels_by_stage"))
    if not changed or len(changed) != len(voxels):
        return None
    return {
        "record": name,
        "model": _part(document, "model").get("id", ""),
        "keep_ratio": settings.get("keep_ratio") if by_one_ratio else None,
        "stage_ratios": settings.get("stage_ratios"),
        "threshold": settings.get("threshold"),
        "ranked_by": tokens.get("ranked_by", "learned"),
        "changed_by_stage": changed,
        "voxels_by_stage": voxels,
        "odds": odds(changed, voxels),
    }


def _part(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A part of a record; nothing if it is not there, or not what it should be."""
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def _counts(value: Any) -> list[int]:
    """Numbers of voxels by stage; none if they are not that."""
    whole = isinstance(value, list) and all(isinstance(n, int) and n >= 0 for n in value)
    return value if whole and len(value) >= 2 else []


def _total(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    changed = [sum(row) for row in zip(*(case["changed_by_stage"] for case in cases), strict=True)]
    voxels = [sum(row) for row in zip(*(case["voxels_by_stage"] for case in cases), strict=True)]
    return {
        "records": len(cases),
        "stages": stage_words(len(changed) - 2),
        "changed_by_stage": changed,
        "voxels_by_stage": voxels,
        "odds": odds(changed, voxels),
    }
