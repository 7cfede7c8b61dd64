"""Token maps as numpy arrays on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import TokenMap


def save_tokens(path: str | Path, tokens: TokenMap) -> Path:
    """Write a token map as a compressed ``.npz``, its fields by their names in `TokenMap`.

    Raises
    ------
    ScanError : the disk refuses.
    """
    path = Path(path).expanduser()
    if path.suffix != ".npz":
        raise ScanError(f"token maps are saved as .npz; let the name end so, not in “{path.suffix}”")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(tokens).items()}
        np.savez_compressed(path, **arrays)
    except OSError as error:
        raise ScanError(f"{path.name} could not be saved ({error.strerror or error})") from None
    return path
