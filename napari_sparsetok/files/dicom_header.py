"""What a DICOM header says of the frames in its file. Reads headers only, never pixels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import UID

from napari_sparsetok.files.dicom_bounds import Bounded, go_on, read_up_to_size
from napari_sparsetok.files.dicom_source import Item
from napari_sparsetok.files.reading import Watch, size_text
from napari_sparsetok.files.stack import Plane
from napari_sparsetok.scan import ScanError

# Looked at only to keep their words out of a scan's name.
_PERSONAL = (
    *("PatientName", "PatientID", "OtherPatientNames", "PatientBirthDate", "AccessionNumber", "StudyID"),
    *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "InstitutionName"),
)
_WHO = ("PatientName", "PatientID", "OtherPatientNames")
_TWO_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae", "œ": "oe"})
_SERIES = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("SeriesDescription", "SeriesNumber", "InstanceNumber", "ImagesInAcquisition", "ImageType"),
)
_PIXELS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleType"),
)
_OF_FRAMES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", *_OF_FRAMES)
_MARKS = (
    *("TemporalPositionIdentifier", "DiffusionBValue", "DiffusionGradientOrientation", "EchoTime", "TriggerTime"),
    *("AcquisitionNumber", "AcquisitionTime", "ContentTime"),
)
# Where scanners wrote the b-value before there was a place for it: whose block it is, and which element of it.
_B_VALUES = {
    "SIEMENS MR HEADER": (0x0019, 0x0C),
    "GEMS_PARM_01": (0x0043, 0x39),
    "Philips Imaging DD 001": (0x2001, 0x03),
}
_GE_FLAG = 1e9  # that GE adds to some of them
_PRIVATE = [(group, part) for group, element in _B_VALUES.values() for part in (0x0010, 0x1000 + element)]
_NAMES = (*_PERSONAL, *_SERIES, *_PIXELS, *_PLACE, *_MARKS)
TAGS = [*(Tag(name) for name in _NAMES), *(Tag(place) for place in _PRIVATE)]

SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_FRACTIONS = (b"\xe0\x7f\x08\x00", b"\xe0\x7f\x09\x00", b"\x7f\xe0\x00\x08", b"\x7f\xe0\x00\x09")
_MOST_FRAMES = 100_000
_SHORTEST_FRAME = 8  # bytes in a file
_PIXEL_GROUP, _PIXELS_BEGIN = 0x7FE00000, 0x7FE00008  # between them lie tables of where compressed frames begin


class DeflatedError(ScanError):
    """A file is deflated as a whole, which is not read."""


@dataclass(frozen=True, eq=False)
class Head:
    """What holds for all frames of a file. Kept out of every printed form: it holds identifiers.

    Parameters
    ----------
    name : description and number of the series, or empty where they might name a person.
    bits : allocated, stored, highest.
    pixels_at : where in the file the group of its pixels begins.
    fractions : the values are stored as floats.
    padding : stored values from the first to the second are no image.
    trouble : a sentence, if the file cannot be used.
    """

    sop_class: str
    study: str
    series: str
    frame_of_reference: str
    modality: str
    name: str
    transfer_syntax: str
    bits: tuple[int, int, int]
    signed: bool
    photometric: str
    expected: int
    pixels_at: int
    fractions: bool = False
    padding: tuple[float, float] | None = None
    trouble: str = ""

    def __repr__(self) -> str:
        return "Head(…)"


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: where its pixels are, where it lies, and what tells it from others in its place.

    Parameters
    ----------
    number : which frame of the file, from 0.
    scaling : slope and intercept.
    unit : of the values, in DICOM's word; empty if it says none.
    marks : what may tell volumes apart, by name.
    """

    item: Item
    head: Head
    number: int
    uid: str
    instance: int
    plane: Plane | None
    shape: tuple[int, int]
    scaling: tuple[float, float]
    unit: str = ""
    marks: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Frame(…)"


def read_frames(item: Item, stream: BinaryIO, watch: Watch = Watch()) -> list[Frame]:  # noqa: B008 - frozen
    """The frames of one DICOM file; empty if it holds no image.

    Raises
    ------
    ScanError : it is damaged.
    OpeningStopped : `watch` asked for it.
    """
    with Bounded(_inflated(stream), watch) as bounded:
        return _read_frames(item, bounded, watch)


