"""Checkpoints of the published code: converted, compared with a second statement of the mathematics, refused."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from torch import Tensor
from typer.testing import CliRunner

from napari_sparsetok.cli import app
from napari_sparsetok.model import SCD, SCDConfig
from napari_sparsetok.model.reference import (
    ReferenceImportError,
    convert_options,
    import_reference,
    stage_order,
)
from napari_sparsetok.tokens import count_kept

Options = dict[str, Any]
Weights = dict[str, Any]

OPTIONS: Options = {
    **{"roi_x": 16, "roi_y": 24, "roi_z": 16, "patch_size": 8, "in_chans": 1, "num_classes": 3, "spatial_dim": 3},
    **{"tp_loc": "0-1-2", "tp_ratio": 0.5, "share_pred": False, "score_predictor": "MlpPredictor"},
    **{"encoder_embed_dim": 16, "encoder_depth": 4, "encoder_num_heads": 2, "drop_path": 0.1},
    **{"compl_embed_dim": 12, "compl_depth": 1, "compl_num_heads": 2, "completion_net": "FusionNet"},
    **{"enc_arch": "VisionTransformerTokenPruningV1", "dec_arch": "UNETRx8_decoder", "feature_size": 2},
    **{"patchembed": "PatchEmbed3D", "arch": "vit_base", "tp_tau": 1.0, "lr": 4.3e-3, "wandb_id": None},
}
PATCH_16: Options = {"dec_arch": "UNETR_decoder", "patch_size": 16, "roi_x": 32, "roi_y": 16, "roi_z": 48}
POOLED: Options = {"dec_arch": "UNETRx8_decoderv2", "roi_x": 32, "roi_y": 32, "roi_z": 32, "tp_ratio": 0.6}
V2: Options = {"enc_arch": "VisionTransformerTokenPruningV2"}

NETWORKS: dict[str, Options] = {
    "patch 8": {},
    "patch 16": {**PATCH_16, "compl_depth": 3, "compl_embed_dim": 24},
    "pooled": POOLED,
    "shared scores": {"share_pred": True},
    "shared scores, unordered stages": {"share_pred": True, "tp_loc": "2-0"},
    "three channels": {"in_chans": 3},
    "V2": V2,
    "one stage, after the last block": {"tp_loc": "3", "tp_ratio": 0.25},
    "a stage after every block": {"tp_loc": "0-1-2-3", "tp_ratio": 0.3},
    "unordered stages": {"tp_loc": "2-0-3", "tp_ratio": 0.4},
    "channels as many as features": {"in_chans": 2},
    "nothing pruned": {"tp_ratio": 0},
}


# The published network, stated a second time: plain functions on weights by their published names.


@dataclass
class Published:
    """The weights of a network with these options, random, and what it computes."""

    options: Options
    weights: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        o, w = self.options, self.weights
        torch.manual_seed(0)
        dim, width, patch = o["encoder_embed_dim"], o["compl_embed_dim"], o["patch_size"]
        self.grid = tuple(o[f"roi_{a}"] // patch for a in "xyz")
        self.locations = [int(part) for part in o["tp_loc"].split("-")]
        n, stages = math.prod(self.grid), len(self.locations)
        w["encoder.cls_token"] = torch.randn(1, 1, dim)
        w["encoder.pos_embed"] = torch.randn(1, n + 1, dim)
        if o["enc_arch"].endswith("V1"):
            w["encoder.policy"] = torch.ones(1, n + 1)
        else:
            w.update({f"encoder.policy_list.{k}": torch.arange(n + 1) for k in range(stages)})
        self.add("encoder.patch_embed.proj", (dim, o["in_chans"], patch, patch, patch))
        for i in range(o["encoder_depth"]):
            self.add_block(f"encoder.blocks.{i}", dim)
        self.add_norm("encoder.norm", dim)
        for k in range(stages):
            self.add_norm(f"encoder.mid_norm_list.{k}", dim)
            score = f"encoder.score_predictor_list.{k}"
            self.add_norm(f"{score}.in_mlp.0", dim)
            self.add(f"{score}.in_mlp.1", (dim, dim))
            self.add(f"{score}.out_mlp.0", (dim // 2, dim))
            self.add(f"{score}.out_mlp.2", (dim // 4, dim // 2))
            self.add(f"{score}.out_mlp.4", (1, dim // 4))
        for k in range(stages + 1):
            self.add(f"completion_net.pre_linear_list.{k}", (width, dim))
            w[f"completion_net.completion.layer_tokens.{k}"] = torch.randn(1, 1, width)
        w["completion_net.completion.pos_embed"] = position_code(self.grid, width)
        for i in range(o["compl_depth"]):
            self.add_block(f"completion_net.blocks.{i}", width)
        self.add_norm("completion_net.out_norm", width)
        self.add("completion_net.out_linear", (dim, width))
        self.add_decoder(dim, o["feature_size"])

    def add(self, name: str, shape: tuple[int, ...], bias: bool = True) -> None:
        self.weights[f"{name}.weight"] = torch.randn(shape) / math.sqrt(math.prod(shape[1:]))
        if bias:
            self.weights[f"{name}.bias"] = torch.randn(shape[0]) * 0.3

    def add_norm(self, name: str, dim: int) -> None:
        self.weights[f"{name}.weight"] = 1 + torch.randn(dim) * 0.2
        self.weights[f"{name}.bias"] = torch.randn(dim) * 0.2

    def add_block(self, name: str, dim: int) -> None:
        self.add_norm(f"{name}.norm1", dim)
        self.add_norm(f"{name}.norm2", dim)
        shapes = {
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.fc1": (4 * dim, dim),
            "mlp.fc2": (dim, 4 * dim),
        }
        for part, shape in shapes.items():
            self.add(f"{name}.{part}", shape)

    def add_decoder(self, dim: int, f: int) -> None:
        kind = self.options["dec_arch"]
        self.add_residual("decoder.encoder1.layer", self.options["in_chans"], f)
        doublings = {"UNETR_decoder": 3, "UNETRx8_decoder": 2, "UNETRx8_decoderv2": 2}[kind]
        for level in range(1, doublings + 1):
            out, skip = f * 2**level, f"decoder.encoder{level + 1}"
            self.add(f"{skip}.transp_conv_init.conv", (dim, out, 2, 2, 2), bias=False)
            for i in range(doublings - level):
                self.add(f"{skip}.blocks.{i}.0.conv", (out, out, 2, 2, 2), bias=False)
                self.add_residual(f"{skip}.blocks.{i}.1", out, out)
        if kind == "UNETRx8_decoderv2":
            self.add_residual("decoder.encoder4.layer", dim, f * 8)
        top = 2 if kind == "UNETRx8_decoder" else 3
        for level in range(top + 1):
            below = dim if level == top else f * 2 ** (level + 1)
            up, out = f"decoder.decoder{level + 2}", f * 2**level
            self.add(f"{up}.transp_conv.conv", (below, out, 2, 2, 2), bias=False)
            self.add_residual(f"{up}.conv_block", 2 * out, out)
        self.add("decoder.out.conv.conv", (self.options["num_classes"], f, 1, 1, 1))

    def add_residual(self, name: str, inside: int, outside: int) -> None:
        self.add(f"{name}.conv1.conv", (outside, inside, 3, 3, 3), bias=False)
        self.add(f"{name}.conv2.conv", (outside, outside, 3, 3, 3), bias=False)
        if inside != outside:
            self.add(f"{name}.conv3.conv", (outside, inside, 1, 1, 1), bias=False)

    # What it computes.

    @torch.no_grad()
    def run(self, image: Tensor) -> dict[str, np.ndarray]:
        tokens, members = self.encode(image)
        completed = self.complete(tokens, members)
        grid = completed.transpose(1, 2).unflatten(2, self.grid)
        stored = {"image": image, "completed_tokens": completed, "logits": self.decode(image, grid)}
        arrays = {name: value.numpy() for name, value in stored.items()}
        return {**arrays, **{f"stage{k}_members": m.numpy().astype(np.uint8) for k, m in enumerate(members)}}

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def block(self, name: str, x: Tensor, heads: int) -> Tensor:
        q, k, v = self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", x)).chunk(3, dim=-1)
        size = x.shape[-1] // heads
        mixed = []
        for part in (slice(i * size, (i + 1) * size) for i in range(heads)):
            weight = (q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)).softmax(-1)
            mixed.append(weight @ v[..., part])
        x = x + self.linear(f"{name}.attn.proj", torch.cat(mixed, dim=-1))
        hidden = F.gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x)))
        return x + self.linear(f"{name}.mlp.fc2", hidden)

    def score(self, k: int, x: Tensor) -> Tensor:
        name = f"encoder.score_predictor_list.{0 if self.options['share_pred'] else k}"
        x = F.gelu(self.linear(f"{name}.in_mlp.1", self.norm(f"{name}.in_mlp.0", x, eps=1e-5)))
        half = x.shape[-1] // 2
        x = torch.cat([x[..., :half], x[..., half:].mean(1, keepdim=True).repeat(1, x.shape[1], 1)], dim=-1)
        x = F.gelu(self.linear(f"{name}.out_mlp.0", x))
        x = F.gelu(self.linear(f"{name}.out_mlp.2", x))
        return F.logsigmoid(self.linear(f"{name}.out_mlp.4", x))[..., 0]

    def encode(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Sets of tokens on the whole grid, zero where a token is not in the set, and members (B, 1+N)."""
        o, w = self.options, self.weights
        p = o["patch_size"]
        x = F.conv3d(image, w["encoder.patch_embed.proj.weight"], w["encoder.patch_embed.proj.bias"], stride=p)
        x = torch.cat([w["encoder.cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], dim=1) + w["encoder.pos_embed"]
        alive = torch.ones(x.shape[:2], dtype=torch.bool)
        sets, members = [], []
        for i in range(o["encoder_depth"]):
            x = self.each(alive, x, lambda t, i=i: self.block(f"encoder.blocks.{i}", t, o["encoder_num_heads"]))
            if i not in self.locations:
                continue
            k = self.locations.index(i)
            scores = self.each(alive, x, lambda t, k=k: F.pad(self.score(k, t[:, 1:]), (1, 0))[..., None])[..., 0]
            scores[~alive] = -torch.inf
            scores[:, 0] = torch.inf
            keep = 1 + int((int(alive[0].sum()) - 1) * (1 - o["tp_ratio"]))
            kept = torch.zeros_like(alive).scatter(1, scores.topk(keep).indices, True)
            members.append(alive & ~kept)
            sets.append(self.norm(f"encoder.mid_norm_list.{k}", x))
            alive = kept
        return [*sets, self.norm("encoder.norm", x)], [*members, alive]

    @staticmethod
    def each(alive: Tensor, x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
        """Do a step on the living tokens of every image, alone."""
        rows = []
        for mask, tokens in zip(alive, x, strict=True):
            done = step(tokens[mask][None])[0]
            rows.append(torch.zeros(len(mask), done.shape[-1]).index_put((mask,), done))
        return torch.stack(rows)

    def complete(self, sets: list[Tensor], members: list[Tensor]) -> Tensor:
        o, w = self.options, self.weights
        x = w["completion_net.completion.pos_embed"]
        for k, (tokens, mask) in enumerate(zip(sets, members, strict=True)):
            own = self.linear(f"completion_net.pre_linear_list.{k}", tokens)
            x = x + mask[..., None] * (own + w[f"completion_net.completion.layer_tokens.{k}"])
        for i in range(o["compl_depth"]):
            x = self.block(f"completion_net.blocks.{i}", x, o["compl_num_heads"])
        return self.linear("completion_net.out_linear", self.norm("completion_net.out_norm", x))[:, 1:]

    def convolve(self, name: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{name}.conv.weight"]
        return F.conv3d(x, weight, padding=weight.shape[-1] // 2)

    def double(self, name: str, x: Tensor) -> Tensor:
        return F.conv_transpose3d(x, self.weights[f"{name}.conv.weight"], stride=2)

    def residual(self, name: str, x: Tensor) -> Tensor:
        out = F.leaky_relu(F.instance_norm(self.convolve(f"{name}.conv1", x)), 0.01)
        out = F.instance_norm(self.convolve(f"{name}.conv2", out))
        if x.shape[1] != out.shape[1]:
            x = F.instance_norm(self.convolve(f"{name}.conv3", x))
        return F.leaky_relu(out + x, 0.01)

    def decode(self, image: Tensor, grid: Tensor) -> Tensor:
        kind = self.options["dec_arch"]
        skips = [self.residual("decoder.encoder1.layer", image)]
        doublings = 3 if kind == "UNETR_decoder" else 2
        for level in range(1, doublings + 1):
            skip = self.double(f"decoder.encoder{level + 1}.transp_conv_init", grid)
            for i in range(doublings - level):
                skip = self.double(f"decoder.encoder{level + 1}.blocks.{i}.0", skip)
                skip = self.residual(f"decoder.encoder{level + 1}.blocks.{i}.1", skip)
            skips.append(skip)
        x = grid
        if kind == "UNETRx8_decoderv2":
            skips.append(self.residual("decoder.encoder4.layer", grid))
            x = F.avg_pool3d(F.pad(grid, (1,) * 6), 3, stride=2)
        for level in reversed(range(len(skips))):
            x = torch.cat([self.double(f"decoder.decoder{level + 2}.transp_conv", x), skips[level]], dim=1)
            x = self.residual(f"decoder.decoder{level + 2}.conv_block", x)
        return F.conv3d(x, self.weights["decoder.out.conv.conv.weight"], self.weights["decoder.out.conv.conv.bias"])


def position_code(grid: tuple[int, ...], width: int) -> Tensor:
    rows = [[0.0] * width]
    for place in np.ndindex(*grid):
        angles = [[p / 10000 ** (6 * i / width) for i in range(width // 6)] for p in place]
        rows.append([f(a) for axis in angles for f in (math.sin, math.cos) for a in axis])
    return torch.tensor([rows])


# Files as the published code leaves them.


@dataclass
class Files:
    """A folder with a checkpoint, its options and numbers to check."""

    folder: Path

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.folder / "checkpoint.pth.tar", self.folder / "config.json", self.folder / "out.safetensors"

    @property
    def numbers(self) -> Path:
        return self.folder / "io.npz"

    def write(self, options: Options, weights: Weights, prefix: str = "", wrapped: bool = True) -> None:
        named = {f"{prefix}{name}": value for name, value in weights.items()}
        torch.save({"epoch": 1, "arch": "vit_base", "state_dict": named} if wrapped else named, self.paths[0])
        self.paths[1].write_text(json.dumps(options))

    def publish(self, **changed: Any) -> Published:
        published = Published({**OPTIONS, **changed})
        self.write(published.options, published.weights)
        o = published.options
        image = torch.rand(2, o["in_chans"], o["roi_x"], o["roi_y"], o["roi_z"])
        np.savez(self.numbers, **published.run(image))
        return published


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# Faithful


@pytest.mark.parametrize("name", NETWORKS)
def test_a_converted_network_computes_what_the_published_one_does(name: str, files: Files) -> None:
    published = files.publish(**NETWORKS[name])
    report = import_reference(*files.paths, files.numbers)
    assert report.check is not None
    assert all(report.check.members)
    assert len(report.check.members) == len(published.locations) + 1
    assert report.check.completed_tokens < 1e-4
    assert report.check.logits < 1e-4
    assert report.check.passed
    assert report.out == files.paths[2]


def test_the_written_file_holds_network_and_options(files: Files) -> None:
    published = files.publish(tp_ratio=0.6)
    report = import_reference(*files.paths)
    assert report.check is None
    with safe_open(report.out, framework="pt") as stored:
        metadata = stored.metadata()
        weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
    raw = json.loads(metadata["config"])
    config = SCDConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()})
    assert config == report.config
    network = SCD(config).eval()
    network.load_state_dict(weights)
    assert report.parameters == sum(p.numel() for p in network.parameters())
    arrays = np.load(files.numbers)
    with torch.inference_mode():
        logits, _ = network(torch.from_numpy(arrays["image"]), json.loads(metadata["keep_ratio"]))
    np.testing.assert_allclose(logits.numpy(), arrays["logits"], atol=1e-4)
    assert published.options["tp_ratio"] == 0.6
    assert json.loads(metadata["keep_ratio"]) == 1 - 0.6


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_wrappers_of_training_are_taken_off(prefix: str, wrapped: bool, files: Files) -> None:
    published = files.publish()
    files.write(published.options, published.weights, prefix, wrapped)
    report = import_reference(*files.paths, files.numbers)
    assert report.check is not None
    assert report.check.passed


def test_what_is_left_out_is_named(files: Files) -> None:
    published = files.publish(share_pred=True)
    published.weights["decoder.encoder2.blocks.0.1.conv3.conv.weight"] = torch.zeros(4, 4, 1, 1, 1)
    files.write(published.options, published.weights)
    ignored = import_reference(*files.paths).ignored
    unused = [name for name in published.weights if ".score_predictor_list.1." in name or ".2.out_mlp." in name]
    assert set(unused) < set(ignored)
    assert {"encoder.policy", "completion_net.completion.pos_embed"} < set(ignored)
    assert "decoder.encoder2.blocks.0.1.conv3.conv.weight" in ignored  # as early versions of MONAI have it
    assert not any(".score_predictor_list.0." in name for name in ignored)


def test_classes_may_follow_from_the_data_set() -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "num_classes"}
    assert convert_options({**options, "dataset": "btcv"})[0].out_channels == 14
    assert convert_options({**options, "dataset": "msd_brats"})[0].out_channels == 3


@given(st.integers(0, 5000), st.floats(0, 1, exclude_max=True))
def test_a_stage_keeps_as_many_as_the_published_code(tokens: int, tp_ratio: float) -> None:
    _, keep_ratio = convert_options({**OPTIONS, "tp_ratio": tp_ratio})
    assert count_kept(tokens, keep_ratio, minimum=0) == int(tokens * (1 - tp_ratio))


def test_stages_are_counted_from_one_and_in_order() -> None:
    assert convert_options({**OPTIONS, "tp_loc": "2-0-3"})[0].prune_after == (1, 3, 4)
    assert stage_order("2-0-3") == (1, 0, 2)
    assert stage_order("2-5-8") == (0, 1, 2)


# Refused by name


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mask_ratio": 0.75}, "options hold mask_ratio, which this program does not know"),
        ({"pos_embed_type": "sincos", "b": 1}, "options hold b, pos_embed_type"),
        ({"patch_size": 4}, "patch_size is 4, but only 8 or 16"),
        ({"patch_size": 8.0}, r"patch_size is 8\.0, but only 8 or 16"),
        ({"patch_size": 16}, "dec_arch UNETRx8_decoder needs patch_size 8, not 16"),
        ({"dec_arch": "UNETR_decoder"}, "dec_arch UNETR_decoder needs patch_size 16, not 8"),
        ({"dec_arch": "UNETRx4_decoderv2"}, "dec_arch is 'UNETRx4_decoderv2', but only"),
        ({"enc_arch": "ViTBackbone"}, "enc_arch is 'ViTBackbone', but only"),
        ({"score_predictor": "AttPredictor"}, "score_predictor is 'AttPredictor', but only MlpPredictor"),
        ({"completion_net": "FusionNetV2"}, "completion_net is 'FusionNetV2', but only FusionNet"),
        ({"completion_net": None}, "options lack completion_net"),
        ({"patchembed": "PatchEmbed2P1D"}, "patchembed is 'PatchEmbed2P1D', but only PatchEmbed3D"),
        ({"spatial_dim": 2}, "spatial_dim is 2, but only 3"),
        ({"share_pred": "false"}, "share_pred is 'false', but only False or True"),
        ({"share_pred": 1}, "share_pred is 1, but only False or True"),
        ({"tp_ratio": 1.0}, r"tp_ratio must be at least 0 and below 1, not 1\.0"),
        ({"tp_ratio": "0.5"}, "tp_ratio must be at least 0 and below 1, not '0.5'"),
        ({"drop_path": -0.1}, "drop_path must be at least 0"),
        ({"tp_loc": ""}, "tp_loc must name blocks like \"2-5-8\", not ''"),
        ({"tp_loc": "2-x"}, "tp_loc must name blocks"),
        ({"tp_loc": "-1-2"}, "tp_loc must name blocks"),
        ({"tp_loc": [2, 5]}, "tp_loc must name blocks"),
        ({"tp_loc": "1-1"}, "tp_loc 1-1 names a block twice"),
        ({"tp_loc": "1-4"}, "tp_loc names block 4, but with encoder_depth 4 the last is 3"),
        ({"roi_y": 20}, "roi_y is 20, but for UNETRx8_decoder it must be a multiple of 8"),
        ({**POOLED, "roi_z": 40}, "roi_z is 40, but for UNETRx8_decoderv2 it must be a multiple of 16, 32 or more"),
        ({**POOLED, "roi_x": 16}, "roi_x is 16, but for UNETRx8_decoderv2 it must be a multiple of 16, 32 or more"),
        ({"roi_x": 0}, "roi_x must be a whole number above 0"),
        ({"in_chans": True}, "in_chans must be a whole number above 0, not True"),
        ({"encoder_depth": 4.5}, "encoder_depth must be a whole number"),
        ({"encoder_num_heads": 3}, "encoder_embed_dim must be a multiple of encoder_num_heads"),
        ({"compl_num_heads": 5}, "compl_embed_dim must be a multiple of compl_num_heads"),
        ({"compl_embed_dim": 16}, "compl_embed_dim must be a multiple of 6, not 16"),
    ],
)
def test_options_that_cannot_be_taken_over_are_named(changed: Options, sentence: str) -> None:
    with pytest.raises(ReferenceImportError, match=sentence):
        convert_options({**OPTIONS, **changed})


@pytest.mark.parametrize("name", [n for n in OPTIONS if n not in ("arch", "tp_tau", "lr", "wandb_id", "drop_path")])
def test_a_missing_option_is_named(name: str) -> None:
    with pytest.raises(ReferenceImportError, match=f"options lack {name}"):
        convert_options({n: value for n, value in OPTIONS.items() if n != name})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("encoder.head.weight", torch.zeros(1), "holds encoder.head.weight, which this network does not have"),
        ("encoder.blocks.0.ls1.gamma", torch.zeros(16), "holds encoder.blocks.0.ls1.gamma"),
        ("decoder.out.conv3.conv.weight", torch.zeros(1), "holds decoder.out.conv3.conv.weight"),
        ("encoder.score_predictor_list.3.in_mlp.0.bias", torch.zeros(16), "holds encoder.score_predictor_list.3"),
        ("encoder.norm.bias", None, "lacks encoder.norm.bias"),
        ("completion_net.completion.pos_embed", None, "lacks completion_net.completion.pos_embed"),
        ("encoder.cls_token", torch.zeros(1, 1, 8), r"encoder.cls_token in the checkpoint has the shape \(1, 1, 8\)"),
        ("encoder.pos_embed", torch.zeros(1, 7, 16), r"encoder.pos_embed .* options ask for \(1, 13, 16\)"),
        ("encoder.norm.bias", torch.full((16,), float("nan")), "encoder.norm.bias in the checkpoint holds NaN"),
        ("encoder.norm.bias", torch.zeros(16, dtype=torch.int64), "encoder.norm.bias .* not a tensor of floating"),
        ("encoder.norm.bias", "sixteen zeros", "encoder.norm.bias .* not a tensor of floating"),
        ("completion_net.completion.pos_embed", torch.zeros(1, 13, 12), "is not the fixed sine-cosine position code"),
        ("completion_net.completion.pos_embed", torch.zeros(1, 12, 12), "pos_embed .* shape"),
    ],
)
def test_weights_that_cannot_be_taken_over_are_named(name: str, value: object, sentence: str, files: Files) -> None:
    published = files.publish()
    published.weights.pop(name, None)
    if value is not None:
        published.weights[name] = value
    files.write(published.options, published.weights)
    with pytest.raises(ReferenceImportError, match=sentence):
        import_reference(*files.paths)
    assert not files.paths[2].exists()


def test_a_long_list_of_names_is_cut_short(files: Files) -> None:
    published = files.publish()
    files.write(published.options, {f"x{i}": torch.zeros(1) for i in range(8)})
    with pytest.raises(ReferenceImportError, match=r"holds x0, x1, x2, x3, x4 and 3 more, which"):
        import_reference(*files.paths)


class Intruder:
    """What runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(zipped: bool, files: Files, tmp_path: Path) -> None:
    published = files.publish()
    stored = {"state_dict": published.weights, "extra": Intruder(tmp_path / "trace")}
    torch.save(stored, files.paths[0], _use_new_zipfile_serialization=zipped)
    with pytest.raises(ReferenceImportError, match="not a checkpoint of plain weights"):
        import_reference(*files.paths)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"some text", b"PK\x03\x04 and no more", b"\x80\x02}q\x00."], ids=repr
)
def test_a_damaged_checkpoint_is_refused(content: bytes, files: Files) -> None:
    files.publish()
    files.paths[0].write_bytes(content)
    with pytest.raises(ReferenceImportError, match=r"checkpoint\.pth\.tar (is|holds)"):
        import_reference(*files.paths)


def test_a_truncated_checkpoint_is_refused(files: Files) -> None:
    files.publish()
    files.paths[0].write_bytes(files.paths[0].read_bytes()[:-5000])
    with pytest.raises(ReferenceImportError, match=r"checkpoint\.pth\.tar is"):
        import_reference(*files.paths)


@pytest.mark.parametrize("stored", [[1, 2], {}, {"state_dict": {}}, {"state_dict": {1: 2}}, torch.zeros(3)], ids=repr)
def test_a_checkpoint_without_names_is_refused(stored: object, files: Files) -> None:
    files.publish()
    torch.save(stored, files.paths[0])
    with pytest.raises(ReferenceImportError, match="holds no weights by name"):
        import_reference(*files.paths)


@pytest.mark.parametrize(("text", "sentence"), [("{", "is not JSON"), ("[1]", "one JSON object"), ("\xff", "not JSON")])
def test_options_that_are_not_a_json_object_are_refused(text: str, sentence: str, files: Files) -> None:
    files.publish()
    files.paths[1].write_bytes(text.encode("latin-1"))
    with pytest.raises(ReferenceImportError, match=sentence):
        import_reference(*files.paths)


def test_files_that_are_not_there_are_named(files: Files) -> None:
    files.publish()
    checkpoint, config, out = files.paths
    nowhere = files.folder / "nowhere" / "file"
    for arguments in ((nowhere, config, out), (checkpoint, nowhere, out), (checkpoint, config, out, nowhere)):
        with pytest.raises(ReferenceImportError, match="nowhere.file cannot be read: No such file"):
            import_reference(*arguments)
    with pytest.raises(ReferenceImportError, match="config.json.out cannot be written: File exists"):
        import_reference(checkpoint, config, config / "out")


@pytest.mark.parametrize("which", [0, 1, 3])
def test_no_file_that_is_read_is_written_over(which: int, files: Files) -> None:
    files.publish()
    checkpoint, config, _ = files.paths
    link = files.folder / "link"
    link.symlink_to((checkpoint, config, None, files.numbers)[which])
    before = link.read_bytes()
    with pytest.raises(ReferenceImportError, match="another name"):
        import_reference(checkpoint, config, link, files.numbers)
    assert link.read_bytes() == before


def test_an_import_that_breaks_off_leaves_the_weights_that_were_there(files: Files, monkeypatch: Any) -> None:
    files.publish()
    files.paths[2].write_bytes(b"older weights")

    def full(weights: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("napari_sparsetok.model.reference.save_file", full)
    with pytest.raises(ReferenceImportError, match="cannot be written: I/O error: No space left"):
        import_reference(*files.paths)
    assert files.paths[2].read_bytes() == b"older weights"
    assert {path.name for path in files.folder.iterdir()} == {*(path.name for path in files.paths), "io.npz"}


# The comparison


def altered(files: Files, name: str, change: Callable[[Any], Any]) -> None:
    arrays = dict(np.load(files.numbers))
    arrays[name] = change(arrays[name])
    np.savez(files.numbers, **arrays)


def swap(members: Any) -> Any:
    """One token more, one less."""
    members = members.copy()
    inside, outside = np.flatnonzero(members[0])[-1], np.flatnonzero(members[0] == 0)[-1]
    members[0, inside], members[0, outside] = 0, 1
    return members


@pytest.mark.parametrize("name", ["completed_tokens", "logits"])
def test_a_difference_above_the_tolerance_fails_the_check(name: str, files: Files) -> None:
    files.publish()
    altered(files, name, lambda a: a + 1e-3)
    report = import_reference(*files.paths, files.numbers)
    assert report.check is not None
    assert not report.check.passed
    assert getattr(report.check, name) == pytest.approx(1e-3, rel=0.2)
    assert report.out is None
    assert not files.paths[2].exists()


@pytest.mark.parametrize("stage", range(4))
def test_other_members_fail_the_check_at_their_stage(stage: int, files: Files) -> None:
    files.publish()
    altered(files, f"stage{stage}_members", swap)
    report = import_reference(*files.paths, files.numbers)
    assert report.check is not None
    assert report.check.members == tuple(k != stage for k in range(4))
    assert not report.check.passed


def test_nan_fails_the_check(files: Files) -> None:
    files.publish()
    altered(files, "logits", lambda a: a * np.nan)
    result = CliRunner().invoke(
        app, ["import-reference", *arguments_of(files), "--check", str(files.numbers), "--json"]
    )
    assert result.exit_code == 1
    assert json.loads(result.stdout)["check"]["logits_difference"] is None


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: np.savez(f.numbers, image=np.zeros(3)), "io.npz lacks completed_tokens, logits, stage0_members"),
        (lambda f: f.numbers.write_bytes(b"PK\x03\x04"), "io.npz is not an .npz file|io.npz cannot be read"),
        (lambda f: f.numbers.write_bytes(b"text"), "io.npz is not an .npz file"),
        (lambda f: altered(f, "logits", lambda a: np.array([a, None], dtype=object)), "io.npz is not an .npz file"),
        (lambda f: altered(f, "logits", lambda a: a[:1]), "numbers to check have the shape"),
        (lambda f: altered(f, "image", lambda a: a[..., :8]), "takes windows of"),
    ],
)
def test_numbers_that_cannot_be_compared_are_refused(
    spoil: Callable[[Files], object], sentence: str, files: Files
) -> None:
    files.publish()
    spoil(files)
    with pytest.raises(ValueError, match=sentence):
        import_reference(*files.paths, files.numbers)


# The command


def arguments_of(files: Files) -> list[str]:
    return [str(path) for path in files.paths]


def test_the_command_converts_and_reports(files: Files) -> None:
    files.publish()
    command = ["import-reference", *arguments_of(files), "--check", str(files.numbers)]
    table = CliRunner().invoke(app, command)
    assert table.exit_code == 0
    assert "identical" in table.stdout
    document = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert document["check"]["passed"] is True
    assert document["config"]["prune_after"] == [1, 2, 3]
    assert document["out"] == str(files.paths[2])


def test_the_command_fails_when_the_check_does(files: Files) -> None:
    files.publish()
    altered(files, "stage1_members", swap)
    result = CliRunner().invoke(app, ["import-reference", *arguments_of(files), "--check", str(files.numbers)])
    assert result.exit_code == 1
    assert "DIFFERENT" in result.stdout
    assert result.stderr.count("\n") == 1


def test_the_command_refuses_in_one_line(files: Files) -> None:
    published = files.publish()
    files.write({**published.options, "mask_ratio": 0.5}, published.weights)
    result = CliRunner().invoke(app, ["import-reference", *arguments_of(files)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "sparsetok: the options hold mask_ratio, which this program does not know\n"


def test_a_traceback_is_shown_on_request(files: Files) -> None:
    result = CliRunner().invoke(app, ["--traceback", "import-reference", *arguments_of(files)])
    assert isinstance(result.exception, ReferenceImportError)


# The published implementation's own numbers, where they are at hand


def reference_folders() -> Iterator[Path]:
    named = os.environ.get("SPARSETOK_REFERENCE")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "reference"
    yield from sorted(path.parent for path in root.glob("**/checkpoint.pth.tar"))


@pytest.mark.skipif(not any(reference_folders()), reason="no numbers of the published code; set SPARSETOK_REFERENCE")
def test_the_published_numbers_are_met(tmp_path: Path) -> None:
    for folder in reference_folders():
        paths = folder / "checkpoint.pth.tar", folder / "config.json", tmp_path / f"{folder.name}.safetensors"
        report = import_reference(*paths, folder / "io.npz")
        assert report.check is not None
        assert report.check.passed, folder.name
        assert all(report.check.members)
