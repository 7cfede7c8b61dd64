"""How long opening and stopping take: 300 slices of 512 × 512 as DICOM, NIfTI and NRRD, from data made up here.

    scripts/with-display python benchmarks/bench_opening.py [OUT.json]

Each is opened once to warm the disk's cache, then three times; the median counts. Then the DICOM folder and the NIfTI
are opened in a window, as if they had been chosen there, until the scan is drawn; of the turns of the window's event
loop meanwhile the longest is taken. The last line is one JSON document.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from bench_slider import pump_until
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from napari_sparsetok.files import OpeningStopped, find_series, open_scan
from napari_sparsetok.ui.app import open_viewer

SLICES, SIDE = 300, 512


def pixels(k: int) -> np.ndarray:
    """One slice of a noisy ball, as a scanner would store it."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    ball = (x**2 + y**2 + (k - SLICES / 2) ** 2) < (SIDE / 3) ** 2
    noise = np.random.default_rng(k).integers(0, 60, (SIDE, SIDE))
    return (ball * 1060 + noise).astype("<u2")


def write_dicom(folder: Path) -> None:
    study, series = generate_uid(), generate_uid()
    for k in range(SLICES):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds: Dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, study
        ds.Modality, ds.SeriesDescription, ds.SeriesNumber, ds.InstanceNumber = "CT", "ball", 1, k + 1
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 1.5 * k], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.7, 0.7], 1.5
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.Rows = ds.Columns = SIDE
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelData = pixels(k).tobytes()
        ds.save_as(folder / f"{k:04d}", enforce_file_format=True)


def write_jpeg2000(source: Path, folder: Path) -> None:
    """The same series with its pictures packed without loss."""
    for path in source.iterdir():
        ds = dcmread(path)
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
        ds.save_as(folder / path.name, enforce_file_format=True)


def median_seconds(job: Callable[[], object]) -> float:
    job()
    times = []
    for _ in range(3):
        started = time.perf_counter()
        job()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times), 3)


def seconds_to_stop_a_step(path: Path) -> float:
    """From asking to stop, half a second after a library began to read in one step, until it is let go."""
    begun = time.perf_counter()
    asked = begun + 0.5

    def stop() -> bool:
        return time.perf_counter() > asked

    try:
        open_scan(path, should_stop=stop)
    except OpeningStopped:
        return round(time.perf_counter() - asked, 4)
    raise SystemExit("it was read before it could be stopped")


def seconds_to_stop(path: Path) -> float:
    """From asking to stop in the middle until it has stopped."""
    asked = [0.0]
    looked = [not path.is_dir()]  # a folder is looked at first, and only then read

    def progress(done: int, total: int) -> None:
        looked[0] = looked[0] or done == total > 1
        if looked[0] and total > 1 and total // 2 <= done < total and not asked[0]:
            asked[0] = time.perf_counter()

    try:
        open_scan(path, on_progress=progress, should_stop=lambda: bool(asked[0]))
    except OpeningStopped:
        return round(time.perf_counter() - asked[0], 4)
    raise SystemExit("it did not stop")


def in_a_window(paths: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Seconds from choosing a scan until it is drawn and nothing is read, and the event loop's longest turn."""
    viewer, dock = open_viewer()
    state, found = dock.session.state, {}
    pump_until(lambda: False, 2, [])
    for name, path in paths.items():
        seconds, longest = [], []
        for _ in range(4):
            viewer.layers.clear()
            pump_until(lambda: state.scan is None and state.busy is None, 30, [])
            pump_until(lambda: False, 1, [])
            gaps: list[float] = []
            started = time.perf_counter()
            dock.opening.open(path)
            if not pump_until(lambda: state.scan is not None and state.busy is None, 60, gaps):
                raise SystemExit(f"{name} did not open: {state.message}")
            seconds.append(time.perf_counter() - started)
            longest.append(max(gaps))
        found[name] = {
            "seconds": round(statistics.median(seconds[1:]), 2),
            "longest_turn_seconds": round(statistics.median(longest[1:]), 3),
        }
    dock.shut_down()
    viewer.close()
    return found


def write_large(path: Path) -> None:
    """Eight gigabytes of nothing, which take no room on disk."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((1600, 1600, 1600))
    header.set_sform(np.diag([-0.1, -0.1, 0.1, 1.0]), 1)
    with path.open("wb") as file:
        header.write_to(file)
        file.truncate(352 + 2 * 1600**3)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "dicom")
        folder.mkdir()
        write_dicom(folder)
        volume = np.stack([pixels(k).T for k in range(SLICES)], axis=-1).astype(np.int16)
        for name in ("scan.nii", "scan.nii.gz"):
            nib.save(nib.Nifti1Image(volume, np.diag([-0.7, -0.7, 1.5, 1.0])), Path(temporary, name))
        write_large(Path(temporary, "large.nii"))
        packed = Path(temporary, "jpeg2000")
        packed.mkdir()
        write_jpeg2000(folder, packed)
        nrrd = Path(temporary, "scan.nrrd")
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(np.ascontiguousarray(volume.T)), str(nrrd), useCompression=True
        )
        result = {
            "what": f"seconds to open {SLICES} slices of {SIDE}×{SIDE}, 16 bits, warm; median of 3",
            "command": "scripts/with-display python benchmarks/bench_opening.py",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
            "seconds": {
                "dicom_find_series": median_seconds(lambda: find_series(folder)),
                "dicom_open_scan": median_seconds(lambda: open_scan(folder)),
                "dicom_stop": seconds_to_stop(folder),
                "dicom_jpeg2000_open_scan": median_seconds(lambda: open_scan(packed)),
                "dicom_jpeg2000_stop": seconds_to_stop(packed),
                "nifti": median_seconds(lambda: open_scan(Path(temporary, "scan.nii"))),
                "nifti_gz": median_seconds(lambda: open_scan(Path(temporary, "scan.nii.gz"))),
                "nifti_gz_stop": seconds_to_stop(Path(temporary, "scan.nii.gz")),
                "nrrd_gz": median_seconds(lambda: open_scan(nrrd)),
                "nrrd_gz_stop": seconds_to_stop_a_step(nrrd),
                "nifti_8_gb_left_on_disk": median_seconds(lambda: open_scan(Path(temporary, "large.nii"))),
            },
            "in_a_window": in_a_window(
                {"dicom": folder, "nifti": Path(temporary, "scan.nii"), "nifti_gz": Path(temporary, "scan.nii.gz")}
            ),
        }
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
