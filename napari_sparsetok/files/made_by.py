"""Who drew a mask, for formats that have a place for it."""

from __future__ import annotations

from dataclasses import dataclass

from napari_sparsetok import __version__


@dataclass(frozen=True)
class MadeBy:
    """What drew a mask.

    model : the model's id; empty if it is not known.
    corrected : whether a person changed what the model drew.
    """

    model: str = ""
    corrected: bool = True

    @property
    def name(self) -> str:
        """The algorithm's name, at most 64 characters as DICOM wants it."""
        return f"napari-sparsetok {self.model}".strip()[:64]

    @property
    def version(self) -> str:
        """The program's version."""
        return __version__

    @property
    def kind(self) -> str:
        """In DICOM's word."""
        return "SEMIAUTOMATIC" if self.corrected or not self.model else "AUTOMATIC"
