"""Slices that are there twice: copies of one picture, or different pictures that claim to be one slice."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from napari_sparsetok.files import dicom_pixels
from napari_sparsetok.files.dicom_header import Frame
from napari_sparsetok.files.dicom_source import Item, Opener
from napari_sparsetok.files.reading import Watch, explained
from napari_sparsetok.scan import ScanError

_CHUNK = 1 << 20  # bytes
_MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class Sorted:
    """Frames, each once.

    Parameters
    ----------
    frames : in the order of their numbers.
    copies : how many were left out because they are there twice.
    clashing : numbers of the images of which there are different ones; the first that was found is kept.
    """

    frames: list[Frame]
    copies: int
    clashing: tuple[int, ...]

    @property
    def notes(self) -> list[str]:
        """What to say of the copies."""
        files = "1 file is" if self.copies == 1 else f"{self.copies} files are"
        return [f"{files} there twice; each was read once."] if self.copies else []

    @property
    def clashes(self) -> list[tuple[str, str]]:
        """What to say of different pictures: the problem, and what dropping it means."""
        if not self.clashing:
            return []
        named = ", ".join(map(str, self.clashing[:_MOST_NAMED])) + (" …" if len(self.clashing) > _MOST_NAMED else "")
        problem = f"two different pictures claim to be the same slice (image number {named}); copy the export again"
        return [(problem, "keep the picture that was found first, which may be the wrong one")]


def sorted_out(frames: Sequence[Frame], watch: Watch) -> Sorted:
    """Find the frames that are there twice, and compare the pixels of these alone.

    Raises
    ------
    OpeningStopped : `watch` asked for it.
    """
    groups: dict[tuple[object, ...], list[Frame]] = defaultdict(list)
    for frame in reversed(frames):
        groups[_identity(frame)].append(frame)
    kept = sorted((group[-1] for group in groups.values()), key=lambda frame: frame.instance)
    several = [group for group in groups.values() if len(group) > 1]
    with Opener() as opener:
        pixels = _Pixels(opener, watch)
        clashing = [group for group in several if pixels.differ(group)]
    extra = sum(len(group) - 1 for group in clashing)
    return Sorted(kept, len(frames) - len(kept) - extra, tuple(sorted(group[0].instance for group in clashing)))


def _identity(frame: Frame) -> tuple[object, ...]:
    """The same for the same slice. Some programs that take names out give one identity to all slices."""
    place = frame.plane.position if frame.plane else None
    return frame.uid or frame.item, frame.number, frame.instance, place


@dataclass(frozen=True)
class _Pixels:
    """Compares pixels: as they lie in their files, and where these differ, as they may by packing alone, unpacked."""

    opener: Opener
    watch: Watch
    known: dict[Item, str] = field(default_factory=dict)

    def differ(self, group: Sequence[Frame]) -> bool:
        """Whether frames are not all of one picture; what cannot be read is said elsewhere."""
        if any(frame.head.trouble for frame in group):
            return False
        try:
            if len({self._in_file(frame) for frame in group}) == 1:
                return False
            return len({self._unpacked(frame) for frame in group}) > 1
        except ScanError:
            return False

    def _in_file(self, frame: Frame) -> str:
        """A digest of all that follows the header."""
        if frame.item not in self.known:
            digest = hashlib.sha256()
            with explained("a file here"), self.opener.open_head(frame.item) as stream:
                stream.seek(frame.head.pixels_at)
                while chunk := stream.read(_CHUNK):
                    self.watch.look()
                    digest.update(chunk)
            self.known[frame.item] = digest.hexdigest()
        return self.known[frame.item]

    def _unpacked(self, frame: Frame) -> str:
        self.watch.look()
        plane = dicom_pixels.stored_plane(frame)
        return hashlib.sha256(str(plane.shape).encode() + plane.astype("<f8").tobytes()).hexdigest()
