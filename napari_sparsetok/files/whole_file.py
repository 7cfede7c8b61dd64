"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_sparsetok.scan import ScanError


@contextmanager
def written_whole(path: Path, suffix: str = ".part", words: str = "") -> Iterator[Path]:
    """Write beside the target, then rename over it: a full disk leaves what was there before.

    A file that is write-protected is left as it is, though renaming over it would be allowed.

    Yields the name to write to, which ends in `suffix`; no file is there yet. `words` say, with the reason in place of
    "{}", what it means for the person if the disk refuses.

    Raises
    ------
    ScanError : the disk refuses, or the file that is there is write-protected.
    """
    target = Path(os.path.realpath(path))  # a link is followed, not replaced by a file
    temporary = target.with_name(f".{secrets.token_hex(8)}{suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_unprotected(target)
        try:
            yield temporary
            with temporary.open("rb+") as raw:  # Windows flushes only what may be written
                os.fsync(raw.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        usual = (
            path.name + " could not be saved ({}); nothing was overwritten, choose another name or folder, or make room"
        )
        raise ScanError((words or usual).replace("{}", reason)) from None


def _check_unprotected(target: Path) -> None:
    """Somebody protected it on purpose, as a mask that was signed.

    Raises
    ------
    OSError : a file is there that may not be written.
    """
    if target.is_file() and not (target.stat().st_mode & stat.S_IWUSR and os.access(target, os.W_OK)):
        raise PermissionError(errno.EACCES, "a file of that name is there, and is write-protected")
