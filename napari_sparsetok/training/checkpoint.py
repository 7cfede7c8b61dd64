"""The state of a run on disk, whole at any moment. Only tensors and numbers: nothing in it is ever unpickled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.scan import ScanError


@dataclass(frozen=True)
class Place:
    """How far a run has come: steps done, seconds spent, and the digest of its recipe."""

    step: int
    seconds: float
    digest: str


def save(path: Path, place: Place, networks: dict[str, nn.Module], optimiser: torch.optim.Optimizer) -> None:
    """Write the run's state over the last one, in one move.

    Raises
    ------
    ScanError : the disk refuses; the last one is still there.
    """
    tensors: dict[str, Tensor] = {}
    for name, network in networks.items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    about = {"step": str(place.step), "seconds": repr(place.seconds), "digest": place.digest}
    words = "the run's state could not be saved ({}); free space and go on with the same command"
    with written_whole(path, words=words) as temporary:
        save_file(stored, temporary, metadata=about)


def load(path: Path, networks: dict[str, nn.Module], optimiser: torch.optim.Optimizer, digest: str) -> Place:
    """Fill networks and optimiser with a run's state, if it is of the recipe of this digest.

    Raises
    ------
    ScanError : it is damaged, or of another recipe.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            if about["digest"] != digest:
                raise ScanError(f"{path.parent.name} holds a run of another recipe; choose another folder for this one")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        for name, network in networks.items():
            network.load_state_dict(_below(tensors, name))
        states: dict[int, dict[str, Any]] = {}
        for key, value in _below(tensors, "optimiser").items():
            index, entry = key.split(".", 1)
            states.setdefault(int(index), {})[entry] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
        return Place(int(about["step"]), float(about["seconds"]), about["digest"])
    except ScanError:
        raise
    except (SafetensorError, RuntimeError, KeyError, ValueError, OSError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ScanError(
            f"the run in {path.parent.name} cannot be gone on with ({first}); choose another folder"
        ) from None


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix + "."): value for key, value in tensors.items() if key.startswith(prefix + ".")}
