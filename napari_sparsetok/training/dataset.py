"""Folders of labelled scans: which files belong together, what the labels are called, who is held out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.matching import Matching, match

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".mgz", ".tif", ".tiff")


@dataclass(frozen=True)
class Item:
    """One labelled scan on disk.

    name : of its file, or of its label's; with the folders below the dataset's if other files are called the same.
    images : a file for each channel, or one that holds all of them along a fourth axis.
    drawn : the dataset's numbers of the labels that were drawn in it; None if all were.
    channels : how many the files hold in all.
    """

    name: str
    images: tuple[Path, ...]
    label: Path
    drawn: frozenset[int] | None = None
    channels: int = 1


@dataclass(frozen=True)
class Dataset:
    """What a folder of labelled scans holds.

    labels : names by number, without background; empty if nobody named them.
    splits : items by the split's name.
    absent : what to say of cases that are in a split and not there, or have not all files; by their names.
    numbers : which of its labels is which of a table's, if somebody said so; empty if names tell.
    """

    root: Path
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    splits: Mapping[str, tuple[Item, ...]]
    absent: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[int, int] = field(default_factory=dict)

    def __getitem__(self, split: str) -> tuple[Item, ...]:
        """The items of a split.

        Raises
        ------
        ScanError : there is none of this name, or it is empty.
        """
        if split not in self.splits:
            raise ScanError(f"the dataset has no split “{split}”; it has {', '.join(self.splits) or 'none'}")
        if not self.splits[split]:
            raise ScanError(f"the split “{split}” of the dataset is empty")
        return self.splits[split]

    def named(self, table: LabelTable, numbers: Mapping[int, int] | None = None) -> Dataset:
        """The same with names for its labels: its own, or else a table's.

        Parameters
        ----------
        numbers : from the numbers in its masks to the table's, whatever the names are. None or empty if names tell, or
            if they are the same.

        Raises
        ------
        ScanError : the dataset names its labels, and none of them has such a number.
        """
        names = {label.id: label.name for label in table}
        if not numbers:
            return self if self.labels else replace(self, labels=names)
        if self.labels and not self.labels.keys() & numbers.keys():
            own = ", ".join(f"{number} {name}" for number, name in self.labels.items())
            raise ScanError(
                f"none of the label numbers {', '.join(map(str, numbers))} is the dataset's: {own}; leave them out to "
                "match labels by name"
            )
        named = {theirs: names[ours] for theirs, ours in numbers.items()}
        return replace(self, labels={**named, **self.labels}, numbers=numbers)

    def matching(self, table: LabelTable) -> Matching:
        """Which of its labels is which of a table's.

        Raises
        ------
        ScanError : they have no label in common.
        """
        found = match(self.labels, table, self.numbers)
        if not found:
            raise ScanError(
                "the dataset and the model have no label in common: "
                f"{', '.join(self.labels.values())} and {', '.join(label.name for label in table)}"
            )
        return found


def open_dataset(root: Path, images: Sequence[str] = (), labels: str = "") -> Dataset:
    """A dataset on disk.

    Parameters
    ----------
    root : a folder with a `dataset.json`, in the layout of the Medical Segmentation Decathlon or of nnU-Net; or any
        folder, with patterns.
    images : a pattern for each channel, such as "scans/*_t1.nii.gz". What "*" stands for names the case.
    labels : the pattern of the label files, such as "masks/*.nii.gz".

    Raises
    ------
    ScanError : there is nothing of the kind; says what is missing.
    """
    if not root.is_dir():
        raise ScanError(f"{root} is no folder")
    if images or labels:
        return _by_pattern(root, images, labels)
    path = root / "dataset.json"
    if not path.is_file():
        raise ScanError(f"{root.name} has no dataset.json; say which files belong together with --images and --labels")
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
        named = _names(listing["labels"])
        modality = listing.get("modality") or listing.get("channel_names") or {"0": "image"}
        channels = tuple(str(modality[key]) for key in sorted(modality, key=int))
        items = _listed(root, listing, len(channels)) if "training" in listing else _nnunet(root, listing)
        splits = listing.get("splits") or {}
        return Dataset(root, channels, named, _splits(items, splits), _unknown(items, splits))
    except KeyError as error:
        raise ScanError(f"dataset.json lacks {error}") from None
    except (ValueError, TypeError, AttributeError, OSError) as error:
        if isinstance(error, ScanError):
            raise
        raise ScanError(f"dataset.json cannot be used: {error}") from None


def _names(raw: Mapping[str, Any]) -> dict[int, str]:
    """Names by number; the decathlon has them that way round, nnU-Net the other."""
    if not all(key.isdigit() for key in raw):
        for name, number in raw.items():
            if isinstance(number, list):
                raise ScanError(
                    f"“{name}” is a region of the labels {', '.join(map(str, number))}, and regions are not supported; "
                    "in the labels of dataset.json, give every number a name of its own"
                )
        raw = {number: name for name, number in raw.items()}
    names = {int(number): str(name) for number, name in raw.items() if int(number)}
    for number, name in names.items():
        if name.casefold() == "ignore":
            raise ScanError(
                f"label {number}, “{name}”, is for voxels that nobody judged, and such are not supported; draw what is "
                "there or make them background, and take the label out of dataset.json"
            )
    return names


def _listed(root: Path, listing: Mapping[str, Any], channels: int) -> list[Item]:
    items = []
    for entry in listing["training"]:
        given = entry["image"]
        images = tuple(root / one for one in ([given] if isinstance(given, str) else given))
        drawn = frozenset(int(n) for n in entry["contoured"]) if "contoured" in entry else None
        items.append(Item(images[0].name, images, root / entry["label"], drawn, channels))
    return _told_apart(root, items)


def _told_apart(root: Path, items: Sequence[Item]) -> list[Item]:
    """Items whose files are called the same are named by their folders too. One that comes twice keeps its name."""
    files = Counter(path.name for path in {item.images[0] for item in items})
    return [replace(item, name=_below(root, item.images[0])) if files[item.name] > 1 else item for item in items]


def _below(root: Path, path: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _nnunet(root: Path, listing: Mapping[str, Any]) -> list[Item]:
    ending = str(listing.get("file_ending", ".nii.gz"))
    channels = len(listing.get("channel_names") or {"0": ""})
    items = []
    for label in sorted((root / "labelsTr").glob(f"*{ending}")):
        case = label.name.removesuffix(ending)
        images = tuple(root / "imagesTr" / f"{case}_{k:04d}{ending}" for k in range(channels))
        items.append(Item(label.name, images, label, channels=channels))
    if not items:
        raise ScanError(f"there are no labels labelsTr/*{ending} in {root.name}")
    return items


def _by_pattern(root: Path, images: Sequence[str], labels: str) -> Dataset:
    if not images or not labels:
        raise ScanError("give both patterns, --images (once for each channel) and --labels")
    found = [_matches(root, pattern) for pattern in (*images, labels)]
    *channels, drawn = found
    names = sorted(set(drawn).intersection(*channels))
    if not names:
        raise ScanError(
            "no image has a label file of the same name: "
            + "; ".join(f"“{p}” fits {len(f)} file(s)" for p, f in zip((*images, labels), found, strict=True))
        )
    items = [
        Item(name, tuple(channel[name] for channel in channels), drawn[name], channels=len(channels)) for name in names
    ]
    titles = tuple(f"channel {k}" for k in range(1, len(images) + 1)) if len(images) > 1 else ("image",)
    return Dataset(root, titles, {}, _splits(items, {}), _unpaired((*images, labels), found))


def _unpaired(patterns: Sequence[str], found: Sequence[Mapping[str, Path]]) -> dict[str, str]:
    """What to say of the cases that some pattern has no file of."""
    words = {}
    for name in sorted(set().union(*found) - set(found[0]).intersection(*found)):
        lacking = [f"“{pattern}”" for pattern, files in zip(patterns, found, strict=True) if name not in files]
        words[name] = f"has no file {' and no '.join(lacking)}"
    return words


def _matches(root: Path, pattern: str) -> dict[str, Path]:
    if pattern.count("*") != 1 or Path(pattern).is_absolute():
        raise ScanError(
            f"a pattern has one “*”, which names the case, and is seen from the dataset; “{pattern}” is not"
        )
    before, after = pattern.split("*")
    files = {}
    for path in sorted(root.glob(pattern)):
        relative = path.relative_to(root).as_posix()
        files[relative.removeprefix(before).removesuffix(after)] = path
    return files


def _splits(items: Sequence[Item], given: Mapping[str, Sequence[str]]) -> dict[str, tuple[Item, ...]]:
    """The splits that the dataset names, or every fifth case held out."""
    if given:
        return {split: _picked(items, names) for split, names in given.items()}
    return {"train": tuple(item for k, item in enumerate(items) if k % 5 != 4), "val": tuple(items[4::5])}


def _unknown(items: Sequence[Item], given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What to say of the names in splits that are no item's."""
    known = {_stem(item.name) for item in items}
    example = f"; the first one is called “{items[0].name}”" if items else ""
    return {
        name: f"is in the split “{split}”, and no case is called so{example}"
        for split, names in given.items()
        for name in names
        if _stem(name) not in known
    }


def _picked(items: Sequence[Item], names: Iterable[str]) -> tuple[Item, ...]:
    wanted = {_stem(name) for name in names}
    return tuple(item for item in items if _stem(item.name) in wanted)


def _stem(name: str) -> str:
    name = PurePosixPath(name).as_posix()  # without a “./” at its beginning
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name
