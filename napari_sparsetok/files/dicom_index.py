"""What DICOM series there are at a path, and what is wrong with them. Reads headers, and pixels for thumbnails."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from napari_sparsetok.files import dicom_pixels
from napari_sparsetok.files.dicom_doubles import Sorted, sorted_out
from napari_sparsetok.files.dicom_header import SEGMENTATION, DeflatedError, Frame, read_frames
from napari_sparsetok.files.dicom_source import Item, Opener, beside, is_dicom, items_at
from napari_sparsetok.files.reading import Watch, explained
from napari_sparsetok.files.series import SeriesInfo, thumbnail_of
from napari_sparsetok.files.stack import DROP, FEWEST, Layout, Plane, displaced, grouped, layout_of, side_by_side
from napari_sparsetok.files.volumes import Split, by_setting, split
from napari_sparsetok.scan import ScanError

_SAME_DIRECTION = 2e-3  # difference of direction cosines
_MOST_PARTS = 64  # of one series
_MOST_THUMBNAILS = 100
_UNREAD = "damaged, cut short, missing, or may not be read by you"


@dataclass(frozen=True, eq=False)
class Candidate:
    """Frames that fit together, sorted into volumes, with what is wrong about them."""

    volumes: list[list[Frame]]
    layout: Layout | None
    needed: frozenset[str]
    notes: tuple[str, ...]
    problems: tuple[str, ...] = ()
    repairs: dict[str, str] = field(default_factory=dict)


def find_series(path: Path, watch: Watch = Watch()) -> list[SeriesInfo]:  # noqa: B008 - frozen
    """All series at a path, best candidate first.

    Raises
    ------
    ScanError : there is no DICOM image.
    OpeningStopped : `watch` asked for it.
    """
    with explained("this DICOM export"):
        return _found(path, watch)


def _found(path: Path, watch: Watch) -> list[SeriesInfo]:
    frames, damaged = _frames_at(path, watch)
    if not frames:
        if damaged:
            raise ScanError(
                f"the DICOM files here are {_UNREAD}; copy them again from their source, or ask their owner"
            )
        raise ScanError("no DICOM image was found here; choose the folder, zip or file that holds the scan")
    found = [_described(key, part, damaged, watch) for key, part in _parts(frames)]
    found.sort(key=_rank)
    return [_with_thumbnail(info) if k < _MOST_THUMBNAILS else info for k, info in enumerate(found)]


def _frames_at(path: Path, watch: Watch) -> tuple[list[Frame], int]:
    items = items_at(path, watch)
    wanted: tuple[str, str] | None = None
    known: dict[Item, list[Frame]] = {}
    if len(items) == 1 and path.is_file() and not items[0].member and path.name.upper() != "DICOMDIR":
        with Opener() as opener:
            own = _read(opener, items[0], watch)
        if not own or all(frame.head.sop_class in SEGMENTATION for frame in own):
            _say_why_none(own or (), ())
            raise ScanError(
                "this file holds no DICOM image, and outlines (RTSTRUCT) are not read; choose another file of the "
                "series, or the mask as DICOM SEG or NIfTI"
            )
        wanted = _series_of(own[0])
        known = {items[0]: own}
        items = beside(path, watch)
    return _index(items, wanted, known, watch)


def _index(
    items: Sequence[Item], wanted: tuple[str, str] | None, known: Mapping[Item, list[Frame]], watch: Watch
) -> tuple[list[Frame], int]:
    """The images among files, and how many files are damaged.

    Parameters
    ----------
    wanted : the series that is asked for, see `_series_of`; None if all are.
    known : what was read already.
    """
    frames: list[Frame] = []
    errors: list[ScanError] = []
    blank: list[str] = []
    with Opener() as opener:
        for done, item in enumerate(items):
            watch.step(done, len(items))
            try:
                found = known[item] if item in known else _read(opener, item, watch)
            except ScanError as error:
                errors.append(error)
                continue
            if found is None:
                blank.append(item.pattern)
            else:
                frames += [f for f in found if wanted in (None, _series_of(f))]
    watch.step(len(items), len(items))
    images = [frame for frame in frames if frame.head.sop_class not in SEGMENTATION]
    if not images:
        _say_why_none(frames, errors)
    # A file without content that is called like the slices was one; any other may be anything.
    patterns = {frame.item.pattern for frame in images}
    return images, len(errors) + sum(pattern in patterns for pattern in blank)


def _say_why_none(masks: Sequence[Frame], errors: Sequence[ScanError]) -> None:
    if masks:
        raise ScanError("this is a mask, not a scan; open the scan that it was drawn on, and then the mask on it")
    if errors and all(isinstance(error, DeflatedError) for error in errors):
        raise errors[0]


def _read(opener: Opener, item: Item, watch: Watch) -> list[Frame] | None:
    """The frames of a file; none if it is not DICOM, or no image. None if there is nothing in it, or zeros."""
    with explained("a DICOM file here"):
        first = opener.first_bytes(item)
        if not any(first):
            return None
        if not is_dicom(first):
            return []
        with opener.open_head(item) as stream:
            return read_frames(item, stream, watch)


def _parts(frames: Sequence[Frame]) -> Iterator[tuple[str, list[list[Frame]]]]:
    """Each series as lists of frames that fit together: [those of this part, those of the other parts]."""
    series: dict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        series[_series_of(frame)].append(frame)
    studies = Counter(uid for _, uid in series)
    for (study, uid), members in series.items():
        parts = _fitting(members)[:_MOST_PARTS]
        for number, part in enumerate(parts):
            name = f"{uid}|{number}" if studies[uid] == 1 else f"{study}|{uid}|{number}"
            key = hashlib.sha256(name.encode()).hexdigest()[:8]
            yield key, [part, [frame for other in parts if other is not part for frame in other]]


def _series_of(frame: Frame) -> tuple[str, str]:
    """Its study and series: a program that takes names out may give the series of several patients one identifier."""
    return frame.head.study, frame.head.series


def _fitting(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of one orientation, size, spacing and frame of reference together, the largest group first."""
    groups: list[list[Frame]] = []
    references = {frame.head.frame_of_reference for frame in frames}
    one_each = 2 < len(references) == len({frame.item for frame in frames})  # made up for each file: they say nothing
    for frame in frames:
        for group in groups:
            of_both = {frame.head.frame_of_reference, group[0].head.frame_of_reference} - {""}
            if (one_each or len(of_both) < 2) and _fit(frame, group[0]):
                group.append(frame)
                break
        else:
            groups.append([frame])
            if len(groups) > 8 * _MOST_PARTS:
                raise ScanError("the slices of a series have hundreds of orientations; it is no stack of slices")
    return sorted(groups, key=len, reverse=True)


