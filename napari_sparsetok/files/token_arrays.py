"""Token maps as numpy arrays on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.scan import ScanError
from napari_sparsetok.state import TokenMap


def save_tokens(path: str | Path, tokens: TokenMap, **more: NDArray[Any]) -> Path:
    """Write a token map as a compressed ``.npz``, its fields by their names in `TokenMap`, and more arrays beside them.

    Raises
    ------
    ScanError : the disk refuses.
    """
    path = Path(path).expanduser()
    if path.suffix != ".npz":
        raise ScanError(f"token maps are saved as .npz; let the name end so, not in “{path.suffix}”")
    fields = {**vars(tokens), **more}
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in fields.items() if value is not None}
    with written_whole(path, ".npz") as part:
        np.savez_compressed(part, **arrays)
    return path
