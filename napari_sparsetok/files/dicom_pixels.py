"""Pixels of DICOM frames as values: decoded, scaled, padding put aside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID

from napari_sparsetok.files import decoder, decoder_pool
from napari_sparsetok.files.decoder_pool import Task
from napari_sparsetok.files.dicom_bounds import go_on, read_up_to_size
from napari_sparsetok.files.dicom_header import Frame, Head, is_compressed
from napari_sparsetok.files.dicom_source import Opener
from napari_sparsetok.files.reading import Watch, check_memory, explained
from napari_sparsetok.scan import ScanError

_MEASURED = ("CT", "PT", "NM")
"""Modalities whose values are a quantity: they are never turned round, whatever a screen should do with them."""

_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
"""Tags of pixels as fractions of two sizes, and as whole numbers."""

_MISSING_DECODER = (
    "these pictures are compressed ({name}), and nothing that unpacks them is installed; "
    'pip install "napari-sparsetok[dicom]"'
)
_WHOLE = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Values (volumes, slices, rows, columns), and sentences about what was done to them."""

    values: NDArray[Any]
    notes: tuple[str, ...] = ()


def check_decoders(frames: Sequence[Frame]) -> None:
    """Say what to install before anything is read.

    Raises
    ------
    ScanError : a decoder is missing, or the transfer syntax is known to nobody.
    """
    for syntax in {frame.head.transfer_syntax for frame in frames}:
        if not is_compressed(syntax):
            continue
        try:
            available = get_decoder(UID(syntax)).is_available
        except (NotImplementedError, ValueError):
            raise ScanError("these pictures are packed in a way that is not known; export them uncompressed") from None
        if not available:
            raise ScanError(_MISSING_DECODER.format(name=UID(syntax).name))


def load(volumes: Sequence[Sequence[Frame]], watch: Watch) -> Pixels:
    """Read the pixels of frames in their places.

    Raises
    ------
    ScanError : a file is damaged, or there is too little memory.
    OpeningStopped : `watch` asked for it.
    """
    frames = [frame for volume in volumes for frame in volume]
    check_decoders(frames)
    kind = value_type(frames)
    shape = (len(volumes), len(volumes[0]), *frames[0].shape)
    largest = max(frame.item.size for frame in frames)
    count = len(frames) * frames[0].shape[0] * frames[0].shape[1]
    check_memory(count * kind.itemsize + 3 * largest, "this series")
    values = np.empty(shape, dtype=kind)
    places: dict[Any, list[_Place]] = defaultdict(list)
    for t, volume in enumerate(volumes):
        for z, frame in enumerate(volume):
            places[frame.item].append(_Place(frame, t, z))
    target = _Target(values)
    progress = _Progress(watch, 2 * len(frames))
    files = [sorted(here, key=lambda place: place.frame.number) for here in places.values()]
    if not _load_elsewhere(files, target, progress):
        with Opener() as opener:
            for here in files:
                _load_file(opener, here, target, progress)
    progress.step()
    notes = [*_cleared(values, target.padded)]
    if any(_is_inverted(frame.head) for frame in frames):
        notes.append("The file stores bright as low (MONOCHROME1); values are turned round, so that bright is high.")
    return Pixels(values, tuple(notes))


@dataclass(frozen=True)
class _Place:
    """Where a frame goes: volume and slice."""

    frame: Frame
    volume: int
    slice: int


@dataclass(eq=False)
class _Target:
    """Where values go: (volumes, slices, rows, columns), and which of them are padding, by volume and slice."""

    values: NDArray[Any]
    padded: dict[tuple[int, int], NDArray[np.bool_]] = field(default_factory=dict)

    def put(self, place: _Place, plane: NDArray[Any]) -> None:
        """Take the pixels of a frame as stored."""
        frame, at = place.frame, (place.volume, place.slice)
        if frame.head.padding is not None:
            low, high = frame.head.padding
            self.padded[at] = (plane >= low) & (plane <= high)
        self.values[at] = scaled(plane, frame, self.values.dtype)


@dataclass
class _Progress:
    """How far it is: each frame counts twice, once for its bytes and once for what is made of them."""

    watch: Watch
    total: int
    done: int = 0

    def step(self, further: int = 0) -> None:
        self.watch.step(self.done + further, self.total)


def _load_elsewhere(files: Sequence[Sequence[_Place]], target: _Target, progress: _Progress) -> bool:
    """Fill in the frames by other processes, if they are compressed and worth it; whether that was done."""
    frames = [here[0].frame for here in files]
    count = sum(map(len, files))
    if count < decoder_pool.FEWEST or not all(is_compressed(frame.head.transfer_syntax) for frame in frames):
        return False
    wanted = [
        task
        for frame, here in zip(frames, files, strict=True)
        for task in decoder_pool.tasks(
            Task(
                frame.item,
                frame.head.transfer_syntax,
                tuple(place.frame.number for place in here),
                tuple(partial(target.put, place) for place in here),
                _words(frame),
            )
        )
    ]
    if not decoder_pool.run(wanted, lambda done: progress.step(2 * done)):
        return False
    progress.done = progress.total
    return True


def _words(frame: Frame) -> str:
    return f"slice {frame.instance} of this series"


