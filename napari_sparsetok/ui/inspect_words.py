"""What the Inspect tab says, in plain words. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from napari_sparsetok.inspection.ladder import Rung
from napari_sparsetok.labels import LabelTable
from napari_sparsetok.metrics import Agreement
from napari_sparsetok.scan import Geometry, Shape
from napari_sparsetok.state import Prediction, Settings, TokenMap
from napari_sparsetok.tokens import Lattice, StageStory, Unseen, story
from napari_sparsetok.ui.style import share as per_cent

RULES = {
    "learned": ("the model's own scores", "What the model learned: how much a token matters for the mask"),
    "attention": ("attention received", "How much the other tokens look at a token, on average"),
    "norm": ("token length", "How long the token's vector is"),
    "entropy": ("image detail", "How varied the grey values in the token's patch are (entropy)"),
    "oracle": ("the reference mask", "Tokens in and near a mask that you choose: the best that a choice could do"),
    "random": ("chance", "A draw: what any rule has to beat"),
}
"""For each rule what it ranks by, and a sentence."""

_SHORT = 14  # letters of a label's name for which there is room beside the numbers
NOT_YET = "This part is not computed yet."


def fate(stage: int, stages: int, covered: bool = False) -> str:
    """What became of a token, as one sentence; `covered` says that a window was run that holds it."""
    if stage == 0 and covered:
        return (
            "There is nothing but background here, so this patch never entered the network; "
            "what is shown was completed afterwards."
        )
    if stage == 0:
        return "No window of the network covers this place."
    if stage > stages:
        return "The network looked here to the end."
    if stages == 1:
        return "The network stopped looking here at its only stage; what is shown was completed afterwards."
    ordinal = "first" if stage == 1 else "last" if stage == stages else f"{stage}."
    return (
        f"The network stopped looking here at the {ordinal} of {stages} stages; what is shown was completed afterwards."
    )


def told(prediction: Prediction, tokens: TokenMap, lattice: Lattice, voxel: Shape) -> str:
    """The story of a voxel's token, from what the prediction already holds: no network is run.

    Margins are against all tokens of the scan; the cut is made in each window for itself.
    """
    place = lattice.token(voxel)
    if place is None or tokens.stage[place] == 0:
        covered = place is not None and bool(tokens.covered[place])
        return f"<p>{fate(0, tokens.stages, covered) if prediction.complete or covered else NOT_YET}</p>"
    stage = int(tokens.stage[place])
    lines = [f"<p><b>{fate(stage, tokens.stages)}</b></p>"]
    if tokens.forced is not None and tokens.forced[place]:
        lines.append(f"<p>You said that this token must {'stay' if tokens.forced[place] > 0 else 'go'}.</p>")
    rows = [_stage_row(k, one) for k, one in enumerate(story(tokens.importance, tokens.stage, place, tokens.forced), 1)]
    head = _row(["stage", "score", "rank", "above", "margin"])
    lines.append(f"<table cellspacing=6>{head}{''.join(rows)}</table>")
    lines += _by_window(tokens, place)
    at = prediction.scan.geometry.affine[:3] @ np.array([*voxel, 1.0])
    where = ", ".join(f"{round(s * float(v), 1) + 0.0:.1f}" for s, v in zip((-1, -1, 1), at, strict=True))
    words = _label(prediction, lattice, voxel, place)
    lines.append(f"<p>Token {place[0]} · {place[1]} · {place[2]} (z · y · x), LPS {where} mm. {words}</p>")
    return "".join(lines).replace("-", "−")


def _stage_row(number: int, one: StageStory) -> str:
    margin = "–" if math.isnan(one.margin) else f"{one.margin:+.3f}"
    above = f"{one.percentile:.0f}" if one.percentile < 99 or one.percentile == 100 else f"{one.percentile:.1f}"
    return _row([str(number), f"{one.score:.3f}", f"{one.rank + 1} of {one.entered}", f"{above} %", margin])


def _row(cells: Sequence[str]) -> str:
    """A row of a table whose cells are never broken over two lines."""
    joined = [cell.replace(" ", "\u00a0").replace(".", ".\u2060") for cell in cells]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in joined) + "</tr>"


def _by_window(tokens: TokenMap, place: Shape) -> list[str]:
    """Where windows overlap: how many of them kept the token to the end."""
    if tokens.windows is None or tokens.passed is None or not tokens.stages or tokens.windows[place] < 2:
        return []
    windows = int(tokens.windows[place])
    kept = round(float(tokens.passed[(-1, *place)]) * windows)
    words = f"{windows} windows overlap here; {kept or 'none'} of them kept this token to the end."
    return [f"<p>{words} What is told is of the one in whose middle it lies.</p>"]


def _label(prediction: Prediction, lattice: Lattice, voxel: Shape, place: Shape) -> str:
    """What the voxel is labelled, and how much of its token has that label; counted in the token's box alone."""
    box = tuple(slice(*_span(axis, at)) for axis, at in zip(lattice.axes, place, strict=True))
    inside = prediction.mask[box]
    names = {label.id: label.name for label in prediction.labels}
    number = int(prediction.mask[voxel])
    alike = int(np.count_nonzero(inside == number if number else inside))
    what = escape(names.get(number, "")) if number else "background"
    kind = "the mask" if not number else "this label"
    return f"The voxel is {what}; {per_cent(alike, inside.size)} of its token is {kind}."


