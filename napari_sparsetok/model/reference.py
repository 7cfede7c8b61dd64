"""Read what the authors' published code wrote: its options, its checkpoint, and numbers to check against.

The published code (TokenSparse-for-MedSeg) names a network by a file of options and stores weights under
names of its own. Both are turned into an `SCDConfig` and weights for `SCD`. Anything that is not known to
leave the network as it is, is refused by name: a guess would give a network that runs and is wrong.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.model.config import SCDConfig
from napari_sparsetok.model.layers import sincos_positions
from napari_sparsetok.model.reference_options import ReferenceImportError, convert_options, named, stage_order
from napari_sparsetok.model.scd import SCD
from napari_sparsetok.scan import ScanError

TOLERANCE = 1e-4
"""Completed tokens and logits may differ from the stored ones by this much."""

_POSITION_CODE = "completion_net.completion.pos_embed"


@dataclass(frozen=True)
class Comparison:
    """How far the converted network is from the stored numbers.

    completed_tokens, logits : largest absolute difference.
    members : for every stage, and last for the survivors, whether exactly the same tokens are there.
    """

    completed_tokens: float
    logits: float
    members: tuple[bool, ...]

    @property
    def passed(self) -> bool:
        """Members are identical and differences at most `TOLERANCE`."""
        return all(self.members) and self.completed_tokens <= TOLERANCE and self.logits <= TOLERANCE


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    out : the file written, or None if the comparison failed and nothing was written.
    config, keep_ratio : the network, and the share of tokens that its options keep at each stage.
    parameters : numbers learned.
    ignored : entries of the checkpoint that are constants or unused, and so were left out.
    check : the comparison, if one was asked for.
    """

    out: Path | None
    config: SCDConfig
    keep_ratio: float
    parameters: int
    ignored: tuple[str, ...]
    check: Comparison | None


def import_reference(checkpoint: Path, config: Path, out: Path, check: Path | None = None) -> ImportReport:
    """Convert a published checkpoint to safetensors, and compare it with stored numbers.

    Parameters
    ----------
    checkpoint : a file of `torch.save`; only weights are read from it, never code.
    config : JSON with the published code's options.
    out : the safetensors file to write, none of those that are read. Its metadata holds `config` and `keep_ratio`
        as JSON.
    check : .npz with `image`, `completed_tokens` (B, N, C), `logits`, and `stage*_members` (B, 1+N), 1 where a
        token was pruned at that stage and, in the last, where it survived. If the comparison fails,
        nothing is written.

    Raises
    ------
    ReferenceImportError : something is missing, unknown, or does not fit; the sentence names it.
    """
    _check_place(out, [checkpoint, config, *([check] if check else [])])
    options = _read_options(config)
    network_config, keep_ratio = convert_options(options)
    weights, ignored = convert_weights(_read_checkpoint(checkpoint), network_config, stage_order(options["tp_loc"]))
    with torch.device("meta"):
        network = SCD(network_config)
    network.load_state_dict(weights, assign=True)
    network.eval()
    comparison = compare(network, keep_ratio, check) if check is not None else None
    written = comparison is None or comparison.passed
    if written:
        _write(out, weights, network_config, keep_ratio)
    count = sum(w.numel() for w in weights.values())
    return ImportReport(out if written else None, network_config, keep_ratio, count, ignored, comparison)


# Weights

_PUBLISHED_NAMES = {
    "class_token": "encoder.cls_token",
    "positions": "encoder.pos_embed",
    "patch_embedding": "encoder.patch_embed",
    "blocks": "encoder.blocks",
    "norm": "encoder.norm",
    "scores": "encoder.score_predictor_list",
    "stage_norms": "encoder.mid_norm_list",
    "completion.pre_linear": "completion_net.pre_linear_list",
    "completion.layer_tokens": "completion_net.completion.layer_tokens",
    "completion.blocks": "completion_net.blocks",
    "completion.norm": "completion_net.out_norm",
    "completion.out_linear": "completion_net.out_linear",
    "decoder.image_block": "decoder.encoder1",
    "decoder.out": "decoder.out",
}


