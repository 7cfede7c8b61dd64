"""Scans to try the program on: real anatomy from nilearn's packaged template, and a synthetic phantom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok import files
from napari_sparsetok.scan import Geometry, Region, Scan, ScanError

SAMPLES = {
    "hippocampus_left": "MNI152 T1 template, left hippocampus",
    "hippocampus_right": "MNI152 T1 template, right hippocampus",
    "mni152": "MNI152 T1 template, whole brain",
    "phantom": "Synthetic phantom of a temporal lobe",
}
"""Every sample's id and what to call it on screen."""

TEMPLATE_GEOMETRY = Geometry(
    (197, 233, 189), np.array([[1, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]], dtype=float)
)
"""The grid of the sample "mni152", known without loading it."""

# First and last voxel centre in MNI millimetres towards R, A and S. The margins around the hippocampus are those of
# the crops that the hippocampus model was trained on: 3 to 7 mm.
_BOXES = {
    "hippocampus_left": ((-44, -47, -34), (-9, 2, 5)),
    "hippocampus_right": ((9, -47, -34), (44, 2, 5)),
}

_PHANTOM = "phantom_t1.nii.gz"


def open_sample(name: str) -> Scan:
    """A sample by its id in `SAMPLES`.

    Raises
    ------
    ScanError : there is no such sample, or what it is made from is not installed.
    """
    if name not in SAMPLES:
        raise ScanError(f"no sample is called “{name}”; there are {', '.join(SAMPLES)}")
    if name == "phantom":
        return replace(files.open_scan(_phantom_path()), name=SAMPLES[name])
    head = _template()
    crop = head if name == "mni152" else head.cropped(_region(name, head.geometry))
    return replace(crop, name=SAMPLES[name])


def hippocampus_region(name: str) -> Region:
    """The box of "hippocampus_left" or "hippocampus_right" within the sample "mni152".

    Raises
    ------
    ScanError : another name.
    """
    return _region(name, TEMPLATE_GEOMETRY)


def _region(name: str, geometry: Geometry) -> Region:
    if name not in _BOXES:
        raise ScanError(f"no hippocampus is called “{name}”; there are {', '.join(_BOXES)}")
    corners = np.array([(*corner, 1.0) for corner in _BOXES[name]])
    indices = np.rint(corners @ np.linalg.inv(geometry.affine).T)[:, :3].astype(int)
    (a, b, c), (d, e, f) = indices.min(axis=0).tolist(), (indices.max(axis=0) + 1).tolist()
    return Region((a, b, c), (d, e, f))


def _template() -> Scan:
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError:
        raise ScanError(
            'the MNI152 samples come with nilearn, which is not installed: pip install "napari-sparsetok[samples]"'
        ) from None
    image: Any = load_mni152_template(resolution=1)
    voxels: NDArray[np.float32] = np.asarray(image.dataobj, dtype=np.float32)
    geometry = Geometry(voxels.shape, image.affine)
    return Scan(geometry.to_shown(voxels), geometry)


def _phantom_path() -> Path:
    """Within the package as installed, or beside it in a copy of the repository."""
    package = Path(__file__).parent
    for folder in (package / "sample_data", package.parent / "sample_data"):
        if (folder / _PHANTOM).is_file():
            return folder / _PHANTOM
    raise ScanError(f"the phantom {_PHANTOM} is missing from this installation; install napari-sparsetok again")
