"""The save dialog: the format that was picked is the format that is written."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from fakes import make_scan

from napari_sparsetok.ui.mask_formats import file_name, mask_filters, with_ending_of

NIFTI, NRRD = "NIfTI (*.nii.gz *.nii)", "NRRD (*.nrrd)"
SEG, RTSTRUCT = "DICOM segmentation (*.dcm)", "DICOM structure set, outlines (*.rtstruct.dcm)"


@pytest.mark.parametrize(
    ("path", "chosen", "expected"),
    [
        ("/a/head_mask.nii.gz", NIFTI, "/a/head_mask.nii.gz"),
        ("/a/head_mask.nii", NIFTI, "/a/head_mask.nii"),
        ("/a/head_mask.nii.gz", NRRD, "/a/head_mask.nrrd"),
        ("/a/head_mask.nii.gz", SEG, "/a/head_mask.dcm"),
        ("/a/head_mask.nii.gz", RTSTRUCT, "/a/head_mask.rtstruct.dcm"),
        ("/a/head_mask.rtstruct.dcm", RTSTRUCT, "/a/head_mask.rtstruct.dcm"),
        ("/a/head_mask.rtstruct.dcm", SEG, "/a/head_mask.dcm"),
        ("/a/head_mask", NRRD, "/a/head_mask.nrrd"),
        ("/a/v1.2", NIFTI, "/a/v1.2.nii.gz"),
        ("/a/HEAD.NII.GZ", NRRD, "/a/HEAD.nrrd"),
        ("/a/head_mask.mha", "", "/a/head_mask.mha"),
    ],
)
def test_the_name_ends_as_the_format_that_was_picked(path, chosen, expected):
    assert with_ending_of(path, chosen) == expected


def test_dicom_is_offered_only_where_the_mask_can_refer_to_images():
    offered = mask_filters(make_scan())
    assert NIFTI in offered
    assert NRRD in offered
    assert "DICOM" not in offered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("AX T1 W/O (series 3)", "AX T1 W-O (series 3)"),
        ("/etc/passwd", "-etc-passwd"),
        ("..", "scan"),
        ("T2* 10:30 a\\b?", "T2- 10-30 a-b-"),
        ("Kopf, Überblick", "Kopf, Überblick"),
        ("ü" * 200, "ü" * 75),
        ("tab\there", "tab-here"),
    ],
)
def test_a_scans_name_leads_into_no_other_folder(words, expected):
    assert file_name(words) == expected
    for kind in (PurePosixPath, PureWindowsPath):
        assert (kind("folder") / file_name(words)).parent == kind("folder")