def _published_name(name: str, order: tuple[int, ...], shared_scores: bool) -> str:
    """What the published code calls a weight of ours."""
    head, number, rest = _parts(name)
    if head in ("scores", "stage_norms"):  # a shared score network is the first of the published ones
        place = 0 if head == "scores" and shared_scores else order[number]
        return f"{_PUBLISHED_NAMES[head]}.{place}.{rest}"
    if head in ("decoder.skips", "decoder.ups"):  # ours count from 0, theirs from 2
        return f"decoder.{'encoder' if head == 'decoder.skips' else 'decoder'}{number + 2}.{rest}"
    ours = max((h for h in _PUBLISHED_NAMES if name == h or name.startswith(f"{h}.")), key=len)
    return _PUBLISHED_NAMES[ours] + name[len(ours) :]


def _parts(name: str) -> tuple[str, int, str]:
    """A name like "decoder.ups.0.conv.weight" as its list, the place in it, and the rest."""
    found = re.match(r"(scores|stage_norms|decoder\.skips|decoder\.ups)\.(\d+)\.(.+)", name)
    return (found[1], int(found[2]), found[3]) if found else ("", 0, name)


def convert_weights(
    published: Mapping[str, Any], config: SCDConfig, order: tuple[int, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Published weights to ours.

    Parameters
    ----------
    published : name to tensor, as the published code stores it.
    config, order : from `convert_options` and `stage_order`.

    Returns
    -------
    weights : for `SCD.load_state_dict`, float32.
    ignored : names of constants and unused entries that were left out.

    Raises
    ------
    ReferenceImportError : an entry is missing, unknown, misshapen or not finite, or a constant differs.
    """
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in SCD(config).state_dict().items()}
    names = {ours: _published_name(ours, order, config.shared_scores) for ours in shapes}
    ignored = tuple(n for n in published if n not in names.values() and _is_unused(n, config, set(published)))
    unknown = [n for n in published if n not in names.values() and n not in ignored]
    if unknown:
        raise ReferenceImportError(f"the checkpoint holds {named(unknown)}, which this network does not have")
    missing = [theirs for theirs in (*names.values(), _POSITION_CODE) if theirs not in published]
    if missing:
        raise ReferenceImportError(f"the checkpoint lacks {named(missing)}")
    _check_position_code(published[_POSITION_CODE], config)
    return {ours: _weight(published[theirs], theirs, shapes[ours]) for ours, theirs in names.items()}, ignored


def _is_unused(name: str, config: SCDConfig, names: set[str]) -> bool:
    """Whether an entry is a constant, or belongs to a module that the published code builds and never calls."""
    if name == _POSITION_CODE or re.fullmatch(r"encoder\.policy(_list\.\d+)?", name):
        return True
    score = re.match(r"encoder\.score_predictor_list\.(\d+)\.", name)
    if score:
        return config.shared_scores and 0 < int(score[1]) < config.stages
    # Early MONAI versions build the shortcut of a residual block even where nothing changes width.
    shortcut = re.fullmatch(r"(decoder\..+)\.conv3\.conv\.weight", name)
    return bool(shortcut and f"{shortcut[1]}.conv1.conv.weight" in names)


def _weight(value: object, name: str, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ReferenceImportError(f"{name} in the checkpoint is not a tensor of floating-point numbers")
    if tuple(value.shape) != shape:
        raise ReferenceImportError(
            f"{name} in the checkpoint has the shape {tuple(value.shape)}, but the options ask for {shape}"
        )
    if not value.isfinite().all():
        raise ReferenceImportError(f"{name} in the checkpoint holds NaN or infinity")
    return value.detach().to(torch.float32).contiguous().clone()


def _check_position_code(value: object, config: SCDConfig) -> None:
    """The published code stores its fixed position code; ours is computed, so the two must agree."""
    grid = config.grid()
    stored = _weight(value, _POSITION_CODE, (1, math.prod(grid) + 1, config.completion_dim))
    code = sincos_positions(grid, config.completion_dim, like=stored)
    expected = torch.cat([torch.zeros_like(code[:, :1]), code], dim=1)
    if not torch.allclose(stored, expected, rtol=0, atol=1e-5):
        raise ReferenceImportError(f"{_POSITION_CODE} in the checkpoint is not the fixed sine-cosine position code")


# Files


def _read_options(path: Path) -> dict[str, Any]:
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReferenceImportError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ReferenceImportError(f"{path} is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ReferenceImportError(f"{path} must hold one JSON object of options")
    return options


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """The named tensors of a checkpoint, without the wrappers that training puts around them."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ReferenceImportError(f"{path} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise ReferenceImportError(
            f"{path} is not a checkpoint of plain weights; anything else in it could run code and is not loaded"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ReferenceImportError(f"{path} is damaged or not a checkpoint") from error
    weights = stored.get("state_dict", stored) if isinstance(stored, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights):
        raise ReferenceImportError(f"{path} holds no weights by name")
    if all(name.startswith("module.") for name in weights):
        return {name.removeprefix("module."): value for name, value in weights.items()}
    return dict(weights)


def _check_place(out: Path, read: Sequence[Path]) -> None:
    if any(os.path.realpath(out) == os.path.realpath(path) for path in read):
        raise ReferenceImportError(f"{out} is one of the files that are read; give the weights another name")


def _write(path: Path, weights: dict[str, Tensor], config: SCDConfig, keep_ratio: float) -> None:
    """Whole or not at all, as an older file may be there."""
    metadata = {"config": json.dumps(asdict(config)), "keep_ratio": json.dumps(keep_ratio)}
    try:
        with written_whole(path, words="{}") as part:
            save_file(weights, part, metadata=metadata)
    except (ScanError, SafetensorError) as error:
        raise ReferenceImportError(f"{path} cannot be written: {error}") from error


# Comparison


@torch.inference_mode()
def compare(network: SCD, keep_ratio: float, path: Path) -> Comparison:
    """Run the image of a .npz of the published code's numbers and compare; see `import_reference`.

    Raises
    ------
    ReferenceImportError : the file cannot be read, or lacks an array.
    """
    stages = network.config.stages
    member_names = [f"stage{stage}_members" for stage in range(stages + 1)]
    stored = _read_arrays(path, ["image", "completed_tokens", "logits", *member_names])
    image = torch.from_numpy(stored["image"].astype(np.float32))
    prefix = network.encode_prefix(image)
    parts, ids, _ = network.encode_rest(prefix, keep_ratio)
    completed = network.complete(parts, ids, prefix.grid)
    logits = network.decode(completed, network.image_skip(image))
    everyone = torch.zeros(image.shape[0], prefix.tokens.shape[1])  # B 1+N
    members = [everyone.scatter(1, places, 1.0).numpy() for places in ids]
    return Comparison(
        completed_tokens=_difference(completed.flatten(2).transpose(1, 2), stored["completed_tokens"]),
        logits=_difference(logits, stored["logits"]),
        members=tuple(np.array_equal(m, stored[name]) for m, name in zip(members, member_names, strict=True)),
    )


def _read_arrays(path: Path, names: list[str]) -> dict[str, Any]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names if name in stored}
    except OSError as error:
        raise ReferenceImportError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, ValueError, AttributeError, TypeError, EOFError) as error:
        raise ReferenceImportError(f"{path} is not an .npz file of plain arrays") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ReferenceImportError(f"{path} lacks {named(missing)}")
    return arrays


def _difference(ours: Tensor, stored: Any) -> float:
    if tuple(ours.shape) != stored.shape:
        raise ReferenceImportError(f"the numbers to check have the shape {stored.shape}, not {tuple(ours.shape)}")
    return float(np.abs(ours.numpy() - stored).max())