def _fit(frame: Frame, other: Frame) -> bool:
    a, b = frame.plane, other.plane
    if frame.shape != other.shape or (a is None) != (b is None):
        return False
    if a is None or b is None:
        return True
    return bool(
        np.allclose(a.orientation, b.orientation, atol=_SAME_DIRECTION) and np.allclose(a.spacing, b.spacing, rtol=1e-3)
    )


# Describing


def _described(key: str, groups: list[list[Frame]], damaged: int, watch: Watch) -> SeriesInfo:
    part, others = groups
    candidate = _candidate(sorted_out(part, watch), others, damaged)
    first = candidate.volumes[0][0]
    plane = first.plane
    slices = len(candidate.volumes[0])
    step = candidate.layout.step if candidate.layout else 0.0
    return SeriesInfo(
        key=key,
        description=_description(first, slices),
        modality=first.head.modality,
        shape=(slices, *first.shape),
        spacing=(step, *plane.spacing) if plane else (0.0, 0.0, 0.0),
        slices=slices,
        volumes=len(candidate.volumes),
        problems=candidate.problems,
        repairs=candidate.repairs,
        handle=candidate,
    )


def _description(first: Frame, slices: int) -> str:
    kind, name = first.head.modality or "scan", first.head.name
    if not name:
        return f"{kind} {first.shape[1]}×{first.shape[0]}×{slices}"
    return f"{kind} {name}" if name.startswith("series ") else name


