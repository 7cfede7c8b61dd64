"""DICOM series made up for the tests: every one a small block of numbers, with what is wrong about it on request."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.dataset import FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR, CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SECRET = "Lovelace^Ada"


def block(slices=6, rows=8, columns=10, *, kind="i2", seed=0):
    """Stored pixels (slices, rows, columns), all different."""
    values = np.arange(slices * rows * columns).reshape(slices, rows, columns)
    return np.random.default_rng(seed).permuted(values.ravel()).reshape(values.shape).astype(kind)


@dataclass
class Series:
    """A classic series: one file a slice.

    pixels : (slices, rows, columns).
    step : millimetres between slices along the normal.
    extra : attributes of every file; a list as long as the series gives one value a slice.
    """

    pixels: np.ndarray
    orientation: tuple[float, ...] = AXIAL
    spacing: tuple[float, float] = (0.5, 0.75)
    step: float = 2.0
    origin: tuple[float, float, float] = (-10.0, -20.0, 30.0)
    positions: np.ndarray | None = None
    uid: str = field(default_factory=generate_uid)
    study: str = "1.2.826.0.1.3680043.8.498.77"
    extra: dict[str, Any] = field(default_factory=dict)

    def places(self) -> np.ndarray:
        if self.positions is not None:
            return np.asarray(self.positions, dtype=float)
        row, column = np.reshape(self.orientation, (2, 3))
        steps = np.arange(len(self.pixels))[:, None] * self.step
        return np.asarray(self.origin) + steps * np.cross(row, column)

    def affine(self) -> np.ndarray:
        """From (column, row, slice) to RAS."""
        row, column = np.reshape(self.orientation, (2, 3))
        places = self.places()
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = row * self.spacing[1], column * self.spacing[0]
        affine[:3, 2], affine[:3, 3] = places[1] - places[0], places[0]
        return np.diag([-1, -1, 1, 1]) @ affine

    def datasets(self) -> list[FileDataset]:
        return [self._dataset(k, place) for k, place in enumerate(self.places())]

    def _dataset(self, k: int, place: np.ndarray) -> FileDataset:
        ds = empty(MR)
        ds.StudyInstanceUID, ds.SeriesInstanceUID = self.study, self.uid
        ds.FrameOfReferenceUID = self.study + ".1"
        ds.InstanceNumber = k + 1
        ds.ImagePositionPatient = [float(f"{v:.9g}") for v in place]
        ds.ImageOrientationPatient = [float(f"{v:.9g}") for v in self.orientation]
        ds.PixelSpacing, ds.SliceThickness = list(self.spacing), abs(self.step)
        put_pixels(ds, self.pixels[k])
        for name, value in self.extra.items():
            setattr(ds, name, value[k] if isinstance(value, list) and len(value) == len(self.pixels) else value)
        return ds

    def write(self, folder: Path, name: str = "IM{:04d}", order: list[int] | None = None) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        made = self.datasets()
        for k, j in enumerate(order or range(len(made))):
            made[j].save_as(folder / name.format(k), enforce_file_format=True)
        return folder


def empty(sop_class: str) -> FileDataset:
    """A data set that names a patient."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = SECRET, "4711-0815", "18151210", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20200102", "030405", "77", "A99"
    ds.ReferringPhysicianName, ds.Manufacturer = "Babbage^Charles", "none"
    ds.Modality, ds.SeriesNumber, ds.SeriesDescription = "CT" if sop_class == CT else "MR", 3, "T1 sagittal"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    return ds


def put_pixels(ds: Dataset, pixels: np.ndarray) -> None:
    """Pixels (rows, columns) or (frames, rows, columns), with the attributes that describe them."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape[-2:]
    bits = pixels.dtype.itemsize * 8
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"


def _one(**fields: Any) -> Sequence:
    item = Dataset()
    for name, value in fields.items():
        setattr(item, name, value)
    return Sequence([item])


def enhanced(series: Series, times: int = 1) -> FileDataset:
    """The series as one enhanced multi-frame object, its frames last slice first; times over, brighter by 1000."""
    ds = empty(ENHANCED_MR)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.InstanceNumber = series.study, series.uid, 1
    ds.FrameOfReferenceUID = series.study + ".1"
    frames, pixels = [], []
    for t in range(times):
        for k in reversed(range(len(series.pixels))):
            frame = Dataset()
            frame.PlanePositionSequence = _one(ImagePositionPatient=[float(f"{v:.9g}") for v in series.places()[k]])
            frame.FrameContentSequence = _one(TemporalPositionIndex=t + 1)
            frames.append(frame)
            pixels.append(series.pixels[k] + 1000 * t)
    shared = Dataset()
    shared.PlaneOrientationSequence = _one(ImageOrientationPatient=list(series.orientation))
    shared.PixelMeasuresSequence = _one(PixelSpacing=list(series.spacing), SliceThickness=series.step)
    shared.PixelValueTransformationSequence = _one(RescaleIntercept=-5, RescaleSlope=2, RescaleType="US")
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.NumberOfFrames = len(frames)
    put_pixels(ds, np.stack(pixels))
    return ds
