"""The SCD network: sparse encoding, token completion, dense decoding."""

from napari_sparsetok.model.config import SCDConfig
from napari_sparsetok.model.pruning import Rule
from napari_sparsetok.model.scd import SCD, Prefix, TokenRecord

__all__ = ["SCD", "Prefix", "Rule", "SCDConfig", "TokenRecord"]
