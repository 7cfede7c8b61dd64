"""Draw a made-up CT of a head and neck: skull, spine, jaw, teeth, airway, glands and muscle, as formulas.

    python sample_data/make_ct_phantom.py FILE.nii.gz

Needs numpy, scipy and nibabel. The same seed draws the same phantom. It is synthetic through and through, and too large
to lie beside the other; the pictures of the inspector on CT are made from it (`scripts/inspector-pictures`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SPACING = (3.9, 3.9, 2.5)  # mm towards left, posterior, superior: those of a coarse planning CT
LOW, HIGH = (-105.0, -125.0, -118.0), (105.0, 105.0, 172.0)  # mm around the top of the spine
SEED = 2303
AIR, FAT, WATER, SOFT, MUSCLE, BRAIN = -1000.0, -95.0, 8.0, 35.0, 58.0, 36.0
MARROW, BONE, TOOTH, CARTILAGE, GLAND = 280.0, 1000.0, 1900.0, 160.0, -5.0

Field = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Phantom:
    """Hounsfield units (x, y, z); each part is painted over those before."""

    def __init__(self) -> None:
        axes = [np.arange(a, b, s) for a, b, s in zip(LOW, HIGH, SPACING, strict=True)]
        self.x, self.y, self.z = np.meshgrid(*axes, indexing="ij")
        self.hu = np.full(self.x.shape, AIR)

    def paint(self, where: Bools, value: float) -> None:
        """Fill with a value."""
        self.hu[where] = value

    def ball(self, middle: tuple[float, float, float], radii: tuple[float, float, float]) -> Field:
        """Distance from the middle of an ellipsoid, 1 on its surface."""
        sides = zip((self.x, self.y, self.z), middle, radii, strict=True)
        return np.sqrt(sum((((at - m) / r) ** 2 for at, m, r in sides), np.zeros_like(self.x)))

    def rod(self, middle: tuple[float, float], radii: tuple[float, float]) -> Field:
        """The same of an upright elliptic cylinder."""
        return np.hypot((self.x - middle[0]) / radii[0], (self.y - middle[1]) / radii[1])

    def between(self, low: float, high: float) -> Bools:
        """Slices between two heights, mm."""
        return (self.z >= low) & (self.z <= high)


def make_phantom(seed: int = SEED) -> NDArray[np.int16]:
    """Hounsfield units (x, y, z)."""
    p = Phantom()
    _skin(p)
    _skull(p)
    _spine(p)
    _face(p)
    _throat(p)
    random = np.random.default_rng(seed)
    hu = gaussian_filter(p.hu, 0.45)  # partial volume
    texture = gaussian_filter(random.normal(size=hu.shape), 1.2)
    hu += (hu > -500) * 8 * texture / texture.std() + random.normal(0, 12, hu.shape)
    return np.rint(hu.clip(-1024, 3000)).astype(np.int16)


def affine() -> Field:
    """(4, 4), from voxel indices to RAS millimetres."""
    matrix = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    matrix[:3, 3] = -LOW[0], -LOW[1], LOW[2]
    return matrix


def _skin(p: Phantom) -> None:
    """Outline, fat under the skin, and what lies within."""
    neck = np.where(p.between(-125, 30), p.rod((0, 4), (66, 64)), 9.0)
    jaw = p.ball((0, -52, 8), (62, 56, 62))
    outline = np.minimum.reduce([p.ball((0, -6, 84), (78, 98, 88)), neck, jaw])
    nose = p.ball((0, -112, 44), (14, 16, 22))
    p.paint((outline < 1.0) | (nose < 1), SOFT)
    p.paint((outline >= 0.93) & (outline < 1.0), FAT)
    p.paint((neck < 0.93) & p.between(-125, -18) & (jaw > 1), FAT)


def _skull(p: Phantom) -> None:
    shell = p.ball((0, 0, 86), (71, 88, 78))
    above = p.z > 18 - 0.25 * p.y
    p.paint((shell < 1.0) & above, BONE)
    p.paint((shell < 0.965) & (shell > 0.935) & above, MARROW)
    inside = (shell < 0.90) & (p.z > 26 - 0.25 * p.y)
    p.paint(inside, WATER)
    p.paint((shell < 0.87) & (p.z > 30 - 0.25 * p.y), BRAIN)
    for side in (-1, 1):  # ventricles, petrous bones with their air cells
        p.paint(p.ball((side * 12, -8, 98), (7, 26, 9)) < 1, WATER)
        p.paint((p.ball((side * 42, 16, 34), (24, 12, 10)) < 1), BONE)
        p.paint(p.ball((side * 55, 26, 26), (8, 9, 10)) < 1, -500.0)
    p.paint(p.ball((0, 48, 44), (38, 22, 18)) < 1, BRAIN + 4)  # cerebellum
    p.paint(p.ball((0, 19, 36), (24, 22, 30)) < 1, WATER)  # the cisterns around the brain stem
    p.paint(p.ball((0, 17, 38), (15, 14, 30)) < 1, BRAIN)


def _spine(p: Phantom) -> None:
    """Vertebrae of 17 mm each, their arches, the canal and the cord."""
    column = p.between(-125, 8)
    p.paint(column & (p.rod((-44, 12), (17, 26)) < 1), MUSCLE)
    p.paint(column & (p.rod((44, 12), (17, 26)) < 1), MUSCLE)
    p.paint(column & (p.rod((0, 46), (40, 20)) < 1), MUSCLE)
    disc = np.mod(p.z, 17.0) < 4.0
    body = p.rod((0, 4), (14, 11))
    p.paint(column & (body < 1), BONE * 0.6)
    p.paint(column & (body < 0.78), MARROW)
    p.paint(column & disc & (body < 1), 90.0)
    p.paint(column & ~disc & (p.rod((0, 22), (19, 14)) < 1), BONE * 0.7)
    p.paint(column & ~disc & (p.rod((0, 40), (4, 14)) < 1), BONE * 0.7)
    canal = p.between(-125, 26)
    p.paint(canal & (p.rod((0, 20), (12, 9.5)) < 1), WATER)
    p.paint(canal & (p.rod((0, 20), (7, 5.5)) < 1), BRAIN)


def _face(p: Phantom) -> None:
    """Jaw, teeth, cheeks, sinuses, glands."""
    arch = np.hypot(p.x / 46, (p.y + 40) / 58)
    front = (p.y < -34) & p.between(-34, -8)
    p.paint((arch < 1.0) & (arch > 0.79) & front, BONE)
    p.paint((arch < 0.94) & (arch > 0.85) & front & p.between(-28, -14), MARROW)
    p.paint((arch < 0.95) & (arch > 0.83) & (p.y < -46) & p.between(-8, 10), TOOTH)
    p.paint((arch < 0.96) & (arch > 0.76) & (p.y < -40) & p.between(10, 20), BONE)  # upper jaw
    for side in (-1, 1):
        ramus = (np.abs(p.x - side * (44 + 0.08 * (p.z + 30))) < 6) & (np.abs(p.y + 30 - 0.18 * p.z) < 17)
        p.paint(ramus & p.between(-34, 34), BONE)
        p.paint(p.ball((side * 57, -26, -2), (9, 20, 26)) < 1, MUSCLE)  # masseter
        p.paint(p.ball((side * 58, -4, 4), (15, 17, 27)) < 1, GLAND)  # parotid
        p.paint(p.ball((side * 28, -30, -26), (12, 16, 12)) < 1, 20.0)  # gland under the jaw
        p.paint(p.ball((side * 28, -66, 42), (16, 18, 18)) < 1, BONE * 0.5)
        p.paint(p.ball((side * 28, -66, 42), (13, 15, 15)) < 1, AIR)  # sinus
        p.paint(p.ball((side * 32, -78, 74), (17, 18, 16)) < 1, FAT)
        p.paint(p.ball((side * 32, -80, 74), (12, 12, 12)) < 1, WATER)  # eye
    p.paint(p.ball((0, -62, -8), (30, 30, 18)) < 1, MUSCLE)  # tongue
    p.paint((p.ball((0, -66, 44), (12, 40, 22)) < 1) & (np.abs(p.x) > 2.5), AIR)  # nose


def _throat(p: Phantom) -> None:
    """Airway from the nose to the windpipe, the larynx around it, the gullet behind."""
    p.paint(p.between(-20, 40) & (p.rod((0, -22), (13, 7)) < 1), AIR)
    p.paint(p.between(-52, -20) & (p.rod((0, -20), (15, 9)) < 1), AIR)
    shield = p.rod((0, -30), (19, 18))
    p.paint(p.between(-84, -52) & (shield < 1.0), SOFT)
    p.paint(p.between(-84, -52) & (shield < 1.0) & (shield > 0.8) & (p.y < -22), CARTILAGE)
    p.paint(p.between(-92, -80) & (p.rod((0, -26), (15, 14)) < 1), CARTILAGE)
    p.paint(p.between(-125, -52) & (p.rod((0, -27), (9, 9)) < 1), AIR)
    p.paint(p.between(-66, -62) & (p.rod((0, -27), (9, 9)) < 1) & (np.abs(p.x) > 3), MUSCLE)  # vocal folds
    p.paint(p.between(-125, -84) & (p.rod((0, -11), (9, 5)) < 1), MUSCLE)
    for side in (-1, 1):
        p.paint(p.between(-110, -60) & (p.rod((side * 22, -24), (9, 14)) < 1), 90.0)  # thyroid
        p.paint(p.between(-125, 0) & (p.rod((side * 30, -10), (6, 6)) < 1), 45.0)  # vessels


if __name__ == "__main__":
    nib.save(nib.Nifti1Image(make_phantom(), affine()), Path(sys.argv[1]))
