"""Frames that lie in one place, told apart: by time, b-value, echo. Pure; knows no file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from napari_sparsetok.files.stack import DROP

# What a scanner means by it, when it differs between slices in one place; all of them may vary together.
_SETTINGS = ("time", "b-value", "gradient direction", "echo time", "image type", "acquisition", "trigger time")
# Of these, what no scanner changes from slice to slice within a volume.
_STEADY = ("time", "b-value", "gradient direction", "echo time")
# What merely runs on while it measures: differs from slice to slice too, so only its order counts.
_CLOCKS = ("acquisition time", "content time")
_TIME = re.compile(r"\d{6}(\.\d*)?")
_EVENING, _MORNING = 18, 6  # o'clock; no scan takes longer than from one to the other
_UNITS = {"b-value": "s/mm²", "echo time": "ms", "trigger time": "ms"}
_MOST_NAMED = 8


class Marked(Protocol):
    """A frame, as far as this module looks at it."""

    @property
    def marks(self) -> Mapping[str, Any]:
        """What may tell volumes apart."""

    @property
    def instance(self) -> int:
        """Its number in the series."""


T = TypeVar("T", bound=Marked)


@dataclass(frozen=True, eq=False)
class Split(Generic[T]):
    """Volumes, each with one frame a plane, planes in the order given.

    note : what the leading axis is; empty for one volume.
    """

    volumes: list[list[T]]
    note: str = ""
    problems: tuple[str, ...] = ()
    repairs: dict[str, str] = field(default_factory=dict)


def split(planes: Sequence[Sequence[T]]) -> Split[T]:
    """Sort the frames of each plane into volumes.

    Parameters
    ----------
    planes : the frames in each plane.
    """
    if max(len(plane) for plane in planes) == 1:
        return Split([[plane[0] for plane in planes]])
    for names in _ways(planes):
        volumes = _by_key(planes, names)
        if volumes:
            return _complete(planes, volumes, names)
    by_clock = _by_clock(planes)
    if by_clock:
        return by_clock
    first = [min(plane, key=lambda frame: frame.instance) for plane in planes]
    double = sum(len(plane) > 1 for plane in planes)
    return Split(
        [first],
        problems=(
            f"{double} of {len(planes)} slices are there more than once, and nothing in the headers tells them apart",
        ),
        repairs={DROP: "keep the slice with the lowest number in each place and leave out the others"},
    )


def by_setting(frames: Sequence[T]) -> Iterator[list[list[T]]]:
    """Frames in sets, wherever they lie: by each setting that is steady within a volume but varies, then by all.

    Sets are in the order of their values, those with most frames first.
    """
    varying = [name for name in _STEADY if len({_hashable(frame.marks.get(name)) for frame in frames}) > 1]
    ways = [(name,) for name in varying] + ([tuple(varying)] if len(varying) > 1 else [])
    for names in ways:
        sets: dict[Any, list[T]] = {}
        for frame in frames:
            sets.setdefault(tuple(_hashable(frame.marks.get(name)) for name in names), []).append(frame)
        ordered = [sets[key] for key in sorted(sets, key=_order)]
        yield sorted(ordered, key=len, reverse=True)


def _ways(planes: Sequence[Sequence[Marked]]) -> list[tuple[str, ...]]:
    """What to tell volumes apart by: each setting that varies within a plane, then all of them."""
    varying = [
        name for name in _SETTINGS if any(len({_hashable(f.marks.get(name)) for f in plane}) > 1 for plane in planes)
    ]
    ways: list[tuple[str, ...]] = [(name,) for name in varying]
    if {"b-value", "gradient direction"} <= set(varying):
        ways.append(("b-value", "gradient direction"))
    return [*ways, tuple(varying)] if len(varying) > 1 else ways


def _by_key(planes: Sequence[Sequence[T]], names: tuple[str, ...]) -> dict[Any, list[T | None]]:
    """Frame by key and plane; empty where two frames of a plane share a key, or no key is in all planes."""
    volumes: dict[Any, list[T | None]] = {}
    for index, plane in enumerate(planes):
        for frame in plane:
            key = tuple(_hashable(frame.marks.get(name)) for name in names)
            places = volumes.setdefault(key, [None] * len(planes))
            if places[index] is not None:
                return {}
            places[index] = frame
    return volumes if any(None not in places for places in volumes.values()) else {}


def _complete(planes: Sequence[Sequence[T]], volumes: dict[Any, list[T | None]], names: tuple[str, ...]) -> Split[T]:
    keys = sorted((key for key, places in volumes.items() if None not in places), key=_order)
    whole = [[frame for frame in volumes[key] if frame is not None] for key in keys]
    note = _note(names, keys)
    left_out = len(volumes) - len(keys)
    if not left_out:
        return Split(whole, note)
    noun = "volumes lacks" if left_out == 1 else "volumes lack"
    return Split(
        whole,
        note,
        (f"{left_out} of {len(volumes)} {noun} slices: the series was not exported whole",),
        {DROP: f"leave out what is not whole, and keep {len(keys)} of {len(volumes)} volumes"},
    )


def _by_clock(planes: Sequence[Sequence[T]]) -> Split[T] | None:
    counts = Counter(len(plane) for plane in planes)
    if len(counts) > 1:
        return None
    for name in _CLOCKS:
        key = _clock(name, [frame for plane in planes for frame in plane])
        ordered = [sorted(plane, key=key) for plane in planes]
        if all(len({frame.marks.get(name) for frame in plane}) == len(plane) for plane in planes):
            volumes = [[plane[k] for plane in ordered] for k in range(len(ordered[0]))]
            return Split(volumes, f"The leading axis is time: {len(volumes)} volumes by their {name}.")
    return None


def _clock(name: str, frames: Sequence[Marked]) -> Callable[[Marked], tuple[bool, str]]:
    """What puts frames in the order of a clock: one that says nothing of the day begins again at midnight."""

    def time(frame: Marked) -> str:
        return str(frame.marks.get(name))

    def hour(frame: Marked) -> int:
        return int(time(frame)[:2]) if _TIME.fullmatch(time(frame)) else _MORNING

    hours = {hour(frame) for frame in frames}
    passes = max(hours) >= _EVENING and min(hours) < _MORNING
    return lambda frame: (passes and hour(frame) < _MORNING, time(frame))


def _note(names: tuple[str, ...], keys: Sequence[tuple[Hashable, ...]]) -> str:
    if len(keys) < 2:
        return ""
    shown = [", ".join(_value(v) for v in key) for key in keys[:_MOST_NAMED]]
    more = f" … ({len(keys)} in all)" if len(keys) > _MOST_NAMED else ""
    unit = f" {_UNITS[names[0]]}" if len(names) == 1 and names[0] in _UNITS else ""
    return f"The leading axis is the {' and '.join(names)}: {'; '.join(shown)}{more}{unit}."


def _value(value: Hashable) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value in (None, "", ()) else str(value)


def _order(key: tuple[Hashable, ...]) -> tuple[Any, ...]:
    """Sorts numbers as numbers, and what is not there first."""
    return tuple(
        (0, 0.0, "") if value is None else (1, value, "") if isinstance(value, int | float) else (2, 0.0, str(value))
        for value in key
    )


def _hashable(value: Any) -> Hashable:
    if isinstance(value, int | float):
        return float(value)
    return value if isinstance(value, tuple | None.__class__) else str(value)
