"""What the dialog offers for a comparison of keep ratios, and what its choice means for the name."""

from __future__ import annotations

EXPORTS = {
    "Table (*.csv)": ".csv",
    "All numbers (*.json)": ".json",
    "Picture (*.png)": ".png",
    "Drawing (*.svg)": ".svg",
}
"""Words and endings."""


def with_ending_of(path: str, chosen: str) -> str:
    """The name with the ending of the format that was chosen: the dialog leaves the suggested one, or adds none."""
    wanted = EXPORTS.get(chosen, "")
    if path.lower().endswith(wanted):
        return path
    present = next((ending for ending in EXPORTS.values() if path.lower().endswith(ending)), "")
    return path[: len(path) - len(present)] + wanted
