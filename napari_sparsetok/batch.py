"""The main job without a window: files in, files out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.correction import compose
from napari_sparsetok.engine.contract import Watch
from napari_sparsetok.engine.report import mask_hash
from napari_sparsetok.engine.report import report as make_report
from napari_sparsetok.files import (
    MadeBy,
    check_mask_name,
    check_not_of,
    mask_suffixes,
    open_scan,
    resampled_to,
    save_mask,
)
from napari_sparsetok.files.record import read_record, save_record
from napari_sparsetok.files.token_arrays import save_tokens
from napari_sparsetok.files.whole_file import written_whole
from napari_sparsetok.geometry import times_xyz
from napari_sparsetok.scan import Region, Scan, ScanError, stack_channels
from napari_sparsetok.state import DeviceChoice, Prediction, Reference, Selection, Settings
from napari_sparsetok.weights import Card, Registry


@dataclass(frozen=True)
class ScanFiles:
    """What is to be opened.

    paths : one file or folder, or one for each channel of the model.
    frame : which volume of a scan with a time axis.
    series, repair : see `napari_sparsetok.files.open_scan`; the same for all.
    resample_channels : bring further scans to the grid of the first.
    """

    paths: tuple[Path, ...]
    frame: int = 0
    series: str | None = None
    repair: str = ""
    resample_channels: bool = False


@dataclass(frozen=True)
class Order:
    """What is to be segmented, and what is to be written.

    source : the scan.
    settings : see `Settings`.
    out : the mask.
    region : "z0:z1,y0:y1,x0:x1", voxels of the shown axes; None is the whole scan.
    around : "r,a,s" millimetres; a box of the model's size around this point instead.
    report, tokens : further files, if wanted.
    """

    source: ScanFiles
    settings: Settings
    out: Path
    region: str | None = None
    around: str | None = None
    report: Path | None = None
    tokens: Path | None = None


def segment_file(
    order: Order,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_notice: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Segment and save.

    Returns
    -------
    The report.

    Raises
    ------
    ScanError : anything about the files, the region, the settings or the model that cannot be used. What is to be
        written is looked at before anything is computed.
    """
    registry = Registry()
    card = registry[order.settings.model]
    scan = opened(order.source)
    for note in scan.notes:
        on_notice(note)
    region = region_of(order.region, order.around, scan, card)
    if region is None and card.is_too_large([n * s for n, s in zip(scan.shape, scan.geometry.spacing, strict=True)]):
        size = times_xyz(card.window_mm, "{:.0f}")
        on_notice(
            f"“{card.title}” works on boxes of up to {size} mm around the structure. In a whole scan it also marks "
            "places where the structure is not; say where it is with --around or --region"
        )
    _check_outputs(order, scan)

    from napari_sparsetok.engine.segmenter import SCDSegmenter  # loads torch: only once the input is known to be good

    segmenter = SCDSegmenter(registry, cache_bytes=0)  # nothing is segmented twice here
    device = segmenter.prepare(order.settings)
    if device.warning:
        on_notice(device.warning)
    watch = Watch(on_progress=on_progress, on_notice=on_notice)
    prediction = segmenter.segment(scan, order.settings, region=region, watch=watch)
    save_mask(order.out, prediction.mask, scan, prediction.labels, MadeBy(card.id, corrected=False))
    if order.tokens:
        save_tokens(order.tokens, prediction.tokens)
    document = make_report(prediction, card)
    if order.report:
        with written_whole(Path(os.path.expanduser(order.report))) as part:
            part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def _check_outputs(order: Order, scan: Scan) -> None:
    """No two can have one name, as their names end otherwise."""
    _check_mask(order.out, scan)
    further = {"report": (order.report, ".json"), "token map": (order.tokens, ".npz")}
    for what, (path, ending) in further.items():
        if path is None:
            continue
        if path.suffix != ending:
            raise ScanError(f"the {what} is saved as {ending}; let its name end so, not in “{path.suffix}”")
        check_not_of(path, scan)
        _check_place(path)


def _check_mask(path: Path, scan: Scan) -> None:
    check_mask_name(path, scan)
    if not path.name.lower().endswith(mask_suffixes(scan)):
        raise ScanError(
            f"{path.name} cannot be saved as DICOM: not every slice of the scan is an image of a DICOM series that it "
            "could refer to; save it as .nii.gz or .nrrd"
        )
    _check_place(path)


