"""Token maps as numpy arrays on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_sparsetok.files.whole_file import written_whole
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
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(tokens).items() if value is not None}
    with written_whole(path, ".npz") as part:
        np.savez_compressed(part, **arrays)
    return path