def _with_thumbnail(info: SeriesInfo) -> SeriesInfo:
    volume = info.handle.volumes[0]
    return replace(info, thumbnail=thumbnail_of(dicom_pixels.thumbnail_plane(volume[len(volume) // 2])))


def _rank(info: SeriesInfo) -> tuple[bool, bool, int]:
    return not info.opens, not info.repairs, -info.slices * info.shape[1] * info.shape[2]


def _candidate(part: Sorted, others: list[Frame], damaged: int) -> Candidate:
    frames, notes = part.frames, part.notes
    final = _unusable(frames)
    if final:
        return Candidate([frames], None, frozenset(), tuple(notes), final)
    stacked, layout = _stacked(frames)
    repairs = {**layout.repairs, **stacked.repairs}
    problems = [*layout.problems, *stacked.problems]
    for problem, repair in [*part.clashes, *_strays(frames, others, damaged)]:
        problems.append(problem)
        repairs[DROP] = "; ".join([*filter(None, [repairs.get(DROP)]), repair])
    if layout.problems and not layout.repairs:
        repairs = {}
    notes += [*filter(None, [stacked.note]), *layout.notes]
    return Candidate(stacked.volumes, layout, frozenset(repairs), tuple(notes), tuple(problems), repairs)


def _stacked(frames: Sequence[Frame]) -> tuple[Split[Frame], Layout]:
    """Frames that fit together as volumes, and how the first of them lies."""
    for volumes in by_setting(frames):
        if moved := _moved(volumes):
            return moved
    planes = _planes(frames)
    groups = grouped(planes)
    stacked = split([[frames[k] for k in group] for group in groups])
    if moved := _moved(stacked.volumes):
        return moved
    layout = layout_of(_planes(stacked.volumes[0]))
    if any(side_by_side([planes[k] for k in group]) for group in groups):
        layout = replace(layout, problems=("several slices lie side by side in one plane",), repairs={})
    return stacked, layout


def _moved(volumes: Sequence[Sequence[Frame]]) -> tuple[Split[Frame], Layout] | None:
    """The first of several volumes alone, if the others do not lie over it; None if they do."""
    first = list(volumes[0])
    groups = grouped(_planes(first))
    if len(volumes) < 2 or len(first) < FEWEST or len(groups) < len(first):
        return None
    off = displaced([_planes(volume) for volume in volumes])
    if not off:
        return None
    problem = f"its {len(volumes)} volumes do not lie in one place, but up to {off:.{1 if off >= 0.1 else 2}f} mm apart"
    repairs = {DROP: f"open the first of {len(volumes)} volumes alone"}
    ordered = [first[group[0]] for group in groups]
    return Split([ordered], problems=(problem,), repairs=repairs), layout_of(_planes(ordered))


def _planes(frames: Sequence[Frame]) -> list[Plane]:
    return [frame.plane for frame in frames if frame.plane]


def _strays(frames: Sequence[Frame], others: Sequence[Frame], damaged: int) -> Iterator[tuple[str, str]]:
    """What is there beside the slices of a candidate: the problem, and what dropping it means."""
    if others:
        problem = (
            f"the series mixes slices of different directions, sizes or frames of reference ({len(others)} do not fit "
            "the rest)"
        )
        yield problem, f"open these {len(frames)} slices alone"
    if damaged:
        noun = "file or folder here is" if damaged == 1 else "files or folders here are"
        problem = f"{damaged} {noun} {_UNREAD}, and may belong to it; copy the export again, or ask its owner"
        yield problem, "open what can be read and leave out the rest"


def _unusable(frames: Sequence[Frame]) -> tuple[str, ...]:
    """What nothing can repair."""
    bad = [frame for frame in frames if frame.head.trouble]
    if bad:
        which = ", ".join(str(frame.instance) for frame in bad[:5]) + (" …" if len(bad) > 5 else "")
        return (f"image number {which}: {bad[0].head.trouble}",)
    if frames[0].head.modality == "RTDOSE":
        return ("it is a dose distribution, not a scan; open the CT that it was computed on",)
    if any("MOSAIC" in str(frame.marks.get("image type")) for frame in frames):
        return ("its slices are laid out as a mosaic in one picture; convert it to NIfTI first",)
    if any(frame.plane is None for frame in frames):
        return ("its pictures do not say where they lie in the patient; export the original slices",)
    return ()
