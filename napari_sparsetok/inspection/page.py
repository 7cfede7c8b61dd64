"""The report as one page: no network, no script, nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from napari_sparsetok import __version__
from napari_sparsetok.inspection.finding import Findings
from napari_sparsetok.inspection.heads import Heads
from napari_sparsetok.inspection.plot import histogram_figure, picture, slice_figure, sweep_figure
from napari_sparsetok.inspection.table import sweep_table, unseen_table
from napari_sparsetok.state import Prediction
from napari_sparsetok.tokens import Unseen

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
:root { color-scheme: light dark; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: .2rem .6rem; text-align: right; }
th { border-bottom: 1px solid; font-weight: 600; } div.wide { overflow-x: auto; }
img { max-width: 100%; background: white; } p.note { opacity: .75; }
"""
_MOST = 20  # rows of pieces on the page; all are in the CSV


def page(title: str, findings: Findings, pieces: Sequence[Unseen]) -> str:
    """HTML of what was found out about one scan.

    Parameters
    ----------
    title : of the model.
    pieces : of the mask, which rest only on completed tokens.
    """
    prediction, sweep = findings.prediction, findings.sweep
    tokens, auto = prediction.tokens, sweep.auto()
    chosen = prediction.settings
    kept = f"{tokens.left[-1]} of {tokens.left[0]} tokens were kept to the end ({tokens.left[-1] / tokens.left[0]:.1%})"
    kept += f"; {tokens.empty} empty patches never entered" if tokens.empty else ""
    parts = [
        f"<h1>{escape(title)}: what the network looked at</h1>",
        f"<p>Tokens ranked by: {escape(chosen.selection)}. {_how(chosen)}: {kept}. "
        f"Ran on {escape(prediction.timing.device)}.</p>",
        f"<p>{_auto_words(auto)}</p>",
        "<h2>Slices</h2>",
        _image(picture(slice_figure(prediction, sweep)), "three slices with mask, pruned tokens, scores and stability"),
        "<p class=note>Dark blue: pruned at stage 1; purple, orange, light blue: at later stages; yellow: kept to the "
        "end. On the right: voxels whose label still changes, by the ratio from which it no longer does.</p>",
        "<h2>Keep ratios</h2>",
        _image(picture(sweep_figure(sweep)), "agreement and cost against the keep ratio"),
        _table(*sweep_table(sweep)),
        "<p class=note>Time is of one run each on this machine; only the first run computes what does not depend on "
        "the ratio. Memory is the most that the whole process held, as sampled.</p>",
        "<h2>Where the label still changes</h2>",
        _image(picture(histogram_figure(sweep)), "histogram of the lowest steady keep ratio"),
        "<h2>Never looked at to the end</h2>",
        _unseen(pieces, prediction),
        *_heads(findings.heads),
        f"<p class=note>napari-sparsetok {__version__}. Not a medical device.</p>",
    ]
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{escape(title)}: token report</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _how(settings: Any) -> str:
    if settings.threshold is not None:
        return f"Every stage keeps what scores at least {settings.threshold:g}"
    if settings.stage_ratios:
        return f"The stages keep {', '.join(f'{r:g}' for r in settings.stage_ratios)} of what is left"
    return f"Every stage keeps {settings.keep_ratio:g} of what is left"


def _auto_words(auto: float | None) -> str:
    if auto is None:
        return "At no keep ratio do all labels agree with the dense prediction by a Dice coefficient of 0.99."
    return (
        f"Down to a keep ratio of {auto:g} every label agrees with the dense prediction by a Dice coefficient of 0.99."
    )


def _unseen(pieces: Sequence[Unseen], prediction: Prediction) -> str:
    if not prediction.mask.any():
        return "<p>The mask is empty.</p>"
    if not pieces:
        return "<p>All of the mask lies in tokens that were kept to the end.</p>"
    gone = "pruned on the way, or never entered," if prediction.tokens.empty else "pruned on the way"
    words = (
        f"<p>{len(pieces)} pieces of the mask rest only on tokens that were {gone} and completed "
        f"afterwards. The largest {min(_MOST, len(pieces))}:</p>"
    )
    return words + _table(*unseen_table(pieces[:_MOST], prediction))


def _heads(heads: Heads | None) -> list[str]:
    if heads is None:
        return []
    place = " · ".join(map(str, heads.at))
    words = f"Of the window around voxel {place} (z · y · x). Dashed: attention spread evenly over the tokens."
    parts = ["<h2>How far attention heads look</h2>", f"<p>{words}</p>"]
    parts.append(_image(picture(heads.figure()), "share of the attention against distance, for each head and block"))
    if heads.loss is not None:
        block, head = np.unravel_index(int(heads.loss.argmax()), heads.loss.shape)
        worst = f"{heads.loss.max():.1%} of the window's labels change"
        parts.append(f"<p>Most matters head {head + 1} of block {block + 1}: without it {worst}.</p>")
    return parts


def _image(png: bytes, words: str) -> str:
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=wide><table><tr>{top}</tr>{lines}</table></div>"
