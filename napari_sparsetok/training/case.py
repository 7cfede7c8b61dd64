"""One labelled scan, ready for the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.engine.body import body_box
from napari_sparsetok.engine.intensity import apply_rule
from napari_sparsetok.engine.resampling import ModelGrid, model_grid, to_model
from napari_sparsetok.files import open_scan
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.scan import Region, Scan, ScanError
from napari_sparsetok.training.configuration import Preparation
from napari_sparsetok.training.dataset import Item

_PLACES = 2000  # labelled voxels that a case remembers of each label


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled scan, ready for the network.

    image : (channels, z, y, x) float32, after the intensity rule.
    labels : (z, y, x) uint8, numbered from 1.
    known : bool for background and each label: whether it was drawn.
    places : for each label that is there, (n, 3) some of its voxels.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    known: NDArray[np.bool_]
    places: Mapping[int, NDArray[np.int16]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, image: NDArray[np.float32], labels: NDArray[np.uint8], known: Sequence[bool] | NDArray[np.bool_]
    ) -> Case:
        """A case whose places are looked up. Voxels of labels that are not known count as background."""
        known = np.asarray(known, dtype=bool)
        labels = np.where(known[labels], labels, 0).astype(np.uint8)
        rng = np.random.default_rng(0)
        places = {}
        for label in range(1, len(known)):
            voxels = np.argwhere(labels == label).astype(np.int16)
            if len(voxels):
                places[label] = voxels[rng.permutation(len(voxels))[:_PLACES]]
        return cls(name, image, labels, known, places)


def open_item(item: Item) -> tuple[list[Scan], Scan]:
    """A case's channels and its labels, each (z, y, x), from disk.

    Raises
    ------
    ScanError : a file cannot be read, they do not lie on one grid, or hold more or fewer channels than they should.
    """
    files, drawn = [open_scan(path) for path in item.images], open_scan(item.label)
    if drawn.leading:
        raise ScanError(f"{item.label.name} holds {len(drawn.voxels)} volumes; labels are one")
    for scan, path in zip([*files[1:], drawn], [*item.images[1:], item.label], strict=True):
        if not scan.geometry.same_grid(files[0].geometry):
            raise ScanError(f"{path.name} does not lie on the grid of {item.images[0].name}")
    channels = [volume for scan in files for volume in _volumes(scan)]
    if len(channels) != item.channels:
        names = ", ".join(path.name for path in item.images)
        raise ScanError(f"{names} holds {len(channels)} volume(s), and the dataset has {item.channels} channel(s)")
    return channels, drawn


def _volumes(scan: Scan) -> list[Scan]:
    """The volumes along a scan's leading axis; nothing is read of one that stays on disk."""
    if not scan.leading:
        return [scan]
    return [
        replace(
            scan, voxels=scan.voxels[k], leading="", identity=f"{scan.identity} volume {k}" if scan.identity else ""
        )
        for k in range(len(scan.voxels))
    ]


def read_case(item: Item, numbers: Mapping[int, int], table: LabelTable, preparation: Preparation) -> Case:
    """One case on the model's grid.

    Parameters
    ----------
    numbers : from the dataset's numbers to the table's, or to 0 if it has none for them; labels of the table that are
        not among them are unknown.

    Raises
    ------
    ScanError : a file cannot be read, image and labels do not lie on one grid, or a number in the mask has no name.
    """
    channels, drawn = open_item(item)
    spacing = channels[0].geometry.spacing
    box = Region.whole(channels[0].shape)
    if preparation.body is not None:
        box = body_box(channels[0].voxels, box, preparation.body, spacing)
    grid = model_grid(box.shape, spacing, preparation.spacing, 1)
    image = np.stack(
        [apply_rule(preparation.intensity, to_model(np.asarray(s.voxels[box.slices]), grid)) for s in channels]
    )
    places = {label.id: k for k, label in enumerate(table, start=1)}
    order = {theirs: places.get(ours, 0) for theirs, ours in numbers.items()}
    known = {k for theirs, k in order.items() if item.drawn is None or theirs in item.drawn}
    labels = labels_to_model(renumbered(drawn.voxels[box.slices], order, item), grid)
    return Case.of(item.name, image, labels, [k == 0 or k in known for k in range(len(table) + 1)])


def labels_to_model(labels: NDArray[np.uint8], grid: ModelGrid) -> NDArray[np.uint8]:
    """Bring labels (z, y, x) to the model's grid: a voxel gets the label that fills most of it, if that is half."""
    if not grid.resampled:
        return labels
    best = np.full(grid.inner, 0.5, dtype=np.float32)
    result = np.zeros(grid.inner, dtype=np.uint8)
    for label in np.unique(labels[labels > 0]):
        share = to_model((labels == label).astype(np.float32), grid)
        more = share >= best
        result[more], best[more] = label, share[more]
    return result


def renumbered(voxels: NDArray[Any], numbers: Mapping[int, int], item: Item) -> NDArray[np.uint8]:
    """Labels (z, y, x) by other numbers; 0 stays.

    Parameters
    ----------
    numbers : from those in the mask to others.
    item : whose mask it is.

    Raises
    ------
    ScanError : the mask holds a number that is not among them.
    """
    voxels = np.asarray(voxels)
    result, unnamed = np.zeros(voxels.shape, dtype=np.uint8), voxels != 0
    for theirs, ours in numbers.items():
        here = voxels == theirs
        result[here], unnamed[here] = ours, False
    if unnamed.any():
        found = ", ".join(f"{n:g}" for n in np.unique(voxels[unnamed])[:10])
        raise ScanError(f"{item.label.name} holds the label number(s) {found}, which nobody named; see --label-numbers")
    return result
