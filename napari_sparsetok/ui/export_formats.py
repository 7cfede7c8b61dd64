"""What the dialogs offer for comparisons and volumes, and what their choice means for the name."""

from __future__ import annotations

from collections.abc import Mapping

EXPORTS = {
    "Table (*.csv)": ".csv",
    "All numbers (*.json)": ".json",
    "Picture (*.png)": ".png",
    "Drawing (*.svg)": ".svg",
}
"""Words and endings for a comparison of keep ratios."""

TABLES = {"Table (*.csv)": ".csv", "JSON (*.json)": ".json"}
"""The same for volumes."""


def with_ending_of(path: str, chosen: str, formats: Mapping[str, str] = EXPORTS) -> str:
    """The name with the ending of the format that was chosen: the dialog leaves the suggested one, or adds none."""
    wanted = formats.get(chosen, "")
    if path.lower().endswith(wanted):
        return path
    present = next((ending for ending in formats.values() if path.lower().endswith(ending)), "")
    return path[: len(path) - len(present)] + wanted
