"""What an evaluation found, for people: a table, and a sentence for each thing that it does not hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_sparsetok.training.confusion import worst_confusion


def markdown(document: dict[str, Any]) -> str:
    """The document's table, a row for each keep ratio; tokens and GMAC are means over scans."""
    names = [label["name"] for label in document["keep_ratios"][0]["labels"]]
    several = len({row["selection"] for row in document["keep_ratios"]}) > 1
    head = ["keep ratio", *(["selection"] if several else []), "tokens per scan", "GMAC per scan"]
    head += [*(f"{name}: Dice" for name in names), "mean Dice", "missed, invented", "agreement with dense"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in document["keep_ratios"]:
        cells = [row["pruning"], *([row["selection"]] if several else [])]
        cells += [" → ".join(f"{n:.0f}" for n in row["tokens_per_case"]), f"{row['gmac_per_case']:.2f}"]
        for label in row["labels"]:
            d = label["dice"]
            cells.append(f"{d['mean']:.3f} ({d['low']:.3f}–{d['high']:.3f})")
        agreement = np.nanmean([label["agreement"]["mean"] for label in row["labels"]])
        missed, invented = (sum(x[f"{name}_cases"] for x in row["labels"]) for name in ("missed", "invented"))
        cells += [f"{row['mean_dice']:.3f}", f"{missed}, {invented}", f"{agreement:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def findings(document: dict[str, Any]) -> list[str]:
    """What the table does not hold, a sentence each: the scores' worth, and what learned selection brings."""
    lines = [f"First-stage scores against labelled tokens: area under the ROC {_interval(document['score_roc_auc'])}."]
    several = len({row["selection"] for row in document["keep_ratios"]}) > 1
    entered = document["score_roc_auc_entered"]
    if entered != document["score_roc_auc"]:
        lines.append(f"Among the tokens that entered, as their patch is not empty: {_interval(entered)}.")
    lines += [_confused(row, several) for row in document["keep_ratios"]]
    for row in document.get("learned_minus", ()):
        lines.append(f"At {_pruning(row)}, learned minus {row['selection']}: Dice {_interval(row['dice'], '+')}.")
    for row in document.get("deletion", ()):
        lines.append(
            f"Without {row['share']:.0%} of the tokens, agreement with dense: worst-scored taken "
            f"{_interval(row['worst'])}, at random {_interval(row['random'])}, best-scored {_interval(row['best'])}."
        )
    return lines


def _confused(row: dict[str, Any], several: bool) -> str:
    where = f"{_pruning(row)}, {row['selection']}" if several else _pruning(row)
    worst = worst_confusion(row["confusion"])
    if worst is None:
        return f"At {where}, nothing drawn was taken for another label."
    mine, other, share = worst
    return f"At {where}, most was taken for another label of {mine}: {share:.2%}, for {other}."


def _pruning(row: dict[str, Any]) -> str:
    return str(row["pruning"]) if row["keep_ratio"] is None else f"keep ratio {row['pruning']}"


def _interval(found: dict[str, float], sign: str = "") -> str:
    return f"{found['mean']:{sign}.4f} ({found['low']:{sign}.4f} to {found['high']:{sign}.4f})"