def _span(axis: NDArray[np.intp], at: int) -> tuple[int, int]:
    here = np.flatnonzero(axis == at)
    return (int(here[0]), int(here[-1]) + 1) if here.size else (0, 0)


def probed(probabilities: Sequence[float] | None, labels: LabelTable, lowest: float | None, asked: bool) -> str:
    """What only the network could say: class probabilities, and from which keep ratio the token is kept."""
    parts = []
    if probabilities is not None:
        names = ["background", *(label.name for label in labels)]
        order = np.argsort(probabilities)[::-1][:3]
        shares = ", ".join(f"{escape(names[k])} {per_cent(probabilities[k], 1)}" for k in order)
        parts.append(f"<p>Here the model says: {shares}.</p>")
    if asked:
        words = (
            "even at a keep ratio of 1 it is not kept"
            if lowest is None
            else f"kept to the end from a keep ratio of {_rounded_up(lowest):g}"
        )
        parts.append(f"<p>Its token: {words}, if all stages have the same.</p>")
    return "".join(parts)


def _rounded_up(ratio: float) -> float:
    """To two digits, and never down: below the ratio the token was lost."""
    unit = 10.0 ** (math.floor(math.log10(ratio)) - 1)
    return float(f"{math.ceil(ratio / unit - 1e-6) * unit:.6g}")


def against_dense(rung: Rung) -> str:
    """One ratio of a comparison, label by label: against keeping all, and against the reference if there is one."""
    short = not rung.reference and all(len(row.name) <= _SHORT for row in rung.agreement)
    rows = [_row(["against" if rung.reference else "", "Dice", "HD95", "mL"])]
    for k, row in enumerate(rung.agreement):
        if not short:
            rows.append(f"<tr><td colspan=4><i>{escape(row.name)}</i></td></tr>")
        rows.append(_agreement_row("keeping all" if rung.reference else escape(row.name) if short else "", row))
        rows += [_agreement_row("reference", rung.reference[k])] if rung.reference else []
    against = "" if rung.reference else " against keeping all"
    table = f"<table cellspacing=3>{''.join(rows)}</table>".replace("-", "−")
    return f"<p>At {rung.keep_ratio:g}{against} (HD95 in mm):</p>{table}"


def _agreement_row(against: str, row: Agreement) -> str:
    digits = 2 if row.ml < 10 else 1
    more = round(row.ml - row.other_ml, digits) + 0.0  # no negative zero
    ml = f"{row.ml:.{digits}f} ({more:+.{digits}f})"
    return _row([against, f"{row.dice:.3f}", millimetres(row.hd95), ml])


def millimetres(far: float) -> str:
    """A distance, or a dash where it has no meaning because one of the masks lacks the label."""
    return "–" if math.isnan(far) else f"{far:.1f}"


def unseen_summary(pieces: Sequence[Unseen], voxels: int, of: str = "the mask", beside: int = 0) -> str:
    """A sentence or two over the list of pieces, of a mask of so many voxels, and more where no window was run."""
    if not voxels:
        return f"{escape(of[:1].upper() + of[1:])} {'lies where no window was run' if beside else 'is empty'}."
    told = _unseen_share(pieces, voxels, of if not beside else f"what of {of} lies in the part that was segmented")
    more = f" {per_cent(beside, voxels + beside)} of {escape(of)} lies where no window was run." if beside else ""
    return told + more


def _unseen_share(pieces: Sequence[Unseen], voxels: int, of: str) -> str:
    if not pieces:
        return f"All of {escape(of)} lies in tokens that were kept to the end."
    completed = sum(piece.voxels for piece in pieces)
    whole = sum(piece.whole for piece in pieces)
    more = (
        f" {whole} of them hang{'s' if whole == 1 else ''} together with nothing that was looked at to the end."
        if whole
        else ""
    )
    plural = "" if len(pieces) == 1 else "s"
    share = f"{per_cent(completed, voxels)} of {escape(of)}, in {len(pieces)} piece{plural},"
    return f"{share} lies in tokens that were not kept to the end.{more}"


def unseen_line(piece: Unseen, labels: LabelTable, geometry: Geometry) -> str:
    """One piece in a list."""
    name = next((label.name for label in labels if label.id == piece.label), f"label {piece.label}")
    ml = piece.voxels * float(np.prod(geometry.spacing)) / 1000
    large = f"{ml:.2f} mL" if ml >= 0.005 else f"{piece.voxels} voxel{'' if piece.voxels == 1 else 's'}"
    return f"{large} of {name}{', a piece of its own' if piece.whole else ''}"


def share(settings: Settings) -> str:
    """How many tokens each stage keeps, in a few words."""
    if settings.threshold is not None:
        return f"above {settings.threshold:g}"
    ratios = settings.stage_ratios or (settings.keep_ratio,)
    return f"at {', '.join(f'{ratio:g}' for ratio in ratios)}"


def budget(tokens: TokenMap) -> str:
    """How many tokens were forced, and what that means for the number that is kept."""
    if tokens.forced is None:
        return "No token is chosen by hand."
    must, never = int((tokens.forced > 0).sum()), int((tokens.forced < 0).sum())
    stay = f"{must} token{'' if must == 1 else 's'} must stay"
    return f"{stay}, {never} must go; {tokens.left[-1]} of {tokens.left[0]} are kept to the end."
