"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_sparsetok.scan import ScanError


@contextmanager
def written_whole(path: Path, suffix: str = ".part", words: str = "") -> Iterator[Path]:
    """Write beside the target, then rename over it: a full disk leaves what was there before.

    Yields the name to write to, which ends in `suffix`; no file is there yet. `words` say, with the reason in place of
    "{}", what it means for the person if the disk refuses.

    Raises
    ------
    ScanError : the disk refuses.
    """
    target = Path(os.path.realpath(path))  # a link is followed, not replaced by a file
    temporary = target.with_name(f".{secrets.token_hex(8)}{suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as raw:  # Windows flushes only what may be written
                os.fsync(raw.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        usual = path.name + " could not be saved ({}); nothing was overwritten, choose another folder or free space"
        raise ScanError((words or usual).replace("{}", reason)) from None