def _check_place(path: Path) -> None:
    """What the disk will refuse for certain is better known before hours of computing than after."""
    target = Path(os.path.realpath(os.path.expanduser(path)))
    if target.is_dir():
        raise ScanError(f"{path.name} is a folder; give the name of a file")
    there = next((folder for folder in target.parents if os.path.lexists(folder)), target.parent)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ScanError(f"{path.name} cannot be written to {there}; choose another folder")


def save_result(
    path: Path, prediction: Prediction, card: Card, corrections: NDArray[np.uint8] | None, remarks: Mapping[str, Any]
) -> None:
    """Save a mask on its scan's own grid, and beside it the record of how it came about.

    Parameters
    ----------
    card : of the model that made the prediction.
    corrections : (z, y, x), what a person says instead, if anyone did.
    remarks : what the record says besides, ready for JSON.

    Raises
    ------
    ScanError : the format cannot hold it, or the disk refuses.
    """
    mask = prediction.mask if corrections is None else compose(prediction.mask, corrections)
    made_by = MadeBy(card.id, corrected=corrections is not None and bool(corrections.any()))
    written = save_mask(path, mask, prediction.scan, prediction.labels, made_by)
    save_record(written, {**make_report(prediction, card, corrections), **remarks})


def replay(
    record: Path,
    source: ScanFiles,
    out: Path | None = None,
    reference: Path | None = None,
    device: DeviceChoice | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Make the prediction of a record again.

    Parameters
    ----------
    record : the JSON file that was saved beside a mask.
    source : the scan that it was made of.
    out : where to write the prediction, if anywhere.
    reference : the mask that ranked the tokens, if one did.
    device : where to compute; None is what the record says, which may not be there.

    Returns
    -------
    A document with `same`: whether every voxel is as it was. On another kind of device a few may differ.

    Raises
    ------
    ScanError : it is another scan, the model is not here with the same weights, the mask was unfinished when it was
        saved, or `out` cannot be written. That is looked at before anything is computed.
    """
    # That it is the very mask of the record says more than its grid.
    ranked_by = None if reference is None else Reference(_numbers_of(open_scan(reference), reference))
    then = _Recorded.of(read_record(record), ranked_by)
    registry = Registry()
    card = registry[then.model]
    if card.sha256 != then.weights:
        raise ScanError(f"the model “{card.id}” has other weights now; install the version of the record")
    scan = opened(source)
    if scan.content_hash != then.scan:
        raise ScanError("this is not the scan of the record: its voxels or its place differ")
    if out is not None:
        _check_mask(out, scan)

    from napari_sparsetok.engine.segmenter import SCDSegmenter

    segmenter = SCDSegmenter(registry, cache_bytes=0)
    settings = then.settings if device is None else replace(then.settings, device=device)
    prediction = segmenter.segment(scan, settings, region=then.region, watch=Watch(on_progress=on_progress))
    if out is not None:
        save_mask(out, prediction.mask, scan, prediction.labels, MadeBy(card.id, corrected=False))
    return {
        "same": mask_hash(prediction.mask) == then.prediction,
        "model": card.id,
        "device": prediction.timing.device,
        "device_then": then.device,
    }


@dataclass(frozen=True)
class _Recorded:
    """What a record says of how a prediction was made; hashes of weights, scan and prediction."""

    model: str
    weights: str
    scan: str
    settings: Settings
    region: Region
    prediction: str
    device: str

    @classmethod
    def of(cls, document: Mapping[str, Any], reference: Reference | None = None) -> _Recorded:
        """From a record.

        Raises
        ------
        ScanError : a newer version wrote it, it is of an unfinished mask, or it is damaged.
        """
        try:
            unknown = set(document["settings"]) - {field.name for field in fields(Settings)}
            if unknown:
                words = ", ".join(sorted(map(str, unknown)))
                raise ScanError(
                    f"this record has settings that this version does not know ({words}); update napari-sparsetok"
                )
            settings = Settings.from_json(document["settings"], reference)
            _check_kinds(settings)
            start, stop = (tuple(int(n) for n in document["region_zyx"][key]) for key in ("start", "stop"))
            if (len(start), len(stop)) != (3, 3):
                raise ValueError("a region has three axes")
            if not document.get("complete", True):
                raise ScanError(
                    "this record is of an unfinished mask: parts of the scan were not segmented yet when it was saved. "
                    "So it cannot be made again; segment the scan to the end and save again"
                )
            return cls(
                model=str(document["model"]["id"]),
                weights=str(document["model"]["sha256"]),
                scan=str(document["scan"]["sha256"]),
                settings=replace(settings, keep_ratio=float(settings.keep_ratio)),
                region=Region(start, stop),  # type: ignore[arg-type]
                prediction=str(document["prediction_sha256"]),
                device=str(document.get("device", "unknown")),
            )
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            if isinstance(error, ScanError):
                raise
            raise ScanError(f"what this record says cannot be used again ({error})") from None


def _check_kinds(settings: Settings) -> None:
    """Whether settings from a file are of the kinds that the engine reckons with; their limits it looks at itself."""
    optional = [value for value in (settings.threshold, settings.replace_nonfinite) if value is not None]
    if not all(isinstance(value, int | float) for value in (*optional, *(settings.stage_ratios or ()))):
        raise ValueError("a ratio, a threshold or a replacement is no number")
    if type(settings.seed) is not int or type(settings.all_pieces) is not bool:
        raise ValueError("“seed” is a whole number, and “all_pieces” true or false")
    for value, known in ((settings.device, DeviceChoice), (settings.selection, Selection)):
        if value not in get_args(known):
            raise ValueError(f"{value!r} is none of {', '.join(get_args(known))}")
    if settings.forced is not None:
        settings.forced.signs()  # tokens that are not on their grid


def opened(source: ScanFiles) -> Scan:
    """The scan of some files, all channels on one grid.

    Raises
    ------
    ScanError : it cannot be opened, or has no such frame.
    """
    scans = [open_scan(path, series=source.series, repair=source.repair) for path in source.paths]
    frames = [len(scan.voxels) for scan in scans if scan.leading == "time"]
    if frames and not 0 <= source.frame < min(frames):
        raise ScanError(f"the scan has {min(frames)} frames, counted from 0; there is no frame {source.frame}")
    if source.frame and not frames:
        raise ScanError(f"the scan has no time axis, so there is no frame {source.frame}; leave the frame out")
    volumes = [scan.frame(source.frame) for scan in scans]
    if len(volumes) == 1:
        return volumes[0]
    if source.resample_channels:
        volumes = [volumes[0], *(resampled_to(volume, volumes[0].geometry) for volume in volumes[1:])]
    return stack_channels(volumes)


def mask_on_grid(path: Path, scan: Scan) -> NDArray[Any]:
    """A mask of a file, on the scan's grid.

    Raises
    ------
    ScanError : it lies on another grid, or is no mask.
    """
    mask = open_scan(path)
    if not mask.geometry.same_grid(scan.geometry):
        raise ScanError(f"{path.name} does not lie on the voxels of the scan; bring it there first")
    return _numbers_of(mask, path)


def _numbers_of(mask: Scan, path: Path) -> NDArray[np.uint8]:
    values = np.asarray(mask.voxels)
    if values.ndim != 3 or not np.array_equal(values, np.round(values)) or values.min() < 0 or values.max() > 255:
        raise ScanError(f"{path.name} is no mask: a mask holds whole numbers from 0 to 255")
    return values.astype(np.uint8)


def region_of(region: str | None, around: str | None, scan: Scan, card: Card) -> Region | None:
    """The box that is meant by one of two texts, see `Order`; None is the whole scan.

    Raises
    ------
    ScanError : both are given, or one cannot be read or lies outside.
    """
    if region and around:
        raise ScanError("give either a region or a point around which to segment, not both")
    if region:
        return _parsed_region(region).clipped(scan.shape)
    if around:
        point = np.append(numbers(around, ",", 3, "a point is three numbers, as in -27,-21,-16"), 1.0)
        voxel = (np.linalg.inv(scan.geometry.affine) @ point)[:3]
        if not all(-0.5 <= v <= n - 0.5 for v, n in zip(voxel, scan.shape, strict=True)):
            raise ScanError(f"the point {around} lies outside the scan")
        return scan.geometry.region_around([round(v) for v in voxel.tolist()], card.window_mm)
    return None


def _parsed_region(text: str) -> Region:
    hint = f"“{text}” is no region; write it as 10:46,20:70,5:41 (first:end along z, y and x, voxels counted from 0)"
    parts = [numbers(part, ":", 2, hint) for part in text.split(",")]
    if len(parts) != 3 or any(n < 0 or n != int(n) for part in parts for n in part):
        raise ScanError(hint)
    start, stop = zip(*(tuple(int(n) for n in part) for part in parts), strict=True)
    return Region(start, stop)


def numbers(text: str, separator: str, count: int | None, hint: str) -> list[float]:
    """The finite numbers in a text, `count` of them if it is given.

    Raises
    ------
    ScanError : with the hint, if the text does not hold them.
    """
    try:
        found = [float(part) for part in text.split(separator)]
    except ValueError:
        raise ScanError(hint) from None
    if len(found) != (count or len(found)) or not np.isfinite(found).all():
        raise ScanError(hint)
    return found
