"""Scans in two files, a header (.hdr) and its voxels (.img) beside it: Analyze 7.5 and pairs of NIfTI."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_sparsetok.scan import ScanError

SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")

_OTHER = {".hdr": ".img", ".img": ".hdr"}


@dataclass(frozen=True)
class Files:
    """Where header and voxels are: in one file, or in two."""

    header: Path
    voxels: Path

    @property
    def is_pair(self) -> bool:
        """Whether they are two."""
        return self.header != self.voxels


def files_of(path: Path) -> Files:
    """Both files, given either half; or twice the same where the name is not that of a half.

    Raises
    ------
    ScanError : the other half is not beside it.
    """
    name, packed = (path.name[:-3], path.name[-3:]) if path.name.lower().endswith(".gz") else (path.name, "")
    stem, suffix = name[:-4], name[-4:]
    other = _OTHER.get(suffix.lower())
    if other is None:
        return Files(path, path)
    for ending in _endings(other.upper() if suffix.isupper() else other, packed):
        beside = path.with_name(stem + ending)
        if beside.is_file():
            return Files(path, beside) if other == ".img" else Files(beside, path)
    raise ScanError(
        f"{path.name} is half of a pair of files (.hdr and .img), and {stem}{other} is not beside it; copy both"
    )


def _endings(suffix: str, packed: str) -> list[str]:
    """How the other half may end, likeliest first."""
    spelt = [suffix, suffix.swapcase()]
    return [ending + gz for gz in dict.fromkeys((packed, "", ".gz")) for ending in spelt]
