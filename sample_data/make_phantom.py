"""Draw the phantom: a made-up left temporal lobe with a made-up hippocampus, and where that hippocampus is.

    python sample_data/make_phantom.py [FOLDER]

Needs numpy, scipy and nibabel. The same seed draws the same phantom, to a grey level of rounding.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SHAPE = (72, 88, 72)  # voxels of 1 mm towards R, A, S
MIDDLE = (-26.0, -22.0, -13.0)  # mm, where a left hippocampus lies in MNI space
SEED = 2303
FLUID, GREY, WHITE = 18.0, 56.0, 84.0
ANTERIOR, POSTERIOR = 1, 2

Field = NDArray[np.float64]


def affine() -> Field:
    """(4, 4), from voxel indices to RAS millimetres."""
    matrix = np.eye(4)
    matrix[:3, 3] = np.asarray(MIDDLE) - np.asarray(SHAPE) // 2
    return matrix


def make_phantom(seed: int = SEED) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The T1-like scan and its truth mask (0, 1 anterior, 2 posterior), both (x, y, z)."""
    random = np.random.default_rng(seed)
    x, y, z = (grid.astype(float) for grid in np.mgrid[tuple(slice(-(n // 2), n - n // 2) for n in SHAPE)])
    body = _body(x, y, z)
    scan = _brain(x, y, z, random)
    scan[body < 1.35] = WHITE  # the white matter that wraps it
    above = (z > _centre_line(y)[1]) & (body < 1.28)
    scan[above] = FLUID + 8  # the temporal horn's roof of fluid
    scan[body < 1.0] = GREY + 4
    scan = gaussian_filter(scan, 0.6)  # partial volume
    scan += 2.0 * _smooth_noise(random, 1.5)  # tissue texture
    scan *= 1.0 + 0.06 * np.sin(x / 40 + 0.4) + 0.05 * np.cos(y / 50)  # the coil's shading
    scan += random.normal(0.0, 1.0, SHAPE)
    truth = np.where(body < 1.0, np.where(y > 4, ANTERIOR, POSTERIOR), 0)
    return np.rint(scan.clip(0, 255)).astype(np.uint8), truth.astype(np.uint8)


def _centre_line(y: Field | float) -> tuple[Field, Field]:
    """The x and z of the axis at y millimetres before its middle: it bends outwards and sinks forwards."""
    t = np.clip(np.asarray(y, dtype=float) / 19.0, -1.0, 1.0)
    return -3.0 + 5.0 * t**2 + 1.5 * t, 1.0 - 8.5 * t - 1.5 * t**2


def _body(x: Field, y: Field, z: Field) -> Field:
    """Distance from the hippocampus's axis, 1 on its surface: the least over balls strung along the axis."""
    least = np.full(SHAPE, np.inf)
    for middle in np.linspace(-14.0, 13.0, 40):
        t = (middle + 14.0) / 27.0  # 0 at the tail, 1 at the head
        across, along, up = 4.2 + 4.0 * t**1.5, 4.5 + 1.5 * t, 3.2 + 2.2 * t
        line_x, line_z = _centre_line(middle)
        square = ((x - line_x) / across) ** 2 + ((y - middle) / along) ** 2 + ((z - line_z) / up) ** 2
        np.minimum(least, square, out=least)
    return np.sqrt(least)


def _brain(x: Field, y: Field, z: Field, random: np.random.Generator) -> Field:
    """White matter, folds of grey with fluid in their depth, a brain stem in a cistern, fluid outside."""
    fold = np.abs(_smooth_noise(random, 4.5) + 0.35 * np.sin((z + 0.4 * y) / 5.0))
    scan = np.where(fold < 0.16, FLUID, np.where(fold < 0.75, GREY, WHITE))
    deep = gaussian_filter((z > 14.0).astype(float), 4.0)
    scan = deep * (WHITE - 6) + (1 - deep) * scan
    stem = np.hypot((x - 34.0) / 15.0, (y + 4.0) / 17.0)
    scan = np.where(stem < 1.18, FLUID, scan)
    scan = np.where(stem < 1.0, WHITE - 8, scan)
    outside = np.hypot((x - 10.0) / 46.0, np.hypot((y + 2.0) / 54.0, (z - 12.0) / 46.0))
    return np.where(outside > 1.0, FLUID * 0.6, scan)


def _smooth_noise(random: np.random.Generator, millimetres: float) -> Field:
    """Noise of mean 0 and deviation 1 whose grains have this size."""
    noise: Field = gaussian_filter(random.standard_normal(SHAPE), millimetres)
    return (noise - noise.mean()) / noise.std()


def main(folder: Path) -> None:
    """Write both files."""
    for name, array in zip(("phantom_t1", "phantom_truth"), make_phantom(), strict=True):
        image = nib.Nifti1Image(array, affine())
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / f"{name}.nii.gz")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
