"""The state of a run on disk, whole at any moment. Only tensors and numbers: nothing in it is ever unpickled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.scan import ScanError


@dataclass(frozen=True)
class Place:
    """How far a run has come: steps done, seconds spent."""

    step: int
    seconds: float


@dataclass(frozen=True)
class Terms:
    """What a run that goes on has in common with what was cut off: else it would not be the same run.

    digest : of its recipe.
    precision, processes : that it computes in, and how many; in words of Lightning Fabric.
    cases : tells what it learns from and is measured on from others; empty if nobody said.
    start : tells the weights that it began with from others; empty if there were none, or nobody said again.
    """

    digest: str
    precision: str
    processes: int
    cases: str = ""
    start: str = ""


@dataclass(frozen=True, eq=False)
class Parts:
    """What has a state: networks by name, the optimiser, and what scales the loss, if something does."""

    networks: Mapping[str, nn.Module]
    optimiser: torch.optim.Optimizer
    precision: Precision


@dataclass(frozen=True, eq=False)
class Stored:
    """A run's state as it lies in a file."""

    tensors: dict[str, Tensor]
    about: dict[str, str]


def save(path: Path, place: Place, terms: Terms, parts: Parts) -> None:
    """Write the run's state over the last one, in one move.

    Raises
    ------
    ScanError : the disk refuses; the last one is still there.
    """
    tensors: dict[str, Tensor] = {}
    for name, network in parts.networks.items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for index, values in parts.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": torch.as_tensor(value) for key, value in values.items()}
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    about = {"step": str(place.step), "seconds": repr(place.seconds), "digest": terms.digest}
    about |= {"precision": terms.precision, "processes": str(terms.processes)}
    about |= {"cases": terms.cases, "start": terms.start}
    about["precision_state"] = json.dumps(parts.precision.state_dict())
    words = "the run's state could not be saved ({}); free space and go on with the same command"
    with written_whole(path, words=words) as temporary:
        save_file(stored, temporary, metadata=about)


def read(path: Path, terms: Terms) -> Stored:
    """A run's state, if its terms are these. What was not noted when it was written does not count.

    Raises
    ------
    ScanError : it is damaged, or its terms are others; says which.
    """
    check_digest(path, terms.digest)
    with _explained(path):
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        then = about.get("precision", terms.precision), int(about.get("processes", terms.processes))
        if then != (terms.precision, terms.processes):
            raise ScanError(
                f"the run in {path.parent.name} was begun by {then[1]} process(es) in {then[0]}, and this would be "
                f"{terms.processes} in {terms.precision}; go on with as many --devices and --nodes and with "
                f"--precision {then[0]}, or choose another folder"
            )
        if terms.cases and about.get("cases", terms.cases) != terms.cases:
            raise ScanError(
                f"the run in {path.parent.name} was begun with other cases, or they were split otherwise; put them "
                "back to go on, or choose another folder (--init takes the weights along)"
            )
        if terms.start and about.get("start", terms.start) != terms.start:
            raise ScanError(
                f"the run in {path.parent.name} did not begin with these weights; leave --init out to go on with it, "
                "or choose another folder"
            )
        return Stored(tensors, about)


def fill(stored: Stored, parts: Parts, path: Path) -> Place:
    """Put a state where it belongs, and say how far it had come.

    Parameters
    ----------
    path : where it lay, for the words of an error.

    Raises
    ------
    ScanError : it does not fit.
    """
    with _explained(path):
        for name, network in parts.networks.items():
            network.load_state_dict(_below(stored.tensors, name))
        states: dict[int, dict[str, Any]] = {}
        for key, value in _below(stored.tensors, "optimiser").items():
            index, entry = key.split(".", 1)
            states.setdefault(int(index), {})[entry] = value
        parts.optimiser.load_state_dict({**parts.optimiser.state_dict(), "state": states})
        if scaling := json.loads(stored.about.get("precision_state", "{}")):
            parts.precision.load_state_dict(scaling)
        return Place(int(stored.about["step"]), float(stored.about["seconds"]))


def place(path: Path) -> Place:
    """How far a run had come; without reading all of its state.

    Raises
    ------
    ScanError : it is damaged.
    """
    with _explained(path), safe_open(path, framework="pt") as file:
        about = file.metadata()
        return Place(int(about["step"]), float(about["seconds"]))


def check_digest(path: Path, digest: str) -> None:
    """Refuse a run's state that is not of the recipe of this digest; without reading all of it.

    Raises
    ------
    ScanError : it is damaged, or of another recipe.
    """
    with _explained(path), safe_open(path, framework="pt") as file:
        if file.metadata()["digest"] != digest:
            raise ScanError(f"{path.parent.name} holds a run of another recipe; choose another folder for this one")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except ScanError:
        raise
    except (SafetensorError, RuntimeError, KeyError, ValueError, OSError, TypeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ScanError(
            f"the run in {path.parent.name} cannot be gone on with ({first}); choose another folder"
        ) from None


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix + "."): value for key, value in tensors.items() if key.startswith(prefix + ".")}
