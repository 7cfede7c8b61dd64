"""Prepared cases on disk: memory holds only what is being looked at, and processes of one machine share it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_sparsetok.scan import ScanError
from napari_sparsetok.training.case import Case


@dataclass(frozen=True)
class Shelf:
    """A folder of prepared cases, a file each. Safetensors maps a file into memory without keeping it open, so that
    there may be more cases than a process may have files.

    part, parts : of the processes that fill it together, which one this is, and how many they are.
    """

    folder: Path
    part: int = 0
    parts: int = 1

    def put(self, place: str, case: Case) -> None:
        """Write a case.

        Raises
        ------
        ScanError : the disk refuses.
        """
        arrays = {"image": case.image, "labels": case.labels, "known": case.known}
        arrays |= {f"places.{label}": voxels for label, voxels in case.places.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({key: torch.tensor(array) for key, array in arrays.items()}, self._path(place))
        except (OSError, SafetensorError) as error:
            raise ScanError(
                f"a prepared case could not be written ({error}); free space and run the same command again"
            ) from None

    def take(self, place: str, name: str) -> Case:
        """A case whose voxels stay on disk until they are looked at; bit for bit the one that was put there.

        Raises
        ------
        ScanError : it cannot be read.
        """
        try:
            arrays = {key: tensor.numpy() for key, tensor in load_file(self._path(place)).items()}
        except (OSError, SafetensorError) as error:
            raise ScanError(f"the prepared case {place} cannot be read ({error}); run the same command again") from None
        places = {int(key.split(".")[1]): array for key, array in arrays.items() if key.startswith("places.")}
        return Case(name, arrays["image"], arrays["labels"], arrays["known"], dict(sorted(places.items())))

    def clear(self) -> None:
        """Take all cases away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, place: str) -> Path:
        return self.folder / f"{place}.safetensors"