def _read_frames(item: Item, bounded: Bounded, watch: Watch) -> list[Frame]:
    try:
        dataset = read_up_to_size(bounded, TAGS)
    except InvalidDicomError:
        return []
    if not dataset.get("Rows") or not dataset.get("SeriesInstanceUID"):
        if _lost_its_end(dataset):
            raise ScanError("an image here is cut short; copy it again from its source")
        return []
    bounded.allow_frames(min(int(dataset.get("NumberOfFrames") or 1), _MOST_FRAMES, item.size // _SHORTEST_FRAME))
    go_on(dataset, bounded, lambda tag, _vr, _length: tag >= _PIXEL_GROUP, TAGS)
    for name in _OF_FRAMES:
        bounded.check_sequence(dataset, Tag(name))
    at = bounded.tell()
    go_on(dataset, bounded, lambda tag, _vr, _length: tag >= _PIXELS_BEGIN, TAGS)
    left = item.size - bounded.tell()
    fractions = bounded.read(4) in _FRACTIONS  # the tag that it stopped before
    return _frames(item, dataset, _head(dataset, (at, left), fractions=fractions), watch)


def _lost_its_end(dataset: FileDataset) -> bool:
    """Whether what says of no image was the beginning of one."""
    if dataset.preamble is None:  # perhaps no DICOM at all
        return False
    kind = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    return not kind or "Image Storage" in UID(kind).name


def _inflated(stream: BinaryIO) -> BinaryIO:
    """A deflated data set is refused where it would unpack to more than any header and its image hold."""
    start = stream.read(4096)
    stream.seek(0)
    if _DEFLATED not in start:
        return stream
    raise DeflatedError("a file here is deflated as a whole, which is not read; let the archive export it uncompressed")


def _head(dataset: Dataset, pixels: tuple[int, int], *, fractions: bool) -> Head:
    """What holds for all frames; `pixels` say where they begin, and how many bytes follow."""
    at, left = pixels
    allocated = int(dataset.get("BitsAllocated") or 16)
    stored = int(dataset.get("BitsStored") or allocated)
    frames = int(dataset.get("NumberOfFrames") or 1)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    expected = rows * columns * samples * frames * allocated // 8
    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "1.2.840.10008.1.2")
    return Head(
        sop_class=str(dataset.get("SOPClassUID", "")),
        study=str(dataset.get("StudyInstanceUID", "")),
        series=str(dataset.SeriesInstanceUID),
        frame_of_reference=str(dataset.get("FrameOfReferenceUID", "")),
        modality=_plain(dataset.get("Modality", ""))[:16],
        name=_safe_name(dataset),
        transfer_syntax=syntax,
        bits=(allocated, stored, int(dataset.get("HighBit") or stored - 1)),
        signed=bool(dataset.get("PixelRepresentation")),
        photometric=str(dataset.get("PhotometricInterpretation") or "MONOCHROME2"),
        expected=expected,
        pixels_at=at,
        fractions=fractions,
        padding=_padding(dataset),
        trouble=_trouble(dataset, (samples, frames, allocated, stored), left, expected, syntax),
    )


def _trouble(dataset: Dataset, sizes: tuple[int, int, int, int], left: int, expected: int, syntax: str) -> str:
    samples, frames, allocated, stored = sizes
    if samples != 1 or str(dataset.get("PhotometricInterpretation")).startswith("PALETTE"):
        return "it holds colour pictures; a scan needs one grey value a voxel"
    if not 0 < frames <= _MOST_FRAMES or not 0 < stored <= allocated or allocated not in (1, 8, 16, 32, 64):
        return "a header contradicts itself (frames or bits of a pixel); export the series again"
    if stored < allocated and int(dataset.get("HighBit") or stored - 1) != stored - 1:
        return "its values do not lie in the lowest bits of a pixel, which is not read; let the archive export it again"
    if dataset.get("ModalityLUTSequence"):
        return "its values go through a table that is not read; let the scanner export values with slope and intercept"
    if left < 10:
        return "it holds no pixel data; export it again"
    if not is_compressed(syntax) and left < expected:
        return f"it is cut short ({size_text(expected)} of pixels announced, {size_text(left)} there); copy it again"
    return ""


def is_compressed(syntax: str) -> bool:
    """Whether pixels of this transfer syntax need a decoder."""
    try:
        return bool(UID(syntax).is_compressed)
    except ValueError:  # not a transfer syntax that the standard knows
        return True


def _padding(dataset: Dataset) -> tuple[float, float] | None:
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    full = 1 << int(dataset.get("BitsAllocated") or 16)
    least = -full // 2 if dataset.get("PixelRepresentation") else 0
    ends = (value, limit if isinstance(limit, int) else value)
    low, high = sorted((v - least) % full + least if -full // 2 <= v < full else v for v in ends)  # -2000 or 63536
    return float(low), float(high)


def _frames(item: Item, dataset: Dataset, head: Head, watch: Watch) -> list[Frame]:
    per_frame: Sequence[Dataset] = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    count = int(dataset.get("NumberOfFrames") or 1)
    if head.trouble or not per_frame:
        count = 1 if head.trouble else min(count, _MOST_FRAMES)
        return [_frame(item, dataset, head, (k, Dataset(), shared)) for k in range(count)]
    if len(per_frame) < count:
        raise ScanError("a file announces more frames than it describes; export the series again")
    frames = []
    for k in range(count):
        watch.look()
        frames.append(_frame(item, dataset, head, (k, per_frame[k], shared)))
    return frames


def _frame(item: Item, dataset: Dataset, head: Head, group: tuple[int, Dataset, Dataset]) -> Frame:
    number, own, shared = group

    def macro(name: str) -> Dataset:
        sequence = own.get(name) or shared.get(name)
        return sequence[0] if sequence else Dataset()

    measures, values = macro("PixelMeasuresSequence"), macro("PixelValueTransformationSequence")
    ways = macro("PlaneOrientationSequence").get("ImageOrientationPatient")
    shape = int(dataset.Rows), int(dataset.Columns)
    place = [
        _numbers(macro("PlanePositionSequence").get("ImagePositionPatient") or dataset.get("ImagePositionPatient")),
        _numbers(ways or dataset.get("ImageOrientationPatient")),
        _numbers(measures.get("PixelSpacing") or dataset.get("PixelSpacing")),
    ]
    return Frame(
        item=item,
        head=head,
        number=number,
        uid=str(dataset.get("SOPInstanceUID", "")),
        instance=_whole(dataset.get("InstanceNumber")) + number,
        plane=_plane(place, shape),
        shape=shape,
        scaling=(_scale(values, dataset, "RescaleSlope", 1.0), _scale(values, dataset, "RescaleIntercept", 0.0)),
        unit=_plain(values.get("RescaleType", dataset.get("RescaleType"))).upper()[:16],
        marks=_marks(dataset, macro),
    )


def _plane(place: list[tuple[float, ...]], shape: tuple[int, int]) -> Plane | None:
    position, orientation, spacing = place
    if len(position) != 3 or len(orientation) != 6 or len(spacing) != 2:
        return None
    plane = Plane(position, orientation, (spacing[0], spacing[1]), shape)
    return plane if plane.is_sound else None


def _marks(dataset: Dataset, macro: Any) -> dict[str, Any]:
    content, diffusion = macro("FrameContentSequence"), macro("MRDiffusionSequence")
    kind = macro("MRImageFrameTypeSequence").get("FrameType") or dataset.get("ImageType") or ()
    direction = (macro("MRDiffusionSequence").get("DiffusionGradientDirectionSequence") or [Dataset()])[0]
    gradient = direction.get("DiffusionGradientOrientation") or dataset.get("DiffusionGradientOrientation")
    return {
        "time": content.get("TemporalPositionIndex") or dataset.get("TemporalPositionIdentifier"),
        "b-value": _number(diffusion.get("DiffusionBValue", dataset.get("DiffusionBValue", _own_b_value(dataset)))),
        "gradient direction": tuple(round(g, 4) for g in _numbers(gradient)),
        "echo time": _number(macro("MREchoSequence").get("EffectiveEchoTime", dataset.get("EchoTime"))),
        "image type": "/".join(str(part) for part in ([kind] if isinstance(kind, str) else list(kind))),
        "acquisition": _number(content.get("FrameAcquisitionNumber", dataset.get("AcquisitionNumber"))),
        "trigger time": _number(
            macro("CardiacSynchronizationSequence").get("NominalCardiacTriggerDelayTime", dataset.get("TriggerTime"))
        ),
        "acquisition time": str(content.get("FrameAcquisitionDateTime") or dataset.get("AcquisitionTime") or ""),
        "content time": str(dataset.get("ContentTime") or ""),
    }


def _own_b_value(dataset: Dataset) -> float | None:
    """The b-value where a scanner keeps it to itself, in the first block of its group, where all of them have it."""
    for creator, (group, element) in _B_VALUES.items():
        if str(dataset[group, 0x0010].value if (group, 0x0010) in dataset else "").strip() != creator:
            continue
        found = dataset.get((group, 0x1000 + element))
        value = found.value if found is not None else None
        if isinstance(value, bytes):  # of a type that the file does not tell
            value = value.decode("ascii", "ignore").strip("\0 ").split("\\")
        first = _number(value[0] if isinstance(value, (list, MultiValue)) and len(value) else value)
        return None if first is None else first % _GE_FLAG
    return None


def _scale(values: Dataset, dataset: Dataset, name: str, default: float) -> float:
    number = _number(values.get(name, dataset.get(name)))
    return default if number is None else number


def _number(value: Any) -> float | None:
    try:
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def _numbers(value: Any) -> tuple[float, ...]:
    if value is None or isinstance(value, str):
        return ()
    try:
        return tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return ()


def _whole(value: Any) -> int:
    number = _number(value)
    return int(number) if number is not None and np.isfinite(number) else 0


def _plain(value: Any) -> str:
    return " ".join(re.sub(r"[^\w\s().,+*/:-]", " ", str(value or "")).split())


def _safe_name(dataset: Dataset) -> str:
    """The series' description and number, or only what of it can name nobody."""
    number = _number(dataset.get("SeriesNumber"))
    suffix = f"series {int(number)}" if number is not None and 0 <= number < 100_000 else ""
    text = _plain(dataset.get("SeriesDescription", ""))[:64]
    if not text or re.search(r"\d{5,}|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}", text) or _names_somebody(text, dataset):
        return suffix
    return f"{text} ({suffix})" if suffix else text


def _names_somebody(text: str, dataset: Dataset) -> bool:
    """Whether a description holds words of the fields that may name a person, however it writes them."""
    texts = _spellings(text)
    for name in _PERSONAL:
        try:
            said = str(dataset.get(name) or "")
        except Exception:  # whatever pydicom makes of a field that contradicts itself; it quotes the field
            return True
        words = {spelt for word in re.findall(r"\w+", said.replace("_", " ")) for spelt in _spellings(word)}
        if any(_tells(word, texts, of_person=name in _WHO) for word in words):
            return True
    return False


def _tells(word: str, texts: set[str], *, of_person: bool) -> bool:
    """Whether one of the texts holds a word that may name somebody."""
    if word.isascii() and len(word) < (2 if of_person else 3):
        return False
    # A short name lies by chance within many words, so only as a word of its own it is the name.
    alone = of_person and word.isascii() and len(word) <= 3
    pattern = rf"(?<![^\W\d_]){re.escape(word)}(?![^\W\d_])" if alone else re.escape(word)
    return any(re.search(pattern, text) for text in texts)


def _spellings(text: str) -> set[str]:
    """A text in small letters: as it is, without accents, and with two letters for an umlaut."""
    plain = text.casefold().replace("_", " ")
    spelt_out = plain.translate(_TWO_LETTERS)
    bare = (unicodedata.normalize("NFKD", t).encode("ascii", "ignore").decode() for t in (plain, spelt_out))
    return {plain, *bare} - {""}
