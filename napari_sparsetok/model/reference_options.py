"""The options of the authors' published code, and the network that they name.

Anything that is not known to leave the network as it is, is refused by name: a guess would give a network that runs
and is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from napari_sparsetok.model.config import SCDConfig
from napari_sparsetok.tokens import stage_ratios

_PATCH_OF_DECODER = {"UNETR_decoder": 16, "UNETRx8_decoder": 8, "UNETRx8_decoderv2": 8}
_POOLED_DECODER = "UNETRx8_decoderv2"
_CLASSES_OF_DATASET = {"btcv": 14, "msd_brats": 3}

_CHOICES: dict[str, tuple[Any, ...]] = {
    "enc_arch": ("VisionTransformerTokenPruningV1", "VisionTransformerTokenPruningV2"),
    "dec_arch": tuple(_PATCH_OF_DECODER),
    "score_predictor": ("MlpPredictor",),
    "completion_net": ("FusionNet",),
    "patchembed": ("PatchEmbed3D",),
    "patch_size": (8, 16),
    "spatial_dim": (3,),
    "share_pred": (False, True),
}
_COUNTS = (
    *("roi_x", "roi_y", "roi_z", "in_chans", "num_classes", "feature_size"),
    *("encoder_embed_dim", "encoder_depth", "encoder_num_heads"),
    *("compl_embed_dim", "compl_depth", "compl_num_heads"),
)
_SHARES = ("tp_ratio", "drop_path")

# How the network was trained, logged and stored: none of it changes what the network computes.
_TRAINING_NAMES = """
    arch proj_name run_name wandb_id dataset json_list data_path data_seed ts_fold output_dir ckpt_dir
    space_x space_y space_z a_min a_max b_min b_max RandFlipd_prob RandRotate90d_prob RandScaleIntensityd_prob
    RandShiftIntensityd_prob infer_overlap cache_rate num_samples trainer_name batch_size val_batch_size
    vis_batch_size start_epoch warmup_epochs epochs workers pretrain resume mixup cutmix label_smoothing tp_tau
    perturbation smooth_nr smooth_dr type lr beta1 beta2 weight_decay layer_decay vis_freq save_freq eval_freq
    print_freq gpu dist_url world_size multiprocessing_distributed dist_backend distributed rank ngpus_per_node
    seed debug test conf_file
"""
_OF_TRAINING = frozenset(_TRAINING_NAMES.split())


class ReferenceImportError(ValueError):
    """A checkpoint or its options that cannot be taken over, in a sentence that names the cause."""


def convert_options(options: Mapping[str, Any]) -> tuple[SCDConfig, float]:
    """Published options to our config and the keep ratio of a stage.

    Raises
    ------
    ReferenceImportError : an option is unknown, missing, or has a value that cannot be taken over.
    """
    o = _checked_options(options)
    patch, pooled = o["patch_size"], o["dec_arch"] == _POOLED_DECODER
    if _PATCH_OF_DECODER[o["dec_arch"]] != patch:
        raise ReferenceImportError(
            f"dec_arch {o['dec_arch']} needs patch_size {_PATCH_OF_DECODER[o['dec_arch']]}, not {patch}"
        )
    step, least = (2 * patch, 4 * patch) if pooled else (patch, patch)
    for name in ("roi_x", "roi_y", "roi_z"):
        if o[name] % step or o[name] < least:
            raise ReferenceImportError(
                f"{name} is {o[name]}, but for {o['dec_arch']} it must be a multiple of {step}, {least} or more"
            )
    for part in ("encoder", "compl"):
        if o[f"{part}_embed_dim"] % o[f"{part}_num_heads"]:
            raise ReferenceImportError(f"{part}_embed_dim must be a multiple of {part}_num_heads")
    if o["compl_embed_dim"] % 6:
        raise ReferenceImportError(f"compl_embed_dim must be a multiple of 6, not {o['compl_embed_dim']}")
    locations = sorted(_locations(o["tp_loc"]))
    if locations[-1] >= o["encoder_depth"]:
        raise ReferenceImportError(
            f"tp_loc names block {locations[-1]}, but with encoder_depth {o['encoder_depth']} the last is "
            f"{o['encoder_depth'] - 1}"
        )
    config = SCDConfig(
        in_channels=o["in_chans"],
        out_channels=o["num_classes"],
        window=(o["roi_x"], o["roi_y"], o["roi_z"]),
        patch=patch,
        dim=o["encoder_embed_dim"],
        depth=o["encoder_depth"],
        heads=o["encoder_num_heads"],
        prune_after=tuple(at + 1 for at in locations),
        completion_dim=o["compl_embed_dim"],
        completion_depth=o["compl_depth"],
        completion_heads=o["compl_num_heads"],
        features=o["feature_size"],
        pooled_decoder=pooled,
        positions="learned",
        class_token=True,
        shared_scores=o["share_pred"],
        drop_path=float(o["drop_path"]),
    )
    # The published code keeps int(tokens * (1 - tp_ratio)); the same difference gives the same counts.
    return config, stage_ratios(float(1 - o["tp_ratio"]), 1)[0]


def stage_order(tp_loc: object) -> tuple[int, ...]:
    """Which of the published score networks serves our stage 1, 2, …: `tp_loc` need not rise."""
    locations = _locations(tp_loc)
    return tuple(sorted(range(len(locations)), key=locations.__getitem__))


def _locations(tp_loc: object) -> list[int]:
    if not re.fullmatch(r"\d+(-\d+)*", str(tp_loc)):
        raise ReferenceImportError(f'tp_loc must name blocks like "2-5-8", not {tp_loc!r}')
    locations = [int(part) for part in str(tp_loc).split("-")]
    if len(set(locations)) < len(locations):
        raise ReferenceImportError(f"tp_loc {tp_loc} names a block twice")
    return locations


def _checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that make the network, each known to be usable by itself."""
    wanted = {*_CHOICES, *_COUNTS, *_SHARES, "tp_loc"}
    unknown = sorted(set(options) - wanted - _OF_TRAINING)
    if unknown:
        raise ReferenceImportError(f"the options hold {named(unknown)}, which this program does not know")
    o: dict[str, Any] = {"drop_path": 0.0}
    if options.get("dataset") in _CLASSES_OF_DATASET:  # the published code sets the classes by its data set
        o["num_classes"] = _CLASSES_OF_DATASET[options["dataset"]]
    o.update({name: value for name, value in options.items() if name in wanted and value is not None})
    missing = sorted(wanted - set(o))
    if missing:
        raise ReferenceImportError(f"the options lack {named(missing)}")
    _check_values(o)
    return o


def _check_values(o: Mapping[str, Any]) -> None:
    for name, choices in _CHOICES.items():
        if not any(type(o[name]) is type(c) and o[name] == c for c in choices):
            known = " or ".join(str(c) for c in choices)
            raise ReferenceImportError(f"{name} is {o[name]!r}, but only {known} can be imported")
    for name in _COUNTS:
        if type(o[name]) is not int or o[name] < 1:
            raise ReferenceImportError(f"{name} must be a whole number above 0, not {o[name]!r}")
    for name in _SHARES:
        if type(o[name]) not in (int, float) or not 0 <= o[name] < 1:
            raise ReferenceImportError(f"{name} must be at least 0 and below 1, not {o[name]!r}")


def named(names: list[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
