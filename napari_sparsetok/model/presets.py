"""Networks of known size, as the paper's authors counted them."""

from __future__ import annotations

from typing import Literal

from napari_sparsetok.model.config import SCDConfig

Preset = Literal["btcv", "brats"]

PRESETS: dict[Preset, SCDConfig] = {
    "btcv": SCDConfig(
        in_channels=1,
        out_channels=14,
        window=(96, 96, 96),
        patch=8,
        pooled_decoder=True,
        positions="learned",
        class_token=True,
    ),
    # The published option file for BraTS names patch 16 and a completion of width 384 and depth 3. The
    # published count, 403.77 GMAC and 112.40 M, is of the same network as for BTCV.
    "brats": SCDConfig(
        in_channels=4,
        out_channels=3,
        window=(128, 128, 128),
        patch=8,
        pooled_decoder=True,
        positions="learned",
        class_token=True,
    ),
}
"""ViT-B encoder, stages after blocks 3, 6 and 9, one completion block of width 768, 16 features."""
