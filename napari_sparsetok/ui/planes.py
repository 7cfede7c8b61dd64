"""The three planes, in a viewer whose last three axes are I–S, A–P and R–L."""

from __future__ import annotations

from napari.components import ViewerModel

PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""For each plane: the axis across it, then the ones down and to the right."""


def show_plane(viewer: ViewerModel, plane: str) -> None:
    """Show a plane, in 2-D."""
    dims = viewer.dims
    if dims.ndim < 3:
        return
    first = dims.ndim - 3
    dims.ndisplay = 2
    dims.order = (*range(first), *(first + axis for axis in PLANES[plane]))


def plane_of(viewer: ViewerModel) -> str:
    """The plane that is shown; "" in 3-D, or when the axes were rolled to none."""
    dims = viewer.dims
    if dims.ndim < 3 or dims.ndisplay != 2:
        return ""
    first = dims.ndim - 3
    order = tuple(axis - first for axis in dims.order[-3:])
    return next((plane for plane, axes in PLANES.items() if axes == order), "")


def step_slice(viewer: ViewerModel, by: int) -> None:
    """Go some slices up or down, across the plane that is shown."""
    dims = viewer.dims
    if dims.ndim < 3 or dims.ndisplay != 2:
        return
    axis = dims.order[-3]
    dims.set_current_step(axis, min(max(0, dims.current_step[axis] + by), dims.nsteps[axis] - 1))
