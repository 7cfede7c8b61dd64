"""A model in memory, and the two halves of a run of it: what the keep ratio changes, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from napari_sparsetok.engine.cache import WindowPrefix
from napari_sparsetok.engine.completing import SharedCompletion
from napari_sparsetok.engine.contract import Stopped
from napari_sparsetok.engine.decoding import FastDecoder, joined
from napari_sparsetok.engine.device import Device, is_full, keep_freed_memory
from napari_sparsetok.engine.intensity import check_rule
from napari_sparsetok.model import SCD, Prefix, Rule, SCDConfig, TokenRecord
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import DeviceChoice
from napari_sparsetok.weights import Card, CardError


@dataclass(frozen=True, eq=False)
class Network:
    """A model on a device, and what was asked for: after a failure the device may be another."""

    card: Card
    model: SCD
    completion: SharedCompletion
    decoder: FastDecoder
    device: Device
    asked: DeviceChoice

    @classmethod
    def on(cls, card: Card, model: SCD, device: Device, asked: DeviceChoice) -> Network:
        """Move a model to a device."""
        keep_freed_memory()
        moved = model.to(device.device)
        decoder = FastDecoder(moved.decoder, device.dense_dtype)
        return cls(card, moved, SharedCompletion(moved), decoder, device, asked)

    @property
    def uneven(self) -> bool:
        """Whether windows may have different numbers of tokens, so that they cannot run as one batch."""
        return self.model.config.empty is not None

    @property
    def exact(self) -> bool:
        """Whether all products are in float32, so that another order of them changes last digits only."""
        return self.device.dtype == self.device.dense_dtype == torch.float32

    def encoding(self) -> torch.autocast:
        """Products in the type that the device's encoder runs in."""
        return _products_in(self.device.dtype, self.device.device)

    def completing(self) -> torch.autocast:
        """Products in the type of what comes after the encoder."""
        return _products_in(self.device.dense_dtype, self.device.device)


def _products_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if reduced else None, enabled=reduced)


def config_of(card: Card) -> SCDConfig:
    """The network that a card describes; JSON has no tuples, so its lists become some."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card.config.items()}
    return SCDConfig(**fields)


def load_model(card: Card) -> SCD:
    """Build the network of a card and load its verified weights, in float32 and for inference.

    Raises
    ------
    CardError : the weights are missing, damaged, no numbers, or do not fit the card's config.
    ScanError : the memory is full.
    """
    stored = card.verified_weights()
    try:
        check_rule(card.intensity, cropped=card.body is not None)
        config = config_of(card)
        tensors = load_tensors(stored)
        blocks = config.depth + config.completion_depth
        if blocks > len(tensors):  # each has some; to build a thousand million of them would never end
            raise ValueError(f"its card says {blocks} blocks, and it has {len(tensors)} tensors")
        model = SCD(config)
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (TypeError, ValueError, RuntimeError, MemoryError, SafetensorError) as error:
        if is_full(error):
            raise ScanError(f"there is not enough memory to load “{card.title}”; close other programs") from None
        said = [line.strip() for line in str(error).splitlines() if not line.endswith(":")]  # without PyTorch's heading
        reason = said[0] if said else type(error).__name__
        raise CardError(
            f"the weights of “{card.title}” do not fit its card ({reason}); install the model again"
        ) from None
    # Of a NaN in a score network nothing is seen in the logits: it would pick the tokens by chance.
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise CardError(
            f"the weights of “{card.title}” hold values that are no numbers (NaN or infinity), so no mask of it could "
            "be trusted; get the model again from whoever made it"
        )
    if config.in_channels != len(card.channels) or config.out_channels != len(card.labels) + 1:
        raise CardError(f"the card of “{card.title}” names other channels or labels than its network has")
    return model.eval().requires_grad_(False)


def finish(
    network: Network,
    windows: Sequence[WindowPrefix],
    keep_ratio: float | Sequence[float],
    rule: Rule,
    share: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[tuple[torch.Tensor, TokenRecord]]:
    """Run the rest of the network on windows of one size, as one batch.

    Parameters
    ----------
    share : let completion keep, with a window, what the next lower keep ratio can use; see `SharedCompletion`.
    should_stop : asked between blocks.

    Raises
    ------
    Stopped : it said so. Nothing that is kept with a window was begun.
    """
    model = network.model
    with torch.inference_mode():
        prefix = Prefix.joined([w.prefix for w in windows])
        with network.encoding(), _stoppable(model, should_stop):
            parts, ids, scores = model.encode_rest(prefix, keep_ratio, rule)
        with network.completing():
            if share and len(windows) == 1 and network.exact and network.completion.fits(rule):
                completed = network.completion(prefix, windows[0].shared, parts, ids)
            else:
                completed = model.complete(parts, ids, prefix.grid)
        record = model.record(ids, scores, prefix.grid)
    if should_stop():
        raise Stopped
    with torch.inference_mode():
        logits = network.decoder(completed, joined([w.skip for w in windows]))
    each = (slice(k, k + 1) for k in range(len(windows)))
    return [(logits[k], TokenRecord(tuple(s[k] for s in record.scores), record.stage[k])) for k in each]


@contextmanager
def _stoppable(model: SCD, should_stop: Callable[[], bool]) -> Iterator[None]:
    def ask(block: object, given: object) -> None:
        if should_stop():
            raise Stopped

    hooks = [block.register_forward_pre_hook(ask) for block in model.blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def prefixes(network: Network, images: torch.Tensor) -> list[WindowPrefix]:
    """What of windows (B, channels, D, H, W) does not depend on the keep ratio, each with memory of its own."""
    images = images.to(network.device.device)
    with torch.inference_mode(), network.encoding():
        found = network.model.prefixes(images)
    with torch.inference_mode():
        skip = network.decoder.image_skip(images)
        each = [prefix.of(k) for prefix in found for k in range(len(prefix.tokens))]
        return [WindowPrefix(prefix, skip.of(k)) for k, prefix in enumerate(each)]
