"""The network on one window, in this process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from napari_sparsetok.bench.row import Row, in_turns, ratio
from napari_sparsetok.engine import device as devices
from napari_sparsetok.engine.network import Network, finish, load_model, prefixes
from napari_sparsetok.model import SCD, Rule, SCDConfig
from napari_sparsetok.weights import Card

NEW_RATIO, OLD_RATIO = 0.25, 0.5


def reinference(name: str, network: Network, window: tuple[int, int, int], rounds: int) -> list[Row]:
    """A new keep ratio when the prefix is there, against the network from the start; and the parts of it."""
    image = torch.randn(1, network.model.config.in_channels, *window)
    cached = prefixes(network, image)
    finish(network, cached, OLD_RATIO, Rule())
    times = in_turns(
        {
            "again": lambda: finish(network, cached, NEW_RATIO, Rule()),
            "whole": lambda: finish(network, prefixes(network, image), NEW_RATIO, Rule()),
            "trained": lambda: _trained(network.model, image, NEW_RATIO),
        },
        rounds,
    )
    details = {key: round(float(np.median(values)), 4) for key, values in times.items()} | {
        "parts_seconds": _parts(network, image, rounds),
        "decoder": str(network.decoder.dtype).removeprefix("torch."),
    }
    return [
        ratio(
            f"{name}: {OLD_RATIO:g} → {NEW_RATIO:g}, against the network as trained",
            times["again"],
            times["trained"],
            "≤ 0.6",
            details=details,
        ),
        ratio(
            f"{name}: {OLD_RATIO:g} → {NEW_RATIO:g}, against our own whole run",
            times["again"],
            times["whole"],
            note="stricter: the whole run is faster here than as trained",
        ),
    ]


def throughput(network: Network, window: tuple[int, int, int], rounds: int) -> Row:
    """Few tokens against all of them, from image to logits."""
    image = torch.randn(1, network.model.config.in_channels, *window)
    times = in_turns(
        {
            "all": lambda: finish(network, prefixes(network, image), 1.0, Rule()),
            "few": lambda: finish(network, prefixes(network, image), 0.1, Rule()),
        },
        rounds,
    )
    name = "BTCV preset: throughput at keep ratio 0.1 against 1"
    return ratio(
        name, times["all"], times["few"], "≥ 1.8", unit="×", details={k: np.median(v) for k, v in times.items()}
    )


def _parts(network: Network, image: torch.Tensor, rounds: int) -> dict[str, float]:
    model = network.model

    def complete() -> torch.Tensor:
        with network.completing():
            return model.complete(parts, ids, prefix.grid)

    with torch.inference_mode():
        prefix, skip = model.encode_prefix(image), network.decoder.image_skip(image)
        parts, ids, _ = model.encode_rest(prefix, NEW_RATIO)
        grid = complete()
        plain = grid.float()
        times = in_turns(
            {
                "prefix": lambda: model.encode_prefix(image),
                "image skip": lambda: network.decoder.image_skip(image),
                "rest of the encoder": lambda: model.encode_rest(prefix, NEW_RATIO),
                "completion": complete,
                "decoder": lambda: network.decoder(grid, skip),
                "decoder as trained": lambda: model.decode(plain, model.image_skip(image)),
            },
            rounds,
        )
    return {name: round(float(np.median(values)), 4) for name, values in times.items()}


def _trained(model: SCD, image: torch.Tensor, keep_ratio: float) -> torch.Tensor:
    with torch.inference_mode():
        return model(image, keep_ratio)[0]


def installed(card: Card) -> Network:
    """A model on the CPU."""
    return Network.on(card, load_model(card), devices.choose("cpu"), "cpu")


def random_weights(config: SCDConfig) -> Network:
    """A network of random weights on the CPU, the same at each call."""
    torch.manual_seed(0)
    card: Any = None  # random weights have none
    return Network.on(card, SCD(config).eval().requires_grad_(False), devices.choose("cpu"), "cpu")
