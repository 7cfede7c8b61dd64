"""Compressed DICOM pictures unpacked; also a program that does so for `decoder_pool`.

The program is run by this file's name, so that nothing of the package is loaded for it; it needs numpy and pydicom.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

if __name__ == "__main__":  # pydicom would load what downloads its examples: a fifth of the time until this begins
    sys.modules.setdefault("requests", None)  # type: ignore[arg-type]

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, JPEG2000TransferSyntaxes, RLELossless

_MOST_PIXELS = 1 << 28  # of a picture


class DamagedError(ValueError):
    """A picture that is not unpacked, in a sentence that says why."""


def decoded(dataset: Dataset, syntax: str, numbers: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The pixels (rows, columns) of some frames as stored, rising by number.

    Raises
    ------
    DamagedError : a picture is larger than it should be.
    """
    _check_sizes(dataset)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    # Without indices the object is gone through once, instead of from its start for each frame.
    indices = None if len(numbers) == int(dataset.get("NumberOfFrames") or 1) else numbers
    yield from iter_pixels(dataset, raw=True, indices=indices, decoding_plugin=_plugin(syntax))


def _plugin(syntax: str) -> str:
    """The decoder to take where it matters which one; "" leaves it to pydicom."""
    if syntax == RLELossless:
        return "pydicom"  # others end the whole program on damaged ones
    if syntax in JPEG2000TransferSyntaxes and "pylibjpeg" in get_decoder(UID(syntax)).available_plugins:
        return "pylibjpeg"  # somewhat faster than gdcm, which pydicom prefers and fails with where signs contradict
    return ""


def _check_sizes(dataset: Dataset) -> None:
    """A picture must announce the size that the header says, before a decoder takes memory for it."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if rows * columns > _MOST_PIXELS:
        raise DamagedError("its pictures are larger than any scanner's; export the series again")
    for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
        announced = stream_size(frame)
        if announced and announced != (rows, columns):
            raise DamagedError("a compressed picture has another size than its header says; export the series again")


def stream_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns that a JPEG, JPEG-LS or JPEG 2000 stream announces; None where it is another kind."""
    if data[:4] == b"\xff\x4f\xff\x51" and len(data) >= 24:
        wide, high, left, top = (int.from_bytes(data[8 + 4 * k : 12 + 4 * k], "big") for k in range(4))
        return high - top, wide - left
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + length
    return None


# The program


def serve(asked: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests, one a line, until there are no more.

    A request is JSON: path, member of a zip or "", size, syntax, numbers of frames. Of each frame come a line of JSON,
    its kind and shape, and its bytes; then a line with "end": "" if all went well, else why not.
    """
    archives: dict[str, zipfile.ZipFile] = {}
    last: tuple[Any, Dataset | None] = (None, None)
    _say(answers, {"ready": True})
    for line in asked:
        wanted = json.loads(line)
        which = wanted["path"], wanted["member"]
        try:
            dataset = last[1] if last[0] == which and last[1] is not None else _read(wanted, archives)
            last = which, dataset
            for plane in decoded(dataset, wanted["syntax"], wanted["numbers"]):
                _say(answers, {"kind": plane.dtype.str, "shape": plane.shape})
                answers.write(np.ascontiguousarray(plane).data)
            end = {"end": "", "kept": True}
        except DamagedError as error:
            end = {"end": str(error), "kept": True}
        except Exception:  # whatever decoders make of damaged bytes; the other side has words for it
            end = {"end": "damaged", "kept": False}
        _say(answers, end)


def _read(wanted: dict[str, Any], archives: dict[str, zipfile.ZipFile]) -> Dataset:
    path, member = wanted["path"], wanted["member"]
    if not member:
        return dcmread(path, force=True)
    if path not in archives:
        archives[path] = zipfile.ZipFile(path)
    with archives[path].open(member) as stream:
        return dcmread(io.BytesIO(stream.read(wanted["size"])), force=True)


def _say(answers: IO[bytes], what: dict[str, Any]) -> None:
    answers.write(json.dumps(what).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable()  # libraries quote headers, and headers name patients
    to_parent = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # decoders print
    serve(sys.stdin.buffer, to_parent)