def _load_file(opener: Opener, here: Sequence[_Place], target: _Target, progress: _Progress) -> None:
    """Fill in the frames of one file, a frame at a time.

    Parameters
    ----------
    here : rising by frame number.
    """
    first = here[0].frame
    count = 0
    progress.step()

    def reading(done: int) -> None:
        progress.step(len(here) * min(done, first.item.size) // first.item.size)

    with explained(_words(first)), opener.open(first.item, reading) as stream:
        dataset = _up_to_pixels(stream, first.head)
        progress.done += len(here)
        planes = _stored(dataset, first.head, [place.frame.number for place in here])
        for place, plane in zip(here, planes, strict=False):  # more than announced are no fault
            progress.step()
            target.put(place, plane)
            progress.done += 1
            count += 1
        if count < len(here):
            raise EOFError


def thumbnail_plane(frame: Frame) -> NDArray[Any]:
    """The pixels (rows, columns) of one frame, unscaled; zeros where they cannot be read."""
    try:
        plane = stored_plane(frame)
        return -plane.astype(np.float32) if _is_inverted(frame.head) else plane
    except ScanError:
        return np.zeros((1, 1), dtype=np.uint8)


def stored_plane(frame: Frame) -> NDArray[Any]:
    """The pixels (rows, columns) of one frame as stored.

    Raises
    ------
    ScanError : they cannot be read.
    """
    if frame.head.trouble:
        raise ScanError(frame.head.trouble)
    check_decoders([frame])
    check_memory(3 * frame.item.size, "this file")
    with explained("this file"), Opener() as opener, opener.open(frame.item) as stream:
        return next(_stored(_up_to_pixels(stream, frame.head), frame.head, [frame.number]))


def _up_to_pixels(stream: BinaryIO, head: Head) -> Dataset:
    """A data set without the descriptions of its frames, and without what follows its pixels.

    The first may be long, and are known; of zeros behind the pixels, each eight would be read as an element.
    """
    seen = False

    def stop(tag: int, vr: str | None, length: int) -> bool:
        nonlocal seen
        before, seen = seen, tag in _PIXELS
        return before

    dataset = read_up_to_size(stream)
    stream.seek(head.pixels_at)
    go_on(dataset, stream, stop)
    return dataset


def _stored(dataset: Dataset, head: Head, numbers: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The pixels (rows, columns) of some frames as stored, rising by number."""
    if is_compressed(head.transfer_syntax):
        try:
            yield from decoder.decoded(dataset, head.transfer_syntax, numbers)
        except decoder.DamagedError as error:
            raise ScanError(str(error)) from None
        return
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = UID(head.transfer_syntax)
    yield from iter_pixels(dataset, raw=True, indices=numbers)  # which fills the bits that a pixel does not use


def value_type(frames: Sequence[Frame]) -> np.dtype[Any]:
    """The smallest type that holds every value that the frames' bits and scaling allow."""
    lows, highs, whole = [0.0], [0.0], True
    for frame in frames:
        low, high = _range(frame.head)
        slope, intercept = frame.scaling
        _check_scaling(slope, intercept)
        lows.append(min(low * slope, high * slope) + intercept)
        highs.append(max(low * slope, high * slope) + intercept)
        whole = whole and slope == int(slope) and intercept == int(intercept)
        whole = whole and frame.head.bits[0] <= 32 and not frame.head.fractions
    if whole:
        for kind in _WHOLE:
            if np.iinfo(kind).min <= min(lows) and max(highs) <= np.iinfo(kind).max:
                return np.dtype(kind)
    deep = any(frame.head.bits[1] > (32 if frame.head.fractions else 16) for frame in frames)
    return np.dtype(np.float64 if deep else np.float32)


def _check_scaling(slope: float, intercept: float) -> None:
    if not np.isfinite([slope, intercept]).all():
        raise ScanError("a slice is scaled by a number that is none; export the series again")
    if slope == 0:
        raise ScanError("the values of a slice are to be multiplied by zero; export the series again")


def _range(head: Head) -> tuple[float, float]:
    stored = head.bits[1]
    return (-(2.0 ** (stored - 1)), 2.0 ** (stored - 1) - 1) if head.signed else (0.0, 2.0**stored - 1)


def scaled(plane: NDArray[Any], frame: Frame, kind: np.dtype[Any]) -> NDArray[Any]:
    """What the stored pixels mean."""
    slope, intercept = frame.scaling
    if _is_inverted(frame.head):
        low, high = _range(frame.head)
        plane = (low + high) - plane.astype(np.float64)
    if (slope, intercept) == (1.0, 0.0):
        return plane.astype(kind, copy=False)
    wide = np.int64 if kind.kind in "iu" else np.float64
    if wide is np.int64:
        return (plane.astype(wide) * int(slope) + int(intercept)).astype(kind)
    return (plane.astype(wide) * slope + intercept).astype(kind)


def _is_inverted(head: Head) -> bool:
    return head.photometric == "MONOCHROME1" and head.modality not in _MEASURED


def _cleared(values: NDArray[Any], padded: dict[tuple[int, int], NDArray[np.bool_]]) -> list[str]:
    """Give padding the lowest value that was measured, in place."""
    padded = {place: mask for place, mask in padded.items() if mask.any()}
    if not padded:
        return []
    measured = [
        values[t, z][~padded[t, z]] if (t, z) in padded else values[t, z]
        for t in range(values.shape[0])
        for z in range(values.shape[1])
    ]
    lowest = min((part.min() for part in measured if part.size), default=values.min())
    count = 0
    for place, mask in padded.items():
        changed = mask & (values[place] != lowest)
        count += int(changed.sum())
        values[place][changed] = lowest
    share = count / values.size
    return [f"Padding outside the picture ({share:.1%} of the voxels) was set to {lowest:g}."] if count else []
